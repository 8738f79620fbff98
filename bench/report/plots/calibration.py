"""Whether a probability means what it says, and which classes are missed."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np

from bench.metrics import ECE_BINS
from bench.report.plots.canvas import SOFT, Picture, count, label, legend, listed, marker, panels, short, style, svg
from bench.report.predictions import Predicted

FEWEST = 10
"""Predictions below which a bin is not drawn."""
DATASETS = 12


def confidence(predicted: Predicted) -> tuple[np.ndarray, np.ndarray]:
    """What each prediction claims and whether it holds: float and bool [S, N], of the top class; for multi-label of
    every label [S, N * K], as in the row's expected calibration error."""
    probs = predicted.probs
    if predicted.kind == "multi-label":
        positive = probs > 0.5
        claims, right = np.where(positive, probs, 1 - probs), positive == (predicted.labels > 0.5)
        return claims.reshape(len(probs), -1), right.reshape(len(probs), -1)
    return probs.max(axis=-1), probs.argmax(axis=-1) == predicted.labels


def bins(claims: np.ndarray, right: np.ndarray, number: int = ECE_BINS) -> np.ndarray:
    """[number, 3]: count, mean claim and share of right ones in equal-width bins of 0..1; NaN where a bin is
    empty."""
    which = np.minimum((claims * number).astype(int), number - 1)
    counts = np.bincount(which, minlength=number)
    sums = np.stack([np.bincount(which, values, number) for values in (claims, right.astype(float))])
    with np.errstate(invalid="ignore"):
        return np.column_stack([counts, (sums / counts).T])


def wilson(share: np.ndarray, number: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """95 % interval of a proportion (Wilson 1927)."""
    z = 1.959964
    centre = (share + z**2 / (2 * number)) / (1 + z**2 / number)
    half = z / (1 + z**2 / number) * np.sqrt(share * (1 - share) / number + z**2 / (4 * number**2))
    return centre - half, centre + half


def reliability(found: Sequence[Predicted], colours: Mapping[str, str], name: str, title: str) -> Picture | None:
    """Reliability diagrams on the test images, one panel a dataset of which a bin has enough predictions to be drawn;
    None where none has."""
    every = {(one.dataset, one.strategy): _binned(one) for one in found}
    kept = {dataset for (dataset, _), table in every.items() if (table[:, 0] >= FEWEST).any()}
    datasets = sorted({one.dataset for one in found})
    empty = [dataset for dataset in datasets if dataset not in kept]
    datasets = sorted(kept)[:DATASETS]
    found = [one for one in found if one.dataset in datasets]
    if not datasets:
        return None
    words = []
    with style():
        figure, grid, width = panels(len(datasets), 2.7, sharey=True)
        for axes, dataset in zip(grid, datasets, strict=True):
            axes.plot([0, 1], [0, 1], color=SOFT, linewidth=0.75, linestyle=(0, (4, 3)), zorder=1)
            errors: dict[str, float] = {}
            lowest = 1.0
            for one in (one for one in found if one.dataset == dataset):
                table = every[dataset, one.strategy]
                errors[one.strategy] = error(table)
                table = table[table[:, 0] >= FEWEST]
                lowest = min([lowest, *table[:, 1]])
                colour = colours[one.strategy]
                # Seeds share their images, so a bin counts as many as one seed puts there.
                low, high = wilson(table[:, 2], table[:, 0] / len(one.probs))
                axes.vlines(table[:, 1], low, high, color=colour, linewidth=1, alpha=0.45)
                axes.plot(table[:, 1], table[:, 2], color=colour, linewidth=1.2, marker=marker(colour),
                          markersize=4.5, markeredgewidth=0)  # fmt: skip
            axes.set_xlim(lowest - 0.04, 1.02)
            best = min(errors, key=lambda strategy: errors[strategy])
            words.append(f"{dataset}: {best} {errors[best]:.3f}")
            axes.set_title(short(dataset))
            axes.grid(True)
        grid[0].set_ylim(0, 1.02)
        label(grid, "probability given", "share that is right")
        legend(
            figure, {strategy: colours[strategy] for strategy in sorted({one.strategy for one in found})}, lines=True
        )
        drawn = svg(figure, name, title, f"One panel a dataset. Lowest expected calibration error: {'; '.join(words)}.")
    images = sum({one.dataset: len(one.labels) for one in found}.values())
    caption = (
        f"Test images in {ECE_BINS} bins by the probability of the class that was said (multi-label: of every "
        f"label), all seeds together; n = {images:,} images. Below the dashed line a network is surer than it is "
        "right. Bars are 95 % intervals (Wilson) over the images that one seed puts into a bin; bins with fewer "
        f"than {FEWEST} predictions are left out. Of each strategy the backbone with the highest mean val AUC."
        + (f" Not drawn, since no bin has {FEWEST}: {listed(empty)}." if empty else "")
    )
    return Picture(title, drawn, caption, width)


def _binned(predicted: Predicted) -> np.ndarray:
    claims, right = confidence(predicted)
    return bins(claims.ravel(), right.ravel())


def error(table: np.ndarray) -> float:
    """Expected calibration error of `bins`: their mean gap, weighted by count."""
    filled = table[table[:, 0] > 0]
    return float(np.average(np.abs(filled[:, 1] - filled[:, 2]), weights=filled[:, 0]))


def recalls(predicted: Predicted) -> tuple[np.ndarray, np.ndarray]:
    """Recall of each class (multi-label: of each label's positives), mean over seeds, and its number of images [K];
    NaN where the test split has none."""
    classes = range(predicted.probs.shape[-1])
    if predicted.kind == "multi-label":
        truth, said = predicted.labels > 0.5, predicted.probs > 0.5
    else:
        truth = predicted.labels[:, None] == np.array(classes)
        said = predicted.probs.argmax(axis=-1)[..., None] == np.array(classes)
    counts = truth.sum(axis=0)
    with np.errstate(invalid="ignore", divide="ignore"):
        return (said & truth).sum(axis=1).mean(axis=0) / counts, counts


def recall(found: Sequence[Predicted], colours: Mapping[str, str], name: str, title: str) -> Picture | None:
    """Recall of every class on the test images, one panel a dataset."""
    datasets = sorted({one.dataset for one in found})[:DATASETS]
    if not datasets:
        return None
    by_dataset = {dataset: [one for one in found if one.dataset == dataset] for dataset in datasets}
    # Those of few classes first, so that a line of panels is no taller than they need.
    datasets.sort(key=lambda dataset: (len(by_dataset[dataset][0].classes), dataset))
    numbers = [len(by_dataset[dataset][0].classes) for dataset in datasets]
    longest = max(len(name) for ones in by_dataset.values() for name in ones[0].classes)
    across = 3 if longest <= 16 else 2
    rows = [max(2, *numbers[start : start + across]) for start in range(0, len(numbers), across)]
    words = []
    with style():
        figure, grid, width = panels(len(datasets), [0.6 + 0.26 * most for most in rows], across, sharex=True)
        for panel, (axes, dataset) in enumerate(zip(grid, datasets, strict=True)):
            ones = by_dataset[dataset]
            classes = ones[0].classes
            for n, one in enumerate(ones):
                share, number = recalls(one)
                at = np.arange(len(classes)) + (n - (len(ones) - 1) / 2) * 0.24
                low, high = wilson(share, number)
                colour = colours[one.strategy]
                axes.hlines(at, low, high, color=colour, linewidth=1)
                axes.scatter(share, at, s=16, color=colour, marker=marker(colour), linewidths=0, zorder=3)
            share, number = recalls(ones[0])
            if not np.isnan(share).all():
                least = int(np.nanargmin(share))
                words.append(f"{dataset}: {classes[least]} {share[least]:.2f}")
            names = [f"{short(label, 24)} ({n:,})" for label, n in zip(classes, number, strict=True)]
            axes.set_yticks(range(len(classes)), names)
            axes.set_ylim(rows[panel // across] - 0.4, -0.6)
            axes.tick_params(axis="y", length=0)
            axes.set_title(short(dataset))
            axes.grid(True, axis="x")
        grid[0].set_xlim(-0.02, 1.02)
        label(grid, "recall")
        legend(figure, {strategy: colours[strategy] for strategy in sorted({one.strategy for one in found})})
        least_of = found[0].strategy
        drawn = svg(figure, name, title, f"One panel a dataset. Most often missed by {least_of}: {'; '.join(words)}.")
    caption = (
        "Share of each class's test images (their number in brackets) that is found, mean over seeds; bars are 95 % "
        "intervals (Wilson) over these images. Binary and multi-label tasks at a probability of .5. Of each strategy "
        f"the backbone with the highest mean val AUC, n = {count(len(found), 'cell')}."
    )
    return Picture(title, drawn, caption, width)
