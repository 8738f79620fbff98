"""Two results folders, cell by cell and seed by seed: what improved, what regressed, what is in one only.

A difference is B's test AUC less A's. Its 95 % interval is over seeds (bench.report.intervals, of the differences
between equal seeds) and, where both folders hold the predictions of the same test images, over test images too
(bench.report.delong).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd
from scipy.stats import t as student

from bench.errors import UsageError
from bench.report.delong import image_variance
from bench.report.frames import CELL, IDENTITY, MADE_FROM, current, ok, read_rows
from bench.report.intervals import LEVEL, Noise, seed_noise
from bench.report.predictions import Predicted, read
from bench.report.same_images import judged_on
from bench.report.significance import holm
from bench.report.stats import padded
from bench.report.written import signed

IMPROVED, REGRESSED, SAME, UNTOLD = "improved", "regressed", "no difference shown", "cannot be told"
NAMED = 5
"""Cells that a failure names."""
BROKEN = ("failed", "oom", "diverged")
ORIGINS = {
    **MADE_FROM,
    "hparams": "hyperparameters chosen",
    "epochs": "epochs",
    "trials": "trials",
    "engine": "harness",
    "device": "device",
}
"""Columns whose values may explain a difference, in words."""


@dataclass(frozen=True, eq=False)
class Comparison:
    """What two folders have in common and what they have not."""

    a: str
    b: str
    cells: pd.DataFrame
    """Cells with a result of the same seed in both, the worst difference first. Columns: those of CELL, `a` and `b`
    (mean test AUC over the seeds in both), `difference`, `low`, `high` (NaN with one seed), `error` and `freedom` (the
    standard error of the difference and its degrees of freedom), `seeds`, `images` (whether the interval holds the
    noise of the test images), `verdict`."""
    mean: tuple[float, float, float]
    """Difference and its interval, over the cells of each dataset and then over datasets; NaN where it is unknown.
    Ensembles are not in it, where there are other cells: they are made of those. Nor are cells with one seed in both,
    where others have more: nothing is known of their noise."""
    mean_images: bool
    datasets: tuple[str, ...]
    only_a: pd.DataFrame
    """Runs of cells and seeds that B has no row of: columns IDENTITY."""
    only_b: pd.DataFrame
    lost: pd.DataFrame
    """Runs with a result in A but none in B, where B has a row: columns IDENTITY, `status`, `reason` (B's)."""
    gained: pd.DataFrame
    """The other way round; `status` and `reason` are A's."""
    unchanged: int
    """Cells with one fingerprint: nothing that determines their result differs."""
    origins: tuple[tuple[str, int], ...]
    """What differs between A and B, and in how many cells."""
    warnings: tuple[str, ...]
    """What cannot be read."""


def compare(a: Path, b: Path) -> Comparison:
    """Compare the current rows of two results folders. Raises UsageError where one holds no results or the two share
    no run with a result."""
    rows_a, rows_b = current(read_rows(a)), current(read_rows(b))
    warnings = [f"{folder}: {text}" for folder, rows in ((a, rows_a), (b, rows_b)) for text in rows.attrs["warnings"]]
    for rows in (rows_a, rows_b):
        rows.attrs = {}  # pandas would compare and merge them
    needed = [*IDENTITY, "test_auc", "fingerprint", "kind", "fusion", *ORIGINS]
    paired = ok(rows_a)[needed].merge(ok(rows_b)[needed], on=IDENTITY, suffixes=("_a", "_b"))
    if paired.empty:
        fix = "Compare runs that share dataset, backbone, strategy, size, amount of data and seed."
        raise UsageError(f"{a} and {b} have no run with a result in common. {fix}")
    parts = [part for _, part in paired.groupby(CELL, dropna=False)]
    stored = [{path.name for path in (folder / "cells").glob("*.npz")} for folder in (a, b)]
    both = [paired[f"fingerprint_{side}"] + "-s" + paired["seed"].astype("string") + ".npz" for side in "ab"]
    there = both[0].isin(stored[0]) & both[1].isin(stored[1])
    variances = [_images(part, a, b, warnings) if there[part.index].all() else np.nan for part in parts]
    cells = pd.DataFrame([_cell(part, v) for part, v in zip(parts, variances, strict=True)])
    single = [at for at, part in enumerate(parts) if part[["fusion_a", "fusion_b"]].isna().all(axis=None)]
    counted = single or list(range(len(parts)))  # what an ensemble is made of is in the mean already
    counted = [at for at in counted if len(parts[at]) > 1] or counted
    mean = _mean(
        [parts[at] for at in counted], cells["dataset"].iloc[counted].tolist(), [variances[at] for at in counted]
    )
    order = cells.sort_values(["difference", *CELL[:3]], kind="stable", ignore_index=True)
    return Comparison(
        a=str(a), b=str(b), cells=order, mean=mean, mean_images=not np.isnan([variances[at] for at in counted]).any(),
        datasets=tuple(sorted(cells["dataset"].unique())),
        only_a=_absent(rows_a, rows_b), only_b=_absent(rows_b, rows_a),
        lost=_without(rows_a, rows_b), gained=_without(rows_b, rows_a),
        unchanged=len(parts) - _differing(paired, "fingerprint"),
        origins=tuple((what, n) for name, what in ORIGINS.items() if (n := _differing(paired, name))),
        warnings=tuple(warnings),
    )  # fmt: skip


def breaches(found: Comparison, most: float) -> list[str]:
    """Why B fails under a loss of at most `most`: the mean's or a cell's interval lies below -`most` entirely, or a run
    with a result in A failed in B. Of cells, which are many, the test is corrected for their number (Holm): where none
    lost as much, one fails in 1 of 40 comparisons. Raises UsageError where no difference has an interval, since nothing
    could fail."""
    if found.cells["low"].isna().all():
        fix = "Run both with --seeds 2 or more."
        raise UsageError(
            f"--fail-under {most:g}: no cell has two seeds in both, so no difference has an interval. {fix}"
        )
    difference, low, high = found.mean
    said = []
    if high < -most:
        said.append(f"the mean differs by {signed(difference)} ({signed(low)} to {signed(high)})")
    tested = found.cells[found.cells["low"].notna()]
    beyond = (-most - tested["difference"]).to_numpy()
    with np.errstate(divide="ignore", invalid="ignore"):  # without any noise it is certain, either way
        p = np.where(beyond > 0, student.sf(beyond / tested["error"].to_numpy(), tested["freedom"].to_numpy()), 1.0)
    worse = tested[np.array(holm(p.tolist())) < (1 - LEVEL) / 2]
    said += [
        f"{c.dataset} · {c.backbone} · {c.strategy}: {signed(c.difference)} ({signed(c.low)} to {signed(c.high)})"
        for c in worse.head(NAMED).itertuples()
    ]
    if len(worse) > NAMED:
        said.append(f"and in {len(worse) - NAMED} more")
    broken = found.lost[found.lost["status"].isin(BROKEN)]
    if len(broken):
        said.append(f"{len(broken):,} run{'s' if len(broken) > 1 else ''} with a result in A failed in B")
    return said


def _cell(part: pd.DataFrame, images: float) -> dict[str, object]:
    differences = (part["test_auc_b"] - part["test_auc_a"]).to_numpy(dtype=float)
    difference = float(differences.mean())
    noise = _noise([differences], np.ones(1), images)
    low, high = _interval(difference, noise, images)
    verdict = UNTOLD if np.isnan(low) else IMPROVED if low > 0 else REGRESSED if high < 0 else SAME
    return {
        **{name: part[name].iloc[0] for name in CELL},
        "a": part["test_auc_a"].mean(),
        "b": part["test_auc_b"].mean(),
        "difference": difference,
        "low": low,
        "high": high,
        "error": float(np.sqrt(noise.variance)),
        "freedom": float(noise.freedom),
        "seeds": len(part),
        "images": not np.isnan(images),
        "verdict": verdict,
    }


def _mean(
    parts: Sequence[pd.DataFrame], datasets: Sequence[str], images: Sequence[float]
) -> tuple[float, float, float]:
    """Mean over the cells of each dataset, then over datasets. The cells of a dataset share its test images: their
    errors are taken to go together entirely, which is cautious."""
    names, place, sizes = np.unique([*map(judged_on, datasets)], return_inverse=True, return_counts=True)
    weights = 1 / (sizes[place] * len(names))
    differences = [(part["test_auc_b"] - part["test_auc_a"]).to_numpy(dtype=float) for part in parts]
    by_dataset = np.bincount(place, weights * np.sqrt(images))
    of_images = float((by_dataset**2).sum())
    mean = float(weights @ [one.mean() for one in differences])
    return mean, *_interval(mean, _noise(differences, weights, of_images), of_images)


def _noise(differences: Sequence[np.ndarray], weights: np.ndarray, images: float) -> Noise:
    """Of the weighted mean of cells' differences, each of [S] seeds: over seeds only where `images`, the variance that
    the test images cause, is NaN."""
    noise = seed_noise(padded([[one.tolist() for one in differences]])[0], weights)
    return noise if np.isnan(images) else noise + Noise(np.array(images), np.zeros(()))


def _interval(mean: float, noise: Noise, images: float) -> tuple[float, float]:
    """Seeds that all agree on a difference tell nothing of its error: without predictions there is no interval then."""
    half = float(noise.half_width)
    return (np.nan, np.nan) if np.isnan(images) and half == 0 and mean != 0 else (mean - half, mean + half)


def _images(part: pd.DataFrame, a: Path, b: Path, warnings: list[str]) -> float:
    """Variance of the mean difference that the test images cause; NaN where the predictions of the same images by the
    same seeds are not stored on both sides; of damaged files `warnings` says so."""
    sides: list[Predicted | None] = []
    for side, folder in (("a", a), ("b", b)):
        names = {f"{name}_{side}": name for name in ("fingerprint", "kind")}
        problems: list[str] = []
        sides.append(read(part[[*IDENTITY, *names]].rename(columns=names), [folder], problems))
        warnings += [f"{folder}: {text}" for text in problems]
    one, other = sides
    if (
        one is None
        or other is None
        or one.seeds != other.seeds
        or not (np.array_equal(one.ids, other.ids) and np.array_equal(one.labels, other.labels))
    ):
        return float("nan")
    return image_variance(one.labels, one.probs, other.probs, one.kind)


def _absent(rows: pd.DataFrame, other: pd.DataFrame) -> pd.DataFrame:
    joined = rows[IDENTITY].merge(other[IDENTITY], on=IDENTITY, how="left", indicator=True)
    return joined.loc[joined["_merge"] == "left_only", IDENTITY]


def _without(rows: pd.DataFrame, other: pd.DataFrame) -> pd.DataFrame:
    """Runs with a result in `rows` whose row in `other` has none."""
    lacking = other.drop(ok(other).index)[[*IDENTITY, "status", "reason"]]
    return ok(rows)[IDENTITY].merge(lacking, on=IDENTITY)


def _differing(paired: pd.DataFrame, name: str) -> int:
    """Cells in which A's and B's values of a column differ for some seed."""
    unequal = (paired[f"{name}_a"] != paired[f"{name}_b"]).fillna(False)
    return paired[unequal].groupby(CELL, dropna=False).ngroups
