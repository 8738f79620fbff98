"""What a careful user asks of a dataset before believing a score: hash, licence, counts, images that are in two
splits."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from itertools import combinations

import numpy as np
import torch
from torch.nn.functional import adaptive_avg_pool2d

from bench.contract import SPLITS, Dataset, Split
from bench.labelled import load_split

BUDGET = 4 << 30
"""Bytes of pixels read at most; beyond it, splits are thinned evenly, which `Audit.sampled` says."""
HASH_BITS = 3
"""Bits, of 64, in which the gradient hashes of near duplicates may differ."""
PIXEL_DIFFERENCE = 3.0
"""Gray levels, of 255, by which the thumbnails of near duplicates may differ on average, after matching mean and
contrast."""
NEIGHBOURS = 16
FLAT = 2.0
"""Gray levels a gradient must rise by to set its bit: noise on a flat background must not."""
BLANK = 2.0
"""Gray levels of contrast (standard deviation) below which an image counts as blank."""


@dataclass(frozen=True)
class Overlap:
    """Images of one split that are also in another."""

    first: str
    second: str
    exact: int
    """Images of `second` with the same pixels as one of `first`; each counts once, however many copies there are."""
    near: int
    """Images of `second` that are not exact copies but look the same as one of `first`: a lower bound."""
    examples: tuple[tuple[str, str], ...]
    """Up to five pairs of ids, exact ones first."""


@dataclass(frozen=True)
class Audit:
    name: str
    content_hash: str
    licence: str
    noncommercial: bool
    kind: str
    source_size: int
    """Side in pixels of the images looked at."""
    sizes: dict[str, int]
    """Images a split."""
    class_counts: dict[str, dict[str, int]]
    """Split -> class -> images; for multi-label also "no label"."""
    blank: int
    """Images with next to no contrast."""
    overlaps: tuple[Overlap, ...]
    """train/val, train/test and val/test; of a shift also those of "target train", which strategies see without labels.
    Train and val are the source's then, test is the target's."""
    sampled: str
    """"" where every image was looked at, else what was."""
    notes: tuple[str, ...]


def audit(dataset: Dataset, size: int) -> Audit:
    """Reads the three splits at `size` pixels. 100,000 images at 28 px take seconds. Raises DataError.

    Exact duplicates have equal pixels. Near duplicates have gradient hashes (dHash of a 9 x 8 thumbnail) that are
    equal up to a few bits and 16 x 16 thumbnails that differ little; they are looked for among neighbours in eight
    sorted orders of the hashes (Charikar 2002), so the work is bounded however alike the images are. Blank images are
    left out of it.
    """
    splits = {name: load_split(dataset, name, size) for name in SPLITS}
    parts = splits
    if dataset.target is not None:
        parts = {name: splits[name] for name in ("train", "val")}
        parts |= {"target train": dataset.target.load("train", size), "test": splits["test"]}
    names = list(parts)
    chosen = {name: _thinned(split, _kept_share(parts)) for name, split in parts.items()}
    looked, total = sum(map(len, chosen.values())), sum(map(len, parts.values()))
    prints = {name: _prints(parts[name].images, rows) for name, rows in chosen.items()}
    part = np.repeat(np.arange(len(names)), [len(chosen[name]) for name in names])
    ids = np.concatenate([parts[name].ids[chosen[name]] for name in names])
    exact, hashes, thumbs, blank = (np.concatenate([prints[name][item] for name in names]) for item in range(4))
    near = _near_pairs(part, hashes, thumbs, blank)
    pairs = combinations(range(len(names)), 2)
    return Audit(
        name=dataset.info.name,
        content_hash=dataset.content_hash(size),
        licence=dataset.info.licence,
        noncommercial=dataset.info.noncommercial,
        kind=dataset.info.kind,
        source_size=dataset.source_size(size),
        sizes={name: len(split) for name, split in splits.items()},
        class_counts={name: _counts(split.labels, dataset.info.classes) for name, split in splits.items()},
        blank=int(blank.sum()),
        overlaps=tuple(_overlap(names, one, two, part, ids, exact, near) for one, two in pairs),
        sampled="" if looked == total else f"duplicates and blank images looked for in {looked} of {total} images",
        notes=dataset.notes,
    )


def _kept_share(splits: dict[str, Split]) -> float:
    return min(1.0, BUDGET / sum(split.images.nbytes for split in splits.values()))


def _thinned(split: Split, share: float) -> np.ndarray:
    return np.unique(np.linspace(0, len(split) - 1, max(1, round(share * len(split)))).astype(np.int64))


def _prints(images: np.ndarray, rows: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    """Of each image: 128-bit pixel hash (bytes), gradient hash uint64, thumbnail float32 [256], whether it is blank."""
    exact, hashes, thumbs, blank = [], [], [], []
    step = max(1, (64 << 20) // max(1, images[:1].nbytes))
    for start in range(0, len(rows), step):
        chunk = np.ascontiguousarray(images[rows[start : start + step]])
        exact.append(np.array([hashlib.blake2b(image, digest_size=16).hexdigest() for image in chunk]))
        gray = torch.from_numpy(chunk).float()
        gray = gray.mean(-1) if gray.ndim == 4 else gray
        contrast = gray.flatten(1).std(1)
        coarse = adaptive_avg_pool2d(gray, (8, 9))
        bits = (coarse[:, :, 1:] - coarse[:, :, :-1] > FLAT).flatten(1).numpy()
        hashes.append(np.packbits(bits, axis=1).view(np.uint64)[:, 0])
        small = adaptive_avg_pool2d(gray, (16, 16)).flatten(1)
        # A copy may have been brightened: thumbnails are compared at the same mean and at a contrast of 64 gray levels.
        spread = small.std(1, keepdim=True).clamp_min(1e-6)
        thumbs.append(((small - small.mean(1, keepdim=True)) / spread * 64).numpy())
        blank.append((contrast < BLANK).numpy())
    return np.concatenate(exact), np.concatenate(hashes), np.concatenate(thumbs), np.concatenate(blank)


def _near_pairs(part: np.ndarray, hashes: np.ndarray, thumbs: np.ndarray, blank: np.ndarray) -> np.ndarray:
    """int64 [M, 2]: (earlier, later) images of different splits that look the same."""
    rows = np.flatnonzero(~blank)
    bits = hashes[rows]
    found = [np.empty((0, 2), dtype=np.int64)]
    for turn in range(0, 64, 8):  # each order has other bits in front, so a differing bit spoils few of them
        order = np.argsort(bits << np.uint64(turn) | bits >> np.uint64((64 - turn) % 64), kind="stable")
        for offset in range(1, NEIGHBOURS + 1):
            one, two = order[:-offset], order[offset:]
            close = (np.bitwise_count(bits[one] ^ bits[two]) <= HASH_BITS) & (part[rows[one]] != part[rows[two]])
            found.append(np.sort(np.column_stack([rows[one[close]], rows[two[close]]]), axis=1))
    pairs = np.unique(np.concatenate(found), axis=0)
    alike = [
        np.abs(thumbs[some[:, 0]] - thumbs[some[:, 1]]).mean(1) <= PIXEL_DIFFERENCE
        for some in np.array_split(pairs, len(pairs) // 100_000 + 1)
    ]
    return pairs[np.concatenate(alike)]


def _overlap(
    names: list[str], one: int, two: int, part: np.ndarray, ids: np.ndarray, exact: np.ndarray, near: np.ndarray
) -> Overlap:
    first, second = np.flatnonzero(part == one), np.flatnonzero(part == two)
    values, index = np.unique(exact[first], return_index=True)
    place = np.searchsorted(values, exact[second]).clip(max=len(values) - 1)
    same = values[place] == exact[second]
    copies = np.column_stack([first[index[place[same]]], second[same]])
    close = near[(part[near[:, 0]] == one) & (part[near[:, 1]] == two)]
    close = close[~np.isin(close[:, 1], copies[:, 1])]
    _, once = np.unique(close[:, 1], return_index=True)
    examples = np.concatenate([copies, close[once]])[:5]
    pairs = tuple((str(ids[left]), str(ids[right])) for left, right in examples)
    return Overlap(names[one], names[two], len(copies), len(once), pairs)


def _counts(labels: np.ndarray, classes: tuple[str, ...]) -> dict[str, int]:
    if labels.ndim == 2:
        none = int((~(labels > 0).any(1)).sum())
        return {**dict(zip(classes, labels.sum(0, dtype=np.int64).tolist(), strict=True)), "no label": none}
    return dict(zip(classes, np.bincount(labels, minlength=len(classes)).tolist(), strict=True))
