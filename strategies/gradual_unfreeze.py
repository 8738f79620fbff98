from __future__ import annotations

from bench.contract import Hparams, Task
from bench.finetune import FineTune, Group
from bench.network import Network
from bench.run import Run


class GradualUnfreeze(FineTune):
    """The head trains first, then one more stage from the top down in every epoch, the stem last.

    Paper: Howard & Ruder 2018, "Universal Language Model Fine-tuning for Text Classification" (ULMFiT). Differs in that
    it is used alone, without their rates by layer and slanted triangular schedule: the rates are full fine-tuning's,
    and the protocol's one schedule runs over all epochs. With fewer epochs than head, stages and stem, every epoch
    opens its even share of them, so that in the last one everything trains. Cost: less than full fine-tuning while the
    lower stages are frozen, since the backward pass ends above them."""

    name = "gradual_unfreeze"
    paper = "Howard & Ruder 2018"

    def param_groups(self, net: Network, task: Task, hparams: Hparams, run: Run, epoch: int) -> list[Group]:
        downwards = list(reversed(net.stages()))
        parts = 1 + len(downwards)  # and the head
        opened = max(epoch + 1, (epoch + 1) * parts // run.protocol.epochs)
        stages = [Group(stage, self.backbone_scale) for stage in downwards[: opened - 1]]
        return [Group(list(net.head.parameters())), *stages]
