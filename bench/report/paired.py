"""Two strategies on the same test images, from the stored predictions: DeLong's test of AUC, McNemar's of accuracy.

A strategy is what its runs are in the rows: single networks, one a seed. So it is their AUCs that are averaged, not
their probabilities: those would be an ensemble, another and mostly better model that nobody scored. An image's
structural components are averaged over the runs, which gives DeLong's variance of the mean AUC over draws of the test
images, and the variance between seeds is added to it, with Welch's degrees of freedom. In the words of radiology this
is a multi-reader multi-case study with seeds for readers (Obuchowski & Rockette, Communications in Statistics 1995;
Hillis, Statistics in Medicine 2007), whose readers differ between the two treatments.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import numpy as np
import pandas as pd
from scipy import stats as scipy_stats

from bench.contract import Kind
from bench.metrics import decide
from bench.report import predictions
from bench.report.delong import image_variance
from bench.report.frames import CELL
from bench.report.intervals import Noise, seed_noise
from bench.report.leaderboard import Leaderboard
from bench.report.matrix import Matrix
from bench.report.predictions import Predicted
from bench.report.same_images import images_of, judged_on
from bench.report.significance import TooFew

BLOCK = [name for name in CELL if name != "strategy"]
Read = Callable[[pd.DataFrame], Predicted | None]
"""A cell's rows -> their predictions, of the seeds that are stored."""


@dataclass(frozen=True, eq=False)
class Paired:
    """What tells two strategies apart on one dataset, or on all; `one` less `other` throughout."""

    dataset: str
    one: str
    other: str
    images: int
    auc: float
    """Difference of mean test AUC."""
    of_seeds: Noise
    """NaN with one seed."""
    of_images: Noise
    accuracy: float
    p_accuracy: float
    """McNemar's, over test images only; NaN for all datasets together, and for several views of the same patients."""

    @property
    def both(self) -> Noise:
        return self.of_seeds + self.of_images

    @property
    def p(self) -> float:
        """Two-sided, over seeds and test images."""
        return _p(self.auc, self.both)

    @property
    def p_images(self) -> float:
        """Two-sided, over test images only: DeLong's."""
        return _p(self.auc, self.of_images)


def paired(
    board: Leaderboard, one: str, other: str, folders: Sequence[Path], problems: list[str]
) -> list[Paired | TooFew]:
    """One entry a dataset of a leaderboard of strategies, in order, and one of their mean where there are several and
    none lacks its predictions. Those that are damaged are named in `problems`."""
    if board.matrix is None:
        return []
    used = board.used[["fingerprint", "seed", "kind", *CELL]]
    read = partial(predictions.read, folders=folders, problems=problems)
    found = [_on(board.matrix, used, at, one, other, read) for at in range(len(board.matrix.datasets))]
    tests = [part for part in found if isinstance(part, Paired)]
    return [*found, _mean(tests)] if len(tests) == len(found) > 1 else found


def _mean(parts: Sequence[Paired]) -> Paired:
    """Datasets count alike, and their errors are independent."""
    return Paired(
        dataset="all", one=parts[0].one, other=parts[0].other, images=sum(part.images for part in parts),
        auc=float(np.mean([part.auc for part in parts])),
        of_seeds=_mean_noise([part.of_seeds for part in parts]),
        of_images=_mean_noise([part.of_images for part in parts]),
        accuracy=float(np.mean([part.accuracy for part in parts])), p_accuracy=float("nan"),
    )  # fmt: skip


def _mean_noise(parts: Sequence[Noise]) -> Noise:
    variance, spread = (np.array([getattr(part, name) for part in parts]) for name in ("variance", "spread"))
    return Noise(variance.sum() / len(parts) ** 2, spread.sum() / len(parts) ** 4)


def mcnemar(one: np.ndarray, other: np.ndarray) -> float:
    """Two-sided p-value that two classifiers are right equally often, from bool [R, N]: whether each of R runs is right
    on each of N images; the numbers of runs may differ.

    With one run each it is McNemar's mid-p (Fagerland, Lydersen & Laake, BMC Medical Research Methodology 2013). With
    more an image is a cluster of decisions (Obuchowski, Statistics in Medicine 1998): the sum of the images'
    differences in the share of runs that are right, over the root of the sum of their squares, is taken as normal.
    """
    difference = one.mean(axis=0) - other.mean(axis=0)
    if len(one) == len(other) == 1:
        won, lost = int((difference > 0).sum()), int((difference < 0).sum())
        below = scipy_stats.binom(won + lost, 0.5)
        return float(min(1.0, 2 * below.cdf(min(won, lost))) - below.pmf(min(won, lost))) if won + lost else 1.0
    spread = np.sqrt((difference**2).sum())
    return float(2 * scipy_stats.norm.sf(abs(difference.sum()) / spread)) if spread > 0 else 1.0


def right(labels: np.ndarray, probs: np.ndarray, kind: Kind) -> np.ndarray:
    """Whether each run is right on each image: [S, N, K] -> float [S, N]; multi-label: the share of labels."""
    if kind == "multi-label":
        return ((probs > 0.5) == (labels > 0.5)).mean(axis=-1)
    return np.stack([decide(run, kind) == labels for run in probs]).astype(float)


def _on(matrix: Matrix, used: pd.DataFrame, at: int, one: str, other: str, read: Read) -> Paired | TooFew:
    """Images of several views of the same patients are not the same: their errors are taken to go together entirely,
    which is cautious, and how often both are right is not tested."""
    name = matrix.datasets[at]
    used = used[used["dataset"].map(judged_on) == name]
    seen = used["dataset"].map(images_of)
    parts = [_images(used[seen == images], images, one, other, read) for images in sorted(seen.unique())]
    if lacking := [part for part in parts if isinstance(part, TooFew)]:
        return lacking[0]
    known = [part for part in parts if not isinstance(part, TooFew)]
    shares = np.array([part.blocks for part in known]) / sum(part.blocks for part in known)
    rows = [matrix.labels.index(one), matrix.labels.index(other)]
    auc = float(np.subtract(*matrix.dataset_means[rows, at]))
    seeds = seed_noise(matrix.scores[rows], matrix.by_dataset[:, at])
    images = Noise(np.array((shares @ [np.sqrt(part.variance) for part in known]) ** 2), np.zeros(()))
    of_seeds = Noise(seeds.variance.sum(), seeds.spread.sum())
    accuracy = float(shares @ [part.accuracy for part in known])
    p = known[0].p_accuracy if len(known) == 1 else float("nan")
    return Paired(name, one, other, sum(part.images for part in known), auc, of_seeds, images, accuracy, p)


@dataclass(frozen=True)
class _Images:
    """Two strategies on the same test images."""

    blocks: int
    images: int
    variance: float
    """Of the difference of their AUCs."""
    accuracy: float
    p_accuracy: float


def _images(used: pd.DataFrame, name: str, one: str, other: str, read: Read) -> _Images | TooFew:
    """From the rows of blocks that are tested on the images `name`."""
    lots = [_predictions(used, name, strategy, read) for strategy in (one, other)]
    if any(isinstance(lot, TooFew) for lot in lots):
        return next(lot for lot in lots if isinstance(lot, TooFew))
    first, second = (lot for lot in lots if not isinstance(lot, TooFew))
    reference = first[0]
    if any(not np.array_equal(reference.ids, cell.ids) for cell in (*first, *second)):
        return TooFew(f"{name}: the stored predictions are not of the same test images.")
    probs, others = (all_runs(lot) for lot in (first, second))
    variance = image_variance(reference.labels, others, probs, reference.kind)
    correct = [right(reference.labels, runs, reference.kind) for runs in (probs, others)]
    accuracy = float(correct[0].mean() - correct[1].mean())
    return _Images(len(first), len(reference.ids), variance, accuracy, mcnemar(*correct))


def _p(difference: float, noise: Noise) -> float:
    if noise.variance == 0:
        return float(difference == 0)
    distance = abs(difference) / np.sqrt(noise.variance)
    freedom = noise.freedom
    return float(2 * (scipy_stats.t.sf(distance, freedom) if np.isfinite(freedom) else scipy_stats.norm.sf(distance)))


def _predictions(used: pd.DataFrame, dataset: str, strategy: str, read: Read) -> list[Predicted] | TooFew:
    """Of a strategy's cell in each block of these rows."""
    rows = used[used["strategy"] == strategy]
    found = []
    for _, cell in rows.groupby(BLOCK, dropna=False):
        predicted = read(cell) if cell["fingerprint"].notna().all() else None
        if predicted is None or len(predicted.seeds) < len(cell):
            return TooFew(f"{dataset}: not all predictions of {strategy} are stored.")
        found.append(predicted)
    return found


def all_runs(cells: Sequence[Predicted]) -> np.ndarray:
    """All runs [R, N, K], as many of each cell, so that cells count alike."""
    fewest = min(len(cell.probs) for cell in cells)
    return np.concatenate([cell.probs[:fewest] for cell in cells])
