from __future__ import annotations

import math
from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn
from torch.nn.utils import parametrize

from bench.contract import Hparams, Predictor, Task
from bench.finetune import FineTune, Group
from bench.network import Network
from bench.run import Run

if TYPE_CHECKING:
    import optuna

ALPHA = 16
LAYERS = (nn.Conv1d, nn.Conv2d, nn.Linear)


class LoRAConv(FineTune):
    """A low-rank update of every frozen convolution and linear layer trains, and the head.

    Paper: Hu et al. 2022, "LoRA: Low-Rank Adaptation of Large Language Models": W + (alpha/r) B A, with B zero at the
    start. Differs in that the layers are convolutions, grouped and depthwise ones too, whose kernels are matrices of
    output channels by the rest; in a small layer r is at most what its matrix allows. All else is frozen, BatchNorm in
    eval mode. The updates are merged in the end, so that prediction costs nothing more. The library peft could do it
    too, but brings transformers and accelerate along. Cost: forward and backward through the whole network for every
    image seen, and two small matrices a layer."""

    name = "lora_conv"
    family = "parameter-efficient"
    paper = "Hu et al. 2022"
    steady = True

    def space(self, trial: optuna.Trial) -> Hparams:
        return super().space(trial) | {"rank": trial.suggest_int("rank", 4, 16)}

    def defaults(self) -> Hparams:
        return super().defaults() | {"rank": 8}

    def build(self, task: Task, hparams: Hparams, run: Run) -> Network:
        net = super().build(task, hparams, run)
        draws = torch.Generator().manual_seed(run.seed)
        for layer in [module for module in net.features.modules() if isinstance(module, LAYERS)]:
            update = LowRank(layer.weight, hparams["rank"], draws).to(run.device)
            parametrize.register_parametrization(layer, "weight", update)
        return net

    def param_groups(self, net: Network, task: Task, hparams: Hparams, run: Run, epoch: int) -> list[Group]:
        updates = [p for m in net.features.modules() if isinstance(m, LowRank) for p in m.parameters()]
        return [Group([*updates, *net.head.parameters()])]

    def finish(self, net: Network, task: Task, hparams: Hparams, run: Run) -> Predictor:
        for layer in [module for module in net.features.modules() if parametrize.is_parametrized(module, "weight")]:
            parametrize.remove_parametrizations(layer, "weight", leave_parametrized=True)
        return super().finish(net, task, hparams, run)


class LowRank(nn.Module):
    """weight [out, ...] -> weight + (alpha/r) B A, with B [out, r] and A [r, the product of the rest]."""

    def __init__(self, weight: Tensor, rank: int, draws: torch.Generator) -> None:
        super().__init__()
        out, rest = len(weight), weight[0].numel()
        rank = min(rank, out, rest)
        self.scale = ALPHA / rank
        self.a = nn.Parameter(nn.init.kaiming_uniform_(torch.empty(rank, rest), math.sqrt(5), generator=draws))
        self.b = nn.Parameter(torch.zeros(out, rank))

    def forward(self, weight: Tensor) -> Tensor:
        return weight + self.scale * (self.b @ self.a).view_as(weight)
