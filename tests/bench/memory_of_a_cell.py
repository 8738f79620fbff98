"""Run one after the other, in a process of its own, a cell with few images and one with many, and print as JSON how
much memory each took at its highest: `python -m tests.bench.memory_of_a_cell FEW.npz MANY.npz RESULTS`."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable
from pathlib import Path

import psutil

from bench.attempt import run_cell
from bench.contract import Protocol
from bench.plan import make_plan
from bench.session import Session
from tests.bench.files import CPU
from tests.small import CHECKOUT, matrix
from tests.watching import watching

PROTOCOL = Protocol(epochs=1, trials=1, batch_size=64)


def own_bytes() -> int:
    """Memory of this process's own, without pages of mapped files, which the system takes back as it likes."""
    used = psutil.Process().memory_info()
    return int(used.rss - used.shared)


def highest(work: Callable[[], None]) -> int:
    """The most that this process held meanwhile, looked at every two milliseconds."""
    with watching(own_bytes, 0.002) as seen:
        work()
    return max(seen)


def cell(file: Path, results: Path) -> None:
    facts = {"strategies": ("full_finetune",), "datasets": (f"npz:{file}",), "sizes": (16,), "protocol": PROTOCOL}
    planned = make_plan(matrix(results, **facts), CHECKOUT).cells[0]
    assert run_cell(planned, [0], Session(CPU, results)) == ["ok"]


def main(few: Path, many: Path, results: Path) -> None:
    cell(few, results)  # reads all libraries
    before = own_bytes()
    peaks = [highest(lambda file=file: cell(file, results)) for file in (few, many)]  # type: ignore[misc]
    print(json.dumps({"before": before, "few": peaks[0], "many": peaks[1]}))


if __name__ == "__main__":
    main(*map(Path, sys.argv[1:]))
