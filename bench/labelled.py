"""Splits as their datasets give them, with labels that a network of the dataset's classes can be asked for."""

from __future__ import annotations

import numpy as np

from bench.contract import Dataset, Info, Split
from bench.errors import DataError


def load_split(dataset: Dataset, split: str, size: int) -> Split:
    """The images of "train", "val" or "test". Raises DataError, also where labels are not those of the dataset's
    classes: on a GPU they would end the process, not the cell."""
    found = dataset.load(split, size)
    if wrong := _wrong(np.asarray(found.labels), dataset.info):
        raise DataError(f"{dataset.info.name}: {wrong} in {split}. Correct the dataset.")
    return found


def _wrong(labels: np.ndarray, info: Info) -> str:
    count = len(info.classes)
    several = info.kind == "multi-label"
    if labels.ndim != 1 + several or (several and labels.shape[1] != count):
        return f"labels of shape {labels.shape}, not {'[images, ' + str(count) + ']' if several else '[images]'}"
    last = 1 if several else count - 1
    outside = labels[~((labels >= 0) & (labels <= last))]
    return f"the label {outside[0]} is none of 0 to {last}" if len(outside) else ""
