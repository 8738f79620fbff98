"""The critical difference diagram of Demšar (2006)."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from markupsafe import Markup
from matplotlib.axes import Axes

from bench.report.leaderboard import Leaderboard
from bench.report.plots.canvas import INK, SERIES, SOFT, Picture, short, single, style, svg
from bench.report.significance import ALPHA, CriticalDifference, TooFew, critical_difference

WIDTH = 7.2
"""Inches."""


def differences(board: Leaderboard, name: str, title: str) -> Picture | TooFew:
    """Mean ranks of the strategies over datasets, joined where Nemenyi's test does not tell them apart; or why that
    cannot be drawn."""
    if board.matrix is None:
        return TooFew("No strategy is ranked.")
    found = critical_difference(board.matrix.labels, board.matrix.dataset_means.T)
    if isinstance(found, TooFew):
        return found
    test = found.friedman
    # Nemenyi's test follows upon Friedman's: where that one rejects nothing, all are one group.
    rejected = test.p < ALPHA
    joined = found.groups if rejected else ((0, test.entries - 1),)
    with style():
        drawn = _diagram(found, joined, rejected, name, title)
    p = "< .001" if test.p < 0.001 else f"= {test.p:.3f}"
    after = (
        f"Nemenyi's critical difference at the {ALPHA:g} level is {found.difference:.2f} ranks: a bar on the right "
        "joins those that it does not tell apart"
        if rejected
        else "it does not reject that all are alike, so no pair is told apart and one bar joins all"
    )
    caption = (
        f"Ranks of {test.entries} strategies by their mean test AUC in each of n = {test.datasets} datasets, "
        f"averaged over the datasets. Friedman's test over them gives p {p}; {after}. The sample is the "
        "datasets: the noise of seeds and test images is not in it."
    )
    return Picture(title, drawn, caption, WIDTH)


def lanes(joined: Sequence[tuple[int, int]]) -> list[int]:
    """The first free place beside each other for bars that overlap."""
    ends: list[int] = []
    chosen = []
    for first, last in joined:
        lane = next((n for n, end in enumerate(ends) if end < first), len(ends))
        ends[lane : lane + 1] = [last]
        chosen.append(lane)
    return chosen


def _diagram(
    found: CriticalDifference, joined: Sequence[tuple[int, int]], rejected: bool, name: str, title: str
) -> Markup:
    ranks, difference, k = np.array(found.mean_ranks), found.difference, len(found.labels)
    figure, axes = single(WIDTH, 1.3 + 0.23 * k)
    rows = np.arange(k)
    axes.hlines(rows, 1, ranks, color=SOFT, linewidth=0.5)
    axes.scatter(ranks, rows, s=30, color=SERIES[0], linewidths=0, zorder=3)
    for row, rank in enumerate(found.mean_ranks):
        _beside(axes, f"{rank:.2f}", rank, row)
    for lane, (first, last) in zip(lanes(joined), joined, strict=True):
        axes.plot(
            [1.04 + 0.022 * lane] * 2, [first - 0.3, last + 0.3], color=INK, linewidth=3.5, clip_on=False,
            solid_capstyle="butt", transform=axes.get_yaxis_transform(),
        )  # fmt: skip
    axes.set_yticks(rows, [short(label) for label in found.labels])
    axes.tick_params(axis="y", length=0)
    most = max(ranks[-1], 1 + difference if rejected else 1)
    axes.set(xlabel="mean rank over datasets (1 is best)", xlim=(1, most + 0.08 * (most - 1)))
    axes.set_ylim(k - 0.4, -1.6 if rejected else -0.6)
    if rejected:
        axes.plot([1, 1 + difference], [-1.05, -1.05], color=INK, linewidth=1.2, marker="|", clip_on=False)
        _beside(axes, f"critical difference {difference:.2f}", 1 + difference, -1.05)
    axes.grid(True, axis="x")
    words = ", ".join(f"{label} {rank:.2f}" for label, rank in zip(found.labels, ranks, strict=True))
    bars = "; ".join(f"{found.labels[first]} to {found.labels[last]}" for first, last in joined) or "none"
    return svg(figure, name, title, f"Mean ranks, best first: {words}. Not told apart: {bars}.")


def _beside(axes: Axes, text: str, x: float, y: float) -> None:
    axes.annotate(text, (x, y), xytext=(7, 0), textcoords="offset points", va="center", fontsize=8)
