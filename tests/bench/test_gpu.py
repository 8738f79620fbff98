"""What the harness makes of a GPU; skipped where there is none."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor
from torch.profiler import ProfilerActivity, profile

from bench import device, registry
from bench import train as training
from bench.computing import chosen
from bench.contract import Backbone, Protocol, Task
from bench.images import Images
from bench.replay import Recording, Replay
from bench.run import Run
from tests.bench import in_timm
from tests.bench.measure import OURS, in_turn, ratios, say
from tests.small import CHECKOUT

pytestmark = pytest.mark.skipif(not torch.cuda.is_available(), reason="torch sees no CUDA device here")
GPU = torch.device("cuda", 0)
RESNET18 = Backbone("resnet18", "random")
NETWORKS = [RESNET18, Backbone("resnet50", "random"), Backbone("mobilenetv3_large_100", "random")]
WORKERS = 16
"""Processes of timm's loader."""


@pytest.fixture(autouse=True)
def _own_stream() -> Iterator[None]:
    with device.own_stream(GPU):
        yield


class Called(Replay):
    """Never recorded."""

    def __init__(
        self, compute: Callable[..., Tensor], where: torch.device, draws: Any = (), recordable: bool = True
    ) -> None:
        super().__init__(compute, where, draws, recordable=False)


def noise(count: int, size: int) -> Images:
    drawn = torch.randint(0, 256, (count, 1, size, size), dtype=torch.uint8, device=GPU)
    return Images(drawn, torch.arange(count, device=GPU) % 2, np.arange(count).astype(str), f"{count} of {size} px")


def task_of(size: int, train: int, val: int) -> Task:
    info = registry.open_dataset("phantom-radiograph", Path()).info
    return Task(info, size, noise(train, size), noise(val, size))


def run_of(backbone: Backbone, size: int, **protocol: Any) -> Run:
    return Run(backbone, Protocol(**protocol), 0, size, GPU, chosen(backbone, size, GPU))


def fit(task: Task, run: Run, way: type[Replay] = Replay, strategy: str = "full_finetune") -> None:
    chosen_one = registry.load_strategy(strategy, CHECKOUT)
    usual, training.Replay = training.Replay, way  # type: ignore[misc]
    try:
        chosen_one.fit(task, chosen_one.defaults(), run.fresh(0))
    finally:
        training.Replay = usual  # type: ignore[misc]
    torch.cuda.synchronize()


@pytest.mark.parametrize("backbone", NETWORKS, ids=lambda one: one.model)
def test_replayed_steps(backbone: Backbone, benchmark: Any) -> None:
    """Fits of 20 epochs of 5 steps, with their evaluations: a few hundred images, as many cells have."""
    task, run = task_of(64, 640, 128), run_of(backbone, 64, epochs=20, batch_size=128)
    seconds = in_turn(benchmark, lambda: fit(task, run), {"called": lambda: fit(task, run, Called)})
    wanted = "3x" if backbone is RESNET18 else "-"
    text = f"GPU: fit of 100 steps of 128 images, {backbone.model} at 64 px, replayed against operation by operation"
    say(benchmark, text, wanted, ratios(seconds["called"], seconds[OURS]))


@pytest.mark.parametrize(
    ("size", "train", "batch", "rate", "busy"),
    [(64, 51_200, 128, "150,000", "80 %"), (64, 51_200, 512, "150,000", "80 %"), (224, 6_400, 128, "17,000", "90 %")],
)
def test_images_a_second(size: int, train: int, batch: int, rate: str, busy: str, benchmark: Any) -> None:
    """Of whole fits, network, recording and evaluations included."""
    epochs = 2
    task, run = task_of(size, train, train // 10), run_of(RESNET18, size, epochs=epochs, batch_size=batch)
    seconds = in_turn(benchmark, lambda: fit(task, run), {})[OURS]
    text = f"GPU: ResNet-18 at {size} px, batch {batch}, {run.computing.precision}"
    say(benchmark, f"{text}: training images a second", rate, [epochs * train / taken for taken in seconds], "/s")
    say(benchmark, f"{text}: share of an epoch that the GPU is busy", busy, [busy_share(size, batch)], "%")


def busy_share(size: int, batch: int) -> float:
    """Percent of the second epoch, 100 steps and an evaluation, in which something runs on the GPU."""
    task, run = task_of(size, 100 * batch, 10 * batch), run_of(RESNET18, size, epochs=2, batch_size=batch)
    seen = profile(activities=[ProfilerActivity.CUDA])
    times: list[float] = []

    def report(epoch: int, auc: float, loss: float) -> None:
        torch.cuda.synchronize()
        times.append(time.perf_counter())
        if epoch == 0:
            seen.start()
            times[0] = time.perf_counter()
        else:
            seen.stop()

    strategy = registry.load_strategy("full_finetune", CHECKOUT)
    strategy.fit(task, strategy.defaults(), run.fresh(0, report))
    return 100 * busy_seconds(seen) / (times[1] - times[0])


def busy_seconds(seen: profile) -> float:
    """The union of the times of all that ran on the GPU."""
    spans = sorted(
        (event.time_range.start, event.time_range.end)
        for event in seen.events() or ()
        if event.device_type == torch.autograd.DeviceType.CUDA
    )
    busy, until = 0.0, 0.0
    for start, end in spans:
        busy += max(0.0, end - max(start, until))
        until = max(until, end)
    return busy / 1e6


@pytest.mark.parametrize(("size", "train", "demanded"), [(64, 25_600, "4x"), (224, 5_120, "1.3x")])
def test_against_timm(size: int, train: int, demanded: str, tmp_path: Path, benchmark: Any) -> None:
    images = np.random.default_rng(0).integers(0, 256, (train, size, size), dtype=np.uint8)
    np.savez(tmp_path / "noise.npz", train_images=images, train_labels=np.arange(train)[:, None] % 2)
    data = in_timm.loader(tmp_path / "noise.npz", size, 128, WORKERS)
    next(iter(data))  # starts its workers
    # It does not evaluate here: of ours there is as little of that as there can be.
    task, run = task_of(size, train, 2), run_of(RESNET18, size, epochs=2, batch_size=128)

    def timm() -> None:
        in_timm.fit(run.network(2).to(memory_format=torch.channels_last), 1e-3, data, epochs=2)

    seconds = in_turn(benchmark, lambda: fit(task, run), {"timm": timm}, rounds=3)
    text = f"GPU: training, ResNet-18 at {size} px, batch 128, against timm's script with {WORKERS} workers"
    say(benchmark, text, demanded, ratios(seconds["timm"], seconds[OURS]))


def test_recording(benchmark: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """Its share of the time of 50 fits of 100 steps, each with a learning rate and seed of its own."""
    task, run = task_of(64, 640, 128), run_of(RESNET18, 64, epochs=20, batch_size=128)
    shares: list[float] = []
    spent = 0.0
    recorded = Replay._recorded

    def watched(self: Replay, *inputs: Tensor) -> Recording:
        nonlocal spent
        started = time.perf_counter()
        found = recorded(self, *inputs)
        spent += time.perf_counter() - started
        return found

    monkeypatch.setattr(Replay, "_recorded", watched)
    strategy = registry.load_strategy("full_finetune", CHECKOUT)

    def fits() -> None:
        nonlocal spent
        spent, started = 0.0, time.perf_counter()
        for seed in range(50):
            strategy.fit(task, {"lr": 10 ** (-4 + seed / 25)}, replace(run, seed=seed).fresh(seed))
        torch.cuda.synchronize()
        shares.append(100 * spent / (time.perf_counter() - started))

    benchmark.pedantic(fits, rounds=1)
    say(benchmark, "GPU: recording, share of the time of 50 fits of 100 steps, ResNet-18 at 64 px", "5 %", shares, "%")
