from __future__ import annotations

from collections.abc import Iterable
from dataclasses import replace
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from bench.contract import Hparams, Task
from bench.finetune import FineTune, Group
from bench.network import Network
from bench.run import Run

if TYPE_CHECKING:
    import optuna

BETA = 0.01


class L2SP(FineTune):
    """Weight decay towards the pretrained weights instead of towards zero.

    Paper: Li et al. 2018, "Explicit Inductive Bias for Transfer Learning with Convolutional Networks": alpha / 2 times
    the squared distance of the backbone's parameters to where they started, and beta / 2 times the head's squared norm,
    are added to the loss; there is no other weight decay. Differs in AdamW for SGD, which scales the penalty's gradient
    with the loss's, and in that every parameter of the backbone counts, as in the code of Li et al. 2019 (DELTA); alpha
    is tuned. Random weights are the same for every seed, so that there is a point to stay near. Cost: as full
    fine-tuning, and one more copy of the weights."""

    name = "l2_sp"
    family = "regularised fine-tuning"
    paper = "Li et al. 2018"
    steady = True

    def space(self, trial: optuna.Trial) -> Hparams:
        return super().space(trial) | {"alpha": trial.suggest_float("alpha", 1e-3, 1.0, log=True)}

    def defaults(self) -> Hparams:
        return super().defaults() | {"alpha": 0.1}

    def build(self, task: Task, hparams: Hparams, run: Run) -> Network:
        net = super().build(task, hparams, run)
        net.features.load_state_dict(run.frozen().state_dict())
        return net

    def param_groups(self, net: Network, task: Task, hparams: Hparams, run: Run, epoch: int) -> list[Group]:
        return [replace(group, weight_decay=0.0) for group in super().param_groups(net, task, hparams, run, epoch)]

    def loss(self, net: Network, images: Tensor, labels: Tensor, task: Task, hparams: Hparams, run: Run) -> Tensor:
        pairs = zip(net.features.parameters(), run.frozen().parameters(), strict=True)
        moved = _squared(now - start for now, start in pairs)
        penalty = hparams["alpha"] / 2 * moved + BETA / 2 * _squared(net.head.parameters())
        return super().loss(net, images, labels, task, hparams, run) + penalty


def _squared(tensors: Iterable[Tensor]) -> Tensor:
    return torch.stack([tensor.square().sum() for tensor in tensors]).sum()
