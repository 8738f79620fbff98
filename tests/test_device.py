"""What a process is set up with, and what becomes of a run whose GPU fails: told by stand-ins, since no GPU is here."""

from __future__ import annotations

import platform
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
import torch

from bench import attempt, clock, device, executors, store
from bench.domains import proxy_a_distance
from bench.errors import MedtransferError
from bench.label_free import label_free
from bench.plan import Cell
from bench.session import Session
from bench.work import Setup, Workbench
from tests.cheap import planned, run
from tests.fake_gpu import GPU, Gpu

FAULTS = """
import resource
import torch
from bench import device

torch.set_num_threads(1)
if {kept}:
    device.set_up(torch.device("cpu"), deterministic=False)
for step in range(20):
    if step == 15:  # by then the heap is as large as it gets
        before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
    images = torch.ones(16, 2**20)
    images = (images + 1) * 2
print(resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before)
"""


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="only glibc is told so")
def test_memory_that_was_freed_is_used_again_without_asking_the_system() -> None:
    faults = {
        kept: int(
            subprocess.run([sys.executable, "-c", FAULTS.format(kept=kept)], capture_output=True, check=True).stdout
        )
        for kept in (True, False)
    }
    assert faults[True] < 100 < faults[False]


@pytest.mark.parametrize(
    ("text", "lack"),
    [
        ("CUDA error: out of memory", True),
        ("CUDA error: CUBLAS_STATUS_ALLOC_FAILED when calling `cublasCreate(handle)`", True),
        ("cuDNN error: CUDNN_STATUS_ALLOC_FAILED", True),
        ("MPS backend out of memory (MPS allocated: 9 GB)", True),
        ("CUDA error: device-side assert triggered", False),
        ("cuDNN error: CUDNN_STATUS_EXECUTION_FAILED", False),
    ],
)
def test_a_lack_of_memory_is_told_from_other_errors_in_whatever_words(text: str, lack: bool) -> None:
    assert device.out_of_memory(RuntimeError(text)) is lack


def failing(monkeypatch: pytest.MonkeyPatch, gpu: Gpu, amount: int) -> None:
    """Let the cell of `amount` images a class end what the GPU can do for this process, and others succeed."""

    def fit_cell(cell: Cell, seeds: Sequence[int], session: Session, started: str) -> list[str]:
        if cell.amount.per_class == amount:
            gpu.broken = True
            raise RuntimeError("CUDA error: device-side assert triggered")
        for seed in seeds:
            store.publish(session.results, {"fingerprint": cell.fingerprint, "seed": seed, "status": "ok"})
        return ["ok"] * len(seeds)

    monkeypatch.setattr(attempt, "fit_cell", fit_cell)


def test_an_error_that_a_gpu_does_not_recover_from_is_a_row_and_the_same_command_goes_on(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, gpu: Gpu
) -> None:
    failing(monkeypatch, gpu, amount=2)
    monkeypatch.setattr(device, "pick", lambda name: GPU)
    cells = planned(tmp_path, 3).cells
    with pytest.raises(MedtransferError, match=r"2 a class .* left the GPU in an error.*Run the same command again"):
        run(tmp_path, 3)
    failed = {(cells[0].fingerprint, 0), (cells[0].fingerprint, 1)}
    assert (store.tried(tmp_path), store.finished(tmp_path)) == (failed, set())
    gpu.broken = False  # of a new process
    outcome = run(tmp_path, 3)  # ends as usual: no cell is left to need the GPU
    assert (outcome.ok, outcome.failed, outcome.left) == (4, 2, 0)


def test_a_worker_says_that_its_gpu_is_of_no_more_use(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, gpu: Gpu
) -> None:
    failing(monkeypatch, gpu, amount=3)
    bench = Workbench(Setup(executors.places.Place("cuda:0"), 1, tmp_path, Path.cwd()))
    done = [bench.run(cell, [0]) for cell in planned(tmp_path, 2).cells]
    assert [(one.statuses, one.spent) for one in done] == [(["ok"], False), (["failed"], True)]  # type: ignore[union-attr]


def test_a_lack_of_memory_leaves_the_gpu_of_use(monkeypatch: pytest.MonkeyPatch, gpu: Gpu) -> None:
    def full(where: torch.device) -> None:
        raise torch.OutOfMemoryError("CUDA out of memory.")

    assert device.works(GPU)
    monkeypatch.setattr(torch.cuda, "synchronize", full)
    assert device.works(GPU)


class OnMetal:
    """Values on a device that has no float64."""

    device = torch.device("mps")

    def __init__(self, values: torch.Tensor) -> None:
        self.values = values

    def __len__(self) -> int:
        return len(self.values)

    def __getitem__(self, index: torch.Tensor) -> OnMetal:
        return OnMetal(self.values[index])

    def cpu(self) -> torch.Tensor:
        return self.values


def test_what_needs_float64_is_computed_on_the_cpu_where_metal_has_none() -> None:
    values = torch.randn(40, 3, generator=torch.Generator().manual_seed(0))
    on_metal: Any = OnMetal(values)
    assert label_free(on_metal, "multi-class") == label_free(values, "multi-class")
    assert proxy_a_distance(on_metal, on_metal) == proxy_a_distance(values, values)


def test_the_seconds_of_networks_are_not_known_of_metal() -> None:
    assert [clock.counts(torch.device(name)) for name in ("cpu", "cuda", "mps")] == [True, True, False]
