"""What a plan comes to, in the terminal: cells, what is done, skips and failures with reasons, time; and why what was
run failed."""

from __future__ import annotations

import contextlib
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from rich.console import Console

from bench import device, logs, places, store
from bench.errors import printable
from bench.plan import Cell, Plan

LONG = 2 * 3600
"""Seconds from which a total is given in GPU-hours too."""
WORTH_WORKERS = 300
"""Seconds from which several workers gain more than their start costs."""
MOST = 10
"""Reasons of failures that are printed, those of the most cells."""


def describe(plan: Plan, console: Console) -> dict[str, float]:
    """Print the plan; gives the estimated seconds of each cell that is left, by fingerprint. Raises UsageError."""
    where = places.here(plan.matrix)
    matrix = plan.matrix
    todo = plan.todo
    names = [
        (len({cell.strategy for cell in plan.cells}), "strategies"),
        (len({cell.backbone for cell in plan.cells}), "backbones"),
        (len({cell.dataset for cell in plan.cells}), "datasets"),
        (len({cell.size for cell in plan.cells}), "sizes"),
        (len({cell.amount for cell in plan.cells}), "amounts of data"),
    ]
    product = " x ".join(counted(count, name) for count, name in names)
    protocol = matrix.protocol
    each = ((matrix.seeds, "seeds"), (protocol.trials, "trials"), (protocol.epochs, "epochs"))
    effort = ", ".join(counted(*one) for one in each)
    _say(console, f"{counted(len(plan.cells), 'cells')}: {product}; {effort} each")
    if plan.ensembles:
        made = f"{counted(len(plan.ensembles), 'ensembles')} of their stored predictions"
        _say(console, f"and {made}, {len(plan.unfused)} to be made")
    for note in plan.notes:
        _say(console, f"note: {note}", "yellow")
    _reasons(console, "skipped", [(cell, cell.skip) for cell in plan.skips], "cyan")
    _reasons(console, "cannot run", [(cell, cell.error) for cell in plan.errors], "red")
    if there := sum(matrix.seeds - len(plan.missing(cell)) for cell in plan.cells):
        _say(console, f"{there} of {counted(len(plan.cells) * matrix.seeds, 'rows')} are in {matrix.results} already")
    if not todo:
        return {}
    # Here, so that a finished matrix is told so without loading pandas.
    from bench.earlier import earlier
    from bench.estimate import estimate, words

    seconds = estimate(plan, where)
    work = sum(seconds.values())
    total = work / matrix.jobs
    machine, time = device.describe(where), f"about {words(total)}"
    if matrix.executor == "ray":
        machine = f"a Ray cluster, if its nodes are like this machine ({machine})"
    if total >= LONG:
        time += f" ({work / 3600:.1f} {'GPU' if where.type == 'cuda' else 'CPU'}-hours)"
    if unknown := sum(cell.fingerprint not in seconds for cell in todo):
        time += f", and what {unknown} of them take, which is not known"
    _say(console, _to_run(todo, machine, time))
    cores = places.threads(1)
    if where.type == "cpu" and matrix.executor == "local" and matrix.jobs == 1 < cores and total >= WORTH_WORKERS:
        _say(console, f"--jobs {min(cores, 4)} runs cells side by side: faster, unless the networks are large")
    if again := earlier(plan):
        _say(console, again)
    if matrix.deterministic and where.type == "mps":
        _say(console, "note: deterministic: Metal has no such mode, so last bits may differ between runs", "yellow")
    if total >= LONG:
        by_dataset: Counter[str] = Counter()
        for cell in todo:
            share = seconds.get(cell.fingerprint, 0.0) / matrix.jobs
            by_dataset[f"{cell.dataset} {cell.size} px"] += share  # type: ignore[assignment]
        for name, part in by_dataset.most_common():
            _say(console, f"  {name}: {words(part)}")
    return seconds


def _to_run(todo: list[Cell], where: str, time: str) -> str:
    """How many of the cells that are left can run, and how long they take: the others take no time."""
    cannot, skipped = sum(bool(cell.error) for cell in todo), sum(bool(cell.skip) for cell in todo)
    able, cells = len(todo) - cannot - skipped, counted(len(todo), "cells")
    if able == len(todo):
        return f"{cells} to run on {where}: {time}"
    rest = "; ".join(f"{number} {what}" for number, what in ((cannot, "cannot"), (skipped, "skipped")) if number)
    return f"{able} of {cells} can run on {where}: {time}; {rest}" if able else f"0 of {cells} can run"


def failures(results: Path, cells: Sequence[Cell], seeds: int, console: Console) -> None:
    """Print why these cells, of which a row failed, have no result: each reason once, with a log that tells more.
    Raises DataError where a row is damaged."""
    found: dict[tuple[str, str], list[Cell]] = {}
    for cell in cells:
        rows = [row for seed in range(seeds) if (row := _row(results, cell.fingerprint, seed))]
        for why in dict.fromkeys((row["status"], row.get("reason") or "no reason recorded") for row in rows):
            if why[0] not in ("ok", "skipped"):
                found.setdefault(why, []).append(cell)
    for (status, reason), those in sorted(found.items(), key=lambda item: -len(item[1]))[:MOST]:
        subject = those[0].label if len(those) == 1 else f"{len(those)} cells (such as {those[0].label})"
        what = "out of memory" if status == "oom" else status
        because = printable(" ".join(reason.split()))
        end = "" if because.endswith((".", "?", "!")) else "."
        _say(console, f"{what}: {subject}: {because}{end} Log: {logs.path_of(results, those[0].fingerprint)}", "red")
    if len(found) > MOST:
        _say(console, f"and {len(found) - MOST} other reasons: the report has them all", "red")


def _row(results: Path, fingerprint: str, seed: int) -> dict[str, Any] | None:
    for ending in (store.FAILED, ".json"):
        with contextlib.suppress(FileNotFoundError):
            return store.read_row(results, fingerprint, seed, ending)
    return None


def _reasons(console: Console, what: str, cells: list[tuple[Cell, str]], style: str) -> None:
    """Each reason once, with how many cells it holds for."""
    for reason, count in Counter(reason for _, reason in cells).items():
        labels = [cell.label for cell, why in cells if why == reason]
        subject = labels[0] if count == 1 else f"{count} cells (such as {labels[0]})"
        _say(console, f"{what}: {subject}: {reason}", style)


def _say(console: Console, text: str, style: str = "") -> None:
    console.print(text, style=style, markup=False, highlight=False, soft_wrap=True)


def counted(number: int, plural: str) -> str:
    """ "1 cell", "2 cells"."""
    return f"{number} {_singular(plural) if number == 1 else plural}"


def _singular(plural: str) -> str:
    return {"strategies": "strategy", "amounts of data": "amount of data"}.get(plural, plural.removesuffix("s"))
