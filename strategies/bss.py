from __future__ import annotations

from typing import TYPE_CHECKING

import torch
from torch import Tensor

from bench.contract import Hparams, Task
from bench.errors import Diverged
from bench.finetune import FineTune, task_loss
from bench.network import Network
from bench.run import Run

if TYPE_CHECKING:
    import optuna

SMALLEST = 1
"""How many singular values are penalised: the paper's k."""


class BSS(FineTune):
    """Batch spectral shrinkage: suppresses the weakest direction of each batch's features, which transfers worst.

    Paper: Chen et al. 2019, "Catastrophic Forgetting Meets Negative Transfer: Batch Spectral Shrinkage for Safe
    Transfer Learning": eta times the sum of the k = 1 smallest squared singular values of the batch's feature matrix is
    added to the loss. Differs in AdamW for SGD, and in that eta is tuned. Cost: as full fine-tuning, and a singular
    value decomposition of [images, features] for every batch."""

    name = "bss"
    family = "regularised fine-tuning"
    paper = "Chen et al. 2019"

    def space(self, trial: optuna.Trial) -> Hparams:
        return super().space(trial) | {"eta": trial.suggest_float("eta", 1e-4, 1e-2, log=True)}

    def defaults(self) -> Hparams:
        return super().defaults() | {"eta": 1e-3}

    def loss(self, net: Network, images: Tensor, labels: Tensor, task: Task, hparams: Hparams, run: Run) -> Tensor:
        features = net.features(images)
        penalty = hparams["eta"] * shrinkage(features, SMALLEST)
        return task_loss(net.head(features), labels, task, run.protocol.label_smoothing) + penalty


def shrinkage(features: Tensor, k: int) -> Tensor:
    """The sum of the k smallest squared singular values of features [B, D]. Raises Diverged."""
    if not features.isfinite().all():
        raise Diverged("a batch's features became non-finite, so that they have no singular values")
    with torch.autocast(features.device.type, enabled=False):
        return torch.linalg.svdvals(features.float())[-k:].square().sum()  # largest first
