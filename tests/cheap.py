"""Matrices of many cells that take next to no time, and what is promised of their rows."""

from __future__ import annotations

import json
from collections import Counter
from pathlib import Path

from rich.console import Console

from bench import logs
from bench.config import Amount, Matrix
from bench.contract import Protocol
from bench.executors import Outcome, execute
from bench.plan import Plan, make_plan
from tests.small import CHECKOUT, matrix


def cheap(results: Path, cells: int, **changes: object) -> Matrix:
    """Cells that differ in the number of training images, two seeds each."""
    facts: dict[str, object] = {
        "strategies": ("scratch",),
        "sizes": (16,),
        "amounts": tuple(Amount(per_class=number) for number in range(2, 2 + cells)),
        "protocol": Protocol(epochs=1, trials=2, batch_size=8),
    }
    return matrix(results, **facts | changes)


def planned(results: Path, cells: int, workspace: Path = CHECKOUT, **changes: object) -> Plan:
    return make_plan(cheap(results, cells, **changes), workspace)


def run(results: Path, cells: int, workspace: Path = CHECKOUT, **changes: object) -> Outcome:
    return execute(planned(results, cells, workspace, **changes), Console(quiet=True), "medtransfer run", {})


def published(results: Path) -> Counter[tuple[str, int]]:
    """How often each (fingerprint, seed) was published, as the logs say."""
    counts: Counter[tuple[str, int]] = Counter()
    for path in (results / "logs").iterdir():
        for line in path.read_text().splitlines():
            event = json.loads(line)
            if event["event"] == "row":
                counts[path.stem, event["seed"]] += 1
    return counts


def events(results: Path, fingerprint: str) -> list[dict[str, object]]:
    return [json.loads(line) for line in logs.path_of(results, fingerprint).read_text().splitlines()]
