from __future__ import annotations

import torch
from torch import Tensor

from bench.adversarial import Adversarial
from bench.contract import Hparams, Task
from bench.label_free import distributions, entropies
from bench.network import Network
from bench.run import Run

WIDEST = 4096
"""Above this width the multilinear map is a random one, as in the paper."""
RANDOM = 1024
"""The random map's width, as in the authors' code."""


class CDAN(Adversarial):
    """Domain-adversarial training in which the discriminator sees the features together with the predictions.

    Paper: Long et al. 2018, "Conditional Adversarial Domain Adaptation" (CDAN+E): the discriminator sees the products
    of every feature with every predicted probability, or where these are more than 4096 a random multilinear map of
    1024; an image counts for 1 + exp(-H), H being its prediction's entropy, and either domain for one half. As in the
    authors' code no gradient reaches the predictions through the map; other than there, none does through H. The
    reversal and the learning rate are those of DANN. A multi-label prediction is so many distributions over two
    classes, and H their mean. Differs in AdamW for SGD, in that both domains are normalised as one batch, and in the
    trade-off (theirs: 1), which is tuned. Cost: as DANN, with a discriminator that is up to 4096 wide at its entry."""

    name = "cdan"
    paper = "Long et al. 2018"
    steady = True

    def seen(self, net: Network, task: Task) -> int:
        width = net.head.in_features * _classes(task)
        return width if width <= WIDEST else RANDOM

    def build(self, task: Task, hparams: Hparams, run: Run) -> Network:
        net = super().build(task, hparams, run)
        if net.head.in_features * _classes(task) > WIDEST:
            generator = torch.Generator().manual_seed(run.seed)
            sides = (net.head.in_features, _classes(task))
            net.memo["maps"] = [torch.randn(side, RANDOM, generator=generator).to(run.device) for side in sides]
        return net

    def gap(self, net: Network, ours: Tensor, theirs: Tensor, task: Task, run: Run) -> Tensor:
        features = torch.cat([ours, theirs])
        probs = distributions(net.head(features), task.info.kind).detach()
        weights = torch.cat([certainty(part) for part in probs.chunk(2)])
        seen_of_ours, seen_of_theirs = multilinear(features, probs.flatten(1), net.memo.get("maps")).chunk(2)
        return self.fooled(net, seen_of_ours, seen_of_theirs, weights)


def multilinear(features: Tensor, probs: Tensor, maps: list[Tensor] | None = None) -> Tensor:
    """[B, D] and [B, C] -> all their products [B, C * D]; with maps [D, R] and [C, R], the random ones [B, R]."""
    if maps is None:
        return (probs[:, :, None] * features[:, None]).flatten(1)
    return (features @ maps[0]) * (probs @ maps[1]) / maps[0].shape[1] ** 0.5


def certainty(probs: Tensor) -> Tensor:
    """Weights [B] of one domain's images with predictions [B, L, C]: 1 + exp(-entropy), with a mean of 1."""
    weights = 1 + torch.exp(-entropies(probs).mean(1))
    return weights / weights.mean()


def _classes(task: Task) -> int:
    """How many probabilities a prediction has."""
    return task.outputs * (2 if task.info.kind == "multi-label" else 1)
