"""A network whose lower stages stay frozen trains from their activations, which are computed once.

The stages below the freezing point give the same activations for the same image in every epoch, trial and seed. They
are skipped by letting their modules pass on what they are given: the activations themselves.
"""

from __future__ import annotations

import contextlib
import math
from collections.abc import Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, NoReturn

import torch
from torch import Tensor, nn

from bench import clock
from bench.contract import Task
from bench.images import Images
from bench.lent import lend
from bench.memory import free_bytes
from bench.network import Network
from bench.run import Run
from bench.stages import stage_ends, stages

if TYPE_CHECKING:
    from bench.finetune import FineTune

ROOM = 0.25
"""Share of the free device memory that activations may take."""


@dataclass(frozen=True, eq=False)
class Activations:
    """What the frozen stages make of the training images, and the modules to skip."""

    maps: Tensor
    """[N, C, H, W], in the precision that the network computes in; pooled features [N, D] where all stages are
    frozen."""
    skipped: tuple[nn.Module, ...]

    def batch(self, index: Tensor) -> Tensor:
        """Those of the images at `index` (int64 [B]): a copy, in the same layout."""
        if self.maps.ndim == 4 and self.maps.is_contiguous(memory_format=torch.channels_last):
            return self.maps.permute(0, 2, 3, 1).index_select(0, index).permute(0, 3, 1, 2)
        return self.maps.index_select(0, index)


def activations(net: Network, strategy: FineTune, task: Task, run: Run) -> Activations | None:
    """Of the stages of `net` that are frozen in this epoch. None where it has to see the images: no stage is frozen,
    the strategy changes images or has a loss of its own that may look at them, the frozen stages are not the pretrained
    ones (which trials and seeds share), the network cannot be entered there, or the activations would not fit."""
    from bench.finetune import FineTune

    hooks = type(strategy)
    if hooks.augment is not FineTune.augment or hooks.loss is not FineTune.loss:
        return None
    names = _frozen_modules(net)
    if not names or not _same(net.features, run.frozen(), names):
        return None
    batch = run.protocol.batch_size
    key = ("activations", run.backbone, run.size, run.protocol.resize, batch, task.train.key, names[-1])
    if key not in run.memory:
        maps = _computed(run.frozen(), names, task.train, run)
        run.memory[key] = lend(maps, [maps] if isinstance(maps, Tensor) else [])
    kept = run.unspoiled(key, "the shared activations")
    return Activations(kept, tuple(_modules(net.features, names))) if isinstance(kept, Tensor) else None


@contextlib.contextmanager
def skipping(modules: tuple[nn.Module, ...]) -> Iterator[None]:
    """Meanwhile each of the modules gives what it is given."""
    for module in modules:
        module.forward = _pass_on
    try:
        yield
    finally:
        for module in modules:
            del module.forward  # the class's own


def _pass_on(value: Tensor, *_: Any, **__: Any) -> Tensor:
    return value


def _frozen_modules(net: Network) -> tuple[str, ...]:
    """The outermost modules of the backbone up to the freezing point, in order; the last one's output is what the rest
    takes. `("",)` where all of it is frozen, empty where its first stage trains."""
    features: Any = net.features
    if not any(p.requires_grad for p in features.parameters()) and not features.training:
        return ("",)
    named, taps = dict(features.named_parameters()), list(stage_ends(features))
    groups = stages(features)
    frozen = 0
    while frozen < len(groups) and not any(named[name].requires_grad for name in groups[frozen]):
        frozen += 1
    if frozen < 2 or frozen - 2 >= len(taps):  # the stem alone has no end of its own
        return ()
    end = taps[frozen - 2]
    modules = [name for name, _ in features.named_modules()]
    last = max(place for place, name in enumerate(modules) if f"{name}.".startswith(f"{end}."))
    upto, beyond = modules[1 : last + 1], modules[last + 1 :]
    whole = [name for name in upto if not any(other.startswith(f"{name}.") for other in beyond)]
    outer = tuple(name for name in whole if not any(name.startswith(f"{other}.") for other in whole))
    training = any(m.training and next(m.parameters(), None) is not None for m in _modules(features, outer))
    return () if training or outer[-1] != end else outer


def _modules(features: nn.Module, names: tuple[str, ...]) -> list[nn.Module]:
    return [features.get_submodule(name) for name in names]


def _same(own: nn.Module, shared: nn.Module, names: tuple[str, ...]) -> bool:
    """Whether these modules are of the same kinds, with the same tensors, in both networks."""

    def kinds(network: nn.Module) -> dict[str, type]:
        return {name: type(module) for name, module in network.named_modules() if _within(name, names)}

    ours, theirs = own.state_dict(), shared.state_dict()
    chosen = [name for name in ours if _within(name, names)]
    return kinds(own) == kinds(shared) and all(torch.equal(ours[name], theirs[name]) for name in chosen)


def _within(name: str, modules: tuple[str, ...]) -> bool:
    return modules == ("",) or any(f"{name}.".startswith(f"{module}.") for module in modules)


class _Reached(Exception):
    """The freezing point."""

    def __init__(self, maps: Tensor) -> None:
        self.maps = maps


def _computed(network: nn.Module, names: tuple[str, ...], images: Images, run: Run) -> Tensor | None:
    """The activations of all images; None where they do not fit, or where entering the network with them does not give
    what the images themselves give, to the bit."""

    def stop(module: nn.Module, given: Any, maps: Tensor) -> NoReturn:
        raise _Reached(maps)

    def reached(pixels: Tensor) -> Tensor:
        try:
            network(run.prepare(pixels))
        except _Reached as end:
            return end.maps
        raise AssertionError(f"{names[-1]} is never called")

    modules = tuple(_modules(network, names))
    with torch.no_grad(), run.autocast(), clock.network():
        # In batches as large as training's: the kernels of some convolutions, and so the last bits, depend on that.
        steps = math.ceil(len(images) / run.protocol.batch_size)
        batches = torch.arange(len(images), device=images.device).tensor_split(steps)
        first, _ = images.batch(batches[0])
        whole = network(run.prepare(first))
        with modules[-1].register_forward_hook(stop):
            start = reached(first)
            if start.nbytes / len(first) * len(images) > ROOM * free_bytes(run.device):
                return None
            parts = [start, *(reached(images.batch(index)[0]) for index in batches[1:])]
        with skipping(modules):
            if not torch.equal(network(start), whole):
                return None
    return torch.cat(parts)
