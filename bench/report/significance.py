"""Tests across datasets, which are their unit: Friedman's, Nemenyi's critical difference, Wilcoxon's with Holm's
correction.

Each gives a sentence instead of a number where there are too few datasets for it.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from scipy import stats as scipy_stats

from bench.report import stats
from bench.report.leaderboard import Leaderboard

ALPHA = 0.05
MIN_DATASETS = 6
"""Fewest datasets with which a two-sided Wilcoxon test can reach p < .05."""


class TooFew(str):
    """Why there is no number: a sentence for the reader."""


@dataclass(frozen=True)
class Friedman:
    """Whether all strategies could be alike."""

    chi2: float
    p_chi2: float
    f: float
    """Iman and Davenport's F, which is less conservative; infinite where all datasets agree on every rank."""
    p: float
    """Of F."""
    datasets: int
    entries: int


@dataclass(frozen=True)
class CriticalDifference:
    """What a critical-difference diagram shows, best mean rank first."""

    labels: tuple[str, ...]
    mean_ranks: tuple[float, ...]
    difference: float
    """Two mean ranks that differ by less are not told apart."""
    groups: tuple[tuple[int, int], ...]
    """(first, last) position of each longest run of entries that are not told apart, of two entries or more."""
    friedman: Friedman


def friedman(scores: np.ndarray) -> Friedman | TooFew:
    """Friedman's test on scores [D, E], ties corrected for, and Iman and Davenport's F (Demšar, JMLR 2006)."""
    datasets, entries = scores.shape
    if datasets < MIN_DATASETS:
        return TooFew(f"No Friedman test: it takes at least {MIN_DATASETS} datasets, and here there are {datasets}.")
    if entries < 3:
        return TooFew(f"No Friedman test: it takes at least three strategies, and {entries} are ranked.")
    ranks = stats.ranks(scores)
    if np.ptp(ranks, axis=1).max() == 0:
        return TooFew("All strategies have the same score on every dataset: there is nothing to rank.")
    chi2, p_chi2 = scipy_stats.friedmanchisquare(*scores.T)
    limit = datasets * (entries - 1)
    f = np.inf if np.isclose(chi2, limit) else (datasets - 1) * chi2 / (limit - chi2)
    p = scipy_stats.f.sf(f, entries - 1, (entries - 1) * (datasets - 1))
    return Friedman(float(chi2), float(p_chi2), float(f), float(p), datasets, entries)


def nemenyi(datasets: int, entries: int, alpha: float = ALPHA) -> float:
    """Critical difference of two mean ranks over `datasets` among `entries` (Nemenyi 1963, after Demšar, JMLR 2006)."""
    q = scipy_stats.studentized_range.ppf(1 - alpha, entries, np.inf) / np.sqrt(2)
    return float(q * np.sqrt(entries * (entries + 1) / (6 * datasets)))


def critical_difference(labels: Sequence[str], scores: np.ndarray) -> CriticalDifference | TooFew:
    """From the entries' mean test AUC on each dataset [D, E]."""
    test = friedman(scores)
    if isinstance(test, TooFew):
        return test
    datasets, entries = scores.shape
    difference = nemenyi(datasets, entries)
    means = stats.ranks(scores).mean(axis=0)
    order = sorted(range(entries), key=lambda e: (means[e], labels[e]))
    ordered = means[order]
    last = np.searchsorted(ordered, ordered + difference, side="left") - 1
    # Nemenyi's test follows upon Friedman's: where that one rejects nothing, all are one group.
    runs = (
        [(0, entries - 1)]
        if test.p >= ALPHA
        else [(at, int(end)) for at, end in enumerate(last) if end > at and (at == 0 or end > last[at - 1])]
    )
    return CriticalDifference(
        tuple(labels[e] for e in order), tuple(map(float, ordered)), difference, tuple(runs), test
    )


def wilcoxon(gains: np.ndarray) -> float | TooFew:
    """Two-sided p-value of Wilcoxon's signed-rank test that gains over the control [D] are symmetric about zero."""
    datasets = len(gains)
    if datasets < MIN_DATASETS:
        smallest = 2.0 ** (1 - datasets)
        return TooFew(
            f"No p-value: over {_datasets(datasets)} the smallest that Wilcoxon's test can give is {smallest:.2g}, "
            f"so at least {MIN_DATASETS} are needed for one below {ALPHA:g}."
        )
    if not np.any(gains):
        return 1.0
    return float(scipy_stats.wilcoxon(gains, zero_method="wilcox").pvalue)


def holm(p: Sequence[float]) -> list[float]:
    """Holm's adjusted p-values (Scandinavian Journal of Statistics 1979), in the order given."""
    values = np.asarray(p, dtype=float)
    order = np.argsort(values, kind="stable")
    steps = np.maximum.accumulate(values[order] * np.arange(len(values), 0, -1))
    adjusted = np.empty(len(values))
    adjusted[order] = np.minimum(steps, 1)
    return adjusted.tolist()


def corrected(p: Sequence[float]) -> list[float]:
    """Holm's, of those that are known; the others stay NaN."""
    adjusted = iter(holm([value for value in p if not np.isnan(value)]))
    return [value if np.isnan(value) else next(adjusted) for value in p]


def against_control(board: Leaderboard) -> dict[str, float] | TooFew:
    """Wilcoxon's p-value of each ranked strategy against the control, over datasets, corrected by Holm for their
    number."""
    matrix = board.matrix
    if board.by != ("strategy",) or board.control is None or matrix is None or len(matrix.labels) < 2:
        return TooFew("No control is ranked that the others could be tested against.")
    control = matrix.labels.index(board.control)
    others = [at for at in range(len(matrix.labels)) if at != control]
    found = [wilcoxon(matrix.dataset_means[at] - matrix.dataset_means[control]) for at in others]
    if isinstance(found[0], TooFew):
        return found[0]
    adjusted = holm([p for p in found if not isinstance(p, TooFew)])
    return {matrix.labels[at]: p for at, p in zip(others, adjusted, strict=True)}


def _datasets(number: int) -> str:
    return f"{number} dataset{'' if number == 1 else 's'}"
