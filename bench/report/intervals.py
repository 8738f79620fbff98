"""How far a mean over blocks may be off: Welch's interval, and when two entries are told apart.

A bootstrap's percentile interval over S seeds is too narrow: its variance is (S - 1) / S of the unbiased one, and it
takes normal quantiles where Student's are due. Over 3 seeds its 95 % interval covers the truth in about 80 % of cases.
Here the variance between seeds of each cell is the unbiased one, cells' variances add up without being pooled (they
differ between strategies by a factor of ten), and the quantile is Student's with the degrees of freedom of
Satterthwaite ("An approximate distribution of estimates of variance components", Biometrics Bulletin 1946), as in
Welch's test. tests/test_calibration.py shows how often the intervals cover the truth.

Functions work on any number of leading axes.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from scipy.special import stdtrit

from bench.report import stats

LEVEL = 0.95


@dataclass(frozen=True, eq=False)
class Noise:
    """The variance of an estimate, and how well that variance is known."""

    variance: np.ndarray
    spread: np.ndarray
    """Sum over its parts of part² / degrees of freedom of that part; 0 for a variance that is known."""

    def __add__(self, other: Noise) -> Noise:
        """Of a sum or difference of two independent estimates."""
        return Noise(self.variance + other.variance, self.spread + other.spread)

    def at(self, index: np.ndarray) -> Noise:
        """Of the entries `index` [..., K] along the last axis."""
        return Noise(np.take_along_axis(self.variance, index, -1), np.take_along_axis(self.spread, index, -1))

    @property
    def freedom(self) -> np.ndarray:
        """Degrees of freedom; infinite for a variance that is known, or where nothing varies."""
        infinite = np.full(np.shape(self.spread), np.inf)
        return np.divide(self.variance**2, self.spread, out=infinite, where=self.spread > 0)

    @property
    def half_width(self) -> np.ndarray:
        """Of the two-sided interval at LEVEL."""
        return quantile(self.freedom) * np.sqrt(self.variance)


def quantile(freedom: np.ndarray | float) -> np.ndarray:
    """Student's, of the two-sided interval at LEVEL."""
    return stdtrit(freedom, (1 + LEVEL) / 2)


def mean_interval(strata: Sequence[Sequence[float]]) -> tuple[float, float, float]:
    """Mean of the strata's means and its 95 % interval (estimate, low, high). The interval is NaN where a stratum has
    fewer than two scores. Raises ValueError for an empty stratum."""
    if not strata or any(len(scores) == 0 for scores in strata):
        raise ValueError("every stratum needs a score")
    scores = stats.padded([strata])
    estimate = float(np.nanmean(scores, axis=-1).mean())
    half = float(seed_noise(scores, np.full(len(strata), 1 / len(strata))).half_width[0])
    return estimate, estimate - half, estimate + half


def seed_noise(scores: np.ndarray, weights: np.ndarray) -> Noise:
    """Noise [..., E] of the weighted mean over blocks of the seeds' means, from scores [..., E, B, S]. NaN where a
    block has one seed: that says nothing of the spread."""
    counts = (~np.isnan(scores)).sum(axis=-1)
    centred = scores - np.nanmean(scores, axis=-1, keepdims=True)
    freedom = np.where(counts > 1, counts - 1, np.nan)
    parts = weights**2 * np.nansum(centred**2, axis=-1) / freedom / counts
    return Noise(parts.sum(axis=-1), (parts**2 / freedom).sum(axis=-1))


def image_noise(dataset_errors: np.ndarray) -> Noise:
    """Noise [..., E] of the mean over datasets that the test images cause, from their standard errors [..., E, D]."""
    variance = (dataset_errors**2).sum(axis=-1) / dataset_errors.shape[-1] ** 2
    return Noise(variance, np.zeros_like(variance))


def margin(seeds: Noise, images: Noise, other: np.ndarray) -> np.ndarray:
    """How far the mean AUC of each entry must be from that of the entry at `other` [..., E] to be told apart from it:
    the half width of the 95 % interval of their difference over seeds and test images [..., E].

    Two entries are told apart where neither other seeds nor other test images can explain the distance. The images'
    errors of the two are taken as independent, which is cautious: on the same images they go together (correlation
    about .5 for single networks, .9 for means over six backbones).
    """
    both = seeds + images
    return (both + both.at(other)).half_width
