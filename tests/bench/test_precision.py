"""The precision and layout that the harness takes, against each fixed choice: training steps at 64 px."""

from __future__ import annotations

import statistics
from collections.abc import Callable
from functools import partial
from typing import Any

import pytest
import torch
from torch import nn

from bench.contract import Backbone
from tests.bench.files import SMALL, run_of
from tests.bench.measure import OURS, in_turn, ratios, say

SIZE, BATCH, STEPS = 64, 32, 2
PLAIN = "fp32 contiguous"
FIXED = {
    PLAIN: (torch.contiguous_format, False),
    "fp32 channels-last": (torch.channels_last, False),
    "bf16 contiguous": (torch.contiguous_format, True),
    "bf16 channels-last": (torch.channels_last, True),
}
MOBILE = Backbone("bundled:mobilenet", "bundled:mobilenet")
NETWORKS = [
    (Backbone("resnet18", "random"), "1.4x"),
    (SMALL, "1.4x"),
    (Backbone("mobilenetv3_small_100", "random"), "1.7x"),
    (MOBILE, "1.7x"),
]


@pytest.mark.parametrize(("backbone", "demanded"), NETWORKS, ids=[backbone.label for backbone, _ in NETWORKS])
def test_the_chosen_precision_and_layout(backbone: Backbone, demanded: str, benchmark: Any) -> None:
    run = run_of(backbone, SIZE)
    images = torch.rand(BATCH, 3, SIZE, SIZE, generator=torch.Generator().manual_seed(0))
    labels = torch.arange(BATCH) % 2
    inputs = run.normalised(images)
    # As `bench.train.train` does: the network, the images and the context are the run's to choose.
    ours = steps(run.network(2), lambda: inputs, labels, run.autocast)
    fixed = {}
    for name, (layout, half) in FIXED.items():
        net = run.network(2).to(memory_format=layout)
        given = partial(run.normalised(images).contiguous, memory_format=layout)
        fixed[name] = steps(net, given, labels, partial(torch.autocast, "cpu", torch.bfloat16, enabled=half))
    seconds = in_turn(benchmark, ours, fixed)
    best = min(fixed, key=lambda name: statistics.median(seconds[name]))
    text = f"chosen precision and layout, {backbone.label}, against"
    say(benchmark, f"{text} {PLAIN}", demanded, ratios(seconds[PLAIN], seconds[OURS]))
    say(benchmark, f"{text} the best fixed choice ({best})", "at least 0.97x", ratios(seconds[best], seconds[OURS]))


def steps(
    net: nn.Module, images: Callable[[], torch.Tensor], labels: torch.Tensor, context: Callable[[], Any]
) -> Callable[[], None]:
    optimizer = torch.optim.AdamW(net.train().parameters(), 1e-4, fused=True)

    def work() -> None:
        for _ in range(STEPS):
            with context():
                loss = nn.functional.cross_entropy(net(images()).float(), labels)
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()

    return work
