"""Training from the activations at the freezing point: the same to the bit as from the images, and only where it is."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
import torch
from torch import Tensor

from bench import prefix, registry, train
from bench.check import new_run, phantom_task
from bench.computing import Computing
from bench.contract import Backbone, Hparams, Protocol, Task
from bench.errors import Spoiled
from bench.finetune import FineTune, Group
from bench.images import predict
from bench.network import Network
from bench.run import Meter, Run, seeded

TASK = phantom_task("multi-class", size=32, images=30)
PROTOCOL = Protocol(epochs=2, trials=1, batch_size=12)
BUNDLED = [Backbone(f"bundled:{name}", f"bundled:{name}") for name in ("resnet", "mobilenet", "convnext")]
DRAWN = [Backbone(name, "random") for name in ("densenet121", "regnety_002", "mobilenetv3_small_100")]


def fitted(strategy: FineTune, run: Run, **hparams: Any) -> tuple[list[float], Tensor]:
    """The learning curve and the logits on val."""
    with seeded(run.seed, run.device):
        predictor = strategy.fit(TASK, strategy.defaults() | hparams, run)
    return run.meter.curve, predict(predictor, TASK.val)


def kept(run: Run) -> dict[str, tuple[int, ...]]:
    """Where activations were taken, and their shapes."""
    found = [
        (key, lent.value) for key, lent in run.memory.items() if isinstance(key, tuple) and key[0] == "activations"
    ]  # type: ignore[attr-defined]
    return {key[-1]: tuple(maps.shape) for key, maps in found if maps is not None}


WAYS = [(backbone, "partial_finetune", {"frozen_stages": 2}) for backbone in BUNDLED + DRAWN]
WAYS += [(backbone, "surgical", {"block": 4}) for backbone in BUNDLED]
WAYS += [(BUNDLED[0], "gradual_unfreeze", {})]
FITS = [(*fit, "channels_last") for fit in WAYS] + [(*WAYS[0], "contiguous")]


@pytest.mark.parametrize(
    ("backbone", "name", "hparams", "layout"), FITS, ids=lambda value: getattr(value, "label", None)
)
def test_the_fit_is_the_same_to_the_bit(
    backbone: Backbone, name: str, hparams: Hparams, layout: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    strategy = registry.load_strategy(name)
    assert isinstance(strategy, FineTune)
    run = new_run(seed=0, backbone=backbone, protocol=PROTOCOL, size=32)
    quick = replace(run, computing=Computing("fp32", layout))
    curve, logits = fitted(strategy, quick, **hparams)
    assert kept(quick), "nothing was taken from the freezing point"
    monkeypatch.setattr(train, "activations", lambda *_: None)
    plain = replace(quick, meter=Meter(), memory={})
    wanted_curve, wanted = fitted(strategy, plain, **hparams)
    assert not kept(plain)
    assert curve == wanted_curve
    assert torch.equal(logits, wanted)
    assert quick.meter.images_seen == plain.meter.images_seen


def test_trials_and_seeds_share_them_and_a_backbone_drawn_anew_does_not() -> None:
    run = new_run(backbone=BUNDLED[0], protocol=PROTOCOL, size=32)
    strategy = registry.load_strategy("partial_finetune")
    assert isinstance(strategy, FineTune)
    fitted(strategy, run, frozen_stages=1)
    (maps,) = kept(run).items()
    assert maps == ("layer1", (30, 24, 8, 8))
    before = {key: id(value) for key, value in run.memory.items()}
    fitted(strategy, run.fresh(5), frozen_stages=1, lr=1e-2)
    assert all(id(run.memory[key]) == place for key, place in before.items())

    drawn = new_run(seed=3, backbone=Backbone("resnet10t", "random"), protocol=PROTOCOL, size=32)
    fitted(strategy, drawn, frozen_stages=1)  # the shared backbone is drawn by seed 0
    assert not kept(drawn)


class Lower(FineTune):
    """Trains the last stage and the head."""

    name, family = "lower", "partial freezing"

    def param_groups(self, net: Network, task: Task, hparams: Hparams, run: Run, epoch: int) -> list[Group]:
        return [Group([*net.stages()[-1], *net.head.parameters()])]


class Brighter(Lower):
    """Changes the images."""

    def augment(
        self, images: Tensor, labels: Tensor, task: Task, hparams: Hparams, generator: torch.Generator
    ) -> tuple[Tensor, Tensor]:
        return images * 0.9, labels


class Looking(Lower):
    """Looks at the images in its loss."""

    def loss(self, net: Network, images: Tensor, labels: Tensor, task: Task, hparams: Hparams, run: Run) -> Tensor:
        assert images.shape[1:] == (3, 32, 32)
        return super().loss(net, images, labels, task, hparams, run)


class Inverted(Lower):
    """Freezes the last stages and trains the first."""

    def param_groups(self, net: Network, task: Task, hparams: Hparams, run: Run, epoch: int) -> list[Group]:
        return [Group([*net.stages()[0], *net.head.parameters()])]


class Changed(Lower):
    """Its frozen stages are not the pretrained ones."""

    def build(self, task: Task, hparams: Hparams, run: Run) -> Network:
        net = super().build(task, hparams, run)
        with torch.no_grad():
            net.stages()[1][0].mul_(1.01)
        return net


@pytest.mark.parametrize(
    ("strategy", "taken"), [(Lower, {"layer3"}), *((kind, set()) for kind in (Brighter, Looking, Inverted, Changed))]
)
def test_a_fit_that_needs_the_images_gets_them(strategy: type[FineTune], taken: set[str]) -> None:
    run = new_run(backbone=BUNDLED[0], protocol=PROTOCOL, size=32)
    fitted(strategy(), run)
    assert set(kept(run)) == taken


def test_activations_that_would_not_fit_are_not_kept(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(prefix, "free_bytes", lambda device: 1000)
    run = new_run(backbone=BUNDLED[0], protocol=PROTOCOL, size=32)
    fitted(Lower(), run)
    assert not kept(run)


def test_a_network_that_cannot_be_entered_there_sees_the_images(monkeypatch: pytest.MonkeyPatch) -> None:
    """As one that does something between its stages that is no module."""
    run = new_run(backbone=BUNDLED[0], protocol=PROTOCOL, size=32)
    shared: Any = run.frozen()
    layer4 = shared.layer4.forward
    shared.layer4.forward = lambda maps: layer4(maps + shared.conv1(torch.ones(1, 3, 8, 8)).mean())
    fitted(Lower(), run)
    assert not kept(run)


def test_activations_changed_in_place_are_noticed_and_skipped_stages_are_whole_again() -> None:
    run = new_run(backbone=BUNDLED[0], protocol=PROTOCOL, size=32)
    net = Lower().build(TASK, {}, run)
    train.train(net, Lower(), TASK, {"lr": 1e-3}, run)
    assert not [name for name, module in net.named_modules() if "forward" in vars(module)]
    (lent,) = [v for k, v in run.memory.items() if isinstance(k, tuple) and k[0] == "activations"]
    lent.value.add_(1)  # type: ignore[attr-defined]
    with pytest.raises(Spoiled, match="the shared activations"):
        fitted(Lower(), run)
