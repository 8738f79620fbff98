"""A Matrix becomes cells: which run, which are skipped and why, which are done already."""

from __future__ import annotations

import fnmatch
import hashlib
import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from bench import ENGINE, registry, store
from bench.backbones import resolve, too_small
from bench.config import Amount, Matrix
from bench.contract import Backbone, Dataset, Info, Protocol, Strategy
from bench.errors import MedtransferError, UsageError


@dataclass(frozen=True)
class Cell:
    """backbone x strategy x dataset x size x amount: tuned once, then fitted once a seed."""

    backbone: Backbone
    strategy: str
    dataset: str
    size: int
    amount: Amount
    protocol: Protocol
    settings: Mapping[str, Any]
    data_root: Path
    source_size: int
    """As asked for; 0 leaves it to the dataset."""
    pixels: int
    """Side of the images that are read, before they are resized to `size`; 0 where the dataset cannot be opened."""
    split_seed: int
    workspace: Path
    fingerprint: str
    hashes: Mapping[str, str]
    """source_hash, weights_hash and data_hash."""
    info: Info | None
    """None where the dataset cannot be opened."""
    notes: tuple[str, ...] = ()
    skip: str = ""
    """Why the strategy does not apply; empty where it does."""
    error: str = ""
    """Why the cell cannot run: weights or data are missing or damaged."""

    @property
    def label(self) -> str:
        amount = f" {self.amount.per_class} a class" if self.amount.per_class else ""
        amount = amount or (f" {self.amount.fraction:g} of train" if self.amount.fraction != 1 else "")
        return f"{self.dataset} {self.size} px{amount} · {self.backbone.label} · {self.strategy}"


@dataclass(frozen=True)
class Plan:
    """What a run will do."""

    matrix: Matrix
    workspace: Path
    cells: list[Cell]
    done: set[tuple[str, int]]
    """(fingerprint, seed) of the rows that are there already."""
    notes: tuple[str, ...] = field(default=())
    """What a user should know of the data and weights."""

    def missing(self, cell: Cell) -> list[int]:
        """The seeds whose rows are not there yet."""
        return [seed for seed in range(self.matrix.seeds) if (cell.fingerprint, seed) not in self.done]

    @property
    def todo(self) -> list[Cell]:
        """The cells of which a row is missing, skipped ones included."""
        return [cell for cell in self.cells if self.missing(cell)]

    @property
    def skips(self) -> list[Cell]:
        return [cell for cell in self.cells if cell.skip]

    @property
    def errors(self) -> list[Cell]:
        return [cell for cell in self.cells if cell.error]


def make_plan(matrix: Matrix, workspace: Path) -> Plan:
    """Resolve weights, datasets and strategies, and fingerprint every cell. A backbone or dataset that cannot be had
    fails its own cells only. Raises UsageError for a name that does not exist or an `--only` that matches nothing."""
    strategies = {name: registry.load_strategy(name, workspace) for name in matrix.strategies}
    sources = {name: registry.source_hash(name, workspace) for name in matrix.strategies}
    weights = {backbone.label: _weights(backbone) for backbone in matrix.backbones}
    cells: list[Cell] = []
    notes: list[str] = []
    for dataset_name in matrix.datasets:
        for size in matrix.sizes:
            dataset, data_hash, data_error = _dataset(matrix, dataset_name, size, workspace)
            data_notes = dataset.notes if dataset else ()
            notes += data_notes
            for amount in matrix.amounts:
                for backbone in matrix.backbones:
                    for name, strategy in strategies.items():
                        weights_hash, weights_error = weights[backbone.label] if strategy.pretrained else ("random", "")
                        hashes = {"source_hash": sources[name], "weights_hash": weights_hash, "data_hash": data_hash}
                        settings = matrix.settings.get(name, {})
                        pixels = dataset.source_size(size) if dataset else 0
                        info = dataset.info if dataset else None
                        cell = Cell(
                            backbone=backbone,
                            strategy=name,
                            dataset=dataset_name,
                            size=size,
                            amount=amount,
                            protocol=matrix.protocol,
                            settings=settings,
                            data_root=matrix.data_root,
                            source_size=matrix.source_size,
                            pixels=pixels,
                            split_seed=matrix.split_seed,
                            workspace=workspace,
                            fingerprint=_fingerprint(matrix, backbone, name, strategy, size, pixels, amount, hashes),
                            hashes=hashes,
                            info=info,
                            notes=data_notes + _warnings(backbone, strategy),
                            skip=_skip(strategy, info, backbone, size) if info and not weights_error else "",
                            error=data_error or weights_error,
                        )
                        if all(_matches(cell, key, pattern) for key, pattern in matrix.only):
                            cells.append(cell)
    if not cells:
        wanted = " ".join(f"--only {key}={pattern}" for key, pattern in matrix.only)
        raise UsageError(f"{wanted}: no cell of this matrix matches. See `medtransfer plan` without it.")
    random = [b.label for b in matrix.backbones if b.weights == "random"]
    if random:
        notes.append(
            f"RANDOM WEIGHTS: {', '.join(random)} {'has' if len(random) == 1 else 'have'} no pretrained weights, so "
            "what is compared here is the machinery, not transfer."
        )
    return Plan(matrix, workspace, cells, store.finished(matrix.results), tuple(dict.fromkeys(notes)))


def _weights(backbone: Backbone) -> tuple[str, str]:
    """(hash, error) of a backbone's weights."""
    try:
        return resolve(backbone).hash, ""
    except UsageError:
        raise
    except MedtransferError as error:
        return "unknown", str(error)


def _dataset(matrix: Matrix, name: str, size: int, workspace: Path) -> tuple[Dataset | None, str, str]:
    """(dataset, content hash, error)."""
    try:
        dataset = registry.open_dataset(name, matrix.data_root, matrix.split_seed, matrix.source_size, workspace)
        return dataset, dataset.content_hash(size), ""
    except UsageError:
        raise
    except MedtransferError as error:
        return None, "unknown", str(error)


def _fingerprint(
    matrix: Matrix,
    backbone: Backbone,
    name: str,
    strategy: Strategy,
    size: int,
    source_size: int,
    amount: Amount,
    hashes: Mapping[str, str],
) -> str:
    """The first 20 hex digits of the sha256 of the canonical JSON of all that determines a cell's result."""
    network = {key: value for key, value in asdict(backbone).items() if key not in ("weights", "name")}
    network["kwargs"] = dict(backbone.kwargs)
    facts = {
        "engine": ENGINE,
        "backbone": network,
        "strategy": name,
        "settings": matrix.settings.get(name, {}),
        "size": size,
        "source_size": source_size,
        "amount": asdict(amount),
        "split_seed": matrix.split_seed,
        "protocol": asdict(matrix.protocol),
        **hashes,
    }
    return hashlib.sha256(json.dumps(facts, sort_keys=True, separators=(",", ":")).encode()).hexdigest()[:20]


def _skip(strategy: Strategy, info: Info, backbone: Backbone, size: int) -> str:
    return too_small(backbone, size) or strategy.applies(info, backbone) or ""


def _warnings(backbone: Backbone, strategy: Strategy) -> tuple[str, ...]:
    return ("random weights",) if backbone.weights == "random" and strategy.pretrained else ()


def _matches(cell: Cell, key: str, pattern: str) -> bool:
    values = {
        "dataset": cell.dataset,
        "backbone": cell.backbone.label,
        "strategy": cell.strategy,
        "size": cell.size,
        "fraction": f"{cell.amount.fraction:g}",
        "per_class": cell.amount.per_class,
    }
    # Brackets are part of a cut backbone's name, not a set of characters.
    return fnmatch.fnmatchcase(str(values[key]), pattern.replace("[", "[[]"))
