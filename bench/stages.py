"""A timm network as a stem and stages, and cut after one of them.

Stage k ends where timm's `feature_info` has its tap of stride 2^(k+1): stages 1 to 4 end at strides 4, 8, 16 and 32 in
every convolutional family. All that comes before stage 1 is the stem (in EfficientNet and MobileNetV2 that takes in
`blocks.0`, in VGG the first two blocks of convolutions). All that follows the last tap, but for the classifier, is in
the last stage (MobileNet's `conv_head`, ConvNeXt's `head.norm`, VGG's `pre_logits`).
"""

from __future__ import annotations

from typing import Any

from timm.models import group_parameters
from torch import nn

from bench.contract import Backbone
from bench.errors import UsageError


def stages(features: nn.Module) -> list[list[str]]:
    """Parameter names by stage, stem first: every parameter in exactly one, in the network's order. Networks without
    taps are divided by timm's own coarse groups. Raises UsageError where there are none either."""
    network: Any = features
    places = {name: i for i, (name, _) in enumerate(network.named_modules())}
    taps = [tap["module"] for tap in _taps(network)]
    if not taps:
        if not hasattr(network, "group_matcher"):
            raise UsageError(f"{type(network).__name__}: timm does not divide it into stages. Use another network.")
        return list(group_parameters(network, network.group_matcher(coarse=True)).values())
    starts = [places[tap] for tap in taps]
    ends = [max(place for name, place in places.items() if not tap or f"{name}.".startswith(f"{tap}.")) for tap in taps]
    # A tap of the whole network (TResNet has one) ends where the next begins.
    ends = [min(end, following - 1) for end, following in zip(ends, starts[1:], strict=False)]
    in_stem = _stem_taps(network)
    borders = ends[in_stem - 1 :] if in_stem else [starts[0] - 1, *ends]
    groups: list[list[str]] = [[] for _ in range(len(borders) + 1)]
    for name, _ in network.named_parameters():
        place = places[name.rpartition(".")[0]]
        groups[sum(place > border for border in borders)].append(name)
    return groups


def stage_ends(features: nn.Module) -> dict[str, int]:
    """The modules whose outputs are the feature maps at the ends of stages 1, 2, ..., and their numbers of channels, as
    timm names them; empty where it does not."""
    return {tap["module"]: tap["num_chs"] for tap in _taps(features)[_stem_taps(features) :]}


def cut_after(features: nn.Module, backbone: Backbone) -> nn.Module:
    """The network itself, of which only the stem and stages 1..`backbone.cut` are left, with a global average after
    them; whole where the cut is None or the last stage. Raises UsageError where it cannot be cut so."""
    if backbone.cut is None:
        return features
    network: Any = features
    whole = stages(network)
    last = len(whole) - 1
    if not 1 <= backbone.cut <= last:
        raise UsageError(f"{backbone.label}: there is no stage {backbone.cut} to cut after. Valid for it: 1 to {last}.")
    if backbone.cut == last:
        return features
    index = _stem_taps(network) + backbone.cut - 1
    refused = f"{backbone.label}: timm cannot cut this network there. Leave the cut out, or use another network."
    try:
        network.prune_intermediate_layers([index], prune_norm=True, prune_head=True)
        network.reset_classifier(0, "avg")
    except (AttributeError, AssertionError, NotImplementedError) as error:
        raise UsageError(refused) from error
    network.feature_info = list(network.feature_info)[: index + 1]
    if stages(network) != whole[: backbone.cut + 1]:
        raise UsageError(refused)
    return features


def _taps(network: Any) -> list[dict[str, Any]]:
    """timm's taps, if all of them are modules of the network."""
    taps = list(getattr(network, "feature_info", ()))
    names = {name for name, _ in network.named_modules()}
    return taps if names >= {tap["module"] for tap in taps} else []


def _stem_taps(network: Any) -> int:
    """How many taps lie in the stem or end it."""
    return sum(tap["reduction"] <= 2 for tap in _taps(network))
