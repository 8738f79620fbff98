from __future__ import annotations

from bench.contract import Hparams, Task
from bench.finetune import FineTune, Group
from bench.network import Network
from bench.run import Run

FACTOR = 2.6


class DiscriminativeLR(FineTune):
    """All pretrained weights train, each stage at a learning rate 2.6 times lower than the one above it.

    Paper: Howard & Ruder 2018, "Universal Language Model Fine-tuning for Text Classification" (ULMFiT). Differs in that
    it is used alone, without gradual unfreezing, and in that rates fall by stage (head, stages, stem), of which a
    network has few, and not by layer. Cost: as full fine-tuning."""

    name = "discriminative_lr"
    paper = "Howard & Ruder 2018"

    def param_groups(self, net: Network, task: Task, hparams: Hparams, run: Run, epoch: int) -> list[Group]:
        downwards = enumerate(reversed(net.stages()), start=1)
        return [Group(list(net.head.parameters())), *(Group(stage, FACTOR**-depth) for depth, stage in downwards)]
