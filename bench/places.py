"""Which device each of several workers gets, and how much of it."""

from __future__ import annotations

import os
from dataclasses import dataclass

import torch

from bench import device as devices
from bench.config import Matrix

SPARE = 0.95
"""Share of a GPU's memory that is given out to workers; the rest is for the command's own process."""


@dataclass(frozen=True)
class Place:
    """Where a worker runs."""

    device: str
    share: float = 1.0
    """Of the device's memory, at most, what CUDA itself takes included; below 1 on a GPU that workers share."""


def here(matrix: Matrix) -> torch.device:
    """The device that this process uses itself, to measure how long the matrix will take if not to run it: the one
    asked for. Of a Ray cluster it is for the nodes to have that, and what this machine has must do. Raises UsageError
    for a device that is not there."""
    elsewhere = matrix.executor == "ray" and matrix.device.startswith("cuda")
    return devices.pick("auto" if elsewhere else matrix.device)


def places(device: torch.device, jobs: int, gpus: int) -> list[Place]:
    """A place for each of `jobs` workers. Of several GPUs (`gpus`, unless the device names one) each worker gets one,
    in turn; those that share one get equal parts of its memory, so that none takes what another needs."""
    if device.type != "cuda":
        return [Place(str(device))] * jobs
    cards = [device.index] if device.index is not None else list(range(max(gpus, 1)))
    mine = [cards[slot % len(cards)] for slot in range(jobs)]
    return [Place(f"cuda:{card}", SPARE / mine.count(card) if mine.count(card) > 1 else 1.0) for card in mine]


def threads(jobs: int) -> int:
    """Threads for each of `jobs` workers: its part of the cores that this process may use, and no more than this
    process itself uses, so that OMP_NUM_THREADS=1 gives every executor the same threads, and so the same rows."""
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    return max(1, min(torch.get_num_threads(), cores // jobs))
