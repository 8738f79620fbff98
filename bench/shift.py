"""Shift datasets, written `SOURCE->TARGET`: train and val are of one domain, test is of another one.

Any two datasets with the same classes make one. TARGET is a dataset's name; `@DOMAIN`, another domain of the source's
CSV; or `corrupted:KIND-SEVERITY`, the source's own images as a worse scanner would give them (bench/corruptions.py).
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress
from dataclasses import replace
from itertools import permutations

from bench.contract import Dataset, Info, Split
from bench.errors import DataError, MedtransferError, UsageError
from bench.label_space import label_space, same
from bench.views import CORRUPTED, Corrupted, Half, Side, digest

ARROW = "->"


def open_shift(name: str, seed: int, open_one: Callable[[str], Dataset]) -> Dataset:
    """The shift of this name; `open_one` opens the dataset of a name, `seed` halves train where both domains come from
    it. Raises UsageError, DataError."""
    first, _, second = name.partition(ARROW)
    if not first or not second or ARROW in second or first.startswith(CORRUPTED):
        raise UsageError(f'"{name}": a shift is SOURCE->TARGET, such as organamnist->organcmnist. Name two datasets.')
    source = _opened(name, "source", first, open_one)
    if second.startswith(CORRUPTED):
        return _corrupted(name, source, second, seed)
    if second.startswith("@"):
        second = first.rpartition("@")[0] + second
    if first == second:
        raise UsageError(f'"{name}": source and target are the same. Name another target.')
    target = _opened(name, "target", second, open_one)
    kind, classes, ours, theirs, notes = label_space(name, source.info, target.info)
    notes += source.notes_beside(target.info) + target.notes_beside(source.info)
    source, target = Side("source", source, kind, classes, ours), Side("target", target, kind, classes, theirs)
    return Shift(name, source, target, tuple(dict.fromkeys(notes)))


class Shift(Dataset):
    """Train and val of the source, test of the target. `source` and `target` have the same labels."""

    source: Dataset
    target: Dataset

    def __init__(self, name: str, source: Dataset, target: Dataset, notes: tuple[str, ...]) -> None:
        self.source, self.target, self.of_both = source, target, notes
        ours, theirs = source.info, target.info
        self.info = replace(
            ours,
            name=name,
            target=theirs.name,
            channels=max(ours.channels, theirs.channels),  # a network sees gray images in three channels
            licence="unknown" if "unknown" in (ours.licence, theirs.licence) else _both(ours.licence, theirs.licence),
            noncommercial=ours.noncommercial or theirs.noncommercial,
            citation=_both(ours.citation, theirs.citation),
            source=_both(ours.source, theirs.source),
        )
        self.notes = self._gathered()

    def load(self, split: str, size: int) -> Split:
        return self._of(split).load(split, size)

    def count(self, split: str) -> int:
        return self._of(split).count(split)

    def content_hash(self, size: int) -> str:
        return digest("shift", self.source.content_hash(size), self.target.content_hash(size))

    def source_size(self, size: int) -> int:
        sides = [side.source_size(size) for side in (self.source, self.target)]
        differ = f"at {size} px: the source's images are {sides[0]} px wide, the target's {sides[1]} px: "
        differ += "part of the shift is resolution"
        self.notes = (*self._gathered(), *([differ] if sides[0] != sides[1] else []))
        return sides[0]

    def _of(self, split: str) -> Dataset:
        return self.target if split == "test" else self.source

    def _gathered(self) -> tuple[str, ...]:
        """What holds of one domain with its role, what holds of both once."""
        ours, theirs = self.source.notes, self.target.notes
        found = [note if note in theirs else f"source: {note}" for note in ours]
        return (*found, *(f"target: {note}" for note in theirs if note not in ours), *self.of_both)


def pairs(infos: Sequence[Info]) -> Iterator[str]:
    """The shifts between these datasets, but for classes that are mere numbers: grade 2 of one set may not be grade 2
    of another one."""
    for source, target in permutations(infos, 2):
        if not all(each.isdigit() for each in source.classes):
            with suppress(DataError):
                label_space(name := f"{source.name}{ARROW}{target.name}", source, target)
                yield name


def _corrupted(name: str, base: Dataset, target: str, seed: int) -> Shift:
    """Source and target train on different images, as two hospitals do: with the same ones, features would be alike for
    matching every image with its own copy."""
    info, classes = base.info, base.info.classes
    source = Side("source", Half(base, "source", seed), info.kind, classes, same)
    worse = Side("target", Corrupted(Half(base, "target", seed), target), info.kind, classes, same)
    notes = (
        f"train is halved by seed {seed}: the source has one half, the target the other one, corrupted; a patient with "
        "several images may be in both",
        "the target's val and test are the source's, corrupted; copies across splits, which corruption may hide, are "
        f"shown by an audit of {info.name} itself",
    )
    return Shift(name, source, worse, notes)


def _opened(name: str, role: str, side: str, open_one: Callable[[str], Dataset]) -> Dataset:
    try:
        return open_one(side)
    except MedtransferError as error:
        raise type(error)(f"{role} of {name}: {error}") from error


def _both(ours: str, theirs: str) -> str:
    return "; ".join(filter(None, dict.fromkeys((ours, theirs))))
