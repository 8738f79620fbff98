"""What an ensemble's row says of its members: the column `members`."""

from __future__ import annotations

import json
import math
from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True)
class Member:
    """One of the predictions that were fused: those of an ordinary row, or of one view in it."""

    fingerprint: str
    seed: int
    label: str
    weight: float
    """Its share; those of a row sum to 1."""
    view: str = ""
    """Which view of the images, where the ensemble is over views."""


def members(text: Any) -> tuple[Member, ...]:
    """In the order of the row. Raises ValueError where `text` is no JSON list of members."""
    try:
        return tuple(_member(one) for one in json.loads(text))
    except (KeyError, TypeError, ValueError):
        raise ValueError(
            "members is not a JSON list of objects with a fingerprint, seed, label and weight: run the ensembles again"
        ) from None


def _member(one: Any) -> Member:
    found = Member(one["fingerprint"], one["seed"], one["label"], one["weight"], str(one.get("view", "")))
    texts = isinstance(found.fingerprint, str) and isinstance(found.label, str)
    numbers = type(found.seed) is int and type(found.weight) in (int, float) and math.isfinite(found.weight)
    if not (texts and numbers):
        raise ValueError
    return found
