"""Where cells run: in this process, in worker processes or on a Ray cluster. All write the same files."""

from __future__ import annotations

import os
import signal
import threading
import time
from collections import Counter
from collections.abc import Callable, Generator, Iterator, Mapping
from contextlib import ExitStack, closing, contextmanager
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from types import FrameType

import torch
from rich.console import Console
from rich.progress import BarColumn, Progress, TaskProgressColumn, TextColumn, TimeElapsedColumn
from rich.table import Column

from bench import claim, device, integrity, places, provenance, registry, store
from bench.attempt import give_up, run_cell
from bench.errors import MedtransferError
from bench.estimate import time_left, words
from bench.fuse import fuse_missing
from bench.plan import Cell, Plan
from bench.session import Notify, Session
from bench.supervise import Finished, supervise

Watch = Callable[[Cell, str, float], None]
"""A cell, what is going on in it, and the share of it that is done."""

BROKEN = {"failed", "oom", "diverged"}
"""Statuses of a row that should have a result and has none."""


@dataclass(frozen=True)
class Outcome:
    """Rows published by this command, by status."""

    ok: int
    skipped: int
    failed: int
    """failed, out of memory and diverged."""
    there: int
    """Rows that a run before this one had published."""
    left: int = 0
    """Rows that no command has tried yet: those of other shards."""
    broken: tuple[Cell, ...] = ()
    """The cells of which a row of this command failed."""


def execute(plan: Plan, console: Console, command: str, seconds: Mapping[str, float], debug: bool = False) -> Outcome:
    """Run what is missing, with progress and the time left; every row is published as soon as it is there. `seconds`
    are the cells' estimates, which weigh them in the progress.

    KeyboardInterrupt comes through; what was finished stays, and the same command goes on from there. Raises
    StorageError where the results folder cannot be written or another command has it."""
    with _one_interrupt(), claim.claimed(plan.matrix.results, plan.matrix.shard, command):
        store.sweep(plan.matrix.results)
        # Another command may have had the folder since it was looked at.
        plan = replace(plan, done=store.finished(plan.matrix.results, plan.fingerprints))
        return _execute(plan, console, command, seconds, debug)


def _execute(plan: Plan, console: Console, command: str, seconds: Mapping[str, float], debug: bool) -> Outcome:
    todo, jobs = _failed_last(plan), plan.matrix.jobs
    where = places.here(plan.matrix)
    there = sum(plan.matrix.seeds - len(plan.missing(cell)) for cell in plan.cells)
    started = provenance.utc()
    store.record_planned(plan.matrix.results, plan.fingerprints)
    store.write_run(plan.matrix.results, _facts(plan, command, started, None))
    counts: Counter[str] = Counter()
    # A cell that takes no time still moves the bar.
    weights = {cell.fingerprint: max(seconds.get(cell.fingerprint, 0.0), 0.1) for cell in todo}
    total, passed, begun = sum(weights.values()), 0.0, time.perf_counter()
    shares: dict[str, float] = {}  # of the cells that are run now
    broken: list[Cell] = []
    with _progress(console) as progress, ExitStack() as stack:
        bar = progress.add_task("", total=total)

        def remaining() -> str:
            now = passed + sum(share * weights[fingerprint] for fingerprint, share in shares.items())
            progress.update(bar, completed=now)
            return f"{words(time_left(total, now, time.perf_counter() - begun, jobs))} left"

        def notify(cell: Cell, text: str, share: float) -> None:
            shares[cell.fingerprint] = share
            progress.update(bar, description=f"{remaining()} · {cell.label} · {text}")

        # Closed whatever happens here, so that worker processes end: Python waits for them when it ends itself.
        running = stack.enter_context(closing(_cells(plan, todo, where, notify, debug)))
        for number, (cell, statuses) in enumerate(running, start=1):
            counts.update(statuses)
            shares.pop(cell.fingerprint, None)
            passed += weights[cell.fingerprint]
            told = remaining()
            if set(statuses) & BROKEN:
                broken.append(cell)
            if not console.is_terminal or not set(statuses) <= {"ok", "skipped"}:
                text = f"[{number}/{len(todo)}] {cell.label}: {', '.join(sorted(set(statuses)))}; {told}"
                console.print(text, highlight=False, markup=False, soft_wrap=True)
    if todo:
        integrity.record(plan)
    counts.update(fuse_missing(plan, console))
    store.write_run(plan.matrix.results, _facts(plan, command, started, provenance.utc()))
    failed = sum(counts[status] for status in BROKEN)
    tried = store.tried(plan.matrix.results)
    left = sum((cell.fingerprint, seed) not in tried for cell in plan.cells for seed in range(plan.matrix.seeds))
    return Outcome(counts["ok"], counts["skipped"], failed, there, left, tuple(broken))


def _failed_last(plan: Plan) -> list[Cell]:
    """What is to be run: a cell that ended the command before this one must not end each in its turn."""
    failed = store.tried(plan.matrix.results) - plan.done
    return sorted(plan.todo, key=lambda cell: any((cell.fingerprint, seed) in failed for seed in plan.missing(cell)))


def _progress(console: Console) -> Progress:
    """Bar, share, time and what is going on, on one line. The text takes the room that the others leave, and is cut off
    there: it would take the bar's."""
    rest = Column(ratio=1, no_wrap=True, overflow="ellipsis")
    text = TextColumn("{task.description}", table_column=rest, markup=False)
    columns = BarColumn(bar_width=20), TaskProgressColumn(), TimeElapsedColumn(), text
    return Progress(*columns, console=console, expand=True, disable=not console.is_terminal)


def _facts(plan: Plan, command: str, started: str, finished: str | None) -> dict[str, object]:
    """`run.json`: what was asked for, for the report."""
    known = registry.fusions(plan.workspace)
    fusions = [name for name in plan.matrix.strategies if name in known]
    counts = {"cells": len(plan.cells), "skipped": len(plan.skips), "rows": len(plan.cells) * plan.matrix.seeds}
    return {
        "name": plan.matrix.results.name,
        "command": command,
        "started_utc": started,
        "finished_utc": finished,
        "matrix": asdict(plan.matrix),
        "plan": {**counts, "fusions": fusions},
        "notes": list(plan.notes),
    }


def _cells(
    plan: Plan, todo: list[Cell], where: torch.device, watch: Watch, debug: bool
) -> Generator[tuple[Cell, list[str]], None, None]:
    """In this process, unless there is more than one at a time or a limit of time: only a process of its own can be
    ended in whatever it does."""
    matrix = plan.matrix
    if not todo:
        return
    if matrix.executor == "local" and matrix.jobs == 1 and not matrix.time_limit:
        yield from _here(plan, todo, where, watch, debug)
    else:
        yield from _elsewhere(plan, todo, where, watch, debug)


def _here(plan: Plan, todo: list[Cell], where: torch.device, watch: Watch, debug: bool) -> Finished:
    def about(cell: Cell) -> Notify:
        return lambda text, share: watch(cell, text, share)

    device.set_up(where, plan.matrix.deterministic)
    session = Session(where, plan.matrix.results, debug=debug)
    for cell in todo:
        session.notify = about(cell)
        yield cell, run_cell(cell, plan.missing(cell), session)
        if cell is not todo[-1] and not device.works(where):
            raise MedtransferError(
                f"{cell.label}: it left the GPU in an error that only a new process gets rid of. Run the same command "
                "again: it goes on with the other cells and tries this one last. With --jobs 2 it goes on by itself."
            )


def _elsewhere(plan: Plan, todo: list[Cell], where: torch.device, watch: Watch, debug: bool) -> Finished:
    """Each worker takes whole cells."""
    from bench.work import Setup

    matrix = plan.matrix
    results, folder, threads = matrix.results.absolute(), Path.cwd(), places.threads(matrix.jobs)
    setup = Setup(places.Place(matrix.device), threads, results, folder, matrix.deterministic, debug)
    tasks = [(cell, plan.missing(cell)) for cell in todo]
    settled = (results, matrix.jobs, matrix.time_limit, _giving_up(results, where), watch)
    if matrix.executor == "ray":
        from bench.ray_workers import actors

        with actors(setup, matrix.jobs, matrix.address) as crew:
            yield from supervise(tasks, crew, *settled)
    else:
        from bench.workers import Processes

        found = places.places(where, matrix.jobs, torch.cuda.device_count())
        yield from supervise(tasks, Processes([replace(setup, place=place) for place in found]), *settled)


def _giving_up(results: Path, where: torch.device) -> Callable[[Cell, list[int], str], list[str]]:
    return lambda cell, seeds, reason: give_up(cell, seeds, reason, results, where)


@contextmanager
def _one_interrupt() -> Iterator[None]:
    """Ctrl-C ends what is running; a second one does not wait for that. Files are there whole or not at all either
    way."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return

    def first(number: int, frame: FrameType | None) -> None:
        signal.signal(signal.SIGINT, second)
        raise KeyboardInterrupt

    def second(number: int, frame: FrameType | None) -> None:
        os.write(2, b"\nstopped. What is finished is kept.\n")
        os._exit(130)

    before = signal.signal(signal.SIGINT, first)
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, before)
