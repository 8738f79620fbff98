"""Which of several candidates is best on val, where differences within the noise of val are none.

A val split of 78 images tells AUCs that are .03 apart from each other no better than a coin does, and a network that
has hardly begun to learn may rank those images well. So AUC decides where it can, and among candidates whose AUC is
within a standard error of the highest the val loss does, which every image's probability has a part in (the
one-standard-error rule, Breiman et al. 1984). The larger val is, the less the loss has to say.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence

import torch

from bench.contract import Protocol, Task

Margin = Callable[[float], float]
"""A val AUC -> how far below it another counts as equal."""


def margin_of(task: Task, protocol: Protocol) -> Margin:
    """The protocol's number of standard errors of an AUC on the task's val (Hanley & McNeil 1982); of a mean over
    classes or labels, as if these were independent."""
    labels = task.val.labels
    if labels.ndim == 2:
        positives = labels.sum(0).tolist()
    else:
        counts = torch.bincount(labels, minlength=task.outputs).tolist()
        positives = counts[1:] if task.info.kind == "binary" else counts
    sides = [(float(count), float(len(labels) - count)) for count in positives]

    def margin(auc: float) -> float:
        if not math.isfinite(auc) or not all(min(side) > 0 for side in sides):
            return 0.0
        variances = [_variance(auc, *side) for side in sides]
        return protocol.tolerance * math.sqrt(sum(variances)) / len(variances)

    return margin


def _variance(auc: float, positives: float, negatives: float) -> float:
    above, twice = auc / (2 - auc), 2 * auc * auc / (1 + auc)
    spread = (positives - 1) * (above - auc * auc) + (negatives - 1) * (twice - auc * auc)
    return (auc * (1 - auc) + spread) / (positives * negatives)


class Best:
    """The best of candidates that come one after the other, such as epochs; those that were passed by are gone."""

    def __init__(self, margin: Margin) -> None:
        self.margin = margin
        self.highest = -math.inf
        self.kept: tuple[float, float] | None = None

    def takes(self, auc: float, loss: float) -> bool:
        """Whether this one is kept in place of the one before. The loss alone decides where there is no AUC (NaN)."""
        auc = auc if math.isfinite(auc) else -math.inf
        self.highest = max(self.highest, auc)
        bar = self.highest - self.margin(self.highest)
        if self.kept is not None and self.kept[0] >= bar and not (auc >= bar and loss < self.kept[1]):
            return False
        self.kept = (auc, loss)
        return True


def in_order(scores: Sequence[tuple[float | None, float | None]], margin: Margin) -> list[int]:
    """Positions of (val AUC, val loss), the best first: those within the margin of the highest AUC by loss, then the
    others by AUC; the earlier among equals."""
    aucs = [auc if auc is not None and math.isfinite(auc) else -math.inf for auc, _ in scores]
    losses = [loss if loss is not None else math.inf for _, loss in scores]
    highest = max(aucs, default=-math.inf)
    bar = highest - margin(highest)
    return sorted(range(len(scores)), key=lambda i: (aucs[i] < bar, 0.0 if aucs[i] >= bar else -aucs[i], losses[i], i))
