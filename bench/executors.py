"""Where cells run: in this process, or in worker processes that write the same files."""

from __future__ import annotations

import multiprocessing
import os
from collections import Counter
from collections.abc import Iterator
from concurrent.futures import ProcessPoolExecutor, as_completed
from dataclasses import asdict, dataclass

import torch
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn

from bench import device, integrity, provenance, store
from bench.plan import Cell, Plan
from bench.runner import Session, run_cell


@dataclass(frozen=True)
class Outcome:
    """Rows published by this command, by status."""

    ok: int
    skipped: int
    failed: int
    """failed, out of memory and diverged."""
    there: int
    """Rows that a run before this one had published."""


def execute(plan: Plan, console: Console, command: str, debug: bool = False) -> Outcome:
    """Run what is missing, with progress and the time left; every row is published as soon as it is there.

    KeyboardInterrupt comes through; what was finished stays, and the same command goes on from there."""
    todo = plan.todo
    where = device.pick(plan.matrix.device)
    there = sum(plan.matrix.seeds - len(plan.missing(cell)) for cell in plan.cells)
    started = provenance.utc()
    store.write_run(plan.matrix.results, _facts(plan, command, started, None))
    counts: Counter[str] = Counter()
    columns = (
        BarColumn(bar_width=24), MofNCompleteColumn(), TextColumn("cells"), TimeElapsedColumn(), TextColumn("left"),
        TimeRemainingColumn(), TextColumn("{task.description}"),
    )  # fmt: skip
    with Progress(*columns, console=console, disable=not console.is_terminal) as progress:
        bar = progress.add_task("", total=len(todo))

        def notify(text: str) -> None:
            progress.update(bar, description=text)

        cells = _here(plan, todo, where, notify, debug) if plan.matrix.jobs == 1 else _workers(plan, todo, where)
        for number, (cell, statuses) in enumerate(cells, start=1):
            counts.update(statuses)
            progress.advance(bar)
            bad = [s for s in statuses if s not in ("ok", "skipped")]
            if bad or not console.is_terminal:
                console.print(
                    f"[{number}/{len(todo)}] {cell.label}: {', '.join(sorted(set(statuses)))}",
                    highlight=False,
                    soft_wrap=True,
                )
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
    plan: Plan, todo: list[Cell], where: torch.device, notify: object, debug: bool
) -> Iterator[tuple[Cell, list[str]]]:
    prefix = ""

    def tell(text: str) -> None:
        notify(f"{prefix} · {text}")  # type: ignore[operator]

    session = Session(where, plan.matrix.results, tell, debug)
    for cell in todo:
        prefix = cell.label
        yield cell, run_cell(cell, plan.missing(cell), session)


def _workers(plan: Plan, todo: list[Cell], where: torch.device) -> Iterator[tuple[Cell, list[str]]]:
    """Each worker takes whole cells; they share the cores. On a GPU they share the card."""
    threads = max(1, (os.cpu_count() or 1) // plan.matrix.jobs)
    context = multiprocessing.get_context("spawn")  # a forked CUDA context is broken
    arguments = (str(where), plan.matrix.results, threads)
    pool = ProcessPoolExecutor(plan.matrix.jobs, context, initializer=_start_worker, initargs=arguments)
    try:
        futures = {pool.submit(_work, cell, plan.missing(cell)): cell for cell in todo}
        for future in as_completed(futures):
            yield futures[future], future.result()
    finally:
        pool.shutdown(wait=True, cancel_futures=True)


_session: Session


def _start_worker(where: str, results: object, threads: int) -> None:
    global _session
    torch.set_num_threads(threads)
    _session = Session(torch.device(where), results)  # type: ignore[arg-type]


def _work(cell: Cell, seeds: list[int]) -> list[str]:
    return run_cell(cell, seeds, _session)
