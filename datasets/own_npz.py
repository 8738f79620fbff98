"""Own images in an .npz file of MedMNIST's format: `npz:PATH`.

`train_images`, `test_images` and perhaps `val_images`: uint8 [N, S, S] (gray) or [N, S, S, 3] (RGB), and
`..._labels`: integers [N] or [N, 1], or [N, K] of 0 and 1 (multi-label). Two classes make a binary task, more a
multi-class one. Optional: `kind` (such as "ordinal"), `class_names` (text, in the order of the labels), `train_ids`,
`val_ids`, `test_ids` (text). Without val a tenth of train is taken by seed. Large arrays are unpacked once and
memory-mapped (see bench/npzfile.py).
"""

from __future__ import annotations

import hashlib
from pathlib import Path

import numpy as np

from bench import npzfile
from bench.contract import KINDS, SPLITS, Dataset, Info, Kind, Split
from bench.errors import DataError, UsageError, brief, nearest
from bench.imagefiles import check_classes, checked_names
from bench.splits import TRAIN_VAL, make_splits

PREFIX = "npz:"
NAMES = 4 << 20
"""Bytes, and entries, of class names at most: a file may say that it has any number of them."""


def names() -> list[str]:
    return []


def open_dataset(name: str, root: Path, seed: int, source_size: int) -> Dataset:
    """`name` is `npz:PATH`. Raises UsageError where there is no such file, DataError."""
    path = Path(name.removeprefix(PREFIX)).expanduser()
    if not path.exists():
        raise UsageError(f"{path}: no such file. Check the path (it is relative to the current folder).")
    return OwnNpz(name, path, seed)


class OwnNpz(Dataset):
    def __init__(self, name: str, path: Path, seed: int) -> None:
        self.path = path
        present = npzfile.keys(path)
        if "val_images" not in present and (left := [key for key in present if key.startswith("val_")]):
            raise DataError(f"{path}: it has {left[0]} but no val_images. Add them, or leave all of val out.")
        stored = [part for part in SPLITS if part != "val" or "val_images" in present]
        self.parts = {part: npzfile.images_and_labels(path, part) for part in stored}
        self.side, channels = self._shape()
        self.ids = {part: self._ids(part, present) for part in stored}
        every = np.concatenate(list(self.ids.values()))
        if len(np.unique(every)) < len(every):
            raise DataError(f"{path}: ids are not unique over the splits. Give every image its own.")
        kind, classes = self._kind_and_classes(present)
        self.info = Info(name, kind, classes, channels, source=str(path))
        self.notes = ("split as given",)
        if "val" not in self.parts:
            self._split_train(seed)
        labels = {part: labels for part, (_, labels) in self.parts.items()}
        self.notes += check_classes(self.info, labels)
        self.split = self.notes
        if kind == "multi-label" and all((values.sum(1) == 1).all() for values in labels.values()):
            self.notes += (
                f"{name}: every image has exactly one label: if it is one task of {len(classes)} classes, give them "
                "as one column of class numbers",
            )

    def load(self, split: str, size: int) -> Split:
        images, labels = self.parts[split]
        return Split(images, labels, self.ids[split])

    def count(self, split: str) -> int:
        return len(self.ids[split])

    def train_labels(self) -> np.ndarray:
        return self.parts["train"][1]

    def content_hash(self, size: int) -> str:
        return hashlib.sha256(f"{npzfile.fingerprint(self.path)} {self.split}".encode()).hexdigest()

    def source_size(self, size: int) -> int:
        return self.side

    def stored_size(self) -> int:
        return self.side

    def _shape(self) -> tuple[int, int]:
        """Side in pixels and channels, the same in all splits."""
        shapes = {part: images.shape[1:] for part, (images, _) in self.parts.items()}
        if len(set(shapes.values())) > 1:
            raise DataError(f"{self.path}: images differ in shape between splits ({shapes}). Bring them to one.")
        shape = shapes["train"]
        return shape[0], 3 if len(shape) == 3 else 1

    def _ids(self, part: str, present: list[str]) -> np.ndarray:
        count = len(self.parts[part][0])
        if f"{part}_ids" not in present:
            return np.array([f"{part}/{index}" for index in range(count)])
        ids = npzfile.array(self.path, f"{part}_ids")
        if ids.shape != (count,):
            raise DataError(f"{self.path}: {part}_ids has shape {ids.shape}, expected [{count}]. One id an image.")
        texts = self._texts(f"{part}_ids")
        checked_names(str(self.path), texts, "id")
        return np.array(texts)

    def _texts(self, key: str) -> list[str]:
        """A text array, flat."""
        values = npzfile.array(self.path, key)
        if key in ("class_names", "kind") and max(values.size, values.nbytes) > NAMES:
            raise DataError(f"{self.path}: {key} has shape {values.shape} of {values.dtype}, too much for names.")
        try:
            return [str(text) for text in values.astype(str).ravel().tolist()]
        except (UnicodeDecodeError, TypeError, ValueError) as error:
            raise DataError(f"{self.path}: {key} is not text ({brief(error)}). Save it with dtype=str.") from error

    def _split_train(self, seed: int) -> None:
        images, labels = self.parts["train"]
        ids = self.ids["train"]
        for part, rows in make_splits(labels, seed, ratios=TRAIN_VAL).items():
            if not len(rows):
                raise DataError(f"{self.path}: train is too small to take val from it. Add val_images and val_labels.")
            self.parts[part], self.ids[part] = (images[rows], labels[rows]), ids[rows]
        self.notes = (f"no val given: {TRAIN_VAL['val']:.0%} of train taken by seed {seed}",)

    def _check_numbers(self, labels: dict[str, np.ndarray]) -> None:
        """Raises DataError where the classes are not numbered from 0, or a split has one above all of train."""
        high = int(labels["train"].max())
        if low := min(int(values.min()) for values in labels.values()):
            raise DataError(f"{self.path}: labels are {low}..{high}. Number them from 0: 0..{high - low}.")
        for part, values in labels.items():
            if values.max() > high:
                raise DataError(
                    f"{self.path}: {part}_labels has the class {values.max()}, train none above {high}. Correct "
                    f"{part}_labels, or add images of the class to train."
                )

    def _kind_and_classes(self, present: list[str]) -> tuple[Kind, tuple[str, ...]]:
        labels = {part: values for part, (_, values) in self.parts.items()}
        widths = {values.shape[1] if values.ndim == 2 else 0 for values in labels.values()}
        if len(widths) > 1:
            raise DataError(
                f"{self.path}: labels have different numbers of columns in different splits. Use one layout."
            )
        multi = widths.pop()
        if not multi:
            self._check_numbers(labels)
        count = multi or max(int(values.max()) for values in labels.values()) + 1
        if count > sum(map(len, labels.values())):
            raise DataError(f"{self.path}: the largest label is {count - 1}. Number the classes 0, 1, 2, ...")
        classes = tuple(str(index) for index in range(count))
        if "class_names" in present:
            classes = tuple(self._texts("class_names"))
            if len(classes) < count:
                raise DataError(
                    f"{self.path}: class_names has {len(classes)} names for {count} classes. Add the others."
                )
        kind: Kind = "multi-label" if multi else "binary" if len(classes) == 2 else "multi-class"
        if "kind" in present:
            told = "".join(self._texts("kind")[:1])
            known = {each: each for each in KINDS}
            if told not in known:
                raise DataError(f'{self.path}: kind is "{told}".{nearest(told, KINDS)}')
            if (told == "multi-label") != bool(multi) or (told == "binary" and len(classes) != 2):
                raise DataError(
                    f'{self.path}: kind is "{told}", but the labels are {kind}. Correct kind, or the labels.'
                )
            kind = known[told]
        return kind, classes
