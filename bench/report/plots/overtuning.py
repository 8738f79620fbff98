"""Whether val AUC, which chooses, tells of test AUC, which counts."""

from __future__ import annotations

import json
from collections.abc import Mapping

import numpy as np
import pandas as pd

from bench.report.frames import ok
from bench.report.plots.canvas import SOFT, Picture, count, dots, label, legend, marker, panels, short, style, svg
from bench.report.plots.choice import said_left_out
from bench.report.written import signed

DATASETS = 15


def val_against_test(
    rows: pd.DataFrame, trials: pd.DataFrame, colours: Mapping[str, str], name: str, title: str
) -> Picture | None:
    """Val against test AUC of every run of one size and amount of data, one panel a dataset."""
    results = ok(rows).dropna(subset=["val_auc"])
    if results.empty:
        return None
    every = sorted(results["dataset"].unique())
    datasets = every[:DATASETS]
    results = results[results["dataset"].isin(datasets)]
    gaps = (results["val_auc"] - results["test_auc"]).groupby(results["dataset"]).mean()
    others = results["strategy"].nunique() > len(colours)
    with style():
        figure, grid, width = panels(len(datasets), 2.5)
        for axes, dataset in zip(grid, datasets, strict=True):
            part = results[results["dataset"] == dataset]
            values = part[["val_auc", "test_auc"]].to_numpy(dtype=float)
            room = max(0.01, 0.03 * float(np.ptp(values)))  # for the whole of the outermost marks
            low, high = values.min() - room, values.max() + room
            axes.plot([low, high], [low, high], color=SOFT, linewidth=0.75, linestyle=(0, (4, 3)), zorder=1)
            rest = part[~part["strategy"].isin(list(colours))]
            dots(axes, rest["val_auc"], rest["test_auc"], SOFT, 2.6, alpha=0.6)
            for strategy, colour in colours.items():
                own = part[part["strategy"] == strategy]
                axes.scatter(
                    own["val_auc"], own["test_auc"], s=13, color=colour, marker=marker(colour),
                    linewidths=0, alpha=0.8, zorder=3,
                )  # fmt: skip
            axes.set(xlim=(low, high), ylim=(low, high), aspect="equal")
            axes.set_title(short(dataset))
            axes.annotate(
                f"val − test {signed(gaps[dataset])}", (0.03, 0.97), xycoords="axes fraction", va="top", fontsize=8
            )
            axes.locator_params(nbins=4)
            axes.grid(True)
        label(grid, "val AUC", "test AUC")
        legend(figure, dict(colours) | ({"other strategies": SOFT} if others else {}))
        words = ", ".join(f"{dataset} {signed(gap)}" for dataset, gap in gaps.items())
        text = f"One panel a dataset. Mean val AUC minus mean test AUC: {words}. Largest on {gaps.idxmax()}."
        drawn = svg(figure, name, title, text)
    caption = (
        f"Each mark is one run, n = {len(results):,}. Below the dashed line test is worse than val: val chose the "
        "hyperparameters, and perhaps the epoch, so some of that is chance that was chosen; some is that the two "
        "splits "
        "differ. No intervals: the runs of a panel share their images." + _optimism(results, trials)
    )
    return Picture(title, drawn, caption + said_left_out(len(datasets), len(every), "datasets", "first by name"), width)


def optimism(results: pd.DataFrame, trials: pd.DataFrame) -> pd.Series:
    """Per cell (fingerprint): val AUC of the chosen trial minus the mean val AUC of the final fits, which have the same
    hyperparameters and other seeds."""
    complete = trials[trials["state"] == "complete"]
    complete = complete.assign(hparams=complete["hparams"].map(json.dumps))  # as rows have them
    complete = complete.merge(results[["fingerprint", "hparams"]].drop_duplicates())
    chosen = complete.drop_duplicates("fingerprint").set_index("fingerprint")["val_auc"]
    final = results.groupby("fingerprint")["val_auc"].mean()
    return (chosen.astype(float) - final).dropna()


def _optimism(results: pd.DataFrame, trials: pd.DataFrame) -> str:
    each = optimism(results, trials)
    if each.empty:
        return ""
    return (
        f" The chosen trial's own val AUC differs from that of the final fits, which have its hyperparameters and "
        f"other seeds, by {signed(float(each.mean()))} on average (n = {count(len(each), 'cell')})."
    )
