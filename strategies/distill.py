from __future__ import annotations

from typing import TYPE_CHECKING

import torch
from torch import Tensor
from torch.nn import functional

from bench.contract import Hparams, Task
from bench.finetune import FineTune, task_loss
from bench.network import Network
from bench.run import Run

if TYPE_CHECKING:
    import optuna


class Distill(FineTune):
    """Learns the task while its features stay close to those that the frozen pretrained network gives.

    Paper: Romero et al. 2015, "FitNets: Hints for Thin Deep Nets", of which the hint alone is used: the mean squared
    error between the student's and the teacher's pooled features of the same (augmented) images is added to the task's
    loss. Differs in that the student is the teacher's own network and starts as it, so that there is no regressor
    between their widths, in that hint and task are learned together and not one after the other, and in that there are
    no softened labels: the teacher knows other classes. The weight is tuned. Random weights are the same for every
    seed. Cost: as full fine-tuning, and one more forward pass, the teacher's, for every image seen."""

    name = "distill"
    family = "regularised fine-tuning"
    paper = "Romero et al. 2015"
    steady = True

    def space(self, trial: optuna.Trial) -> Hparams:
        return super().space(trial) | {"weight": trial.suggest_float("weight", 0.1, 100.0, log=True)}

    def defaults(self) -> Hparams:
        return super().defaults() | {"weight": 10.0}

    def build(self, task: Task, hparams: Hparams, run: Run) -> Network:
        net = super().build(task, hparams, run)
        net.features.load_state_dict(run.frozen().state_dict())
        return net

    def loss(self, net: Network, images: Tensor, labels: Tensor, task: Task, hparams: Hparams, run: Run) -> Tensor:
        with torch.no_grad():
            taught = run.frozen()(images)
        features = net.features(images)
        hint = functional.mse_loss(features.float(), taught.float())
        return task_loss(net.head(features), labels, task, run.protocol.label_smoothing) + hparams["weight"] * hint
