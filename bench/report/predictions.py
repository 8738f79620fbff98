"""Stored predictions of the cells that the page looks into."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import cast

import numpy as np
import pandas as pd

from bench import npzfile
from bench.contract import KINDS, Kind
from bench.errors import DataError, printable
from bench.metrics import probabilities
from bench.report import audits
from bench.report.frames import ok, saw_test


@dataclass(frozen=True, eq=False)
class Predicted:
    """The test predictions of one cell."""

    dataset: str
    strategy: str
    backbone: str
    kind: Kind
    classes: tuple[str, ...]
    seeds: tuple[int, ...]
    labels: np.ndarray
    """int64 [N], multi-label [N, K]."""
    probs: np.ndarray
    """float64 [S, N, K]."""
    ids: np.ndarray
    """str [N]."""
    folder: int
    """Which of the folders holds them."""
    rows: pd.DataFrame
    """The cell's rows, one a seed."""


def best_cells(rows: pd.DataFrame, by: Sequence[str]) -> list[pd.DataFrame]:
    """The rows of the cell with the highest mean val AUC, for each value of `by`, among those that did not see the test
    images. Val, not test: what is looked into is chosen as a strategy's hyperparameters are."""
    results = ok(rows).dropna(subset=["val_auc", "fingerprint"])
    results = results[~saw_test(results)]
    cell = list(dict.fromkeys([*by, "strategy", "backbone", "fingerprint"]))
    means = results.groupby(cell)["val_auc"].mean().reset_index()
    best = means.sort_values(["val_auc", *cell], ascending=[False, *[True] * len(cell)], kind="stable")
    best = best.drop_duplicates(list(by)).sort_values(list(by))
    return [results[results["fingerprint"] == fingerprint] for fingerprint in best["fingerprint"]]


def read(cell: pd.DataFrame, folders: Sequence[Path], problems: list[str]) -> Predicted | None:
    """The predictions of a cell's rows (one fingerprint); None where no folder holds those of any seed. A file that is
    damaged counts as missing and is named in `problems`, as are seeds whose files do not go together."""
    first = cell.iloc[0]
    found = []
    for fingerprint, seed in sorted(zip(cell["fingerprint"], cell["seed"], strict=True)):
        paths = [folder / "cells" / f"{fingerprint}-s{seed}.npz" for folder in folders]
        there = [n for n, path in enumerate(paths) if path.is_file()]
        if there:
            try:
                found.append((int(seed), there[-1], *_arrays(paths[there[-1]])))
            except DataError as error:
                problems.append(str(error))
    if not found:
        return None
    seeds, places, logits, labels, ids = zip(*found, strict=True)
    if first["kind"] not in KINDS or any(not np.array_equal(ids[0], other) for other in ids):
        problems.append(printable(f"{first['fingerprint']}: its predictions do not go together. Run its cell again."))
        return None
    kind = cast(Kind, first["kind"])
    classes = _classes(folders[places[0]], first, logits[0].shape[1])
    probs = np.stack([probabilities(one, kind) for one in logits])
    return Predicted(
        first["dataset"], first["strategy"], first["backbone"], kind, classes, seeds, labels[0], probs, ids[0],
        places[0], cell,
    )  # fmt: skip


def _arrays(path: Path) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Test logits [N, K], labels and ids [N]. Raises DataError."""
    try:
        logits, labels, ids = (npzfile.array(path, f"test_{what}") for what in ("logits", "labels", "ids"))
    except DataError as error:
        why = f"{path.name} cannot be read and counts as missing ({error})."
        raise DataError(f"{why} Delete it and its .json, and run its cell again.") from None
    if not _go_together(logits, labels, ids):
        raise DataError(f"{path.name} does not hold predictions. Delete it and its .json, and run its cell again.")
    return logits, labels, ids


def _go_together(logits: np.ndarray, labels: np.ndarray, ids: np.ndarray) -> bool:
    shapes = ids.ndim == 1 and logits.ndim == 2 and labels.shape in (logits.shape, ids.shape)
    kinds = logits.dtype.kind == "f" and labels.dtype.kind in "iubf"
    if not (shapes and kinds and len(logits) == len(ids) and logits.size):
        return False
    below = 2 if labels.ndim == 2 else logits.shape[1]
    return bool(np.isfinite(logits).all() and labels.min() >= 0 and labels.max() < below)


def _classes(folder: Path, row: pd.Series, outputs: int) -> tuple[str, ...]:
    """Names of the classes, from `datasets.json`; numbers where it has none."""
    entries = audits.read(folder)[0].values()
    names = [tuple(entry["class_counts"]["train"]) for entry in entries if entry["name"] == row["dataset"]]
    fitting = [name for name in names if len(name) == outputs]
    return fitting[0] if fitting else tuple(f"class {n}" for n in range(outputs))
