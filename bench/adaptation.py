"""The base of strategies that train on two domains: the labelled one, and a second one without labels."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING, ClassVar

import torch
from torch import Tensor

from bench.contract import Hparams, Task
from bench.finetune import FineTune, Step, task_loss
from bench.images import Images
from bench.network import Network
from bench.run import Run

if TYPE_CHECKING:
    import optuna


class Adaptation(FineTune):
    """Full fine-tuning on the labelled images, plus `trade_off` times a `gap` between the domains that is to close.

    A step sees as many images of the second domain as labelled ones, and both go through the network as one batch, so
    that BatchNorm normalises both alike (as in TLlib). In a shift task the second domain is the target; otherwise it is
    natural images, which the pretrained features come from. Cost: twice that of full fine-tuning."""

    family = "domain adaptation"
    steady = True
    second_domain = True
    trade_off: ClassVar[tuple[float, float, float]] = (0.1, 1.0, 10.0)
    """Lowest, default and highest weight of the gap."""

    def space(self, trial: optuna.Trial) -> Hparams:
        low, _, high = self.trade_off
        return super().space(trial) | {"trade_off": trial.suggest_float("trade_off", low, high, log=True)}

    def defaults(self) -> Hparams:
        return super().defaults() | {"trade_off": self.trade_off[1]}

    def build(self, task: Task, hparams: Hparams, run: Run) -> Network:
        net = super().build(task, hparams, run)
        net.memo |= {"second": second_images(task, run), "progress": 0.0}
        return net

    def loss(self, net: Network, images: Tensor, labels: Tensor, task: Task, hparams: Hparams, run: Run) -> Tensor:
        ours, theirs = both_domains(net, images, run)
        learned = task_loss(net.head(ours), labels, task, run.protocol.label_smoothing)
        # In float32 throughout: a difference of the domains that is small would be lost in bf16's rounding.
        with torch.autocast(images.device.type, enabled=False):
            return learned + hparams["trade_off"] * self.gap(net, ours.float(), theirs.float(), task, run)

    def gap(self, net: Network, ours: Tensor, theirs: Tensor, task: Task, run: Run) -> Tensor:
        """What is to become small, from the pooled features float32 [B, D] of labelled and of second images."""
        raise NotImplementedError

    def before(self, net: Network, images: int) -> None:
        net.memo["second"].draw(images)

    def stepped(self, net: Network, hparams: Hparams, step: Step) -> None:
        net.memo["progress"] = step.progress


class Second:
    """Endless images of the second domain, in an order drawn anew for every pass."""

    def __init__(self, images: Images, seed: int) -> None:
        self.images = images
        self.order = _passes(len(images), seed)
        self.places: dict[int, Tensor] = {}
        self.drawn: Tensor | None = None
        """int64: those of a step, where a recorded step reads them."""
        self.given = 0

    def draw(self, count: int) -> None:
        """The images of a step to come: `take` gives these."""
        index = torch.stack([next(self.order) for _ in range(count)])
        if count not in self.places:
            self.places[count] = torch.empty_like(index, device=self.images.device)
        self.drawn = self.places[count].copy_(index)
        self.given = 0

    def take(self, count: int) -> Tensor:
        """The next raw uint8 images [count, C, H, W]. A step that did not fit in memory takes its images once more, in
        parts."""
        if self.drawn is None:
            index = torch.stack([next(self.order) for _ in range(count)]).to(self.images.device)
            return self.images.batch(index)[0]
        if self.given + count > len(self.drawn):
            self.given = 0
        self.given += count
        return self.images.batch(self.drawn[self.given - count : self.given])[0]


def _passes(images: int, seed: int) -> Iterator[Tensor]:
    # Not the seed of the labelled images' order: two domains may show the same scenes in the same order, and a step
    # that sees them in pairs would know what no one knows.
    generator = torch.Generator().manual_seed(seed + 1)
    while True:
        yield from torch.randperm(images, generator=generator)


def second_images(task: Task, run: Run) -> Second:
    return Second(second_of(task), run.seed)


def both_domains(net: Network, images: Tensor, run: Run) -> tuple[Tensor, Tensor]:
    """Pooled features [B, D] of labelled images and of as many second ones, which go through the network together."""
    both = torch.cat([images, next_second(net, len(images), run)])
    ours, theirs = net.features(both).chunk(2)
    return ours, theirs


def next_second(net: Network, count: int, run: Run) -> Tensor:
    """The next `count` images of the second domain, normalised, from `second` in the network's memo."""
    return run.prepare(net.memo["second"].take(count))


def second_of(task: Task) -> Images:
    if task.second is None:
        raise ValueError(f"{task.info.name}: the task has no second domain")
    return task.second
