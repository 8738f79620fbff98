"""What the figures stand on: what is missing and why, how often the test images were looked at, and what the rows were
made from."""

from __future__ import annotations

from collections.abc import Iterable

import numpy as np
import pandas as pd
from markupsafe import Markup
from scipy.special import ndtr

from bench.report import planned
from bench.report.audited import audit, runs, some
from bench.report.frames import CELL, ok
from bench.report.markup import folded, paragraphs, table
from bench.report.matrix import Z
from bench.report.section import Evidence, Section
from bench.report.stands import together
from bench.report.written import fixed

STATUSES = {"skipped": "Skipped", "failed": "Failed", "oom": "Out of memory", "diverged": "Diverged"}
LINES = 100
"""Lines of a list at most; the rest is counted."""


def section(evidence: Evidence) -> Section:
    """Coverage, looks at the test images, and what the rows were made from."""
    body = Markup("\n").join(
        [
            Markup("<h3>Coverage</h3>"), *_coverage(evidence),
            Markup("<h3>Looks at the test images</h3>"), *_touches(evidence),
            Markup("<h3>What the rows were made from</h3>"), audit(evidence),
        ]
    )  # fmt: skip
    return Section("trust", "How far to trust this", body)


def coverage(evidence: Evidence) -> tuple[pd.DataFrame, pd.DataFrame]:
    """What became of each strategy's planned runs, and the runs that are missing.

    First, one line a strategy: `strategy`, `planned` (missing values where no run.json tells the plan), `result`, the
    keys of STATUSES, `undefined` (ok, but no test AUC), `missing`, `extra` (rows that no plan asks for: those of an
    earlier command). Second: the columns of CELL and `seed` of every planned run without a row.
    """
    # Ensembles have rows of their own; a run.json that does not name them is of a version before.
    fused = set(evidence.ensembles["fusion"].dropna()) if len(evidence.ensembles) else set()
    asked_for = [(planned.cells(run, fused), run["matrix"]) for run in evidence.runs]
    plans = [(cells, matrix) for cells, matrix in asked_for if cells is not None]
    wanted = {(*key, seed) for cells, matrix in plans for key in cells for seed in range(matrix["seeds"])}
    rows = evidence.rows
    there = [(*key, seed) for key, seed in zip(planned.keys(rows), rows["seed"].array.tolist(), strict=True)]
    missing = sorted(wanted - set(there), key=lambda key: tuple((value is not None, value) for value in key))
    gone = pd.DataFrame(missing, columns=[*CELL, "seed"])
    grouped = rows["strategy"]
    columns = {"result": ok(rows)["strategy"].value_counts()}
    columns |= {name: grouped[rows["status"] == name].value_counts() for name in STATUSES}
    columns["undefined"] = grouped[(rows["status"] == "ok") & rows["test_auc"].isna()].value_counts()
    columns["missing"] = gone["strategy"].value_counts()
    columns["extra"] = grouped[[key not in wanted for key in there]].value_counts() if plans else pd.Series(dtype=int)
    names = sorted({*rows["strategy"], *gone["strategy"]})
    counts = pd.DataFrame({name: found.reindex(names) for name, found in columns.items()}, index=names)
    counts = counts.fillna(0).astype(int)
    # Rows of a folder whose plan is not known would make a plan of the others look complete.
    complete = len(plans) == len(evidence.runs)
    asked = pd.Series([key[CELL.index("strategy")] for key in wanted], dtype=object).value_counts()
    counts.insert(0, "planned", asked.reindex(names).fillna(0).astype("Int64") if complete else pd.NA)
    return counts.rename_axis("strategy").reset_index(), gone


def touches(evidence: Evidence) -> pd.DataFrame:
    """How often each dataset's test images were scored: `dataset`, `n_test`, `fits` (runs whose predictions on test
    were scored, those of ensembles and those made elsewhere, too), `trials` (tuning trials scored on test, which shift
    tasks record), `cells` (with a result), `error` (mean standard error of a test AUC that the test images cause),
    `seeds` (standard error of a cell's mean over its seeds; NaN where no cell has several) and `flattery`.

    Flattery is how much too high, at most, the best cell's mean test AUC is expected to be where all cells are equally
    good: both errors together times the expected maximum of as many independent standard normals. Errors on the same
    images go together, which makes it less (Slepian 1962).
    """
    scored_rows = [evidence.singles, evidence.ensembles] if len(evidence.ensembles) else [evidence.singles]
    results = ok(pd.concat(scored_rows))
    tried = evidence.trials
    scored = tried[tried["target_test_auc"].notna()] if "target_test_auc" in tried else tried.iloc[:0]
    owner = evidence.rows.drop_duplicates("fingerprint").set_index("fingerprint")["dataset"]
    trials = scored["fingerprint"].map(owner).value_counts()
    lines = []
    for dataset, part in results.groupby("dataset"):
        aucs = part.groupby(CELL, dropna=False)["test_auc"]
        cells = aucs.ngroups
        error = float(((part["test_auc_hi"] - part["test_auc_lo"]) / (2 * Z)).mean())
        seeds = float(np.sqrt(aucs.var().mean() * (1 / aucs.size()).mean()))
        lines.append(
            (
                dataset,
                part["n_test"].max(),
                len(part),
                int(trials.get(dataset, 0)),
                cells,
                error,
                seeds,
                np.hypot(error, np.nan_to_num(seeds)) * expected_best(cells),
            )
        )
    return pd.DataFrame(lines, columns=["dataset", "n_test", "fits", "trials", "cells", "error", "seeds", "flattery"])


def expected_best(number: int) -> float:
    """Expected maximum of `number` independent standard normals."""
    x = np.linspace(-9, 9, 6001)
    # E[max] is the integral of 1 - F^n over the positive numbers less that of F^n over the negative ones.
    return float(np.trapezoid(np.heaviside(x, 0.5) - ndtr(x) ** number, x))


def _coverage(evidence: Evidence) -> Iterable[Markup]:
    counts, gone = coverage(evidence)
    if counts.empty:
        yield paragraphs(["There is no row, and no plan of one."])
        return
    total = counts.drop(columns="strategy").sum(min_count=1)
    if counts["planned"].isna().any():
        yield paragraphs(["The plan of a folder is not in its run.json, so what is missing altogether cannot be told."])
    else:
        by_whom = f" by the last command{'s' if len(evidence.runs) > 1 else ''}" if total["extra"] else ""
        left = f"{int(total['missing']):,} left no row" if total["missing"] else "every one left a row"
        yield paragraphs(
            [
                f"{runs(int(total['planned']))} were planned{by_whom}; {left}. What has no result is in no average, "
                "and a comparison stands on the blocks where all its entries have one."
            ]
        )
    shown = [name for name in ("skipped", "failed", "oom", "diverged", "undefined", "missing", "extra") if total[name]]
    words = STATUSES | {"undefined": "No test AUC", "missing": "No row", "extra": "Beyond the plan"}
    heads = ["Planned", "With a result", *(words[name] for name in shown)]
    lines = [
        (c["strategy"], "–" if pd.isna(c["planned"]) else c["planned"], c["result"], *(c[name] for name in shown))
        for _, c in counts.iterrows()
    ]
    caption = "Runs by strategy. Rows beyond the plan are those of an earlier command in the same folder."
    yield table(caption if total["extra"] else "Runs by strategy.", ["Strategy", *heads], lines, heads)
    if lost := reasons(evidence.rows):
        yield table("Why runs have no result.", ["Status", "Reason", "Runs", "Strategies", "Datasets"], lost, ["Runs"])
    if len(gone):
        keys = ["strategy", "dataset", "backbone"]
        absent = [(*key, len(part)) for key, part in gone.groupby(keys)]
        rest = f" The first {LINES} of {len(absent):,} lines are shown." if len(absent) > LINES else ""
        heads = ["Strategy", "Dataset", "Backbone", "Runs"]
        caption = f"Planned runs that left no row. The run was stopped, or lost them.{rest}"
        yield folded("What left no row", table(caption, heads, absent[:LINES], ["Runs"]))


def reasons(rows: pd.DataFrame) -> list[tuple[str, str, int, str, str]]:
    """Status, reason, number of rows, strategies and datasets of what has no result, the most frequent first."""
    lost = rows[~(rows["status"] == "ok").fillna(False)]
    lost = lost.assign(reason=lost["reason"].fillna("").replace("", "no reason recorded"))
    found = [
        (
            STATUSES.get(str(status), str(status)),
            str(reason),
            len(part),
            some(part["strategy"]),
            some(part["dataset"]),
        )
        for (status, reason), part in lost.groupby(["status", "reason"])
    ]
    found.sort(key=lambda line: (-line[2], line))
    if len(found) > LINES:
        others = sum(line[2] for line in found[LINES:])
        found = [*found[:LINES], ("", f"{len(found) - LINES:,} other reasons", others, "", "")]
    return found


def _touches(evidence: Evidence) -> Iterable[Markup]:
    found = touches(evidence)
    if found.empty:
        yield paragraphs(["No run has a result, so no test image has been scored."])
        return
    superseded = evidence.rows.attrs.get("stale", 0)
    alone = found.loc[found["seeds"].isna(), "dataset"].tolist()
    older = f" {runs(superseded)} of earlier versions, not in this table, had looked before." if superseded else ""
    yield paragraphs(
        [
            "A final fit, or an ensemble, is scored on the test images once, and nothing is chosen by that score: "
            "hyperparameters are chosen on validation images. But a reader who takes the best line of a table chooses "
            "on test." + older,
            "The last column says how much too high the mean AUC of the best cell is expected to be for that reason if "
            "all cells were equally good, at most: errors on the same images go together, which makes it less. A lead "
            "smaller than this may be chance; only new test images and other seeds would settle it."
            + (f" Of {together(alone)} it leaves out what seeds do: no cell there has several." if alone else ""),
        ]
    )
    heads = [
        "Test images",
        "Fits and ensembles scored" if len(evidence.ensembles) else "Fits scored",
        "Trials scored",
        "Cells to choose from",
        "Error by the images",
        "Error by the seeds",
        "Too high by at most",
    ]
    if not found["trials"].any():
        heads.remove("Trials scored")
    lines = []
    for t in found.itertuples():
        counts = (
            [f"{t.fits:,}", f"{t.trials:,}", f"{t.cells:,}"]
            if found["trials"].any()
            else [f"{t.fits:,}", f"{t.cells:,}"]
        )
        lines.append(
            (
                t.dataset,
                "–" if pd.isna(t.n_test) else f"{t.n_test:,}",
                *counts,
                fixed(t.error),
                fixed(t.seeds),
                fixed(t.flattery),
            )
        )
    yield table(
        "Looks at the test images. Errors are standard errors: of a test AUC by the test images, of a cell's mean by "
        "its seeds.",
        ["Dataset", *heads],
        lines,
        heads,
    )
