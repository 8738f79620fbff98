"""What the harness lends to a strategy: a private copy of the backbone, cached features, the seed, the budget."""

from __future__ import annotations

import contextlib
import copy
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field, replace
from functools import partial
from typing import Any, cast

import torch
from torch import Tensor, nn

from bench import clock
from bench.backbones import build_features, normalisation, width_of
from bench.computing import USUAL, Computing
from bench.contract import Backbone, Hparams, Protocol
from bench.errors import Spoiled, UsageError
from bench.feature_store import stored_features
from bench.images import Images, normalise, resize
from bench.lent import Lent, lend
from bench.marks import mark_of
from bench.network import Network
from bench.parts import joined
from bench.prediction import Prediction

Report = Callable[[int, float, float], None]
"""epoch, val AUC, val loss -> None; raises optuna.TrialPruned to end a hopeless trial."""

FEATURE_BATCH = 128
REMADE = ("features", "embedded", "activations")
"""Kinds of what is kept for later fits, which can make it again."""


def _silent(epoch: int, auc: float, loss: float) -> None:
    """Nobody asked."""


@dataclass
class Meter:
    """What a fit cost, counted where the work is done."""

    images_seen: int = 0
    """Training images shown, counted once an epoch, cached features or not: the budget that strategies share."""
    micro_batch: int | None = None
    """Images that go through the network at a time, where a batch of the protocol's size did not fit in memory."""
    params_total: int = 0
    params_trained: int = 0
    curve: list[float] = field(default_factory=list)
    """val AUC after each epoch."""
    disc_acc: list[float] = field(default_factory=list)
    """Of adversarial strategies: the domain discriminator's accuracy over each epoch's images, 0.5 for chance."""


@dataclass(frozen=True, eq=False)
class Run:
    """Passed to `Strategy.fit`. Frozen: a strategy cannot change the budget or the seed."""

    backbone: Backbone
    protocol: Protocol
    seed: int
    size: int
    device: torch.device
    computing: Computing = USUAL
    trials: tuple[Hparams, ...] = ()
    """Of a final fit: the hyperparameters of the cell's complete trials, best on val first. Empty while tuning, and
    where nothing was tuned."""
    report: Report = _silent
    meter: Meter = field(default_factory=Meter)
    memory: dict[object, object] = field(default_factory=dict)
    """Frozen networks and features, shared by the trials and seeds of a session."""

    def network(self, outputs: int, pretrained: bool = True) -> Network:
        """A private, trainable copy of the backbone with a fresh linear head, both on the device."""
        net = Network(self._features(pretrained), width_of(self.backbone), outputs, self.seed)
        return net.to(self.device)

    def fresh(self, seed: int, report: Report | None = None) -> Run:
        """The same run for another fit: its own seed and meter."""
        return replace(self, seed=seed, meter=Meter(), report=report or self.report)

    def child(self) -> Run:
        """The same run, but its epochs are not reported to the trial (for the first of two stages, say)."""
        return replace(self, report=_silent)

    def lasting(self, epochs: int) -> Run:
        """The same run for a stage of `epochs`: stages share the budget."""
        return replace(self, protocol=replace(self.protocol, epochs=epochs))

    def resized(self, images: Tensor) -> Tensor:
        """Raw uint8 [N, C, H, W] -> float32 in 0..1 [N, C, S, S] at the task's size: where augmentation comes in."""
        return resize(images, self.size, self.protocol.resize).float().div_(255)

    def normalised(self, images: Tensor) -> Tensor:
        """float32 in 0..1 [N, 1 or 3, S, S] -> three channels, normalised as the backbone was trained."""
        return normalise(images, *self._normalisation(), self.computing.layout)

    def prepare(self, images: Tensor) -> Tensor:
        """Raw uint8 images -> what a network takes."""
        return self.normalised(self.resized(images))

    def predictor(self, net: nn.Module) -> Prediction:
        """A network of normalised images as a predictor of raw ones. The caller sets its mode."""

        def predict(images: Tensor) -> Tensor:
            with self.autocast(), clock.network():
                return net(self.prepare(images)).float()

        def embed(images: Tensor) -> Tensor:
            with self.autocast(), clock.network():
                return net.features(self.prepare(images)).float()  # type: ignore[operator]

        return Prediction(predict, embed if isinstance(net, Network) else None)

    def autocast(self) -> contextlib.AbstractContextManager[object]:
        return self.computing.autocast(self.device)

    def _features(self, pretrained: bool) -> nn.Module:
        """A copy of the shared backbone, or of the one that was drawn last, which all trials share: to make a network
        takes longer than some fits."""
        if pretrained and self.backbone.weights != "random":
            return copy.deepcopy(self.frozen()).train().requires_grad_(True)
        key = ("drawn", self.backbone, self.computing)
        seed, drawn = cast(tuple[int | None, nn.Module | None], self.memory.get(key, (None, None)))
        if drawn is None or seed != self.seed:
            drawn = self._made(self.seed, pretrained=False)
            self.memory[key] = (self.seed, drawn)
        return copy.deepcopy(drawn)

    def _made(self, seed: int, pretrained: bool) -> nn.Module:
        features = build_features(self.backbone, seed, pretrained)
        return features.to(self.device).to(memory_format=self.computing.layout)

    def frozen(self) -> nn.Module:
        """The backbone as pretrained (random weights: as seed 0 draws them), shared, in eval mode and without
        gradients. Not to be changed."""
        key = ("frozen", self.backbone, self.computing)
        if key not in self.memory:
            net = self._made(seed=0, pretrained=True)
            self.memory[key] = lend(net.eval().requires_grad_(False), [*net.parameters(), *net.buffers()])
        return self.unspoiled(key, "the shared backbone")  # type: ignore[return-value]

    def embed(self, images: Tensor, maxima: bool = False) -> Tensor:
        """Raw uint8 [N, C, H, W] -> frozen features float32 [N, D]. With `maxima` not the network's own pooled features
        but the average and the maximum of each channel of its last feature map, of which there are two a channel. Those
        of a marked batch are kept: all probes, trials and seeds are asked for the same batches of val and test.
        """
        mark = mark_of(images)
        if mark is None:
            return self._embedded(images, maxima)
        key = ("embedded", self.backbone, self.size, self.protocol.resize, mark, maxima)
        if key not in self.memory:
            found = self._embedded(images, maxima)
            self.memory[key] = lend(found, [found])
        return self.unspoiled(key, "the shared features")  # type: ignore[return-value]

    def features(self, images: Images, maxima: bool = False) -> Tensor:
        """Frozen features float32 [N, D] of a split, as `embed` gives them: computed once, shared by strategies, trials
        and seeds, and by later runs."""
        key = ("features", self.backbone, self.size, self.protocol.resize, images.key, maxima)
        if key not in self.memory:

            def computed() -> Tensor:
                return torch.cat([self._embedded(pixels, maxima) for pixels, _ in images.batches(FEATURE_BATCH)])

            facts = (self.size, self.protocol.resize, self.computing, FEATURE_BATCH, maxima)
            features = stored_features(self.backbone, images, facts, computed)
            self.memory[key] = lend(features, [features])
        return self.unspoiled(key, "the shared features")  # type: ignore[return-value]

    def _embedded(self, images: Tensor, maxima: bool) -> Tensor:
        network: Any = self.frozen()
        compute = partial(self._average_and_maximum, network) if maxima else network
        with torch.inference_mode(), self.autocast(), clock.network():
            found = joined(lambda some: compute(self.prepare(some)), images)
        with torch.inference_mode(False):  # so that torch sees whether a fit changes them
            return found.float().clone()

    def _average_and_maximum(self, network: Any, inputs: Tensor) -> Tensor:
        maps = network.forward_features(inputs)
        if maps.ndim != 4 or getattr(network, "output_fmt", "NCHW") != "NCHW":
            raise UsageError(
                f"{self.backbone.label}: it has no feature maps as a CNN has. Take another strategy for it."
            )
        return torch.cat([maps.mean((2, 3)), maps.amax((2, 3))], dim=1)

    def unspoiled(self, key: object, what: str) -> object:
        """What is kept under the key, for fits that must not change it. Raises Spoiled where one has."""
        kept = self.memory[key]
        assert isinstance(kept, Lent)
        if kept.changed():
            del self.memory[key]
            raise Spoiled(what)
        return kept.value

    def forget(self, used: Tensor | None) -> bool:
        """Let go of features and activations that are kept for later fits, which can compute them again, but for those
        that are used now. Gives whether there were any."""
        kept = [key for key in self.memory if isinstance(key, tuple) and key[0] in REMADE]
        kept = [
            key for key in kept if (value := getattr(self.memory[key], "value", None)) is not None and value is not used
        ]
        for key in kept:
            del self.memory[key]
        return bool(kept)

    def _normalisation(self) -> tuple[Tensor, Tensor]:
        key = ("normalisation", self.backbone)
        if key not in self.memory:
            self.memory[key] = tuple(t.to(self.device) for t in normalisation(self.backbone))
        return self.memory[key]  # type: ignore[return-value]


@contextlib.contextmanager
def seeded(seed: int, device: torch.device) -> Iterator[None]:
    """Dropout and the like drawn from `seed`, the caller's random numbers left as they were."""
    with torch.random.fork_rng(devices=[device] if device.type == "cuda" else []):
        torch.default_generator.manual_seed(seed)  # torch.manual_seed would also prepare for GPUs that are not used
        if device.type == "cuda":
            with torch.cuda.device(device):
                torch.cuda.manual_seed(seed)
        elif device.type == "mps":
            torch.mps.manual_seed(seed)
        yield
