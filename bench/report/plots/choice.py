"""What is drawn where there is more than an eye takes in: the leading strategies, and one size and amount of data."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from types import MappingProxyType
from typing import Any

import numpy as np
import pandas as pd

from bench.report.frames import ok
from bench.report.leaderboard import Leaderboard
from bench.report.plots.canvas import SERIES

SETTING = ["size", "fraction", "per_class"]


def leading(board: Leaderboard, most: int, among: Collection[str] | None = None) -> list[str]:
    """The strategies of the best mean rank (of `among`, where given), best first; the control is among them, in the
    last place if need be."""
    table = board.ranked if len(board.ranked) else board.table[board.table["runs"] > 0]
    names = [name for name in table["strategy"] if among is None or name in among]
    chosen = names[:most]
    if board.control in names and board.control not in chosen:
        chosen[-1] = board.control
    return chosen


def colours(strategies: Sequence[str], known: Mapping[str, str] = MappingProxyType({})) -> dict[str, str]:
    """Strategy -> marker colour of the canvas, for up to six; by name, so that it is the same in every figure. Those
    that are `known` from other figures keep theirs."""
    kept = {name: known[name] for name in strategies if name in known}
    free = [colour for colour in SERIES if colour not in kept.values()]
    return kept | dict(zip(sorted(set(strategies) - set(kept)), free, strict=False))


def settings(rows: pd.DataFrame) -> list[tuple[str, pd.DataFrame]]:
    """(name, rows) of every size and amount of data: the one with the most results first, then the largest."""
    parts = list(rows.groupby(SETTING, dropna=False))
    parts.sort(key=lambda part: (len(ok(part[1])), *_largeness(*part[0])), reverse=True)
    return [(setting_name(key), part) for key, part in parts]


def _largeness(size: int, fraction: float, per_class: int | None) -> tuple[float, ...]:
    # A missing per_class means that a fraction was asked for: all images, perhaps.
    return (size, fraction, np.inf if pd.isna(per_class) else float(per_class))  # type: ignore[arg-type]


def setting_name(key: tuple[Any, ...]) -> str:
    size, fraction, per_class = key
    if not pd.isna(per_class):
        return f"{size} px, {per_class} training images a class"
    return f"{size} px, {'all' if fraction == 1 else f'{fraction * 100:g} % of'} training images"


def complete(cells: pd.DataFrame, block: Sequence[str], part: Sequence[str]) -> pd.DataFrame:
    """The rows of the blocks that have every `part` (such as every strategy) found in their dataset: what is averaged
    over blocks can then be compared."""
    wanted = cells.drop_duplicates(["dataset", *part]).groupby("dataset").size()
    there = cells.drop_duplicates([*block, *part]).groupby(list(block)).size().rename("_parts").reset_index()
    there = there[there["_parts"] == there["dataset"].map(wanted)]
    return cells.merge(there[list(block)], on=list(block))


def said_left_out(drawn: int, all_of_them: int, noun: str, which: str) -> str:
    """A sentence for the caption where not all is drawn; else nothing."""
    if drawn >= all_of_them:
        return ""
    return f" Of {all_of_them} {noun} the {drawn} {which} are drawn."
