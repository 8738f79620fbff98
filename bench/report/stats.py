"""Statistics on plain arrays: pure functions, seeded, numpy only.

Scores have the shape [E, B, S]: entries compared, blocks they are compared on, seeds. Where a block has fewer seeds
than S, the rest is NaN, at the end. The bootstrap draws seeds with replacement *within* each block (Agarwal et al.,
"Deep reinforcement learning at the edge of the statistical precipice", NeurIPS 2021): it speaks of other seeds on the
same blocks and test images, never of other datasets.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import numpy as np

from bench.report.draws import index_below

DRAWS = 2000
_FLOATS_AT_ONCE = 4_000_000


def ranks(scores: np.ndarray) -> np.ndarray:
    """Ranks along the last axis, 1 for the highest, ties sharing their mean: float [..., E] -> float64 [..., E].
    Raises ValueError on NaN, which has no rank."""
    scores = np.asarray(scores, dtype=np.float64)
    if np.isnan(scores).any():
        raise ValueError("a missing score has no rank: drop the incomplete block first")
    order = np.argsort(-scores, axis=-1, kind="stable")
    ordered = np.take_along_axis(scores, order, axis=-1)
    places = np.broadcast_to(np.arange(scores.shape[-1]), scores.shape)
    new = np.ones(scores.shape, dtype=bool)
    new[..., 1:] = ordered[..., 1:] != ordered[..., :-1]
    last = np.ones(scores.shape, dtype=bool)
    last[..., :-1] = new[..., 1:]
    first_place = np.maximum.accumulate(np.where(new, places, 0), axis=-1)
    last_place = np.flip(np.minimum.accumulate(np.flip(np.where(last, places, scores.shape[-1]), -1), axis=-1), -1)
    result = np.empty(scores.shape)
    np.put_along_axis(result, order, (first_place + last_place) / 2 + 1, axis=-1)
    return result


def iqm(values: np.ndarray) -> np.ndarray:
    """Interquartile mean along the last axis: the mean without the lowest and the highest quarter (rounded down)."""
    ordered = np.sort(np.asarray(values, dtype=np.float64), axis=-1)
    cut = ordered.shape[-1] // 4
    return ordered[..., cut : ordered.shape[-1] - cut].mean(axis=-1)


def padded(lists: Sequence[Sequence[Sequence[float]]]) -> np.ndarray:
    """Seeds' scores of each entry and block, as ragged lists -> float64 [E, B, S], padded with NaN at the end."""
    longest = max((len(seeds) for blocks in lists for seeds in blocks), default=0)
    result = np.full((len(lists), len(lists[0]) if lists else 0, longest), np.nan)
    for e, blocks in enumerate(lists):
        for b, seeds in enumerate(blocks):
            result[e, b, : len(seeds)] = seeds
    return result


def resamples(scores: np.ndarray, draws: int = DRAWS, seed: int = 0) -> Iterator[np.ndarray]:
    """Stratified bootstrap of [E, B, S]: arrays [R, E, B, S] whose R add up to `draws`, small enough for memory. Where
    the arrays are split does not change the draws.

    A cell's n scores are first moved away from their mean by sqrt(n / (n - 1)), so that the mean of a resample varies
    as the mean of other seeds would. Without it the variance is (n - 1) / n of that, too little by a third for 3 seeds
    (Davison & Hinkley, Bootstrap Methods and their Application, 1997, section 3.2)."""
    counts = np.sum(~np.isnan(scores), axis=-1, keepdims=True)
    centre = np.nanmean(scores, axis=-1, keepdims=True)
    scores = centre + np.sqrt(counts / np.maximum(counts - 1, 1)) * (scores - centre)
    at_once = max(1, _FLOATS_AT_ONCE // max(1, scores.size))
    for start in range(0, draws, at_once):
        shape = (min(at_once, draws - start), *scores.shape)
        index = index_below(counts, start * scores.size, shape, seed)
        drawn = np.take_along_axis(scores[None], index, axis=-1)
        yield np.where(np.isnan(scores), np.nan, drawn)


def probability_best(mean_ranks: np.ndarray) -> np.ndarray:
    """Share of resamples in which each entry has the best (lowest) mean rank: [R, E] -> [E], summing to 1. Entries that
    tie share the resample."""
    best = np.isclose(mean_ranks, mean_ranks.min(axis=-1, keepdims=True), rtol=0, atol=1e-9)
    return (best / best.sum(axis=-1, keepdims=True)).mean(axis=0)


def mean_of_means(scores: np.ndarray) -> np.ndarray:
    """Mean of the blocks' means over seeds, so that blocks count alike: [..., E, B, S] -> [..., E]."""
    return np.nanmean(scores, axis=-1).mean(axis=-1)


def iqm_of_all(scores: np.ndarray) -> np.ndarray:
    """Interquartile mean of all of an entry's scores: [..., E, B, S] -> [..., E]."""
    flat = scores.reshape(*scores.shape[:-2], -1)
    # The padding is at the same places in every resample, so the first one tells them.
    present = ~np.isnan(flat.reshape(-1, *flat.shape[-2:])[0])
    return np.stack([iqm(flat[..., e, kept]) for e, kept in enumerate(present)], axis=-1)


def probability_of_improvement(one: np.ndarray, other: np.ndarray, weights: np.ndarray) -> float:
    """Chance that a run of `one` scores higher than a run of `other` on the same block, mean over blocks; a tie counts
    half (Mann-Whitney's U / (n m); Agarwal et al. 2021). Scores [B, S] and [B, T], weights [B]."""
    higher = np.sign(one[:, :, None] - other[:, None, :]) / 2 + 0.5
    return float(np.nanmean(higher, axis=(1, 2)) @ weights)


def performance_profile(scores: np.ndarray, thresholds: np.ndarray, weights: np.ndarray) -> np.ndarray:
    """Share of an entry's runs [E, B, S] that score above each threshold [T], mean over blocks of weights [B]: [E, T]
    (Dolan & Moré 2002; the score distributions of Agarwal et al. 2021)."""
    above = np.where(np.isnan(scores)[..., None], np.nan, scores[..., None] > thresholds)
    return np.einsum("ebt,b->et", np.nanmean(above, axis=2), weights)
