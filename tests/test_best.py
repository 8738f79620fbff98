"""Differences on val that are within its noise decide nothing by themselves."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from bench.best import Best, in_order, margin_of
from bench.check import phantom_task
from bench.contract import Protocol

scores = st.lists(st.tuples(st.floats(0, 1), st.floats(0, 10)), min_size=1, max_size=12)


def exactly(auc: float) -> float:
    return 0.0


def within(auc: float) -> float:
    return 0.05


def test_the_margin_of_a_binary_task_is_hanley_and_mcneils_standard_error() -> None:
    task = phantom_task("binary", images=60)
    positives = int(task.val.labels.sum())
    negatives = len(task.val) - positives
    a = 0.9
    q1, q2 = a / (2 - a), 2 * a**2 / (1 + a)
    variance = (a * (1 - a) + (positives - 1) * (q1 - a**2) + (negatives - 1) * (q2 - a**2)) / (positives * negatives)
    assert margin_of(task, Protocol())(a) == pytest.approx(math.sqrt(variance))
    assert margin_of(task, Protocol(tolerance=2.0))(a) == pytest.approx(2 * math.sqrt(variance))
    assert margin_of(task, Protocol(tolerance=0.0))(a) == 0


def test_the_margin_is_close_to_the_spread_of_the_auc_itself() -> None:
    task = phantom_task("binary", images=100)
    labels = task.val.labels.numpy()
    rng = np.random.default_rng(0)
    shift = 1.8124  # two normals so far apart have an AUC of .9
    drawn = rng.normal(size=(2000, len(labels))) + shift * labels
    aucs = [(row[labels == 1][:, None] > row[labels == 0]).mean() for row in drawn]
    assert margin_of(task, Protocol())(0.9) == pytest.approx(np.std(aucs), rel=0.15)


@pytest.mark.parametrize("kind", ["multi-class", "multi-label", "ordinal"])
def test_a_mean_over_classes_is_less_noisy_than_one(kind: str) -> None:
    small, large = (margin_of(phantom_task(kind, images=images), Protocol())(0.8) for images in (40, 100))
    assert 0 < large < small < 0.2


@given(scores)
def test_without_a_margin_the_highest_auc_is_best_and_the_loss_decides_among_equals(found) -> None:
    best = Best(exactly)
    taken = [i for i, score in enumerate(found) if best.takes(*score)]
    wanted = min(range(len(found)), key=lambda i: (-found[i][0], found[i][1], i))
    assert taken[-1] == in_order(found, exactly)[0] == wanted


@given(scores)
def test_what_is_kept_is_within_the_margin_of_the_highest(found) -> None:
    best = Best(within)
    for auc, loss in found:
        best.takes(auc, loss)
    highest = max(auc for auc, _ in found)
    assert best.kept is not None
    assert best.kept[0] >= highest - 0.05
    first = found[in_order(found, within)[0]]
    assert first[1] == min(loss for auc, loss in found if auc >= highest - 0.05)


def test_a_lower_loss_wins_within_the_margin_and_loses_beyond_it() -> None:
    assert in_order([(0.90, 0.6), (0.87, 0.3), (0.80, 0.1)], within) == [1, 0, 2]
    best = Best(within)
    assert [best.takes(*score) for score in [(0.90, 0.6), (0.87, 0.3), (0.80, 0.1), (0.99, 0.9)]] == [
        True, True, False, True,
    ]  # fmt: skip


def test_without_an_auc_the_loss_decides_alone() -> None:
    assert in_order([(None, 0.7), (math.nan, 0.3)], within) == [1, 0]
    best = Best(within)
    assert [best.takes(math.nan, loss) for loss in (0.7, 0.8, 0.3)] == [True, False, True]
