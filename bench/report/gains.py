"""What ensembles gain over single networks on the same test images, with the noise of seeds and of those images.

Seeds are paired: a network of one seed is compared with the ensemble that it, or its neighbours of that seed, are in.
An ensemble over seeds is one run, so what other seeds would have made of it is not known: then, and with one seed, the
interval is over test images only, and says so.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import pandas as pd

from bench.report import predictions
from bench.report.delong import image_variance
from bench.report.intervals import Noise, seed_noise
from bench.report.paired import all_runs
from bench.report.predictions import Predicted
from bench.report.same_images import judged_on
from bench.report.stats import padded

Pair = tuple[pd.DataFrame, pd.DataFrame]
"""The rows of an ensemble and those of a network, sorted by seed."""
Read = Callable[[pd.DataFrame], Predicted | None]
"""A cell's rows -> their predictions, test images sorted by id; None where not all are stored."""
KEPT = 16
"""Cells whose predictions are kept for the next pair."""


@dataclass(frozen=True, eq=False)
class Gain:
    """Mean test AUC of ensembles less that of networks."""

    auc: float
    of_seeds: Noise | None
    """None where a pair has one run."""
    of_images: Noise | None
    """None where predictions of the same test images are not stored for all."""

    @property
    def interval(self) -> tuple[float, float]:
        """95 %, over what is known of the two; NaN where neither is."""
        noises = [noise for noise in (self.of_seeds, self.of_images) if noise is not None]
        if not noises or (self.of_images is None and noises[0].variance == 0):  # seeds that agree tell of no error
            return np.nan, np.nan
        half = float((noises[0] if len(noises) == 1 else noises[0] + noises[1]).half_width)
        return self.auc - half, self.auc + half

    @property
    def over(self) -> str:
        """What the interval is over."""
        known = {"seeds": self.of_seeds, "test images": self.of_images}
        return " and ".join(name for name, noise in known.items() if noise is not None)

    @property
    def told_apart(self) -> bool:
        low, high = self.interval
        return low > 0 or high < 0


def gain(pairs: Sequence[Pair], read: Read) -> Gain:
    """The mean over the pairs of each dataset, and then over datasets. Those that are tested on the same images or
    patients are one dataset; their errors of the images are taken to go together entirely, which is cautious."""
    weights = shares([ensemble for ensemble, _ in pairs])
    differences = [_differences(*pair) for pair in pairs]
    seeds = seed_noise(padded([[one.tolist() for one in differences]]), weights)
    names = np.array([ensemble["dataset"].iloc[0] for ensemble, _ in pairs])
    errors: dict[str, float] = defaultdict(float)
    for dataset in np.unique(names):
        own = names == dataset
        of_images = _image_variance([pair for pair, one in zip(pairs, own, strict=True) if one], read)
        errors[judged_on(dataset)] += weights[own].sum() * np.sqrt(of_images)
    variance = sum(error**2 for error in errors.values())
    return Gain(
        float(weights @ [one.mean() for one in differences]),
        None if np.isnan(seeds.variance[0]) else Noise(seeds.variance[0], seeds.spread[0]),
        None if np.isnan(variance) else Noise(np.array(variance), np.zeros(())),
    )


def shares(parts: Sequence[pd.DataFrame]) -> np.ndarray:
    """Weight of each cell in a mean [B]: datasets count alike, and so do the cells of a dataset. Those that are tested
    on the same images or patients are one dataset."""
    names = [judged_on(part["dataset"].iloc[0]) for part in parts]
    _, place, sizes = np.unique(names, return_inverse=True, return_counts=True)
    return 1 / (sizes[place] * len(sizes))


def reader(folders: Sequence[Path], problems: list[str]) -> Read:
    """Reads from these folders, and keeps the last KEPT cells; what cannot be read is added to `problems`."""
    kept: dict[tuple[str, tuple[int, ...]], Predicted | None] = {}

    def read(rows: pd.DataFrame) -> Predicted | None:
        key = (str(rows["fingerprint"].iloc[0]), tuple(rows["seed"]))
        found = kept.pop(key) if key in kept else _stored(rows, folders, problems)
        kept[key] = found  # as the last one
        if len(kept) > KEPT:
            del kept[next(iter(kept))]
        return found

    return read


def _stored(rows: pd.DataFrame, folders: Sequence[Path], problems: list[str]) -> Predicted | None:
    found = predictions.read(rows, folders, problems)
    if found is None or len(found.seeds) < len(rows):
        return None
    order = np.argsort(found.ids, kind="stable")  # those of imported predictions may be in any
    return replace(found, ids=found.ids[order], labels=found.labels[order], probs=found.probs[:, order])


def _differences(ensemble: pd.DataFrame, network: pd.DataFrame) -> np.ndarray:
    """[S], seed by seed; one value where the two have other seeds."""
    one, other = (part["test_auc"].to_numpy(dtype=float) for part in (ensemble, network))
    return (
        one - other if ensemble["seed"].tolist() == network["seed"].tolist() else np.array([one.mean() - other.mean()])
    )


def _image_variance(pairs: Sequence[Pair], read: Read) -> float:
    """Of the mean difference of one dataset; NaN where it is not known."""
    sides = [[read(pair[side]) for pair in pairs] for side in (0, 1)]
    ensembles, networks = ([one for one in side if one is not None] for side in sides)
    if len(ensembles) + len(networks) < 2 * len(pairs):
        return float("nan")
    first = ensembles[0]
    same = all(
        np.array_equal(first.ids, one.ids) and np.array_equal(first.labels, one.labels) and one.kind == first.kind
        for one in (*ensembles, *networks)
    )
    return image_variance(first.labels, all_runs(networks), all_runs(ensembles), first.kind) if same else float("nan")
