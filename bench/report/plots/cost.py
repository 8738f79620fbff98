"""What a score costs."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from bench.report.leaderboard import Leaderboard
from bench.report.plots.canvas import (
    FULL,
    INK,
    SERIES,
    SOFT,
    Picture,
    count,
    dots,
    legend,
    log_axis,
    marker,
    short,
    single,
    style,
    svg,
)
from bench.report.plots.choice import colours
from bench.report.stands import settings

BARS = 40
"""Most points that all get an interval; where there are more, those on the front do."""


def cost(board: Leaderboard, name: str, title: str, hues: Mapping[str, str] | None = None) -> Picture | None:
    """Seconds to tune and fit one model against mean test AUC, for strategy x backbone, with the Pareto front. `hues`
    are the strategies' colours on the page; without them those of the best pairs have one."""
    points = board.ranked.dropna(subset=["seconds", "auc"])
    points = points[points["seconds"] > 0]
    if points.empty:
        return None
    front = pareto(points["seconds"].to_numpy(), points["auc"].to_numpy())
    line = points[front].sort_values(["seconds", "auc", "label"], ascending=[True, False, True])
    strategies = points["strategy"].unique()
    hues = hues or colours(list(dict.fromkeys(points["strategy"]))[: len(SERIES)])
    hues = {strategy: hue for strategy, hue in hues.items() if strategy in set(strategies)}
    with style():
        figure, axes = single(FULL, max(3.8, 1.4 + 0.22 * len(line)))
        for strategy, part in points.groupby("strategy"):
            hue = hues.get(str(strategy), SOFT)
            barred = part if len(points) <= BARS else part[part.index.isin(line.index)]
            axes.errorbar(
                barred["seconds"], barred["auc"], fmt="none", ecolor=hue, elinewidth=1,
                yerr=np.abs(barred[["auc_lo", "auc_hi"]].to_numpy().T - barred["auc"].to_numpy()),
            )  # fmt: skip
            if strategy in hues:
                axes.scatter(part["seconds"], part["auc"], s=34, color=hue, linewidths=0, zorder=3, marker=marker(hue))
            else:
                dots(axes, part["seconds"], part["auc"], hue, 3.4)
        axes.step(line["seconds"], line["auc"], where="post", color=INK, linewidth=1, linestyle=(0, (4, 3)), zorder=1)
        log_axis(axes, points["seconds"], 3)
        axes.margins(x=0.05, y=0.1)
        _name_front(figure, axes, line)
        axes.set(xlabel="seconds to tune and fit one model (log scale)", ylabel="mean test AUC")
        axes.grid(True)
        rest = {"other strategies": SOFT} if len(strategies) > len(hues) else {}
        legend(figure, {**hues, **rest})
        words = ", ".join(f"{r.label} {r.seconds:.3g} s {r.auc:.3f}" for r in line.itertuples())
        drawn = svg(figure, name, title, f"On the Pareto front, cheapest first: {words}.")
    which = "bars" if len(points) <= BARS else "bars, drawn on the front only,"
    hidden = int((board.table["runs"] > 0).sum()) - len(points)
    caption = (
        f"Mean over the {count(board.blocks_used, 'block')} on {count(len(board.datasets), 'dataset')} where all have "
        f"results ({settings(board.used)}), n = {count(len(points), 'pair')} of strategy and backbone; {which} are "
        "95 % intervals over seeds. The dashed line joins those that nothing cheaper beats; they are named on the "
        "right."
    )
    if hidden:
        caption += f" Not drawn, and so not among them: {count(hidden, 'pair')} that cannot be compared there."
    return Picture(title, drawn, caption, FULL)


def pareto(costs: np.ndarray, scores: np.ndarray) -> np.ndarray:
    """bool [N]: True where no other point is at least as cheap and at least as good, and better in one of the two."""
    cheaper = costs[:, None] <= costs[None]
    better = scores[:, None] >= scores[None]
    strictly = (costs[:, None] < costs[None]) | (scores[:, None] > scores[None])
    return np.asarray(~(cheaper & better & strictly).any(axis=0))


def spread(places: np.ndarray, gap: float, low: float, high: float) -> np.ndarray:
    """Ascending places [N] moved apart to at least `gap`, as near to where they were as a sweep gets them, within
    low..high where there is room."""
    moved = np.array(places, dtype=float)
    gap = min(gap, (high - low) / max(1, len(moved) - 1))
    for i in range(len(moved)):
        moved[i] = max(moved[i], low if i == 0 else moved[i - 1] + gap)
    for i in range(len(moved) - 1, -1, -1):
        moved[i] = min(moved[i], high if i == len(moved) - 1 else moved[i + 1] - gap)
    return moved


def _name_front(figure: Figure, axes: Axes, line: pd.DataFrame) -> None:
    """The front's names in a column on the right. They stand in the order of their AUC, so the leaders do not
    cross."""
    low, high = axes.get_ylim()
    inches = figure.get_size_inches()[1] - 1.2
    heights = spread((line["auc"].to_numpy() - low) / (high - low), 0.17 / inches, 0.02, 0.98)
    for name, seconds, auc, height in zip(line["label"], line["seconds"], line["auc"], heights, strict=True):
        axes.annotate(
            short(name, 44), (seconds, auc), xytext=(1.02, height), textcoords="axes fraction", fontsize=8,
            va="center", annotation_clip=False, zorder=0.5,
            arrowprops={"arrowstyle": "-", "color": SOFT, "linewidth": 0.5, "shrinkA": 1, "shrinkB": 3},
        )  # fmt: skip
