"""Pairs of networks: how often they decide differently, and how much their errors go together."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import seaborn as sns
from matplotlib.axes import Axes

from bench.report.plots.canvas import FULL, Picture, count, panels, short, style, svg
from bench.report.plots.choice import said_left_out
from bench.report.plots.scores import readable_on
from bench.report.written import fixed

if TYPE_CHECKING:
    from bench.report.diversity import Diversity


def agreement(found: Diversity, name: str, title: str) -> Picture:
    """Two triangles of pairs, networks in rows and the same ones, by their numbers, in columns."""
    m = len(found.labels)
    numbered = [f"{short(label, 30)}  {n}" for n, label in enumerate(found.labels, 1)]
    with style():
        figure, (left, right), _ = panels(2, 0.75 + 0.3 * m, most=2)
        _triangle(
            left, found.disagreement, 0.0, max(0.1, float(np.nanmax(found.disagreement))), "Disagreement", "crest"
        )
        _triangle(right, found.correlation, 0.0, 1.0, "Error correlation", "flare")
        left.set_yticks(np.arange(m) + 0.5, numbered)
        pairs = [(i, j) for i in range(m) for j in range(i)]
        words = "; ".join(
            f"{found.labels[j]} and {found.labels[i]} {fixed(found.disagreement[i, j], 2)} and "
            f"{fixed(found.correlation[i, j], 2)}"
            for i, j in pairs
        )
        drawn = svg(figure, name, title, f"Disagreement and error correlation of each pair: {words}.")
    per = "labels of the test images" if found.kind == "multi-label" else "test images"
    caption = (
        f"Left, the share of {per} on which two networks decide differently; right, the phi coefficient of being "
        "wrong: 1 where both err on the same ones, 0 where independently; empty where one is always right or always "
        f"wrong. n = {found.images:,} test images, means over {count(found.seeds, 'seed')}; the squares have no "
        "intervals. Networks are members of ensembles, the highest val AUC first."
    )
    return Picture(title, drawn, caption + said_left_out(m, found.of, "networks", "with the highest val AUC"), FULL)


def _triangle(axes: Axes, values: np.ndarray, low: float, high: float, title: str, colours: str) -> None:
    m = len(values)
    hidden = ~np.tri(m, k=-1, dtype=bool)
    sns.heatmap(
        values, mask=hidden | np.isnan(values), ax=axes, cmap=colours, vmin=low, vmax=high, cbar=False,
        annot=True, fmt=".2f", annot_kws={"size": 8}, linewidths=1.5, linecolor="none",
    )  # fmt: skip
    fills = np.asarray(axes.collections[0].get_facecolor())
    shown = ~(hidden | np.isnan(values)).ravel()
    for text, fill in zip([text for text in axes.texts if text.get_text()], fills[shown], strict=True):
        text.set(color=readable_on(fill), text=text.get_text().replace("0.", ".").replace("-", "−"))
    ticks = np.arange(m) + 0.5
    axes.set_xticks(ticks[:-1], [str(n) for n in range(1, m)], rotation=0)
    axes.set_yticks(ticks, [str(n) for n in range(1, m + 1)], rotation=0)
    axes.tick_params(length=0)
    axes.set(xlabel="", ylabel="")
    axes.set_title(title)
