"""The section of the page on two domains: what adaptation gained on the target, what choosing without labels cost."""

from __future__ import annotations

import json
from collections.abc import Iterable
from typing import Any

import numpy as np
import pandas as pd
from markupsafe import Markup

from bench.report.frames import TAG, ok, saw_test
from bench.report.intervals import mean_interval
from bench.report.markup import paragraphs, table
from bench.report.plots.canvas import count as counted
from bench.report.same_images import judged_on
from bench.report.section import Evidence, Section
from bench.report.written import MISSING, fixed, signed
from bench.selection import SELECTIONS, chosen

CONTROL = "source_only"
MOST = 60
"""Lines of a table, the best first."""
BLOCK = ["dataset", "backbone", "size", "fraction", "per_class"]


def section(evidence: Evidence) -> Section | None:
    """None where no run had a second domain."""
    rows = ok(evidence.rows)
    shifts, natural = rows[rows["target"].notna()], rows[rows["second"].notna()]
    if shifts.empty and natural.empty:
        return None
    parts: list[Markup] = []
    if len(shifts):
        parts += [paragraphs([_SHIFT], soft=True), *_on_target(shifts), *_choices(evidence.trials, shifts)]
    if len(natural):
        parts += [Markup("<h3>With natural images as the second domain</h3>"), *_with_natural(natural)]
    return Section("adaptation", "Two domains", Markup("\n").join(parts))


_SHIFT = (
    "Networks were trained on labelled images of the source and tested on the target, of which they saw unlabelled "
    f"training images at most. {CONTROL} saw none and is the control. A transductive strategy adapts to the test "
    "images themselves, which the others never see: it is no fair rival of theirs."
)


def _on_target(rows: pd.DataFrame) -> Iterable[Markup]:
    for dataset, part in rows.groupby("dataset", sort=True):
        lines = [_line(cell, part) for _, cell in part.groupby(["strategy", *BLOCK], dropna=False)]
        lines.sort(key=lambda line: (-line[0], line[1]))
        columns = [
            "Strategy", "Network", "Target AUC", f"Gain over {CONTROL}", "95 % over seeds", "Source AUC",
            "Distance before", "after", "Discriminator",
        ]  # fmt: skip
        left_out = f" The first {MOST} of {len(lines)} are shown." if len(lines) > MOST else ""
        caption = (
            f"On the target: {dataset}. Mean test AUC over {counted(part['seed'].nunique(), 'seed')}, best first; "
            "gains are seed by seed, their interval is Student's. Distance: proxy A-distance between the domains, 0 "
            "where they cannot be told apart, 2 where they always can, before training and after. Discriminator: its "
            f"accuracy in the first and the last epoch, .5 for chance.{left_out}"
        )
        yield table(caption, columns, [line[1:] for line in lines[:MOST]], columns[2:])


def _line(cell: pd.DataFrame, rows: pd.DataFrame) -> tuple[Any, ...]:
    first = cell.iloc[0]
    same = np.logical_and.reduce(
        [(rows[key] == first[key]) | (rows[key].isna() & pd.isna(first[key])) for key in BLOCK]
    )
    control = rows[same & (rows["strategy"] == CONTROL)].set_index("seed")["test_auc"]
    gains = (cell.set_index("seed")["test_auc"] - control).dropna() if first["strategy"] != CONTROL else pd.Series()
    mean, low, high = mean_of(gains.tolist())
    auc = cell["test_auc"].mean()
    tag = TAG if saw_test(cell).any() else ""
    return (
        auc, f"{first['strategy']}{tag}", network(first), fixed(auc), signed(mean), _between(low, high),
        fixed(cell["source_auc"].mean()), fixed(cell["pad_before"].mean(), 2), fixed(cell["pad_after"].mean(), 2),
        _ends(cell["disc_acc"]),
    )  # fmt: skip


def _choices(trials: pd.DataFrame, shifts: pd.DataFrame) -> Iterable[Markup]:
    """What each way of choosing among the same trials gave on the target."""
    own = trials[trials["fingerprint"].isin(shifts["fingerprint"])]
    cells = [
        part.to_dict("records") for _, part in own.groupby("fingerprint") if (part["state"] == "complete").sum() > 1
    ]
    found = {name: [chosen(cell, name) for cell in cells] for name in SELECTIONS}
    told = [[found[name][at].get("target_test_auc") for name in SELECTIONS] for at in range(len(cells))]
    known = [at for at, aucs in enumerate(told) if pd.notna(aucs).all()]
    yield Markup("<h3>What choosing without labels costs</h3>")
    if not known:
        yield paragraphs(["No cell has two complete trials, so nothing was chosen."], soft=True)
        return
    oracle = np.array([found["oracle"][at]["target_test_auc"] for at in known])
    of_cell = dict(zip(shifts["fingerprint"], map(judged_on, shifts["dataset"]), strict=True))
    on = np.array([of_cell[cells[at][0]["fingerprint"]] for at in known])
    targets = np.unique(on)

    def by_target(values: np.ndarray) -> list[float]:
        """Means over the cells that are tested on the same images or patients, which are one as far as chance goes."""
        return [float(values[on == target].mean()) for target in targets]

    lines = []
    for name, selection in SELECTIONS.items():
        reached = np.array([found[name][at]["target_test_auc"] for at in known])
        loss, low, high = mean_of(by_target(oracle - reached))
        lost = (MISSING, MISSING) if name == "oracle" else (fixed(loss), _between(low, high))
        lines.append((name, selection.says, fixed(np.mean(by_target(reached))), *lost))
    columns = ["Choice", "By", "Target AUC", "Below the oracle", "95 % over targets"]
    caption = (
        f"Ways of choosing among the same trials. Mean test AUC on the target of the trial that each would take, "
        f"n = {counted(len(known), 'cell')}, one tuning seed each, on {counted(len(targets), 'target')} that count "
        "alike. The oracle uses the target's labels, which nobody has who needs adaptation: it chooses nothing that is "
        "ranked here."
    )
    yield table(caption, columns, lines, columns[2:])


def _with_natural(rows: pd.DataFrame) -> Iterable[Markup]:
    lines = []
    for (strategy, second), part in rows.groupby(["strategy", "second"], sort=True):
        before, after = (fixed(part[name].mean(), 2) for name in ("pad_before", "pad_after"))
        lines.append(
            (strategy, second, len(part), fixed(part["test_auc"].mean()), before, after, _ends(part["disc_acc"]))
        )
    columns = ["Strategy", "Second domain", "Runs", "Mean test AUC", "Distance before", "after", "Discriminator"]
    caption = (
        "Medical images, with unlabelled natural images beside them. Train and test are of the same domain here; means "
        "over datasets and networks, which may differ between lines: the leaderboard compares like with like."
    )
    yield table(caption, columns, lines, columns[2:])


def mean_of(values: list[float]) -> tuple[float, float, float]:
    """Mean and its 95 % Student's interval; NaN where there is nothing to say."""
    if len(values) < 2:
        return (values[0] if values else np.nan), np.nan, np.nan
    return mean_interval([values])


def _ends(curves: pd.Series) -> str:
    """Mean accuracy in the first and the last epoch."""
    found = [curve for curve in map(json.loads, curves.dropna()) if curve]
    if not found:
        return MISSING
    return f"{np.mean([c[0] for c in found]):.2f} → {np.mean([c[-1] for c in found]):.2f}"


def network(row: pd.Series) -> str:
    """A row's backbone, size and amount of data in words."""
    amount = "" if pd.isna(row["per_class"]) else f", {int(row['per_class'])} a class"
    amount = amount or ("" if row["fraction"] == 1 else f", {row['fraction']:g} of train")
    return f"{row['backbone']}, {row['size']}\u00a0px{amount}"


def _between(low: float, high: float) -> str:
    return MISSING if pd.isna(low) else f"{signed(low)} to {signed(high)}"
