"""Scores of predictions on a target domain's val images, for bench.selection: without labels, but for the oracle's."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence

import torch
from torch import Tensor
from torch.nn import functional

from bench.contract import Kind, Predictor
from bench.device import double
from bench.images import Images, predict_all
from bench.metrics import auc, probabilities

SND_TEMPERATURE = 0.05
"""As in Saito et al. 2021."""

Judge = Callable[[Sequence[Predictor], Sequence[float]], list[dict[str, float]]]
"""The predictors of trials and their val AUCs -> their label-free scores and the oracle's, by column."""


def judge_on(target: Images, kind: Kind) -> Callable[[Sequence[Predictor]], list[dict[str, float]]]:
    """Scores on the target's val images, whose labels only the oracle's score is made with."""

    def scores(logits: Tensor) -> dict[str, float]:
        probs = probabilities(logits.cpu().numpy(), kind)
        return label_free(logits, kind) | {"target_val_auc": auc(target.labels.cpu().numpy(), probs, kind)}

    return lambda predictors: list(map(scores, predict_all(predictors, target)))


def label_free(logits: Tensor, kind: Kind) -> dict[str, float]:
    """`entropy`, `information` and `snd` of logits [N, K] on unlabelled images.

    `entropy`: mean entropy of the predictions (nats; a multi-label task's labels are so many binary predictions, whose
    mean is taken). `information`: entropy of the mean prediction less the mean entropy (Bridle et al. 1991), which a
    collapse to one class does not please. `snd`: soft neighbourhood density (Saito et al. 2021), the mean entropy of
    the softmax over similarities to all other images' predictions."""
    probs = distributions(double(logits), kind)
    entropy = entropies(probs).mean()
    information = entropies(probs.mean(0)).mean() - entropy
    return {"entropy": float(entropy), "information": float(information), "snd": _density(probs.flatten(1))}


def distributions(logits: Tensor, kind: Kind) -> Tensor:
    """Logits [N, K] -> predicted distributions [N, L, C]: one over K classes, or for multi-label K over two."""
    if kind == "multi-label":
        positive = torch.sigmoid(logits)
        return torch.stack([1 - positive, positive], dim=-1)
    return torch.softmax(logits, dim=1)[:, None]


def entropies(probs: Tensor) -> Tensor:
    """Of distributions [..., C], in nats."""
    return -torch.xlogy(probs, probs).sum(-1)


def _density(probs: Tensor) -> float:
    """SND of predictions [N, D]; NaN for fewer than three images, which have no neighbourhood."""
    if len(probs) < 3:
        return math.nan
    unit = functional.normalize(probs, dim=1)
    total = torch.zeros((), dtype=probs.dtype, device=probs.device)
    for start in range(0, len(unit), 1024):  # N x N similarities need not fit in memory
        similar = unit[start : start + 1024] @ unit.T / SND_TEMPERATURE
        rows = torch.arange(len(similar), device=probs.device)
        similar[rows, rows + start] = -torch.inf  # not its own neighbour
        total += entropies(torch.softmax(similar, dim=1)).sum()
    return float(total / len(unit))
