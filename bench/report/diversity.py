"""How differently the members of ensembles err: an ensemble can gain where its members are wrong on other images."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd
from markupsafe import Markup

from bench.contract import Kind
from bench.metrics import decide
from bench.report.ensembles_listed import interval
from bench.report.figures import figures
from bench.report.gains import Read, gain
from bench.report.markup import folded, table
from bench.report.members import members
from bench.report.plots.agreement import agreement
from bench.report.plots.canvas import count
from bench.report.plots.choice import settings
from bench.report.ways import best_member, cells
from bench.report.written import MISSING, fixed, signed

MOST = 12
"""Networks of a dataset, those with the highest val AUC."""
OPEN, DRAWN = 2, 6
"""Datasets that get a figure, at once and in all; the table has all."""
MEAN = "ensemble_mean"


@dataclass(frozen=True, eq=False)
class Diversity:
    """Networks on the same test images of a dataset, pair by pair."""

    dataset: str
    kind: Kind
    labels: tuple[str, ...]
    """[M], the highest mean val AUC first."""
    of: int
    """How many networks there were to take them from."""
    images: int
    seeds: int
    disagreement: np.ndarray
    """[M, M]: share of test images (multi-label: of their labels) on which two decide differently, mean over seeds."""
    correlation: np.ndarray
    """[M, M]: phi coefficient of being wrong, over the same; NaN where a network is always right or always wrong."""

    def mean(self, values: np.ndarray) -> float:
        """Over all pairs for which it is known."""
        pairs = values[np.triu_indices(len(values), 1)]
        return float(np.nanmean(pairs)) if np.isfinite(pairs).any() else float("nan")


def parts(made: pd.DataFrame, networks: pd.DataFrame, read: Read) -> Iterable[Markup]:
    """Of ensembles and networks with a result, at the size and amount of data with most ensembles: a table of all
    datasets and a figure for the first of them; nothing where no two members are at hand."""
    setting, rows = settings(made)[0]
    found = [one for _, part in rows.groupby("dataset") if (one := of_dataset(part, networks, read))]
    if not found:
        return
    yield Markup("<h3>How differently the members err</h3>")
    yield _table(found, rows, networks, read, setting)
    drawn = [
        agreement(one, f"agreement{n}", f"Pairs of networks on {one.dataset}, {setting}")
        for n, one in enumerate(found[:DRAWN])
    ]
    yield figures(drawn[:OPEN])
    if more := drawn[OPEN:]:
        left_out = f" of {len(found) - OPEN}" if len(found) > DRAWN else ""
        yield folded(f"Pairs of networks: {count(len(more), 'more dataset')}{left_out}", figures(more))


def of_dataset(made: pd.DataFrame, networks: pd.DataFrame, read: Read) -> Diversity | None:
    """Of the members of a dataset's ensembles, each a backbone and a strategy. None where fewer than two have stored
    predictions of the same test images by the same seeds."""
    inside = {one.fingerprint for text in made["members"] for one in members(text)}
    every = cells(networks[networks["fingerprint"].isin(inside)])
    every.sort(key=lambda part: -part["val_auc"].mean(skipna=False) if part["val_auc"].notna().all() else np.inf)
    chosen = every[:MOST]
    stored = [(part, one) for part in chosen if (one := read(part))]
    if len(stored) < 2:
        return None
    first = stored[0][1]
    seeds = sorted(set.intersection(*(set(one.seeds) for _, one in stored)))
    same = all(np.array_equal(first.ids, one.ids) for _, one in stored)
    if not seeds or not same:
        return None
    decided = np.stack([decisions(one.probs[[one.seeds.index(s) for s in seeds]], first.kind) for _, one in stored])
    truth = first.labels.ravel() > 0 if first.kind == "multi-label" else first.labels
    return Diversity(
        first.dataset, first.kind, tuple(f"{one.backbone} · {one.strategy}" for _, one in stored), len(every),
        len(first.ids), len(seeds), disagreement(decided), correlation(decided != truth),
    )  # fmt: skip


def decisions(probs: np.ndarray, kind: Kind) -> np.ndarray:
    """What runs decide: [S, N, K] -> [S, N] classes, for multi-label [S, N * K] of whether a label is affirmed."""
    if kind == "multi-label":
        return (probs > 0.5).reshape(len(probs), -1)
    return np.stack([decide(run, kind) for run in probs])


def disagreement(decided: np.ndarray) -> np.ndarray:
    """[M, S, N] -> share of N on which two members differ, mean over seeds [M, M]."""
    return np.stack([(decided != one).mean(axis=(1, 2)) for one in decided])


def correlation(wrong: np.ndarray) -> np.ndarray:
    """bool [M, S, N] -> phi coefficient of two members' errors, mean over the seeds in which both have errors and
    correct decisions [M, M]; NaN where there is no such seed."""
    centred = wrong - wrong.mean(axis=-1, keepdims=True)
    joint = np.einsum("asn,bsn->sab", centred, centred)
    spread = np.sqrt(np.einsum("saa->sa", joint))
    with np.errstate(invalid="ignore"):
        each = joint / (spread[:, :, None] * spread[:, None, :])
    known = np.isfinite(each)
    counts = known.sum(axis=0)
    return np.divide(np.where(known, each, 0).sum(axis=0), counts, out=np.full(counts.shape, np.nan), where=counts > 0)


def _table(found: Sequence[Diversity], made: pd.DataFrame, networks: pd.DataFrame, read: Read, setting: str) -> Markup:
    lines: list[tuple[Any, ...]] = []
    for one in found:
        mean = _mean_ensemble(made[made["dataset"] == one.dataset])
        single = None if mean is None else best_member(mean, networks)
        gained = None if mean is None or single is None else gain([(mean, single)], read)
        of = f"{len(one.labels)} of {one.of}" if len(one.labels) < one.of else len(one.labels)
        lines.append(
            (
                one.dataset, f"{one.images:,}", of, one.seeds,
                fixed(one.mean(one.disagreement)), fixed(one.mean(one.correlation), 2),
                "" if mean is None else f"{mean['strategy'].iloc[0]}, {mean['backbone'].iloc[0]}",
                signed(gained.auc) if gained else MISSING, interval(gained) if gained else MISSING,
            )
        )  # fmt: skip
    heads = [
        *("Dataset", "Test images", "Networks", "Seeds", "Disagreement", "Error correlation", "Mean ensemble"),
        *("Its gain", "95 %"),
    ]  # fmt: skip
    caption = (
        f"Diversity of the members, {setting}. Means over all pairs of networks, in each pair over equal seeds; of "
        f"more than {MOST} networks those with the highest val AUC count. Disagreement: share of test images on which "
        "two decide differently (multi-label: share of their labels). Error correlation: phi coefficient of being "
        "wrong on an image (label): 1 where two err on the same ones, 0 where independently. Beside it the gain over "
        f"its best member of the {MEAN} with the most members."
    )
    return table(caption, heads, lines, [*heads[1:6], *heads[7:]])


def _mean_ensemble(made: pd.DataFrame) -> pd.DataFrame | None:
    """The one of most members, and of those of as many the one with the highest val AUC."""
    every = cells(made[made["fusion"] == MEAN])
    return max(every, key=lambda part: (len(members(part["members"].iloc[0])), part["val_auc"].mean()), default=None)
