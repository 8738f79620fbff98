"""How long networks compute in this process: forward, backward and the optimizer's steps, in training, for features and
for predictions. All else is overhead."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

import torch


@dataclass
class _Clock:
    seconds: float = 0.0
    running: bool = False


_clock = _Clock()


@contextmanager
def network() -> Iterator[None]:
    """Meanwhile a network computes. Within another one nothing is counted twice."""
    if _clock.running:
        yield
        return
    started, _clock.running = time.perf_counter(), True
    try:
        yield
    finally:
        _clock.seconds += time.perf_counter() - started
        _clock.running = False


def counts(device: torch.device) -> bool:
    """Whether the time that is counted is the network's. A GPU, CUDA's or Metal's, computes on its own: all that is
    counted is the time of asking it."""
    return device.type == "cpu"


def network_seconds() -> float:
    """Since the process was started."""
    return _clock.seconds
