"""The Bayesian signed-rank test across datasets: how likely a gain, a loss or practical equivalence is."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from bench.report.significance import MIN_DATASETS, TooFew

DRAWS = 20_000


@dataclass(frozen=True)
class Shares:
    """Probabilities that sum to 1."""

    left: float
    """That on a further dataset of this kind a loss larger than the region is the likeliest."""
    rope: float
    """That a difference within the region is."""
    right: float
    """That a gain larger than the region is."""


def signed_rank(gains: np.ndarray, rope: float, draws: int = DRAWS, seed: int = 0) -> Shares | TooFew:
    """From the gains on each dataset [D] and half the width of the region of practical equivalence.

    Benavoli, Corani, Demšar & Zaffalon, "Time for a change" (JMLR 2017), section 4.2: the posterior is a Dirichlet
    process over the gains with one prior observation at 0; the shares are those of its draws in which the Walsh
    averages lie mostly left of, within or right of the region.
    """
    if len(gains) < MIN_DATASETS:
        return TooFew(
            f"No probabilities: fewer than {MIN_DATASETS} datasets say too little of a further one. Three that agree "
            "would be enough for .97."
        )
    values = np.concatenate([[0.0], gains])
    walsh = (values[:, None] + values) / 2
    weights = np.random.default_rng(seed).dirichlet(np.ones(len(values)), draws)
    left, right = (((weights @ side) * weights).sum(axis=1) for side in (walsh < -rope, walsh > rope))
    chances = np.stack([left, 1 - left - right, right])
    highest = np.isclose(chances, chances.max(axis=0), rtol=0, atol=1e-12)
    shares = (highest / highest.sum(axis=0)).mean(axis=1)
    return Shares(*map(float, shares))
