"""The share of parameters that a strategy trains is measured, not claimed."""

from __future__ import annotations

import pytest

from bench import trained
from bench.backbones import build_features
from tests.small import CHECKOUT


def test_the_share_is_that_of_what_trains(own_cache: None) -> None:
    features = build_features(trained.NETWORK, 0)
    backbone = sum(p.numel() for p in features.parameters())
    head = 96 * 2 + 2
    norms = sum(p.numel() for name, p in features.named_parameters() if "bn" in name or "downsample.1" in name)
    assert trained.trained_share("scratch", CHECKOUT) == 1.0
    assert trained.trained_share("linear_probe", CHECKOUT) == pytest.approx(head / (backbone + head))
    assert trained.trained_share("bn_only", CHECKOUT) == pytest.approx((norms + head) / (backbone + head))


def test_it_is_measured_once(own_cache: None, monkeypatch: pytest.MonkeyPatch) -> None:
    first = trained.trained_share("linear_probe", CHECKOUT)
    monkeypatch.delattr(trained, "phantom_task")
    assert trained.trained_share("linear_probe", CHECKOUT) == first
