"""What lies beside the page: its tables as CSV, and a summary in Markdown."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import pandas as pd

from bench.cache import whole_file
from bench.report import tables
from bench.report.frames import write_csv
from bench.report.markdown import summary
from bench.report.news import News
from bench.report.section import Evidence


def export(evidence: Evidence, unreadable: Sequence[str], found: News | None, page: Path) -> list[Path]:
    """Write NAME-leaderboard.csv, NAME-results.csv and NAME-summary.md beside `page` (NAME.html), each whole or not at
    all, and return their paths. The summary names damaged predictions that the page, written before, came upon."""
    paths = [page.with_name(f"{page.stem}-{end}") for end in ("leaderboard.csv", "results.csv", "summary.md")]
    page.parent.mkdir(parents=True, exist_ok=True)
    write_csv(evidence.board.table, paths[0])
    write_csv(pd.concat([pd.DataFrame(), *tables.results(evidence.rows).values()], ignore_index=True), paths[1])
    with whole_file(paths[2]) as path:
        path.write_text(summary(evidence, unreadable, found), encoding="utf-8")
    return paths
