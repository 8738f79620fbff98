"""`kill -9` of commands and of their workers at random moments."""

from __future__ import annotations

import json
import os
import random
import signal
import threading
import time
from pathlib import Path
from typing import Any

import numpy as np
import psutil

from tests.cheap import run
from tests.processes import started


def kill_commands(results: Path, times: int, cells: int, seed: int) -> int:
    """Start the same command again and again, and kill it; gives the number of kills before it ended by itself. No row
    that was there may be touched again."""
    draw = random.Random(seed)
    there: dict[Path, int] = {}
    for number in range(times):
        command = started(_with_two_workers, results, cells)
        command.join(draw.uniform(0.3, 2.5))
        if not command.is_alive():
            assert command.exitcode == 0
            return number
        command.kill()
        command.join()
        now = rows_written(results)
        assert {path: now[path] for path in there} == there
        there = now
    return times


def kill_workers(results: Path, times: int, cells: int, seed: int) -> int:
    """Run a command and kill its workers under it; gives the number of kills."""
    draw, over, killed = random.Random(seed), threading.Event(), list[int]()

    def kill() -> None:
        while len(killed) < times and not over.wait(draw.uniform(0.1, 0.8)):
            if alive := sorted(pid for pid in worker_numbers(results) if psutil.pid_exists(pid)):
                killed.append(draw.choice(alive))
                os.kill(killed[-1], signal.SIGKILL)

    killer = threading.Thread(target=kill)
    killer.start()
    try:
        run(results, cells, jobs=2)
    finally:
        over.set()
        killer.join()
    return len(killed)


def worker_numbers(results: Path) -> set[int]:
    """Process numbers of all that ever ran a cell here."""
    found = set()
    for path in (results / "logs").glob("*.jsonl"):
        for line in path.read_text().splitlines():
            event = json.loads(line)
            if event["event"] == "started":
                found.add(event["process"])
    return found - {os.getpid()}


def rows_written(results: Path) -> dict[Path, int]:
    """When each finished row was written."""
    return {
        path: path.stat().st_mtime_ns
        for path in (results / "cells").glob("*-s*.json")
        if not path.name.endswith(".failed.json")
    }


def assert_whole(results: Path) -> None:
    """Every file can be read to its end."""
    for path in (results / "cells").iterdir():
        if path.suffix == ".json":
            json.loads(path.read_bytes())
        elif path.suffix == ".jsonl":
            assert path.read_bytes().endswith(b"\n")
        elif path.suffix == ".npz":
            with np.load(path) as arrays:
                assert all(arrays[name].size for name in arrays)


def settle(results: Path, cells: int, **changes: Any) -> None:
    """Run the command until nothing is left; the claim of a killed one is no obstacle."""
    time.sleep(0.2)
    assert run(results, cells, **changes).failed == 0


def _with_two_workers(results: Path, cells: int) -> None:
    run(results, cells, jobs=2)
