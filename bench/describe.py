"""What a plan comes to, in the terminal: cells, what is done, skips and failures with reasons, time."""

from __future__ import annotations

from collections import Counter

from rich.console import Console

from bench import device, places
from bench.plan import Cell, Plan

LONG = 2 * 3600
"""Seconds from which a total is given in GPU-hours too."""


def describe(plan: Plan, console: Console) -> dict[str, float]:
    """Print the plan; gives the estimated seconds of each cell that is left, by fingerprint. Raises UsageError."""
    where = places.here(plan.matrix)
    matrix = plan.matrix
    todo = plan.todo
    names = [
        (len({cell.strategy for cell in plan.cells}), "strategies"),
        (len(matrix.backbones), "backbones"),
        (len(matrix.datasets), "datasets"),
        (len(matrix.sizes), "sizes"),
        (len(matrix.amounts), "amounts of data"),
    ]
    product = " x ".join(f"{count} {name if count > 1 else _singular(name)}" for count, name in names)
    _say(console, f"{len(plan.cells)} cells: {product}; {matrix.seeds} seeds, {matrix.protocol.trials} trials, "
                  f"{matrix.protocol.epochs} epochs each")  # fmt: skip
    if plan.ensembles:
        _say(
            console, f"and {len(plan.ensembles)} ensembles of their stored predictions, {len(plan.unfused)} to be made"
        )
    for note in plan.notes:
        _say(console, f"note: {note}", "yellow")
    _reasons(console, "skipped", [(cell, cell.skip) for cell in plan.skips], "cyan")
    _reasons(console, "cannot run", [(cell, cell.error) for cell in plan.errors], "red")
    if there := sum(matrix.seeds - len(plan.missing(cell)) for cell in plan.cells):
        _say(console, f"{there} of {len(plan.cells) * matrix.seeds} rows are in {matrix.results} already")
    if not todo:
        return {}
    from bench.estimate import estimate, words  # here, so that a finished matrix is told so without loading pandas

    seconds = estimate(plan, where)
    work = sum(seconds.values())
    total = work / matrix.jobs
    machine = device.describe(where)
    if matrix.executor == "ray":
        machine = f"a Ray cluster, if its nodes are like this machine ({machine})"
    text = f"{len(todo)} cells to run on {machine}: about {words(total)}"
    if total >= LONG:
        text += f" ({work / 3600:.1f} {'GPU' if where.type == 'cuda' else 'CPU'}-hours)"
    if unknown := sum(cell.fingerprint not in seconds for cell in todo):
        text += f", and what {unknown} of them take, which is not known"
    _say(console, text)
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


def _reasons(console: Console, what: str, cells: list[tuple[Cell, str]], style: str) -> None:
    """Each reason once, with how many cells it holds for."""
    for reason, count in Counter(reason for _, reason in cells).items():
        labels = [cell.label for cell, why in cells if why == reason]
        subject = labels[0] if count == 1 else f"{count} cells (such as {labels[0]})"
        _say(console, f"{what}: {subject}: {reason}", style)


def _say(console: Console, text: str, style: str = "") -> None:
    console.print(text, style=style, markup=False, highlight=False, soft_wrap=True)


def _singular(plural: str) -> str:
    return {"strategies": "strategy", "amounts of data": "amount of data"}.get(plural, plural.removesuffix("s"))
