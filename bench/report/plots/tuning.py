"""What tuning gave: every trial by its learning rate, and what a number of trials is worth."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import pandas as pd
from matplotlib.figure import Figure
from matplotlib.lines import Line2D

from bench.report.frames import ok
from bench.report.plots.canvas import (
    INK,
    SERIES,
    SOFT,
    Picture,
    count,
    dots,
    label,
    legend,
    log_axis,
    marker,
    panels,
    short,
    style,
    svg,
)
from bench.report.plots.choice import complete, said_left_out

DATASETS = 15
CHANCE = 0.5
"""What a diverged trial counts as."""


def of_cells(trials: pd.DataFrame, rows: pd.DataFrame) -> pd.DataFrame:
    """Trials with the dataset, backbone and strategy of the rows that have a result, `lr` (NaN where there is none)
    and `behind`: val AUC below the best complete trial of the cell."""
    cells = ok(rows).drop_duplicates("fingerprint")[["fingerprint", "dataset", "backbone", "strategy"]]
    found = trials.merge(cells, on="fingerprint")
    found["lr"] = [_rate(hparams) for hparams in found["hparams"]]
    found["val_auc"] = pd.to_numeric(found["val_auc"], errors="coerce")
    best = found[found["state"] == "complete"].groupby("fingerprint")["val_auc"].max()
    found["behind"] = found["fingerprint"].map(best).astype(float) - found["val_auc"]
    return found


def with_rates(trials: pd.DataFrame, order: Sequence[str]) -> list[str]:
    """Those of the strategies in `order` whose trials (of `of_cells`) had different learning rates."""
    rates = trials[trials["lr"] > 0].groupby("strategy")["lr"].nunique()
    return [strategy for strategy in order if rates.get(strategy, 0) > 1]


def learning_rates(trials: pd.DataFrame, strategies: Sequence[str], name: str, title: str) -> Picture | None:
    """Every trial (of `of_cells`): learning rate against val AUC below the cell's best, one panel a strategy."""
    if not strategies:
        return None
    tried = trials[(trials["lr"] > 0) & trials["strategy"].isin(list(strategies))]
    complete_ones = tried[tried["state"] == "complete"]
    floor = max(0.04, min(0.3, float(complete_ones["behind"].quantile(0.95)) * 1.1)) if len(complete_ones) else 0.1
    best = {}
    with style():
        figure, grid, width = panels(len(strategies), 1.75, 4, sharex=True, sharey=True)
        for axes, strategy in zip(grid, strategies, strict=True):
            part = tried[tried["strategy"] == strategy]
            done, pruned = part[part["state"] == "complete"], part[part["state"] == "pruned"]
            other = part[~part["state"].isin(["complete", "pruned"]) | part["behind"].isna()]
            off = part[part["behind"] > floor]
            dots(axes, *_inside(pruned, floor), SOFT, 2.4, alpha=0.7)
            dots(axes, *_inside(done, floor), SERIES[0], 3.4, alpha=0.75, zorder=3)
            lost = pd.concat([off, other]).drop_duplicates(["fingerprint", "number"])
            axes.scatter(
                lost["lr"], np.full(len(lost), -floor), marker="v", s=12, color=SERIES[1], linewidths=0, clip_on=False
            )
            middle = _medians(done)
            axes.plot(middle.index, -middle.clip(upper=floor), color=INK, linewidth=1.5, zorder=4)
            if len(middle):
                best[strategy] = f"{middle.idxmin():.2g}"
            axes.set_title(short(strategy))
            axes.grid(True)
        log_axis(grid[0], tried["lr"], 1)
        grid[0].set_ylim(-floor * 1.04, floor * 0.06)
        grid[0].locator_params(axis="y", nbins=4)
        label(grid, "learning rate (log scale)", "val AUC − cell's best")
        _trial_legend(figure)
        words = ", ".join(f"{strategy} {rate}" for strategy, rate in best.items())
        text = f"One panel a strategy. Learning rates around which trials were best in the median: {words}."
        drawn = svg(figure, name, title, text)
    states = ", ".join(f"{n:,} {state}" for state, n in tried["state"].value_counts().sort_index().items())
    cells = count(tried["fingerprint"].nunique(), "cell")
    caption = (
        f"Every trial that has a learning rate, n = {len(tried):,} ({states}) in {cells} of all datasets and "
        "backbones. 0 is the best complete trial of the same cell. The line is the median of the complete trials in "
        "each half decade with three or more; it has no interval, since tuning chose where to try. Pruned trials "
        "stand where they were when they were stopped."
    )
    return Picture(title, drawn, caption, width)


def expected_best(scores: Sequence[float]) -> np.ndarray:
    """Expected maximum of 1..B of these B scores, drawn without replacement: float64 [B].

    The question is Dodge et al.'s ("Show your work", EMNLP 2019), whose formula draws with replacement and is biased
    low. This is the unbiased estimate of Tang et al. ("Showing your work doesn't always work", ACL 2020): the sum over
    the ascending scores x_i of x_i C(i-1, n-1) / C(B, n).
    """
    ordered = sorted(scores)
    b = len(ordered)
    return np.array(
        [math.fsum(x * math.comb(i, n - 1) for i, x in enumerate(ordered)) / math.comb(b, n) for n in range(1, b + 1)]
    )


def worth_of_trials(trials: pd.DataFrame, colours: Mapping[str, str], name: str, title: str) -> Picture | None:
    """Expected best val AUC against the number of trials, one panel a dataset: means over the backbones (of one size
    and amount of data) on which all drawn strategies were tuned."""
    tried = trials[trials["strategy"].isin(list(colours)) & trials["state"].isin(["complete", "pruned", "diverged"])]
    tried = complete(tried, ["dataset", "backbone"], ["strategy"])
    tried = tried.assign(val_auc=tried["val_auc"].where(tried["state"] != "diverged", CHANCE)).dropna(
        subset=["val_auc"]
    )
    lists = tried.groupby(["dataset", "strategy", "backbone"])["val_auc"].agg(list)
    lists = lists[lists.map(len) > 1]
    if lists.empty:
        return None
    datasets = list(lists.index.unique("dataset"))[:DATASETS]
    most = int(lists.map(len).max())
    last: dict[str, list[str]] = {}
    with style():
        figure, grid, width = panels(len(datasets), 2.2, sharex=True)
        for axes, dataset in zip(grid, datasets, strict=True):
            ends = {}
            for strategy, cells in lists[dataset].groupby("strategy"):
                length = int(cells.map(len).min())
                curve = np.mean([expected_best(scores)[:length] for scores in cells], axis=0)
                colour = colours[strategy]
                mark = marker(colour) if length <= 12 else ""
                axes.plot(
                    range(1, length + 1), curve, color=colour, linewidth=1.5, marker=mark, markersize=4.5,
                    markeredgewidth=0,
                )  # fmt: skip
                ends[strategy] = float(curve[-1])
            first = max(ends, key=lambda strategy: ends[strategy])
            last[dataset] = [first, f"{ends[first]:.3f}"]
            axes.set_title(short(dataset))
            axes.grid(True)
            axes.locator_params(axis="y", nbins=4)
        grid[0].set_xticks(_whole(most))
        label(grid, "trials", "expected best val AUC")
        legend(figure, {strategy: colours[strategy] for strategy in sorted(lists.index.unique("strategy"))}, lines=True)
        words = "; ".join(f"{dataset}: {' '.join(end)}" for dataset, end in last.items())
        drawn = svg(figure, name, title, f"One panel a dataset. Highest with all trials: {words}.")
    n = len(lists)
    caption = (
        f"What the best of so many trials is expected to reach on validation, were the trials that were run (n = "
        f"{int(lists.map(len).sum()):,} in {count(n, 'cell')}) drawn in random order, each once: the expected "
        "maximum without replacement (Tang et al. 2020, after Dodge et al. 2019). Means over backbones; no "
        "intervals. The trials are no random sample: the first is the strategy's default and later ones follow on "
        "what went before. A pruned trial counts with what it had reached, a diverged one with .5."
    )
    return Picture(
        title,
        drawn,
        caption + said_left_out(len(datasets), lists.index.unique("dataset").size, "datasets", "first by name"),
        width,
    )


def _rate(hparams: Any) -> float:
    value = hparams.get("lr") if isinstance(hparams, dict) else None
    return float(value) if isinstance(value, int | float) and not isinstance(value, bool) else math.nan


def _inside(part: pd.DataFrame, floor: float) -> tuple[pd.Series, pd.Series]:
    kept = part[part["behind"] <= floor]
    return kept["lr"], -kept["behind"].clip(lower=0)  # a pruned trial may have stood higher than any complete one


def _medians(done: pd.DataFrame) -> pd.Series:
    """Median distance from the best, by learning rate (the geometric mean) of half decades with at least three
    trials."""
    log = np.log10(done["lr"].astype(float))
    bins = pd.DataFrame({"log": log, "behind": done["behind"].astype(float)}).groupby(np.floor(log * 2))
    kept = bins.size() >= 3
    return pd.Series(bins["behind"].median()[kept].to_numpy(), index=10 ** bins["log"].mean()[kept].to_numpy())


def _trial_legend(figure: Figure) -> None:
    looks: dict[str, Any] = {
        "complete": {"color": SERIES[0], "marker": "o", "markersize": 4.5},
        "pruned": {"color": SOFT, "marker": "o", "markersize": 3.5},
        "diverged, or further below": {"color": SERIES[1], "marker": "v", "markersize": 4.5},
    }
    handles = [Line2D([], [], linewidth=0, markeredgewidth=0, label=label, **look) for label, look in looks.items()]
    handles.append(Line2D([], [], color=INK, linewidth=1.5, label="median of complete"))
    figure.legend(handles=handles, loc="outside lower left", ncols=4, frameon=False, handletextpad=0.4)


def _whole(most: int) -> list[int]:
    step = next(s for s in (1, 2, 5, 10, 20, 50, 100, 200, 500, 10**9) if most / s <= 6)
    return sorted({1, *range(step, most + 1, step)})
