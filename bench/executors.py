"""Where cells run: in this process, or in worker processes that write the same files."""

from __future__ import annotations

import multiprocessing
import os
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import ProcessPoolExecutor, as_completed
from concurrent.futures.process import BrokenProcessPool
from dataclasses import asdict, dataclass
from pathlib import Path

import torch
from rich.console import Console
from rich.progress import BarColumn, Progress, TaskProgressColumn, TextColumn, TimeElapsedColumn, TimeRemainingColumn

from bench import device, integrity, provenance, store
from bench.errors import MedtransferError
from bench.estimate import words
from bench.plan import Cell, Plan
from bench.runner import run_cell
from bench.session import Notify, Session

Finished = Iterator[tuple[Cell, list[str]]]
"""A cell and the statuses of its rows, as soon as they are published."""


@dataclass(frozen=True)
class Outcome:
    """Rows published by this command, by status."""

    ok: int
    skipped: int
    failed: int
    """failed, out of memory and diverged."""
    there: int
    """Rows that a run before this one had published."""


def execute(plan: Plan, console: Console, command: str, seconds: Mapping[str, float], debug: bool = False) -> Outcome:
    """Run what is missing, with progress and the time left; every row is published as soon as it is there. `seconds`
    are the cells' estimates, which weigh them in the progress.

    KeyboardInterrupt comes through; what was finished stays, and the same command goes on from there."""
    todo = plan.todo
    where = device.pick(plan.matrix.device)
    there = sum(plan.matrix.seeds - len(plan.missing(cell)) for cell in plan.cells)
    started = provenance.utc()
    store.write_run(plan.matrix.results, _facts(plan, command, started, None))
    counts: Counter[str] = Counter()
    # A cell that takes no time still moves the bar.
    weights = {cell.fingerprint: max(seconds.get(cell.fingerprint, 0.0), 0.1) for cell in todo}
    total, passed, begun = sum(weights.values()), 0.0, time.perf_counter()
    columns = (
        BarColumn(bar_width=24), TaskProgressColumn(), TimeElapsedColumn(), TextColumn("left"), TimeRemainingColumn(),
        TextColumn("{task.description}"),
    )  # fmt: skip
    with Progress(*columns, console=console, disable=not console.is_terminal) as progress:
        bar = progress.add_task("", total=total)

        def notify(cell: Cell, text: str, share: float) -> None:
            done = passed + share * weights[cell.fingerprint]
            progress.update(bar, completed=done, description=f"{cell.label} · {text}")

        cells = _here(plan, todo, where, notify, debug) if plan.matrix.jobs == 1 else _workers(plan, todo, where)
        for number, (cell, statuses) in enumerate(cells, start=1):
            counts.update(statuses)
            passed += weights[cell.fingerprint]
            progress.update(bar, completed=passed)
            if not console.is_terminal or not set(statuses) <= {"ok", "skipped"}:
                left = (total - passed) * (time.perf_counter() - begun) / passed
                text = f"[{number}/{len(todo)}] {cell.label}: {', '.join(sorted(set(statuses)))}; {words(left)} left"
                console.print(text, highlight=False, markup=False, soft_wrap=True)
    if todo:
        integrity.record(plan)
    store.write_run(plan.matrix.results, _facts(plan, command, started, provenance.utc()))
    failed = sum(counts[status] for status in ("failed", "oom", "diverged"))
    return Outcome(counts["ok"], counts["skipped"], failed, there)


def _facts(plan: Plan, command: str, started: str, finished: str | None) -> dict[str, object]:
    """`run.json`: what was asked for, for the report."""
    return {
        "name": plan.matrix.results.name,
        "command": command,
        "started_utc": started,
        "finished_utc": finished,
        "matrix": asdict(plan.matrix),
        "plan": {"cells": len(plan.cells), "skipped": len(plan.skips), "rows": len(plan.cells) * plan.matrix.seeds},
        "notes": list(plan.notes),
    }


def _here(
    plan: Plan, todo: list[Cell], where: torch.device, notify: Callable[[Cell, str, float], None], debug: bool
) -> Finished:
    def about(cell: Cell) -> Notify:
        return lambda text, share: notify(cell, text, share)

    session = Session(where, plan.matrix.results, debug=debug)
    for cell in todo:
        session.notify = about(cell)
        yield cell, run_cell(cell, plan.missing(cell), session)


def _workers(plan: Plan, todo: list[Cell], where: torch.device) -> Finished:
    """Each worker takes whole cells; they share the cores. On a GPU they share the card."""
    threads = max(1, (os.cpu_count() or 1) // plan.matrix.jobs)
    context = multiprocessing.get_context("spawn")  # a forked CUDA context is broken
    arguments = (os.getpid(), str(where), plan.matrix.results, threads)
    pool = ProcessPoolExecutor(plan.matrix.jobs, context, initializer=_start_worker, initargs=arguments)
    try:
        futures = {pool.submit(_work, cell, plan.missing(cell)): cell for cell in todo}
        for future in as_completed(futures):
            yield futures[future], future.result()
    except BrokenProcessPool:
        fix = "Finished cells are kept: run the same command again, with fewer --jobs if memory ran out."
        raise MedtransferError(f"a worker process was killed from outside. {fix}") from None
    finally:
        pool.shutdown(wait=True, cancel_futures=True)


_session: Session


def _start_worker(driver: int, where: str, results: Path, threads: int) -> None:
    global _session
    threading.Thread(target=_end_with, args=(driver,), daemon=True).start()
    torch.set_num_threads(threads)
    _session = Session(torch.device(where), results)


def _end_with(driver: int) -> None:
    """A worker does not outlive the command that started it, killed or not: the same command, given again, would run
    the same cells beside it. `driver` is that command's own word for its process: a worker that asked for its parent
    might be too late."""
    while os.getppid() == driver:
        time.sleep(0.5)
    os._exit(1)


def _work(cell: Cell, seeds: list[int]) -> list[str]:
    return run_cell(cell, seeds, _session)
