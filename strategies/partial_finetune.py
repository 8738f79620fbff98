from __future__ import annotations

from typing import TYPE_CHECKING

from bench.contract import Hparams, Task
from bench.finetune import FineTune, Group
from bench.network import Network
from bench.run import Run

if TYPE_CHECKING:
    import optuna


class PartialFinetune(FineTune):
    """The stem and the lowest stages stay as they were pretrained; the rest trains as in full fine-tuning.

    Paper: Yosinski et al. 2014, "How transferable are features in deep neural networks?". Differs in that the number
    of frozen stages is tuned rather than swept, that it counts stages and not layers, and in the lower learning rate of
    the backbone. At least the last stage always trains: a network cut to so few stages that none would be left keeps
    fewer frozen. Cost: forward through the frozen stages once an image, forward and backward through what trains."""

    name = "partial_finetune"
    family = "partial freezing"
    paper = "Yosinski et al. 2014"

    def space(self, trial: optuna.Trial) -> Hparams:
        return super().space(trial) | {"frozen_stages": trial.suggest_int("frozen_stages", 1, 3)}

    def defaults(self) -> Hparams:
        return super().defaults() | {"frozen_stages": 2}

    def param_groups(self, net: Network, task: Task, hparams: Hparams, run: Run, epoch: int) -> list[Group]:
        stages = net.stages()
        frozen = min(1 + hparams["frozen_stages"], len(stages) - 1)  # the stem is the first
        trained = [parameter for stage in stages[frozen:] for parameter in stage]
        return [Group(trained, self.backbone_scale), Group(list(net.head.parameters()))]
