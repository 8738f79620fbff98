"""What a ranking stands on, and who is not in it, in the words of the page, of the summary and of the terminal.

The page's script writes the same when a reader filters (templates/leaderboard.js): change both.
"""

from __future__ import annotations

from collections.abc import Sequence

import pandas as pd

from bench.report.frames import ok
from bench.report.leaderboard import Leaderboard
from bench.report.tables import amount

NAMED = 3
"""Most names that are listed."""


def stands_on(board: Leaderboard, rows: pd.DataFrame) -> str:
    """Of the ranking of these rows: "21 of 36 blocks with results: 3 datasets (a, b, c), 5 of 6 backbones, 10 images a
    class at 28 and 64 px". "" where nothing is ranked."""
    if not board.blocks_used:
        return ""
    results = ok(rows)
    kinds = [name for name in ("dataset", "backbone", "strategy") if name not in board.by]
    parts = [_part(name, sorted(board.used[name].unique()), results[name].nunique()) for name in kinds]
    blocks = f"{board.blocks_used} of {_count(board.blocks_any, 'block')} with results"
    single = f" ({board.single} left out: a cell has one seed only)" if board.single else ""
    return f"{blocks}{single}: {', '.join(parts)}, {settings(board.used)}"


def lacking(board: Leaderboard) -> str:
    """Who has results, but not in all of these blocks, and is not ranked: "; 26 strategies lack results there and are
    not in it" or ""."""
    table = board.table
    out = table[~table["ranked"] & (table["runs"] > 0) & (table["blocks_used"] < board.blocks_used)]
    names = sorted(out["label"])
    if not names:
        return ""
    noun = board.by[0] if len(board.by) == 1 else "pair"
    who = together(names) if len(names) <= NAMED else _count(len(names), noun)
    verbs = ("lacks", "is") if len(names) == 1 else ("lack", "are")
    return f"; {who} {verbs[0]} results there and {verbs[1]} not in it"


def settings(used: pd.DataFrame) -> str:
    """Sizes of images and amounts of training data: "10 images a class at 28 and 64 px and all images at 28 px"."""
    said = []
    for pair, part in used.groupby(["fraction", "per_class"], dropna=False):
        sizes = together([str(size) for size in sorted(part["size"].unique())])
        said.append(f"{_images(amount(*pair))} at {sizes} px")
    return together(said)


def together(names: Sequence[str]) -> str:
    """ "a", "a and b" or "a, b and c"."""
    *most, last = names
    return f"{', '.join(most)} and {last}" if most else last


def _images(label: str) -> str:
    if label.endswith(" a class"):
        return label.replace(" a class", " images a class")
    return "all images" if label == "all" else f"{label} of the images"


def _part(kind: str, used: Sequence[str], every: int) -> str:
    whole = len(used) == every
    named = len(used) <= NAMED and (kind == "dataset" or not whole)
    of = "" if whole else f"{len(used)} of "
    return f"{of}{_count(every, kind)}" + (f" ({', '.join(used)})" if named else "")


def _count(number: int, noun: str) -> str:
    plural = noun[:-1] + "ies" if noun.endswith("y") else noun + "s"
    return f"{number:,} {noun if number == 1 else plural}"
