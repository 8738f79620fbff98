"""The linear heads of a probe's trials: together, and each in a loop of its own."""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils.data import DataLoader, TensorDataset

from bench.check import phantom_task
from bench.contract import Protocol, Task
from bench.probe import Heads, fit_heads, standardisation
from bench.train import lr_factor
from tests.bench.measure import OURS, in_turn, ratios, say

HEADS = 16
WIDTH = 512
PROTOCOL = Protocol(epochs=10, batch_size=64)
HPARAMS = [{"lr": 0.001 * 1.3**number, "weight_decay": 0.01} for number in range(HEADS)]


def test_heads_of_a_probe(benchmark: Any) -> None:
    there = phantom_task("binary", size=28, images=400)
    draw = torch.Generator().manual_seed(0)
    train, val = (torch.randn(len(split), WIDTH, generator=draw) for split in (there.train, there.val))

    def together(which: range = range(HEADS)) -> Heads:
        return fit_heads(train, val, there, [HPARAMS[i] for i in which], list(which), PROTOCOL)

    loops, heads = [one_in_a_loop(train, there, i) for i in range(HEADS)], together()
    for number, (weight, bias) in enumerate(loops):
        torch.testing.assert_close(heads.weight[number], weight, rtol=0, atol=1e-5)
        torch.testing.assert_close(heads.bias[number], bias, rtol=0, atol=1e-5)

    others = {
        "loops": lambda: [one_in_a_loop(train, there, i) for i in range(HEADS)],
        "single": lambda: [together(range(i, i + 1)) for i in range(HEADS)],
    }
    seconds = in_turn(benchmark, together, others)
    text = f"{HEADS} linear heads together against one after the other"
    say(benchmark, f"{text}, each by a DataLoader and autograd", "12x", ratios(seconds["loops"], seconds[OURS]))
    say(benchmark, f"{text}, by the same code", "-", ratios(seconds["single"], seconds[OURS]))


def one_in_a_loop(train: Tensor, task: Task, number: int) -> tuple[Tensor, Tensor]:
    """Weight [D, K] and bias [K] of head `number` on raw features, as PyTorch's own parts train it."""
    centre, scale = standardisation(train)
    features, seed = (train - centre) / scale, number
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        head = nn.Linear(WIDTH, task.outputs)
    hparams = HPARAMS[number]
    groups = [{"params": [head.weight], "weight_decay": hparams["weight_decay"]}, {"params": [head.bias]}]
    optimizer = torch.optim.SGD(groups, hparams["lr"], momentum=0.9, nesterov=True)
    steps = math.ceil(len(features) / PROTOCOL.batch_size)
    planned = steps * PROTOCOL.epochs
    schedule = torch.optim.lr_scheduler.LambdaLR(optimizer, lambda step: lr_factor(step / planned, PROTOCOL))
    shuffle = torch.Generator().manual_seed(seed)

    def orders() -> Iterator[list[int]]:
        for part in torch.randperm(len(features), generator=shuffle).tensor_split(steps):
            yield part.tolist()

    images = TensorDataset(features, task.train.labels)
    for _ in range(PROTOCOL.epochs):
        for inputs, labels in DataLoader(images, batch_sampler=list(orders())):
            optimizer.zero_grad()
            nn.functional.cross_entropy(head(inputs), labels).backward()
            optimizer.step()
            schedule.step()
    weight = head.weight.detach().T / scale[:, None]
    return weight, head.bias.detach() - centre @ weight
