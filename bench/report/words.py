"""What the figures say, never more strongly than the statistics do, and what a reader must be warned of."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from typing import Any

import pandas as pd

from bench.report.budgets import not_alike
from bench.report.frames import CELL, ok, saw_test
from bench.report.leaderboard import NO_RIVAL, ROPE, Leaderboard
from bench.report.significance import MIN_DATASETS, TooFew, against_control
from bench.report.stands import lacking, stands_on, together
from bench.report.written import fixed, p_value, signed

SMALL_VAL = 200
"""Validation images below which choosing among trials is mostly noise: at an AUC of .90 the standard error with
BreastMNIST's 78 is .034 (Hanley & McNeil 1982)."""
FEW_TEST = 10
"""Test images of a class below which the intervals of an AUC are too narrow: they are resampled within classes, so that
the few that there are count as all that could be. Of nominal 95 % they hold the truth in about 88 % of cases with 10
positives, 84 % with 5 and 63 % with 2 (simulated, 60 negatives)."""
EQUAL = 1e-9
"""Sums that differ by no more are equal but for rounding."""


def answer(board: Leaderboard, rows: pd.DataFrame) -> list[str]:
    """Which entry is best and how sure that is, what that stands on where it is not all, what is as good and cheaper,
    and how far this reaches: one to seven sentences. An entry is called best only where `winner` is one."""
    what = " and ".join(board.by)
    table = board.ranked.reset_index(drop=True)
    if table.empty and board.table["runs"].sum() == 0:
        return ["Nothing can be said: no run has a result."]
    if table.empty:
        return [
            f"It cannot be told which {what} is best: no two of them have results on the same images and in the same "
            "setting. Run all of them on the same datasets, in one command."
        ]
    first = table.iloc[0]
    n = len(board.datasets)
    on = together(board.datasets) if n <= 3 else f"these {n} datasets"
    if len(table) == 1:
        only = f"only {first['label']} has enough results (mean test AUC {first['auc']:.3f} on {on})"
        return [f"There is nothing to compare: {only}."]
    said = [_verdict(board, table, what, on)]
    if (out := lacking(board)) or board.blocks_used < board.blocks_any:
        said.append(f"This stands on {stands_on(board, rows)}{out}.")
    said += [*_cheaper(board, table), *_gain(board, table), *_reach(board)]
    if not ok(rows)["pretrained"].fillna(True).any():
        said.append("No run started from pretrained weights, so this says nothing about transfer.")
    if all(name.startswith("phantom") for name in board.datasets):
        said.append("All images are phantoms: computer drawings, so this says nothing about medical images.")
    return said


def winner(board: Leaderboard) -> str | None:
    """The entry that is told apart from every other: neither seeds nor test images explain its lead."""
    table = board.ranked
    return None if len(table) < 2 or table["tied"].iloc[1:].any() else str(table["label"].iloc[0])


def _verdict(board: Leaderboard, table: pd.DataFrame, what: str, on: str) -> str:
    first, others = table.iloc[0], table.iloc[1:]
    figures = f"mean rank {first['mean_rank']:.2f} among {len(table)}, mean test AUC {first['auc']:.3f}"
    level = others[(others["mean_rank"] == first["mean_rank"]) & ((others["auc"] - first["auc"]).abs() < EQUAL)]
    rivals = others.drop(level.index)
    name = together([first["label"], *level["label"]])
    cannot = f"It cannot be told which {what} is best:"
    share = f"by mean rank in {_share(first['p_best'])} of resamples of the seeds"
    if winner(board) is not None:
        next_best = others.loc[others["behind"].idxmin()]
        above = _distance(next_best, "behind", "margin", fixed)
        return f"On {on}, {name} was best: {share} ({figures}), and {above} above {next_best['label']}."
    tied = rivals.loc[rivals["tied"], "label"].tolist()
    rest = together(tied) if 0 < len(tied) <= 3 else f"{len(tied)} others"
    unsure = f"given the seeds and test images {'it is' if level.empty else 'they are'} not told apart from {rest}"
    if board.seeds < 2:
        some = board.matrix is not None and board.matrix.scores.shape[-1] > 1
        unsure = f"with one seed{' in some cells' if some else ''} there are no intervals"
    if against := _disagreement(first, rivals):
        holds = ("has", "have") if (rivals["mean_rank"] > first["mean_rank"]).all() else ("shares", "share")
        best = f", best in {_share(first['p_best'])} of resamples of the seeds" if board.seeds > 1 else ""
        mean = "resamples" if against.startswith("but") else "mean"
        best = f"{holds[len(level) > 0]} the best mean rank ({figures.removeprefix('mean rank ')}{best})"
        return f"{cannot} on {on}, rank and {mean} disagree. {name} {best}, {against}; {unsure}."
    if len(level):
        unsure = f"; {unsure}" if tied or board.seeds < 2 else ""
        return f"{cannot} on {on}, {name} are level ({figures}){unsure}."
    if board.seeds < 2:
        return f"{cannot} {name} leads ({figures}) on {on}, but {unsure}."
    return f"{cannot} on {on}, {name} is best {share} ({figures}), but {unsure}."


def _disagreement(first: pd.Series, rivals: pd.DataFrame) -> str:
    """Who has a higher mean test AUC than the one of the best mean rank, and who is best in more resamples; "" where
    nobody does."""
    if rivals.empty:
        return ""
    higher, likelier = (rivals.loc[rivals[name].fillna(-1).idxmax()] for name in ("auc", "p_best"))
    above, more = higher["auc"] > first["auc"] + EQUAL, likelier["p_best"] > first["p_best"] + EQUAL
    said = []
    if above:
        known = f", best in {_share(higher['p_best'])}" if pd.notna(higher["p_best"]) else ""
        said.append(f"{higher['label']} the highest mean test AUC ({higher['auc']:.3f}{known})")
    if more and not (above and higher["label"] == likelier["label"]):
        also = "and " if said else "but "
        said.append(f"{also}{likelier['label']} is best in more of them ({_share(likelier['p_best'])})")
    return ", ".join(said)


def _cheaper(board: Leaderboard, table: pd.DataFrame) -> list[str]:
    """The cheapest entry within the region of practical equivalence, where times can be compared."""
    first, others = table.iloc[0], table.iloc[1:]
    machines = board.used[["device", "threads"]].drop_duplicates()
    near = others[(others["behind"] <= ROPE) & (others["seconds"] < first["seconds"]) & (others["within"] > 0.5)]
    if near.empty or len(machines) > 1:
        return []
    cheap = near.loc[near["seconds"].idxmin()]
    ratio = first["seconds"] / cheap["seconds"]
    cost = f"1/{ratio:.0f}" if ratio >= 2 else f"{100 / ratio:.0f} %"
    within = f"is at most {ROPE:g} AUC below {first['label']} in {_share(cheap['within'])} of resamples"
    if cheap["behind"] < -EQUAL:
        within = f"has a mean test AUC {-cheap['behind']:.3f} above that of {first['label']}"
    return [f"{cheap['label']} {within}, at {cost} of the cost (seconds of tuning and fitting)."]


def _gain(board: Leaderboard, table: pd.DataFrame) -> list[str]:
    first = table.iloc[0]
    if board.control is None or pd.isna(first["gain_lo"]):
        return []
    differs = _distance(first, "gain", "gain_margin", signed)
    return [f"Against the control {board.control}, the mean test AUC of {first['label']} differs by {differs}."]


def _distance(entry: pd.Series, value: str, margin: str, written: Callable[[float], str]) -> str:
    """With its interval over seeds and test images; over seeds where rows do not tell the images' noise."""
    known = pd.notna(entry[margin])
    low, high = (
        (entry[value] - entry[margin], entry[value] + entry[margin])
        if known
        else (entry[f"{value}_lo"], entry[f"{value}_hi"])
    )
    over = "seeds and test images" if known else "seeds"
    return f"{written(entry[value])} (95 % interval over {over} {written(low)} to {written(high)})"


def _reach(board: Leaderboard) -> list[str]:
    n = len(board.matrix.datasets) if board.matrix else 0
    shared = " (those that are tested on the same images or patients are one)" if n < len(board.datasets) else ""
    if n == 1:
        return [f"With one dataset{shared} it cannot be told whether this holds for others."]
    first = board.ranked.iloc[0]
    agree = f"{first['label']} had the highest mean test AUC on {int(first['wins'])} of {n} datasets{shared}."
    if n < MIN_DATASETS:
        return [agree, f"{n} datasets are too few to test whether this holds for others, so no p-value is given."]
    tests = against_control(board)
    if isinstance(tests, TooFew) or first["label"] == board.control:
        return [
            agree,
            "Intervals speak of these datasets only; no test across datasets is made, so no p-value is given.",
        ]
    p = tests[first["label"]]
    corrected = f", corrected for {len(tests)} strategies (Holm)" if len(tests) > 1 else ""
    return [
        agree,
        f"Across the {n} datasets Wilcoxon's test against {board.control} gives p {p_value(p)}{corrected}.",
    ]


def _share(value: float) -> str:
    """A share of resamples in per cent; never 0 or 100 of what a finite number of draws cannot show."""
    return "over 99 %" if value > 0.99 else "under 1 %" if value < 0.01 else f"{100 * value:.0f} %"


def cautions(
    rows: pd.DataFrame,
    superseded: int = 0,
    unreadable: Iterable[str] = (),
    unfinished: Iterable[str] = (),
    audited: Iterable[Mapping[str, Any]] = (),
) -> list[tuple[str, str]]:
    """(heading, sentence) for everything that limits what the rows, and the datasets as they were audited, can show,
    the gravest first."""
    found: list[tuple[str, str]] = []

    def warn(heading: str, sentence: str) -> None:
        found.append((heading, sentence))

    results = ok(rows)
    for name in unfinished:
        warn("Not finished", f"The run {name} was still going, or was stopped: rows may be missing.")
    if said := not_alike(rows):
        warn("Not run alike", said)
    random = _unique(rows.loc[rows["weights"] == "random", "backbone"])
    if random:
        warn("Random weights", f"{together(random)} started from random weights: nothing was transferred.")
    phantoms = [name for name in _unique(rows["dataset"]) if name.startswith("phantom")]
    if phantoms:
        warn("Not real images", f"{together(phantoms)}: drawn by the computer. This says nothing about medical images.")
    if blank := _blank(audited):
        warn("Blank images", f"{together(blank)} have next to no contrast: look at them, and at how they are read.")
    for status, sentence in _LOST.items():
        lost = int((rows["status"] == status).sum())
        if lost:
            warn(f"{_runs(lost)} {status if status != 'oom' else 'out of memory'}", sentence)
    undefined = int((rows["status"] == "ok").sum()) - len(results)
    if undefined:
        warn(f"{_runs(undefined)} without a test AUC", "A class is absent from the test split; left out.")
    few = _unique(results.loc[results["per_class"].notna() | (results["fraction"] < 1).fillna(False), "dataset"])
    if few:
        warn(
            "One draw of training images",
            f"{together(few)}: all seeds were trained on the same part of the training images. What another draw would "
            "have given (another split_seed) is in no interval here, and with few images that may matter most.",
        )
    small = rows.groupby("dataset")["n_val"].min().dropna()
    small = small[small < SMALL_VAL]
    if len(small):
        named = together([f"{dataset} ({n})" for dataset, n in small.items()])
        warn("Few validation images", f"{named}: choosing among trials there is mostly noise.")
    if rare := _rare(audited):
        warn(
            "Few test images",
            f"{together(rare)}: the error that the test images cause is understated there, and more may be told apart "
            "than should be.",
        )
    seen = _unique(results.loc[saw_test(results), "strategy"])
    if seen:
        verb = "is" if len(seen) == 1 else "are"
        warn("Transductive", f"{together(seen)} {verb} not ranked: {NO_RIVAL}.")
    # 0 is what is written where the images could not be read.
    enlarged = rows[((rows["source_size"] > 0) & (rows["source_size"] < rows["size"])).fillna(False)]
    for (source, size), part in enlarged.groupby(["source_size", "size"]):
        how = f"{source}-pixel images enlarged to {size} ({together(_unique(part['resize']))})"
        warn("Enlarged images", f"{together(_unique(part['dataset']))}: {how}, which is not the same as native {size}.")
    restricted = _unique(rows.loc[rows["noncommercial"].fillna(False).astype(bool), "dataset"])
    if restricted:
        warn(
            "Licence",
            f"{together(restricted)}: not for commercial use, nor, perhaps, models trained on it.",
        )
    if len(results) and results.groupby(CELL, dropna=False)["seed"].nunique().max() < 2:
        warn("One seed", "No cell has more than one seed: there are no intervals, and small differences mean nothing.")
    if results["device"].nunique() > 1 or results["threads"].nunique() > 1:
        machines = results["device"].astype(str) + " with " + results["threads"].astype(str) + " threads"
        warn("Different machines", f"Times come from {together(_unique(machines))} and cannot be compared.")
    if rows["engine"].nunique() > 1:
        warn("Different harnesses", f"Rows of engines {together(_unique(rows['engine']))} are shown together.")
    if rows["git_dirty"].fillna(False).any():
        warn("Uncommitted code", "Some rows were made with code that no commit records.")
    if superseded:
        warn("Superseded rows", f"{_runs(superseded)} of earlier versions of a cell not shown.")
    for sentence in unreadable:
        warn("Unreadable", sentence)
    return found


def _blank(audited: Iterable[Mapping[str, Any]]) -> list[str]:
    """How many images of each dataset are blank, at the size at which most of them are."""
    found: dict[str, str] = {}
    for entry in sorted(audited, key=lambda one: int(one["blank"])):
        if entry["blank"]:
            found[entry["dataset"]] = f"{entry['blank']} of {sum(entry['sizes'].values())} images of {entry['dataset']}"
    return [found[name] for name in sorted(found)]


def _rare(audited: Iterable[Mapping[str, Any]]) -> list[str]:
    """The rarest class of each dataset that has fewer than FEW_TEST test images of it."""
    found: dict[str, str] = {}
    for entry in audited:
        counts = entry["class_counts"].get("test", {}).items()
        few = [(n, name) for name, n in counts if 0 < n < FEW_TEST and name != "no label"]
        if few:
            n, name = min(few)
            found[entry["dataset"]] = f"{entry['dataset']} ({n} of the class {name})"
    return [found[name] for name in sorted(found)]


_LOST = {
    "failed": "They are in no average; the reasons are below.",
    "diverged": "Their loss was not finite. They are in no average, which flatters a strategy that often diverges.",
    "oom": "They are in no average; the reasons are below.",
    "skipped": "The strategy or the network does not apply there; the reasons are below.",
}


def _runs(number: int) -> str:
    return f"{number:,} run{'' if number == 1 else 's'}"


def _unique(values: pd.Series) -> list[str]:
    return sorted(values.dropna().astype(str).unique())
