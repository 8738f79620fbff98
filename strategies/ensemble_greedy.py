from __future__ import annotations

import numpy as np

from bench.contract import Fused, Fusion, Kind
from bench.fusing import average, logs, loss
from bench.metrics import auc

ROUNDS = 50
"""Draws at most: by then one more changes a weight by less than .02."""


class Greedy(Fusion):
    """Members drawn with replacement, one at a time, while the val AUC of their mean improves.

    Caruana et al. 2004 ("Ensemble selection from libraries of models"), from the best member on; a member drawn twice
    counts double. What differs: members of level AUC are told apart by the val loss, which also decides alone where val
    lacks a class, and there is no bagging of the library. The more members and the fewer val images, the more of its
    gain on val is luck: the report shows val less test."""

    name = "ensemble_greedy"
    paper = "Caruana et al. 2004"

    def fit(self, probs: np.ndarray, labels: np.ndarray, kind: Kind) -> Fused:
        drawn = np.zeros(len(probs))
        summed, best = np.zeros(probs.shape[1:]), (-np.inf, -np.inf)
        for taken in range(1, ROUNDS + 1):
            scores = [_score(labels, (summed + one) / taken, kind) for one in probs]
            at = max(range(len(probs)), key=lambda member: scores[member])
            if scores[at][0] <= best[0] and (np.isfinite(best[0]) or scores[at] <= best):
                break
            best = scores[at]
            drawn[at] += 1
            summed = summed + probs[at]
        weights = drawn / drawn.sum()
        return Fused(lambda shown: average(shown, weights), weights)


def _score(labels: np.ndarray, probs: np.ndarray, kind: Kind) -> tuple[float, float]:
    """AUC (less than any where there is none) and the negative loss."""
    found = auc(labels, probs, kind)
    return (found if np.isfinite(found) else -np.inf), -loss(logs(probs, kind), labels, kind)
