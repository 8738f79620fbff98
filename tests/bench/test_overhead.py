"""A cell costs the same however many rows there are already."""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from bench.attempt import run_cell
from bench.config import Amount
from bench.contract import Protocol
from bench.plan import Cell, make_plan
from bench.session import Session
from tests.bench.files import CPU
from tests.bench.measure import OURS, in_turn, ratios, say
from tests.fake_results import row
from tests.small import CHECKOUT, matrix

ROWS = 100_000
TIMES = 5


@pytest.fixture
def full(tmp_path: Path) -> Iterator[Path]:
    """A results folder with many rows; too many files to be left behind."""
    cells = tmp_path / "full" / "cells"
    cells.mkdir(parents=True)
    text = json.dumps(row("breastmnist", "net", "scratch", 0, 0.8))
    for number in range(ROWS):
        (cells / f"{number:020x}-s0.json").write_text(text)
    yield cells.parent
    shutil.rmtree(cells.parent)


def test_rows_stored_before(full: Path, tmp_path: Path, benchmark: Any) -> None:
    protocol = Protocol(epochs=2, trials=4, batch_size=16)
    facts = {"strategies": ("linear_probe",), "sizes": (16,), "amounts": (Amount(per_class=8),), "protocol": protocol}
    cell = make_plan(matrix(full, **facts), CHECKOUT).cells[0]
    sessions = {folder: Session(CPU, folder) for folder in (full, tmp_path / "empty")}

    def several(folder: Path) -> None:
        for _ in range(TIMES):
            assert run_cell(cell, [0], sessions[folder]) == ["ok"]
            forget(folder, cell)

    seconds = in_turn(benchmark, lambda: several(full), {"empty": lambda: several(tmp_path / "empty")})
    text = f"per-cell overhead with {ROWS:,} rows stored against none"
    say(benchmark, text, "at most 1.2x", ratios(seconds[OURS], seconds["empty"]))
    milliseconds = [1000 * taken / TIMES for taken in seconds["empty"]]
    say(benchmark, "a cell whose network costs nothing (4 trials of a probe, 16 images)", "-", milliseconds, "ms")


def forget(folder: Path, cell: Cell) -> None:
    """So that the cell is tuned anew; its row is written over."""
    (folder / "cells" / f"{cell.fingerprint}.trials.jsonl").unlink()
