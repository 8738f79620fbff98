"""run, plan and fetch: the commands that take a matrix."""

from __future__ import annotations

import json
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING

from rich.console import Console

from bench.commands.app import command_line, warn_of_broken
from bench.commands.selectors import matrix_command

if TYPE_CHECKING:
    from bench.config import Matrix
    from bench.plan import Plan


@matrix_command("run", dry_run="Show what would be run, and stop.")
def _run(matrix: Matrix, debug: bool, dry_run: bool) -> bool:
    """Run a matrix (default: demo) and report. Writes tables and an HTML page; a rerun runs only what is missing."""
    plan, console, seconds = _planned(matrix)
    if dry_run:
        return True
    page = Path("reports") / f"{matrix.results.name}.html"
    if not plan.todo and not plan.unfused and _reported(plan, page):
        console.print(f"nothing to do. tables: {matrix.results}, report: {page}", soft_wrap=True, highlight=False)
        return _whole(plan)
    from bench.commands.report import write_report
    from bench.describe import failures
    from bench.executors import execute

    outcome = execute(plan, console, command_line(), seconds, debug)
    if outcome.left:
        then = f"Then: medtransfer report {matrix.results}"
        text = f"shard {matrix.shard} is done; {outcome.left} rows are left to other shards. {then}"
        console.print(text, soft_wrap=True, highlight=False, markup=False)
    else:
        write_report([matrix.results], page, console)
    failures(matrix.results, outcome.broken, matrix.seeds, console)
    return not outcome.failed and _whole(plan)


def _reported(plan: Plan, page: Path) -> bool:
    """Whether the folder's last command was this one, and the tables and the page were written after it ended: it may
    have been killed before, and another one asks for other cells."""
    from bench import store

    last = store.read_run(plan.matrix.results)
    asked = json.loads(json.dumps(asdict(plan.matrix), default=str))  # as run.json has it
    # The same matrix has other fingerprints where a strategy or a dataset has changed since.
    shown = store.planned(plan.matrix.results)[-len(plan.fingerprints) :] == plan.fingerprints
    if not last.get("finished_utc") or last.get("matrix") != asked or not shown:
        return False
    ended = (plan.matrix.results / store.RUN).stat().st_mtime_ns
    written = [path for path in (plan.matrix.results / "rows.csv", page) if path.exists()]
    return len(written) == 2 and all(path.stat().st_mtime_ns >= ended for path in written)


def _whole(plan: Plan) -> bool:
    """Whether no row that was there before is of a fit that diverged: the command that made it said so, too."""
    from bench.store import any_lost

    return not any_lost(plan.matrix.results, plan.there)


@matrix_command("plan")
def _plan(matrix: Matrix, debug: bool) -> bool:
    """Show what a run would do and how long it would take; run nothing. The same as run --dry-run."""
    _planned(matrix)
    return True


@matrix_command("fetch", ("backbones", "datasets", "sizes", "data_root", "natural"))
def _fetch(matrix: Matrix, debug: bool) -> bool:
    """Download datasets and weights of a matrix for use offline."""
    from bench.fetch import fetch

    return fetch(matrix, Path.cwd(), Console())


def _planned(matrix: Matrix) -> tuple[Plan, Console, dict[str, float]]:
    from bench.describe import describe
    from bench.plan import make_plan

    console = Console()
    warn_of_broken(console)
    plan = make_plan(matrix, Path.cwd())
    return plan, console, describe(plan, console)
