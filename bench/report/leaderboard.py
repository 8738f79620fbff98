"""Who is best, and how sure is that: strategies (or backbones, or both) compared on the blocks where all have results.

A block is what two entries have in common when they are compared: for strategies the dataset, backbone, size and
amount of training data. Means are taken within a dataset first and then over datasets, because the dataset is the
statistical unit: five backbones on one dataset are not five datasets, nor are five shifts that are tested on the same
images, or three views of the same patients.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import pandas as pd

from bench.report import stats
from bench.report.comparable import MIN_SHARE, comparable
from bench.report.frames import CELL, ok, saw_test
from bench.report.intervals import image_noise, margin, quantile, seed_noise
from bench.report.matrix import Matrix, matrix

CONTROLS = ("scratch", "source_only")
"""The strategy that gains are measured against: the first of these that is compared."""

NO_RIVAL = "it adapts to the test images themselves, which the others never see"
"""Why a transductive strategy is listed without a rank."""

NO_BLOCK = (
    "no block (dataset, backbone, size and amount of data) has results of two strategies. Run all of them on the same "
    "datasets, in one command, or into another folder (--results)."
)
"""Why nothing is ranked, and what to do."""

ROPE = 0.01
"""Region of practical equivalence: two mean test AUCs that differ by no more are as good as each other."""


@dataclass(frozen=True, eq=False)
class Leaderboard:
    """A ranking and what it stands on."""

    by: tuple[str, ...]
    table: pd.DataFrame
    """Best first; entries that are not ranked come last, with missing values. Columns: those of `by`, `label`,
    `ranked`, `mean_rank`, `auc`, `auc_lo`, `auc_hi`, `iqm`, `iqm_lo`, `iqm_hi`, `gain`, `gain_lo`, `gain_hi` (over
    the control), `p_best` (share of resamples in which its mean rank is the best), `within` (share in which its mean
    AUC is at most ROPE below the first entry's), `behind`, `behind_lo`, `behind_hi` (AUC below the first entry),
    `margin` (half width of the 95 % interval of `behind` over seeds and test images: see intervals.margin), `tied` (not
    told apart from the first: `behind` is not above `margin`), `gain_margin` (the same of `gain`), `wins` (datasets
    where its mean AUC is highest), `seconds` (tuning + fitting one model), `params_trained`, `blocks` (in how many of
    the `blocks_any` with any result it has one) and `blocks_used` (in how many of those that the ranking stands on),
    `runs` of `runs_any` (how many of those planned have a result).
    Intervals are 95 %, each for itself, over seeds on the same datasets and test images."""
    used: pd.DataFrame
    """The rows that the ranking stands on."""
    blocks_used: int
    blocks_any: int
    """With a result of any entry."""
    single: int
    """Blocks in which all ranked entries have a result that are left out, because one of them has a single seed there:
    as long as half remains, a run that was lost costs a block and not all intervals."""
    datasets: tuple[str, ...]
    """Names, sorted; `matrix.datasets` are those that count as one."""
    seeds: int
    """Fewest seeds of any compared entry in any block: with 1 there are no intervals."""
    control: str | None
    matrix: Matrix | None
    """The ranked entries in the order of `table`; None where none is ranked."""

    @property
    def ranked(self) -> pd.DataFrame:
        return self.table[self.table["ranked"]]


def leaderboard(rows: pd.DataFrame, by: str | Sequence[str] = "strategy") -> Leaderboard:
    """Compare the values of `by` ("strategy", "backbone" or both) in current rows (see `frames.current`).

    Ranks, means and intervals stand on complete blocks only, those where every ranked entry has a result; `comparable`
    chooses blocks and entries. Intervals (of AUC, gain and distance by Welch's t, of the IQM from the bootstrap's
    standard error with the same t) and shares of resamples (2000 draws, fixed seed) tell how much other seeds would
    change a figure on these datasets and these test images. They say nothing of other datasets. Test images count where
    an entry is told apart from the first.
    """
    keys = (by,) if isinstance(by, str) else tuple(by)
    shared = [name for name in CELL if name not in keys]
    rows = rows.sort_values("seed", kind="stable")  # the draws must not depend on the order of the rows
    numbered = rows.assign(
        _entry=rows.groupby(list(keys), dropna=False).ngroup(), _block=rows.groupby(shared, dropna=False).ngroup()
    )
    results = ok(numbered)
    names = numbered.drop_duplicates("_entry").sort_values("_entry")[list(keys)].reset_index(drop=True)
    table = names.assign(label=names.agg(" · ".join, axis=1)) if len(names) else names.assign(label="")
    counts = np.zeros((len(table), numbered["_block"].nunique()), dtype=int)
    np.add.at(counts, (results["_entry"].to_numpy(), results["_block"].to_numpy()), 1)
    eligible = np.ones(len(table), dtype=bool)
    if "strategy" in keys:
        seen = saw_test(numbered).groupby(numbered["_entry"]).any()
        eligible = ~seen.reindex(table.index, fill_value=False).to_numpy()
    # Of pairs each backbone has its own control, so there is none that all could be measured against.
    labels = table["label"].tolist()
    controls = [labels.index(name) for name in CONTROLS if keys == ("strategy",) and name in labels]
    there = counts > 0
    table["ranked"], complete = comparable(there & eligible[:, None], controls)
    several = complete & (counts[table["ranked"]] > 1).all(axis=0)
    single = int((complete & ~several).sum()) if several.sum() >= MIN_SHARE * complete.sum() else 0
    complete = several if single else complete
    table["blocks"], table["blocks_any"] = there.sum(axis=1), int(there.any(axis=0).sum())
    table["blocks_used"] = there[:, complete].sum(axis=1)
    table["runs"] = counts.sum(axis=1)
    table["runs_any"] = numbered.groupby("_entry").size().reindex(table.index, fill_value=0)

    ranked = table.index[table["ranked"]]
    used = results[results["_entry"].isin(ranked) & results["_block"].isin(np.flatnonzero(complete))]
    control, stands = None, None
    figures = pd.DataFrame(index=table.index, columns=_FIGURES, dtype=float)
    figures["tied"] = True
    if len(used):
        stands = matrix(used, labels)
        control, values = _figures(used, table, stands)
        figures.loc[values.index] = values
    table = pd.concat([table, figures], axis=1)
    table["tied"] = table["tied"].astype(bool)
    order = ["ranked", "mean_rank", "auc", "label"]
    table = table.sort_values(order, ascending=[False, True, False, True], kind="stable")
    places = np.searchsorted(ranked, table.index[table["ranked"]]).tolist()
    return Leaderboard(
        by=keys,
        table=table.reset_index(drop=True),
        used=used.drop(columns=["_entry", "_block"]),
        blocks_used=int(complete.sum()),
        blocks_any=int(there.any(axis=0).sum()),
        single=single,
        datasets=tuple(sorted(used["dataset"].unique())),
        seeds=stands.seeds if stands else 0,
        control=control,
        matrix=stands.ordered(places) if stands else None,
    )


_FIGURES = [
    *("mean_rank", "auc", "auc_lo", "auc_hi", "iqm", "iqm_lo", "iqm_hi", "gain", "gain_lo", "gain_hi", "p_best"),
    *("within", "behind", "behind_lo", "behind_hi", "tied", "wins", "seconds", "params_trained"),
    *("margin", "gain_margin"),
]


def _figures(used: pd.DataFrame, table: pd.DataFrame, stands: Matrix) -> tuple[str | None, pd.DataFrame]:
    """The control's name, and the columns of _FIGURES for the ranked entries, indexed like `table`."""
    scores, weights = stands.scores, stands.weights
    figures = pd.DataFrame(index=pd.Index(np.sort(used["_entry"].unique())), columns=_FIGURES, dtype=float)
    means = np.nanmean(scores, axis=-1)
    auc = means @ weights
    # Rounding of the sums must not break a tie.
    mean_rank = (weights @ stats.ranks(means.T)).round(9)
    figures["auc"], figures["mean_rank"], figures["iqm"] = auc, mean_rank, stats.iqm_of_all(scores)
    figures["wins"] = (stands.dataset_means == stands.dataset_means.max(axis=0)).sum(axis=1)
    for name, cost in (("seconds", _seconds(used)), ("params_trained", used["params_trained"].astype("Float64"))):
        grouped = cost.astype(float).groupby([used["_entry"], used["_block"]])
        per_block = grouped.mean().where(grouped.count() == grouped.size())  # a mean over some of the runs is no mean
        figures[name] = per_block.unstack("_block").sort_index(axis=1).to_numpy(dtype=float) @ weights

    control, rivals = _rivals(table.loc[figures.index].reset_index(drop=True))
    has_control = rivals >= 0
    first = int(np.lexsort((-auc, mean_rank))[0])
    behind = auc[first] - auc
    figures["gain"], figures["behind"] = np.where(has_control, auc - auc[rivals], np.nan), behind
    figures["tied"] = True
    if stands.seeds < 2:
        return control, figures

    noise = seed_noise(scores, weights)
    from_first = (noise + noise.at(np.array([first]))).half_width
    from_first[first] = 0
    drawn = [_drawn(part, weights) for part in stats.resamples(scores)]
    sample, rank, iqm = (np.concatenate(parts) for parts in zip(*drawn, strict=True))
    for name, centre, half in (
        ("auc", auc, noise.half_width),
        ("iqm", figures["iqm"].to_numpy(), quantile(noise.freedom) * iqm.std(axis=0)),
        ("gain", figures["gain"].to_numpy(), (noise + noise.at(rivals)).half_width),
        ("behind", behind, from_first),
    ):
        figures[f"{name}_lo"], figures[f"{name}_hi"] = centre - half, centre + half
    levels = ["auc_lo", "auc_hi", "iqm_lo", "iqm_hi"]
    figures[levels] = figures[levels].clip(0, 1)
    figures["p_best"] = stats.probability_best(rank)
    figures["within"] = (sample[:, [first]] - sample <= ROPE + 1e-12).mean(axis=0)
    images = image_noise(stands.dataset_errors)
    figures["margin"] = margin(noise, images, np.full(len(auc), first))
    figures["gain_margin"] = np.where(has_control, margin(noise, images, rivals), np.nan)
    figures["tied"] = ~(behind > figures["margin"])
    return control, figures


def _drawn(scores: np.ndarray, weights: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Mean AUC, mean rank and IQM [R, E] of resamples [R, E, B, S]."""
    means = np.nanmean(scores, axis=-1)
    rank = np.einsum("rbe,b->re", stats.ranks(means.swapaxes(1, 2)), weights)
    return means @ weights, rank, stats.iqm_of_all(scores)


def _seconds(rows: pd.DataFrame) -> pd.Series:
    return rows["tune_seconds"] + rows["fit_seconds"]


def _rivals(entries: pd.DataFrame) -> tuple[str | None, np.ndarray]:
    """The control strategy, and each entry's position of the control with the same backbone (-1: none, or itself)."""
    none = np.full(len(entries), -1)
    if "strategy" not in entries:
        return None, none
    control = next((name for name in CONTROLS if (entries["strategy"] == name).any()), None)
    if control is None:
        return None, none
    rest = [name for name in ("backbone",) if name in entries]
    position = {tuple(row[name] for name in rest): at for at, row in entries.iterrows() if row["strategy"] == control}
    found = [position.get(tuple(row[name] for name in rest), -1) for _, row in entries.iterrows()]
    return control, np.where(entries["strategy"] == control, -1, found)
