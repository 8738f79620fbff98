"""The most confident mistakes, with their images where these are at hand and may be shown."""

from __future__ import annotations

import base64
import io
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from markupsafe import Markup
from PIL import Image

from bench import registry
from bench.download import offline
from bench.errors import DataError
from bench.metrics import decide
from bench.report.predictions import Predicted

OWN = re.compile("(^|->)(npz|folder|csv):")
"""Names that lead anywhere on this machine. Rows may come from another one: a page does not follow them."""
MOST, SIDE = 16, 96
"""Mistakes a dataset, and the largest side in pixels at which an image is kept."""


@dataclass(frozen=True)
class Mistake:
    """One test image and what was wrong of it."""

    index: int
    true: str
    said: str
    probability: float
    """Of what was said."""


def worst(predicted: Predicted) -> tuple[list[Mistake], int]:
    """The mistakes of the first seed's network, the most confident first, and the number of images with a mistake. For
    multi-label tasks an image's mistake is the label that is wrong with the highest probability."""
    probs, labels = predicted.probs[0], predicted.labels
    if predicted.kind == "multi-label":
        truth, said = labels > 0.5, probs > 0.5
        sure = np.where(truth != said, np.where(said, probs, 1 - probs), 0.0)
        column, wrong = sure.argmax(axis=1), (truth != said).any(axis=1)
        sure = sure.max(axis=1)
    else:
        column = decide(probs, predicted.kind)
        sure, wrong = probs[np.arange(len(probs)), column], column != labels
    order = [int(i) for i in np.argsort(-sure, kind="stable") if wrong[i]]
    return [_mistake(predicted, i, int(column[i]), float(sure[i])) for i in order[:MOST]], len(order)


def _mistake(predicted: Predicted, index: int, column: int, sure: float) -> Mistake:
    name = predicted.classes[column]
    if predicted.kind != "multi-label":
        return Mistake(index, predicted.classes[int(predicted.labels[index])], name, sure)
    present = predicted.labels[index, column] > 0.5
    return Mistake(index, name if present else f"no {name}", f"no {name}" if present else name, sure)


def grid(predicted: Predicted, runs: Sequence[Mapping[str, Any]]) -> Markup:
    """The most confident mistakes on one dataset: a line of words and a list of images. Raises MedtransferError where
    the images are not at hand or may not be shown."""
    mistakes, wrong = worst(predicted)
    licence = predicted.rows["licence"].iloc[0]
    if not isinstance(licence, str) or licence == "unknown":
        raise DataError("no licence is known, and pages are passed on: the images may show patients.")
    if OWN.search(predicted.dataset):
        raise DataError("they are somebody's own files, whatever the rows say of their licence.")
    images = _images(predicted, [mistake.index for mistake in mistakes], runs[predicted.folder])
    return Markup(
        '<h3>{}</h3><p class="soft">{} on {}, seed {}: a mistake in {:,} of n = {:,} test images.</p>'
        '<ul class="tiles">{}</ul>'
    ).format(
        predicted.dataset, predicted.strategy, predicted.backbone, predicted.seeds[0], wrong, len(predicted.labels),
        Markup("").join(map(_tile, mistakes, images)),
    )  # fmt: skip


def _tile(mistake: Mistake, image: np.ndarray) -> Markup:
    return Markup(
        '<li><img src="data:image/jpeg;base64,{}" width="{}" height="{}" alt="Test image {}">'
        "<span>true {}<br>said {} ({})</span></li>"
    ).format(_jpeg(image), SIDE, SIDE, mistake.index, mistake.true, mistake.said, _sure(mistake.probability))


def _sure(probability: float) -> str:
    return f"{probability:.3f}" if probability < 0.9995 else ">\u00a00.999"  # no network is certain


def _images(predicted: Predicted, indices: list[int], run: Mapping[str, Any]) -> list[np.ndarray]:
    """Test images (uint8 [H, W] or [H, W, 3]) as the run's own data root has them; nothing is downloaded. Raises
    MedtransferError where they are not there, or are not those that were tested on."""
    found = run.get("matrix")
    matrix = found if isinstance(found, dict) else {}
    root = matrix.get("data_root")
    if not isinstance(root, str):
        raise DataError("run.json does not say where they are.")
    row = predicted.rows.iloc[0]
    size = int(row["size"])
    with offline():
        dataset = registry.open_dataset(
            predicted.dataset, Path(root), int(matrix.get("split_seed") or 0), int(matrix.get("source_size") or 0)
        )
        if dataset.content_hash(size) != row["data_hash"]:
            raise DataError("those in the run's data folder are not the ones that it was tested on.")
        split = dataset.load("test", size)
    places = {str(name): n for n, name in enumerate(split.ids)}
    wanted = [str(predicted.ids[index]) for index in indices]
    if not set(wanted) <= set(places):
        raise DataError("those in the run's data folder have other ids.")
    return [np.asarray(split.images[places[name]]) for name in wanted]


def _jpeg(image: np.ndarray) -> str:
    picture = Image.fromarray(np.ascontiguousarray(image))
    picture.thumbnail((SIDE, SIDE), Image.Resampling.LANCZOS)
    buffer = io.BytesIO()
    picture.save(buffer, "JPEG", quality=88)
    return base64.b64encode(buffer.getvalue()).decode()
