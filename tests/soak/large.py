"""A matrix of a hundred thousand cells."""

from __future__ import annotations

import math
from pathlib import Path

from bench import registry
from bench.config import Amount, Matrix
from bench.contract import Backbone
from tests.small import CHECKOUT, matrix

NETWORKS = ("test_resnet", "test_efficientnet", "test_vit", "test_byobnet", "resnet18", "mobilenetv2_035")


def large(results: Path, cells: int) -> Matrix:
    """At least so many cells: all strategies on six networks, three datasets, two sizes and many amounts of data."""
    strategies = tuple(registry.strategies(CHECKOUT))
    datasets, sizes = ("phantom-radiograph", "phantom-organ-a", "phantom-fundus"), (32, 64)
    amounts = math.ceil(cells / (len(strategies) * len(NETWORKS) * len(datasets) * len(sizes)))
    return matrix(
        results,
        strategies=strategies,
        backbones=tuple(Backbone(name, "random") for name in NETWORKS),
        datasets=datasets,
        sizes=sizes,
        amounts=tuple(Amount(per_class=number) for number in range(2, 2 + amounts)),
        seeds=1,
    )
