"""The bundled weights transfer: frozen probes on them beat the same networks with random weights."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from bench import registry
from bench.check import new_run
from bench.contract import Backbone, Protocol, Task
from bench.images import predict, to_device
from bench.train import val_scores
from bench.weights_origin import BUNDLED
from tests.small import CHECKOUT


def probed(weights: str, name: str, dataset: str, size: int, root: Path) -> float:
    """Test AUC of a linear probe with its default hyperparameters."""
    source = registry.open_dataset(dataset, root)
    splits = {part: to_device(source.load(part, size), f"{dataset}/{part}", torch.device("cpu")) for part in
              ("train", "val", "test")}  # fmt: skip
    task = Task(source.info, size, splits["train"], splits["val"])
    run = new_run(0, Backbone(f"bundled:{name}", weights), Protocol(epochs=10), size)
    probe = registry.load_strategy("linear_probe", CHECKOUT)
    logits = predict(probe.fit(task, probe.defaults(), run), splits["test"])
    return val_scores(logits, splits["test"], task)[0]


@pytest.mark.parametrize("name", BUNDLED)
def test_on_drawn_images(name: str) -> None:
    pretrained, random = (probed(w, name, "phantom-fundus", 64, Path()) for w in (f"bundled:{name}", "random"))
    assert pretrained > random + 0.03


@pytest.mark.parametrize("name", BUNDLED)
def test_on_ultrasound(name: str, shared: Path) -> None:
    root = shared / "data" / "medmnist"
    pretrained, random = (probed(w, name, "breastmnist", 64, root) for w in (f"bundled:{name}", "random"))
    assert pretrained > random + 0.03
