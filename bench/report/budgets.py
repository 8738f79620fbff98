"""Where rows that are compared were not made alike, in words."""

from __future__ import annotations

from collections.abc import Callable, Iterable

import pandas as pd

from bench.report.frames import CELL, ok
from bench.report.tables import amount

_PROTOCOL: dict[str, Callable[[object], str]] = {
    "epochs": lambda n: f"{n} epoch{'' if n == 1 else 's'}",
    "trials": lambda n: f"{n} trial{'' if n == 1 else 's'}",
    "selection": lambda how: f"chosen by {how}",
    "resize": lambda how: f"resized by {how}",
    "source_size": lambda side: f"from {side}-pixel images",
    "second": lambda name: f"second domain {name}",
}
"""What of the protocol a row carries. It is what was asked for, not what a strategy made of it: a probe that trains
for no epoch has the epochs of all others, and one that takes no second domain has none."""
_CONTENT = {
    "data_hash": (("dataset", "size", "source_size"), "Images, labels or splits of {} are not the same in all rows"),
    "weights_hash": (("backbone",), "Weights of {} are not the same in all rows"),
    "second_hash": (("second",), "Images of the second domain {} are not the same in all rows"),
}
"""Hash -> the names that stand for one content, and what is said where they stand for several."""
MOST = 6
"""Strategies, datasets and protocols that are named, of each."""


def not_alike(rows: pd.DataFrame) -> str:
    """All in which rows that are compared were not made alike; "" where they were."""
    return " ".join(filter(None, (unequal(rows), exchanged(rows))))


def unequal(rows: pd.DataFrame) -> str:
    """Which strategies of one dataset, backbone, size and amount of data were run by different protocols, and what
    differs; "" where none were."""
    results = ok(rows)
    block = [name for name in CELL if name != "strategy"]
    counts = results.groupby(block, dropna=False)[list(_PROTOCOL)].transform("nunique")
    part = results[(counts > 1).any(axis=1)]
    if part.empty:
        return ""
    differing = [name for name in _PROTOCOL if (counts[name] > 1).any()]
    protocols = part[differing].apply(
        lambda row: ", ".join(_PROTOCOL[name](row[name]) for name in differing if not pd.isna(row[name])), axis=1
    )
    named = part["strategy"].groupby(protocols).unique().items()
    said = [f"{_some(strategies)} ({protocol})" for protocol, strategies in named]
    more = f"; and {len(said) - MOST} others" if len(said) > MOST else ""
    where = _some(part["dataset"].unique())
    return (
        f"The protocol of strategies differs on {where}: {'; '.join(said[:MOST])}{more}. What sets them apart may be "
        "that. Run all of them by one protocol, or into another folder (--results)."
    )


def exchanged(rows: pd.DataFrame) -> str:
    """Which images, weights and second domains changed under one name between runs, and the strategies of each
    content; "" where none did. Amounts of data count together: a mean over them would mix old and new."""
    results = ok(rows).sort_values("finished_utc", kind="stable", na_position="first")
    said = []
    for column, (keys, sentence) in _CONTENT.items():
        known = results[results[column].notna() & (results[column] != "random")]  # of what takes no weights
        counts = known.groupby(list(keys), dropna=False)[column].transform("nunique")
        part = known[counts > 1]
        contents = [_where(one) for _, one in part.groupby([*keys, column], dropna=False, sort=False)]
        if contents:
            more = f"; and {len(contents) - MOST} others" if len(contents) > MOST else ""
            names = _some(part[keys[0]].unique())
            said.append(f"{sentence.format(names)}, the oldest first: {'; '.join(contents[:MOST])}{more}.")
    if not said:
        return ""
    return f"{' '.join(said)} What sets them apart may be that. Run all of the matrix again: it renews older rows."


def _where(rows: pd.DataFrame) -> str:
    """The strategies of rows, and the amounts of data where these are not all of train alone."""
    amounts = {amount(f, p): None for f, p in zip(rows["fraction"], rows["per_class"], strict=True)}
    return _some(rows["strategy"].unique()) + ("" if list(amounts) == ["all"] else f" ({_some(amounts)})")


def along(rows: pd.DataFrame) -> str:
    """What each amount of training data was given, the fewest images first, where these are not the same epochs and
    trials; else ""."""
    results = ok(rows).sort_values("n_train", kind="stable")
    differing = [name for name in ("epochs", "trials") if results[name].nunique() > 1]
    if not differing:
        return ""
    amounts = [amount(f, p) for f, p in zip(results["fraction"], results["per_class"], strict=True)]
    said = []
    for name, part in results.groupby(amounts, sort=False):
        given = [" or ".join(map(str, sorted(part[one].dropna().unique()))) for one in differing]
        said.append(f"{name}: {', '.join(f'{n} {one}' for n, one in zip(given, differing, strict=True))}")
    return "; ".join(said)


def _some(names: Iterable[object]) -> str:
    found = sorted(map(str, names))
    *most, last = found if len(found) <= MOST else [*found[:MOST], f"{len(found) - MOST} more"]
    return f"{', '.join(most)} and {last}" if most else str(last)
