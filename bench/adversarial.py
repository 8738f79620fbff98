"""What adversarial strategies share: gradient reversal, its schedule, the discriminator of domains and their base.

Paper: Ganin et al. 2016, "Domain-Adversarial Training of Neural Networks".
"""

from __future__ import annotations

import math
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional

from bench.adaptation import Adaptation
from bench.contract import Hparams, Predictor, Protocol, Task
from bench.finetune import Group, Step
from bench.network import Network
from bench.run import Run

HIDDEN = 1024


class _Reverse(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, inputs: Tensor, strength: float | Tensor) -> Tensor:
        ctx.strength = strength
        return inputs.view_as(inputs)

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor, None]:
        return -ctx.strength * gradients[0], None


def reverse(inputs: Tensor, strength: float | Tensor) -> Tensor:
    """The same values, whose gradient is multiplied by -`strength`."""
    return _Reverse.apply(inputs, strength)


def strength(progress: float) -> float:
    """Lambda after `progress` (0..1) of the planned steps: 2 / (1 + e^(-10 p)) - 1, from 0 to nearly 1."""
    return 2 / (1 + math.exp(-10 * progress)) - 1


def annealed(progress: float) -> float:
    """The learning rate's share of its start after `progress` (0..1): 1 / (1 + 10 p)^0.75."""
    return float(1 / (1 + 10 * progress) ** 0.75)


def discriminator(width: int, seed: int) -> nn.Sequential:
    """float [B, D] -> the logit of being of the second domain [B, 1], through two layers of 1024 with ReLU."""
    with torch.random.fork_rng(devices=[]):
        torch.default_generator.manual_seed(seed + 1)  # with the head's seed its first units would be the head's
        return nn.Sequential(
            nn.Linear(width, HIDDEN), nn.ReLU(), nn.Linear(HIDDEN, HIDDEN), nn.ReLU(), nn.Linear(HIDDEN, 1)
        )


def domain_loss(logits: Tensor, of_second: Tensor, weights: Tensor | None = None) -> Tensor:
    """Binary cross-entropy of the discriminator's logits [B, 1]; `of_second` is float [B] of 0 and 1, `weights` [B]."""
    return functional.binary_cross_entropy_with_logits(logits[:, 0].float(), of_second, weights)


class Accuracy:
    """The discriminator's accuracy over an epoch's images, kept on the device."""

    def __init__(self) -> None:
        self.epochs: list[float] = []
        self._right: Tensor | None = None
        """float32 [2]: images told right, and all."""

    def add(self, logits: Tensor, of_second: Tensor) -> None:
        right = ((logits[:, 0] > 0) == (of_second > 0.5)).float().detach()
        if self._right is None:
            self._right = right.new_zeros(2)
        self._right += torch.stack([right, torch.ones_like(right)]).sum(1)

    def end_epoch(self) -> None:
        assert self._right is not None
        right, images = self._right
        self.epochs.append(float(right / images))
        self._right.zero_()


class Adversarial(Adaptation):
    """The base of strategies whose features are to leave a discriminator of the domains guessing.

    The discriminator learns at the head's rate, and the gradient that it sends to the features is reversed. It is in
    the network's memo, and so no part of the network that predicts, nor of its parameters in a row. As in the paper the
    reversal's strength rises from 0 to 1, and the learning rate is annealed, in the place of the protocol's warm-up and
    schedule; both go by the planned steps."""

    steady = True
    lr = (3e-4, 3e-3, 3e-2)  # annealed it is a third of that on average, and a slow backbone fools no discriminator

    def seen(self, net: Network, task: Task) -> int:
        """The width of what the discriminator sees."""
        return net.head.in_features

    def build(self, task: Task, hparams: Hparams, run: Run) -> Network:
        net = super().build(task, hparams, run)
        adversary = discriminator(self.seen(net, task), run.seed).to(run.device)
        net.memo |= {"discriminator": adversary, "accuracy": Accuracy(), "strength": torch.zeros((), device=run.device)}
        return net

    def param_groups(self, net: Network, task: Task, hparams: Hparams, run: Run, epoch: int) -> list[Group]:
        backbone, head = super().param_groups(net, task, hparams, run, epoch)
        return [backbone, replace(head, params=[*head.params, *net.memo["discriminator"].parameters()])]

    def lr_factor(self, progress: float, protocol: Protocol) -> float:
        return annealed(progress)

    def fooled(self, net: Network, ours: Tensor, theirs: Tensor, weights: Tensor | None = None) -> Tensor:
        """The discriminator's loss on what it sees [B, D] of labelled and of second images, with the gradient on the
        way to them reversed."""
        of_second = torch.cat([ours.new_zeros(len(ours)), theirs.new_ones(len(theirs))])
        logits = net.memo["discriminator"](reverse(torch.cat([ours, theirs]), net.memo["strength"]))
        net.memo["accuracy"].add(logits, of_second)
        return domain_loss(logits, of_second, weights)

    def stepped(self, net: Network, hparams: Hparams, step: Step) -> None:
        super().stepped(net, hparams, step)
        net.memo["strength"].fill_(strength(step.progress))
        if step.ends_epoch:
            net.memo["accuracy"].end_epoch()

    def finish(self, net: Network, task: Task, hparams: Hparams, run: Run) -> Predictor:
        run.meter.disc_acc.extend(net.memo["accuracy"].epochs)
        return super().finish(net, task, hparams, run)
