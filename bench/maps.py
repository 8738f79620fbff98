"""The feature maps of a network at the ends of its stages, and what becomes of it without some of their channels."""

from __future__ import annotations

import contextlib
from functools import lru_cache
from typing import Any, cast

import torch
from torch import Tensor, nn

from bench.backbones import build_features
from bench.contract import Backbone
from bench.stages import stage_ends


def with_maps(features: nn.Module, images: Tensor) -> tuple[Tensor, list[Tensor]]:
    """Pooled features [B, D], and the maps [B, C, H, W] at the ends of the stages."""
    maps: list[Tensor] = []
    with contextlib.ExitStack() as hooks:
        for end in stage_ends(features):
            module = features.get_submodule(end)
            hooks.enter_context(module.register_forward_hook(lambda module, inputs, output: maps.append(output)))
        return features(images), maps


def without(features: nn.Module, end: str, removed: Tensor, images: Tensor) -> Tensor:
    """Pooled features [R, B, D] of a batch without the channels of the map at `end` that are 1 in a row of `removed`
    [R, C]. What comes before the map is computed once."""

    def remove(module: nn.Module, inputs: tuple[Tensor, ...], output: Tensor) -> Tensor:
        return ((1 - removed)[:, None, :, None, None] * output).flatten(0, 1)

    with features.get_submodule(end).register_forward_hook(remove):
        return cast(Tensor, features(images).unflatten(0, (len(removed), len(images))))


@lru_cache(maxsize=256)
def maps_obstacle(backbone: Backbone) -> str | None:
    """Why the maps cannot be compared or a channel not be removed, found out without computing anything."""
    features: Any = build_features(backbone, seed=0, pretrained=False).to("meta").eval()
    ends = stage_ends(features)
    if not ends:
        return f"timm does not name the feature maps at the ends of {backbone.label}'s stages"
    images = torch.empty(2, *getattr(features, "pretrained_cfg", {}).get("input_size", (3, 224, 224)), device="meta")
    try:
        for end, channels in ends.items():
            without(features, end, torch.empty(3, channels, device="meta"), images)
    except (RuntimeError, TypeError):
        return f"a stage of {backbone.label} does not end in one feature map that all that follows is computed from"
    return None
