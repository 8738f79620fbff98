"""Strategies that differ in what trains, when and how fast: what is frozen keeps every bit, what trains does so at the
rates of the papers."""

from __future__ import annotations

import warnings
from dataclasses import dataclass, field
from functools import cache

import numpy as np
import optuna
import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional

from bench import registry
from bench.backbones import stages
from bench.check import examine, new_run, phantom_task, state_digest
from bench.contract import Backbone, Protocol, Task
from bench.finetune import FineTune
from bench.images import predict
from bench.network import Network
from bench.probe import probe_head
from bench.run import Run, seeded
from tests.small import CHECKOUT

# Without timm's scales of 0 at the end of each block, behind which nothing learns while BatchNorm is frozen.
BATCH_NORM = Backbone("test_resnet", "random", kwargs={"zero_init_last": False})
LAYER_NORM = Backbone("test_convnext", "random")
DEPTHWISE = Backbone("mobilenetv2_035", "random", cut=2)
ONE_STAGE = Backbone("test_resnet", "random", cut=1)
HEAD = "head"
NAMES = [
    "partial_finetune",
    "gradual_unfreeze",
    "discriminative_lr",
    "lp_ft",
    "surgical",
    "auto_rgn",
    "bn_only",
    "bitfit",
    "lora_conv",
]


def load(name: str) -> FineTune:
    strategy = registry.load_strategy(name, CHECKOUT)
    assert isinstance(strategy, FineTune)
    return strategy


@cache
def task_of(kind: str) -> Task:
    return phantom_task(kind, images=24)


def run_of(backbone: Backbone, epochs: int = 2, batch_size: int = 16) -> Run:
    return new_run(backbone=backbone, protocol=Protocol(epochs=epochs, batch_size=batch_size))


@dataclass
class Fit:
    """What was seen of a fit; states are copies."""

    start: dict[str, Tensor] = field(default_factory=dict)
    epochs: list[dict[str, Tensor]] = field(default_factory=list)
    end: dict[str, Tensor] = field(default_factory=dict)
    """At the best epoch."""
    layers: dict[str, int | str] = field(default_factory=dict)
    """Tensor, buffers included -> number of its stage (0: the stem) or "head"."""
    logits_before_finish: Tensor = field(default_factory=lambda: torch.empty(0))
    logits: Tensor = field(default_factory=lambda: torch.empty(0))
    net: Network | None = None

    def moved(self) -> set[str]:
        return changed(self.start, self.end)


def watched(name: str, task: Task, run: Run, **hparams: object) -> Fit:
    strategy, fit = load(name), Fit()

    class Watching(type(strategy)):
        def param_groups(self, net, task, hparams, run, epoch):
            if epoch == 0:
                fit.start, fit.layers = state(net), layers(net)
            return super().param_groups(net, task, hparams, run, epoch)

        def candidate(self, net, task, run):
            fit.epochs.append(state(net))
            return super().candidate(net, task, run)

        def finish(self, net, task, hparams, run):
            fit.end, fit.net = state(net), net
            fit.logits_before_finish = predict(run.predictor(net.eval()), task.val)
            return super().finish(net, task, hparams, run)

    with seeded(run.seed, run.device):
        predictor = Watching().fit(task, strategy.defaults() | hparams, run)
    fit.logits = predict(predictor, task.val)
    return fit


def state(net: nn.Module) -> dict[str, Tensor]:
    return {name: tensor.detach().clone() for name, tensor in net.state_dict().items()}


def changed(before: dict[str, Tensor], after: dict[str, Tensor]) -> set[str]:
    return {name for name, tensor in before.items() if not torch.equal(tensor, after[name])}


def layers(net: Network) -> dict[str, int | str]:
    homes = {
        f"features.{name}".rpartition(".")[0]: number
        for number, stage in enumerate(stages(net.features))
        for name in stage
    }
    return {name: homes.get(name.rpartition(".")[0], HEAD) for name in net.state_dict()}


def norm_names(net: Network) -> set[str]:
    """By the name of the class alone, as a person reads it: BatchNormAct2d, LayerNorm2d, GroupNorm."""
    return {
        f"{path}.{name}"
        for path, module in net.named_modules()
        if "Norm" in type(module).__name__
        for name, _ in module.named_parameters(recurse=False)
    }


@pytest.mark.parametrize("name", NAMES)
def test_the_default_is_a_value_of_the_space(name: str) -> None:
    strategy = load(name)
    with warnings.catch_warnings():
        warnings.simplefilter("error")  # a value outside its range
        assert strategy.space(optuna.trial.FixedTrial(strategy.defaults())) == strategy.defaults()


@pytest.mark.parametrize("name", NAMES)
def test_the_contract_holds_on_a_cut_depthwise_network(name: str) -> None:
    findings = list(examine(load(name), task_of("multi-label"), DEPTHWISE))
    assert [(promise, broken) for promise, broken in findings if broken] == []
    assert findings[-1][0] == "what is frozen does not move"


@pytest.mark.parametrize("name", NAMES)
def test_a_network_without_batch_norm_is_trained(name: str) -> None:
    fit = watched(name, task_of("binary"), run_of(LAYER_NORM, epochs=1))
    assert fit.logits.isfinite().all()
    assert fit.moved()


@pytest.mark.parametrize(
    ("backbone", "asked", "frozen"),
    [
        (BATCH_NORM, 1, {0, 1}),
        (BATCH_NORM, 3, {0, 1, 2, 3}),
        (DEPTHWISE, 3, {0, 1}),  # two stages: the last one trains
        (ONE_STAGE, 2, {0}),
    ],
)
def test_partial_finetune_freezes_the_stem_and_the_lowest_stages(
    backbone: Backbone, asked: int, frozen: set[int]
) -> None:
    fit = watched("partial_finetune", task_of("binary"), run_of(backbone), frozen_stages=asked)
    assert fit.moved() == {name for name, layer in fit.layers.items() if layer not in frozen}


@pytest.mark.parametrize(
    ("epochs", "opened"),
    [
        (1, [6]),
        (2, [3, 6]),
        (3, [2, 4, 6]),
        (4, [1, 3, 4, 6]),
        (6, [1, 2, 3, 4, 5, 6]),
        (8, [1, 2, 3, 4, 5, 6, 6, 6]),
    ],
)
def test_gradual_unfreeze_opens_all_six_parts_by_the_end(epochs: int, opened: list[int]) -> None:
    run, strategy, task = run_of(BATCH_NORM, epochs), load("gradual_unfreeze"), task_of("binary")
    net = run.network(task.outputs)
    groups = [strategy.param_groups(net, task, strategy.defaults(), run, epoch) for epoch in range(epochs)]
    assert [len(g) for g in groups] == opened
    downwards = [list(net.head.parameters()), *reversed(net.stages())]
    for found in groups:
        assert [list(map(id, g.params)) for g in found] == [list(map(id, part)) for part in downwards[: len(found)]]
        assert [g.scale for g in found] == [1.0, *[0.1] * (len(found) - 1)]


def test_gradual_unfreeze_moves_one_more_stage_in_every_epoch() -> None:
    fit = watched("gradual_unfreeze", task_of("binary"), run_of(BATCH_NORM, epochs=6))
    order = [HEAD, 4, 3, 2, 1, 0]
    before = fit.start
    for epoch, after in enumerate(fit.epochs):
        assert changed(before, after) == {n for n, layer in fit.layers.items() if layer in order[: epoch + 1]}
        before = after


def test_discriminative_rates_fall_by_2_6_a_stage() -> None:
    run, strategy, task = run_of(BATCH_NORM), load("discriminative_lr"), task_of("binary")
    net = run.network(task.outputs)
    scales = {id(p): g.scale for g in strategy.param_groups(net, task, {"lr": 1.0}, run, 0) for p in g.params}
    expected = {HEAD: 1.0, 4: 1 / 2.6, 3: 1 / 6.76, 2: 1 / 17.576, 1: 1 / 45.6976, 0: 1 / 118.81376}
    where = layers(net)
    assert {n: scales[id(p)] for n, p in net.named_parameters()} == pytest.approx(
        {n: expected[where[n]] for n, _ in net.named_parameters()}
    )


def test_lp_ft_starts_as_the_probe_and_never_moves_a_statistic() -> None:
    task, run = task_of("multi-class"), run_of(BATCH_NORM, epochs=5)
    fit = watched("lp_ft", task, run)
    assert run.meter.images_seen == 5 * len(task.train)
    assert len(fit.epochs) == 4  # one is the probe's

    weight, bias = probe_head(task, run_of(BATCH_NORM, epochs=1))
    probe = run.features(task.val) @ weight.T + bias
    assert fit.net is not None
    fit.net.load_state_dict(fit.start)
    torch.testing.assert_close(predict(run.predictor(fit.net.eval()), task.val), probe, rtol=1e-4, atol=1e-4)

    parameters = {name for name, _ in fit.net.named_parameters()}
    assert parameters < fit.start.keys()  # and statistics
    for after in fit.epochs:
        assert changed(fit.start, after) == parameters


@pytest.mark.parametrize(
    ("backbone", "block", "tuned"),
    [
        (BATCH_NORM, 1, {0, 1}),
        (BATCH_NORM, 2, {2}),
        (BATCH_NORM, 4, {4}),
        (DEPTHWISE, 3, {2}),
        (DEPTHWISE, 4, {2}),
    ],
)
def test_surgical_tunes_one_block_and_the_head_from_a_probe(backbone: Backbone, block: int, tuned: set[int]) -> None:
    task, run = task_of("binary"), run_of(backbone, epochs=4)
    fit = watched("surgical", task, run, block=block)
    assert fit.moved() == {name for name, layer in fit.layers.items() if layer in {HEAD, *tuned}}
    assert run.meter.images_seen == 4 * len(task.train)
    weight, bias = probe_head(task, run_of(backbone, epochs=1))
    assert torch.equal(fit.start["head.weight"], weight)
    assert torch.equal(fit.start["head.bias"], bias)


def test_auto_rgn_multipliers_are_those_worked_out_by_hand() -> None:
    task, run = task_of("multi-class"), run_of(BATCH_NORM, batch_size=4)
    strategy, net = load("auto_rgn"), run.network(task.outputs)
    before, random = state_digest(net), torch.get_rng_state()
    first, again, second = (strategy.param_groups(net, task, {"lr": 1.0}, run, epoch) for epoch in (0, 0, 1))
    assert state_digest(net) == before
    assert torch.equal(torch.get_rng_state(), random)
    assert all(p.grad is None for p in net.parameters())
    assert [g.scale for g in first] == [g.scale for g in again]
    assert [g.scale for g in first] != [g.scale for g in second]

    net.eval()
    named = {name: p for name, p in net.named_parameters() if name not in norm_names(net)}
    totals = dict.fromkeys(named, 0.0)
    for batch in np.random.default_rng([run.seed, 0]).permutation(len(task.train))[:20].reshape(5, 4):
        net.zero_grad()
        pixels, labels = task.train.batch(torch.from_numpy(batch))
        functional.cross_entropy(net(run.prepare(pixels)), labels).backward()
        for name, p in named.items():
            assert p.grad is not None
            totals[name] += float((p.grad**2).sum().sqrt() / (p.detach() ** 2).sum().sqrt()) / 5
    expected = {name: total / max(totals.values()) for name, total in totals.items()}
    names = {id(p): name for name, p in net.named_parameters()}
    scales = {names[id(p)]: g.scale for g in first for p in g.params}
    assert scales == pytest.approx(expected, rel=1e-4)
    assert max(scales.values()) == 1.0
    assert min(scales.values()) < 0.5


def test_auto_rgn_leaves_batch_norm_alone_and_gives_a_tensor_of_zeros_the_full_rate() -> None:
    fit = watched("auto_rgn", task_of("binary"), run_of(BATCH_NORM), lr=0.1)
    assert fit.net is not None
    norms = {name.rpartition(".")[0] for name in norm_names(fit.net)}
    assert fit.moved() == {name for name in fit.start if name.rpartition(".")[0] not in norms}

    run, strategy, task = run_of(BATCH_NORM), load("auto_rgn"), task_of("binary")
    net = run.network(task.outputs)
    nn.init.zeros_(net.head.bias)
    groups = strategy.param_groups(net, task, {"lr": 1.0}, run, 0)
    scales = {id(g.params[0]): g.scale for g in groups}
    assert scales.pop(id(net.head.bias)) == 1.0
    assert max(scales.values()) == 1.0


@pytest.mark.parametrize("backbone", [BATCH_NORM, LAYER_NORM, DEPTHWISE], ids=lambda backbone: backbone.label)
@pytest.mark.parametrize("name", ["bn_only", "bitfit"])
def test_few_parameters_train(name: str, backbone: Backbone) -> None:
    fit = watched(name, task_of("binary"), run_of(backbone))
    assert fit.net is not None
    parameters = {n for n, _ in fit.net.named_parameters()}
    chosen = norm_names(fit.net) if name == "bn_only" else {n for n in parameters if n.endswith(".bias")}
    statistics = fit.start.keys() - parameters
    assert fit.moved() == chosen | statistics | {"head.weight", "head.bias"}
    assert len(chosen) > 10


def test_bn_only_skips_a_network_without_normalisation_layers() -> None:
    strategy, info = load("bn_only"), task_of("binary").info
    assert "test_nfnet" in (strategy.applies(info, Backbone("test_nfnet", "random")) or "")
    for model in ("test_resnet", "test_convnext", "test_efficientnet_gn"):
        assert strategy.applies(info, Backbone(model, "random")) is None


@pytest.mark.parametrize("backbone", [BATCH_NORM, LAYER_NORM, DEPTHWISE], ids=lambda backbone: backbone.label)
def test_lora_starts_as_the_pretrained_network_and_trains_its_updates_alone(backbone: Backbone) -> None:
    task, run = task_of("binary"), run_of(backbone)
    plain, strategy = run.network(task.outputs), load("lora_conv")
    net = strategy.build(task, {"lr": 1e-3, "rank": 16}, run)
    torch.testing.assert_close(
        predict(run.predictor(net.eval()), task.val), predict(run.predictor(plain.eval()), task.val)
    )

    fit = watched("lora_conv", task, run, rank=16, lr=1e-2)
    updates = set()
    for path, layer in plain.features.named_modules():
        if isinstance(layer, nn.Conv2d | nn.Linear):
            prefix = f"features.{path}.parametrizations.weight"
            out, rest = len(layer.weight), layer.weight[0].numel()
            rank = min(16, out, rest)
            assert fit.start[f"{prefix}.0.a"].shape == (rank, rest)
            assert not fit.start[f"{prefix}.0.b"].any()
            assert fit.start[f"{prefix}.0.b"].shape == (out, rank)
            assert torch.equal(fit.end[f"{prefix}.original"], layer.weight)
            updates |= {f"{prefix}.0.a", f"{prefix}.0.b"}
    assert fit.moved() == updates | {"head.weight", "head.bias"}


@pytest.mark.parametrize("backbone", [BATCH_NORM, DEPTHWISE], ids=lambda backbone: backbone.label)
def test_lora_is_merged_into_a_plain_network_of_the_same_function(backbone: Backbone) -> None:
    task, run = task_of("multi-class"), run_of(backbone)
    plain = run.network(task.outputs)
    fit = watched("lora_conv", task, run, rank=4, lr=1e-2)
    assert (fit.logits - predict(run.predictor(plain.eval()), task.val)).abs().max() > 0.01
    torch.testing.assert_close(fit.logits, fit.logits_before_finish, rtol=1e-5, atol=1e-5)
    assert fit.net is not None
    merged = fit.net.state_dict()
    assert merged.keys() == plain.state_dict().keys()
    for path, layer in plain.features.named_modules():
        if isinstance(layer, nn.Conv2d):
            a, b = (fit.end[f"features.{path}.parametrizations.weight.0.{letter}"] for letter in "ab")
            update = torch.einsum("or,ri->oi", b, a).reshape(layer.weight.shape) * (16 / len(a))
            torch.testing.assert_close(merged[f"features.{path}.weight"], layer.weight + update, rtol=1e-4, atol=1e-6)
