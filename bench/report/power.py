"""What this run could have told apart, and what it would take to tell more."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
from scipy.optimize import brentq
from scipy.special import nctdtr, ndtr

from bench.report.intervals import Noise, image_noise, quantile
from bench.report.matrix import Matrix
from bench.report.significance import TooFew

WANTED = 0.8
MOST_SEEDS = 200
MOST_DATASETS = 500
_NORMAL = 1e5
"""Degrees of freedom from which Student's t is the normal distribution for all that matters here."""


def power(effect: float, noise: Noise) -> float:
    """Chance that two entries whose true means differ by `effect` > 0 are told apart the right way round, where the
    estimated difference has this noise (see `intervals.margin`): from the noncentral t."""
    distance = effect / np.sqrt(noise.variance)
    freedom = noise.freedom
    if freedom > _NORMAL:
        return float(ndtr(distance - quantile(np.inf)))
    return float(1 - nctdtr(freedom, distance, quantile(freedom)))


def smallest_effect(noise: Noise, wanted: float = WANTED) -> float:
    """The difference that is told apart with power `wanted`."""
    error = float(np.sqrt(noise.variance))
    high = error
    while power(high, noise) < wanted:
        high *= 2
    return float(brentq(lambda effect: power(effect, noise) - wanted, error * 1e-6, high, xtol=error * 1e-6))


def pair_noise(matrix: Matrix, seeds: int | None = None, datasets: int | None = None) -> tuple[Noise, Noise]:
    """Noise of the difference of two entries with the mean noise of this matrix, as (of seeds, of test images). Were
    there `seeds` of each cell, or `datasets` like these; as there were, where that is None. NaN with one seed."""
    counts = (~np.isnan(matrix.scores)).sum(axis=-1)
    centred = matrix.scores - np.nanmean(matrix.scores, axis=-1, keepdims=True)
    cells = np.nansum(centred**2, axis=-1) / np.where(counts > 1, counts - 1, np.nan)
    n = counts if seeds is None else np.full_like(counts, seeds)
    parts = matrix.weights**2 * cells / n
    images = image_noise(matrix.dataset_errors).variance
    more = 1.0 if datasets is None else datasets / len(matrix.datasets)
    # Twice the mean of an entry. Each of D parts goes with 1 / D², so their sum with 1 / D and that of their squares
    # with 1 / D³.
    return (
        Noise(2 * parts.sum(axis=-1).mean() / more, 2 * (parts**2 / (n - 1)).sum(axis=-1).mean() / more**3),
        Noise(2 * images.mean() / more, np.zeros(())),
    )


def seeds_needed(effect: float, matrix: Matrix, wanted: float = WANTED) -> int | TooFew:
    """Seeds a cell with which a difference of `effect` would be told apart with power `wanted`."""
    images = pair_noise(matrix)[1]
    if images.variance > 0 and power(effect, images) < wanted:
        return TooFew("no number of seeds is enough: these test images alone could explain it")
    found = _least(lambda n: power(effect, _sum(pair_noise(matrix, seeds=n))) >= wanted, 2, MOST_SEEDS)
    return found or TooFew(f"more than {MOST_SEEDS} seeds a cell")


def datasets_needed(effect: float, matrix: Matrix, wanted: float = WANTED) -> int | TooFew:
    """Datasets like these, with as many seeds and test images, with which it would be told apart."""
    found = _least(lambda n: power(effect, _sum(pair_noise(matrix, datasets=n))) >= wanted, 1, MOST_DATASETS)
    return found or TooFew(f"more than {MOST_DATASETS} datasets like these")


def _sum(parts: tuple[Noise, Noise]) -> Noise:
    return parts[0] + parts[1]


def _least(enough: Callable[[int], bool], low: int, high: int) -> int | None:
    """The smallest number from `low` to `high` that is enough, where every larger one is too."""
    if not enough(high):
        return None
    while low < high:
        middle = (low + high) // 2
        low, high = (low, middle) if enough(middle) else (middle + 1, high)
    return low
