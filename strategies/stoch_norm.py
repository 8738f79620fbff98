from __future__ import annotations

from functools import lru_cache
from typing import TypeGuard

import torch
from torch import Tensor, nn
from torch.nn import functional

from bench.backbones import build_features
from bench.contract import Backbone, Hparams, Info, Task
from bench.finetune import FineTune
from bench.network import Network
from bench.run import Run

P = 0.5


class StochNorm(FineTune):
    """While training, each channel of every BatchNorm is normalised by its batch or, by chance, by moving statistics.

    Paper: Kou et al. 2020, "Stochastic Normalization": both with probability 0.5, drawn for every channel and batch;
    predictions are BatchNorm's. The moving statistics are those from before the batch and start as pretrained. Differs
    in AdamW for SGD, and in that the gradient is taken at the statistics that were used: in the authors' code they have
    moved on by then. Cost: as full fine-tuning, with every BatchNorm computed twice."""

    name = "stoch_norm"
    family = "regularised fine-tuning"
    paper = "Kou et al. 2020"
    steady = True

    def applies(self, info: Info, backbone: Backbone) -> str | None:
        return None if _has_batch_norm(backbone) else f"{backbone.label} has no BatchNorm with moving statistics"

    def build(self, task: Task, hparams: Hparams, run: Run) -> Network:
        net = super().build(task, hparams, run)
        randomise(net.features, P)
        return net


class StochNorm2d(nn.BatchNorm2d):
    """Takes the place of a BatchNorm, with its parameters, statistics and (timm's) activation; in train mode each
    channel is normalised by the moving statistics with probability `p`, and by the batch's otherwise."""

    def __init__(self, norm: nn.BatchNorm2d, p: float) -> None:
        super().__init__(norm.num_features, norm.eps, norm.momentum, norm.affine)
        self.p = p
        self.weight, self.bias = norm.weight, norm.bias
        self.running_mean, self.running_var = norm.running_mean, norm.running_var
        self.num_batches_tracked = norm.num_batches_tracked
        self.drop = getattr(norm, "drop", nn.Identity())
        self.act = getattr(norm, "act", nn.Identity())
        self.train(norm.training)

    def forward(self, maps: Tensor) -> Tensor:
        if not self.training:
            return self.act(self.drop(super().forward(maps)))
        assert self.running_mean is not None
        assert self.running_var is not None
        mean, var = self.running_mean.clone(), self.running_var.clone()  # they move on in the next line
        by_batch = super().forward(maps)
        by_moving = functional.batch_norm(maps, mean, var, self.weight, self.bias, eps=self.eps)
        moving = torch.rand(self.num_features, device=maps.device) < self.p
        return self.act(self.drop(torch.where(moving[:, None, None], by_moving, by_batch)))


def randomise(module: nn.Module, p: float) -> None:
    """Put a StochNorm2d in the place of every BatchNorm with moving statistics below `module`."""
    for name, child in module.named_children():
        if _moving(child):
            setattr(module, name, StochNorm2d(child, p))
        else:
            randomise(child, p)


def _moving(module: nn.Module) -> TypeGuard[nn.BatchNorm2d]:
    return isinstance(module, nn.BatchNorm2d) and module.running_mean is not None


@lru_cache(maxsize=256)
def _has_batch_norm(backbone: Backbone) -> bool:
    return any(map(_moving, build_features(backbone, seed=0, pretrained=False).modules()))
