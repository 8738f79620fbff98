"""The leaderboard of strategies in a terminal, for the end of a run."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import pandas as pd
from rich.markup import escape
from rich.table import Table

from bench.report.budgets import not_alike
from bench.report.ensembles import headline
from bench.report.frames import TAG, apart, ok, saw_test
from bench.report.gains import reader
from bench.report.imported import sentences
from bench.report.leaderboard import NO_BLOCK, leaderboard
from bench.report.planned import without_leftovers
from bench.report.stands import lacking, stands_on
from bench.report.written import fixed, seconds


def terminal_summary(
    rows: pd.DataFrame,
    folders: Sequence[Path] = (),
    runs: Sequence[Mapping[str, Any]] = (),
    title: str = "Strategies",
) -> Table:
    """Strategies of current rows (see `frames.current`), best mean rank first, and the best ensemble and predictions
    made elsewhere, whose intervals are over test images too where `folders` hold the predictions, and whether all
    were run alike. `runs` are the run.json of the folders, which tell what nobody asks for any more."""
    networks, made, theirs = apart(rows)
    board = leaderboard(without_leftovers(networks, runs))
    table = Table(title=escape(title), title_justify="left", caption_justify="left")
    table.add_column("strategy", overflow="fold")
    for heading in ("mean rank", "test AUC", "95 % (seeds)", "tune + fit", "runs"):
        table.add_column(heading, justify="right", no_wrap=heading.startswith("95"))
    seen = set(networks.loc[saw_test(networks), "strategy"])
    for row in board.table.itertuples():
        between = "" if pd.isna(row.auc_lo) else f"{row.auc_lo:.3f}–{row.auc_hi:.3f}"
        figures = (fixed(row.mean_rank, 2), fixed(row.auc), between, seconds(row.seconds))
        table.add_row(escape(row.strategy) + TAG * (row.strategy in seen), *figures, f"{row.runs} of {row.runs_any}")
    table.caption = escape(f"stands on {stands_on(board, networks) or 'no result'}{lacking(board)}")
    if not board.blocks_used and (board.table["runs"] > 0).sum() > 1:
        table.caption = f"no ranking: {NO_BLOCK}"
    if said := not_alike(networks):
        table.caption += f"\nnot run alike: {escape(said)}"
    if len(made):
        table.caption += "\nensembles: " + escape(
            " ".join(headline(ok(pd.concat([networks, theirs])), ok(made), reader(folders, [])))
        )
    for sentence in sentences(theirs, ok(networks), reader(folders, [])):
        table.caption += f"\nmade elsewhere: {escape(sentence)}"
    return table
