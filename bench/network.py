"""A backbone with a head: what gradient strategies train."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from bench.backbones import stages


class Network(nn.Module):
    """Normalised images float32 [N, 3, S, S] -> logits [N, K], through pooled features [N, D] and a linear head."""

    def __init__(self, features: nn.Module, width: int, outputs: int, seed: int) -> None:
        super().__init__()
        self.features = features
        self.memo: dict[str, Any] = {}
        """What a strategy keeps for the length of a fit; no part of the network's state."""
        with torch.random.fork_rng(devices=[]):
            torch.default_generator.manual_seed(seed)  # torch.manual_seed would reseed a GPU's generator for good
            self.head = nn.Linear(width, outputs)

    def forward(self, images: Tensor) -> Tensor:
        return self.head(self.features(images))

    def stages(self) -> list[list[nn.Parameter]]:
        """The backbone's parameters by stage, stem first; the head is not among them."""
        named = dict(self.features.named_parameters())
        return [[named[name] for name in stage] for stage in stages(self.features)]


def set_modes(net: nn.Module) -> None:
    """Train mode, but eval for every module of which nothing is trainable: a frozen BatchNorm in train mode would go on
    drifting, since its running statistics are no parameters."""
    _set_modes(net)


def _set_modes(net: nn.Module) -> bool | None:
    """Whether any of its parameters is trainable; None where it has none."""
    net.training = True
    states = [_set_modes(child) for child in net.children()]
    states += [parameter.requires_grad for parameter in net.parameters(recurse=False)]
    known = [state for state in states if state is not None]
    if known and not any(known):
        net.eval()
    return any(known) if known else None
