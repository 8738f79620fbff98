"""A made-up results folder with predictions that go with its rows, and ensembles made of them."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from bench.contract import Kind
from bench.metrics import auc, probabilities
from bench.store import publish, write_run
from tests.fake_results import Row, row

KINDS: dict[str, Kind] = {"breastmnist": "binary", "pathmnist": "multi-class", "chestmnist": "multi-label"}
BACKBONES = {"resnet18": 0.2, "mobilenetv2_035": 0.0, "densenet121": 0.1}
STRATEGIES = {"linear_probe": 0.0, "full_finetune": 0.3}

Stored = tuple[Row, dict[str, np.ndarray]]


def fit(dataset: str, kind: Kind, backbone: str, strategy: str, seed: int, images: int) -> Stored:
    """A row and predictions: what every network finds hard, what those of a backbone do, and a seed's own noise."""
    classes = 2 if kind == "binary" else 4
    arrays: dict[str, np.ndarray] = {}
    for split in ("val", "test"):
        draw = rng(dataset, split)
        labels = (
            (draw.random((images, classes)) < 0.3).astype(np.uint8)
            if kind == "multi-label"
            else draw.integers(0, classes, images)
        )
        truth = labels * 2.0 - 1 if kind == "multi-label" else np.eye(classes)[labels]
        hard = draw.normal(size=truth.shape)
        theirs = rng(dataset, split, backbone).normal(size=truth.shape)
        own = rng(dataset, split, backbone, strategy, str(seed)).normal(size=truth.shape)
        skill = 1.2 + BACKBONES[backbone] + STRATEGIES[strategy]
        logits = (skill * truth + 0.6 * hard + 0.5 * theirs + 0.5 * own).astype(np.float32)
        ids = np.array([f"{dataset}/{split}/{n}" for n in range(images)])
        arrays |= {f"{split}_logits": logits, f"{split}_labels": labels, f"{split}_ids": ids}
    return scored(row(dataset, backbone, strategy, seed, 0, kind=kind), arrays), arrays


def rng(*names: str) -> np.random.Generator:
    return np.random.default_rng(list(" ".join(names).encode()))


def scored(one: Row, arrays: dict[str, np.ndarray]) -> Row:
    """With the AUCs of its predictions."""
    kind = one["kind"]
    found = {s: auc(arrays[f"{s}_labels"], probabilities(arrays[f"{s}_logits"], kind), kind) for s in ("val", "test")}
    sizes = {f"n_{split}": len(arrays[f"{split}_ids"]) for split in ("val", "test")}
    return one | {"val_auc": found["val"], "test_auc": found["test"]} | sizes


def fused(
    strategy: str, over: str, backbone: str, seed: int, of: Sequence[Stored], weights: Sequence[float] | None = None
) -> Stored:
    """The weighted mean of these probabilities, with the columns that an ensemble's row has."""
    shares = np.full(len(of), 1 / len(of)) if weights is None else np.asarray(weights)
    first, arrays = of[0]
    kind = first["kind"]
    mixed = dict(arrays)
    for split in ("val", "test"):
        probs = np.tensordot(shares, np.stack([probabilities(a[f"{split}_logits"], kind) for _, a in of]), 1)
        odds = np.log(probs / (1 - probs)) if kind == "multi-label" else np.log(probs)
        mixed[f"{split}_logits"] = odds.astype(np.float32)
    members = [
        {
            "fingerprint": one["fingerprint"], "seed": one["seed"], "weight": float(weight),
            "label": f"{one['backbone']} · {one['strategy']} · seed {one['seed']}",
        }
        for (one, _), weight in zip(of, shares, strict=True)
    ]  # fmt: skip
    fusion = strategy.partition("(")[0]
    costs = {name: sum(one[name] for one, _ in of) for name in ("tune_seconds", "fit_seconds", "predict_ms")}
    made: dict[str, Any] = {"family": "ensemble", "fusion": fusion, "over": over, "members": json.dumps(members)}
    one = row(first["dataset"], backbone, strategy, seed, 0, **first_columns(first), **made, **costs, fuse_seconds=0.2)
    return scored(one, mixed), mixed


def first_columns(first: Row) -> Row:
    return {name: first[name] for name in ("kind", "size", "fraction", "per_class")}


def ensembles(fits: Sequence[Stored], dataset: str, seeds: int) -> list[Stored]:
    """Means over backbones, seeds, strategies and all; a greedy one over all."""

    def those(**same: Any) -> list[Stored]:
        wanted = {"dataset": dataset} | same
        return [one for one in fits if all(one[0][name] == value for name, value in wanted.items())]

    made = [
        fused(f"ensemble_mean(seeds of {s})", "seeds", b, 0, those(backbone=b, strategy=s))
        for b in BACKBONES
        for s in STRATEGIES
    ]
    for seed in range(seeds):
        made += [
            fused(f"ensemble_mean({s})", "backbones", "all backbones", seed, those(strategy=s, seed=seed))
            for s in STRATEGIES
        ]
        made += [
            fused("ensemble_mean(strategies)", "strategies", b, seed, those(backbone=b, seed=seed)) for b in BACKBONES
        ]
        every = those(seed=seed)
        best = np.argsort([-one["val_auc"] for one, _ in every])
        weights = np.zeros(len(every))
        weights[best[:3]] = (0.5, 0.3, 0.2)
        made.append(fused("ensemble_mean(all)", "all", "all backbones", seed, every))
        made.append(fused("ensemble_greedy(all)", "all", "all backbones", seed, every, weights))
    return made


def write(folder: Path, seeds: int = 2, images: int = 60, kinds: dict[str, Kind] = KINDS) -> Path:
    """A results folder of all fits and ensembles."""
    fits = [
        fit(dataset, kind, backbone, strategy, seed, images)
        for dataset, kind in kinds.items()
        for backbone in BACKBONES
        for strategy in STRATEGIES
        for seed in range(seeds)
    ]
    for one, arrays in [*fits, *(made for dataset in kinds for made in ensembles(fits, dataset, seeds))]:
        publish(folder, one, arrays)
    write_run(folder, {"name": folder.name, "started_utc": "2025-01-01", "finished_utc": "2025-01-02"})
    return folder
