"""A made-up results folder, shaped like a real one: the tests of the report read it."""

from __future__ import annotations

import itertools
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

Row = dict[str, Any]

DATASETS = {"breastmnist": 0.86, "pneumoniamnist": 0.93, "phantom-fundus": 0.74}
BACKBONES = {"mobilenetv2_035": 0.0, "resnet18[:3]": 0.015, "densenet121 random": -0.03}
STRATEGIES = {"scratch": 0.0, "linear_probe": 0.02, "full_finetune": 0.05}


def row(dataset: str, backbone: str, strategy: str, seed: int, auc: float, **changes: Any) -> Row:
    """One ok row with every documented column."""
    scratch = strategy == "scratch"
    values = {
        "dataset": dataset,
        "backbone": backbone,
        "strategy": strategy,
        "size": 64,
        "fraction": 1.0,
        "per_class": None,
        "seed": seed,
        "kind": "binary",
        "modality": "ultrasound",
        "family": "baseline" if scratch else "transfer",
        "source_size": 28 if dataset == "pneumoniamnist" else 64,
        "resize": "bilinear",
        "weights": "random" if "random" in backbone else "file",
        "pretrained": not scratch and "random" not in backbone,
        "status": "ok",
        "reason": "",
        "notes": "",
        "lr": 1e-3,
        "hparams": '{"lr": 0.001}',
        "epochs": 10,
        "trials": 4,
        "curve": "[0.7, 0.8]",
        "val_auc": min(auc + 0.01, 1.0),
        "val_acc": auc - 0.05,
        "test_auc": auc,
        "test_auc_lo": auc - 0.01,
        "test_auc_hi": min(auc + 0.01, 1.0),
        "test_acc": auc - 0.06,
        "test_balanced_acc": auc - 0.08,
        "test_macro_f1": auc - 0.09,
        "test_kappa": 0.5,
        "test_ap": None,
        "test_ece": 0.05,
        "test_brier": 0.2,
        "test_nll": 0.4,
        "test_recall": "[0.7, 0.9]",
        "n_train": 546,
        "n_val": 78 if dataset == "breastmnist" else 524,
        "n_test": 156,
        "tune_seconds": 30.0 if strategy != "linear_probe" else 3.0,
        "fit_seconds": 8.0 if strategy != "linear_probe" else 0.5,
        "cell_seconds": 20.0,
        "network_seconds": 19.0,
        "predict_ms": 1.2,
        "images_seen": 5460,
        "tune_images_seen": 21840,
        "peak_memory_mb": 410.0,
        "params_total": 2_500_000,
        "params_trained": 1_026 if strategy == "linear_probe" else 2_500_000,
        "flops_per_image": 90_000_000,
        "energy_joules": None,
        "fingerprint": f"{abs(hash_text(f'{dataset}/{backbone}/{strategy}')):016x}",
        "engine": 1,
        "git_commit": "0123abc",
        "git_dirty": False,
        "source_hash": f"src-{strategy}",
        "weights_hash": f"w-{backbone}",
        "data_hash": f"d-{dataset}",
        "versions": '{"python": "3.11.9", "torch": "2.14.0"}',
        "device": "cpu",
        "precision": "float32",
        "memory_format": "channels_last",
        "threads": 2,
        "started_utc": "2025-01-01T10:00:00Z",
        "finished_utc": "2025-01-01T10:01:00Z",
        "licence": "CC BY 4.0",
        "noncommercial": False,
        "citation": "Al-Dhabyani et al., Data in Brief 2020",
    }
    return values | changes


def audited(name: str, **changes: Any) -> dict[str, Any]:
    """One entry of datasets.json."""
    values = {"name": name, "dataset": name, "sizes": {"train": 2, "val": 1, "test": 1}, "overlaps": [], "blank": 0}
    values |= {"class_counts": {"train": {"x": 1, "y": 1}}, "source_size": 28, "sampled": ""}
    return values | changes


def hash_text(text: str) -> int:
    """A hash that is the same in every process, unlike `hash`."""
    return int.from_bytes(text.encode(), "big") % (2**61 - 1)


def rows(seeds: int = 3) -> list[Row]:
    """3 datasets x 3 backbones x 3 strategies x seeds; one cell failed, one skipped, one run diverged."""
    rng = np.random.default_rng(0)
    made = []
    for dataset, base in DATASETS.items():
        for backbone, plus in BACKBONES.items():
            for strategy, gain in STRATEGIES.items():
                for seed in range(seeds):
                    auc = base + plus + gain * ("random" not in backbone) + rng.normal(0, 0.006)
                    made.append(row(dataset, backbone, strategy, seed, float(np.clip(auc, 0, 0.999))))
    lost = {"test_auc": None, "test_auc_lo": None, "test_auc_hi": None, "val_auc": None, "test_acc": None}
    for one in made:
        cell = (one["dataset"], one["backbone"], one["strategy"])
        if cell == ("phantom-fundus", "densenet121 random", "full_finetune"):
            one |= lost | {
                "status": "failed",
                "reason": 'WeightsError: the hub cannot be reached; use weights = "file:..."',
            }
        if cell == ("pneumoniamnist", "densenet121 random", "linear_probe"):
            one |= lost | {"status": "skipped", "reason": "a probe of random features is not asked for"}
        if cell == ("breastmnist", "resnet18[:3]", "scratch") and one["seed"] == seeds - 1:
            one |= lost | {"status": "diverged", "reason": "the loss was not finite in epoch 2"}
    return made


def uneven(seeds: int = 2) -> list[Row]:
    """A study that grew: five strategies on three networks at 28 px with 10 images a class, six more on one network,
    two probes with all images, and the five on one network at 64 px and with 50 images a class."""
    core, probes = ("full_finetune", "knn_probe", "l2_sp", "linear_probe", "scratch"), ("knn_probe", "linear_probe")
    extra, networks = tuple(f"extra{n}" for n in range(6)), ("net0", "net1", "net2")
    parts: list[tuple[tuple[str, ...], tuple[str, ...], int, int | None]] = [
        (core, networks, 28, 10), (extra, networks[:1], 28, 10), (probes, networks, 28, None),
        (core, networks[:1], 64, 10), (core, networks[:1], 28, 50),
    ]  # fmt: skip
    draw, made = np.random.default_rng(0), []
    for strategies, nets, size, per_class in parts:
        for cell in itertools.product(("breastmnist", "pneumoniamnist"), nets, strategies):
            name = f"{hash_text('/'.join(cell)):016x}-{size}-{per_class}"
            for seed in range(seeds):
                at = {"size": size, "per_class": per_class, "fingerprint": name}
                made.append(row(*cell, seed, float(draw.uniform(0.6, 0.9)), **at))
    return made


def write(folder: Path, made: list[Row], change: Callable[[Row], Row] = lambda one: one) -> Path:
    """A results folder of these rows, with trials and run.json."""
    cells = folder / "cells"
    cells.mkdir(parents=True)
    for one in map(change, made):
        (cells / f"{one['fingerprint']}-s{one['seed']}.json").write_text(json.dumps(one))
    for fingerprint in {one["fingerprint"] for one in made if one["status"] == "ok"}:
        trials = [
            {
                "number": n,
                "hparams": {"lr": 10**-n},
                "state": "complete" if n < 2 else "pruned",
                "val_auc": 0.8 + n / 100,
                "val_loss": 0.5,
                "curve": [0.7, 0.8 + n / 100],
                "seconds": 4.0,
                "images_seen": 5460,
            }
            for n in range(4)
        ]
        (cells / f"{fingerprint}.trials.jsonl").write_text("".join(json.dumps(t) + "\n" for t in trials))
    run = {
        "name": folder.name,
        "command": "medtransfer run quick.toml",
        "started_utc": "2025-01-01T10:00:00Z",
        "finished_utc": "2025-01-01T11:00:00Z",
        "matrix": {"run": {"seeds": 3, "trials": 4}},
        "plan": {"cells": 27},
        "notes": ["phantoms are drawn by medtransfer: they are not medical images"],
    }
    (folder / "run.json").write_text(json.dumps(run))
    return folder
