"""Workers as actors of a Ray cluster, whose nodes have medtransfer, and results and data by the same paths."""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from typing import Any

from bench.errors import UsageError, brief
from bench.places import SPARE, Place
from bench.plan import Cell
from bench.supervise import Lost, Message, Ready
from bench.work import Setup, Workbench


@dataclass(frozen=True)
class Remote:
    """An actor and what it has been asked for, oldest first."""

    actor: Any
    asked: list[Any]

    def give(self, cell: Cell, seeds: list[int]) -> None:
        self.asked.append(self.actor.run.remote(cell, seeds))

    def end(self) -> None:
        import ray

        ray.kill(self.actor)


class Actors:
    """A crew of actors, each on its part of the cluster. Ray restarts none of them: bench.supervise does, since it
    knows which rows are there already."""

    def __init__(self, setup: Setup, jobs: int) -> None:
        import ray

        place, self.resources = demand([node["Resources"] for node in ray.nodes() if node["Alive"]], jobs, setup.place)
        self.setup = replace(setup, place=place, threads=min(setup.threads, max(1, int(self.resources["num_cpus"]))))
        self.actor: Any = ray.remote(Actor)

    def start(self, slot: int) -> Remote:
        actor: Any = self.actor.options(**self.resources).remote(self.setup)
        return Remote(actor, [actor.ready.remote()])

    def hear(self, workers: Mapping[int, Remote], seconds: float | None) -> list[tuple[int, Message]]:
        import ray

        asked = {worker.asked[0]: slot for slot, worker in workers.items() if worker.asked}
        answered, _ = ray.wait(list(asked), num_returns=1, timeout=seconds)
        return [(asked[answer], _message(workers[asked[answer]])) for answer in answered]


class Actor:
    """A process of the cluster that runs cells."""

    def __init__(self, setup: Setup) -> None:
        self.bench = Workbench(setup)

    def ready(self) -> Message:
        return Ready()

    def run(self, cell: Cell, seeds: list[int]) -> Message:
        return self.bench.run(cell, seeds)


def demand(nodes: Sequence[Mapping[str, float]], jobs: int, place: Place) -> tuple[Place, dict[str, float]]:
    """Where each of `jobs` workers computes, and what it demands of a node for that, such that all find one; `nodes`
    say how much each has. The place's device is as asked for: it is for the cluster to have that, whatever this machine
    has, and "auto" is a GPU where a node has one. Raises UsageError where none has what is asked for."""
    able = [node for node in nodes if node.get("CPU") and node.get("GPU")]
    if not place.device.startswith("cuda") and not (place.device == "auto" and able):
        cpus = portion([node.get("CPU", 0) for node in nodes], jobs)
        return replace(place, device="cpu" if place.device == "auto" else place.device), {"num_cpus": _whole(cpus)}
    gpus = min(1.0, portion([node["GPU"] for node in able], jobs))
    cpus = portion([node["CPU"] for node in able], jobs, [int(node["GPU"] / gpus + 1e-9) for node in able])
    # Ray shows an actor its own GPU only, which is then the first.
    place = Place("cuda:0", SPARE * gpus if gpus < 1 else 1.0)
    return place, {"num_cpus": _whole(cpus), "num_gpus": gpus}


def portion(there: Sequence[float], jobs: int, room: Sequence[int] | None = None) -> float:
    """The most of a resource that each of `jobs` workers can have, where nodes have so much of it, and `room` for so
    many workers. Raises UsageError where there is none."""
    room = [jobs] * len(there) if room is None else room
    wanted = {amount / parts for amount in there if amount for parts in range(1, jobs + 1)}
    for part in sorted(wanted, reverse=True):
        part = float(int(part)) if part > 1 else part  # Ray gives whole CPUs, or a part of one
        if sum(min(int(amount / part + 1e-9), most) for amount, most in zip(there, room, strict=True)) >= jobs:
            return part
    raise UsageError("--executor ray: the cluster has no such device. Use --device cpu, or add nodes that have one.")


def _whole(cpus: float) -> float:
    return int(cpus) if cpus > 1 else cpus


def _message(worker: Remote) -> Message:
    import ray

    try:
        return ray.get(worker.asked.pop(0))
    except ray.exceptions.RayError as error:  # it died, with or for its node, or found no place
        return Lost(f"with its node or process ({brief(error)})")


@contextmanager
def actors(setup: Setup, jobs: int, address: str) -> Iterator[Actors]:
    """A crew of `jobs` actors on the cluster of an address: "auto" is the one that this machine is of, "local" one that
    is started here for the while. Raises UsageError."""
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")  # it would report to its makers
    try:
        import ray
    except ImportError as error:
        fix = 'Install it: python3 -m pip install -c constraints.txt ".[ray]"'
        raise UsageError(f"--executor ray: Ray is not installed. {fix}") from error
    try:
        ray.init(address, log_to_driver=False)
    except (ConnectionError, ValueError) as error:
        fix = "Check that `ray status` shows it."
        raise UsageError(f"--address {address}: no Ray cluster is found there ({brief(error)}). {fix}") from error
    try:
        yield Actors(setup, jobs)
    finally:
        ray.shutdown()
