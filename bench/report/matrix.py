"""The rows that a ranking stands on, as arrays."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
import pandas as pd

from bench.report import stats
from bench.report.same_images import judged_on

Z = 1.959964
"""Normal quantile of a two-sided 95 % interval."""


@dataclass(frozen=True, eq=False)
class Matrix:
    """E entries on B complete blocks of D datasets, with up to S seeds each."""

    labels: tuple[str, ...]
    """[E]"""
    datasets: tuple[str, ...]
    """[D], sorted, by `judged_on`: those that are tested on the same images or patients are one."""
    scores: np.ndarray
    """Test AUC [E, B, S]; where a cell has fewer seeds, the rest is NaN."""
    errors: np.ndarray
    """Standard error of the test AUC that the test images cause [E, B], mean over seeds; NaN where a row lacks it."""
    by_dataset: np.ndarray
    """[B, D]: a block's share of its dataset, which the dataset's blocks have alike; columns sum to 1."""

    @property
    def weights(self) -> np.ndarray:
        """[B], summing to 1: datasets count alike, and a dataset's blocks share its weight."""
        return self.by_dataset.mean(axis=1)

    @property
    def seeds(self) -> int:
        """Fewest of any entry in any block."""
        return int((~np.isnan(self.scores)).sum(axis=-1).min())

    @property
    def dataset_means(self) -> np.ndarray:
        """Mean test AUC [E, D], blocks counting alike."""
        return np.nanmean(self.scores, axis=-1) @ self.by_dataset

    @property
    def dataset_errors(self) -> np.ndarray:
        """[E, D]: the error of a dataset's mean, as if its blocks' errors were one and the same, being of the same
        images."""
        return self.errors @ self.by_dataset

    def ordered(self, order: Sequence[int]) -> Matrix:
        """The entries at the positions `order`, in that order."""
        places = list(order)
        labels = tuple(self.labels[at] for at in places)
        return replace(self, labels=labels, scores=self.scores[places], errors=self.errors[places])


def matrix(used: pd.DataFrame, labels: Sequence[str]) -> Matrix:
    """From rows with a result whose blocks are complete; their columns `_entry` (position in `labels`) and `_block`
    number entries and blocks. `labels` may name entries without rows: they are left out."""
    entries = np.sort(used["_entry"].unique())
    blocks = used.drop_duplicates("_block").sort_values("_block")
    lists = used.groupby(["_entry", "_block"])["test_auc"].agg(list)
    scores = stats.padded([[lists[entry, block] for block in blocks["_block"]] for entry in entries])
    members = pd.get_dummies(blocks["dataset"].map(judged_on))
    by_dataset = members.to_numpy(dtype=float)
    errors = (used["test_auc_hi"] - used["test_auc_lo"]) / (2 * Z)
    # A mean over some of the seeds is no mean.
    grouped = errors.groupby([used["_entry"], used["_block"]])
    means = grouped.mean().where(grouped.count() == grouped.size()).unstack("_block")
    return Matrix(
        labels=tuple(labels[entry] for entry in entries),
        datasets=tuple(str(name) for name in members.columns),
        scores=scores,
        errors=means.loc[entries, blocks["_block"]].to_numpy(dtype=float),
        by_dataset=by_dataset / by_dataset.sum(axis=0),
    )
