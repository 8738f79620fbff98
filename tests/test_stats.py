"""The report's statistics against scipy, closed forms and slow literal implementations of their definitions."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import array_shapes, arrays
from scipy import stats as scipy_stats

from bench.report import stats
from bench.report.intervals import Noise, image_noise, margin, mean_interval, seed_noise

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


def test_resamples_of_one_stratum_vary_as_scipys_bootstrap_after_the_correction_for_few_seeds() -> None:
    values = np.random.default_rng(1).normal(0.9, 0.02, 5)
    sample = np.concatenate([stats.mean_of_means(part) for part in stats.resamples(values[None, None], 20_000)])
    theirs = scipy_stats.bootstrap((values,), np.mean, method="percentile", n_resamples=20_000, rng=0)
    assert sample.mean() == pytest.approx(values.mean(), abs=2e-4)
    assert sample.std() == pytest.approx(theirs.standard_error * np.sqrt(5 / 4), rel=0.02)
    assert sample.std() == pytest.approx(scipy_stats.sem(values), rel=0.02)


def test_variance_within_strata_only_and_divided_by_their_number() -> None:
    """Two blocks far apart: resampling within blocks must not mix them. The variance of the mean of block means is the
    mean of the blocks' unbiased variances / seeds, divided by the number of blocks."""
    strata = np.array([[0.5, 0.52, 0.54], [0.9, 0.91, 0.95]])
    sample = np.concatenate([stats.mean_of_means(part) for part in stats.resamples(strata[None], 40_000)])[:, 0]
    assert sample.mean() == pytest.approx(strata.mean(), abs=2e-4)
    assert sample.var() == pytest.approx((strata.var(axis=1, ddof=1) / 3).sum() / 4, rel=0.03)


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


@given(arrays(np.float64, (7, 4), elements=st.integers(1, 3).map(float)))
def test_probability_best_sums_to_one_and_knows_the_best(mean_ranks: np.ndarray) -> None:
    shares = stats.probability_best(mean_ranks)
    assert shares.sum() == pytest.approx(1)
    assert np.array_equal(shares > 0, (mean_ranks == mean_ranks.min(axis=1, keepdims=True)).any(axis=0))


def test_probability_best_shares_a_tie() -> None:
    assert stats.probability_best(np.array([[1.0, 2.0, 3.0], [1.5, 1.5, 3.0]])) == pytest.approx([0.75, 0.25, 0.0])


@given(st.integers(0, 10**6))
def test_probability_of_improvement_is_rliables_formula(seed: int) -> None:
    rng = np.random.default_rng(seed)
    one, other = ([rng.integers(0, 4, rng.integers(1, 5)).astype(float).tolist() for _ in range(3)] for _ in range(2))
    literal = np.mean(
        [
            sum((x > y) + 0.5 * (x == y) for x, y in itertools.product(a, b)) / len(a) / len(b)
            for a, b in zip(one, other, strict=True)
        ]
    )
    a, b = stats.padded([one])[0], stats.padded([other])[0]
    assert stats.probability_of_improvement(a, b, np.full(3, 1 / 3)) == pytest.approx(literal)
    u = [scipy_stats.mannwhitneyu(p, q).statistic / len(p) / len(q) for p, q in zip(one, other, strict=True)]
    assert stats.probability_of_improvement(a, b, np.full(3, 1 / 3)) == pytest.approx(np.mean(u))


@given(st.integers(0, 10**6))
def test_performance_profile_is_the_share_of_runs_above_a_level(seed: int) -> None:
    rng = np.random.default_rng(seed)
    runs = [[rng.integers(0, 5, rng.integers(1, 4)).astype(float).tolist() for _ in range(3)] for _ in range(2)]
    levels = np.array([0.0, 1.5, 3.0])
    literal = [
        [np.mean([np.mean([score > level for score in seeds]) for seeds in blocks]) for level in levels]
        for blocks in runs
    ]
    found = stats.performance_profile(stats.padded(runs), levels, np.full(3, 1 / 3))
    assert found == pytest.approx(np.array(literal))


def test_one_blocks_interval_is_students_and_of_two_entries_welchs() -> None:
    one, other = [0.80, 0.82, 0.83], [0.90, 0.96, 0.91, 0.97]
    mean, low, high = mean_interval([one])
    theirs = scipy_stats.t.interval(0.95, 2, np.mean(one), scipy_stats.sem(one))
    assert (mean, low, high) == pytest.approx((np.mean(one), *theirs))
    noise = seed_noise(stats.padded([[other], [one]]), np.ones(1))
    low, high = scipy_stats.ttest_ind(other, one, equal_var=False).confidence_interval(0.95)
    assert margin(noise, image_noise(np.zeros((2, 1))), np.array([0, 0]))[1] == pytest.approx((high - low) / 2)


def test_several_blocks_interval_is_satterthwaites() -> None:
    strata = [[0.5, 0.52, 0.55], [0.9, 0.91, 0.95, 0.89]]
    parts = [np.var(s, ddof=1) / len(s) / 4 for s in strata]
    freedom = sum(parts) ** 2 / sum(p**2 / (len(s) - 1) for p, s in zip(parts, strata, strict=True))
    mean, _, high = mean_interval(strata)
    assert mean == pytest.approx(np.mean([np.mean(s) for s in strata]))
    assert high - mean == pytest.approx(scipy_stats.t.ppf(0.975, freedom) * np.sqrt(sum(parts)))


def test_one_seed_gives_no_interval_and_no_spread_one_of_no_width() -> None:
    mean, low, high = mean_interval([[0.8, 0.9], [0.7]])
    assert mean == pytest.approx(0.775)
    assert np.isnan([low, high]).all()
    assert mean_interval([[0.5, 0.5, 0.5, 0.5], [1.0, 1.0]]) == (0.75, 0.75, 0.75)
    with pytest.raises(ValueError, match="every stratum"):
        mean_interval([[0.8], []])


def test_known_noise_takes_the_normal_quantile() -> None:
    known = Noise(np.array(4.0), np.array(0.0))
    assert known.half_width == pytest.approx(2 * scipy_stats.norm.ppf(0.975))
