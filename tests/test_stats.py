"""The report's statistics against scipy and closed forms."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import array_shapes, arrays
from scipy import stats as scipy_stats

from bench.report import stats

scores = arrays(np.float64, array_shapes(min_dims=1, max_dims=3, max_side=6), elements=st.integers(0, 5).map(float))


@given(scores)
def test_ranks_are_scipys_with_ties_averaged(values: np.ndarray) -> None:
    assert np.array_equal(stats.ranks(values), scipy_stats.rankdata(-values, method="average", axis=-1))


def test_a_missing_score_has_no_rank() -> None:
    with pytest.raises(ValueError, match="incomplete block"):
        stats.ranks(np.array([0.9, np.nan]))


@given(arrays(np.float64, st.integers(1, 40), elements=st.floats(0, 1)))
def test_iqm_is_the_mean_trimmed_by_a_quarter_at_each_end(values: np.ndarray) -> None:
    assert stats.iqm(values) == pytest.approx(scipy_stats.trim_mean(values, 0.25))


def test_interval_of_one_stratum_is_scipys_percentile_bootstrap() -> None:
    values = np.random.default_rng(1).normal(0.9, 0.02, 30)
    estimate, low, high = stats.stratified_bootstrap([values], draws=20_000)
    theirs = scipy_stats.bootstrap(
        (values,), np.mean, method="percentile", n_resamples=20_000, rng=0
    ).confidence_interval
    assert estimate == pytest.approx(values.mean())
    assert (low, high) == pytest.approx(tuple(theirs), abs=3e-4)


def test_variance_within_strata_only_and_divided_by_their_number() -> None:
    """Two blocks far apart: resampling within blocks must not mix them. The variance of the mean of block means is
    the mean of the blocks' (biased) variances / seeds, divided by the number of blocks."""
    strata = np.array([[0.5, 0.52, 0.54], [0.9, 0.91, 0.95]])
    sample = np.concatenate([stats.mean_of_means(part) for part in stats.resamples(strata[None], 40_000)])[:, 0]
    assert sample.mean() == pytest.approx(strata.mean(), abs=2e-4)
    assert sample.var() == pytest.approx((strata.var(axis=1) / 3).sum() / 4, rel=0.03)


def test_blocks_count_alike_whatever_their_seeds() -> None:
    estimate, low, high = stats.stratified_bootstrap([[0.5, 0.5, 0.5, 0.5], [1.0, 1.0]])
    assert (estimate, low, high) == (0.75, 0.75, 0.75)
    assert stats.stratified_bootstrap([[0.0, 0.0, 0.0], [1.0, 1.0, 1.0, 1.0, 1.0]], "iqm")[0] == 0.75


def test_one_seed_gives_no_interval() -> None:
    estimate, low, high = stats.stratified_bootstrap([[0.8, 0.9], [0.7]])
    assert estimate == pytest.approx(0.775)
    assert np.isnan(low)
    assert np.isnan(high)
    with pytest.raises(ValueError, match="every stratum"):
        stats.stratified_bootstrap([[0.8], []])


def test_draws_do_not_depend_on_how_they_are_split(monkeypatch: pytest.MonkeyPatch) -> None:
    given_scores = stats.padded([[[0.1, 0.2, 0.3], [0.4, 0.5]], [[0.6], [0.7, 0.8]]])
    whole = np.concatenate(list(stats.resamples(given_scores, 50, seed=3)))
    monkeypatch.setattr(stats, "_FLOATS_AT_ONCE", 30)
    parts = list(stats.resamples(given_scores, 50, seed=3))
    assert len(parts) > 1
    assert np.array_equal(np.concatenate(parts), whole, equal_nan=True)
    assert np.array_equal(np.isnan(whole), np.broadcast_to(np.isnan(given_scores), whole.shape)), (
        "the padding stays missing"
    )
    assert not np.array_equal(whole, np.concatenate(list(stats.resamples(given_scores, 50, seed=4))), equal_nan=True)


def test_interval_is_the_percentile_one() -> None:
    assert stats.interval(np.arange(1001.0)) == pytest.approx([25, 975])


@given(arrays(np.float64, (7, 4), elements=st.integers(1, 3).map(float)))
def test_probability_best_sums_to_one_and_knows_the_best(mean_ranks: np.ndarray) -> None:
    shares = stats.probability_best(mean_ranks)
    assert shares.sum() == pytest.approx(1)
    assert np.array_equal(shares > 0, (mean_ranks == mean_ranks.min(axis=1, keepdims=True)).any(axis=0))


def test_probability_best_shares_a_tie() -> None:
    assert stats.probability_best(np.array([[1.0, 2.0, 3.0], [1.5, 1.5, 3.0]])) == pytest.approx([0.75, 0.25, 0.0])
