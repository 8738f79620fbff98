"""The short list: within the budget, a product that a matrix file can say, and no longer than it is worth."""

from __future__ import annotations

import numpy as np

from bench.advice.predicted import Prediction
from bench.advice.shortlist import LONGEST, shortlist


def prediction(means: dict[tuple[str, str], float], spread: float = 0.02) -> Prediction:
    draws = np.random.default_rng(0).normal(list(means.values()), spread, (2000, len(means)))
    return Prediction(tuple(means), draws)


GRID = {(s, b): 0.8 + 0.01 * i + 0.005 * j for i, s in enumerate("pqrst") for j, b in enumerate("xyz")}


def test_the_list_is_a_product_within_the_budget() -> None:
    found = prediction(GRID)
    costs = np.linspace(1, 15, len(GRID))
    for budget in (5, 30, 60, np.inf):
        chosen = shortlist(found, costs, budget)
        assert chosen is not None
        assert sum(costs[at] for at in chosen.cells) <= budget
        assert len(chosen.cells) <= LONGEST
        pairs = {found.candidates[at] for at in chosen.cells}
        assert len(pairs) == len({s for s, _ in pairs}) * len({b for _, b in pairs})
        assert chosen.first == max(chosen.cells, key=lambda at: found.auc[at])
    assert chosen.first == found.auc.argmax()
    assert shortlist(found, costs, 0.5) is None


def test_the_cheapest_that_is_practically_as_good_is_in_it() -> None:
    found = prediction({("good", "x"): 0.90, ("cheap", "x"): 0.895, ("cheaper", "x"): 0.85}, spread=1e-4)
    chosen = shortlist(found, [100, 10, 1])
    assert chosen is not None
    assert [found.candidates[at][0] for at in chosen.cells] == ["good", "cheap"]
    assert (chosen.first, chosen.cheapest) == (0, 1)


def test_where_time_is_short_several_cheap_ones_may_do_more_than_a_dear_one() -> None:
    found = prediction({("dear", "x"): 0.905, **{(f"cheap{i}", "x"): 0.9 for i in range(5)}}, spread=0.03)
    chosen = shortlist(found, [100, 20, 20, 20, 20, 20], 100)
    assert chosen is not None
    assert set(chosen.cells) == {1, 2, 3, 4, 5}
    chosen = shortlist(found, [100, 20, 20, 20, 20, 20], 200)
    assert chosen is not None
    assert 0 in chosen.cells


def test_nothing_is_added_that_cannot_be_the_best_or_was_never_run() -> None:
    sure = prediction({("best", "x"): 0.95, ("bad", "x"): 0.7, ("worse", "y"): 0.6})
    chosen = shortlist(sure, [1, 1, 1])
    assert chosen is not None
    assert chosen.cells == (0,)
    # Each is the best with one half, but the product of the two was not run as a whole.
    torn = prediction({("one", "x"): 0.9, ("other", "y"): 0.9}, spread=0.05)
    chosen = shortlist(torn, [1, 1])
    assert chosen is not None
    assert len(chosen.cells) == 1
