"""Cells give the same rows wherever they run, and each worker gets its own part of the machine."""

from __future__ import annotations

import io
import json
import sys
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

import pytest
import torch
from rich.console import Console

from bench import memory, ray_workers
from bench.errors import UsageError
from bench.estimate import time_left
from bench.executors import _facts, _progress
from bench.places import SPARE, Place, here, places, threads
from bench.plan import Cell, make_plan
from bench.ray_workers import Remote, demand, portion
from bench.supervise import Done, Lost, Message, Ready, supervise
from bench.work import Setup, Workbench
from tests.cheap import cheap, planned, published, run
from tests.fake_gpu import Gpu
from tests.small import CHECKOUT, matrix
from tests.test_runner import rows

CELLS = 6


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Path:
    results = tmp_path_factory.mktemp("whole")
    run(results, CELLS, strategies=("linear_probe",))
    return results


def test_shards_on_one_folder_give_the_rows_of_the_whole(whole: Path, tmp_path: Path) -> None:
    probe = {"strategies": ("linear_probe",)}
    ran = [run(tmp_path, CELLS, shard=f"{number}/3", **probe) for number in (1, 2, 3)]
    assert [outcome.there for outcome in ran] == [0, ran[0].ok, ran[0].ok + ran[1].ok]
    assert sum(outcome.ok for outcome in ran) == 2 * CELLS
    assert [outcome.left for outcome in ran] == [2 * CELLS - ran[0].ok, ran[2].ok, 0]
    assert max(outcome.ok for outcome in ran) < 2 * CELLS
    assert rows(tmp_path) == rows(whole)
    assert set(published(tmp_path).values()) == {1}
    assert run(tmp_path, CELLS, shard="2/3", **probe).ok == 0


def test_run_json_says_which_strategies_are_ensembles(tmp_path: Path) -> None:
    plan = make_plan(cheap(tmp_path, CELLS, strategies=("linear_probe", "ensemble_mean")), CHECKOUT)
    facts = json.loads(json.dumps(_facts(plan, "", "", None), default=str))
    assert facts["plan"]["fusions"] == ["ensemble_mean"]


def test_the_bar_keeps_its_room_beside_a_long_text() -> None:
    console = Console(width=80, force_terminal=True, color_system=None, file=io.StringIO())
    progress = _progress(console)
    progress.add_task(
        "4 s left · phantom-radiograph · bundled:mobilenet · mine · all [data] · fit 3 of 4", completed=100
    )
    with console.capture() as capture:
        console.print(progress.get_renderable())
    (line,) = capture.get().splitlines()
    assert len(line.rstrip()) <= 80
    assert "100%" in line
    assert line.count("━") == 20
    assert "4 s left · phantom-radiograph" in line


def test_a_command_that_waited_for_another_runs_what_that_left(
    whole: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The plan was made before the folder was had."""
    probe = {"strategies": ("linear_probe",)}
    plan = make_plan(cheap(tmp_path, CELLS, **probe), CHECKOUT)
    run(tmp_path, CELLS - 1, **probe)
    monkeypatch.setattr("tests.cheap.planned", lambda *args, **changes: plan)
    assert run(tmp_path, CELLS).ok == 2
    assert rows(tmp_path) == rows(whole)


@pytest.mark.parametrize(
    ("device", "jobs", "gpus", "expected"),
    [
        ("cpu", 2, 0, [Place("cpu")] * 2),
        ("cuda", 2, 2, [Place("cuda:0"), Place("cuda:1")]),
        ("cuda", 2, 1, [Place("cuda:0", SPARE / 2)] * 2),
        ("cuda:1", 2, 4, [Place("cuda:1", SPARE / 2)] * 2),
        ("cuda", 3, 2, [Place("cuda:0", SPARE / 2), Place("cuda:1"), Place("cuda:0", SPARE / 2)]),
        ("cuda", 1, 8, [Place("cuda:0")]),
    ],
)
def test_workers_share_gpus_evenly_and_never_more_memory_than_there_is(
    device: str, jobs: int, gpus: int, expected: list[Place]
) -> None:
    found = places(torch.device(device), jobs, gpus)
    assert found == expected
    for card in {place.device for place in found} - {"cpu"}:
        assert sum(place.share for place in found if place.device == card) <= 1


def test_workers_share_the_cores_and_keep_to_the_threads_of_the_command(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("os.sched_getaffinity", lambda pid: set(range(12)), raising=False)
    monkeypatch.setattr(torch, "get_num_threads", lambda: 8)
    assert [threads(jobs) for jobs in (1, 2, 5, 50)] == [8, 6, 2, 1]
    monkeypatch.setattr(torch, "get_num_threads", lambda: 1)  # OMP_NUM_THREADS=1
    assert threads(2) == 1


@dataclass
class Scripted:
    """A crew whose workers say what is written for them, and the cells that each was given."""

    says: list[Message]
    lives: list[list[str]] = field(default_factory=list)

    def start(self, slot: int) -> Scripted:
        self.lives.append([])
        self.says.insert(0, Ready())
        return self

    def give(self, cell: Cell, seeds: list[int]) -> None:
        self.lives[-1].append(cell.fingerprint)

    def end(self) -> None:
        pass

    def hear(self, workers: Mapping[int, Scripted], seconds: float | None) -> list[tuple[int, Message]]:
        return [(0, self.says.pop(0))]


def test_a_worker_whose_gpu_is_in_an_error_is_replaced_and_no_cell_lost_by_it(tmp_path: Path) -> None:
    cells = planned(tmp_path, 3).cells
    crew = Scripted([Done(["ok"]), Done(["failed"], spent=True), Done(["ok"])])
    todo = [(cell, [0]) for cell in cells]
    done = list(supervise(todo, crew, tmp_path, 1, 0, lambda *_: ["given up"], lambda *_: None))
    assert done == list(zip(cells, [["ok"], ["failed"], ["ok"]], strict=True))
    assert crew.lives == [[cell.fingerprint for cell in life] for life in (cells[:2], cells[2:])]


@pytest.mark.parametrize(
    ("there", "jobs", "expected"),
    [
        ([8.0], 1, 8.0),
        ([8.0], 3, 2.0),
        ([3.0, 3.0], 3, 1.0),
        ([2.0], 4, 0.5),
        ([1.0, 1.0, 0.0], 4, 0.5),
        ([4.0, 1.0], 2, 2.0),
    ],
)
def test_every_actor_of_a_cluster_finds_a_node_with_room(there: list[float], jobs: int, expected: float) -> None:
    part = portion(there, jobs)
    assert part == expected
    assert sum(int(amount / part + 1e-9) for amount in there) >= jobs


@pytest.mark.parametrize(
    ("nodes", "jobs", "place", "resources"),
    [
        ([{"CPU": 64}, {"CPU": 4, "GPU": 2}], 2, Place("cuda:0"), {"num_cpus": 2, "num_gpus": 1}),
        ([{"CPU": 64}, {"CPU": 2, "GPU": 1}], 4, Place("cuda:0", SPARE / 4), {"num_cpus": 0.5, "num_gpus": 0.25}),
        # What the CPUs of the first and the GPUs of the second allow, no node has both of.
        ([{"CPU": 8, "GPU": 1}, {"CPU": 1, "GPU": 4}], 4, Place("cuda:0"), {"num_cpus": 1 / 3, "num_gpus": 1}),
        ([{"GPU": 4}, {"CPU": 2, "GPU": 1}], 2, Place("cuda:0", SPARE / 2), {"num_cpus": 1, "num_gpus": 0.5}),
    ],
)
@pytest.mark.parametrize("device", ["cuda", "cuda:1", "auto"])
def test_what_an_actor_demands_some_node_has_as_often_as_there_are_actors(
    nodes: list[dict[str, float]], jobs: int, place: Place, resources: dict[str, float], device: str
) -> None:
    found, demanded = demand(nodes, jobs, Place(device))
    assert (found, demanded) == (place, pytest.approx(resources))
    there = [{"CPU": 0, "GPU": 0} | node for node in nodes]
    fits = [min(int(n["CPU"] / demanded["num_cpus"] + 1e-9), int(n["GPU"] / demanded["num_gpus"])) for n in there]
    assert sum(fits) >= jobs


def test_a_cluster_without_gpus_computes_on_cpus_unless_it_is_told_not_to() -> None:
    assert demand([{"CPU": 8}, {"GPU": 1}], 2, Place("auto")) == (Place("cpu"), {"num_cpus": 4})
    with pytest.raises(UsageError, match=r"the cluster has no such device\. Use --device cpu"):
        demand([{"CPU": 8}], 2, Place("cuda"))


def test_a_machine_without_a_gpu_may_send_cells_to_a_cluster_that_has_some(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 0)
    for name in ("cuda", "cuda:1", "auto"):
        assert here(matrix(tmp_path, device=name, executor="ray")) == torch.device("cpu")
    with pytest.raises(UsageError, match="torch sees 0 CUDA devices"):
        here(matrix(tmp_path, device="cuda"))


def test_whatever_ray_says_of_an_actor_that_it_lost_its_cell_is_given_to_another() -> None:
    ray = pytest.importorskip("ray")
    for error in (ray.exceptions.OutOfMemoryError("7 GB used"), ray.exceptions.ActorUnschedulableError("no node")):
        with pytest.MonkeyPatch.context() as patched:
            patched.setattr(ray, "get", lambda answer, error=error: raised(error))
            lost = ray_workers._message(Remote(None, ["asked"]))
        assert isinstance(lost, Lost)
        assert type(error).__name__ in lost.how


def raised(error: Exception) -> None:
    raise error


def test_workers_that_share_a_gpu_leave_room_for_what_cuda_itself_takes(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, gpu: Gpu
) -> None:
    [place, _] = places(torch.device("cuda"), 2, 1)
    on_ray, _ = demand([{"CPU": 2, "GPU": 1}], 2, Place("auto"))
    for shared in (place, on_ray):
        Workbench(Setup(shared, 1, tmp_path, Path.cwd()))
        assert 2 * (gpu.fraction * gpu.total + memory.CONTEXT) == pytest.approx(SPARE * gpu.total)


def test_ray_that_is_not_installed_is_one_line_with_the_way_to_install_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "ray", None)
    with pytest.raises(UsageError, match=r'Ray is not installed.*pip install .*"\.\[ray\]"'):
        run(tmp_path, 1, executor="ray")
    assert list((tmp_path / "claims").iterdir()) == []


def test_the_time_left_believes_the_estimate_first_and_what_was_measured_then() -> None:
    estimated = 84 * 60.0
    assert time_left(estimated, 0, 5, 1) == pytest.approx(estimated, rel=0.05)
    assert time_left(estimated, 0.1, 60, 1) == pytest.approx(estimated, rel=0.15)  # a first, tiny cell
    assert time_left(estimated, estimated / 2, estimated, 1) == pytest.approx(estimated, rel=0.2)  # twice as slow
    assert time_left(estimated, 0, 0, 4) == pytest.approx(estimated / 4)
    assert time_left(estimated, estimated, 1e9, 1) == 0
    assert time_left(0.1, 0.0, 0.0, 1) == pytest.approx(0.1)
