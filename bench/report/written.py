"""How figures are written, the same in every table, on the page and in a terminal.

The page's script writes those of the leaderboard again when a reader filters it (templates/written.js): change both.
"""

from __future__ import annotations

import math
from typing import Any

import pandas as pd

MISSING = "–"


def fixed(value: Any, digits: int = 3) -> str:
    """With `digits` decimals: "0.840"."""
    return MISSING if pd.isna(value) else f"{value:z.{digits}f}".replace("-", "−")  # z: no minus before a zero


def signed(value: Any) -> str:
    """With a sign, also before a gain: "+0.021"."""
    return MISSING if pd.isna(value) else f"{value:+z.3f}".replace("-", "−")


def chance(value: Any) -> str:
    """A share of draws: "0.71", and never 0 or 1, which no number of draws can show."""
    if pd.isna(value):
        return MISSING
    return "> 0.99" if value > 0.99 else "< 0.01" if value < 0.01 else fixed(value, 2)


def seconds(value: Any) -> str:
    """A duration in the unit that suits it, three figures: "97 s", "3.42 h"."""
    if pd.isna(value):
        return MISSING
    for limit, divisor, unit in ((120, 1, "s"), (7200, 60, "min"), (172_800, 3600, "h")):
        if value < limit:
            return f"{_three(value / divisor)} {unit}"
    return f"{_three(value / 86_400)} d"


def count(value: Any) -> str:
    """A number of things, three figures: "1.8 M"."""
    if pd.isna(value):
        return MISSING
    for divisor, unit in ((1e9, " G"), (1e6, " M"), (1e3, " k")):
        if value >= divisor:
            return _three(value / divisor) + unit
    return _three(value)


def raw(value: Any) -> str:
    """What a column is sorted by; empty for a missing value, which is sorted last."""
    return "" if pd.isna(value) else f"{value:.10g}" if isinstance(value, int | float) else str(value)


def _three(value: float) -> str:
    if value == 0:
        return "0"
    decimals = max(0, 2 - math.floor(math.log10(abs(value))))
    return f"{float(f'{value:.{decimals}f}'):.15g}"


def p_value(value: float) -> str:
    """In a sentence, after "p": "= .013"."""
    return "< .001" if value < 0.001 else f"= {value:.3f}".replace("0.", ".")
