"""FineTune: the reference strategy and the base of gradient strategies, which override hooks or write `fit`, never
both."""

from __future__ import annotations

from dataclasses import dataclass
from inspect import isroutine
from typing import TYPE_CHECKING, ClassVar

import torch
from torch import Tensor, nn
from torch.nn import functional

from bench.contract import Hparams, Predictor, Protocol, Strategy, Task
from bench.network import Network, set_modes
from bench.prediction import Prediction
from bench.probe import probed_network
from bench.run import Run
from bench.train import lr_factor, train

if TYPE_CHECKING:
    import optuna


@dataclass(frozen=True)
class Step:
    """Where training stands."""

    done: int
    """Steps taken, this one included."""
    an_epoch: int
    planned: int

    @property
    def progress(self) -> float:
        """0..1, of the planned steps."""
        return self.done / self.planned

    @property
    def ends_epoch(self) -> bool:
        return self.done % self.an_epoch == 0


@dataclass(frozen=True, eq=False)
class Group:
    """Parameters that train at `scale` times the learning rate. What is in no group is frozen."""

    params: list[nn.Parameter]
    scale: float = 1.0
    weight_decay: float | None = None
    """None: the protocol's."""


class FineTune(Strategy):
    """Trains the whole network by gradient descent on the task's loss; each hook is one thing a strategy may change."""

    family = "fine-tuning"
    steady: ClassVar[bool] = True
    """Whether a GPU may record a step and replay it, for several times the speed: what the class itself defines then
    computes the same from the same tensors in every step of a call of `train`, and knows of the step, the epoch and
    chance by tensors that are changed in place, and by the generator. Not inherited: a class that adds to a step has to
    say so itself."""
    lr: ClassVar[tuple[float, float, float]] = (1e-4, 1e-3, 1e-2)
    """Lowest, default and highest learning rate (of the head), for Adam and AdamW; a matrix that trains by SGD sets
    its own range in [settings]."""
    backbone_scale: ClassVar[float] = 0.1
    """The backbone's learning rate as a share of the head's."""

    def space(self, trial: optuna.Trial) -> Hparams:
        return {"lr": trial.suggest_float("lr", self.lr[0], self.lr[2], log=True)}

    def defaults(self) -> Hparams:
        return {"lr": self.lr[1]}

    def build(self, task: Task, hparams: Hparams, run: Run) -> Network:
        """The network to train: private, on the device."""
        return run.network(task.outputs, self.pretrained)

    def param_groups(self, net: Network, task: Task, hparams: Hparams, run: Run, epoch: int) -> list[Group]:
        """What trains in this epoch, and how fast; asked anew before every epoch."""
        return [
            Group(list(net.features.parameters()), self.backbone_scale),
            Group(list(net.head.parameters())),
        ]

    def modes(self, net: Network) -> None:
        """Set train and eval modes for an epoch, after its parameters were chosen."""
        set_modes(net)

    def lr_factor(self, progress: float, protocol: Protocol) -> float:
        """The learning rate's share of its peak after `progress` (0..1) of the planned steps."""
        return lr_factor(progress, protocol)

    def augment(
        self, images: Tensor, labels: Tensor, task: Task, hparams: Hparams, generator: torch.Generator
    ) -> tuple[Tensor, Tensor]:
        """Images float32 in 0..1 [B, C, S, S] on the device and their labels, before normalisation; labels may become
        soft (float [B, K]). The generator, on the device too, is the only source of randomness."""
        return images, labels

    def loss(self, net: Network, images: Tensor, labels: Tensor, task: Task, hparams: Hparams, run: Run) -> Tensor:
        """The scalar to minimise on one batch of normalised images."""
        return task_loss(net(images), labels, task, run.protocol.label_smoothing)

    def before(self, net: Network, images: int) -> None:
        """Called before every step, which is on so many images: the place to draw what else it takes, into tensors that
        stay in place."""

    def stepped(self, net: Network, hparams: Hparams, step: Step) -> None:
        """Called after every step of the optimizer."""

    def predictor(self, net: Network, task: Task, run: Run) -> Prediction:
        """How the network, in eval mode, predicts raw images of the domain that test is of."""
        return run.predictor(net)

    def candidate(self, net: Network, task: Task, run: Run) -> Network:
        """What is validated at an epoch's end, and kept if it is the best: a network of the same tensors."""
        return net

    def finish(self, net: Network, task: Task, hparams: Hparams, run: Run) -> Predictor:
        """The predictor, from the network at its best epoch."""
        return self.predictor(net.eval(), task, run)

    def fit(self, task: Task, hparams: Hparams, run: Run) -> Predictor:
        net = self.build(task, hparams, run)
        train(net, self, task, hparams, run)
        return self.finish(net, task, hparams, run)


OUTSIDE = {
    "applies", "before", "candidate", "check_settings", "defaults", "finish", "fit", "fit_many", "lr_factor", "modes",
    "param_groups", "predictor", "space", "stepped",
}  # fmt: skip
"""What a strategy may define without adding to a step."""


def steady(strategy: FineTune) -> bool:
    """Whether every class that adds to the strategy's steps says that they may be recorded."""
    kinds = type(strategy).__mro__
    return all(
        vars(kind).get("steady") or not {name for name, value in vars(kind).items() if isroutine(value)} - OUTSIDE
        for kind in kinds[: kinds.index(FineTune)]
    )


def plain(strategy: FineTune) -> bool:
    """Whether val is predicted by the very network that trains, and nothing else."""
    kind = type(strategy)
    return steady(strategy) and kind.predictor is FineTune.predictor and kind.candidate is FineTune.candidate


class ProbedFineTune(FineTune):
    """The base of gradient strategies that start from a linear probe, which takes its share of the epochs."""

    def fit(self, task: Task, hparams: Hparams, run: Run) -> Predictor:
        net, rest = probed_network(task, run)
        train(net, self, task, hparams, rest)
        return self.finish(net, task, hparams, rest)


def task_loss(logits: Tensor, labels: Tensor, task: Task, label_smoothing: float = 0.0) -> Tensor:
    """Cross-entropy, or binary cross-entropy for multi-label. Labels int64 [B], or float [B, K] (multi-label or
    soft)."""
    if task.info.kind == "multi-label":
        smooth = labels * (1 - label_smoothing) + 0.5 * label_smoothing
        return functional.binary_cross_entropy_with_logits(logits.float(), smooth)
    return functional.cross_entropy(logits.float(), labels, label_smoothing=label_smoothing)
