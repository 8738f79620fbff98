"""A table of the user's own image files as a Dataset: checked, split by a seed where no split is given, decoded
once."""

from __future__ import annotations

import hashlib
import json
import math
from collections.abc import Iterable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from bench.cache import cache_folder, filled, whole_file
from bench.contract import SPLITS, Dataset, Info, Split
from bench.decode import CODE, SUFFIXES, decode, is_dicom, is_gray, longer_side, share_of_16_bit
from bench.errors import UNPRINTABLE, DataError
from bench.splits import RATIOS, TRAIN_VAL, make_splits


@dataclass(frozen=True, eq=False)
class Table:
    """Image files with labels. `files` are relative to `root` (posix) and serve as ids; `split`, `groups` and `domains`
    [N] may be None."""

    root: Path
    files: tuple[str, ...]
    labels: np.ndarray
    """int64 [N], or uint8 [N, K] of 0 and 1."""
    split: np.ndarray | None = None
    groups: np.ndarray | None = None
    domains: np.ndarray | None = None


def checked_path(root: Path, file: str) -> Path:
    """The image file, which must exist inside `root` and be of a known type. Raises DataError."""
    path = root / file
    try:
        there = path.exists()
    except OSError as error:  # a name that is too long, a folder that may not be entered
        raise DataError(f"{path}: {error.strerror}. Correct the path, or the folder's permissions.") from error
    if not there:
        raise DataError(
            f"{path}: no such file{' (a broken link)' if path.is_symlink() else ''}. Correct the path or remove it."
        )
    if not path.resolve().is_relative_to(root.resolve()):
        raise DataError(f"{path}: leads out of {root} (to {path.resolve()}). Copy the file into the folder.")
    if not path.is_file() or not (path.suffix.lower() in SUFFIXES or is_dicom(path)):
        known = f"{', '.join(SUFFIXES)}, or DICOM of any name"
        raise DataError(f"{path}: not an image file ({known}). Convert it to PNG, or remove it.")
    return path


LOOKED_AT = 32
"""Images, spread over all, whose pixels are looked at when a dataset is opened."""
DARK = 0.25
"""Share of the 16-bit range below which its images lose most of their gray levels when they become 8-bit."""


def scanned(paths: Sequence[Path]) -> tuple[bool, list[str], float | None]:
    """Whether all images are gray, each file's sha256 (hex), and what share of their range 16-bit images use (None:
    there are none): remembered while names, sizes and times stay."""
    stats = [(str(path.resolve()), (stat := path.stat()).st_size, stat.st_mtime_ns) for path in paths]
    note = cache_folder("images") / f"{hashlib.sha256(json.dumps([CODE, stats]).encode()).hexdigest()[:24]}.json"
    if not note.exists():
        with ThreadPoolExecutor() as pool:
            grays, digests = list(pool.map(is_gray, paths)), list(pool.map(_sha256, paths))
        with whole_file(note) as temporary:
            temporary.write_text(json.dumps([all(grays), digests, _share_of_16_bit(paths)]))
    gray, digests, share = json.loads(note.read_text())
    return gray, digests, share


def _share_of_16_bit(paths: Sequence[Path]) -> float | None:
    shares = [share_of_16_bit(path) for path in paths[:: math.ceil(len(paths) / LOOKED_AT)]]
    return max((share for share in shares if share is not None), default=None)


class ImageFiles(Dataset):
    """Opening checks paths, labels and splits and reads every file once (remembered); pixels are decoded when first
    asked for."""

    def __init__(self, info: Info, table: Table, seed: int, notes: tuple[str, ...] = (), domain: str = "") -> None:
        """Of a table with domains one may be chosen. The split is that of the whole table, drawn within each domain:
        a group that is in several domains is on one side in all of them."""
        checked_names(info.name, info.classes, "class")
        _check_unique(info.name, table)
        self.paths = [checked_path(table.root, file) for file in table.files]
        _check_one_each(info.name, table.files, self.paths)
        self.table = table
        strata = table.labels if table.domains is None else _by_domain(table.labels, table.domains)
        self.rows, split_notes = split_rows(info.name, strata, seed, table.split, table.groups)
        if table.domains is not None:
            chosen = {part: rows[table.domains[rows] == domain] for part, rows in self.rows.items()}
            self.rows = _none_empty(info.name, chosen, SMALL if table.split is None else NONE_GIVEN)
        self.notes = (
            *notes,
            *split_notes,
            *_cased(info.classes),
            *check_classes(info, {name: table.labels[rows] for name, rows in self.rows.items()}),
        )
        self.gray, self.digests, share = scanned(self.paths)
        if share is not None and share < DARK:
            self.notes += (
                f"{info.name}: its images use only {100 * share:.2g} % of the 16-bit range, so they will look nearly "
                "black: rescale them",
            )
        self.info = replace(info, channels=1 if self.gray else 3)

    def load(self, split: str, size: int) -> Split:
        rows = self.rows[split]
        images = self._images(rows, size)
        return Split(images, self.table.labels[rows], np.array(self.table.files)[rows])

    def count(self, split: str) -> int:
        return len(self.rows[split])

    def train_labels(self) -> np.ndarray:
        return self.table.labels[self.rows["train"]]

    def content_hash(self, size: int) -> str:
        files, labels = np.array(self.table.files), self.table.labels
        parts = [
            [files[rows].tolist(), self._key(rows), labels[rows].tolist()]
            for rows in (self.rows[name] for name in SPLITS)
        ]
        return hashlib.sha256(
            json.dumps([parts, size, self.gray, self.info.kind, self.info.classes]).encode()
        ).hexdigest()

    def stored_size(self) -> int:
        some = self.rows["train"][:: math.ceil(len(self.rows["train"]) / LOOKED_AT)]
        return int(np.median([longer_side(self.paths[row]) for row in some]))

    def _key(self, rows: np.ndarray) -> str:
        """sha256 (hex) of the bytes of these files, in order: the same on another machine or after a move."""
        return hashlib.sha256("".join(self.digests[row] for row in rows).encode()).hexdigest()

    def _images(self, rows: np.ndarray, size: int) -> np.ndarray:
        """uint8 [N, size, size] or [N, size, size, 3]: a memory map in the cache folder, filled on first use."""
        key = f"{self._key(rows)[:24]}-{size}-{'gray' if self.gray else 'rgb'}-{CODE}"
        shape = (len(rows), size, size) if self.gray else (len(rows), size, size, 3)
        return filled(
            cache_folder("images") / f"{key}.npy",
            shape,
            lambda index: decode(self.paths[rows[index]], size, self.gray),
            f"{self.info.name} at {size} px",
        )


def split_rows(
    name: str, labels: np.ndarray, seed: int, split: np.ndarray | None, groups: np.ndarray | None
) -> tuple[dict[str, np.ndarray], tuple[str, ...]]:
    """The rows of train, val and test, as given or by the seed, and notes that say which. Raises DataError."""
    kept = ", groups kept whole" if groups is not None else ""
    if split is None:
        shares = "/".join(f"{share:.0%}".rstrip("%") for share in RATIOS.values())
        rows = make_splits(labels, seed, groups)
        return _none_empty(name, rows, SMALL), (f"split {shares} by seed {seed}{kept}",)
    rows = {part: np.flatnonzero(split == part) for part in SPLITS}
    notes = ("split as given",)
    if not len(rows["val"]) and len(train := rows["train"]):
        parts = make_splits(labels[train], seed, None if groups is None else groups[train], TRAIN_VAL)
        rows = {"train": train[parts["train"]], "val": train[parts["val"]], "test": rows["test"]}
        notes = (f"no val given: {TRAIN_VAL['val']:.0%} of train taken by seed {seed}{kept}",)
    if groups is not None:
        parts_of = {part: set(groups[index].tolist()) for part, index in rows.items()}
        for one, other in (("train", "val"), ("train", "test"), ("val", "test")):
            if torn := sorted(parts_of[one] & parts_of[other]):
                raise DataError(
                    f'{name}: group "{torn[0]}" is in {one} and in {other}. Give each group one split, or none.'
                )
    return _none_empty(name, rows, NONE_GIVEN), notes


def check_classes(info: Info, labels: Mapping[str, np.ndarray]) -> tuple[str, ...]:
    """Notes on classes that val or test lack. Raises DataError where train lacks one, or has only one class, and where
    names are no names."""
    checked_names(info.name, info.classes, "class")
    if len(set(info.classes)) < len(info.classes):
        twice = next(name for name in info.classes if info.classes.count(name) > 1)
        raise DataError(f'{info.name}: two classes have the name "{twice}". Give each its own.')
    if len(info.classes) < 2 and info.kind != "multi-label":
        raise DataError(
            f'{info.name}: has one class ("{"".join(info.classes)}"), expected two or more. Add another class.'
        )
    notes = []
    for part in SPLITS:
        values = labels[part]
        counts = values.sum(0) if values.ndim == 2 else np.bincount(values, minlength=len(info.classes))
        missing = [name for name, count in zip(info.classes, counts, strict=True) if not count]
        if missing and part == "train":
            raise DataError(
                f'{info.name}: no training image has the class "{missing[0]}". Add some, or remove the class.'
            )
        if missing:
            notes.append(f"{part} has no image of {', '.join(missing)}: its AUC is undefined there")
    return tuple(notes)


def _cased(classes: Sequence[str]) -> Iterator[str]:
    """Notes on classes that may be one, written in two ways."""
    first: dict[str, str] = {}
    for name in classes:
        if (other := first.setdefault(name.casefold(), name)) != name:
            yield f'"{other}" and "{name}" are two classes, whose names differ in case alone'


def _by_domain(labels: np.ndarray, domains: np.ndarray) -> np.ndarray:
    """Labels for which a class in one domain is another class than in another domain."""
    codes = np.unique(domains, return_inverse=True)[1]
    if labels.ndim == 1:
        return labels * (codes.max() + 1) + codes
    inside = codes[:, None] == np.arange(codes.max() + 1)
    findings = np.column_stack([labels > 0, ~(labels > 0).any(1)])
    return np.column_stack([findings & part[:, None] for part in inside.T])


SMALL = "There are too few images to split them. Add some."
NONE_GIVEN = "Add some, or leave the split to the seed."


def _none_empty(name: str, rows: dict[str, np.ndarray], fix: str) -> dict[str, np.ndarray]:
    for part, index in rows.items():
        if not len(index):
            raise DataError(f"{name}: {part} has no images. {fix}")
    return rows


def checked_names(where: str, names: Iterable[str], what: str) -> None:
    """Names go into tables, pages and terminals. Raises DataError for one that could not, or that could break them."""
    for name in names:
        if UNPRINTABLE.search(name):
            raise DataError(
                f'{where}: the {what} "{name}" has characters in its name that are not UTF-8 text, or control '
                "characters. Rename it."
            )


def _check_one_each(name: str, files: Sequence[str], paths: Sequence[Path]) -> None:
    """One image under two names (`a.png`, `./a.png`, a link) could be in two splits."""
    first: dict[Path, str] = {}
    for file, path in zip(files, paths, strict=True):
        other = first.setdefault(path.resolve(), file)
        if other != file:
            raise DataError(f"{name}: {other} and {file} are the same file. List every image once.")


def _check_unique(name: str, table: Table) -> None:
    if not table.files:
        raise DataError(f"{name}: has no images. Check the path; see README for the layouts that are read.")
    checked_names(name, table.files, "file")
    files, counts = np.unique(np.array(table.files), return_counts=True)
    if counts.max() > 1:
        raise DataError(f"{name}: {files[counts.argmax()]} is listed {counts.max()} times. List every image once.")


def _sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
