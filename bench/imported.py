"""Predictions made elsewhere, as rows: to compare with, and to be members of ensembles."""

from __future__ import annotations

import csv
import hashlib
import json
import logging
import re
from collections import defaultdict
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from bench import ENGINE, evaluate, provenance, registry, store
from bench.contract import Dataset, Kind, Split
from bench.ensembles import ALL_BACKBONES, Candidate
from bench.errors import DataError, UsageError, brief, nearest
from bench.fusing import logs

log = logging.getLogger(__name__)
NAMED = ("backbone", "dataset", "fingerprint", "finished_utc")
"""Columns of an imported row that are text."""
STRATEGY = FAMILY = "imported"
NAME = re.compile(r"(?:(?P<dataset>[a-z0-9]+?)(?:_(?P<size>\d+))?_)?(?P<split>train|val|test)(?![a-z])")
"""MedMNIST's own: {dataset}{_size}_{split}, then anything, then @{run}.csv."""


@dataclass(frozen=True)
class Source:
    """One file of predictions, as its name gives it."""

    path: Path
    dataset: str
    size: int
    split: str
    run: str


def import_predictions(
    files: Sequence[Path], name: str, results: Path, data_root: Path, workspace: Path, dataset: str = "", size: int = 0
) -> list[dict[str, Any]]:
    """Publish a row for each run that `files` hold the test predictions of (and, for fusions that look at it, val), and
    return the rows. `name` stands as their backbone, `dataset` and `size` replace what the files' names say.

    A file is as medmnist's Evaluator writes it: no header, the image's number in the split, then a probability a class
    (binary: of class 1 alone, or of both). Rows of the same name on the same dataset and size are superseded. Raises
    UsageError, DataError."""
    _check(name, results, workspace)
    sources = [_source(path, dataset, size) for path in files]
    places = defaultdict(list)
    for source in sources:
        places[source.dataset, source.size].append(source)
    rows = []
    for (where, pixels), found in places.items():
        opened = registry.open_dataset(where, data_root, workspace=workspace)
        rows += _published(found, opened, where, pixels, name, results)
    return rows


def _check(name: str, results: Path, workspace: Path) -> None:
    """Raises UsageError where no run has written to `results`, or where one of its networks or a strategy has this
    name."""
    if not (results / "cells").is_dir():
        near = nearest(str(results), [str(path.parent) for path in results.parent.glob("*/cells")])
        raise UsageError(f"--results {results}: no run has written there. Name the folder of a run.{near}")
    ours = {row["backbone"] for path in (results / "cells").glob("*.json") if (row := _network(path))}
    if name in {*ours, ALL_BACKBONES}:
        raise UsageError(f"--name {name}: a backbone of {results} has this name. Give the predictions another one.")
    if name in registry.find("strategies", workspace).files:
        raise UsageError(f"--name {name}: a strategy has this name. Give the predictions another one.")


def _network(path: Path) -> dict[str, Any] | None:
    """A row of a network that a run trained; None for an imported one, for an ensemble (over the seeds of imported ones
    it has their name), and for what is none."""
    try:
        row = json.loads(path.read_bytes())
    except (ValueError, RecursionError):
        return None  # the report names it
    known = isinstance(row, dict) and isinstance(row.get("backbone"), str)
    return row if known and row.get("family") != FAMILY and row.get("fusion") is None else None


def imported(results: Path, places: Collection[tuple[str, int]]) -> list[Candidate]:
    """The imported predictions in a results folder, of datasets and sizes in `places`: of each name the latest."""
    return [one for one in _latest(results) if (one.dataset, one.size) in places]


def seeds_of(name: str, results: Path) -> dict[tuple[str, int], tuple[int, ...]]:
    """(dataset, size) -> seeds of the predictions that a results folder has under this name, which another import under
    it takes the place of."""
    return {(one.dataset, one.size): one.seeds for one in _latest(results) if one.backbone == name}


def _latest(results: Path) -> list[Candidate]:
    latest: dict[tuple[str, str, int], tuple[str, str]] = {}
    seeds = defaultdict(set)
    for path in sorted((results / "cells").glob(f"{STRATEGY}*.json")):
        try:
            row = json.loads(path.read_bytes())
            backbone, dataset, fingerprint, finished = (str(row[key]) for key in NAMED)
            size, seed = int(row["size"]), int(row["seed"])
        except (OSError, ValueError, TypeError, KeyError, RecursionError) as error:
            log.warning("%s is left out: not a row (%s). Import its predictions again.", path, brief(error))
            continue
        seeds[fingerprint].add(seed)
        key = (backbone, dataset, size)
        latest[key] = max(latest.get(key, ("", "")), (finished, fingerprint))
    return [
        Candidate(
            fingerprint, dataset, size, 1.0, None, name, STRATEGY, tuple(sorted(seeds[fingerprint])), imported=True
        )
        for (name, dataset, size), (_, fingerprint) in latest.items()
    ]


def _source(path: Path, dataset: str, size: int) -> Source:
    found = NAME.match(path.name)
    if not path.is_file():
        raise UsageError(f"{path}: there is no such file. Check the path.")
    if not found or not (dataset or found["dataset"]):
        raise UsageError(
            f"{path.name}: the name does not say what it predicts. Name it as MedMNIST does, such as "
            "breastmnist_test@0.csv, or give --dataset and name it test@0.csv."
        )
    if found["split"] == "train":
        raise UsageError(f"{path.name}: predictions of train say nothing here. Give those of test, and of val.")
    run = path.stem.rpartition("@")[2] if "@" in path.stem else "0"
    return Source(path, dataset or found["dataset"], size or int(found["size"] or 28), found["split"], run)


def _published(
    sources: Sequence[Source], dataset: Dataset, where: str, size: int, name: str, results: Path
) -> list[dict[str, Any]]:
    started = provenance.utc()
    splits = {split: dataset.load(split, size) for split in {source.split for source in sources}}
    runs: dict[str, dict[str, np.ndarray]] = defaultdict(dict)
    digest = hashlib.sha256(json.dumps([name, where, size, dataset.content_hash(size), ENGINE]).encode())
    for source in sorted(sources, key=lambda one: (one.run, one.split)):
        if source.split in runs[source.run]:
            raise UsageError(f"{source.path.name}: {source.split} of run {source.run} is given twice.")
        probs = read_probabilities(source.path, len(splits[source.split]), len(dataset.info.classes), dataset.info.kind)
        runs[source.run][source.split] = probs
        digest.update(f"{source.run} {source.split}".encode() + probs.tobytes())
    if lacking := [run for run, found in runs.items() if "test" not in found]:
        raise UsageError(f"run {lacking[0]} of {where} has no predictions of test. Give them in the same command.")
    fingerprint = f"{STRATEGY}{digest.hexdigest()[:12]}"
    identity = {
        "dataset": where, "backbone": name, "strategy": STRATEGY, "family": FAMILY, "size": size, "fraction": 1.0,
        "kind": dataset.info.kind, "modality": dataset.info.modality, "fingerprint": fingerprint, "engine": ENGINE,
        "data_hash": dataset.content_hash(size), "status": "ok", "reason": "", "started_utc": started,
        "licence": dataset.info.licence, "noncommercial": dataset.info.noncommercial,
        "citation": dataset.info.citation, "n_val": len(splits["val"]) if "val" in splits else None,
        **provenance.code(),
    }  # fmt: skip
    rows = []
    for run, seed in _seeds(runs).items():
        columns, predictions = _scored(runs[run], splits, dataset.info.kind)
        files = ", ".join(sorted(source.path.name for source in sources if source.run == run))
        row = identity | columns | {"seed": seed, "notes": f"imported: {files}", "finished_utc": provenance.utc()}
        store.publish(results, row, predictions)
        rows.append(row)
    return rows


def _seeds(runs: Iterable[str]) -> dict[str, int]:
    """The runs' own numbers where all have one of up to four digits (MedMNIST's default is the time), else 0, 1, ..."""
    names = sorted(runs)
    if all(re.fullmatch(r"\d{1,4}", run) for run in names):
        return {run: int(run) for run in names}
    return {run: seed for seed, run in enumerate(names)}


def _scored(
    probs: Mapping[str, np.ndarray], splits: Mapping[str, Split], kind: Kind
) -> tuple[dict[str, Any], dict[str, np.ndarray]]:
    columns: dict[str, Any] = {}
    predictions: dict[str, np.ndarray] = {}
    for split, scores in (("test", evaluate.test_columns), ("val", evaluate.val_columns)):
        if split in probs:
            labels, logits = np.asarray(splits[split].labels), logs(probs[split], kind).astype(np.float32)
            columns |= scores(logits, labels, kind)
            predictions |= {f"{split}_logits": logits, f"{split}_labels": labels, f"{split}_ids": splits[split].ids}
    return columns, predictions


def _whole(text: str) -> int:
    """3 of "3" or "3.0", as a table of floats has it. Raises ValueError."""
    if not (value := float(text)).is_integer():
        raise ValueError
    return int(value)


def read_probabilities(path: Path, images: int, classes: int, kind: Kind) -> np.ndarray:
    """float64 [images, classes], in the order of the split. Raises DataError."""

    def refuse(what: str) -> DataError:
        return DataError(f"{path.name}: {what}. Expected are lines of NUMBER,PROBABILITY,.. without a header.")

    numbers, values = [], []
    try:
        with open(path, newline="", encoding="utf-8") as file:
            for line, cells in enumerate(csv.reader(file), start=1):
                try:
                    numbers.append(_whole(cells[0]))
                    values.append([float(cell) for cell in cells[1:]])
                except (ValueError, IndexError):
                    raise refuse(f"line {line} ({','.join(cells)[:60]!r}) is no image's prediction") from None
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        raise refuse(f"cannot be read ({error})") from None
    if sorted(numbers) != list(range(images)):
        raise refuse(f"has {len(set(numbers))} images' predictions, the split has {images}, numbered from 0")
    widths = {len(one) for one in values}
    allowed = {classes, 1} if kind == "binary" else {classes}
    if len(widths) != 1 or not widths <= allowed:
        raise refuse(f"has {' and '.join(map(str, sorted(widths)))} probabilities a line, not {classes}")
    probs = np.array(values)[np.argsort(numbers)]
    if not ((probs >= 0) & (probs <= 1)).all():
        raise refuse("holds values outside 0 to 1, so they are no probabilities (logits, perhaps?)")
    if probs.shape[1] == 1 and classes == 2:
        return np.concatenate([1 - probs, probs], axis=1)
    if kind != "multi-label" and np.abs(probs.sum(axis=1) - 1).max() > 1e-2:
        raise refuse("a line's probabilities do not sum to 1")
    return probs
