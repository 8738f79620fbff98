"""Rows in, evidence out: tidy tables, statistics, SVG figures and one HTML page. Never imports training."""
