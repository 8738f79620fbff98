"""Natural images with labels, to pretrain on: a folder, an .npz in MedMNIST's format, or an .npz of encoded images.

Encoded: `train_webp_bytes` (or png, jpeg) uint8, all files one after the other; `train_offsets` integers [N + 1], where
each begins and the last ends; `train_labels` integers [N]; the same for `val`; and perhaps `class_names` (text).
"""

from __future__ import annotations

import hashlib
import io
import re
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from PIL import Image

from bench import npzfile, registry
from bench.errors import DataError, brief

ENCODED = re.compile(r"train_(webp|png|jpeg)_bytes")


@dataclass(frozen=True, eq=False)
class Natural:
    """Labelled images in two splits, and their content's hash."""

    classes: tuple[str, ...]
    images: dict[str, np.ndarray]
    """"train" and "val": uint8 [N, S, S, 3]."""
    labels: dict[str, np.ndarray]
    """int64 [N]."""
    sha256: str


def load_natural(source: str, size: int) -> Natural:
    """`source` is npz:PATH or folder:PATH; `size` is the side in pixels at which a folder's files are decoded (an .npz
    has its own). Raises DataError, also where images are not in color or have several labels, UsageError for another
    source."""
    path = Path(source.removeprefix("npz:")).expanduser()
    if source.startswith("npz:") and (found := next(filter(None, map(ENCODED.fullmatch, npzfile.keys(path))), None)):
        return _decoded(path, found[1])
    dataset = registry.open_dataset(source, Path())
    splits = {name: dataset.load(name, size) for name in ("train", "val")}
    if dataset.info.channels != 3 or dataset.info.kind == "multi-label":
        raise DataError(f"{source}: pretraining takes images in colour with one label each. Convert them.")
    return Natural(
        dataset.info.classes,
        {name: split.images for name, split in splits.items()},
        {name: split.labels for name, split in splits.items()},
        dataset.content_hash(size),
    )


def _decoded(path: Path, form: str) -> Natural:
    images, labels = {}, {}
    for split in ("train", "val"):
        stream, offsets = npzfile.array(path, f"{split}_{form}_bytes"), npzfile.array(path, f"{split}_offsets")
        labels[split] = npzfile.array(path, f"{split}_labels").astype(np.int64)
        ends = offsets.astype(np.int64)
        if labels[split].ndim != 1 or not len(labels[split]) or labels[split].min() < 0:
            raise DataError(f"{path}: {split}_labels must be whole numbers [N] from 0, one an image.")
        if (
            ends.shape != (len(labels[split]) + 1,)
            or (np.diff(ends) < 1).any()
            or ends[0] < 0
            or ends[-1] > len(stream)
        ):
            raise DataError(f"{path}: {split}_offsets do not divide the bytes into {len(labels[split])} images.")

        def decode(index: int, stream: np.ndarray = stream, ends: np.ndarray = ends, split: str = split) -> np.ndarray:
            try:
                file = io.BytesIO(stream[ends[index] : ends[index + 1]].tobytes())
                return np.asarray(Image.open(file, formats=[form]).convert("RGB"))
            except Exception as error:  # Pillow raises many types on damaged files
                raise DataError(f"{path}: image {index} of {split} cannot be read ({brief(error)}).") from error

        with ThreadPoolExecutor() as pool:
            decoded = list(pool.map(decode, range(len(labels[split]))))
        if len({image.shape for image in decoded}) > 1:
            raise DataError(f"{path}: the images of {split} differ in size. Bring them to one.")
        images[split] = np.stack(decoded)
    count = int(max(values.max() for values in labels.values())) + 1
    named = "class_names" in npzfile.keys(path)
    classes = npzfile.array(path, "class_names").astype(str).tolist() if named else [str(i) for i in range(count)]
    if len(classes) < count:
        raise DataError(f"{path}: class_names has {len(classes)} names for {count} classes. Add the others.")
    return Natural(tuple(classes), images, labels, hashlib.sha256(npzfile.fingerprint(path).encode()).hexdigest())
