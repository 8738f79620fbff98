"""Test AUC as a heatmap of means, and as every run's dot."""

from __future__ import annotations

from collections.abc import Collection, Sequence

import numpy as np
import pandas as pd
import seaborn as sns
from matplotlib.axes import Axes
from matplotlib.text import Text

from bench.report.frames import ok, saw_test
from bench.report.intervals import mean_interval
from bench.report.plots.canvas import (
    INK,
    SERIES,
    Picture,
    count,
    dots,
    label,
    legend,
    listed,
    panels,
    short,
    single,
    style,
    svg,
)
from bench.report.plots.choice import said_left_out

DATASETS, STRATEGIES, ROWS = 16, 12, 40
"""Most datasets of a heatmap and of dots, most strategies of dots, and most of a heatmap."""
TRANSDUCTIVE = "† is transductive: it adapts to the test images themselves, which the others never see"
"""Caption of the mark of a strategy that saw the test images."""


def heatmap(rows: pd.DataFrame, name: str, title: str) -> Picture | None:
    """Mean test AUC of strategies x datasets in rows of one size and amount of data; None where no row has a
    result."""
    results = ok(rows)
    if results.empty:
        return None
    # Backbones count alike within a square, whatever number of seeds they have.
    per_backbone = results.groupby(["strategy", "dataset", "backbone"])["test_auc"].mean()
    means = per_backbone.groupby(["strategy", "dataset"]).mean().unstack()
    counts = per_backbone.groupby(["strategy", "dataset"]).size().unstack().reindex_like(means)
    means = means.loc[means.mean(axis=1).sort_values(ascending=False, kind="stable").index]
    every = means.shape
    means = means.iloc[:ROWS, :DATASETS]
    counts = counts.loc[means.index, means.columns]
    fewer = counts < counts.max()
    seen = set(results.loc[saw_test(results), "strategy"])
    sound = means.where(~fewer)
    sound[sound.index.isin(seen)] = np.nan
    best = sound.rank(ascending=False, method="min") == 1
    text = means.map(lambda auc: "" if np.isnan(auc) else f"{auc:.3f}") + fewer.map(lambda f: "*" if f else "").where(
        means.notna(), ""
    )
    width = 2.4 + (1.05 if means.shape[1] <= 4 else 0.72) * means.shape[1]
    low = float(np.floor(np.nanmin(means.to_numpy()) * 20) / 20)
    with style():
        figure, axes = single(width, 1.0 + 0.34 * len(means))
        sns.heatmap(
            means, ax=axes, annot=text.to_numpy(), fmt="", cmap="crest", vmin=low, vmax=1.0, cbar=False,
            linewidths=2, linecolor="none", annot_kws={"size": 9},
            xticklabels=[short(name) for name in means.columns],
            yticklabels=[_marked(name, seen) for name in means.index],
        )  # fmt: skip
        shown = means.notna().to_numpy()
        fills = np.asarray(axes.collections[0].get_facecolor())
        for label, strong, fill in zip(_annotations(axes), best.to_numpy()[shown], fills[shown.ravel()], strict=True):
            label.set(fontweight="bold" if strong else "normal", color=readable_on(fill))
        axes.set(xlabel="", ylabel="")
        axes.tick_params(length=0)
        axes.tick_params(axis="x", labelrotation=30 if means.shape[1] > 4 else 0, top=False)
        axes.tick_params(axis="y", labelrotation=0)
        for label in axes.get_xticklabels():
            label.set_horizontalalignment("right" if means.shape[1] > 4 else "center")
        known = sound.dropna(axis=1, how="all")
        leaders = "; ".join(f"{d}: {known[d].idxmax()} {known[d].max():.3f}" for d in known.columns)
        drawn = svg(figure, name, title, f"Strategies in rows, datasets in columns. Highest mean test AUC: {leaders}.")
    caption = (
        f"Mean test AUC over {count(results['backbone'].nunique(), 'backbone')} and their seeds, "
        f"n = {count(len(results), 'run')}. "
        "Darker is higher; bold is the highest of its column; an empty square has no result. The squares have no "
        "intervals."
    )
    if fewer.to_numpy()[means.notna().to_numpy()].any():
        caption += " * has fewer backbones than others in its column: it is not comparable with them, and never bold."
    if seen & set(means.index):
        caption += f" {TRANSDUCTIVE}, and is never bold."
    caption += said_left_out(len(means), every[0], "strategies", "with the highest mean")
    caption += said_left_out(means.shape[1], every[1], "datasets", "first by name")
    return Picture(title, drawn, caption, width)


def strips(rows: pd.DataFrame, name: str, title: str, first: Sequence[str] = ()) -> Picture | None:
    """Every run's test AUC by strategy, one panel a dataset, with the mean and its 95 % interval. Where there are more
    strategies than are drawn, those named `first` are, in that order, then those of the highest mean."""
    results = ok(rows)
    if results.empty:
        return None
    backbones = sorted(results["backbone"].unique())
    every = results.groupby("strategy")["test_auc"].mean().sort_values(kind="stable").index.tolist()
    wanted = list(dict.fromkeys([*(name for name in first if name in every), *reversed(every)]))[:STRATEGIES]
    # A mean over other backbones is no higher or lower than the others: it stands below them.
    blocks = results.groupby("strategy")[["dataset", "backbone"]].apply(lambda part: len(part.drop_duplicates()))
    fewer = set(blocks.index[blocks < blocks[wanted].max()])
    order = sorted((name for name in every if name in wanted), key=lambda name: name not in fewer)
    all_datasets = sorted(results["dataset"].unique())
    datasets = all_datasets[:DATASETS]
    results = results[results["strategy"].isin(order) & results["dataset"].isin(datasets)]
    seen = set(results.loc[saw_test(results), "strategy"])
    cells = results.groupby(["strategy", "dataset", "backbone"])["test_auc"].agg(["nunique", "size"])
    same = ((cells["nunique"] == 1) & (cells["size"] > 1)).groupby(level="strategy").all()
    equal = sorted(same.index[same])
    with style():
        figure, grid, width = panels(len(datasets), 0.55 + len(order) * (0.42 if len(order) <= 6 else 0.3), sharey=True)
        for axes, dataset in zip(grid, datasets, strict=True):
            part = results[results["dataset"] == dataset]
            _strip(axes, part, order, backbones)
            axes.set_yticks(range(len(order)), [_marked(name, seen) + "*" * (name in fewer) for name in order])
            axes.set_title(short(dataset))
        label(grid, "test AUC")
        if len(backbones) <= len(SERIES):
            legend(figure, dict(zip(backbones, SERIES, strict=False)), round_ones=True)
        best = "; ".join(
            f"{d}: " + ", ".join(f"{s} {auc:.3f}" for s, auc in part.groupby("strategy")["test_auc"].mean().items())
            for d, part in results.groupby("dataset")
        )
        drawn = svg(figure, name, title, f"One panel a dataset, one line a strategy. Mean test AUC: {best}.")
    caption = (
        f"Each dot is one run (n = {len(results):,}); the ring is the mean over backbones and the bar its 95 % "
        "interval over seeds. No bar: fewer than two seeds"
        + (f", or all seeds equal ({listed(equal)}: nothing is drawn at random)" if equal else "")
        + ". Each panel has its own scale."
    )
    if seen & set(order):
        caption += f" {TRANSDUCTIVE}."
    if fewer & set(order):
        caption += " * has results on fewer datasets and backbones: its mean is not comparable with the others."
    which = (
        "of the best mean rank"
        if set(wanted) <= set(first)
        else "of the best mean rank, or else with the highest mean,"
    )
    caption += said_left_out(len(order), len(every), "strategies", which)
    caption += said_left_out(len(datasets), len(all_datasets), "datasets", "first by name")
    return Picture(title, drawn, caption, width)


def _strip(axes: Axes, part: pd.DataFrame, order: Sequence[str], backbones: Sequence[str]) -> None:
    coloured = len(backbones) <= len(SERIES)
    for n, backbone in enumerate(backbones):
        runs = part[part["backbone"] == backbone]
        # Backbones are set apart vertically by a fixed step: random jitter would hide which is which.
        shift = (n - (len(backbones) - 1) / 2) * 0.4 / max(1, len(backbones))
        at = runs["strategy"].map(order.index).astype(float) + shift
        dots(axes, runs["test_auc"], at, SERIES[n] if coloured else SERIES[0], 3.6, alpha=0.8)
    blocks = part.groupby(["strategy", "backbone"])["test_auc"].agg(list)
    rows = [strategy for strategy in order if strategy in blocks.index]
    at = np.array([order.index(strategy) for strategy in rows]) + 0.33
    means, lows, highs = np.array([mean_interval(blocks[strategy].tolist()) for strategy in rows]).T
    axes.hlines(at, lows.clip(0, 1), highs.clip(0, 1), color=INK, linewidth=1.5)
    axes.scatter(means, at, s=18, facecolors="none", edgecolors=INK, linewidths=1)
    axes.set_ylim(-0.6, len(order) - 0.4)
    axes.tick_params(axis="y", length=0)
    axes.grid(True, axis="x")
    axes.locator_params(axis="x", nbins=4)


def _marked(name: str, seen: Collection[str]) -> str:
    return short(name) + " †" * (name in seen)


def readable_on(fill: np.ndarray) -> str:
    """Black or white, whichever has the higher WCAG contrast with an RGB(A) colour in 0..1."""
    linear = np.where(fill[:3] <= 0.04045, fill[:3] / 12.92, ((fill[:3] + 0.055) / 1.055) ** 2.4)
    return "#000000" if linear @ [0.2126, 0.7152, 0.0722] > 0.179 else "#ffffff"


def _annotations(axes: Axes) -> list[Text]:
    return [text for text in axes.texts if text.get_text()]
