"""Which combinations of a matrix's lists `--only` selects."""

from __future__ import annotations

import contextlib
from collections.abc import Iterable
from typing import NamedTuple

from bench.config import Amount
from bench.contract import Backbone
from bench.rules import matches

NUMBERS = ("size", "fraction", "per_class")
"""Keys of `--only` whose values are numbers."""


class Choice(NamedTuple):
    """One combination of the matrix's lists."""

    dataset: str
    size: int
    amount: Amount
    backbone: Backbone
    strategy: str


def chosen(choice: Choice, only: Iterable[tuple[str, str]]) -> bool:
    """Whether it matches, of each key of `--only`, one of the patterns."""
    matched: dict[str, bool] = {}
    for key, pattern in only:
        matched[key] = matched.get(key, False) or _matches(choice, key, pattern)
    return all(matched.values())


def _matches(choice: Choice, key: str, pattern: str) -> bool:
    """Numbers are compared as numbers: 0.20 is 0.2."""
    value = _value(choice, key)
    if not value:
        return False
    if key in NUMBERS:
        with contextlib.suppress(ValueError):  # a pattern such as 2*
            return float(value) == float(pattern)
    return matches(value, pattern)


def _value(choice: Choice, key: str) -> str:
    """What a pattern of `--only` is compared with; "" where the cell has none. A number of images a class is no
    fraction."""
    amount = choice.amount
    values = {
        "dataset": choice.dataset,
        "backbone": choice.backbone.label,
        "strategy": choice.strategy,
        "size": str(choice.size),
        "fraction": "" if amount.per_class else f"{amount.fraction:g}",
        "per_class": str(amount.per_class or ""),
    }
    return values[key]


def valid(choices: Iterable[Choice], only: Iterable[tuple[str, str]]) -> str:
    """The values that there are of each key of `--only`."""
    values = {key: dict.fromkeys(value for c in choices if (value := _value(c, key))) for key, _ in only}
    return " ".join(f"Valid for {key}: {', '.join(found) or 'none'}." for key, found in values.items())
