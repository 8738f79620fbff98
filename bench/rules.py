"""What each key of a matrix file may hold, and the error where it holds something else."""

from __future__ import annotations

import fnmatch
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, TypeGuard

from bench.errors import UNPRINTABLE, UsageError
from bench.selection import SELECTIONS
from bench.shards import is_shard


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


TEXT = Rule(str, lambda v: bool(v) and not UNPRINTABLE.search(v), "a non-empty string without control characters")
OVERS = ("backbones", "seeds", "strategies", "all", "views")
"""What the members of an ensemble may differ in."""
LISTS = {
    "strategies": TEXT,
    "datasets": TEXT,
    "sizes": number(int, 8, 10_000),
    "fractions": Rule(float, lambda v: 0 < v <= 1, "a number above 0, at most 1"),
    "per_class": number(int, 1, 10**9),
    "over": choice(*OVERS),
}
# Keys that are not here may hold any value of the type of their default (numbers: at least 0).
LIMITS = {
    "seeds": number(int, 1, 10_000),
    "jobs": number(int, 1, 10_000),
    "epochs": number(int, 1, 100_000),
    "trials": number(int, 1, 10_000),
    "batch_size": number(int, 2, 100_000),  # BatchNorm has no variance over a single image
    "patience": number(int, 0, 100_000),
    "source_size": number(int, 0, 10_000),
    "split_seed": number(int, 0, 10**9),
    "warmup": number(float, 0, 1),
    "label_smoothing": number(float, 0, 1),
    "optimizer": choice("adamw", "adam", "sgd"),
    "schedule": choice("cosine", "step", "constant"),
    "resize": choice("bilinear", "nearest"),
    "device": Rule(
        str, lambda v: bool(re.fullmatch(r"auto|cpu|mps|cuda(:[0-9]{1,3})?", v)), '"auto", "cpu", "cuda[:N]" or "mps"'
    ),
    "executor": choice("local", "ray"),
    "address": TEXT,
    "shard": Rule(str, is_shard, '"i/n", the i-th of n parts, with i from 1 to n'),
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
        lambda v: bool(re.fullmatch(r"hub|random|(file|bundled):.+", v)) and not UNPRINTABLE.search(v),
        '"hub", "random", "file:PATH" or "bundled:NAME"',
    ),
    "cut": number(int, 1, 1000),
    "stem": choice("", "cifar"),
    "kwargs": Rule(dict, lambda v: is_json(v), "a table such as { bn_eps = 1e-3 }"),
    "mean": Rule(list, lambda v: _three(v), "a list of three numbers (red, green, blue)"),
    "std": Rule(list, lambda v: _three(v) and min(v) > 0, "a list of three numbers above 0 (red, green, blue)"),
}


def checked(rule: Rule, value: Any, where: str) -> Any:
    if rule.kind is float and type(value) is int and abs(value) < 2**63:
        value = float(value)
    if type(value) is not rule.kind or not rule.holds(value):
        raise UsageError(f"{where} = {shown(value)}: must be {rule.allowed}.")
    return value


def is_json(value: Any) -> bool:
    """Whether a value of a table can be kept in a row: TOML has dates and times as well, and numbers without end."""
    if isinstance(value, dict):
        return all(map(is_json, value.values()))
    if isinstance(value, list):
        return all(map(is_json, value))
    return type(value) in (bool, str) or (type(value) in (int, float) and abs(value) < 2**63)


def is_range(value: Any) -> TypeGuard[Mapping[str, Any]]:
    """Whether a setting is a range to tune in; another table is a fixed value."""
    return isinstance(value, Mapping) and set(value) == {"low", "high"}


def matches(text: str, pattern: str) -> bool:
    """As `--only` has it: fnmatch, but brackets are part of a cut backbone's name, not a set of characters."""
    return fnmatch.fnmatchcase(text, pattern.replace("[", "[[]"))


def shown(value: Any) -> str:
    return str(value).lower() if isinstance(value, bool) else f'"{value}"' if isinstance(value, str) else repr(value)


def _three(value: list[Any]) -> bool:
    return len(value) == 3 and all(type(v) in (int, float) and abs(v) < 2**63 for v in value)
