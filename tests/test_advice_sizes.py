"""The size that is advised: a larger one where it is shown to be better."""

from __future__ import annotations

import numpy as np
import pytest

from bench.advice.predicted import Prediction
from bench.advice.sizes import chosen, lead


def prediction(auc: float, spread: float = 0.0) -> Prediction:
    """Of two candidates, the second worse, with noise of its own."""
    draws = np.random.default_rng(round(1000 * auc)).normal(auc, spread, (20_000, 1))
    return Prediction((("good", "x"), ("bad", "x")), np.hstack([draws, draws - 0.1]))


def test_a_lead_has_an_interval() -> None:
    found = lead(prediction(0.85, 0.02), prediction(0.8, 0.02))
    assert found.auc == pytest.approx(0.85, abs=2e-3)
    assert found.mean == pytest.approx(0.05, abs=2e-3)
    assert (found.low, found.high) == pytest.approx((0.05 - 0.0554, 0.05 + 0.0554), abs=3e-3)


def test_a_larger_size_is_chosen_where_its_lead_exceeds_its_error() -> None:
    assert chosen({64: prediction(0.85), 28: prediction(0.8)}) == 64
    assert chosen({64: prediction(0.85, 0.02), 28: prediction(0.8, 0.02)}) == 28
    assert chosen({64: prediction(0.85, 0.005), 28: prediction(0.8, 0.005)}) == 64
    assert chosen({64: prediction(0.805), 28: prediction(0.8)}) == 28  # practically the same
    assert chosen({28: prediction(0.8), 64: prediction(0.85), 128: prediction(0.855)}) == 64
    assert chosen({64: prediction(0.7)}) == 64
