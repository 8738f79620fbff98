"""A hundred thousand cells are planned, and found to be finished, in seconds."""

from __future__ import annotations

import time
from dataclasses import replace
from pathlib import Path

import pytest
from rich.console import Console

from bench.describe import describe
from bench.executors import execute
from bench.plan import make_plan
from tests.small import CHECKOUT
from tests.soak.large import large

CELLS, SECONDS = 100_000, 30


def test_planning_and_resuming(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Each takes less than 30 seconds of this process's time, the time estimate included."""
    matrix = large(tmp_path / "results", CELLS)
    began = time.process_time()
    plan = make_plan(matrix, CHECKOUT)
    describe(plan, Console(quiet=True))
    planning = time.process_time() - began
    assert len(plan.cells) >= CELLS
    assert len({cell.fingerprint for cell in plan.cells}) == len(plan.cells)

    cells = tmp_path / "results" / "cells"
    cells.mkdir(parents=True)
    for cell in plan.cells:
        for seed in range(matrix.seeds):
            (cells / f"{cell.fingerprint}-s{seed}.json").write_text('{"status": "ok"}\n')
            (cells / f"{cell.fingerprint}-s{seed}.npz").touch()
    began = time.process_time()
    again = make_plan(matrix, CHECKOUT)
    describe(again, Console(quiet=True))
    outcome = execute(replace(again, ensembles=()), Console(quiet=True), "medtransfer run", {})
    resuming = time.process_time() - began
    assert outcome.there == len(plan.cells) * matrix.seeds
    with capsys.disabled():
        print(f"\n{len(plan.cells)} cells planned in {planning:.1f} s, resumed in {resuming:.1f} s")
    assert max(planning, resuming) < SECONDS
