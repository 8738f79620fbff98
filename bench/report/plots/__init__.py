"""Figures as deterministic SVG for inlining: the same rows give the same bytes."""

from bench.report.plots.canvas import INK, RULE, SERIES, Picture
from bench.report.plots.cost import cost, pareto
from bench.report.plots.scores import heatmap, strips

__all__ = ["INK", "RULE", "SERIES", "Picture", "cost", "heatmap", "pareto", "strips"]
