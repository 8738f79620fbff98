"""Cells on workers that may die or hang: each cell is given out, given out again where its worker was lost, and given
up in the end."""

from __future__ import annotations

import math
import time
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

from bench import store
from bench.errors import MedtransferError
from bench.plan import Cell

ATTEMPTS = 3
"""Times that a cell is given to a worker before it is its own fault that they die."""
TOO_MANY = "If memory ran out, use fewer --jobs."
MORE_TIME = "Give it more with --time-limit."

Finished = Iterator[tuple[Cell, list[str]]]
"""A cell and the statuses of its rows, as soon as they are published."""


@dataclass(frozen=True)
class Ready:
    """The worker has imported what it needs."""


@dataclass(frozen=True)
class Progress:
    """What is going on in the cell, and the share of it that is done."""

    text: str
    share: float


@dataclass(frozen=True)
class Done:
    """The statuses of the rows that the worker published."""

    statuses: list[str]
    spent: bool = False
    """The worker can do no more, since its GPU is in an error: another one takes its slot."""


@dataclass(frozen=True)
class Ended:
    """The run cannot go on: the results folder cannot be written, or with --debug a strategy raised."""

    error: Exception


@dataclass(frozen=True)
class Lost:
    """The worker is no more, and how it ended."""

    how: str


Message = Ready | Progress | Done | Ended | Lost


class Worker(Protocol):
    """A process, here or elsewhere, that runs one cell at a time."""

    def give(self, cell: Cell, seeds: list[int]) -> None: ...

    def end(self) -> None:
        """Kill it, whatever it does; rows and trials are on disk whole or not at all."""


class Crew(Protocol):
    """Starts workers and hears from them."""

    def start(self, slot: int) -> Any:
        """A worker, the only one of its slot (0, 1, .. jobs - 1) at a time."""

    def hear(self, workers: Mapping[int, Any], seconds: float | None) -> list[tuple[int, Message]]:
        """What the workers of slots said, at most one message each, as soon as there is one or after `seconds`."""


@dataclass(frozen=True)
class Task:
    """A cell that a worker has."""

    cell: Cell
    attempt: int
    earlier: list[str]
    """Statuses of the rows that attempts before this one had published."""
    begun: float
    """Monotonic seconds."""


def supervise(
    todo: Sequence[tuple[Cell, list[int]]],
    crew: Crew,
    results: Path,
    jobs: int,
    limit: float,
    give_up: Callable[[Cell, list[int], str], list[str]],
    notify: Callable[[Cell, str, float], None],
) -> Finished:
    """Run the cells, each for its seeds, on `jobs` workers. A cell that takes longer than `limit` minutes (0: no
    limit), or whose worker dies for the third time, is given up: `give_up(cell, seeds, reason)` publishes its rows.
    Raises what a worker ended the run with, and MedtransferError where workers do not even start."""
    wanted = {cell.fingerprint: seeds for cell, seeds in todo}
    waiting = deque((cell, 1) for cell, _ in todo)
    workers: dict[int, Any] = {}
    ready: set[int] = set()
    busy: dict[int, Task] = {}
    stillborn = 0  # workers in a row that ended before they were ready

    def published(cell: Cell) -> dict[int, str]:
        """Seed -> status of the cell's rows that are there."""
        found = {seed: store.status_of(results, cell.fingerprint, seed) for seed in wanted[cell.fingerprint]}
        return {seed: status for seed, status in found.items() if status is not None}

    def given_up(cell: Cell, reason: str) -> tuple[Cell, list[str]]:
        there = published(cell)
        seeds = [seed for seed in wanted[cell.fingerprint] if seed not in there]
        return cell, [*there.values(), *give_up(cell, seeds, reason)]

    def end(slot: int) -> Task | None:
        """The slot's worker is no more; gives what it had."""
        ready.discard(slot)
        workers.pop(slot).end()
        return busy.pop(slot, None)

    try:
        while waiting or busy:
            for slot in range(jobs):
                if slot in ready and slot not in busy and waiting:
                    cell, attempt = waiting.popleft()
                    there = published(cell) if attempt > 1 else {}
                    workers[slot].give(cell, [seed for seed in wanted[cell.fingerprint] if seed not in there])
                    busy[slot] = Task(cell, attempt, list(there.values()), time.monotonic())
                elif slot not in workers and len(workers) < len(waiting) + len(busy):
                    workers[slot] = crew.start(slot)
            for slot, message in crew.hear(workers, _patience(busy.values(), limit)):
                if isinstance(message, Ready):
                    ready.add(slot)
                    stillborn = 0
                elif isinstance(message, Progress):
                    notify(busy[slot].cell, message.text, message.share)
                elif isinstance(message, Done):
                    task = busy.pop(slot)
                    if message.spent:
                        end(slot)
                    yield task.cell, task.earlier + message.statuses
                elif isinstance(message, Ended):
                    raise message.error
                else:
                    stillborn += slot not in ready
                    if stillborn >= ATTEMPTS:
                        raise MedtransferError(f"worker processes end before they can work ({message.how}). {TOO_MANY}")
                    if lost := end(slot):
                        if lost.attempt < ATTEMPTS:
                            waiting.append((lost.cell, lost.attempt + 1))
                        else:
                            reason = f"its worker process ended {ATTEMPTS} times, at last {message.how}. {TOO_MANY}"
                            yield given_up(lost.cell, reason)
            for slot in [slot for slot, task in busy.items() if _left(task, limit) <= 0]:
                cell = busy[slot].cell
                end(slot)
                yield given_up(cell, f"took longer than the time limit of {limit:g} min. {MORE_TIME}")
    finally:
        for worker in workers.values():
            worker.end()


def _left(task: Task, limit: float) -> float:
    """Seconds that are left to a task."""
    return task.begun + limit * 60 - time.monotonic() if limit else math.inf


def _patience(tasks: Iterable[Task], limit: float) -> float | None:
    """Seconds to the end of the first task's time; None where there is none."""
    left = min((_left(task, limit) for task in tasks), default=math.inf)
    return max(left, 0.0) if math.isfinite(left) else None
