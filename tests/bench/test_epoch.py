"""An epoch of full fine-tuning with its evaluations, against MedMNIST's loop, Lightning and fastai: same network."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

from bench import registry
from bench.contract import Backbone
from tests.bench import in_fastai, in_lightning, usual_way
from tests.bench.files import SMALL, opened, run_of, task
from tests.bench.measure import OURS, in_turn, ratios, say

RESNET18 = Backbone("resnet18", "random")
EPOCHS = 2
BATCH = 32
WAYS = {
    "MedMNIST's loop": lambda net, data: usual_way.fit(
        net, usual_way.fine_tuning(net, 1e-3, 0.1), data, "binary", EPOCHS
    ),
    "Lightning": lambda net, data: in_lightning.fit(net, 1e-3, data["learn"], data["val"], "binary", EPOCHS),
    "fastai": lambda net, data: in_fastai.fit(net, 1e-3, data["learn"], data["val"], "binary", EPOCHS),
}


@pytest.mark.parametrize(
    ("backbone", "size", "demanded"), [(SMALL, 32, "3.3x"), (RESNET18, 64, "2.4x")], ids=["small", "resnet18"]
)
def test_epoch(
    backbone: Backbone, size: int, demanded: str, radiographs: Path, few_radiographs: Path, benchmark: Any
) -> None:
    file = few_radiographs if backbone is RESNET18 else radiographs
    images, run = task(opened(file), size), run_of(backbone, size, epochs=EPOCHS, batch_size=BATCH)
    strategy = registry.load_strategy("full_finetune")
    change = usual_way.transform(size, (0.485, 0.456, 0.406), (0.229, 0.224, 0.225))
    data = usual_way.loaders(file, change, BATCH)
    for loader in data.values():
        next(iter(loader))  # starts its workers

    def contiguous() -> nn.Module:
        return run.network(images.outputs).to(memory_format=torch.contiguous_format)

    others = {name: lambda way=way: way(contiguous(), data) for name, way in WAYS.items()}
    seconds = in_turn(benchmark, lambda: strategy.fit(images, {"lr": 1e-3}, run.fresh(0)), others, usual=True)
    for name in others:
        wanted = demanded if name == "MedMNIST's loop" else "1.8x"
        text = f"training epoch, {backbone.label} at {size} px, against {name}"
        say(benchmark, text, wanted, ratios(seconds[name], seconds[OURS]))
