"""What all figures share: deterministic SVG for inlining, its colours, and small multiples.

Text and lines are drawn in marker colours that are then replaced by CSS (`currentColor`, `var(--series-1)`), so a
figure follows the page into dark mode. Each has role="img", a title and a description in words.
"""

from __future__ import annotations

import io
import re
import warnings
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import matplotlib as mpl
import numpy as np
from markupsafe import Markup, escape
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.layout_engine import ConstrainedLayoutEngine
from matplotlib.lines import Line2D
from matplotlib.patches import PathPatch
from matplotlib.path import Path
from matplotlib.ticker import FuncFormatter, LogLocator, NullLocator

INK, RULE, SOFT, PAPER = "#010101", "#020202", "#090909", "#0a0a0a"
SERIES = [f"#0{n}0{n}0{n}" for n in range(3, 9)]
MARKERS = "osD^vP"
"""Go with SERIES, so that no two series differ in colour only."""
FULL = 9.7
"""Inches that fill the page's width: 9-point text is then as large as the page's small text."""
_CSS = {INK: "currentColor", RULE: "var(--rule)", SOFT: "var(--soft)", PAPER: "var(--paper)"}
_CSS |= {c: f"var(--series-{n})" for n, c in enumerate(SERIES, 1)}
_STYLE: Any = {
    "svg.hashsalt": "medtransfer",
    "svg.fonttype": "none",
    "path.simplify": False,  # it would drop the dots, which are lines without length
    "text.parse_math": False,  # a dataset may have a "$" in its name
    "font.family": "DejaVu Sans",  # measured with it, drawn in the page's own font
    "font.size": 9,
    **dict.fromkeys(("text.color", "axes.labelcolor", "xtick.labelcolor", "ytick.labelcolor"), INK),
    **dict.fromkeys(("axes.edgecolor", "xtick.color", "ytick.color", "grid.color"), RULE),
    "grid.linewidth": 0.5,
    "axes.axisbelow": True,
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


@contextmanager
def style() -> Iterator[None]:
    """Draw and save within this."""
    with mpl.rc_context(_STYLE), warnings.catch_warnings():
        # A name in a script that the measuring font lacks is drawn by the reader's browser all the same.
        warnings.filterwarnings("ignore", message="Glyph .* missing")
        yield


def single(width: float, height: float) -> tuple[Figure, Axes]:
    """A figure of one panel, in inches."""
    figure = _figure(width, height)
    return figure, figure.subplots()


def panels(
    count: int, height: float | Sequence[float], most: int = 3, sharex: bool = False, sharey: bool = False
) -> tuple[Figure, list[Axes], float]:
    """Small multiples, `most` in a line, `height` inches each (or each line): figure, axes and the figure's width in
    inches. One or two panels are not blown up to the page's width."""
    across = min(most, count)
    width = FULL if across == most else 1.0 + (FULL - 1.0) * across / most
    down = -(-count // across)
    heights = [height] * down if isinstance(height, int | float) else list(height)
    figure = _figure(width, sum(heights) + 0.4)
    ratios = {"height_ratios": heights}
    grid = figure.subplots(down, across, squeeze=False, sharex=sharex, sharey=sharey, gridspec_kw=ratios)
    axes = list(grid.flat)
    for unused in axes[count:]:
        unused.set_visible(False)
    for lowest in axes[max(0, count - across) : count]:  # of its column, also where the last line is short
        lowest.tick_params(axis="x", labelbottom=True)
    return figure, axes[:count], width


def label(axes: Sequence[Axes], x: str, y: str = "") -> None:
    """What the scales of small multiples are, at the lowest panel of each column and the first of each line."""
    spec = axes[0].get_subplotspec()
    assert spec is not None
    across = spec.get_gridspec().ncols
    for n, panel in enumerate(axes):
        panel.set_xlabel(x if n + across >= len(axes) else "")
        panel.set_ylabel(y if n % across == 0 else "")


def dots(axes: Axes, x: Any, y: Any, colour: str, size: float, alpha: float = 1.0, zorder: float = 2) -> None:
    """Round dots `size` points wide, as one path: thousands of them stay small in the file."""
    points = np.column_stack([np.asarray(x, dtype=float), np.asarray(y, dtype=float)])
    if len(points) == 0:
        return
    codes = np.tile([Path.MOVETO, Path.LINETO], len(points)).astype(Path.code_type)
    path = Path(np.repeat(points, 2, axis=0), codes)
    look = {"facecolor": "none", "edgecolor": colour, "linewidth": size, "capstyle": "round", "alpha": alpha}
    axes.add_artist(PathPatch(path, zorder=zorder, **look))
    axes.update_datalim(points)  # add_patch would do this, and take ten times as long
    axes.autoscale_view()


def legend(
    figure: Figure, colours: Mapping[str, str], lines: bool = False, round_ones: bool = False, single: bool = False
) -> None:
    """Names with their colours and markers, below the figure; of a single name only where nothing else would say
    (`single`) whose the marks are."""
    if len(colours) > 1 or single:
        marks = {name: "o" if round_ones else marker(colour) for name, colour in colours.items()}
        # A letter takes about a fourteenth of an inch, a marker with its room half of one.
        across = int(figure.get_size_inches()[0] / (max(len(short(name)) for name in colours) / 14 + 0.5))
        handles = [
            Line2D([], [], color=colour, marker=marks[name], markersize=5, markeredgewidth=0,
                   linewidth=1.5 if lines else 0, label=short(name))
            for name, colour in colours.items()
        ]  # fmt: skip
        figure.legend(
            handles=handles, loc="outside lower left", ncols=max(1, min(across, len(handles))), frameon=False,
            handletextpad=0.4 if lines else 0.1, columnspacing=1.4,
        )  # fmt: skip


def marker(colour: str) -> str:
    """The marker that goes with a colour."""
    return MARKERS[SERIES.index(colour)] if colour in SERIES else "o"


def log_axis(axes: Axes, values: Any, decades: float) -> None:
    """A log scale along x, with numbers at 1, 2, 5 where `values` span so many decades at most, else at powers of
    ten."""
    wide = np.ptp(np.log10(np.asarray(values, dtype=float))) > decades
    axes.set_xscale("log")
    axes.xaxis.set_major_locator(LogLocator(subs=(1,) if wide else (1, 2, 5)))
    axes.xaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))
    axes.xaxis.set_minor_locator(NullLocator())


def svg(figure: Figure, name: str, title: str, description: str) -> Markup:
    """The figure as one inline <svg>; `name` sets its ids apart from those of other figures on the page."""
    buffer = io.StringIO()
    nothing = dict.fromkeys(("Date", "Creator", "Format", "Type"))
    figure.savefig(buffer, format="svg", transparent=True, metadata=nothing)
    text = buffer.getvalue()
    text = re.sub(r"<!--.*?-->\s*|<metadata>.*?</metadata>\s*", "", text[text.index("<svg") :], flags=re.DOTALL)
    text = re.sub(r"<defs>\s*<style.*?</style>\s*</defs>\s*", "", text, flags=re.DOTALL)
    # In tags only: what stands between them are names from outside.
    text = re.sub(r"<[^>]+>", lambda tag: _tag(tag[0], name), text)
    view = re.search(r'viewBox="([^"]+)"', text)
    if view is None:
        raise RuntimeError("matplotlib wrote an SVG without a viewBox")
    head = (
        f'<svg viewBox="{view[1]}" xmlns="http://www.w3.org/2000/svg" xmlns:xlink="http://www.w3.org/1999/xlink" '
        f'role="img" aria-labelledby="{name}-title {name}-desc"><title id="{name}-title">{escape(title)}</title>'
        f'<desc id="{name}-desc">{escape(description)}</desc>'
    )
    return Markup(head + text[text.index(">") + 1 :].strip())


def short(name: str, most: int = 24) -> str:
    """A name that fits: the end of a path tells it from its neighbours better than the start."""
    return name if len(name) <= most else f"{name[:6]}…{name[7 - most :]}"


def count(number: int, noun: str) -> str:
    return f"{number:,} {noun}{'' if number == 1 else 's'}"


def listed(names: Sequence[str], most: int = 6) -> str:
    """ "a, b and 3 more" """
    return ", ".join(names) if len(names) <= most else f"{', '.join(names[:most])} and {len(names) - most} more"


def _figure(width: float, height: float) -> Figure:
    figure = Figure(figsize=(width, height), layout=ConstrainedLayoutEngine(w_pad=0.07, h_pad=0.06, wspace=0.02))
    FigureCanvasAgg(figure)
    return figure


def _tag(tag: str, name: str) -> str:
    tag = re.sub(r'(\bid="|href="#|url\(#)', rf"\g<1>{name}-", tag)
    tag = re.sub(r" ?font-family: [^;\"]*;", "", tag)
    tag = re.sub(r"-?\d+\.\d{3,}", lambda number: f"{round(float(number[0]), 2):g}", tag)
    return re.sub("|".join(_CSS), lambda marker: _CSS[marker[0]], tag)
