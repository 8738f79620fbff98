"""The proxy A-distance says how well domains can be told apart."""

from __future__ import annotations

import math

import pytest
import torch

from bench.check import new_run, phantom_task
from bench.domains import embedded, proxy_a_distance


def normal(shift: float, seed: int, count: int = 400) -> torch.Tensor:
    return torch.randn(count, 5, generator=torch.Generator().manual_seed(seed)) + shift


def test_equal_domains_are_at_distance_0_and_separate_ones_at_2() -> None:
    assert proxy_a_distance(normal(0, 1), normal(0, 2)) < 0.25
    assert proxy_a_distance(normal(0, 1), normal(20, 2)) == 2


def test_it_is_the_held_out_error_of_the_best_line_between_two_normals() -> None:
    # One feature, means 1 apart: the best threshold errs with probability Phi(-1/2) = .3085.
    first = torch.randn(500, 1, generator=torch.Generator().manual_seed(0))
    second = torch.randn(500, 1, generator=torch.Generator().manual_seed(1)) + 1
    assert proxy_a_distance(first, second) == pytest.approx(2 * (1 - 2 * 0.3085), abs=0.12)


def test_the_larger_domain_counts_as_much_as_the_smaller() -> None:
    assert proxy_a_distance(normal(0, 1, 50), normal(0, 2, 5000)) < 0.5
    assert math.isnan(proxy_a_distance(normal(0, 1, 3), normal(0, 2)))


def test_features_are_those_of_a_seeded_sample() -> None:
    task, run = phantom_task("binary"), new_run()
    assert torch.allclose(embedded(run.embed, task.train), run.features(task.train), atol=1e-6)
