"""The input pipeline alone: gray 28 px images to normalised batches of three channels."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch

from bench.images import Images
from bench.policies import Policy, augmented
from tests.bench import usual_way
from tests.bench.files import SMALL, opened, run_of, task
from tests.bench.measure import OURS, in_turn, ratios, say

BATCH = 64
MOVED = Policy(horizontal_flip=0.5, shift=1 / 16)
"""Ours draws the same moves: a sixteenth of the side in both directions, and mirrors half of the images."""


@pytest.mark.parametrize(("size", "demanded"), [(64, "25x"), (224, "8x")])
@pytest.mark.parametrize("moves", [True, False], ids=["crop and flip", "as it is"])
def test_images_a_second(size: int, demanded: str, moves: bool, radiographs: Path, benchmark: Any) -> None:
    run, images = run_of(SMALL, size), task(opened(radiographs), size).train
    change = usual_way.transform(size, [0.5] * 3, [0.5] * 3, crop_and_flip=moves)
    usual = usual_way.loader(usual_way.MedMnist(radiographs, "train", change), BATCH, shuffle=True)
    draws = torch.Generator().manual_seed(0)

    def ours() -> int:
        return sum(len(batch) for batch in batches(images, draws))

    def batches(images: Images, draws: torch.Generator) -> Any:
        for index in torch.randperm(len(images), generator=draws).split(BATCH):
            resized = run.resized(images.batch(index)[0])
            yield run.normalised(augmented(resized, MOVED, draws) if moves else resized)

    assert ours() == sum(len(batch) for batch, _ in usual) == len(images)  # which also starts the workers
    seconds = in_turn(benchmark, ours, {"usual": lambda: sum(len(batch) for batch, _ in usual)}, usual=True)
    what = "with crop and flip" if moves else "resized and normalised only"
    wanted = demanded if moves else "-"
    say(benchmark, f"input pipeline, 28 to {size} px {what}", wanted, ratios(seconds["usual"], seconds[OURS]))
    rates = [len(images) / taken for taken in seconds[OURS]]
    say(benchmark, f"the same, ours alone, {size} px", "-", rates, "images/s")
