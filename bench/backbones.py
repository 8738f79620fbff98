"""timm networks without their classifier: made, loaded, normalised and measured."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Mapping
from functools import lru_cache
from itertools import chain
from typing import Any

import timm
import torch
from timm.models import ResNet
from torch import Tensor, nn
from torch.func import functional_call
from torch.utils.flop_counter import FlopCounterMode

from bench.contract import Backbone
from bench.errors import UsageError, WeightsError, brief
from bench.stages import cut_after, stages
from bench.weights_origin import Weights, bundled_of, read_state, resolve, timm_arguments, timm_config

__all__ = [
    "build_features",
    "feature_width",
    "flops_of",
    "normalisation",
    "resolve",
    "stages",
    "too_small",
    "width_of",
]


def build_features(backbone: Backbone, seed: int, pretrained: bool = True) -> nn.Module:
    """The network without its classifier: normalised images float32 [N, 3, S, S] -> pooled features float32 [N, D].

    Every call makes a new network, in train mode, on the CPU. Without pretrained weights it is drawn from `seed`, which
    has no influence otherwise; the global random numbers are left as they were. Weights load strictly. Raises
    UsageError for a network that does not exist or cannot be cut so, WeightsError for weights that cannot be found,
    read or loaded."""
    weights = resolve(backbone) if pretrained else None
    if weights is None or weights.path is None:
        with _drawn_from(seed):
            network = _create(backbone)
            if backbone.stem == "cifar":
                _small_image_stem(network, backbone)
        return cut_after(network, backbone)
    if backbone.stem:
        raise WeightsError(
            f"{backbone.label}: pretrained weights do not fit a {backbone.stem} stem. "
            'Set weights = "random", or leave the stem as it is.'
        )
    with _drawn_from(0):  # all of it is overwritten: nothing depends on what is drawn
        network = _published(backbone, weights) if backbone.weights == "hub" else _from_file(backbone, weights)
    for name, value in network.state_dict().items():
        if not value.isfinite().all():
            raise WeightsError(f"{weights.origin}: {name} holds NaN or infinite values. Use another file.")
    return network


def normalisation(backbone: Backbone) -> tuple[Tensor, Tensor]:
    """mean and std, float32 [3], of images in 0..1: the backbone's own, else the bundled weights', else timm's for the
    network and tag."""
    config = bundled_of(backbone) or timm_config(backbone)
    return torch.tensor(backbone.mean or config.mean), torch.tensor(backbone.std or config.std)


def feature_width(features: nn.Module) -> int:
    """D, as the head sees it: measured, since timm's `num_features` can differ from it. Raises UsageError for a network
    that does not give [N, D]."""
    size = getattr(features, "pretrained_cfg", {}).get("input_size", (3, 224, 224))[-1]
    shape = _on_meta(features, size).shape
    if len(shape) != 2:
        found = list(shape)
        raise UsageError(f"{type(features).__name__}: gives {found}, not pooled features [N, D]. Use another network.")
    return int(shape[1])


@lru_cache(maxsize=256)
def width_of(backbone: Backbone) -> int:
    """D of a backbone, measured once: a matrix builds the same network thousands of times. Raises UsageError."""
    return feature_width(build_features(backbone, seed=0, pretrained=False))


@lru_cache(maxsize=256)
def flops_of(backbone: Backbone, size: int) -> float:
    """Floating-point operations (two a multiply-accumulate) of one image of `size` pixels going forward, by torch's own
    counter; convolutions and matrix products only. Counted once, and without weights: training from scratch needs none
    to be there."""
    features = build_features(backbone, seed=0, pretrained=False)
    with FlopCounterMode(display=False) as counter:
        _on_meta(features, size)
    return float(counter.get_total_flops())


@lru_cache(maxsize=256)
def too_small(backbone: Backbone, size: int) -> str:
    """Why the network cannot take images of `size` pixels, or "": some shrink small images to nothing."""
    try:
        _on_meta(build_features(backbone, seed=0, pretrained=False), size)
    except RuntimeError as error:
        return f"{backbone.label} cannot take images of {size} px ({brief(error)})"
    except AssertionError as error:  # a transformer's, of one size
        why = f"{backbone.label} cannot take images of {size} px ({str(error).rstrip('.')})"
        return f"{why}: medtransfer is for convolutional networks, which take any size"
    return ""


def _create(backbone: Backbone) -> nn.Module:
    name, kwargs = timm_arguments(backbone)
    timm_config(backbone)  # names what is near an unknown network or tag
    try:
        return timm.create_model(name, num_classes=0, **kwargs)
    except Exception as error:  # each network checks its arguments in its own way
        raise UsageError(f"{backbone.label}: timm cannot make it with kwargs {kwargs} ({brief(error)}).") from error


def _small_image_stem(network: nn.Module, backbone: Backbone) -> None:
    """3x3 convolution of stride 1 and no max-pool, as He et al. 2016 (section 4.2) for CIFAR-10."""
    if not isinstance(network, ResNet):
        raise UsageError(f'{backbone.label}: stem = "cifar" is for ResNets, such as resnet18. Leave it out.')
    norm: Any = network.bn1
    first = nn.Conv2d(3, norm.num_features, 3, padding=1, bias=False)
    nn.init.kaiming_normal_(first.weight, mode="fan_out", nonlinearity="relu")  # as timm draws the others
    network.add_module("conv1", first)
    network.add_module("maxpool", nn.Identity())


def _from_file(backbone: Backbone, weights: Weights) -> nn.Module:
    """The network, cut, with a file's weights of the whole or the cut network, with or without the classifier."""
    assert weights.path is not None
    own = timm_config(backbone).classifier or ()
    classifier = tuple(f"{name}." for name in ([own] if isinstance(own, str) else own))
    state = {name: value for name, value in read_state(weights.path).items() if not name.startswith(classifier)}
    network = _create(backbone)
    wrong = _mismatches(network, state)
    if not wrong:
        network.load_state_dict(state)
        return cut_after(network, backbone)
    if backbone.cut:
        cut_after(network, backbone)
        wrong = min(wrong, _mismatches(network, state), key=lambda found: sum(map(len, found.values())))
        if not wrong:
            network.load_state_dict(state)
            return network
    try:
        return _published(backbone, weights)  # names its tensors as torchvision, for one, does
    except WeightsError as error:
        what = "; ".join(f"{len(n)} {kind} ({', '.join(n[:3])}{', ...' * (len(n) > 3)})" for kind, n in wrong.items())
        fix = "Check model, cut and kwargs."
        raise WeightsError(f"{weights.origin}: does not fit {backbone.label}: {what}. {fix}") from error


def _mismatches(network: nn.Module, state: Mapping[str, Tensor]) -> dict[str, list[str]]:
    """What keeps a state dict from loading strictly: kind -> tensors. Empty where nothing does."""
    own = network.state_dict()
    found = {
        # Torch before 0.4.1 and other libraries do not count batches; torch loads their files all the same.
        "missing": [name for name in own if name not in state and not name.endswith("num_batches_tracked")],
        "unexpected": [name for name in state if name not in own],
        "of another shape": [
            f"{name} {list(value.shape)} in the file, {list(own[name].shape)} in the network"
            for name, value in state.items()
            if name in own and value.shape != own[name].shape
        ],
    }
    return {kind: names for kind, names in found.items() if names}


def _published(backbone: Backbone, weights: Weights) -> nn.Module:
    """The network, cut, with a published file as timm itself loads it: names converted where they are not timm's, and
    with the classifier, since only then is timm strict; it is dropped afterwards. Raises WeightsError."""
    name, kwargs = timm_arguments(backbone)
    source = {"file": str(weights.path), "custom_load": weights.custom}
    if weights.path is not None and weights.path.suffix != ".safetensors" and not weights.custom:
        read_state(weights.path)  # refuses what could run code, which not every version of timm does of itself
    network: Any
    try:
        network = timm.create_model(name, pretrained=True, pretrained_cfg_overlay=source, **kwargs)
    except Exception as error:  # a converter of names may fail in any way on names it does not know
        raise WeightsError(f"{weights.origin}: does not load ({brief(error)}). Check model and kwargs.") from error
    network.reset_classifier(0)
    return cut_after(network, backbone)


@contextlib.contextmanager
def _drawn_from(seed: int) -> Iterator[None]:
    with torch.random.fork_rng(devices=[]):
        # Not torch.manual_seed: it would seed the accelerator's generator as well, which is not put back here.
        torch.default_generator.manual_seed(seed)
        yield


def _on_meta(features: nn.Module, size: int) -> Tensor:
    """The features of one image, without values: nothing is computed and no tensor of the network is touched."""
    tensors = {name: value.to("meta") for name, value in chain(features.named_parameters(), features.named_buffers())}
    training = [module for module in features.modules() if module.training]
    features.eval()
    try:
        with torch.no_grad():
            pooled: Tensor = functional_call(features, tensors, torch.empty(1, 3, size, size, device="meta"))
            return pooled
    finally:
        for module in training:
            module.training = True
