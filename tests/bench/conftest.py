"""All cores, and the table of all that was measured at the end."""

from __future__ import annotations

import os
import statistics
from pathlib import Path
from typing import Any

import pytest
import torch

from bench import device
from tests.bench.files import drawn
from tests.bench.measure import ROUNDS, Line

CPU = torch.device("cpu")
CORES = len(os.sched_getaffinity(0))
THREADS = int(os.environ.get("OMP_NUM_THREADS", CORES))
GPU = torch.device("cuda", 0)


@pytest.fixture(autouse=True)
def _own_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Nothing is there from before."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))


@pytest.fixture(autouse=True)
def _all_cores() -> None:
    torch.set_num_threads(THREADS)  # the tests' own conftest takes one


@pytest.fixture(scope="session")
def radiographs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """400, 100 and 200 gray images of two classes at 28 px, as a MedMNIST file."""
    return drawn(tmp_path_factory.mktemp("files"), "phantom-radiograph")


@pytest.fixture(scope="session")
def few_radiographs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A quarter of them, for networks that take their time."""
    return drawn(tmp_path_factory.mktemp("few"), "phantom-radiograph", {"train": 96, "val": 24, "test": 48})


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter, config: pytest.Config) -> None:
    session: Any = config._benchmarksession  # type: ignore[attr-defined]
    lines: list[Line] = [line for one in session.benchmarks for line in one.extra_info.get("lines", [])]
    if not lines:
        return
    terminalreporter.section("against the usual way")
    terminalreporter.write_line("| measure | demanded | median | smallest .. largest | pairs |")
    terminalreporter.write_line("|---|---|---|---|---|")
    for line in lines:
        low, middle, high = (_shown(f(line["values"]), line["unit"]) for f in (min, statistics.median, max))
        cells = (line["measure"], line["demanded"], middle, f"{low} .. {high}", str(len(line["values"])))
        terminalreporter.write_line(f"| {' | '.join(cells)} |")
    terminalreporter.write_line(
        f"\n{device.describe(CPU)}; {CORES} cores, {THREADS} threads; torch {torch.__version__}; computes in "
        f"{' and '.join(device.precisions(CPU))}; usual way: fp32, contiguous, 2 loader processes"
    )
    if torch.cuda.is_available():
        terminalreporter.write_line(f"GPU: {device.describe(GPU)}; computes in {' and '.join(device.precisions(GPU))}")
    else:
        terminalreporter.write_line("no GPU here: what is measured on one was skipped")
    if ROUNDS < 5:
        terminalreporter.write_line(f"MEDTRANSFER_BENCH_ROUNDS={ROUNDS}: too few to measure anything", red=True)


def _shown(value: float, unit: str) -> str:
    digits = 0 if abs(value) >= 100 else 1 if abs(value) >= 10 else 2 if unit == "x" or abs(value) >= 1 else 4
    return f"{value:.{digits}f}{'x' if unit == 'x' else f' {unit}'}"
