"""Why cells that have results are to be run again: what they were made from is another one now."""

from __future__ import annotations

from collections import Counter

import pandas as pd

from bench.plan import Cell, Plan
from bench.report.frames import CELL, MADE_FROM, ok
from bench.report.planned import keys

HASHES = MADE_FROM | {"second_hash": "second domain"}


def earlier(plan: Plan) -> str:
    """How many cells of `plan.todo` have results under another fingerprint, and what of them has changed; "" where none
    has. It reads the table of the results folder; of one that cannot be read `estimate` warns."""
    try:
        table = pd.read_parquet(plan.matrix.results / "rows.parquet")
    except (OSError, ValueError):
        return ""
    rows = ok(table.reindex(columns=[*CELL, "status", "test_auc", "fingerprint", *HASHES]))
    here = set(rows["fingerprint"])
    made = dict(zip(keys(rows), rows[list(HASHES)].itertuples(index=False), strict=True))
    old = [c for c in plan.todo if not (c.skip or c.error) and c.fingerprint not in here and _key(c) in made]
    if not old:
        return ""
    changed = Counter(what for cell in old for what in _changed(cell, dict(made[_key(cell)]._asdict())))
    said = ", ".join(f"{what} ({count})" for what, count in changed.most_common())
    return f"{len(old)} of them {'has' if len(old) == 1 else 'have'} results of an earlier version; changed: {said}"


def _key(cell: Cell) -> tuple[object, ...]:
    """The values of CELL."""
    amount = cell.amount
    return cell.dataset, cell.backbone.label, cell.strategy, cell.size, amount.fraction, amount.per_class


def _changed(cell: Cell, before: dict[str, object]) -> list[str]:
    now = {name: cell.hashes.get(name, "") for name in HASHES}
    found = [what for name, what in HASHES.items() if now[name] != ("" if pd.isna(before[name]) else before[name])]
    return found or ["protocol, settings or harness"]
