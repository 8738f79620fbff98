"""A comparison in words, in a terminal and as a page."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable
from pathlib import Path

import jinja2
import numpy as np
import pandas as pd
from markupsafe import Markup
from rich.markup import escape
from rich.table import Table

from bench.cache import whole_file
from bench.report.compare import IMPROVED, REGRESSED, SAME, UNTOLD, Comparison
from bench.report.markup import folded, table
from bench.report.tables import amount
from bench.report.written import fixed, signed

LINES = 40
"""Cells that a terminal lists at most."""
PAGE_LINES = 2000
"""Lines of a table of the page at most."""


def sentences(found: Comparison) -> list[str]:
    """What the comparison says, never more than its intervals do."""
    counts = Counter(found.cells["verdict"])
    number, runs = len(found.cells), int(found.cells["seeds"].sum())
    said = [
        f"{_n(number, 'cell')} ({_n(runs, 'run')}) have a result in both: {counts[IMPROVED]} improved, "
        f"{counts[REGRESSED]} regressed, {counts[SAME]} without a difference shown"
        + (f", {counts[UNTOLD]} that cannot be told." if counts[UNTOLD] else "."),
        _mean(found),
    ]
    tested = int((found.cells["low"] < found.cells["high"]).sum())
    if tested:
        said.append(
            f"Each interval misses once in 20 times: had nothing changed, about {tested / 20:.1f} of {tested} would "
            "still be called improved or regressed."
        )
    alone = int((found.cells["seeds"] == 1).sum())
    if alone:
        kept = "; not in the mean" if alone < number else ""
        said.append(
            f"{_n(alone, 'cell')} with one seed in both{kept}: a single pair of fits tells nothing of other seeds."
        )
    if bare := int((~found.cells["images"]).sum()):
        said.append(
            f"In {_n(bare, 'cell')} the interval leaves out the noise of the test images, since the predictions of the "
            "same images are not stored on both sides."
        )
    if found.unchanged:
        said.append(
            f"{_n(found.unchanged, 'cell')} with the same fingerprint: nothing that determines the result differs."
        )
    if found.origins:
        differing = ", ".join(f"{what} in {_n(number, 'cell')}" for what, number in found.origins)
        said.append(f"What differs: {differing}.")
    for what, runs_of in (("only in A", found.only_a), ("only in B", found.only_b)):
        if len(runs_of):
            said.append(f"{_n(len(runs_of), 'run')} {what}: {_names(runs_of['strategy'])}.")
    for what, runs_of in (("a result in A, none in B", found.lost), ("a result in B, none in A", found.gained)):
        if len(runs_of):
            said.append(f"{_n(len(runs_of), 'run')} with {what}: {_names(runs_of['status'])}.")
    return said + list(found.warnings)


def terminal(found: Comparison) -> Table | None:
    """The cells that improved or regressed, the worst first; None where there are none."""
    cells = found.cells[found.cells["verdict"].isin((IMPROVED, REGRESSED))]
    if cells.empty:
        return None
    shown = pd.concat([cells.head(LINES // 2), cells.iloc[LINES // 2 :].tail(LINES // 2)])
    result = Table(title="Cells that differ", title_justify="left", caption_justify="left")
    result.add_column("cell", overflow="fold")
    for name in ("A", "B", "B − A", "95 %"):
        result.add_column(name, justify="right", no_wrap=True)
    for c in shown.itertuples():
        cell = f"{c.dataset} · {c.backbone} · {c.strategy} · {c.size} px · {amount(c.fraction, c.per_class)}"
        figures = (fixed(c.a), fixed(c.b), signed(c.difference), f"{signed(c.low)} to {signed(c.high)}")
        result.add_row(escape(cell), *figures, style="red" if c.verdict == REGRESSED else "green")
    if len(cells) > len(shown):
        result.caption = f"{len(cells) - len(shown)} more between; --html shows all"
    return result


def page(found: Comparison, out: Path) -> Path:
    """Write the comparison to the file `out`, all of it or nothing, and return it. The same rows make the same page."""
    environment = jinja2.Environment(
        loader=jinja2.PackageLoader("bench.report", "templates"), autoescape=True, undefined=jinja2.StrictUndefined
    )
    assert environment.loader is not None
    style = Markup(environment.loader.get_source(environment, "report.css")[0])
    html = environment.get_template("compare.html.j2").render(
        a=found.a, b=found.b, style=style, answer=sentences(found), body=_tables(found)
    )
    out.parent.mkdir(parents=True, exist_ok=True)
    with whole_file(out) as path:
        path.write_text(html, encoding="utf-8")
    return out


def _mean(found: Comparison) -> str:
    difference, low, high = found.mean
    where = f"the {len(found.datasets)} datasets" if len(found.datasets) > 1 else found.datasets[0]
    first = f"On {where}, B's mean test AUC differs from A's by {signed(difference)}"
    if np.isnan(low):
        return f"{first}; without two differing seeds of every cell it cannot be told whether that is chance."
    over = "seeds and test images" if found.mean_images else "seeds only"
    verdict = "B is better" if low > 0 else "B is worse" if high < 0 else "no difference is shown"
    interval = f"95 % interval over {over} {signed(low)} to {signed(high)}"
    return f"{first} ({interval}): {verdict}. It speaks of these datasets only."


def _tables(found: Comparison) -> Markup:
    # The verdict first of the figures: what a narrow window cuts off should not be that.
    columns = ["Strategy", "Dataset", "Backbone", "Verdict", "Difference", "95 %", "A", "B"]
    columns += ["Pixels", "Training images", "Seeds"]
    lines = [
        (
            *(c.strategy, c.dataset, c.backbone, c.verdict, signed(c.difference)),
            "" if np.isnan(c.low) else f"{signed(c.low)} to {signed(c.high)}{'' if c.images else ' (seeds only)'}",
            *(fixed(c.a), fixed(c.b), c.size, amount(c.fraction, c.per_class), c.seeds),
        )
        for c in found.cells.head(PAGE_LINES).itertuples()
    ]
    caption = (
        f"Cells in both. Test AUC as means over the seeds in both; the worst difference first.{_rest(found.cells)}"
    )
    parts = [table(caption, columns, lines, columns[4:])]
    run = ["Dataset", "Backbone", "Strategy", "Pixels", "Training images", "Seed"]
    for title, runs in (("Runs only in A", found.only_a), ("Runs only in B", found.only_b)):
        if len(runs):
            parts.append(folded(f"{title}: {len(runs):,}", table(f"{title}.{_rest(runs)}", run, _runs(runs), run[3:])))
    for title, runs in (("A result in A only", found.lost), ("A result in B only", found.gained)):
        if len(runs):
            both = zip(_runs(runs), runs["status"], runs["reason"].fillna(""), strict=False)
            withs = [(*line, status, reason) for line, status, reason in both]
            parts.append(table(f"{title}.{_rest(runs)}", [*run, "Status of the other", "Reason"], withs, run[3:]))
    return Markup("\n").join(parts)


def _runs(runs: pd.DataFrame) -> list[tuple[object, ...]]:
    return [
        (r.dataset, r.backbone, r.strategy, r.size, amount(r.fraction, r.per_class), r.seed)
        for r in runs.head(PAGE_LINES).itertuples()
    ]


def _rest(lines: pd.DataFrame) -> str:
    return f" The first {PAGE_LINES:,} of {len(lines):,} are listed." if len(lines) > PAGE_LINES else ""


def _names(values: Iterable[str]) -> str:
    counts = Counter(sorted(map(str, values))).most_common()
    more = f" and {len(counts) - 6} more" if len(counts) > 6 else ""
    return ", ".join(f"{name} ({n})" for name, n in counts[:6]) + more


def _n(number: int, noun: str) -> str:
    return f"{number:,} {noun}{'' if number == 1 else 's'}"
