"""In what precision and memory layout a network trains fastest: measured once on a machine, and kept.

No rule fits. Channels-last doubles a MobileNet's speed on a CPU and slows a ResNet-18 down on small images; bfloat16
doubles large convolutions' where the processor has it and slows depthwise ones. Results depend on the choice in their
last bits, so it is kept on disk: what was measured first holds for all runs and workers after that.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import logging
import os
import tempfile
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass, replace
from functools import cache
from itertools import product
from pathlib import Path

import torch
from torch import Tensor, nn
from torch.nn import functional

from bench import device
from bench.backbones import build_features
from bench.cache import cache_folder
from bench.contract import Backbone
from bench.errors import DataError
from bench.replay import Replay

STEPS, BATCH = 3, 16
GPU_STEPS, GPU_BATCH = 10, 128
"""A GPU is asked for replayed steps, as training does, and for as many images as fill it."""
LEAD = 1.05
"""The first way is kept where another one is not faster by this: that much is noise."""

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Computing:
    """How a network is computed."""

    precision: str = "fp32"
    """"fp32" or "bf16" (autocast)."""
    memory_format: str = "channels_last"
    """"channels_last" or "contiguous"."""

    @property
    def layout(self) -> torch.memory_format:
        return torch.channels_last if self.memory_format == "channels_last" else torch.contiguous_format

    def autocast(self, where: torch.device) -> contextlib.AbstractContextManager[object]:
        return torch.autocast(where.type, torch.bfloat16, enabled=self.precision == "bf16")


USUAL = Computing()


def ways(where: torch.device) -> list[Computing]:
    """All that the device is made for, what it usually is best at first."""
    return [Computing(*way) for way in product(device.precisions(where), ("channels_last", "contiguous"))]


@cache
def chosen(backbone: Backbone, size: int, where: torch.device) -> Computing:
    """The fastest way of training the network on images of `size` pixels: what an earlier run measured on this machine,
    or measured now, in some steps on noise; the usual way where memory suffices for none, since training may go on in
    smaller batches. Raises what building the network does."""
    try:
        with device.own_stream(where):
            return _remembered(backbone, size, where)
    except RuntimeError as error:
        if not device.out_of_memory(error):
            raise
    text = "%s at %d px: how it trains fastest cannot be measured, since memory does not suffice"
    log.warning(text, backbone.label, size)
    return ways(where)[0]


def _remembered(backbone: Backbone, size: int, where: torch.device) -> Computing:
    drawn = replace(backbone, weights="random", mean=None, std=None, name="")  # which do not matter
    facts: tuple[object, ...] = (drawn, size, device.describe(where), torch.get_num_threads(), torch.__version__)
    if where.type == "cuda":
        facts += (GPU_STEPS, GPU_BATCH)
    name = hashlib.sha256(repr(facts).encode()).hexdigest()[:32]
    try:
        path = cache_folder("computing") / f"{name}.json"
        return _read(path) or _kept(_fastest(_measured(drawn, size, where)), path)
    except (OSError, DataError) as error:
        log.warning("the fastest way to compute %s is measured anew in each run (%s)", backbone.label, error)
        return _fastest(_measured(drawn, size, where))


def _fastest(seconds: dict[Computing, float]) -> Computing:
    usual, best = next(iter(seconds)), min(seconds, key=seconds.__getitem__)
    return best if seconds[usual] > LEAD * seconds[best] else usual


def _measured(backbone: Backbone, size: int, where: torch.device) -> dict[Computing, float]:
    """Seconds of a step forward and backward: the fastest of some, each way in turn, of the ways that fit in memory.
    Raises torch.OutOfMemoryError where none does."""
    steps = {way: _step(backbone, size, where, way) for way in ways(where)}
    taken: dict[Computing, list[float]] = {way: [] for way in steps}
    warm = 3 if where.type == "cuda" else 1  # until a step is replayed
    for _ in range(warm + (GPU_STEPS if where.type == "cuda" else STEPS)):
        for way in list(steps):
            if (spent := _seconds(steps[way])) is None:
                del steps[way]  # and its network
                device.release(where)
            else:
                taken[way].append(spent)
    if not steps:
        raise torch.OutOfMemoryError("out of memory in every way")
    return {way: min(taken[way][warm:]) for way in steps}


def _seconds(step: Callable[[], Tensor]) -> float | None:
    """None where memory runs out."""
    started = time.perf_counter()
    try:
        step().item()  # waits for a GPU
    except RuntimeError as error:
        if not device.out_of_memory(error):
            raise
        return None
    return time.perf_counter() - started


def _step(backbone: Backbone, size: int, where: torch.device, way: Computing) -> Replay:
    @cache
    def made() -> tuple[nn.Module, Tensor]:
        net = build_features(backbone, seed=0, pretrained=False).train().to(where).to(memory_format=way.layout)
        batch = GPU_BATCH if where.type == "cuda" else BATCH
        noise = torch.rand(batch, 3, size, size, generator=torch.Generator().manual_seed(0))
        return net, noise.to(where).contiguous(memory_format=way.layout)

    def step() -> Tensor:
        net, images = made()
        net.zero_grad(set_to_none=True)
        with way.autocast(where):
            loss = functional.mse_loss(found := net(images).float(), torch.zeros_like(found))
        loss.backward()
        return loss.detach()

    return Replay(step, where)


def _read(path: Path) -> Computing | None:
    try:
        found = Computing(**json.loads(path.read_text()))
        if found.precision in ("fp32", "bf16") and found.memory_format in ("channels_last", "contiguous"):
            return found
    except FileNotFoundError:
        return None
    except (ValueError, TypeError):
        pass
    path.unlink(missing_ok=True)  # no longer what was written
    return None


def _kept(found: Computing, path: Path) -> Computing:
    """What is on disk in the end: of workers that measure at the same time the first one is right."""
    with tempfile.NamedTemporaryFile("w", dir=path.parent, suffix=".part") as file:
        json.dump(asdict(found), file)
        file.flush()
        try:
            os.link(file.name, path)
        except FileExistsError:
            return _read(path) or found
    return found
