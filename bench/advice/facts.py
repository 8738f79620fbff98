"""What is known of a task before anything is trained on it: the same of the reference's tasks and of the user's."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

SCALES = {
    "images a class": 1.0,  # a factor of ten
    "classes": 0.7,  # a factor of five
    "imbalance": 0.25,
    "probe AUC": 0.5,  # in tenfold odds: .75 against .9
    "kind": 1.0,
    "modality": 1.0,
    "size": 0.5,  # a factor of three
}
"""By how much a fact must differ for a distance of 1; kind and modality are the same or not (a half)."""
UNTRUSTED = 1e-3
"""AUCs are kept this far from 0 and 1, where odds have no end."""


@dataclass(frozen=True)
class Facts:
    """A dataset at a size and an amount of training data."""

    dataset: str
    size: int
    """Side in pixels at which networks see the images."""
    images: int
    """Training images."""
    val_images: int
    """That the probe was scored on."""
    classes: int
    kind: str
    modality: str
    imbalance: float
    """0 where all classes (labels) have equally many training images, towards 1 where one has nearly all: 1 less the
    entropy of the shares over that of equal ones. NaN where it is not known."""
    probe: Mapping[str, float]
    """Label of a backbone -> val AUC of a linear probe on its frozen features."""

    @property
    def level(self) -> float:
        """Mean of the probes' log odds."""
        return float(np.mean([log_odds(auc) for auc in self.probe.values()]))

    @property
    def val_error(self) -> float:
        """Standard error of the probe's log odds that the val images cause (Hanley & McNeil 1982, as if classes were
        of equal size and independent)."""
        auc = 1 / (1 + math.exp(-self.level))
        sides = 1 if self.classes == 2 and self.kind != "multi-label" else self.classes
        positives = max(self.val_images / max(self.classes, 2), 1.0)
        negatives = max(self.val_images - positives, 1.0)
        above, twice = auc / (2 - auc), 2 * auc * auc / (1 + auc)
        spread = (positives - 1) * (above - auc * auc) + (negatives - 1) * (twice - auc * auc)
        error = math.sqrt((auc * (1 - auc) + spread) / (positives * negatives) / sides)
        return error / (auc * (1 - auc))

    def numbers(self) -> dict[str, float]:
        """The facts that are numbers, on the scale of SCALES."""
        return {
            "images a class": math.log10(max(self.images / self.classes, 1)),
            "classes": math.log10(self.classes),
            "imbalance": self.imbalance,
            "probe AUC": self.level / math.log(10),
            "size": math.log10(self.size),
        }


def log_odds(auc: float) -> float:
    """log(p / (1 - p)) of an AUC: differences near 1 count for more."""
    auc = min(max(auc, UNTRUSTED), 1 - UNTRUSTED)
    return math.log(auc / (1 - auc))


def imbalance(counts: Sequence[int]) -> float:
    """Of the training images of each class or label; NaN where there are none or one class."""
    shares = np.array([count for count in counts if count > 0], dtype=np.float64)
    if len(counts) < 2 or not len(shares):
        return math.nan
    shares /= shares.sum()
    return float(1 + (shares * np.log(shares)).sum() / math.log(len(counts)))


def differences(one: Facts, other: Facts) -> dict[str, float]:
    """How far two tasks are apart in each fact of SCALES; 0 in one that is not known of both."""
    first, second = one.numbers(), other.numbers()
    apart = {name: abs(first[name] - second[name]) / SCALES[name] for name in first}
    same = {"kind": one.kind == other.kind, "modality": one.modality == other.modality != "unknown"}
    apart |= {name: 0.0 if alike else 0.5 / SCALES[name] for name, alike in same.items()}
    return {name: 0.0 if math.isnan(value) else value for name, value in apart.items()}


def distance(one: Facts, other: Facts) -> float:
    """Root of the sum of squares of `differences`."""
    return math.hypot(*differences(one, other).values())
