"""A training as fastai's users write it: val after every epoch, its one-cycle schedule, a tenth for the backbone."""

from __future__ import annotations

from typing import Any

import torch
from fastai.callback import schedule  # noqa: F401 (adds `fit_one_cycle` to Learner)
from fastai.callback.training import GradientClip
from fastai.data.core import DataLoaders
from fastai.learner import Learner
from fastai.metrics import RocAucBinary
from torch import Tensor, nn
from torch.utils.data import DataLoader

from tests.bench.usual_way import loss_of


def fit(net: Any, lr: float, learn: DataLoader[Any], val: DataLoader[Any], kind: str, epochs: int) -> float:
    """val AUC after the last epoch."""

    def loss(logits: Tensor, targets: Tensor) -> Tensor:
        return loss_of(logits, targets, kind)

    def halves(net: Any) -> list[list[nn.Parameter]]:
        return [list(net.features.parameters()), list(net.head.parameters())]

    data = DataLoaders(learn, val, device=torch.device("cpu"))
    learner = Learner(data, net, loss, splitter=halves, metrics=RocAucBinary(), cbs=GradientClip(1.0), wd=0.01)
    with learner.no_bar(), learner.no_logging():
        learner.fit_one_cycle(epochs, slice(lr / 10, lr))
    return float(learner.recorder.values[-1][-1])
