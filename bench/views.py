"""Datasets whose images are those of another dataset, or made of them: the domains of a shift."""

from __future__ import annotations

import hashlib
from dataclasses import replace
from pathlib import Path

import numpy as np

from bench import corruptions, strengths
from bench.cache import cache_folder, filled
from bench.contract import Dataset, Info, Kind, Split
from bench.errors import DataError
from bench.label_space import Relabel
from bench.splits import make_splits

CORRUPTED = "corrupted:"
HALVES = {"source": 0.5, "target": 0.5}


class View(Dataset):
    """A dataset made of another one; what is not overridden is that one's."""

    def __init__(self, base: Dataset, info: Info) -> None:
        self.base, self.info, self.notes = base, info, base.notes

    def count(self, split: str) -> int:
        return self.base.count(split)

    def source_size(self, size: int) -> int:
        found = self.base.source_size(size)
        self.notes = self.base.notes  # which the size may add to
        return found

    def stored_size(self) -> int | None:
        return self.base.stored_size()


class Side(View):
    """One domain of a shift: a dataset's images with the shift's labels, under ids that the other domain has not."""

    def __init__(self, role: str, base: Dataset, kind: Kind, classes: tuple[str, ...], relabel: Relabel) -> None:
        super().__init__(base, replace(base.info, kind=kind, classes=classes))
        self.role, self.relabel = role, relabel

    def load(self, split: str, size: int) -> Split:
        try:
            loaded = self.base.load(split, size)
        except DataError as error:
            raise DataError(f"{self.role} {self.info.name}: {error}") from error
        ids = np.char.add(f"{self.role}/", loaded.ids.astype(str))
        return Split(loaded.images, self.relabel(loaded.labels), ids)

    def content_hash(self, size: int) -> str:
        facts = (self.base.info.kind, self.base.info.classes, self.info.kind, self.info.classes)
        return digest(self.role, self.base.content_hash(size), str(facts))


class Half(View):
    """A dataset with one half of its train, the source's or the target's."""

    def __init__(self, base: Dataset, role: str, seed: int) -> None:
        super().__init__(base, base.info)
        self.role, self.seed = role, seed

    def load(self, split: str, size: int) -> Split:
        loaded = self.base.load(split, size)
        if split != "train":
            return loaded
        rows = make_splits(loaded.labels, self.seed, ratios=HALVES)[self.role]
        if lost := _present(loaded.labels) - _present(loaded.labels[rows]):
            label = self.info.classes[min(lost)]
            raise DataError(f'{self.info.name}: too few training images of "{label}" to be halved. Add some.')
        return Split(loaded.images[rows], loaded.labels[rows], loaded.ids[rows])

    def count(self, split: str) -> int:
        return self.base.count(split) // (2 if split == "train" else 1)

    def content_hash(self, size: int) -> str:
        return digest(self.role, self.base.content_hash(size), f"half by seed {self.seed}")


class Corrupted(View):
    """A dataset's images, corrupted: made once and kept in the cache folder."""

    def __init__(self, base: Dataset, name: str) -> None:
        super().__init__(base, replace(base.info, name=name))
        self.corruption = corruptions.find(name.removeprefix(CORRUPTED), base.info)

    def load(self, split: str, size: int) -> Split:
        loaded = self.base.load(split, size)
        path = cache_folder("corrupted") / f"{digest(self.content_hash(size), split)[:24]}.npy"

        def image(index: int) -> np.ndarray:
            return self.corruption(loaded.images[index], str(loaded.ids[index]))

        images = filled(path, loaded.images.shape, image, f"{self.base.info.name} {self.info.name} {split}")
        return Split(images, loaded.labels, loaded.ids)

    def content_hash(self, size: int) -> str:
        files = (corruptions.__file__, strengths.__file__)
        source = [Path(file).read_text(encoding="utf-8") for file in files]
        return digest(self.info.name, self.base.content_hash(size), *source)


def digest(*parts: str) -> str:
    """sha256 (hex) of these texts."""
    return hashlib.sha256("\n".join(parts).encode()).hexdigest()


def _present(labels: np.ndarray) -> set[int]:
    """The classes that there are images of."""
    return set((np.flatnonzero(labels.any(0)) if labels.ndim == 2 else np.unique(labels)).tolist())
