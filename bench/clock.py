"""How long networks compute in this process: forward, backward and the optimizer's steps, in training, for features and
for predictions. All else is overhead.

A GPU computes on its own: what is measured there is the time between two marks in its stream, which it waits in where
it is not asked fast enough. A replayed step (bench.replay) counts as a whole, augmentation included."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field

import torch

KEPT = 512
"""Pairs of marks before their times are added up, for which the GPU is waited for."""
Mark = torch.cuda.Event


@dataclass
class _Clock:
    seconds: float = 0.0
    running: bool = False
    device: torch.device = field(default_factory=lambda: torch.device("cpu"))
    marks: list[tuple[Mark, Mark]] = field(default_factory=list)


_clock = _Clock()


def watch(device: torch.device) -> None:
    """Of this process's networks, which compute on the device."""
    _clock.device = device


@contextmanager
def network() -> Iterator[None]:
    """Meanwhile a network computes. Within another one nothing is counted twice."""
    if _clock.running or (_clock.device.type == "cuda" and torch.cuda.is_current_stream_capturing()):
        yield
        return
    started, _clock.running = _now(), True
    try:
        yield
    finally:
        _clock.running = False
        _count(started)


def counts(device: torch.device) -> bool:
    """Whether the time that is counted is the network's: not Metal's, of which it is the time of asking it."""
    return device.type in ("cpu", "cuda")


def network_seconds() -> float:
    """Since the process was started."""
    _add_up()
    return _clock.seconds


def _now() -> float | Mark:
    if _clock.device.type != "cuda":
        return time.perf_counter()
    mark = torch.cuda.Event(enable_timing=True)
    mark.record()
    return mark


def _count(started: float | Mark) -> None:
    ended = _now()
    if isinstance(started, float) and isinstance(ended, float):
        _clock.seconds += ended - started
    elif isinstance(started, Mark) and isinstance(ended, Mark):
        _clock.marks.append((started, ended))
        if len(_clock.marks) >= KEPT:
            _add_up()


def _add_up() -> None:
    for started, ended in _clock.marks:
        ended.synchronize()
        _clock.seconds += started.elapsed_time(ended) / 1000
    _clock.marks.clear()
