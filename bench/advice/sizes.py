"""At which size to run: larger images take longer, and the probes that speak for them stand on few val images."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

from bench.advice.predicted import Prediction
from bench.report.leaderboard import ROPE


@dataclass(frozen=True)
class Lead:
    """Of one size over another: by how much its highest expected test AUC is above the other's."""

    auc: float
    """The highest expected at this size."""
    mean: float
    low: float
    """With `high` the 95 % interval of the difference."""
    high: float


def lead(one: Prediction, other: Prediction) -> Lead:
    """Of two predictions whose draws are possible together."""
    at, beside = int(one.auc.argmax()), int(other.auc.argmax())
    difference = one.draws[:, at] - other.draws[:, beside]
    low, high = np.quantile(difference, [0.025, 0.975]).tolist()
    return Lead(float(one.auc[at]), float(difference.mean()), low, high)


def chosen(predictions: Mapping[int, Prediction]) -> int:
    """The smallest size but for larger ones that are ahead of it by more than what is practically the same, and by more
    than the error of that lead. At least one size."""
    smallest, *larger = sorted(predictions)
    for size in larger:
        gain = lead(predictions[size], predictions[smallest])
        if gain.mean > ROPE and gain.low > 0:
            smallest = size
    return smallest
