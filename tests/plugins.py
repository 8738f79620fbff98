"""Strategies as the registry loads them, for tests of their mechanisms, and networks of three families beside
bench.check's own with BatchNorm."""

from __future__ import annotations

import sys
from types import ModuleType

from bench import registry
from bench.contract import Backbone
from bench.finetune import FineTune
from tests.small import CHECKOUT

DEPTHWISE = Backbone("mobilenetv2_035", "random", cut=2)
LAYERNORM = Backbone("test_convnext", "random")


def strategy(name: str) -> FineTune:
    """A strategy that descends by gradients."""
    found = registry.load_strategy(name, CHECKOUT)
    assert isinstance(found, FineTune)
    return found


def module(name: str) -> ModuleType:
    """A strategy's file, for its functions."""
    return sys.modules[type(strategy(name)).__module__]
