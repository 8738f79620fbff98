"""Our figures beside published ones: the same dataset, network and size, with every difference of protocol in words.

The tables and their sources are in results/published/. A figure is called higher or lower than a published one only
where that one lies outside our 95 % interval; the spread of the published ones is not known.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

import bench
from bench.contract import Backbone
from bench.report import planned
from bench.report.frames import CELL, ok
from bench.report.intervals import Noise, seed_noise
from bench.report.markup import folded, paragraphs, table
from bench.report.matrix import Z
from bench.report.protocols import Network, Recipes, recipe, recipe_of, unlike_plus, unlike_v2
from bench.report.section import Evidence, Section
from bench.report.stats import padded
from bench.report.written import fixed

V2 = "MedMNIST v2 (Yang et al. 2023)"
PLUS = "MedMNIST+ (Doerrich et al. 2025)"
NETWORKS = {"ResNet-18": "resnet18", "ResNet-50": "resnet50", "VGG16": "vgg16", "DenseNet-121": "densenet121",
            "EfficientNet-B4": "efficientnet_b4"}  # fmt: skip
"""Published name -> timm's; the tables' other methods have no counterpart here."""
SCHEMES = {"full_finetune": "end-to-end", "linear_probe": "linear probe"}
ROUNDED = 0.0005
"""Published figures have three digits, means over sets four."""
LINES = 100


@dataclass(frozen=True)
class Figure:
    """Ours, and a published figure that it stands beside."""

    dataset: str
    published: str
    """Source and method."""
    theirs: float
    """Their test AUC."""
    ours: str
    """Backbone and strategy."""
    auc: float
    low: float
    """Ends of the 95 % interval of `auc`, over seeds and test images; NaN with one seed."""
    high: float
    seeds: int
    differences: tuple[str, ...]

    @property
    def verdict(self) -> str:
        """Never more than the interval says."""
        if np.isnan(self.low):
            return "not compared: one seed, so there is no interval"
        if self.theirs + ROUNDED < self.low:
            return "ours is higher"
        return "ours is lower" if self.theirs - ROUNDED > self.high else "not told apart"


def section(evidence: Evidence) -> Section | None:
    """Figures beside the literature; None where no dataset is in a published table."""
    there = published("medmnist_v2")
    known = sorted(set(evidence.rows["dataset"]) & set(there["dataset"]))
    if not known:
        return None
    figures = beside(evidence)
    if figures:
        body = paragraphs([_summary(figures)]) + _compared(figures)
    else:
        body = paragraphs(
            [
                "No cell here has the network, the size and all the training images of a published one, so nothing is "
                "compared."
            ]
        )
    methods = list(there["method"].unique())
    wide = there.pivot(index="dataset", columns="method", values="auc").loc[known, methods]
    lines = [(name, *(fixed(value) for value in values)) for name, *values in wide.itertuples()]
    caption = (
        f"Published test AUC. {V2}; for orientation, since these differ from the cells here in network, size or recipe."
    )
    return Section("literature", "Against the literature", body + folded(
        "What has been published on these datasets", table(caption, ["Dataset", *methods], lines, methods)
    ))  # fmt: skip


def beside(evidence: Evidence) -> list[Figure]:
    """All of our cells that a published figure can stand beside, by dataset, then best first."""
    rows = ok(evidence.rows)
    rows = rows[(rows["fraction"] == 1) & rows["per_class"].isna()]
    named = {label: one for run in evidence.runs for label, one in planned.backbones(run).items()}
    networks = {label: _network(named.get(label), label) for label in rows["backbone"].unique()}
    rows = rows.assign(_network=rows["backbone"].map(lambda label: networks[label].name))
    rows = rows[rows["_network"].isin(NETWORKS.values())]
    recipes = [(planned.cells(run) or set(), recipe(run)) for run in evidence.runs]
    figures = [*_single_sets(rows, networks, recipes), *_means(rows, networks, recipes)]
    return sorted(figures, key=lambda f: (f.dataset, f.published, -f.auc, f.ours))


def published(name: str) -> pd.DataFrame:
    """A table of results/published/, which an installed package carries inside it."""
    package = Path(bench.__file__).resolve().parent
    inside = package / "builtin" / "published"
    return pd.read_csv((inside if inside.is_dir() else package.parent / "results" / "published") / f"{name}.csv")


Networks = Mapping[str, Network]
"""By label."""


def _single_sets(rows: pd.DataFrame, networks: Networks, recipes: Recipes) -> list[Figure]:
    there = published("medmnist_v2")
    there = there.assign(size=there["method"].str.extract(r"\((\d+)\)$")[0].astype("Int64"))
    there = there.assign(network=there["method"].str.replace(r" \(\d+\)$", "", regex=True).map(NETWORKS))
    theirs = {(t.dataset, t.network, t.size): t for t in there.dropna(subset=["network", "size"]).itertuples()}
    figures = []
    for key, part in rows.groupby(CELL, dropna=False):
        cell = dict(zip(CELL, key, strict=True))
        found = theirs.get((cell["dataset"], part["_network"].iloc[0], cell["size"]))
        if found is not None:
            auc, low, high = mean_and_interval([part])
            said = unlike_v2(part, networks[cell["backbone"]], recipe_of(part, recipes))
            ours = f"{cell['backbone']} · {cell['strategy']}"
            figures.append(
                Figure(
                    cell["dataset"], f"{V2}: {found.method}", float(found.auc), ours, auc, low, high, len(part), said
                )
            )
    return figures


def _means(rows: pd.DataFrame, networks: Networks, recipes: Recipes) -> list[Figure]:
    """MedMNIST+ was published as means over the twelve sets: it needs all of them."""
    sets = set(published("medmnist_v2")["dataset"])
    there = published("medmnist_plus_means")
    theirs = {(NETWORKS.get(t.model), t.scheme, t.size): t for t in there.itertuples()}
    of_sets = rows[rows["dataset"].isin(sets) & rows["pretrained"].fillna(False)]
    figures = []
    for (label, strategy, size), part in of_sets.groupby(["backbone", "strategy", "size"]):
        found = theirs.get((part["_network"].iloc[0], SCHEMES.get(strategy), size))
        if found is not None and set(part["dataset"]) == sets:
            auc, low, high = mean_and_interval([one for _, one in part.groupby("dataset")])
            seeds = int(part.groupby("dataset").size().min())
            method = f"{PLUS}: {found.model}, {found.scheme}, {size} px"
            said = unlike_plus(part, networks[label], recipe_of(part, recipes))
            ours = f"{label} · {strategy}"
            figures.append(
                Figure("mean of the 12 sets", method, found.mean_auc_12_sets, ours, auc, low, high, seeds, said)
            )
    return figures


def mean_and_interval(cells: Sequence[pd.DataFrame]) -> tuple[float, float, float]:
    """Mean test AUC of cells on different datasets, and its 95 % interval over seeds (bench.report.intervals) and test
    images (from the rows' own intervals) together; NaN ends where a cell has one seed."""
    scores = [one["test_auc"].to_numpy(dtype=float) for one in cells]
    auc = float(np.mean([one.mean() for one in scores]))
    if min(map(len, scores)) < 2:
        return auc, float("nan"), float("nan")
    weights = np.full(len(cells), 1 / len(cells))
    errors = [((one["test_auc_hi"] - one["test_auc_lo"]) / (2 * Z)).mean() for one in cells]
    images = Noise(np.sum((weights * errors) ** 2), np.zeros(()))
    half = float((seed_noise(padded([scores])[0], weights) + images).half_width)
    return auc, auc - half, auc + half


def _network(backbone: Backbone | None, label: str) -> Network:
    found = re.fullmatch(r"(\w+)(?:\.\w+)?(\+\w+)?(?: random)?", planned.unnamed(backbone) if backbone else label)
    norm = (*(backbone.mean or (0,)), *(backbone.std or (0,))) if backbone else (0.5,)
    name, stem = (found[1], (found[2] or "").removeprefix("+")) if found else ("", "")
    return Network(name, stem, set(norm) == {0.5})


def _summary(figures: Sequence[Figure]) -> str:
    counts = {verdict: sum(f.verdict == verdict for f in figures) for verdict in ("ours is higher", "ours is lower")}
    alone = sum(np.isnan(f.low) for f in figures)
    rest = len(figures) - sum(counts.values()) - alone
    one_seed = f", {alone} with one seed are not compared" if alone else ""
    same = sum(not f.differences for f in figures)
    protocol = f"{same or 'None'} of them {'was' if same == 1 else 'were'} made by the published protocol."
    return (
        f"Of {len(figures)} pairs of a cell here and a published figure, ours is higher in {counts['ours is higher']}, "
        f"lower in {counts['ours is lower']} and not told apart in {rest}{one_seed}. {protocol} Where protocols "
        "differ, that may explain it."
    )


def _compared(figures: Sequence[Figure]) -> Any:
    columns = [
        "Dataset",
        "Published",
        "Their AUC",
        "Ours",
        "Our AUC",
        "95 %",
        "Seeds",
        "Verdict",
        "Differences of protocol",
    ]
    lines = [
        (
            *(f.dataset, f.published, fixed(f.theirs), f.ours, fixed(f.auc)),
            "" if np.isnan(f.low) else f"{max(f.low, 0):.3f} to {min(f.high, 1):.3f}",
            *(f.seeds, f.verdict, "; ".join(f.differences) or "none known"),
        )
        for f in figures[:LINES]
    ]
    rest = f" The first {LINES} of {len(figures):,} are shown." if len(figures) > LINES else ""
    caption = (
        "Ours and theirs. The interval is over seeds and test images, as if theirs had no error of their own; the "
        f"spread of theirs is not published.{rest}"
    )
    return table(caption, columns, lines, ("Their AUC", "Our AUC", "95 %", "Seeds"))
