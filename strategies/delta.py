from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, cast

import torch
from torch import Tensor

from bench.contract import Backbone, Hparams, Info, Predictor, Task
from bench.finetune import FineTune, Group, task_loss
from bench.maps import maps_obstacle, with_maps, without
from bench.network import Network
from bench.probe import probed_network
from bench.run import Run
from bench.stages import stage_ends
from bench.train import train

if TYPE_CHECKING:
    import optuna

BETA = 0.01
IMAGES = 64
"""Training images on which a channel's importance is measured."""
ROWS = 256
"""So many go through the network at once when channels of the first map are removed; more where maps are smaller."""


class Delta(FineTune):
    """Keeps the feature maps close to the pretrained network's, those channels most that the task needs.

    Paper: Li et al. 2019, "DELTA: Deep Learning Transfer using Feature Map with Attention", and the authors' code for
    what it leaves open. The squared distance of the maps at the ends of the stages, as means over positions and sums
    over the images of a batch, is added to the loss with alpha / 2, weighted by attention = softmax(z / 5) over a map's
    channels and their number (as in that code), with the head's squared norm times beta / 2; there is no other weight
    decay. z is the rise of a linear probe's loss when the channel is zeroed, standardised over the map. Differs in that
    the maps are the stages' outputs and not their last convolutions', in that z is measured on one batch of 64 training
    images and not on four, in AdamW for SGD, and in that alpha is tuned. Of the epochs one is the probe's and the rest
    fine-tuning's; where there is one only, each takes one. Random weights are the same for every seed.

    Cost: as full fine-tuning and one more forward pass for every image seen; before that one pass over the images for
    the probe, and for every channel of the maps 64 images through what follows its map (for a ResNet-18 about as much
    as 13 000 images going forward, for a ResNet-50 50 000), shared by the fits of one seed."""

    name = "delta"
    family = "regularised fine-tuning"
    paper = "Li et al. 2019"
    steady = True

    def applies(self, info: Info, backbone: Backbone) -> str | None:
        return maps_obstacle(backbone)

    def space(self, trial: optuna.Trial) -> Hparams:
        return super().space(trial) | {"alpha": trial.suggest_float("alpha", 1e-4, 1e-1, log=True)}

    def defaults(self) -> Hparams:
        return super().defaults() | {"alpha": 0.01}

    def param_groups(self, net: Network, task: Task, hparams: Hparams, run: Run, epoch: int) -> list[Group]:
        return [replace(group, weight_decay=0.0) for group in super().param_groups(net, task, hparams, run, epoch)]

    def loss(self, net: Network, images: Tensor, labels: Tensor, task: Task, hparams: Hparams, run: Run) -> Tensor:
        features, maps = with_maps(net.features, images)
        with torch.no_grad():
            _, wanted = with_maps(run.frozen(), images)
        # Of the protocol's batch, however many of its images are here: a batch may come in parts (bench/parts.py).
        behaviour = penalty(maps, wanted, net.memo["attention"]) * run.protocol.batch_size / len(images)
        head = net.head.weight.square().sum() + net.head.bias.square().sum()
        learned = task_loss(net.head(features), labels, task, run.protocol.label_smoothing)
        return learned + hparams["alpha"] * behaviour + BETA / 2 * head

    def fit(self, task: Task, hparams: Hparams, run: Run) -> Predictor:
        net, rest = probed_network(task, run)
        net.memo["attention"] = _attention(net, task, run)
        net.head.reset_parameters()  # the probe was for the attention alone
        train(net, self, task, hparams, rest)
        return self.finish(net, task, hparams, rest)


def penalty(maps: list[Tensor], wanted: list[Tensor], attention: list[Tensor]) -> Tensor:
    """Half the sum, over maps and images, of their attended squared distances, each map's times its channels."""
    found = []
    for now, then, weight in zip(maps, wanted, attention, strict=True):
        distance = (now.float() - then.float()).square().mean((2, 3))  # [B, C]
        found.append(len(weight) * (weight * distance).sum() / 2)
    return torch.stack(found).sum()


def attend(importance: Tensor) -> Tensor:
    """Importance of the channels of one map [C] -> their attention, which sums to 1."""
    spread = importance.std(correction=0).clamp_min(1e-12)  # all alike: all equal
    return torch.softmax((importance - importance.mean()) / spread / 5, dim=0)


@torch.no_grad()
def importances(net: Network, images: Tensor, labels: Tensor, task: Task) -> list[Tensor]:
    """By how much the loss rises with each channel set to zero: [C] for each map."""
    features, maps = with_maps(net.features, images)
    whole = task_loss(net.head(features), labels, task)
    found = []
    for end, seen in zip(stage_ends(net.features), maps, strict=True):
        at_once = max(1, ROWS * maps[0].numel() // (seen.numel() * len(images)))
        chunks = torch.eye(seen.shape[1], device=images.device).split(at_once)
        parts = (part for removed in chunks for part in without(net.features, end, removed, images))
        found.append(torch.stack([task_loss(net.head(part), labels, task) for part in parts]) - whole)
    return found


def _attention(net: Network, task: Task, run: Run) -> list[Tensor]:
    """Of each map's channels, measured once for all fits with the run's seed; `net` has the probe as its head."""
    key = ("attention", run.backbone, run.size, run.protocol, run.seed, task.train.key)
    if key not in run.memory:
        order = torch.randperm(len(task.train), generator=torch.Generator().manual_seed(run.seed))
        pixels, labels = task.train.batch(order[:IMAGES].to(run.device))
        found = importances(net.eval(), run.prepare(pixels), labels, task)
        run.memory[key] = [attend(importance) for importance in found]
    return cast(list[Tensor], run.memory[key])
