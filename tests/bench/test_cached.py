"""What is computed once: the activations of frozen stages in a fit, and the features of a split in a later run."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch

from bench import registry, train
from bench.contract import Backbone, Protocol
from bench.finetune import FineTune
from bench.run import Run
from tests.bench.files import SMALL, forget_features, opened, run_of, task
from tests.bench.measure import OURS, in_turn, ratios, say

SIZE, EPOCHS, BATCH = 64, Protocol().epochs, 32
HPARAMS = {"lr": 1e-3, "frozen_stages": 2}
RESNET18 = Backbone("resnet18", "random")


@pytest.mark.parametrize("backbone", [SMALL, RESNET18], ids=["small", "resnet18"])
def test_partial_fine_tuning(
    backbone: Backbone,
    radiographs: Path,
    few_radiographs: Path,
    monkeypatch: pytest.MonkeyPatch,
    benchmark: Any,
) -> None:
    """The activations are computed in the time that is measured."""
    images = task(opened(radiographs if backbone is SMALL else few_radiographs), SIZE)
    strategy = registry.load_strategy("partial_finetune")
    assert isinstance(strategy, FineTune)
    activations = train.activations
    curves: dict[bool, list[float]] = {}

    def fit(cached: bool) -> None:
        run = run_of(backbone, SIZE, epochs=EPOCHS, batch_size=BATCH)
        run.frozen()  # which cells share
        monkeypatch.setattr(train, "activations", activations if cached else lambda *_: None)
        strategy.fit(images, dict(HPARAMS), run)
        curves[cached] = run.meter.curve

    seconds = in_turn(benchmark, lambda: fit(True), {"plain": lambda: fit(False)})
    assert curves[True] == curves[False]
    text = (
        f"partial fine-tuning of {backbone.label} on {len(images.train)} images of {SIZE} px, {EPOCHS} epochs, from "
        "activations against from images"
    )
    say(benchmark, text, "1.35x", ratios(seconds["plain"], seconds[OURS]))


@pytest.mark.parametrize("backbone", [SMALL, RESNET18], ids=["small", "resnet18"])
def test_features_of_a_later_run(backbone: Backbone, radiographs: Path, benchmark: Any) -> None:
    images = task(opened(radiographs), SIZE)
    found: dict[str, torch.Tensor] = {}

    def features(of: str) -> None:
        run: Run = run_of(backbone, SIZE)
        run.frozen()
        if of == "computed":
            forget_features()
        found[of] = run.features(images.train)

    seconds = in_turn(benchmark, lambda: features(OURS), {"computed": lambda: features("computed")})
    assert torch.equal(found[OURS], found["computed"])
    text = f"features of {len(images.train)} images of {SIZE} px, {backbone.label}, read against computed"
    say(benchmark, text, "-", ratios(seconds["computed"], seconds[OURS]))
