"""Two thousand cells through each executor, with memory that does not grow."""

from __future__ import annotations

import contextlib
import statistics
from pathlib import Path

import numpy as np
import psutil
import pytest

from bench.config import Amount
from bench.contract import Backbone, Protocol
from tests.cheap import run
from tests.watching import watching

GROWTH = 5.0
"""MB for 100 cells, of all processes, that are taken for gaps between blocks of many sizes. The images and features of
one cell are about one: a hundred that were kept would not be overlooked."""


def memory() -> tuple[float, int]:
    """MB of this process and of all that it started, and how many they are."""
    sizes = []
    for process in [psutil.Process(), *psutil.Process().children(recursive=True)]:
        with contextlib.suppress(psutil.NoSuchProcess):  # it ended meanwhile
            sizes.append(process.memory_info().rss)
    return sum(sizes) / 2**20, len(sizes)


@pytest.mark.usefixtures("own_cache")  # or what was computed before is only read
@pytest.mark.timeout(7200)
@pytest.mark.parametrize("changes", [{}, {"jobs": 2}, {"executor": "ray", "jobs": 2}], ids=["here", "workers", "ray"])
def test_memory_is_flat(tmp_path: Path, changes: dict[str, object], capsys: pytest.CaptureFixture[str]) -> None:
    """Over the second half of the run: the first fills caches and has the largest cells (a process keeps memory)."""
    many: dict[str, object] = {
        "strategies": ("linear_probe",),
        "backbones": tuple(Backbone(name, "random") for name in ("test_resnet", "test_byobnet")),
        "datasets": ("phantom-fundus", "phantom-organ-b", "phantom-organ-a", "phantom-radiograph"),
        "sizes": (26, 24, 22, 20, 18, 16),
        "amounts": tuple(Amount(fraction=0.1 + 0.02 * number) for number in reversed(range(42))),
        "seeds": 1,
        "protocol": Protocol(epochs=1, trials=1, batch_size=8),
    }
    with watching(memory, 1.0) as sizes:
        outcome = run(tmp_path, 0, **many | changes)
    half = sizes[len(sizes) // 2 :]
    usual = statistics.mode(processes for _, processes in half)
    late = [size for size, processes in half if processes == usual]  # not when the workers have ended
    assert len(late) > len(half) / 2
    slope = float(np.polyfit(np.linspace(outcome.ok / 2, outcome.ok, len(late)), late, 1)[0]) * 100
    with capsys.disabled():
        print(
            f"\n{outcome.ok} cells: {late[0]:.0f} MB at half time, {late[-1]:.0f} at the end, {slope:.2f} for 100 cells"
        )
    assert outcome.ok >= 2000
    assert slope < GROWTH
