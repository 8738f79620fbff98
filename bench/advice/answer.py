"""The advice in words, and as a matrix file."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any

from rich.console import RenderableType
from rich.markup import escape
from rich.table import Table

from bench.advice.likeness import Likeness
from bench.advice.measured import Measured
from bench.advice.predicted import Prediction
from bench.advice.shortlist import Shortlist
from bench.advice.sizes import Lead
from bench.config import Matrix
from bench.contract import Backbone, Protocol
from bench.estimate import words
from bench.report.leaderboard import ROPE
from bench.report.written import chance, fixed, signed


@dataclass(frozen=True, eq=False)
class Advice:
    """All that is said of one dataset."""

    measured: Measured
    likeness: Likeness
    prediction: Prediction
    """Of the candidates that can be run here and fit the budget."""
    costs: Sequence[float]
    """Seconds of each candidate's cell."""
    shortlist: Shortlist
    matrix: Matrix
    """That runs the short list."""
    known: tuple[str, ...]
    """Datasets that the advice stands on."""
    others: Mapping[int, Lead]
    """Of the sizes that were not chosen, over the one that was."""
    notes: Sequence[str]
    """What was left out, and why."""

    @property
    def seconds(self) -> float:
        """Of the whole matrix."""
        return sum(self.costs[at] for at in self.shortlist.cells)


def told(advice: Advice, path: Path) -> Iterator[RenderableType]:
    """Paragraphs and tables for a terminal; `path` is the matrix file that was written."""
    facts, known = advice.measured.facts, ", ".join(advice.known)
    if advice.likeness.unlike:
        yield f"[yellow]UNLIKE ANYTHING KNOWN:[/yellow] {escape(_unlike(advice))}"
    elif facts.dataset in advice.known:
        name = escape(facts.dataset)
        yield f"{name} itself is in the reference: --leave-out {name} does without it."
    yield escape(_measured(advice.measured))
    yield _suits(advice.measured)
    yield escape(
        f"Expected of {len(advice.prediction.candidates)} candidates (strategy x backbone) at {facts.size} px, from "
        f"what {len(advice.known)} datasets showed ({known}) and these probes:"
    )
    yield _list(advice)
    yield escape(_practically(advice))
    if advice.others:
        yield _sizes(advice)
    yield from (escape(f"note: {note}") for note in advice.notes)
    yield escape(f"{path} runs this list, about {words(advice.seconds)}. Next: medtransfer run {path}")
    yield "How far such advice was right on known datasets: medtransfer advise --validate"


def _sizes(advice: Advice) -> str:
    found = (
        f"{fixed(one.auc)} at {size} px, {signed(one.mean)} ({signed(one.low)} to {signed(one.high)}) beside that at "
        f"{advice.measured.facts.size} px"
        for size, one in advice.others.items()
    )
    return (
        f"Other sizes: the highest expected AUC is {'; '.join(found)}. A larger size is advised where all of the "
        f"interval is above 0, and its middle above {ROPE:g}."
    )


def _unlike(advice: Advice) -> str:
    near, facts = advice.likeness, advice.measured.facts
    strategy, backbone = advice.prediction.candidates[advice.shortlist.first]
    differing = ", ".join(f"{name} ({_fact(name, advice)})" for name in near.apart)
    return (
        f"the nearest task in which the first of the list, {strategy} on {backbone}, was ever run is "
        f"{near.nearest.dataset} at {near.nearest.size} px, at a distance of {near.distance:.1f}, where known tasks "
        f"are at most {near.usual:.1f} from another dataset. {facts.dataset} differs in {differing}. What follows is "
        "little more than a guess: run more than the list."
    )


def _fact(name: str, advice: Advice) -> str:
    def of(facts: Any) -> str:
        values = {
            "images a class": f"{facts.images / facts.classes:.0f}",
            "classes": str(facts.classes),
            "imbalance": f"{facts.imbalance:.2f}",
            "probe AUC": f"{sum(facts.probe.values()) / len(facts.probe):.2f}",
            "kind": facts.kind,
            "modality": facts.modality,
            "size": f"{facts.size} px",
        }
        return values[name]

    return f"{of(advice.measured.facts)}, there {of(advice.likeness.nearest)}"


def _measured(measured: Measured) -> str:
    facts = measured.facts
    counts = f"{min(measured.counts)} to {max(measured.counts)} a class"
    colours = "gray" if measured.channels == 1 else "RGB"
    sampled = " The scores are of a part of the images." if measured.sampled else ""
    return (
        f"{facts.dataset}: {facts.images} training images ({counts}; imbalance {facts.imbalance:.2f} of 1), "
        f"{facts.val_images} for validation, {facts.classes} classes, {facts.kind}, {colours}, modality "
        f"{facts.modality}. Measured without test images.{sampled}"
    )


def _suits(measured: Measured) -> Table:
    table = _table("backbone", "probe, val AUC", "LogME", "H-score")
    for label, auc in sorted(measured.facts.probe.items(), key=lambda item: -item[1]):
        table.add_row(escape(label), fixed(auc), fixed(measured.logme[label]), fixed(measured.h_score[label]))
    table.caption = "LogME and H-score are shown beside the probe; the advice stands on the probe."
    return table


def _list(advice: Advice) -> Table:
    prediction = advice.prediction
    best, auc, (low, high) = prediction.best, prediction.auc, prediction.interval
    table = _table("strategy", "backbone", "P(best)", "test AUC, 95 %", "about")
    for at in advice.shortlist.cells:
        strategy, backbone = prediction.candidates[at]
        between = f"{fixed(auc[at])}, {fixed(low[at])}–{fixed(high[at])}"
        mark = " *" if at == advice.shortlist.cheapest else ""
        table.add_row(escape(strategy) + mark, escape(backbone), chance(best[at]), between, words(advice.costs[at]))
    rest = 1 - sum(best[at] for at in advice.shortlist.cells)
    table.caption = f"P(best is none of these) = {chance(rest)}"
    return table


def _practically(advice: Advice) -> str:
    found, prediction = advice.shortlist, advice.prediction
    strategy, backbone = prediction.candidates[found.cheapest]
    if found.cheapest == found.first:
        return f"* No cheaper one of the list is expected within {ROPE:g} AUC of the first."
    sure = prediction.within(ROPE)[found.cheapest]
    cost, instead = (words(advice.costs[at]) for at in (found.cheapest, found.first))
    return (
        f"* The cheapest that is expected to be practically as good: {strategy} on {backbone}, {cost} instead of "
        f"{instead}. Its expected AUC is at most {ROPE:g} below the first's; that its AUC is, too, is "
        f"{'likelier than not' if sure > 0.5 else 'NOT likelier than not'} (p = {chance(sure)})."
    )


def _table(*headings: str) -> Table:
    table = Table(caption_justify="left")
    for heading in headings:
        right = heading not in ("strategy", "backbone")
        table.add_column(heading, justify="right" if right else "left", overflow="fold")
    return table


def matrix_file(matrix: Matrix) -> str:
    """A matrix as the TOML that bench.config loads as the same."""
    run: dict[str, Any] = {
        "strategies": list(matrix.strategies),
        "datasets": list(matrix.datasets),
        "sizes": list(matrix.sizes),
        "seeds": matrix.seeds,
    }
    kept = ("trials", "epochs")
    protocol = {field.name: getattr(matrix.protocol, field.name) for field in fields(Protocol)}
    run |= {f.name: protocol[f.name] for f in fields(Protocol) if f.name in kept or protocol[f.name] != f.default}
    run |= {"data_root": str(matrix.data_root), "results": str(matrix.results), "device": matrix.device}
    lines = ["# Written by medtransfer advise", "[run]", *_lines(run)]
    for backbone in matrix.backbones:
        lines += ["", "[[backbone]]", *_lines(_told(backbone))]
    for strategy, settings in matrix.settings.items():
        lines += ["", f"[settings.{strategy}]", *_lines(settings)]
    return "\n".join(lines) + "\n"


def _told(backbone: Backbone) -> dict[str, Any]:
    values = {field.name: getattr(backbone, field.name) for field in fields(Backbone)}
    return {name: value for name, value in values.items() if value not in (None, "", {})}


def _lines(table: Mapping[str, Any]) -> list[str]:
    return [f"{name} = {_toml(value)}" for name, value in table.items()]


def _toml(value: Any) -> str:
    if isinstance(value, Mapping):
        return "{ " + ", ".join(f"{json.dumps(str(name))} = {_toml(one)}" for name, one in value.items()) + " }"
    if isinstance(value, list | tuple):
        return "[" + ", ".join(map(_toml, value)) + "]"
    return json.dumps(value, ensure_ascii=False)
