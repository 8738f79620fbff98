"""Which ensembles a matrix asks for: every fusion among its strategies, over members that differ in one thing each."""

from __future__ import annotations

import hashlib
import json
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from bench import ENGINE

if TYPE_CHECKING:
    from bench.plan import Cell

ALL_BACKBONES = "all backbones"
"""Stands for the backbone of an ensemble whose members have several."""


@dataclass(frozen=True)
class Member:
    """One fit whose stored predictions an ensemble takes."""

    fingerprint: str
    seed: int
    label: str
    view: int | None = None
    """Of test-time augmentation: which of the views, 0 for the image itself."""


@dataclass(frozen=True)
class Ensemble:
    """One row to be: a fusion and its members."""

    fusion: str
    over: str
    """What the members differ in, one of bench.rules.OVERS."""
    dataset: str
    strategy: str
    """Shown as the row's strategy: `ensemble_mean(full_finetune)`."""
    backbone: str
    seed: int
    members: tuple[Member, ...]
    fingerprint: str
    """Of the fusion's source and the members' cells: the same for all seeds, another one where a member's cell is."""
    source_hash: str
    place: tuple[str, int, float, int | None]
    """Dataset, size, fraction of train and images a class: its members are in no ensemble of another place."""

    @property
    def label(self) -> str:
        return f"{self.dataset} · {self.backbone} · {self.strategy} · seed {self.seed}"


@dataclass(frozen=True)
class Candidate:
    """A cell, or imported predictions, as a member of ensembles."""

    fingerprint: str
    dataset: str
    size: int
    fraction: float
    per_class: int | None
    backbone: str
    strategy: str
    seeds: tuple[int, ...]
    views: int = 0
    imported: bool = False


def of_cells(cells: Iterable[Cell], seeds: int) -> list[Candidate]:
    """The cells that may have predictions: all that are not skipped."""
    return [
        Candidate(
            cell.fingerprint, cell.dataset, cell.size, cell.amount.fraction, cell.amount.per_class,
            cell.backbone.label, cell.strategy, tuple(range(seeds)), cell.protocol.views,
        )
        for cell in cells
        if not cell.skip
    ]  # fmt: skip


def ensembles(candidates: Sequence[Candidate], fusions: Mapping[str, str], over: Sequence[str]) -> list[Ensemble]:
    """All ensembles of two or more members; `fusions` maps names to source hashes. Where there is one backbone only,
    `all` would repeat `strategies`, and where there is one strategy only `backbones`: it is left out."""
    places = defaultdict(list)
    for one in candidates:
        places[one.dataset, one.size, one.fraction, one.per_class].append(one)
    found = []
    for where, place in places.items():
        taken: set[frozenset[Member]] = set()
        for kind in (kind for kind in _GROUPS if kind in over):
            for what, backbone, fits in _GROUPS[kind](place):
                cells = dict.fromkeys((one.fingerprint, view) for _, one, view in fits)
                for seed, members in _by_row(kind, fits).items():
                    if len(members) < 2 or (kind == "all" and frozenset(members) in taken):
                        continue
                    taken.add(frozenset(members))
                    found += [
                        Ensemble(
                            name, kind, place[0].dataset, f"{name}({what})", backbone, seed,
                            tuple(sorted(members, key=lambda member: member.label)),
                            _fingerprint(name, source_hash, kind, list(cells), members), source_hash, where,
                        )
                        for name, source_hash in fusions.items()
                    ]  # fmt: skip
    return found


_Fit = tuple[int, Candidate, int | None]
"""Seed, cell, view."""
_Group = tuple[str, str, list[_Fit]]
"""What is fused, the backbone's label, and the fits."""


def _over_backbones(place: list[Candidate]) -> Iterable[_Group]:
    for strategy in dict.fromkeys(one.strategy for one in place if not one.imported):
        yield strategy, ALL_BACKBONES, _fits(one for one in place if one.strategy == strategy and not one.imported)


def _over_seeds(place: list[Candidate]) -> Iterable[_Group]:
    for one in place:
        yield f"seeds of {one.strategy}", one.backbone, _fits([one])


def _over_strategies(place: list[Candidate]) -> Iterable[_Group]:
    for backbone in dict.fromkeys(one.backbone for one in place if not one.imported):
        yield "strategies", backbone, _fits(one for one in place if one.backbone == backbone and not one.imported)


def _over_all(place: list[Candidate]) -> Iterable[_Group]:
    yield "all", ALL_BACKBONES, _fits(place)


def _over_views(place: list[Candidate]) -> Iterable[_Group]:
    for one in place:
        fits: list[_Fit] = [(seed, one, view) for seed in one.seeds for view in range(one.views + 1)]
        yield f"views of {one.strategy}", one.backbone, fits


_GROUPS = {
    "backbones": _over_backbones,
    "seeds": _over_seeds,
    "strategies": _over_strategies,
    "all": _over_all,
    "views": _over_views,
}


def _fits(cells: Iterable[Candidate]) -> list[_Fit]:
    return [(seed, one, None) for one in cells for seed in one.seeds]


def _by_row(over: str, fits: list[_Fit]) -> dict[int, list[Member]]:
    """Seed of the row -> its members: those of the same seed, or of all seeds where they differ in it."""
    rows = defaultdict(list)
    for seed, one, view in fits:
        label = f"{one.backbone} · {one.strategy} · seed {seed}" + (f" · view {view}" if view is not None else "")
        rows[0 if over == "seeds" else seed].append(Member(one.fingerprint, seed, label, view))
    return rows


def _fingerprint(
    fusion: str, source_hash: str, over: str, cells: Sequence[tuple[str, int | None]], members: Sequence[Member]
) -> str:
    facts = {
        "engine": ENGINE,
        "fusion": fusion,
        "source_hash": source_hash,
        "over": over,
        "cells": sorted(cells, key=str),
        # Members of one seed each are told by the row's seed; only where they differ in it are the seeds a definition.
        "seeds": sorted(member.seed for member in members) if over == "seeds" else [],
    }
    return hashlib.sha256(json.dumps(facts, sort_keys=True, separators=(",", ":")).encode()).hexdigest()[:20]
