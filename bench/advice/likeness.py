"""Whether a task is like any that is known."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from bench.advice.facts import Facts, differences, distance

NAMED = 3
"""Facts that are named, of those by which the nearest task differs most."""


@dataclass(frozen=True)
class Likeness:
    nearest: Facts
    """The task that differs least, of those that were asked about."""
    distance: float
    """From it, as facts.distance has it."""
    usual: float
    """The largest such distance of a task from those of other datasets: what a further dataset of the same sort may be
    away."""
    apart: tuple[str, ...]
    """The facts in which the task and the nearest one differ, most first."""

    @property
    def unlike(self) -> bool:
        return self.distance > self.usual


def likeness(target: Facts, run: Sequence[Facts], known: Sequence[Facts]) -> Likeness:
    """Of a task to those (at least one) in which what is advised was `run`, for an easy task in which only probes were
    run says nothing of fine-tuning. What is usual is found among the same, and among all that are `known` where it was
    run on one dataset only, which has no other."""
    nearest = min(run, key=lambda one: distance(target, one))
    found = differences(target, nearest)
    apart = sorted((name for name in found if found[name] > 0), key=lambda name: -found[name])
    among = run if len({one.dataset for one in run}) > 1 else known
    between = [min(distance(one, other) for other in among if other.dataset != one.dataset) for one in among]
    return Likeness(nearest, distance(target, nearest), max(between), tuple(apart[:NAMED]))
