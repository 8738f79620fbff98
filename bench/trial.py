"""One set of hyperparameters tried for a cell: a line of its trials file."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from dataclasses import MISSING, dataclass, fields
from typing import Any

from bench.contract import Hparams


@dataclass(frozen=True)
class Trial:
    number: int
    params: dict[str, Any]
    """What Optuna drew."""
    hparams: Hparams
    """What the strategy was given: `params` and what follows from them or is fixed."""
    state: str
    """complete | pruned | diverged."""
    val_auc: float | None
    """Of the returned predictor (pruned: the best epoch's). None where undefined."""
    val_loss: float | None
    curve: list[float | None]
    """val AUC after each epoch, where the strategy reports epochs."""
    losses: list[float]
    """val loss after each epoch."""
    seconds: float
    images_seen: int
    val_margin: float | None = None
    """Of shift tasks: how far below this val AUC another counts as equal (bench.best)."""
    entropy: float | None = None
    """This and the next two, of shift tasks: label-free scores on the target's val images (bench.selection)."""
    information: float | None = None
    snd: float | None = None
    target_val_auc: float | None = None
    """The oracle's: with the labels of the target's val. Chooses nothing that a leaderboard shows."""
    target_test_auc: float | None = None
    """What the trial scores on the target's test. Chooses nothing at all: it shows what a choice would have given."""


STATES = ("complete", "pruned", "diverged")
_REQUIRED = {field.name for field in fields(Trial) if field.default is MISSING}
_UNDEFINED = {field.name for field in fields(Trial) if str(field.type).endswith("| None")}
"""What may be null."""


def parsed(line: bytes) -> Trial:
    """The trial of a line of a trials file. Raises ValueError for anything else."""
    try:
        found = json.loads(line)
    except RecursionError as error:
        raise ValueError("it is nested too deeply") from error
    if not isinstance(found, dict):
        raise ValueError("a line is not a JSON object")
    names = {field.name for field in fields(Trial)}
    if wrong := sorted(_REQUIRED - found.keys()) or sorted(found.keys() - names):
        raise ValueError(f"{wrong[0]} is {'not known' if wrong[0] in found else 'missing'}")
    if said := problem(found):
        raise ValueError(said)
    if len(found["curve"]) != len(found["losses"]):
        raise ValueError("curve and losses differ in length")
    return Trial(**found)


def problem(found: Mapping[str, Any]) -> str:
    """What is wrong with the values of a trial as JSON has them, or "". Those that are not there are not missed."""
    for name, value in found.items():
        known = name in _RULES and not (value is None and name in _UNDEFINED)
        if known and not _RULES[name](value):
            return f"{name} is {str(value)[:40]}"
    return ""


def _is_number(value: Any) -> bool:
    return type(value) in (int, float) and abs(value) < 2**63  # which NaN is not


def _is_count(value: Any) -> bool:
    return type(value) is int and 0 <= value < 2**63


def _is_table(value: Any) -> bool:
    return isinstance(value, dict)


def _are_numbers(value: Any) -> bool:
    """One an epoch; null where it was not finite."""
    return isinstance(value, list) and all(v is None or _is_number(v) for v in value)


_RULES: dict[str, Callable[[Any], bool]] = dict.fromkeys(_UNDEFINED, _is_number) | {
    "number": _is_count,
    "params": _is_table,
    "hparams": _is_table,
    "state": lambda value: value in STATES,
    "curve": _are_numbers,
    "losses": _are_numbers,
    "seconds": _is_number,
    "images_seen": _is_count,
}
