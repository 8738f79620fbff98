"""Processes that are killed, disks that are full, strategies that hang: nothing is lost, nothing is run twice, and each
fault is one clear line."""

from __future__ import annotations

import contextlib
import errno
import json
import os
import signal
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import psutil
import pytest
from rich.console import Console

from bench import attempt, claim, provenance
from bench.contract import Protocol
from bench.errors import StorageError
from bench.executors import execute
from tests.cheap import events, planned, published, run
from tests.kills import assert_whole, kill_commands, kill_workers, rows_written, settle, worker_numbers
from tests.processes import started
from tests.test_runner import rows

CELLS = 4


@pytest.fixture(autouse=True)
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(claim, "BEAT", 0.2)


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory: pytest.TempPathFactory) -> Path:
    results = tmp_path_factory.mktemp("undisturbed")
    assert run(results, CELLS).ok == 2 * CELLS
    return results


def same_and_once(results: Path, undisturbed: Path) -> None:
    """The rows are those of the undisturbed run, and none was published twice."""
    assert rows(results) == rows(undisturbed)
    assert set(published(results).values()) <= {1}
    assert_whole(results)


def test_killed_workers_cost_only_what_they_were_doing(undisturbed: Path, tmp_path: Path) -> None:
    assert kill_workers(tmp_path, 3, CELLS, seed=0) == 3
    settle(tmp_path, CELLS)
    same_and_once(tmp_path, undisturbed)


def test_killed_commands_are_given_again_until_nothing_is_left(undisturbed: Path, tmp_path: Path) -> None:
    assert kill_commands(tmp_path, 3, CELLS, seed=0) == 3
    settle(tmp_path, CELLS)
    same_and_once(tmp_path, undisturbed)


NASTY = '''
import os, signal, time
import torch
from bench.finetune import FineTune

class Quick(FineTune):
    """A predictor that is there at once."""
    name = "quick"
    def fit(self, task, hparams, run):
        return lambda images: torch.zeros(len(images), task.outputs)

class Deadly(Quick):
    """Kills its process."""
    name = "deadly"
    def fit(self, task, hparams, run):
        os.kill(os.getpid(), signal.SIGKILL)

class Late(Quick):
    """Hangs with its second seed, and listens to no signal that can be caught."""
    name = "late"
    def fit(self, task, hparams, run):
        while run.seed == 1:
            signal.pthread_sigmask(signal.SIG_BLOCK, signal.valid_signals())
            time.sleep(1)
        return super().fit(task, hparams, run)
'''


LOADING = '''
import torch
from bench.finetune import FineTune

class Loading(FineTune):
    """Reads something in processes of its own."""
    name = "loading"
    def fit(self, task, hparams, run):
        there = torch.utils.data.DataLoader(torch.arange(4), num_workers=1)
        assert [int(one) for one in there] == [0, 1, 2, 3]
        return lambda images: torch.zeros(len(images), task.outputs)
'''


def test_a_strategy_may_have_processes_of_its_own_in_a_worker_too(tmp_path: Path) -> None:
    (tmp_path / "strategies").mkdir()
    (tmp_path / "strategies" / "loading.py").write_text(LOADING)
    once = Protocol(epochs=1, trials=1)
    outcome = run(tmp_path / "r", 1, tmp_path, strategies=("loading",), protocol=once, jobs=2)
    assert (outcome.ok, outcome.failed) == (2, 0)
    assert not any(psutil.pid_exists(pid) for pid in worker_numbers(tmp_path / "r"))


ORPHANS = '''
import os, signal, time
from pathlib import Path
import torch
from bench.finetune import FineTune

LEFT = Path(__file__).with_name("left")

def leave_one():
    if (child := os.fork()) == 0:
        time.sleep(600)
        os._exit(0)
    with open(LEFT, "a") as file:
        file.write(f"{child}\\n")

class Orphans(FineTune):
    """Leaves processes behind that hold all that it had open, and at first kills its own."""
    name = "orphans"
    def fit(self, task, hparams, run):
        first = not LEFT.exists()
        leave_one()
        if first:
            os.kill(os.getpid(), signal.SIGKILL)
        return lambda images: torch.zeros(len(images), task.outputs)

class Lasting(FineTune):
    """Goes on with a process beside it."""
    name = "lasting"
    def fit(self, task, hparams, run):
        leave_one()
        time.sleep(600)
'''


@pytest.fixture
def orphans(tmp_path: Path) -> Iterator[Path]:
    (tmp_path / "strategies").mkdir()
    (tmp_path / "strategies" / "orphans.py").write_text(ORPHANS)
    yield tmp_path
    for process in left_behind(tmp_path):
        process.kill()


def left_behind(workspace: Path) -> list[psutil.Process]:
    """The processes that strategies started, as far as they still run."""
    found = []
    for line in (workspace / "strategies" / "left").read_text().split():
        with contextlib.suppress(psutil.NoSuchProcess):
            process = psutil.Process(int(line))
            found += [process] if process.status() != psutil.STATUS_ZOMBIE else []
    return found


def all_end(workspace: Path) -> bool:
    """Whether they do in half a minute: a killed process is not gone at once."""
    deadline = time.monotonic() + 30
    while (there := left_behind(workspace)) and time.monotonic() < deadline:
        time.sleep(0.05)
    return not there


def test_a_worker_that_dies_is_missed_though_a_process_that_it_forked_lives_on_until_then(orphans: Path) -> None:
    once = Protocol(epochs=1, trials=1)
    outcome = run(orphans / "r", 1, orphans, strategies=("orphans",), protocol=once, jobs=2, time_limit=1)
    assert (outcome.ok, outcome.failed) == (2, 0)
    assert len((orphans / "strategies" / "left").read_text().split()) == 3
    assert all_end(orphans)


def test_a_killed_command_leaves_no_process_of_a_strategy_behind(orphans: Path) -> None:
    command = started(_lasting, orphans)
    while not (orphans / "strategies" / "left").exists() or not left_behind(orphans):
        assert command.is_alive()
        time.sleep(0.05)
    command.kill()
    command.join()
    assert all_end(orphans)


@pytest.fixture
def nasty(tmp_path: Path) -> Path:
    (tmp_path / "strategies").mkdir()
    (tmp_path / "strategies" / "nasty.py").write_text(NASTY)
    return tmp_path


def told(results: Path) -> dict[tuple[str, int], tuple[str, str]]:
    return {(row["strategy"], row["seed"]): (row["status"], row["reason"]) for row in rows(results).values()}


def test_a_cell_whose_workers_die_fails_with_the_reason_and_one_that_hangs_is_given_up(nasty: Path) -> None:
    names = ("deadly", "quick", "late")
    once = Protocol(epochs=1, trials=1)
    results = nasty / "results"
    outcome = run(results, 1, nasty, strategies=names, protocol=once, jobs=2, time_limit=0.1)
    said = told(results)
    assert (outcome.ok, outcome.failed) == (3, 3)
    assert {said["quick", 0][0], said["quick", 1][0], said["late", 0][0]} == {"ok"}
    assert "ended 3 times, at last by signal 9 (SIGKILL)" in said["deadly", 0][1]
    assert "fewer --jobs" in said["deadly", 0][1]
    assert "took longer than the time limit of 0.1 min" in said["late", 1][1]
    deadly = next(cell for cell in planned(results, 1, nasty, strategies=names, protocol=once).cells)
    happened = [event["event"] for event in events(results, deadly.fingerprint)]
    assert happened == ["started"] * 3 + ["given_up", "row", "row"]
    assert not any(psutil.pid_exists(pid) for pid in worker_numbers(results))


def test_one_cell_at_a_time_has_a_time_limit_too(nasty: Path) -> None:
    once = Protocol(epochs=1, trials=1)
    outcome = run(nasty / "r", 1, nasty, strategies=("late",), protocol=once, time_limit=0.05)
    assert (outcome.ok, outcome.failed) == (1, 1)


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A disk of 300 kB."""
    folder = tmp_path / "disk"
    folder.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", "size=300k", "tmpfs", folder]
    mounted = subprocess.run(mount, capture_output=True, text=True)
    if mounted.returncode:
        pytest.skip(f"no disk can be mounted here: {mounted.stderr.strip()}")
    yield folder
    subprocess.run(["umount", "--lazy", folder], check=True)


@pytest.mark.parametrize("jobs", [1, 2])
def test_a_full_disk_is_one_line_and_the_run_goes_on_once_there_is_room(
    undisturbed: Path, small_disk: Path, tmp_path: Path, jobs: int
) -> None:
    (small_disk / "ballast").write_bytes(bytes(200_000))  # some cells do not fit beside it
    with pytest.raises(StorageError, match=r"cannot be written \(No space left on device\)\. Free disk space"):
        run(small_disk / "results", CELLS, jobs=jobs)
    assert_whole(small_disk / "results")
    before = rows_written(small_disk / "results")
    assert len(before) < 2 * CELLS
    (small_disk / "ballast").unlink()
    subprocess.run(["mount", "-o", "remount,size=20m", small_disk], check=True)
    settle(small_disk / "results", CELLS)
    assert {path: rows_written(small_disk / "results")[path] for path in before} == before
    same_and_once(small_disk / "results", undisturbed)


def test_a_disk_that_is_full_at_any_write_leaves_nothing_torn(
    undisturbed: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The first write of a command fails, the second, and so on."""
    sync, room = os.fsync, [0]

    def fsync(file: int) -> None:
        if room[0] == 0:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        room[0] -= 1
        sync(file)

    monkeypatch.setattr(os, "fsync", fsync)
    for writes in range(7):
        room[0] = writes
        with pytest.raises(StorageError, match="No space left on device"):
            run(tmp_path, CELLS)
        if (tmp_path / "cells").exists():
            assert_whole(tmp_path)
    monkeypatch.undo()
    settle(tmp_path, CELLS)
    same_and_once(tmp_path, undisturbed)


def test_a_folder_that_is_read_only_is_one_line(small_disk: Path) -> None:
    subprocess.run(["mount", "-o", "remount,ro", small_disk], check=True)
    with pytest.raises(StorageError, match=r"cannot be written \(Read-only file system\).*--results"):
        run(small_disk / "results", 1)


def _run_slowly(results: Path) -> None:
    fit_cell = attempt.fit_cell

    def slowly(*given: Any) -> list[str]:
        time.sleep(1)
        return fit_cell(*given)

    attempt.fit_cell = slowly  # in a process of its own
    run(results, CELLS)


def test_of_two_commands_on_one_folder_the_second_says_who_has_it(undisturbed: Path, tmp_path: Path) -> None:
    second = planned(tmp_path, CELLS)
    first = started(_run_slowly, tmp_path)  # or it could end before the second asks
    while not list((tmp_path / "logs").glob("*")):
        time.sleep(0.02)
    with pytest.raises(StorageError, match=f"in use by process {first.pid} on .*: medtransfer run"):
        execute(second, Console(quiet=True), "medtransfer run", {})
    first.join()
    assert first.exitcode == 0
    same_and_once(tmp_path, undisturbed)


def test_clocks_that_jump_change_nothing(undisturbed: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    jumps = iter(range(10**6))
    monkeypatch.setattr(time, "time", lambda: -1e6 * next(jumps))
    monkeypatch.setattr(provenance, "utc", lambda: f"{2400 - next(jumps) // 1000}-01-01T00:00:00.000Z")
    run(tmp_path, CELLS)
    same_and_once(tmp_path, undisturbed)
    for path in rows_written(tmp_path):
        row = json.loads(path.read_text())
        assert row["fit_seconds"] > 0
        assert row["tune_seconds"] > 0
        assert row["predict_ms"] > 0
    assert run(tmp_path, CELLS).there == 2 * CELLS


@pytest.mark.parametrize("times", [1, 2])
def test_ctrl_c_once_or_twice_ends_the_command_and_its_workers(undisturbed: Path, tmp_path: Path, times: int) -> None:
    command = started(_run, tmp_path, 2)
    while not published_anything(tmp_path):
        time.sleep(0.02)
    for _ in range(times):
        os.kill(command.pid, signal.SIGINT)
    command.join()
    assert command.exitcode == 130
    psutil.wait_procs([psutil.Process(pid) for pid in worker_numbers(tmp_path) if psutil.pid_exists(pid)], timeout=30)
    assert not any(psutil.pid_exists(pid) for pid in worker_numbers(tmp_path))
    settle(tmp_path, CELLS)
    same_and_once(tmp_path, undisturbed)


def _lasting(workspace: Path) -> None:
    run(workspace / "r", 1, workspace, strategies=("lasting",), protocol=Protocol(epochs=1, trials=1), jobs=2)


def published_anything(results: Path) -> bool:
    return bool(list((results / "cells").glob("*-s*.json")))


def _run(results: Path, jobs: int) -> None:
    run(results, CELLS, jobs=jobs)
