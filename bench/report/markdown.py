"""A summary in Markdown, to be pasted into a pull request."""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence

import pandas as pd

from bench.report import imported, words
from bench.report.ensembles import headline
from bench.report.frames import TAG, ok, saw_test
from bench.report.gains import reader
from bench.report.news import News, sentences
from bench.report.plots.canvas import count
from bench.report.section import Evidence
from bench.report.tables import integrity
from bench.report.trust import reasons
from bench.report.written import fixed, seconds, signed

LINES = 20
"""Lines of the leaderboard, and sentences of any list, at most."""


def summary(evidence: Evidence, unreadable: Sequence[str], found: News | None) -> str:
    """The answer, the leaderboard of strategies, what is new, and what limits the figures."""
    rows, runs = evidence.rows, evidence.runs
    unfinished = [run["name"] for run in runs if run["started_utc"] and not run["finished_utc"]]
    parts = [
        f"### medtransfer: {text(', '.join(run['name'] for run in runs))}",
        *map(text, words.answer(evidence.board, rows)),
        _leaderboard(evidence),
    ]
    if len(evidence.ensembles):
        networks, made = ok(evidence.singles), ok(evidence.ensembles)
        parts.append(
            f"**Ensembles.** {text(' '.join(headline(networks, made, reader(evidence.folders, evidence.damaged))))}"
        )
    if theirs := imported.sentences(evidence.imported, ok(rows), reader(evidence.folders, evidence.damaged)):
        parts += ["**Made elsewhere**", _items(map(text, theirs))]
    if found is not None:
        parts += ["**New since the last report**", _items(map(text, sentences(found)))]
    lost = [*unreadable, *dict.fromkeys(evidence.damaged)]
    if cautions := words.cautions(rows, rows.attrs.get("stale", 0), lost, unfinished, integrity(evidence.folders)):
        parts += ["**Limits**", _items(f"**{text(heading)}.** {text(sentence)}" for heading, sentence in cautions)]
    if without := reasons(rows):
        parts += ["**Without a result**", _items(_lost(*line) for line in without)]
    return "\n\n".join(parts) + "\n"


def text(value: object) -> str:
    """Text from outside, in one line, that GitHub shows as it is: no markup, link, picture, mention or HTML."""
    line = " ".join("".join(c if c.isprintable() else " " for c in str(value)).split())
    line = re.sub(r"([\\`*_{}\[\]<>#|~$&]|:(?=[\w/+-]))", r"\\\1", line)
    line = re.sub(r"^(\d+)([.)])|^([-+=])", lambda m: f"{m[1]}\\{m[2]}" if m[1] else f"\\{m[3]}", line)
    # A word joiner, which cannot be seen, keeps names from being linked or notified.
    return re.sub(r"(@|(?i:www))(?=[\w.])", "\\1\u2060", line)


def _leaderboard(evidence: Evidence) -> str:
    board = evidence.board
    control = [f"gain over {text(board.control)}"] if board.control else []
    heads = ["strategy", "mean rank", "test AUC (95 %, seeds)", *control, "P(best)", "tune + fit", "runs"]
    lines = [heads, ["---", *["---:"] * (len(heads) - 1)]]
    seen = set(evidence.rows.loc[saw_test(evidence.rows), "strategy"])
    for row in board.table.head(LINES).itertuples():
        auc = fixed(row.auc) + ("" if pd.isna(row.auc_lo) else f" ({row.auc_lo:.3f} to {row.auc_hi:.3f})")
        gain = [("control" if row.strategy == board.control else signed(row.gain))] if control else []
        figures = [fixed(row.mean_rank, 2) if row.ranked else "not ranked", auc, *gain, fixed(row.p_best, 2)]
        name = text(row.strategy) + TAG * (row.strategy in seen)
        lines.append([name, *figures, seconds(row.seconds), f"{row.runs} of {row.runs_any}"])
    more = len(board.table) - LINES
    rest = f"\n\n{more} more in the report." if more > 0 else ""
    return "\n".join(f"| {' | '.join(line)} |" for line in lines) + rest


def _lost(status: str, reason: str, number: int, strategies: str, datasets: str) -> str:
    where = f" ({text(strategies)}; {text(datasets)})" if strategies else ""
    return f"{status or 'Also'}, {count(number, 'run')}{where}: {text(reason)}"


def _items(said: Iterable[str]) -> str:
    every = list(said)
    more = [f"{len(every) - LINES} more in the report."] if len(every) > LINES else []
    return "\n".join(f"- {one}" for one in [*every[:LINES], *more])
