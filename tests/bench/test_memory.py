"""How often a cell holds its images: once."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np

from tests.bench.measure import in_turn, say
from tests.small import CHECKOUT

SIDE = 128
FEW, MANY = 256, 4096


def test_memory_of_a_cell(tmp_path: Path, benchmark: Any) -> None:
    files = [noise(tmp_path / f"{count}.npz", count) for count in (FEW, MANY)]
    command = [sys.executable, "-m", "tests.bench.memory_of_a_cell", *map(str, files), str(tmp_path / "results")]
    found: list[dict[str, int]] = []

    def measure() -> None:
        done = subprocess.run(command, cwd=CHECKOUT, capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stderr
        found.append(json.loads(done.stdout))

    in_turn(benchmark, measure, {}, rounds=1, warm=False)  # a size, not a time: it does not vary
    images = MANY * SIDE**2
    copies = [(one["many"] - one["few"]) / ((MANY - FEW) * SIDE**2) for one in found]
    text = f"memory of a cell of {images / 2**20:.0f} MB of images beyond the libraries"
    say(benchmark, text, "shown", [(one["many"] - one["before"]) / 2**20 for one in found], "MB")
    say(benchmark, "the same, for every byte of images (1: no second copy)", "shown", copies, "bytes")


def noise(file: Path, train: int) -> Path:
    """Images of two classes, 64 of them in val and in test."""
    draw, arrays = np.random.default_rng(0), {}
    for split, count in (("train", train), ("val", 64), ("test", 64)):
        arrays[f"{split}_images"] = draw.integers(0, 256, (count, SIDE, SIDE), dtype=np.uint8)
        arrays[f"{split}_labels"] = np.arange(count)[:, None] % 2
    np.savez(file, **arrays)  # type: ignore[arg-type]
    return file
