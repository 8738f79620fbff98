"""Phantoms: deterministic, procedurally drawn stand-ins for the modalities, for trying things out with no data and no
network.

They look only roughly like what they are named after and say nothing about medicine. A linear probe on raw pixels is
clearly worse on them than a small CNN. `phantom-organ-a` and `phantom-organ-b` show the same organs in two views: a
domain pair.
"""

from __future__ import annotations

import hashlib
import zlib
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import numpy as np

from bench import drawing, phantoms
from bench.contract import SPLITS, Dataset, Info, Kind, Split
from bench.drawing import Rng
from bench.errors import DataError

PREFIX = ""
COUNTS = {"train": 400, "val": 100, "test": 200}
Draw = Callable[[Rng, np.ndarray, int], np.ndarray]
"""Draws uint8 images [N, S, S] or [N, S, S, 3] for labels int64 [N] or uint8 [N, K]."""


@dataclass(frozen=True)
class Phantom:
    draw: Draw
    kind: Kind
    classes: tuple[str, ...]
    modality: str
    channels: int = 1
    weights: tuple[float, ...] = ()
    """Shares of the classes, or for multi-label how common each label is; equal shares if empty."""


ORGANS = ("liver", "kidney", "spleen", "bladder", "bowel")
PHANTOMS = {
    "phantom-histology": Phantom(
        phantoms.histology, "multi-class", ("stroma", "lymphoid", "gland", "tumour", "mucus"), "histology", 3
    ),
    "phantom-radiograph": Phantom(phantoms.radiograph, "binary", ("clear", "opacity"), "x-ray", weights=(0.4, 0.6)),
    "phantom-fundus": Phantom(
        phantoms.fundus, "ordinal", ("0", "1", "2", "3", "4"), "fundus", 3, weights=(0.3, 0.2, 0.2, 0.15, 0.15)
    ),
    "phantom-chest": Phantom(
        phantoms.findings, "multi-label", ("nodule", "cavity", "reticular", "catheter", "bulla"), "x-ray",
        weights=(0.4, 0.25, 0.2, 0.3, 0.35),
    ),
    "phantom-organ-a": Phantom(partial(phantoms.organ, view="a"), "multi-class", ORGANS, "ct"),
    "phantom-organ-b": Phantom(partial(phantoms.organ, view="b"), "multi-class", ORGANS, "ct"),
}  # fmt: skip


def names() -> list[str]:
    return list(PHANTOMS)


def open_dataset(name: str, root: Path, seed: int, source_size: int) -> Dataset:
    """Splits are fixed, and images are drawn at the size asked for: `root`, `seed` and `source_size` change nothing."""
    return Drawn(name, PHANTOMS[name])


class Drawn(Dataset):
    def __init__(self, name: str, phantom: Phantom) -> None:
        self.phantom = phantom
        self.info = Info(
            name, phantom.kind, phantom.classes, phantom.channels, phantom.modality, licence="CC0 1.0",
            citation="Drawn by medtransfer; no patient, no scanner.", source="drawn by medtransfer",
        )  # fmt: skip

    def load(self, split: str, size: int) -> Split:
        if size < 8:
            raise DataError(f"{self.info.name}: size = {size} is too small to draw. Use 8 px or more.")
        rng = np.random.Generator(np.random.PCG64([zlib.crc32(self.info.name.encode()), SPLITS.index(split)]))
        count = COUNTS[split]
        labels = self._labels(rng, count)
        images = self.phantom.draw(rng, labels, size)
        return Split(images, labels, np.array([f"{self.info.name}/{split}/{index}" for index in range(count)]))

    def content_hash(self, size: int) -> str:
        files = (drawing.__file__, phantoms.__file__, __file__)
        source = b"".join(Path(file).read_bytes() for file in files)
        return hashlib.sha256(f"{self.info.name} {size} {COUNTS} ".encode() + source).hexdigest()

    def _labels(self, rng: Rng, count: int) -> np.ndarray:
        width, weights = len(self.info.classes), self.phantom.weights
        if self.info.kind == "multi-label":
            return (rng.random((count, width)) < weights).astype(np.uint8)
        ends = np.cumsum(weights or np.full(width, 1 / width)) * count
        return rng.permutation(np.searchsorted(ends.round(), np.arange(count), side="right").clip(max=width - 1))
