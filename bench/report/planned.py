"""What run.json says was to be run: the cells of its matrix, and the networks behind the labels."""

from __future__ import annotations

import itertools
import math
from collections.abc import Collection, Mapping, Sequence
from dataclasses import fields, replace
from typing import Any

import pandas as pd

from bench.contract import Backbone
from bench.report.frames import CELL, ok
from bench.rules import matches

MOST = 10**7
"""Runs of a plan that is believed."""
Key = tuple[Any, ...]
"""The values of CELL; no images a class is None."""


def cells(run: Mapping[str, Any], fused: Collection[str] = ()) -> set[Key] | None:
    """The cells that the run's last command asked for; None where run.json does not hold its matrix. Ensembles are no
    cells: they are left out where run.json says which of the strategies are fusions, or `fused` names them."""
    matrix = run.get("matrix")
    needed = ("backbones", "strategies", "datasets", "sizes", "amounts", "seeds")
    if not isinstance(matrix, dict) or not all(matrix.get(name) for name in needed):
        return None
    try:
        return _cells(run, matrix, {*fused, *(run.get("plan") or {}).get("fusions", ())})
    except (AttributeError, KeyError, TypeError, ValueError, OverflowError):
        return None  # somebody else's, or damaged: what was to be run is not known


def _cells(run: Mapping[str, Any], matrix: Mapping[str, Any], fused: Collection[str]) -> set[Key]:
    strategies = [name for name in matrix["strategies"] if name not in fused]
    lists = (matrix["datasets"], backbones(run), strategies, matrix["sizes"], matrix["amounts"])
    if math.prod(map(len, lists)) * matrix["seeds"] > MOST:
        raise ValueError("more runs than any plan has")
    found = {
        (dataset, label, strategy, size, float(amount["fraction"]), amount["per_class"])
        for dataset, label, strategy, size, amount in itertools.product(*lists)
    }
    return {key for key in found if all(_matches(key, *condition) for condition in matrix.get("only") or [])}


def backbones(run: Mapping[str, Any]) -> dict[str, Backbone]:
    """The label of each backbone of the run's matrix, and what it stands for; empty where run.json does not say."""
    matrix = run.get("matrix")
    listed = matrix.get("backbones") if isinstance(matrix, dict) else None
    known = {field.name for field in fields(Backbone)}
    try:
        found = [Backbone(**{name: value for name, value in one.items() if name in known}) for one in listed or []]
        return {backbone.label: backbone for backbone in found}
    except (AttributeError, TypeError):
        return {}


def without_leftovers(rows: pd.DataFrame, runs: Sequence[Mapping[str, Any]]) -> pd.DataFrame:
    """The rows without those of strategies that have no result at all and that the last command of no folder names: a
    name mistyped once would stand in every ranking. All rows where a run.json does not say what it named."""
    matrices = [run.get("matrix") for run in runs]
    named = [matrix.get("strategies") if isinstance(matrix, dict) else None for matrix in matrices]
    if not named or not all(isinstance(names, list) for names in named):
        return rows
    kept = {*ok(rows)["strategy"], *(str(name) for names in named for name in names or ())}
    return rows[rows["strategy"].isin(kept)]


def unnamed(backbone: Backbone) -> str:
    """The label that it has without a name of the user's own."""
    return replace(backbone, name="").label


def keys(rows: pd.DataFrame) -> list[Key]:
    """Of each row the cell that it belongs to, comparable with those of `cells`."""
    parts = [[None if pd.isna(value) else value for value in rows[name].array.tolist()] for name in CELL]
    return list(zip(*parts, strict=True))


def _matches(key: Key, name: str, pattern: str) -> bool:
    value = key[CELL.index(name)]
    return matches(f"{value:g}" if name == "fraction" else str(value), pattern)
