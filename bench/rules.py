"""What each key of a matrix file may hold, and the error where it holds something else."""

from __future__ import annotations

import fnmatch
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, TypeGuard

from bench.errors import UsageError
from bench.selection import SELECTIONS


@dataclass(frozen=True)
class Rule:
    """What a key may hold."""

    kind: type
    holds: Callable[[Any], bool]
    allowed: str


def number(kind: type, low: float, high: float | None = None) -> Rule:
    noun = "a whole number" if kind is int else "a number"
    if high is None:
        return Rule(kind, lambda v: low <= v < float("inf"), f"{noun}, at least {low:g}")
    return Rule(kind, lambda v: low <= v < high, f"{noun}, at least {low:g} and below {high:g}")


def choice(*values: str) -> Rule:
    return Rule(str, lambda v: v in values, " or ".join(f'"{v}"' for v in values))


TEXT = Rule(str, bool, "a non-empty string")
LISTS = {
    "strategies": TEXT,
    "datasets": TEXT,
    "sizes": number(int, 8),
    "fractions": Rule(float, lambda v: 0 < v <= 1, "a number above 0, at most 1"),
    "per_class": number(int, 1),
}
# Keys that are not here may hold any value of the type of their default (numbers: at least 0).
LIMITS = {
    "seeds": number(int, 1),
    "jobs": number(int, 1),
    "epochs": number(int, 1),
    "trials": number(int, 1),
    "batch_size": number(int, 2),  # BatchNorm has no variance over a single image
    "warmup": number(float, 0, 1),
    "label_smoothing": number(float, 0, 1),
    "optimizer": choice("adamw", "adam", "sgd"),
    "schedule": choice("cosine", "step", "constant"),
    "resize": choice("bilinear", "nearest"),
    "device": Rule(
        str, lambda v: bool(re.fullmatch(r"auto|cpu|mps|cuda(:\d+)?", v)), '"auto", "cpu", "cuda[:N]" or "mps"'
    ),
    "selection": choice(*(name for name, selection in SELECTIONS.items() if not selection.labels)),
    "data_root": TEXT,
    "natural": TEXT,
    "results": TEXT,
}
BACKBONE = {
    "name": TEXT,
    "model": TEXT,
    "weights": Rule(
        str,
        lambda v: bool(re.fullmatch(r"hub|random|(file|bundled):.+", v)),
        '"hub", "random", "file:PATH" or "bundled:NAME"',
    ),
    "cut": number(int, 1),
    "stem": choice("", "cifar"),
    "kwargs": Rule(dict, lambda v: True, "a table such as { bn_eps = 1e-3 }"),
    "mean": Rule(list, lambda v: _three(v), "a list of three numbers (red, green, blue)"),
    "std": Rule(list, lambda v: _three(v) and min(v) > 0, "a list of three numbers above 0 (red, green, blue)"),
}


def checked(rule: Rule, value: Any, where: str) -> Any:
    if rule.kind is float and type(value) is int:
        value = float(value)
    if type(value) is not rule.kind or not rule.holds(value):
        raise UsageError(f"{where} = {shown(value)}: must be {rule.allowed}.")
    return value


def is_range(value: Any) -> TypeGuard[Mapping[str, Any]]:
    """Whether a setting is a range to tune in; another table is a fixed value."""
    return isinstance(value, Mapping) and set(value) == {"low", "high"}


def matches(text: str, pattern: str) -> bool:
    """As `--only` has it: fnmatch, but brackets are part of a cut backbone's name, not a set of characters."""
    return fnmatch.fnmatchcase(text, pattern.replace("[", "[[]"))


def shown(value: Any) -> str:
    return str(value).lower() if isinstance(value, bool) else f'"{value}"' if isinstance(value, str) else repr(value)


def _three(value: list[Any]) -> bool:
    return len(value) == 3 and all(type(v) in (int, float) for v in value)
