"""A training as PyTorch Lightning's users write it: val after every epoch, no logger, no checkpoints."""

from __future__ import annotations

import logging
import warnings
from typing import Any

import lightning
import torch
from lightning.pytorch.utilities.warnings import PossibleUserWarning
from torch import Tensor, nn
from torch.utils.data import DataLoader
from torchmetrics.classification import BinaryAUROC

from tests.bench.usual_way import loss_of, warm_cosine

logging.getLogger("lightning.pytorch").setLevel(logging.ERROR)


class Training(lightning.LightningModule):
    def __init__(self, net: Any, lr: float, kind: str, epochs: int) -> None:
        super().__init__()
        self.net, self.lr, self.kind, self.epochs = net, lr, kind, epochs
        self.auc = BinaryAUROC()

    def training_step(self, batch: tuple[Tensor, Tensor], index: int) -> Tensor:
        return loss_of(self.net(batch[0]), batch[1], self.kind)

    def validation_step(self, batch: tuple[Tensor, Tensor], index: int) -> None:
        self.auc.update(self.net(batch[0]).softmax(1)[:, 1], batch[1].squeeze(1))
        self.log("val_auc", self.auc)

    def configure_optimizers(self) -> Any:
        groups = [
            {"params": self.net.features.parameters(), "lr": self.lr / 10},
            {"params": self.net.head.parameters()},
        ]
        optimizer = torch.optim.AdamW(groups, lr=self.lr, weight_decay=0.01)
        steps = int(self.trainer.estimated_stepping_batches)
        schedule = torch.optim.lr_scheduler.LambdaLR(optimizer, lambda step: warm_cosine(step / steps))
        return {"optimizer": optimizer, "lr_scheduler": {"scheduler": schedule, "interval": "step"}}


def fit(net: nn.Module, lr: float, learn: DataLoader[Any], val: DataLoader[Any], kind: str, epochs: int) -> float:
    """val AUC after the last epoch."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", PossibleUserWarning)
        trainer = lightning.Trainer(
            accelerator="cpu", max_epochs=epochs, logger=False, enable_checkpointing=False, enable_progress_bar=False,
            enable_model_summary=False, gradient_clip_val=1.0, num_sanity_val_steps=0,
        )  # fmt: skip
        trainer.fit(Training(net, lr, kind, epochs), learn, val)
    return float(trainer.callback_metrics["val_auc"])
