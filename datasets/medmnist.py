"""The twelve 2D MedMNIST sets (Yang et al. 2023) at 28, 64, 128 and 224 px, from an offline folder or by download.

For an asked size the native file is the smallest one of at least that size (224 for anything larger). Which file is
read: `source_size` if it is given; else the native file if it lies in the folder; else the 28 px file if that lies
there, whose images the harness enlarges (said in `notes`); else the native file is downloaded into the folder. Every
file's MD5 is checked.
"""

from __future__ import annotations

import hashlib
import importlib.util
import runpy
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np

from bench import npzfile
from bench.contract import SPLITS, Dataset, Info, Kind, Split
from bench.download import fetch, verify
from bench.errors import DataError

PREFIX = ""
SIZES = (28, 64, 128, 224)
KINDS: dict[str, Kind] = {
    "binary-class": "binary",
    "multi-class": "multi-class",
    "multi-label, binary-class": "multi-label",
    "ordinal-regression": "ordinal",
}
MODALITIES = {
    "pathmnist": "histology",
    "chestmnist": "x-ray",
    "dermamnist": "dermatoscopy",
    "octmnist": "oct",
    "pneumoniamnist": "x-ray",
    "retinamnist": "fundus",
    "breastmnist": "ultrasound",
    "bloodmnist": "histology",  # stained cells: the augmentation policy of histology fits them
    "tissuemnist": "microscopy",
    "organamnist": "ct",
    "organcmnist": "ct",
    "organsmnist": "ct",
}
ORGANS = ("organamnist", "organcmnist", "organsmnist")
NOTES = {
    "pathmnist": "a shift is built in: train and val are of one centre (NCT-CRC-HE-100K), test is of another one "
    "(CRC-VAL-HE-7K)",
    "dermamnist": "some lesions have several photographs, which may be in different splits: val and test are easier "
    "than new patients (HAM10000)",
}
CITATION = (
    "Yang et al. (2023). MedMNIST v2: A large-scale lightweight benchmark for 2D and 3D biomedical image "
    "classification. Scientific Data 10:41."
)


def names() -> list[str]:
    return list(MODALITIES)


def open_dataset(name: str, root: Path, seed: int, source_size: int) -> Dataset:
    """The set `name` from the folder `root`; splits are the official ones, so `seed` changes nothing. Raises
    DataError."""
    if source_size not in (0, *SIZES):
        raise DataError(
            f"{name}: source_size = {source_size} does not exist. Use 28, 64, 128, 224, or 0 to let the suite choose."
        )
    return MedMnist(name, Path(root), source_size)


class MedMnist(Dataset):
    def __init__(self, flag: str, root: Path, forced_size: int) -> None:
        self.flag, self.root, self.forced_size = flag, root, forced_size
        self.record = _registry()[flag]
        self.verified: set[Path] = set()
        self.notes = (NOTES[flag],) if flag in NOTES else ()
        self.info = Info(
            name=flag,
            kind=KINDS[self.record["task"]],
            classes=tuple(self.record["label"][str(value)] for value in range(len(self.record["label"]))),
            channels=self.record["n_channels"],
            modality=MODALITIES[flag],
            licence=self.record["license"],
            noncommercial="NC" in self.record["license"],
            citation=CITATION,
            source=self.record["url"],
        )

    def load(self, split: str, size: int) -> Split:
        path = self._file(self.source_size(size))
        images, labels = npzfile.images_and_labels(path, split)
        ids = np.array([f"{self.flag}/{split}/{index}" for index in range(len(images))])
        return Split(images, labels, ids)

    def count(self, split: str) -> int:
        return int(self.record["n_samples"][split])

    def content_hash(self, size: int) -> str:
        md5 = self.record[_key("MD5", self.source_size(size))]
        return hashlib.sha256(f"{self.flag} {md5} official splits {SPLITS}".encode()).hexdigest()

    def stored_size(self) -> int | None:
        return max((side for side in SIZES if self._path(side).exists()), default=None)

    def source_size(self, size: int) -> int:
        if self.forced_size:
            chosen, why = self.forced_size, f"source_size is {self.forced_size}"
        else:
            native = next((side for side in SIZES if side >= size), SIZES[-1])
            enlarge = not self._path(native).exists() and self._path(28).exists()
            chosen, why = (28 if enlarge else native), f"{self._path(native).name} is not in {self.root}"
        if chosen < size:
            reason = why if self.forced_size or chosen == 28 else "no larger file exists"
            note = f"{self.flag} at {size} px: {reason}, so {chosen} px images are enlarged"
            self.notes = tuple(dict.fromkeys((*self.notes, note)))
        return chosen

    def notes_beside(self, other: Info) -> tuple[str, ...]:
        if self.flag in ORGANS and other.name in ORGANS:
            return (
                "OrganA/C/S: slices of the same CT scans in three directions: source and target training patients "
                "coincide; test patients are disjoint from them",
            )
        if self.flag == "chestmnist" and other.kind == "binary":
            return ("chestmnist: heavily imbalanced: about 13 in 1,000 images have pneumonia",)
        return ()

    def _path(self, side: int) -> Path:
        return self.root / f"{_key(self.flag, side)}.npz"

    def _file(self, side: int) -> Path:
        """The file with images of `side` pixels: downloaded if it is not there, its MD5 checked once."""
        path, md5 = self._path(side), self.record[_key("MD5", side)]
        if not path.exists():
            fetch(self.record[_key("url", side)], path, md5)
        elif path not in self.verified:
            verify(path, md5)
        self.verified.add(path)
        return path


def _key(stem: str, side: int) -> str:
    """MedMNIST leaves the size away from names at 28 px: "url", "url_64"."""
    return stem if side == 28 else f"{stem}_{side}"


@lru_cache(maxsize=1)
def _registry() -> dict[str, dict[str, Any]]:
    """medmnist's INFO. Its file is run alone: importing the package takes seconds, for classes that are not used
    here."""
    package = importlib.util.find_spec("medmnist")
    if package is None or package.origin is None:
        raise DataError(
            "The package medmnist, with MedMNIST's addresses and checksums, is missing. pip install medmnist"
        )
    info: dict[str, dict[str, Any]] = runpy.run_path(str(Path(package.origin).with_name("info.py")))["INFO"]
    return info
