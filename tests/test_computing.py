"""How a network is computed is measured once on a machine, recorded, and makes no difference but to the last bits."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from bench import computing
from bench.attempt import run_cell
from bench.cache import cache_folder
from bench.check import new_run, phantom_task
from bench.computing import Computing, chosen
from bench.contract import Backbone, Protocol
from bench.plan import make_plan
from bench.session import Session
from bench.store import read_row
from tests.small import CHECKOUT, matrix

CPU = torch.device("cpu")
RESNET = Backbone("bundled:resnet", "bundled:resnet")
USUAL, OTHER = Computing("fp32", "channels_last"), Computing("fp32", "contiguous")

pytestmark = pytest.mark.usefixtures("own_cache", "_forgotten")


@pytest.fixture
def _forgotten() -> None:
    chosen.cache_clear()  # as in a new process


def measuring(monkeypatch: pytest.MonkeyPatch, usual: float, other: float) -> list[int]:
    """Let steps take these seconds; gives the sizes that were measured."""
    sizes: list[int] = []

    def measured(backbone: Backbone, size: int, where: torch.device) -> dict[Computing, float]:
        sizes.append(size)
        return {USUAL: usual, OTHER: other}

    monkeypatch.setattr(computing, "_measured", measured)
    return sizes


def test_the_fastest_way_is_taken_unless_it_is_hardly_faster(monkeypatch: pytest.MonkeyPatch) -> None:
    for size, (usual, other, wanted) in enumerate([(1.0, 0.9, OTHER), (1.0, 0.97, USUAL), (0.5, 0.9, USUAL)], start=16):
        measuring(monkeypatch, usual, other)
        assert chosen(RESNET, size, CPU) == wanted


def test_what_was_measured_first_holds_for_later_runs_of_any_weights(monkeypatch: pytest.MonkeyPatch) -> None:
    sizes = measuring(monkeypatch, 1.0, 0.5)
    assert chosen(RESNET, 16, CPU) == OTHER
    chosen.cache_clear()
    measuring(monkeypatch, 0.5, 1.0)
    assert chosen(replace(RESNET, weights="random", name="mine"), 16, CPU) == OTHER
    assert sizes == [16]
    assert chosen(RESNET, 32, CPU) == USUAL


@pytest.mark.parametrize("damage", ["", "{", '{"precision": "fp8", "memory_format": "contiguous"}', "[]"])
def test_a_damaged_choice_is_made_anew(damage: str, monkeypatch: pytest.MonkeyPatch) -> None:
    measuring(monkeypatch, 1.0, 0.5)
    chosen(RESNET, 16, CPU)
    (file,) = cache_folder("computing").iterdir()
    file.write_text(damage)
    chosen.cache_clear()
    assert chosen(RESNET, 16, CPU) == OTHER
    assert json.loads(file.read_text()) == {"precision": "fp32", "memory_format": "contiguous"}


def test_of_workers_that_measure_at_once_the_first_is_right(monkeypatch: pytest.MonkeyPatch) -> None:
    def slow(backbone: Backbone, size: int, where: torch.device) -> dict[Computing, float]:
        monkeypatch.setattr(computing, "_measured", lambda *_: {USUAL: 1.0, OTHER: 0.5})
        chosen.__wrapped__(RESNET, 16, CPU)  # another worker
        return {USUAL: 0.5, OTHER: 1.0}

    monkeypatch.setattr(computing, "_measured", slow)
    assert chosen(RESNET, 16, CPU) == OTHER


def test_without_a_writable_cache_a_run_goes_on(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    (tmp_path / "file").write_text("")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "file"))
    measuring(monkeypatch, 1.0, 0.5)
    assert chosen(RESNET, 16, CPU) == OTHER
    assert "measured anew" in caplog.text


def test_every_way_of_the_device_is_timed_on_steps_of_the_network() -> None:
    found = computing._measured(replace(RESNET, weights="random"), 16, CPU)
    assert list(found) == computing.ways(CPU)
    assert {USUAL, OTHER} <= set(found)
    assert min(found.values()) > 0


@pytest.mark.parametrize("way", [USUAL, OTHER])
def test_a_network_sees_images_in_its_own_layout(way: Computing) -> None:
    run, task = replace(new_run(backbone=RESNET, size=16), computing=way), phantom_task("binary", size=16)
    inputs = run.prepare(task.train.batch(torch.arange(4))[0])
    assert inputs.is_contiguous(memory_format=way.layout)
    assert run.network(2).features.layer1[0].conv1.weight.is_contiguous(memory_format=way.layout)  # type: ignore[index,union-attr]
    torch.testing.assert_close(inputs, new_run(backbone=RESNET, size=16).prepare(task.train.batch(torch.arange(4))[0]))


def test_a_row_says_how_it_was_computed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    measuring(monkeypatch, 1.0, 0.5)
    protocol = Protocol(epochs=1, trials=1, batch_size=16)
    cell = make_plan(matrix(tmp_path, strategies=("scratch",), sizes=(16,), protocol=protocol), CHECKOUT).cells[0]
    assert run_cell(cell, [0], Session(CPU, tmp_path)) == ["ok"]
    row = read_row(tmp_path, cell.fingerprint, 0)
    assert (row["precision"], row["memory_format"]) == ("fp32", "contiguous")


def running_out(monkeypatch: pytest.MonkeyPatch, *layouts: str) -> None:
    """Let memory suffice for no step in these layouts."""
    made = computing._step

    def step(backbone: Backbone, size: int, where: torch.device, way: Computing) -> Callable[[], None]:
        def full() -> None:
            raise torch.OutOfMemoryError("CUDA out of memory.")

        return full if way.memory_format in layouts else made(backbone, size, where, way)

    monkeypatch.setattr(computing, "_step", step)


def test_a_way_that_does_not_fit_in_memory_is_not_chosen(monkeypatch: pytest.MonkeyPatch) -> None:
    running_out(monkeypatch, "channels_last")
    assert chosen(RESNET, 16, CPU).memory_format == "contiguous"


def test_where_no_way_fits_the_usual_one_is_taken_and_measured_again_another_time(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    running_out(monkeypatch, "channels_last", "contiguous")
    assert chosen(RESNET, 16, CPU) == computing.ways(CPU)[0]
    assert "bundled:resnet at 16 px: how it trains fastest cannot be measured" in caplog.text
    assert list(cache_folder("computing").iterdir()) == []


def test_another_error_than_a_lack_of_memory_is_none_of_a_way(monkeypatch: pytest.MonkeyPatch) -> None:
    def step() -> None:
        raise RuntimeError("on purpose")

    monkeypatch.setattr(computing, "_step", lambda *_: step)
    with pytest.raises(RuntimeError, match="on purpose"):
        chosen(RESNET, 16, CPU)
