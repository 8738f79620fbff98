"""Drawn images in the files of MedMNIST's format that both ways read, and what of ours is made of them."""

from __future__ import annotations

import shutil
from collections.abc import Mapping
from pathlib import Path

import numpy as np
import torch

from bench import registry
from bench.cache import cache_folder
from bench.computing import chosen
from bench.contract import SPLITS, Backbone, Dataset, Protocol, Task
from bench.images import at_size, to_device
from bench.run import Run

CPU = torch.device("cpu")
SMALL = Backbone("bundled:resnet", "bundled:resnet")
"""A small ResNet, pretrained."""


def drawn(folder: Path, phantom: str, counts: Mapping[str, int] | None = None, side: int = 28) -> Path:
    """`folder/PHANTOM.npz` in MedMNIST's format: labels [N, 1]. `counts` takes the first images of each split."""
    dataset = registry.open_dataset(phantom, folder)
    arrays: dict[str, np.ndarray] = {"kind": np.array(dataset.info.kind)}
    for name in SPLITS:
        split, count = dataset.load(name, side), (counts or {}).get(name)
        arrays[f"{name}_images"] = split.images[:count]
        arrays[f"{name}_labels"] = split.labels[:count].reshape(len(split.labels[:count]), -1)
    np.savez_compressed(folder / f"{phantom}.npz", **arrays)  # type: ignore[arg-type]
    return folder / f"{phantom}.npz"


def forget_features() -> None:
    """So that they are computed anew."""
    shutil.rmtree(cache_folder("features"))


def opened(file: Path) -> Dataset:
    return registry.open_dataset(f"npz:{file}", file.parent)


def task(dataset: Dataset, size: int) -> Task:
    """All train and val images of a dataset, on the CPU, as a session gives them."""
    splits = (to_device(dataset.load(name, size), f"{dataset.info.name}/{name}", CPU) for name in ("train", "val"))
    return Task(dataset.info, size, *(at_size(split, size, "bilinear") for split in splits))


def run_of(backbone: Backbone, size: int, **protocol: object) -> Run:
    """What the harness lends to a fit on the CPU."""
    return Run(backbone, Protocol(**protocol), 0, size, CPU, chosen(backbone, size, CPU))  # type: ignore[arg-type]
