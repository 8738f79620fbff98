from __future__ import annotations

import copy
from typing import TYPE_CHECKING

from bench.averaging import interpolate, snapshot
from bench.contract import Hparams, Task
from bench.finetune import FineTune, Step
from bench.network import Network
from bench.run import Run

if TYPE_CHECKING:
    import optuna


class EMA(FineTune):
    """Follows training with an exponential moving average of the weights, which is what is validated and returned.

    Paper: Polyak & Juditsky 1992 for averaging; the exponential form with BatchNorm statistics averaged like weights is
    TensorFlow's and timm's. Differs from theirs in the decay, 0.9 to 0.999 and tuned, since 0.9999 would outlast a
    short run; at step t it is at most (1 + t) / (10 + t), as in TensorFlow, so that the first steps are forgotten.
    Cost: as full fine-tuning, one more copy of the weights, and their average after every step."""

    name = "ema"
    family = "weight averaging"
    paper = "Polyak & Juditsky 1992"
    steady = True

    def space(self, trial: optuna.Trial) -> Hparams:
        return super().space(trial) | {"decay": trial.suggest_categorical("decay", [0.9, 0.99, 0.999])}

    def defaults(self) -> Hparams:
        return super().defaults() | {"decay": 0.99}

    def build(self, task: Task, hparams: Hparams, run: Run) -> Network:
        net = super().build(task, hparams, run)
        net.memo["average"] = snapshot(net)
        return net

    def stepped(self, net: Network, hparams: Hparams, step: Step) -> None:
        decay = min(hparams["decay"], (1 + step.done) / (10 + step.done))
        net.memo["average"] = interpolate(net.memo["average"], net.state_dict(), 1 - decay)

    def candidate(self, net: Network, task: Task, run: Run) -> Network:
        averaged = copy.deepcopy(net)
        averaged.load_state_dict(net.memo["average"])
        return averaged
