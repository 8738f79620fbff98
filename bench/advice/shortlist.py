"""The few cells that are worth running: strategies x backbones, as a matrix file can say them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from bench.advice.predicted import Prediction
from bench.report.leaderboard import ROPE

_Block = tuple[frozenset[str], frozenset[str]]
"""Strategies and backbones, of which each is run with each."""
LONGEST = 6
"""Cells of a short list at most."""
LEAST_GAIN = 0.001
"""AUC by which a further strategy or backbone must raise what the best of the list is expected to reach."""


@dataclass(frozen=True)
class Shortlist:
    """Positions among a prediction's candidates."""

    cells: tuple[int, ...]
    """Every strategy of the list with every backbone of it; highest expected AUC first."""
    cheapest: int
    """The least cost of those whose expected AUC is at most ROPE below the first's."""

    @property
    def first(self) -> int:
        return self.cells[0]


def shortlist(prediction: Prediction, costs: Sequence[float], budget: float = np.inf) -> Shortlist | None:
    """What to run within `budget` seconds. None where not one candidate fits.

    From the candidate of the highest expected AUC, the cheapest that is practically as good, or both, the list grows by
    the strategy or backbone that most raises the expected AUC of its best, while that is worth it; of the lists that
    come of it the one whose best is expected to be highest is taken: where time is short, a few cheap candidates may do
    more than one that takes it all."""
    spent, auc = np.asarray(costs, dtype=np.float64), prediction.auc
    fits = np.flatnonzero(spent <= budget)
    if not len(fits):
        return None
    places = {pair: at for at, pair in enumerate(prediction.candidates)}

    def cells(block: _Block) -> list[int]:
        """Empty where the product cannot be run as a whole or is too long."""
        pairs = [(strategy, backbone) for strategy in sorted(block[0]) for backbone in sorted(block[1])]
        if len(pairs) > LONGEST or any(pair not in places for pair in pairs):
            return []
        found = [places[pair] for pair in pairs]
        return found if spent[found].sum() <= budget else []

    def reached(block: _Block) -> float:
        return float(prediction.draws[:, cells(block)].max(axis=1).mean())

    def grown(block: _Block) -> _Block:
        wider = [(block[0] | {strategy}, block[1]) for strategy, _ in prediction.candidates]
        wider += [(block[0], block[1] | {backbone}) for _, backbone in prediction.candidates]
        found = [new for new in dict.fromkeys(wider) if new != block and cells(new)]
        best = max(found, key=reached, default=block)
        return grown(best) if reached(best) - reached(block) >= LEAST_GAIN else block

    first = int(fits[auc[fits].argmax()])
    one, other = prediction.candidates[first], prediction.candidates[_cheapest(fits, auc, spent)]
    starts = [_block(one, other), _block(one), _block(other)]
    listed = cells(max((grown(block) for block in starts if cells(block)), key=reached))
    return Shortlist(tuple(sorted(listed, key=lambda at: (-auc[at], at))), _cheapest(np.asarray(listed), auc, spent))


def _cheapest(among: np.ndarray, auc: np.ndarray, spent: np.ndarray) -> int:
    """Of positions, the least cost of those practically as good as the best."""
    equal = among[auc[among] >= auc[among].max() - ROPE]
    return int(equal[np.lexsort((-auc[equal], spent[equal]))[0]])


def _block(*pairs: tuple[str, str]) -> _Block:
    return frozenset(strategy for strategy, _ in pairs), frozenset(backbone for _, backbone in pairs)
