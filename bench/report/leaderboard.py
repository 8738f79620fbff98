"""Who is best, and how sure is that: strategies (or backbones, or both) compared on the blocks where all have results.

A block is what two entries have in common when they are compared: for strategies the dataset, backbone, size and
amount of training data. Means are taken within a dataset first and then over datasets, because the dataset is the
statistical unit: five backbones on one dataset are not five datasets.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import pandas as pd
from scipy.special import stdtrit

from bench.report import stats
from bench.report.frames import CELL, ok

CONTROLS = ("scratch", "source_only")
"""The strategy that gains are measured against: the first of these that is compared."""

MIN_COVERAGE = 0.5
"""An entry with results in fewer of the blocks is listed without a rank: it would cost the others most of their
blocks."""


Z = 1.959964
"""Normal quantile of a two-sided 95 % interval."""


@dataclass(frozen=True, eq=False)
class Leaderboard:
    """A ranking and what it stands on."""

    by: tuple[str, ...]
    table: pd.DataFrame
    """Best first; entries that are not ranked come last, with missing values. Columns: those of `by`, `label`,
    `ranked`, `mean_rank`, `auc`, `auc_lo`, `auc_hi`, `iqm`, `iqm_lo`, `iqm_hi`, `gain`, `gain_lo`, `gain_hi` (over
    the control), `p_best`, `behind`, `behind_lo`, `behind_hi` (AUC below the first entry), `tied` (not told apart
    from the first), `wins` (datasets where its mean AUC is highest), `seconds` (tuning + fitting one model),
    `params_trained`, `blocks` of `blocks_any`, `runs` of `runs_any` (how many of those planned have a result).
    Intervals are 95 %."""
    used: pd.DataFrame
    """The rows that the ranking stands on."""
    blocks_used: int
    blocks_left_out: int
    datasets: tuple[str, ...]
    seeds: int
    """Fewest seeds of any compared entry in any block: with 1 there are no intervals."""
    control: str | None

    @property
    def ranked(self) -> pd.DataFrame:
        return self.table[self.table["ranked"]]


def leaderboard(rows: pd.DataFrame, by: str | Sequence[str] = "strategy") -> Leaderboard:
    """Compare the values of `by` ("strategy", "backbone" or both) in current rows (see `frames.current`).

    Ranks, means and intervals stand on complete blocks only: those where every ranked entry has a result. Intervals
    come from a stratified bootstrap that resamples seeds within each block (2000 draws, fixed seed), so they tell how
    much other seeds would change the figure on these datasets, and say nothing of other datasets or of other test
    images.
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
    with_result = results.groupby("_entry")["_block"].nunique().reindex(table.index, fill_value=0)
    table["blocks"] = with_result
    table["blocks_any"] = results["_block"].nunique()
    table["runs"] = results.groupby("_entry").size().reindex(table.index, fill_value=0)
    table["runs_any"] = numbered.groupby("_entry").size().reindex(table.index, fill_value=0)
    table["ranked"] = (with_result > 0) & (with_result >= MIN_COVERAGE * results["_block"].nunique())

    compared = results[results["_entry"].isin(table.index[table["ranked"]])]
    entries_in = compared.groupby("_block")["_entry"].nunique()
    complete = entries_in.index[entries_in == table["ranked"].sum()]
    used = compared[compared["_block"].isin(complete)]
    table["ranked"] &= len(complete) > 0
    control = None
    figures = pd.DataFrame(index=table.index, columns=_FIGURES, dtype=float)
    figures["tied"] = True
    if len(complete):
        control, values = _figures(used, table)
        figures.loc[values.index] = values
    table = pd.concat([table, figures], axis=1)
    table["tied"] = table["tied"].astype(bool)
    table = table.sort_values(
        ["ranked", "mean_rank", "auc", "label"], ascending=[False, True, False, True], kind="stable", ignore_index=True
    )
    return Leaderboard(
        by=keys,
        table=table,
        used=used.drop(columns=["_entry", "_block"]),
        blocks_used=len(complete),
        blocks_left_out=int(numbered["_block"].nunique() - len(complete)),
        datasets=tuple(sorted(used["dataset"].unique())),
        seeds=int(used.groupby(["_entry", "_block"]).size().min()) if len(used) else 0,
        control=control,
    )


_FIGURES = [
    *("mean_rank", "auc", "auc_lo", "auc_hi", "iqm", "iqm_lo", "iqm_hi", "gain", "gain_lo", "gain_hi", "p_best"),
    *("behind", "behind_lo", "behind_hi", "tied", "wins", "seconds", "params_trained"),
]


def _figures(used: pd.DataFrame, table: pd.DataFrame) -> tuple[str | None, pd.DataFrame]:
    """The control's name, and the columns of _FIGURES for the ranked entries, indexed like `table`."""
    entries = np.sort(used["_entry"].unique())
    blocks = used.drop_duplicates("_block").sort_values("_block")
    lists = used.groupby(["_entry", "_block"])["test_auc"].agg(list)
    scores = stats.padded([[lists[entry, block] for block in blocks["_block"]] for entry in entries])
    by_dataset = pd.get_dummies(blocks["dataset"]).to_numpy(dtype=float)  # [B, D]
    by_dataset = by_dataset / by_dataset.sum(axis=0)
    weights = by_dataset.mean(axis=1)  # [B]: a dataset's blocks share its weight

    means = np.nanmean(scores, axis=-1)
    figures = pd.DataFrame(index=pd.Index(entries), columns=_FIGURES, dtype=float)
    figures["auc"] = means @ weights
    figures["mean_rank"] = weights @ stats.ranks(means.T)
    figures["iqm"] = stats.iqm_of_all(scores)
    dataset_means = means @ by_dataset
    figures["wins"] = (dataset_means == dataset_means.max(axis=0)).sum(axis=1)
    for name, cost in (("seconds", _seconds(used)), ("params_trained", used["params_trained"].astype("Float64"))):
        grouped = cost.astype(float).groupby([used["_entry"], used["_block"]])
        per_block = grouped.mean().where(grouped.count() == grouped.size())  # a mean over some of the runs is no mean
        figures[name] = per_block.unstack("_block")[blocks["_block"]].to_numpy(dtype=float) @ weights

    control, rivals = _rivals(table.loc[entries].reset_index(drop=True))
    has_control = rivals >= 0
    first = int(np.lexsort((-figures["auc"].to_numpy(), figures["mean_rank"].to_numpy()))[0])
    auc = figures["auc"].to_numpy()
    figures["gain"] = np.where(has_control, auc - auc[rivals], np.nan)
    figures["behind"] = auc[first] - auc
    figures["tied"] = True
    if (~np.isnan(scores)).sum(axis=-1).min() < 2:
        return control, figures

    drawn_auc, drawn_rank, drawn_iqm = [], [], []
    for part in stats.resamples(scores):
        block_means = np.nanmean(part, axis=-1)  # [R, E, B]
        drawn_auc.append(block_means @ weights)
        drawn_rank.append(np.einsum("rbe,b->re", stats.ranks(block_means.swapaxes(1, 2)), weights))
        drawn_iqm.append(stats.iqm_of_all(part))
    sample, rank = np.concatenate(drawn_auc), np.concatenate(drawn_rank)
    behind = sample[:, [first]] - sample
    for name, drawn in (("auc", sample), ("iqm", np.concatenate(drawn_iqm)), ("behind", behind)):
        figures[f"{name}_lo"], figures[f"{name}_hi"] = stats.interval(drawn)
    gain = stats.interval(sample - sample[:, rivals])
    figures["gain_lo"], figures["gain_hi"] = np.where(has_control, gain, np.nan)
    figures["p_best"] = stats.probability_best(rank)
    # Told apart only where mean AUC and mean rank say so over seeds, and test images cannot explain it either.
    apart = (stats.interval(behind)[0] > 0) & (stats.interval(rank - rank[:, [first]])[0] > 0)
    margin = _margin(scores, weights, _test_errors(used, entries, blocks) @ by_dataset, first)
    figures["tied"] = ~(apart & (figures["behind"].to_numpy() > margin))
    return control, figures


def _test_errors(used: pd.DataFrame, entries: np.ndarray, blocks: pd.DataFrame) -> np.ndarray:
    """Standard error of each entry's test AUC in each block that the test images cause [E, B], from its intervals."""
    errors = (used["test_auc_hi"] - used["test_auc_lo"]) / (2 * Z)
    means = errors.groupby([used["_entry"], used["_block"]]).mean().unstack("_block")
    return means.loc[entries, blocks["_block"]].to_numpy(dtype=float)


def _margin(scores: np.ndarray, weights: np.ndarray, test_errors: np.ndarray, first: int) -> np.ndarray:
    """How far each entry's mean AUC must be from the first's to be told apart [E]: the half width of a 95 % interval.

    Seeds count by Welch's t, which a bootstrap of two or three seeds is too narrow for. Test images (standard errors
    [E, D]) count as if every entry had its own: a dataset's blocks share their error, and two entries' errors are taken
    as independent, which is cautious, since on the same images they go together.
    """
    counts = (~np.isnan(scores)).sum(axis=-1)
    parts = weights**2 * np.nanvar(scores, axis=-1, ddof=1) / counts  # [E, B]
    seeds = parts.sum(axis=-1)
    freedom = (parts**2 / (counts - 1)).sum(axis=-1)
    variance, freedom = seeds + seeds[first], freedom + freedom[first]
    # Without any variance between seeds the quantile does not matter.
    quantile = stdtrit(np.divide(variance**2, freedom, out=np.ones_like(freedom), where=freedom > 0), 0.975)
    images = (test_errors**2).sum(axis=-1) / test_errors.shape[-1] ** 2
    return np.sqrt(quantile**2 * variance + Z**2 * (images + images[first]))


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
