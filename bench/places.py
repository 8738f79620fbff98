"""Which device each of several workers gets, and how much of it."""

from __future__ import annotations

import os
from dataclasses import dataclass

import torch

SPARE = 0.95
"""Share of a GPU's memory that is given out; the rest is for what CUDA itself takes a process."""


@dataclass(frozen=True)
class Place:
    """Where a worker runs."""

    device: str
    share: float = 1.0
    """Of the device's memory, at most; below 1 on a GPU that workers share."""


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
