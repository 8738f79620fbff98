"""Validation AUC by epoch."""

from __future__ import annotations

import json
from collections.abc import Mapping

import numpy as np
import pandas as pd

from bench.report import stats
from bench.report.frames import ok
from bench.report.intervals import seed_noise
from bench.report.plots.canvas import Picture, count, label, legend, listed, marker, panels, short, style, svg
from bench.report.plots.choice import complete, said_left_out

DATASETS = 15


def curves(rows: pd.DataFrame, colours: Mapping[str, str], name: str, title: str) -> Picture | None:
    """Mean learning curves of the final fits of one size and amount of data, one panel a dataset."""
    results = ok(rows)
    results = results[results["strategy"].isin(list(colours))]
    results = results.assign(curve=[epochs(text) for text in results["curve"]])
    flat = sorted(set(results.loc[results["curve"].map(len) < 2, "strategy"]))
    results = complete(results[results["curve"].map(len) > 1], ["dataset", "backbone"], ["strategy"])
    if results.empty:
        return None
    every = sorted(results["dataset"].unique())
    datasets = every[:DATASETS]
    results = results[results["dataset"].isin(datasets)]
    leaders = []
    with style():
        figure, grid, width = panels(len(datasets), 2.2, sharex=True)
        for axes, dataset in zip(grid, datasets, strict=True):
            part = results[results["dataset"] == dataset]
            ends = {}
            for strategy, runs in part.groupby("strategy"):
                mean, low, high = band(runs)
                colour = colours[str(strategy)]
                at = np.arange(1, len(mean) + 1)
                axes.plot(at, mean, color=colour, linewidth=1.5)
                axes.plot(at[-1:], mean[-1:], color=colour, marker=marker(colour), markersize=5,
                          markeredgewidth=0)  # fmt: skip
                axes.fill_between(at, low, high, color=colour, alpha=0.16, linewidth=0)
                ends[str(strategy)] = float(mean[-1])
            first = max(ends, key=lambda strategy: ends[strategy])
            leaders.append(f"{dataset}: {first} {ends[first]:.3f}")
            axes.set_title(short(dataset))
            axes.grid(True)
            axes.locator_params(axis="y", nbins=4)
        grid[0].locator_params(axis="x", integer=True, nbins=6)
        label(grid, "epoch", "val AUC")
        legend(figure, {strategy: colours[strategy] for strategy in sorted(results["strategy"].unique())}, lines=True)
        text = f"One panel a dataset. Highest mean val AUC after the last epoch: {'; '.join(leaders)}."
        drawn = svg(figure, name, title, text)
    caption = (
        f"Final fits, n = {len(results):,} on {count(results['backbone'].nunique(), 'backbone')}: means over those "
        "on which all drawn strategies have curves. The band is a 95 % interval over seeds; with one seed there is "
        "none. A fit that stopped early keeps its last value; a strategy of several "
        "fits shows the epochs that it recorded."
    )
    if (results["n_train"] < results["n_val"]).any():
        caption += " With few training images not every epoch is validated: a line is level until the next that is."
    if flat:
        caption += f" Without a curve, in some or all of their runs: {listed(flat)}."
    return Picture(title, drawn, caption + said_left_out(len(datasets), len(every), "datasets", "first by name"), width)


def epochs(text: object) -> list[float]:
    """A row's `curve`: val AUC by epoch; empty where there is none, or an epoch has no AUC."""
    try:
        values = json.loads(text) if isinstance(text, str) else []
    except ValueError:
        return []
    sound = isinstance(values, list) and all(isinstance(v, int | float) for v in values)
    return [float(value) for value in values] if sound else []


def band(runs: pd.DataFrame) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Mean and 95 % interval over seeds by epoch, each [E], of runs whose `curve` is a list; backbones count alike. The
    interval ends at 0 and 1, as an AUC does, and is NaN where one of them has one seed."""
    longest = int(runs["curve"].map(len).max())
    held = runs["curve"].map(lambda curve: [*curve, *[curve[-1]] * (longest - len(curve))])
    by_backbone = [np.array(part.tolist()).T.tolist() for _, part in held.groupby(runs["backbone"])]
    scores = stats.padded([[seeds[epoch] for seeds in by_backbone] for epoch in range(longest)])  # [E, B, S]
    weights = np.full(scores.shape[1], 1 / scores.shape[1])
    mean, half = stats.mean_of_means(scores), seed_noise(scores, weights).half_width
    return mean, np.clip(mean - half, 0, 1), np.clip(mean + half, 0, 1)
