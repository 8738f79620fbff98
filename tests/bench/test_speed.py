"""How fast the harness is, as ratios: in each group the usual way and ours, run in turn in one process.

`tox -e bench` prints a table a group; the figure in brackets is the ratio to the group's fastest.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from torch.utils.data import DataLoader, Dataset
from torchvision import transforms

from bench import registry
from bench.contract import Backbone, Protocol, Task
from bench.images import to_device
from bench.probe import fit_heads
from bench.run import Run

CPU = torch.device("cpu")
HEADS = 16


def task() -> Task:
    dataset = registry.open_dataset("phantom-radiograph", Path("."))
    train, val = (to_device(dataset.load(split, 28), split, CPU) for split in ("train", "val"))
    return Task(dataset.info, 64, train, val)


class Usual(Dataset[Any]):
    """The medmnist dataset class's way: PIL, then torchvision's transforms, image by image."""

    def __init__(self, pixels: np.ndarray) -> None:
        self.pixels = pixels
        self.transform = transforms.Compose(
            [transforms.Resize(64), transforms.ToTensor(), transforms.Normalize([0.5], [0.5])]
        )

    def __len__(self) -> int:
        return len(self.pixels)

    def __getitem__(self, index: int) -> torch.Tensor:
        image: torch.Tensor = self.transform(Image.fromarray(self.pixels[index]))
        return image


@pytest.mark.benchmark(group="input pipeline: 400 gray images, 28 to 64 px, normalised, batches of 64")
@pytest.mark.parametrize("way", ["DataLoader with 2 workers", "resident"])
def test_input_pipeline(way: str, benchmark: Callable[..., Any]) -> None:
    there = task()
    if way == "resident":
        run = Run(Backbone("test_resnet", weights="random"), Protocol(), 0, 64, CPU, "fp32")
        work = lambda: sum(len(run.prepare(pixels)) for pixels, _ in there.train.batches(64))  # noqa: E731
    else:
        # Workers persist, so that starting them is not counted against the usual way.
        assert isinstance(there.train.pixels, torch.Tensor)
        images = Usual(there.train.pixels[:, 0].numpy())
        loader = DataLoader(images, batch_size=64, num_workers=2, persistent_workers=True)
        work = lambda: sum(len(batch) for batch in loader)  # noqa: E731
    assert work() == len(there.train)
    benchmark(work)


@pytest.mark.benchmark(group=f"{HEADS} linear heads of a probe, 10 epochs, 512 features")
@pytest.mark.parametrize("way", ["one after the other", "together"])
def test_heads_of_a_probe(way: str, benchmark: Callable[..., Any]) -> None:
    there = task()
    draw = torch.Generator().manual_seed(0)
    train, val = (torch.randn(len(split), 512, generator=draw) for split in (there.train, there.val))
    hparams = [{"lr": 0.001 * 1.3**i, "weight_decay": 0.01} for i in range(HEADS)]
    groups = [list(range(HEADS))] if way == "together" else [[i] for i in range(HEADS)]
    benchmark(lambda: [fit_heads(train, val, there, [hparams[i] for i in g], g, Protocol(epochs=10)) for g in groups])
