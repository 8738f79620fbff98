"""BatchNorm with one branch a domain: statistics, scales and shifts of its own (Chang et al. 2019)."""

from __future__ import annotations

import contextlib
import copy
from collections.abc import Iterator, Sequence
from dataclasses import replace
from functools import lru_cache
from typing import TypeGuard

from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm

from bench.backbones import build_features
from bench.contract import Backbone, Predictor, Task
from bench.network import Network
from bench.prediction import Prediction
from bench.run import Run

LABELLED, SECOND = 0, 1
"""The domains, and the branches that are theirs."""


class DomainNorm(nn.Module):
    """Takes the place of a BatchNorm, which is its first branch; the second starts as a copy. Which one is used is said
    by `in_domain`, outside of which neither is: whoever forgets the domain is told so."""

    def __init__(self, norm: _BatchNorm) -> None:
        super().__init__()
        self.branches = nn.ModuleList([norm, copy.deepcopy(norm)])
        self.domain: int | None = None

    def forward(self, maps: Tensor) -> Tensor:
        if self.domain is None:
            raise ValueError("DomainNorm: no domain was chosen. Call the network within bench.domain_norm.in_domain.")
        return self.branches[self.domain](maps)


def convert(module: nn.Module) -> None:
    """Put a DomainNorm in the place of every BatchNorm with moving statistics below `module`."""
    for name, child in module.named_children():
        if moving(child):
            setattr(module, name, DomainNorm(child).train(child.training))
        else:
            convert(child)


def restore(module: nn.Module, domain: int) -> None:
    """Put a domain's BatchNorms back in their places: for the labelled domain, the very modules that were there."""
    for name, child in module.named_children():
        if isinstance(child, DomainNorm):
            setattr(module, name, child.branches[domain])
        else:
            restore(child, domain)


@contextlib.contextmanager
def in_domain(module: nn.Module, domains: Sequence[int]) -> Iterator[None]:
    """Within it the module takes a batch of images of these domains, one entry an image. Raises ValueError where they
    are not all of one: a branch's statistics would be those of a mixture."""
    if len(set(domains)) != 1:
        raise ValueError(f"a batch of the domains {sorted(set(domains))}: give each domain a batch of its own")
    norms = [norm for norm in module.modules() if isinstance(norm, DomainNorm)]
    for norm in norms:
        norm.domain = domains[0]
    try:
        yield
    finally:
        for norm in norms:
            norm.domain = None


def domain_prediction(net: Network, task: Task, run: Run) -> Prediction:
    """How a network of DomainNorms predicts: images of each domain through its own branch."""
    whole = run.predictor(net)

    def branch(predict: Predictor | None, domain: int) -> Predictor:
        assert predict is not None  # a Network has features

        def through(images: Tensor) -> Tensor:
            with in_domain(net, [domain] * len(images)):
                return predict(images)

        return through

    labelled, second = (
        Prediction(branch(whole.logits, domain), branch(whole.embed, domain)) for domain in (LABELLED, SECOND)
    )
    return replace(second, other=labelled) if task.shift else replace(labelled, other=second)


def moving(module: nn.Module) -> TypeGuard[_BatchNorm]:
    """Whether it is a BatchNorm with moving statistics."""
    return isinstance(module, _BatchNorm) and module.running_mean is not None


@lru_cache(maxsize=256)
def no_batch_norm(backbone: Backbone) -> str | None:
    """Why a strategy that adapts BatchNorm does not apply; None where there is one to adapt."""
    if any(map(moving, build_features(backbone, seed=0, pretrained=False).modules())):
        return None
    return f"{backbone.label} has no BatchNorm with moving statistics"
