"""How much memory there is left: never more than a worker's share of a GPU, or a container's of the machine."""

from __future__ import annotations

from pathlib import Path

import psutil
import pytest
import torch

from bench import memory
from tests.fake_gpu import GPU, Gpu

CPU = torch.device("cpu")
GB = 2**30


@pytest.fixture
def groups(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The folder of control groups of a machine with 100 GB, and no group."""
    monkeypatch.setattr(psutil, "virtual_memory", lambda: type("", (), {"available": 100 * GB}))
    monkeypatch.setattr(memory, "CGROUP", tmp_path / "self")
    monkeypatch.setattr(memory, "CGROUPS", tmp_path / "groups")
    return tmp_path / "groups"


def group(folder: Path, names: tuple[str, str, str], limit: object, used: int, dropped: int = 0) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    for name, value in zip(names, (limit, used, f"anon 5\n{names[2]} {dropped}"), strict=True):
        (folder / ("memory.stat" if name == names[2] else name)).write_text(f"{value}\n")


NEW = ("memory.max", "memory.current", "inactive_file")
OLD = ("memory.limit_in_bytes", "memory.usage_in_bytes", "total_inactive_file")


def test_without_a_limit_all_that_the_machine_has_left_is_there(groups: Path) -> None:
    assert memory.free_bytes(CPU) == 100 * GB
    (groups.parent / "self").write_text("0::/job\n")
    group(groups / "job", NEW, "max", 3 * GB)
    assert memory.free_bytes(CPU) == 100 * GB


def test_the_tightest_of_the_groups_around_this_process_counts_without_the_files_it_could_drop(groups: Path) -> None:
    (groups.parent / "self").write_text("0::/slurm/job/step\n")
    group(groups / "slurm/job/step", NEW, "max", 3 * GB)
    group(groups / "slurm/job", NEW, 16 * GB, 6 * GB, dropped=2 * GB)
    group(groups / "slurm", NEW, 50 * GB, 20 * GB)
    group(groups.parent, NEW, 1, 0)  # no control group
    assert memory.free_bytes(CPU) == 12 * GB


def test_the_first_version_of_control_groups_counts_too_where_a_container_sees_its_root_only(groups: Path) -> None:
    (groups.parent / "self").write_text("12:cpu,cpuacct:/docker/x\n4:memory:/docker/x\n0::/docker/x\n")
    group(groups / "memory", OLD, 8 * GB, 5 * GB, dropped=GB)
    assert memory.free_bytes(CPU) == 4 * GB
    group(groups / "memory", OLD, 4 * GB, 5 * GB)
    assert memory.free_bytes(CPU) == 0
    group(groups / "memory", OLD, 2**63 - 4096, 5 * GB)  # its word for no limit
    assert memory.free_bytes(CPU) == 100 * GB


def test_of_a_gpu_no_more_is_there_than_the_share_of_the_worker(gpu: Gpu) -> None:
    gpu.free, gpu.allocated = 6 * GB, GB
    assert memory.free_bytes(GPU) == 6 * GB
    memory.limit(GPU, 0.5)
    assert memory.free_bytes(GPU) == pytest.approx(4 * GB - memory.CONTEXT - GB)
    gpu.free = GB  # the others were there first
    assert memory.free_bytes(GPU) == GB
    gpu.allocated = 5 * GB
    assert memory.free_bytes(GPU) == 0


def test_even_of_a_tiny_gpu_a_worker_gets_something(gpu: Gpu) -> None:
    gpu.total = GB
    memory.limit(GPU, 0.25)
    assert gpu.fraction == 0.125
