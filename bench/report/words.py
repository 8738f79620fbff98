"""What the figures say, never more strongly than the statistics do, and what a reader must be warned of."""

from __future__ import annotations

from collections.abc import Iterable

import pandas as pd

from bench.report.frames import CELL, ok
from bench.report.leaderboard import Leaderboard

SMALL_VAL = 200
"""Validation images below which choosing among trials is mostly noise: at an AUC of .90 the standard error with
BreastMNIST's 78 is .034 (Hanley & McNeil 1982)."""
FEW_DATASETS = 6
"""Fewest datasets with which a two-sided Wilcoxon test can reach p < .05."""


def answer(board: Leaderboard, rows: pd.DataFrame) -> list[str]:
    """Which entry was best, in one to four sentences."""
    what = " and ".join(board.by)
    table = board.ranked.reset_index(drop=True)
    if table.empty and board.table["runs"].sum() == 0:
        return ["Nothing can be said: no run has a result."]
    if table.empty:
        return [f"It cannot be told which {what} is best: there is no dataset where all of them have results."]
    first = table.iloc[0]
    n = len(board.datasets)
    on = _the(board.datasets) if n <= 3 else f"these {n} datasets"
    if len(table) == 1:
        only = f"only {first['label']} has enough results (mean test AUC {first['auc']:.3f} on {on})"
        return [f"There is nothing to compare: {only}."]
    said = [_verdict(board, table, what, on), *_gain(board, table), *_reach(board)]
    if not ok(rows)["pretrained"].fillna(True).any():
        said.append("No run started from pretrained weights, so this says nothing about transfer.")
    if all(name.startswith("phantom") for name in board.datasets):
        said.append("All images are phantoms: computer drawings, so this says nothing about medical images.")
    return said


def _verdict(board: Leaderboard, table: pd.DataFrame, what: str, on: str) -> str:
    first, others = table.iloc[0], table.iloc[1:]
    figures = f"mean rank {first['mean_rank']:.2f} among {len(table)}, mean test AUC {first['auc']:.3f}"
    leads = f"{first['label']} leads ({figures})"
    if board.seeds < 2:
        return f"It cannot be told which {what} is best: {leads} on {on}, but with one seed there are no intervals."
    tied = others.loc[others["tied"], "label"].tolist()
    if tied:
        rest = _the(tied) if len(tied) <= 3 else f"{len(tied)} others"
        but = f"given the seeds and test images it is not told apart from {rest}"
        return f"It cannot be told which {what} is best: {leads} on {on}, but {but}."
    # The others' distances come from the same resamples, so the smallest of them is the one that decides.
    next_best = others.loc[others["behind"].idxmin()]
    return (
        f"On {on}, {first['label']} was best: {figures}, {next_best['behind']:.3f} above "
        f"{next_best['label']} (95 % interval over seeds {next_best['behind_lo']:.3f} to {next_best['behind_hi']:.3f})."
    )


def _gain(board: Leaderboard, table: pd.DataFrame) -> list[str]:
    first = table.iloc[0]
    if board.control is None or pd.isna(first["gain_lo"]):
        return []
    interval = f"{first['gain']:+.3f} (95 % interval over seeds {first['gain_lo']:+.3f} to {first['gain_hi']:+.3f})"
    return [f"Against the control {board.control}, its mean test AUC differs by {interval}."]


def _reach(board: Leaderboard) -> list[str]:
    n = len(board.datasets)
    if n == 1:
        return ["With one dataset it cannot be told whether this holds for others."]
    wins = board.ranked.iloc[0]
    agree = f"{wins['label']} had the highest mean test AUC on {int(wins['wins'])} of {n} datasets."
    if n < FEW_DATASETS:
        return [agree, f"{n} datasets are too few to test whether this holds for others, so no p-value is given."]
    return [agree, "Intervals speak of these datasets only; no test across datasets is made, so no p-value is given."]


def cautions(
    rows: pd.DataFrame, superseded: int = 0, unreadable: Iterable[str] = (), unfinished: Iterable[str] = ()
) -> list[tuple[str, str]]:
    """(heading, sentence) for everything that limits what the rows can show, the gravest first."""
    found: list[tuple[str, str]] = []

    def warn(heading: str, sentence: str) -> None:
        found.append((heading, sentence))

    results = ok(rows)
    for name in unfinished:
        warn("Not finished", f"The run {name} was still going, or was stopped: rows may be missing.")
    random = _unique(rows.loc[rows["weights"] == "random", "backbone"])
    if random:
        warn("Random weights", f"{_the(random)} started from random weights: nothing was transferred.")
    phantoms = [name for name in _unique(rows["dataset"]) if name.startswith("phantom")]
    if phantoms:
        warn("Not real images", f"{_the(phantoms)}: drawn by the computer. This says nothing about medical images.")
    for status, sentence in _LOST.items():
        lost = int((rows["status"] == status).sum())
        if lost:
            warn(f"{_runs(lost)} {status if status != 'oom' else 'out of memory'}", sentence)
    undefined = int((rows["status"] == "ok").sum()) - len(results)
    if undefined:
        warn(f"{_runs(undefined)} without a test AUC", "A class is absent from the test split; left out.")
    small = rows.groupby("dataset")["n_val"].min().dropna()
    small = small[small < SMALL_VAL]
    if len(small):
        named = _the([f"{dataset} ({n})" for dataset, n in small.items()])
        warn("Few validation images", f"{named}: choosing among trials there is mostly noise.")
    enlarged = rows[(rows["source_size"] < rows["size"]).fillna(False)]
    for (source, size), part in enlarged.groupby(["source_size", "size"]):
        how = f"{source}-pixel images enlarged to {size} ({_the(_unique(part['resize']))})"
        warn("Enlarged images", f"{_the(_unique(part['dataset']))}: {how}, which is not the same as native {size}.")
    restricted = _unique(rows.loc[rows["noncommercial"].fillna(False).astype(bool), "dataset"])
    if restricted:
        warn(
            "Licence",
            f"{_the(restricted)}: not for commercial use, nor, perhaps, models trained on it.",
        )
    if len(results) and results.groupby(CELL, dropna=False)["seed"].nunique().max() < 2:
        warn("One seed", "No cell has more than one seed: there are no intervals, and small differences mean nothing.")
    if results["device"].nunique() > 1 or results["threads"].nunique() > 1:
        machines = results["device"].astype(str) + " with " + results["threads"].astype(str) + " threads"
        warn("Different machines", f"Times come from {_the(_unique(machines))} and cannot be compared.")
    if rows["engine"].nunique() > 1:
        warn("Different harnesses", f"Rows of engines {_the(_unique(rows['engine']))} are shown together.")
    if rows["git_dirty"].fillna(False).any():
        warn("Uncommitted code", "Some rows were made with code that no commit records.")
    if superseded:
        warn("Superseded rows", f"{_runs(superseded)} of earlier versions of a cell not shown.")
    for sentence in unreadable:
        warn("Unreadable", sentence)
    return found


_LOST = {
    "failed": "They are in no average; the reasons are below.",
    "diverged": "Their loss was not finite. They are in no average, which flatters a strategy that often diverges.",
    "oom": "They are in no average; the reasons are below.",
    "skipped": "The strategy does not apply there; the reasons are below.",
}


def _runs(number: int) -> str:
    return f"{number:,} run{'' if number == 1 else 's'}"


def _unique(values: pd.Series) -> list[str]:
    return sorted(values.dropna().astype(str).unique())


def _the(names: Iterable[str]) -> str:
    """ "a", "a and b" or "a, b and c"."""
    *most, last = names
    return f"{', '.join(most)} and {last}" if most else last
