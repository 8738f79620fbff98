"""The few cells that are worth running: strategies x backbones, as a matrix file can say them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from bench.advice.predicted import Prediction
from bench.report.leaderboard import ROPE

LONGEST = 6
"""Cells of a short list at most."""
LEAST_GAIN = 0.001
"""AUC by which a further strategy or backbone must raise what the best of the list is expected to reach."""


@dataclass(frozen=True)
class Shortlist:
    """Positions among a prediction's candidates."""

    cells: tuple[int, ...]
    """Every strategy of the list with every backbone of it; highest expected AUC first."""
    first: int
    """The highest expected AUC of all that fit the budget."""
    cheapest: int
    """The least cost of all whose expected AUC is at most ROPE below that; not among the cells where the two together
    would not fit."""


def shortlist(prediction: Prediction, costs: Sequence[float], budget: float = np.inf) -> Shortlist | None:
    """What to run within `budget` seconds: the first, the cheapest that is practically as good, and then greedily the
    strategy or backbone that most raises the expected AUC of the best of the list, while that is worth it. None where
    not one candidate fits."""
    spent, auc = np.asarray(costs, dtype=np.float64), prediction.auc
    fits = np.flatnonzero(spent <= budget)
    if not len(fits):
        return None
    first = int(fits[auc[fits].argmax()])
    equal = fits[auc[fits] >= auc[first] - ROPE]
    cheapest = int(equal[np.lexsort((-auc[equal], spent[equal]))[0]])
    places = {pair: at for at, pair in enumerate(prediction.candidates)}

    def block(strategies: frozenset[str], backbones: frozenset[str]) -> list[int] | None:
        """The cells of a product that can be run as a whole and is short enough; None of any other."""
        pairs = [(strategy, backbone) for strategy in strategies for backbone in backbones]
        if len(pairs) > LONGEST or any(pair not in places for pair in pairs):
            return None
        found = [places[pair] for pair in pairs]
        return found if spent[found].sum() <= budget else None

    def reached(cells: Sequence[int]) -> float:
        return float(prediction.draws[:, cells].max(axis=1).mean())

    one, other = prediction.candidates[first], prediction.candidates[cheapest]
    chosen = (frozenset({one[0]}), frozenset({one[1]}))
    both = (frozenset({one[0], other[0]}), frozenset({one[1], other[1]}))
    if block(*both):
        chosen = both
    while True:
        now = block(*chosen) or [first]
        wider = [(chosen[0] | {strategy}, chosen[1]) for strategy, _ in prediction.candidates]
        wider += [(chosen[0], chosen[1] | {backbone}) for _, backbone in prediction.candidates]
        blocks = [(found, new) for new in dict.fromkeys(wider) if new != chosen and (found := block(*new))]
        best = max(blocks, key=lambda pair: reached(pair[0]), default=None)
        if best is None or reached(best[0]) - reached(now) < LEAST_GAIN:
            return Shortlist(tuple(sorted(now, key=lambda at: -auc[at])), first, cheapest)
        chosen = best[1]
