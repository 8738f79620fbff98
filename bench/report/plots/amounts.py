"""Test AUC against the amount of training data, and where one strategy overtakes another."""

from __future__ import annotations

import itertools
from collections.abc import Mapping

import numpy as np
import pandas as pd

from bench.report.budgets import along
from bench.report.frames import ok
from bench.report.intervals import mean_interval
from bench.report.plots.canvas import (
    INK,
    Picture,
    count,
    label,
    legend,
    listed,
    log_axis,
    marker,
    panels,
    short,
    style,
    svg,
)
from bench.report.plots.choice import complete, said_left_out

DATASETS = 15


def several(rows: pd.DataFrame) -> tuple[set[str], set[str]]:
    """Of rows of one size, the strategies with a result for every amount of training images that a dataset of several
    has, and those that have only some of a dataset's, but more than one: a line through these would hide a gap."""
    results = ok(rows).dropna(subset=["n_train"])
    every = results.groupby("dataset")["n_train"].nunique()
    own = results.groupby(["dataset", "strategy"])["n_train"].nunique()
    own = own[own > 1]
    whole = own == own.index.get_level_values("dataset").map(every)
    full = set(own.index[whole].get_level_values("strategy"))
    return full, set(own.index.get_level_values("strategy")) - full


def crossings(x: np.ndarray, one: np.ndarray, other: np.ndarray) -> np.ndarray:
    """Where, between ascending x [N], two lines through the same x cross; not where they meet at one of these."""
    gap = np.asarray(one, dtype=float) - np.asarray(other, dtype=float)
    left = np.flatnonzero(gap[:-1] * gap[1:] < 0)
    return x[left] + gap[left] / (gap[left] - gap[left + 1]) * (x[left + 1] - x[left])


def takeovers(x: np.ndarray, lines: Mapping[str, np.ndarray]) -> list[tuple[float, float, str, str]]:
    """(x, y, before, after) wherever another of the lines becomes the highest, by x. Of lines level with each other the
    one that led before leads."""
    names = sorted(lines)
    between = [crossings(x, lines[one], lines[other]) for one, other in itertools.combinations(names, 2)]
    places = np.unique(np.concatenate([x, *between]))
    found: list[tuple[float, float, str, str]] = []
    leader = ""
    for left, right in itertools.pairwise(places):
        heights = {name: float(np.interp((left + right) / 2, x, lines[name])) for name in names}
        highest = max(heights.values())
        if leader and heights[leader] >= highest - 1e-12:
            continue
        before, leader = leader, max(names, key=lambda name: heights[name])
        if before:
            found.append((float(left), float(np.interp(left, x, lines[leader])), before, leader))
    return found


def efficiency(rows: pd.DataFrame, colours: Mapping[str, str], name: str, title: str) -> Picture | None:
    """Mean test AUC against training images in rows of one size, one panel a dataset that has several amounts. Lines
    are those strategies that have a colour, and results for every amount of the dataset (see `several`)."""
    full, some = several(rows)
    results = _one_draw(ok(rows).dropna(subset=["n_train"]))
    amounts = results.groupby("dataset")["n_train"].nunique()
    results = results[results["strategy"].isin(list(colours))]
    own = results.groupby(["dataset", "strategy"])["n_train"].transform("nunique")
    results = results[own == results["dataset"].map(amounts)]
    results = complete(results, ["dataset", "backbone"], ["strategy", "n_train"])
    amounts = results.groupby("dataset")["n_train"].nunique()
    every = sorted(amounts.index[amounts > 1])
    datasets = every[:DATASETS]
    results = results[results["dataset"].isin(datasets)]
    if results.empty:
        return None
    words, leaders = [], []
    with style():
        figure, grid, width = panels(len(datasets), 2.4)
        for axes, dataset in zip(grid, datasets, strict=True):
            part = results[results["dataset"] == dataset]
            images = np.sort(part["n_train"].unique().astype(float))
            lines = {}
            for strategy, runs in part.groupby("strategy"):
                blocks = [runs[runs["n_train"] == n].groupby("backbone")["test_auc"].agg(list).tolist() for n in images]
                mean, low, high = np.array([mean_interval(block) for block in blocks]).T
                colour = colours[str(strategy)]
                axes.plot(images, mean, color=colour, linewidth=1.5, marker=marker(colour),
                          markersize=4.5, markeredgewidth=0)  # fmt: skip
                axes.vlines(images, low.clip(0, 1), high.clip(0, 1), color=colour, linewidth=1)
                lines[str(strategy)] = mean
            log_axis(axes, images, 1.6)
            for at, height, before, after in takeovers(np.log10(images), lines):
                axes.plot(10**at, height, marker="o", markersize=10, color=INK, markerfacecolor="none",
                          markeredgewidth=1.2, zorder=5)  # fmt: skip
                words.append(f"{dataset}: {after} overtakes {before} at about {_round(10**at)} images")
            first = max(lines, key=lambda strategy: lines[strategy][-1])
            leaders.append(f"{dataset}: {first} {lines[first][-1]:.3f}")
            axes.set_title(short(dataset))
            axes.grid(True)
            axes.locator_params(axis="y", nbins=4)
        label(grid, "training images (log scale)", "mean test AUC")
        drawn = sorted(results["strategy"].unique())
        legend(figure, {strategy: colours[strategy] for strategy in drawn}, lines=True, single=True)
        text = f"One panel a dataset. Highest with the most images: {'; '.join(leaders)}."
        text += f" The lead changes: {'; '.join(words)}." if words else " The lead changes nowhere."
        image = svg(figure, name, title, text)
    whose = "all drawn strategies have" if len(drawn) > 1 else f"{drawn[0]} has"
    caption = (
        f"Means over {count(results['backbone'].nunique(), 'backbone')} on which {whose} results "
        f"with every amount of their dataset, n = {count(len(results), 'run')}; bars are 95 % intervals over seeds. "
        "A ring marks where the highest mean changes, on straight lines between the amounts that were run"
        + (f": {'; '.join(words[:6])}{' and others' if len(words) > 6 else ''}." if words else "; there is none.")
        + " Where bars overlap, a ring may be chance."
    )
    both = results.assign(a_class=results["per_class"].notna()).groupby("dataset")["a_class"].nunique() > 1
    if both.any():
        caption += " Amounts of so many images a class are balanced; fractions, and all images, are as the dataset is."
    if budgets := along(results):
        caption += f" More images is not all that differs along a line: {budgets}."
    caption += said_left_out(len(drawn), len(full), "strategies with several amounts", "of the best mean rank")
    if alone := set(ok(rows)["strategy"]) - full - some:
        caption += f" Without a line, for they were run with one amount of a dataset: {listed(sorted(alone))}."
    if some:
        caption += f" Without a line, for they were run with some of the amounts only: {listed(sorted(some))}."
    return Picture(title, image, caption + said_left_out(len(datasets), len(every), "datasets", "first by name"), width)


def _one_draw(results: pd.DataFrame) -> pd.DataFrame:
    """Of amounts that come to the same number of images in a cell, such as all and more a class than there are, one, a
    fraction before images a class: runs of the same images would count twice, as if they were more seeds."""
    cell, amount = ["dataset", "backbone", "strategy", "n_train"], ["fraction", "per_class"]
    ordered = results.sort_values(["per_class", "fraction"], na_position="first", kind="stable")
    return results.merge(ordered.drop_duplicates(cell)[[*cell, *amount]], on=[*cell, *amount])


def _round(images: float) -> str:
    """Two digits: a crossing is known no better."""
    return f"{int(float(f'{images:.2g}')):,}"
