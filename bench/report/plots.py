"""Figures as deterministic SVG for inlining: the same rows give the same bytes.

Text and lines are drawn in marker colours that are then replaced by CSS (`currentColor`, `var(--series-1)`), so a
figure follows the page into dark mode. Each has role="img", a title and a description in words.
"""

from __future__ import annotations

import io
import re
import warnings
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import matplotlib as mpl
import numpy as np
import pandas as pd
import seaborn as sns
from markupsafe import Markup, escape
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.ticker import LogLocator, NullLocator

from bench.report import stats
from bench.report.frames import ok
from bench.report.leaderboard import Leaderboard

INK, RULE = "#010101", "#020202"
SERIES = [f"#0{n}0{n}0{n}" for n in range(3, 9)]
_CSS = {INK: "currentColor", RULE: "var(--rule)"} | {c: f"var(--series-{n})" for n, c in enumerate(SERIES, 1)}
_STYLE: Any = {
    "svg.hashsalt": "medtransfer",
    "svg.fonttype": "none",
    "text.parse_math": False,  # a dataset may have a "$" in its name
    "font.family": "DejaVu Sans",  # measured with it, drawn in the page's own font
    "font.size": 9,
    **dict.fromkeys(("text.color", "axes.labelcolor", "xtick.labelcolor", "ytick.labelcolor"), INK),
    **dict.fromkeys(("axes.edgecolor", "xtick.color", "ytick.color", "grid.color"), RULE),
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.titlesize": 9,
    "axes.titleweight": "bold",
    "axes.titlelocation": "left",
}


@dataclass(frozen=True)
class Picture:
    """One figure, ready for a page."""

    title: str
    svg: Markup
    caption: str
    width: float
    """Inches."""


def heatmap(rows: pd.DataFrame, name: str, title: str) -> Picture | None:
    """Mean test AUC of strategies x datasets in rows of one size and amount of data; None where no row has a result."""
    results = ok(rows)
    if results.empty:
        return None
    # Backbones count alike within a square, whatever number of seeds they have.
    per_backbone = results.groupby(["strategy", "dataset", "backbone"])["test_auc"].mean()
    means = per_backbone.groupby(["strategy", "dataset"]).mean().unstack()
    counts = per_backbone.groupby(["strategy", "dataset"]).size().unstack().reindex_like(means)
    means = means.loc[means.mean(axis=1).sort_values(ascending=False, kind="stable").index]
    counts = counts.loc[means.index]
    fewer = counts < counts.max()
    best = means.where(~fewer).rank(ascending=False, method="min") == 1
    text = means.map(lambda auc: "" if np.isnan(auc) else f"{auc:.3f}") + fewer.map(lambda f: "*" if f else "").where(
        means.notna(), ""
    )
    width = 2.4 + (1.05 if means.shape[1] <= 4 else 0.72) * means.shape[1]
    low = float(np.floor(np.nanmin(means.to_numpy()) * 20) / 20)
    with mpl.rc_context(_STYLE), warnings.catch_warnings():
        figure, axes = _figure(width, 1.0 + 0.34 * len(means))
        sns.heatmap(
            means, ax=axes, annot=text.to_numpy(), fmt="", cmap="crest", vmin=low, vmax=1.0, cbar=False,
            linewidths=2, linecolor="none", annot_kws={"size": 9},
            xticklabels=[_short(name) for name in means.columns], yticklabels=[_short(name) for name in means.index],
        )  # fmt: skip
        shown = means.notna().to_numpy()
        fills = axes.collections[0].get_facecolors()
        for label, strong, fill in zip(_annotations(axes), best.to_numpy()[shown], fills[shown.ravel()], strict=True):
            label.set(fontweight="bold" if strong else "normal", color=_readable_on(fill))
        axes.set(xlabel="", ylabel="")
        axes.tick_params(length=0)
        axes.tick_params(axis="x", labelrotation=30 if means.shape[1] > 4 else 0, top=False)
        axes.tick_params(axis="y", labelrotation=0)
        for label in axes.get_xticklabels():
            label.set_horizontalalignment("right" if means.shape[1] > 4 else "center")
        leaders = "; ".join(f"{d}: {means[d].idxmax()} {means[d].max():.3f}" for d in means.columns)
        svg = _svg(figure, name, title, f"Strategies in rows, datasets in columns. Highest mean test AUC: {leaders}.")
    caption = (
        f"Mean test AUC over {_count(results['backbone'].nunique(), 'backbone')} and their seeds, n = {len(results)} "
        "runs. "
        "Darker is higher; bold is the highest of its column; an empty square has no result."
    )
    if fewer.to_numpy()[means.notna().to_numpy()].any():
        caption += " * has fewer backbones than others in its column: it is not comparable with them, and never bold."
    return Picture(title, svg, caption, width)


def strips(rows: pd.DataFrame, name: str, title: str) -> Picture | None:
    """Every run's test AUC by strategy, one panel a dataset, with the mean and its 95 % interval."""
    results = ok(rows)
    if results.empty:
        return None
    backbones = sorted(results["backbone"].unique())
    order = results.groupby("strategy")["test_auc"].mean().sort_values(kind="stable").index.tolist()
    datasets = sorted(results["dataset"].unique())
    across = min(3, len(datasets))
    down = -(-len(datasets) // across)
    width, height = 1.6 + 2.9 * across, down * (0.75 + max(2, len(order)) * 0.36) + 0.45
    with mpl.rc_context(_STYLE), warnings.catch_warnings():
        figure, grid = _figure(width, height, down, across, sharey=True)
        for axes, dataset in zip(grid.flat, datasets, strict=False):
            part = results[results["dataset"] == dataset]
            _strip(axes, part, order, backbones)
            axes.set_title(_short(dataset))
            axes.set_xlabel("test AUC")
        for axes in grid.flat[len(datasets) :]:
            axes.set_visible(False)
        if 1 < len(backbones) <= len(SERIES):
            handles, labels = grid.flat[0].get_legend_handles_labels()
            figure.legend(handles, labels, loc="outside lower left", ncols=4, frameon=False, handletextpad=0.2)
        best = "; ".join(
            f"{d}: " + ", ".join(f"{s} {auc:.3f}" for s, auc in part.groupby("strategy")["test_auc"].mean().items())
            for d, part in results.groupby("dataset")
        )
        svg = _svg(figure, name, title, f"One panel a dataset, one line a strategy. Mean test AUC: {best}.")
    caption = (
        f"Each dot is one run (n = {len(results)}); the ring is the mean over backbones and the bar its 95 % interval "
        "from a bootstrap over seeds within each backbone. No bar: fewer than two seeds. Each panel has its own scale."
    )
    return Picture(title, svg, caption, width)


def cost(board: Leaderboard, name: str, title: str) -> Picture | None:
    """Seconds to tune and fit one model against mean test AUC, for strategy x backbone, with the Pareto front."""
    points = board.ranked.dropna(subset=["seconds", "auc"])
    points = points[points["seconds"] > 0]
    if points.empty:
        return None
    front = pareto(points["seconds"].to_numpy(), points["auc"].to_numpy())
    strategies = sorted(points["strategy"].unique())
    with mpl.rc_context(_STYLE), warnings.catch_warnings():
        figure, axes = _figure(8.6, 4.2)
        for n, strategy in enumerate(strategies):
            part = points[points["strategy"] == strategy]
            few = len(strategies) <= len(SERIES)
            colour = SERIES[n] if few else SERIES[0]
            axes.errorbar(
                part["seconds"], part["auc"], fmt="none", ecolor=colour, elinewidth=1,
                yerr=np.abs(part[["auc_lo", "auc_hi"]].to_numpy().T - part["auc"].to_numpy()),
            )  # fmt: skip
            axes.scatter(
                part["seconds"], part["auc"], s=34, color=colour, linewidths=0, zorder=3,
                marker="osD^vP"[n] if few else "o", label=_short(strategy) if few else None,
            )  # fmt: skip
        line = points[front].sort_values("seconds")
        axes.step(line["seconds"], line["auc"], where="post", color=INK, linewidth=1, linestyle=(0, (4, 3)), zorder=1)
        for label, seconds, auc in zip(line["label"], line["seconds"], line["auc"], strict=True):
            axes.annotate(_short(label, 40), (seconds, auc), xytext=(7, 6), textcoords="offset points", fontsize=8)
        axes.set_xscale("log")
        axes.xaxis.set_major_locator(LogLocator(subs=(1, 2, 5)))
        axes.xaxis.set_major_formatter(lambda value, _: f"{value:g}")
        axes.xaxis.set_minor_locator(NullLocator())
        axes.margins(x=0.16, y=0.12)
        axes.set(xlabel="seconds to tune and fit one model (log scale)", ylabel="mean test AUC")
        axes.grid(True, which="major", linewidth=0.5)
        axes.set_axisbelow(True)
        if 1 < len(strategies) <= len(SERIES):
            figure.legend(loc="outside lower left", ncols=4, frameon=False, handletextpad=0.2)
        words = ", ".join(f"{r.label} {r.seconds:.3g} s {r.auc:.3f}" for r in line.itertuples())
        svg = _svg(figure, name, title, f"On the Pareto front, cheapest first: {words}.")
    caption = (
        f"Mean over the {_count(board.blocks_used, 'block')} on {_count(len(board.datasets), 'dataset')} where all of "
        f"the n = {len(points)} pairs of strategy and backbone have results; bars are 95 % intervals over seeds. The "
        "dashed line joins those that nothing cheaper beats."
    )
    return Picture(title, svg, caption, 8.6)


def pareto(costs: np.ndarray, scores: np.ndarray) -> np.ndarray:
    """bool [N]: True where no other point is at least as cheap and at least as good, and better in one of the two."""
    cheaper = costs[:, None] <= costs[None]
    better = scores[:, None] >= scores[None]
    strictly = (costs[:, None] < costs[None]) | (scores[:, None] > scores[None])
    return np.asarray(~(cheaper & better & strictly).any(axis=0))


def _strip(axes: mpl.axes.Axes, part: pd.DataFrame, order: Sequence[str], backbones: Sequence[str]) -> None:
    coloured = len(backbones) <= len(SERIES)
    for n, backbone in enumerate(backbones):
        runs = part[part["backbone"] == backbone]
        # Backbones are set apart vertically by a fixed step: random jitter would hide which is which.
        shift = (n - (len(backbones) - 1) / 2) * 0.4 / max(1, len(backbones))
        axes.scatter(
            runs["test_auc"], runs["strategy"].map(order.index).astype(float) + shift, s=14, linewidths=0,
            alpha=0.75, color=SERIES[n] if coloured else SERIES[0], label=_short(backbone),
        )  # fmt: skip
    blocks = part.groupby(["strategy", "backbone"])["test_auc"].agg(list)
    rows = [strategy for strategy in order if strategy in blocks.index]
    at = np.array([order.index(strategy) for strategy in rows]) + 0.33
    means, lows, highs = np.array([stats.stratified_bootstrap(blocks[strategy].tolist()) for strategy in rows]).T
    axes.hlines(at, lows, highs, color=INK, linewidth=1.5)
    axes.scatter(means, at, s=18, facecolors="none", edgecolors=INK, linewidths=1)
    axes.set_yticks(range(len(order)), [_short(name) for name in order])
    axes.set_ylim(-0.6, len(order) - 0.4)
    axes.tick_params(axis="y", length=0)
    axes.grid(True, axis="x", linewidth=0.5)
    axes.set_axisbelow(True)
    axes.locator_params(axis="x", nbins=4)


def _readable_on(fill: np.ndarray) -> str:
    """Black or white, whichever has the higher WCAG contrast with an RGB(A) colour in 0..1."""
    linear = np.where(fill[:3] <= 0.04045, fill[:3] / 12.92, ((fill[:3] + 0.055) / 1.055) ** 2.4)
    return "#000000" if linear @ [0.2126, 0.7152, 0.0722] > 0.179 else "#ffffff"


def _annotations(axes: mpl.axes.Axes) -> list[mpl.text.Text]:
    return [text for text in axes.texts if text.get_text()]


def _figure(width: float, height: float, down: int = 1, across: int = 1, sharey: bool = False) -> tuple[Figure, Any]:
    # A name in a script that the measuring font lacks is drawn by the reader's browser all the same.
    warnings.filterwarnings("ignore", message="Glyph .* missing")
    figure = Figure(figsize=(width, height), layout="constrained")
    FigureCanvasAgg(figure)
    grid = figure.subplots(down, across, sharey=sharey, squeeze=False)
    return figure, grid if sharey else grid[0, 0]


def _svg(figure: Figure, name: str, title: str, description: str) -> Markup:
    """The figure as one inline <svg>; `name` sets its ids apart from those of other figures on the page."""
    buffer = io.StringIO()
    nothing = dict.fromkeys(("Date", "Creator", "Format", "Type"))
    figure.savefig(buffer, format="svg", transparent=True, metadata=nothing)
    svg = buffer.getvalue()
    svg = re.sub(r"<!--.*?-->\s*|<metadata>.*?</metadata>\s*", "", svg[svg.index("<svg") :], flags=re.DOTALL)
    svg = re.sub(r'(\bid="|href="#|url\(#)', rf"\g<1>{name}-", svg)
    svg = re.sub(r"<defs>\s*<style.*?</style>\s*</defs>\s*| ?font-family: [^;\"]*;", "", svg, flags=re.DOTALL)
    for marker, css in _CSS.items():
        svg = svg.replace(marker, css)
    view = re.search(r'viewBox="([^"]+)"', svg)
    if view is None:
        raise RuntimeError("matplotlib wrote an SVG without a viewBox")
    head = (
        f'<svg viewBox="{view[1]}" xmlns="http://www.w3.org/2000/svg" xmlns:xlink="http://www.w3.org/1999/xlink" '
        f'role="img" aria-labelledby="{name}-title {name}-desc"><title id="{name}-title">{escape(title)}</title>'
        f'<desc id="{name}-desc">{escape(description)}</desc>'
    )
    return Markup(head + svg[svg.index(">") + 1 :].strip())


def _short(name: str, most: int = 24) -> str:
    """A name that fits: the end of a path tells it from its neighbours better than the start."""
    return name if len(name) <= most else f"{name[:6]}…{name[7 - most :]}"


def _count(number: int, noun: str) -> str:
    return f"{number} {noun}{'' if number == 1 else 's'}"
