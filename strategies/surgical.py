from __future__ import annotations

from typing import TYPE_CHECKING

from bench.contract import Hparams, Task
from bench.finetune import Group, ProbedFineTune
from bench.network import Network
from bench.run import Run

if TYPE_CHECKING:
    import optuna


class Surgical(ProbedFineTune):
    """Only one block of the network is tuned, with the head; which one is tuned on val.

    Paper: Lee et al. 2023, "Surgical Fine-Tuning Improves Adaptation to Distribution Shifts". Their network already
    knows the classes; here they are new, so the head starts as a linear probe's (one of the epochs) and trains
    along. Blocks are stages, the stem goes with the first; the fourth block is the last one, however many there are.
    Differs in the upper end of the learning rates (1e-2 for 1e-1, too high for AdamW), and in that all else is in eval
    mode. Their option of the head alone is linear_probe. Cost: one pass over the images for the probe's features; one
    more up to the block; then forward from the block on and backward down to it."""

    name = "surgical"
    family = "partial freezing"
    paper = "Lee et al. 2023"
    lr = (1e-5, 1e-3, 1e-2)

    def space(self, trial: optuna.Trial) -> Hparams:
        return super().space(trial) | {"block": trial.suggest_categorical("block", [1, 2, 3, 4])}

    def defaults(self) -> Hparams:
        return super().defaults() | {"block": 4}  # as they advise for a shift of the labels

    def param_groups(self, net: Network, task: Task, hparams: Hparams, run: Run, epoch: int) -> list[Group]:
        stem, first, *others = net.stages()
        blocks = [[*stem, *first], *others]
        block = blocks[-1] if hparams["block"] == 4 else blocks[min(hparams["block"], len(blocks)) - 1]
        return [Group([*block, *net.head.parameters()])]
