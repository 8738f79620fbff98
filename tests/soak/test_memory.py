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

GROWTH = 3.0
"""MB for 100 cells, of all processes. The images of a hundred of these cells are 7, their features more, and their
networks hundreds."""


def memory() -> tuple[float, int]:
    """MB of this process and of all that it started, and how many they are."""
    sizes = []
    for process in [psutil.Process(), *psutil.Process().children(recursive=True)]:
        with contextlib.suppress(psutil.NoSuchProcess):  # it ended meanwhile
            sizes.append(process.memory_info().rss)
    return sum(sizes) / 2**20, len(sizes)


def four_files(folder: Path) -> tuple[str, ...]:
    """Datasets of other images but of the same shapes: oneDNN keeps something for each shape, and the allocator blocks
    of its sizes, so that with new ones memory would grow to the end, as it does in no matrix of real size."""
    names = []
    for number in range(4):
        draws, arrays = np.random.default_rng(number), {}
        for split, count in {"train": 60, "val": 30, "test": 30}.items():
            arrays[f"{split}_images"] = draws.integers(0, 256, (count, 24, 24), dtype=np.uint8)
            arrays[f"{split}_labels"] = np.arange(count)[:, None] % 3
        np.savez(folder / f"images{number}.npz", **arrays)
        names.append(f"npz:{folder / f'images{number}.npz'}")
    return tuple(names)


@pytest.mark.usefixtures("own_cache")  # or what was computed before is only read
@pytest.mark.timeout(7200)
@pytest.mark.parametrize("changes", [{}, {"jobs": 2}, {"executor": "ray", "jobs": 2}], ids=["here", "workers", "ray"])
def test_memory_is_flat(tmp_path: Path, changes: dict[str, object], capsys: pytest.CaptureFixture[str]) -> None:
    """Over the second half of the run: the first fills caches."""
    many: dict[str, object] = {
        "strategies": ("scratch", "linear_probe", "mlp_probe", "full_finetune", "partial_finetune", "bn_only"),
        "backbones": tuple(Backbone(name, "random") for name in ("test_resnet", "test_byobnet")),
        "datasets": four_files(tmp_path),
        "sizes": (24,),
        # 10 images of each class, however many cells that makes
        "amounts": tuple(Amount(fraction=0.52 + 0.0001 * number) for number in range(42)),
        "seeds": 1,
        "protocol": Protocol(epochs=1, trials=1, batch_size=8),
    }
    with watching(memory, 1.0) as sizes:
        outcome = run(tmp_path / "results", 0, **many | changes)
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
