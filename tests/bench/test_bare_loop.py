"""An epoch of full fine-tuning against the bare loop: nothing but forward, backward and step."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from torch.nn import functional

from bench import registry
from bench.contract import Backbone
from bench.finetune import FineTune
from bench.train import train
from tests.bench.files import SMALL, drawn, opened, run_of, task
from tests.bench.measure import OURS, in_turn, ratios, say

SIZE, BATCH, EPOCHS = 64, 32, 1


@pytest.mark.parametrize("backbone", [SMALL, Backbone("resnet18", "random")], ids=["small", "resnet18"])
def test_what_the_harness_adds_to_an_epoch(backbone: Backbone, tmp_path: Path, benchmark: Any) -> None:
    """The bare loop's batches are in memory, resized and normalised, in the precision and layout of ours; it predicts
    val as well, but neither shuffles, schedules, clips, watches the loss nor scores."""
    counts = {"train": 128, "val": 32, "test": 10}
    images = task(opened(drawn(tmp_path, "phantom-radiograph", counts, side=SIZE)), SIZE)
    run = run_of(backbone, SIZE, epochs=EPOCHS, batch_size=BATCH)
    strategy = registry.load_strategy("full_finetune")
    assert isinstance(strategy, FineTune)
    batches = [(run.prepare(pixels), labels) for pixels, labels in images.train.batches(BATCH)]
    val = run.prepare(images.val.batch(torch.arange(len(images.val)))[0])
    nets: dict[str, Any] = {}

    def bare() -> None:
        net = nets["bare"]
        optimizer = torch.optim.AdamW(net.parameters(), 1e-4, fused=True)
        for _ in range(EPOCHS):
            net.train()
            for inputs, labels in batches:
                with run.autocast():
                    loss = functional.cross_entropy(net(inputs).float(), labels)
                optimizer.zero_grad()
                loss.backward()
                optimizer.step()
            net.eval()
            with torch.inference_mode(), run.autocast():
                net(val)

    def fresh() -> None:
        nets.update({name: run.network(images.outputs) for name in ("bare", OURS)})

    seconds = in_turn(
        benchmark,
        lambda: train(nets[OURS], strategy, images, {"lr": 1e-3}, run.fresh(0)),
        {"bare": bare},
        prepare=fresh,
    )
    text = f"full_finetune epoch, {backbone.label} at {SIZE} px, against the bare loop"
    say(benchmark, text, "at most 1.10x", ratios(seconds[OURS], seconds["bare"]))
