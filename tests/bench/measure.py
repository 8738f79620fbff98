"""Two ways of doing the same work, timed in turn in one process, and the lines of the table that `tox -e bench` prints.

A ratio is that of two times taken one after the other, so that what else the machine does weighs on both; the median of
such pairs is what the table shows, with the smallest and the largest.
"""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Mapping, Sequence
from typing import Any, TypedDict

from bench import device

ROUNDS = int(os.environ.get("MEDTRANSFER_BENCH_ROUNDS", "5"))
"""Pairs of times; 1 shows that the benchmarks work, and measures nothing."""
OURS = "ours"
Work = Callable[[], Any]


class Line(TypedDict):
    """A line of the table."""

    measure: str
    demanded: str
    unit: str
    """"x" of a ratio, else a unit such as "ms"."""
    values: list[float]


def in_turn(
    benchmark: Any,
    ours: Work,
    others: Mapping[str, Work],
    prepare: Work = lambda: None,
    rounds: int = ROUNDS,
    warm: bool = True,
    usual: bool = False,
) -> dict[str, list[float]]:
    """Seconds of each way in each round, by name; `ours` is timed by pytest-benchmark as well. `prepare` comes before
    every round, untimed. `warm` runs a first round that does not count. The others are `usual` ways where they do not
    share what the harness sets a process up with."""
    seconds: dict[str, list[float]] = {name: [] for name in (*others, OURS)}

    def clocked(name: str, work: Work) -> None:
        device.keep_freed_memory(name == OURS or not usual)
        started = time.perf_counter()
        work()
        seconds[name].append(time.perf_counter() - started)

    def before() -> None:
        prepare()
        for name, work in others.items():
            clocked(name, work)

    benchmark.pedantic(clocked, args=(OURS, ours), setup=before, rounds=rounds, warmup_rounds=int(warm))
    return {name: taken[-rounds:] for name, taken in seconds.items()}


def ratios(over: Sequence[float], under: Sequence[float]) -> list[float]:
    return [a / b for a, b in zip(over, under, strict=True)]


def say(benchmark: Any, measure: str, demanded: str, values: Sequence[float], unit: str = "x") -> None:
    """Add a line to the table (and to what `--benchmark-json` stores)."""
    line = Line(measure=measure, demanded=demanded, unit=unit, values=[float(value) for value in values])
    benchmark.extra_info.setdefault("lines", []).append(line)
