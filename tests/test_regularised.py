"""Penalties, normalisation and second heads that hold fine-tuning near what was pretrained: each equals its formula."""

from __future__ import annotations

import copy
from dataclasses import replace
from functools import cache
from typing import Any

import numpy as np
import pytest
import torch
from scipy.special import log_softmax, softmax
from timm.layers import BatchNormAct2d
from torch import Tensor, nn

from bench import weights_origin
from bench.backbones import build_features
from bench.check import BACKBONE, PHANTOMS, examine, new_run, phantom_task, state_digest
from bench.computing import Computing
from bench.contract import Backbone, Protocol, Task
from bench.errors import Diverged
from bench.finetune import task_loss
from bench.images import predict
from bench.maps import maps_obstacle, with_maps
from bench.network import Network
from bench.probe import probe_head
from bench.run import Run, seeded
from bench.stages import stage_ends, stages
from tests.plugins import DEPTHWISE, LAYERNORM, module, strategy

FAST = Protocol(epochs=2, batch_size=8)
NAMES = ["l2_sp", "delta", "bss", "stoch_norm", "co_tuning", "distill"]
SOURCE = {
    "weight": torch.randn(7, 96, generator=torch.Generator().manual_seed(5)),
    "bias": torch.randn(7, generator=torch.Generator().manual_seed(6)),
}
"""A classifier over seven source classes on test_resnet's features."""


@cache
def task_of(kind: str, images: int = 16) -> Task:
    return phantom_task(kind, images=images)


def batch(task: Task, run: Run, n: int = 8) -> tuple[Tensor, Tensor]:
    pixels, labels = task.train.batch(torch.arange(n))
    return run.prepare(pixels), labels


def shaken(net: nn.Module) -> None:
    """Somewhere else, as after some steps."""
    generator = torch.Generator().manual_seed(9)
    with torch.no_grad():
        for parameter in net.parameters():
            parameter += 0.1 * torch.randn(parameter.shape, generator=generator)


def gradients(net: Network, loss: Tensor) -> dict[str, Tensor]:
    named = dict(net.named_parameters())
    return dict(zip(named, torch.autograd.grad(loss, list(named.values()), allow_unused=True), strict=True))


@pytest.fixture
def source(monkeypatch: pytest.MonkeyPatch) -> dict[str, Tensor]:
    """The test network comes with a classifier over source classes."""
    monkeypatch.setattr(weights_origin, "source_head", lambda backbone: {k: v.clone() for k, v in SOURCE.items()})
    return SOURCE


# --- what all share


@pytest.mark.parametrize("name", ["l2_sp", "delta", "bss", "stoch_norm", "distill"])
@pytest.mark.parametrize(
    ("backbone", "kind", "precision"), [(LAYERNORM, "multi-label", "bf16"), (DEPTHWISE, "ordinal", "fp32")]
)
def test_other_networks_work_too(name: str, backbone: Backbone, kind: str, precision: str) -> None:
    task, run = task_of(kind), replace(new_run(backbone=backbone, protocol=FAST), computing=Computing(precision))
    if name == "stoch_norm" and backbone is LAYERNORM:
        reason = strategy(name).applies(task.info, backbone)
        assert reason == "test_convnext random has no BatchNorm with moving statistics"
        return
    assert strategy(name).applies(task.info, backbone) is None
    shared = state_digest(run.frozen())
    logits = predict(strategy(name).fit(task, strategy(name).defaults(), run), task.val)
    assert logits.shape == (len(task.val), task.outputs)
    assert torch.isfinite(logits).all()
    assert state_digest(run.frozen()) == shared
    assert run.meter.params_trained == run.meter.params_total


@pytest.mark.parametrize("name", ["l2_sp", "distill"])
def test_training_starts_where_the_penalty_is_none(name: str) -> None:
    run = new_run(seed=3)  # random weights of seed 3 are not those of the frozen network
    net = strategy(name).build(task_of("binary"), strategy(name).defaults(), run)
    assert state_digest(net.features) == state_digest(run.frozen())
    assert next(net.features.parameters()).data_ptr() != next(run.frozen().parameters()).data_ptr()


# --- l2_sp


@pytest.mark.parametrize("backbone", [BACKBONE, LAYERNORM])
def test_l2_sp_pulls_the_backbone_to_its_start_and_the_head_to_zero(backbone: Backbone) -> None:
    l2_sp, task, run = strategy("l2_sp"), task_of("multi-class"), new_run(backbone=backbone)
    net = l2_sp.build(task, {}, run).eval()
    shaken(net)
    images, labels = batch(task, run)
    alone = gradients(net, task_loss(net(images), labels, task))
    held = gradients(net, l2_sp.loss(net, images, labels, task, {"alpha": 0.3}, run))
    start = {f"features.{name}": value for name, value in run.frozen().named_parameters()}
    for name, value in net.named_parameters():
        pull = 0.3 * (value - start[name]) if name in start else 0.01 * value
        torch.testing.assert_close(held[name], alone[name] + pull, rtol=1e-4, atol=1e-5)
    assert {name for name, _ in net.named_parameters()} == start.keys() | {"head.weight", "head.bias"}


@pytest.mark.parametrize("name", ["l2_sp", "delta"])
def test_there_is_no_weight_decay_beside_the_penalty(name: str) -> None:
    task, run = task_of("binary"), new_run()
    net = run.network(task.outputs)
    groups = strategy(name).param_groups(net, task, {}, run, 0)
    assert [(g.scale, g.weight_decay) for g in groups] == [(0.1, 0.0), (1.0, 0.0)]


def test_a_large_alpha_holds_the_weights() -> None:
    def distance(alpha: float) -> float:
        kept: list[Network] = []

        class Watched(type(strategy("l2_sp"))):
            def finish(self, net, task, hparams, run):
                kept.append(net)
                return super().finish(net, task, hparams, run)

        run = new_run(protocol=FAST)
        Watched().fit(task_of("binary"), {"lr": 0.01, "alpha": alpha}, run)
        pairs = zip(kept[0].features.parameters(), run.frozen().parameters(), strict=True)
        return float(torch.stack([(now - start).square().sum() for now, start in pairs]).sum())

    assert distance(1e3) < 0.5 * distance(1e-3)


# --- delta


def test_delta_penalty_of_given_attention() -> None:
    one = [torch.tensor([[[[1.0, 2.0]], [[3.0, 4.0]]]]), torch.zeros(1, 1, 2, 2)]  # [1, 2, 1, 2] and [1, 1, 2, 2]
    other = [torch.zeros(1, 2, 1, 2), torch.full((1, 1, 2, 2), 3.0)]
    attention = [torch.tensor([0.25, 0.75]), torch.tensor([1.0])]
    # Channel means of squares 2.5 and 12.5, attended: 10; times 2 channels, halved. Then 9, times 1 channel, halved.
    by_hand = 2 * (0.25 * 2.5 + 0.75 * 12.5) / 2 + 9 / 2
    penalty = module("delta").penalty
    assert float(penalty(one, other, attention)) == pytest.approx(by_hand) == pytest.approx(14.5)
    twice = [torch.cat([maps, maps]) for maps in one], [torch.cat([maps, maps]) for maps in other]
    assert float(penalty(*twice, attention)) == pytest.approx(2 * by_hand)  # a sum over images, as in the authors' code


def test_delta_attention_is_the_authors() -> None:
    importance = torch.tensor([0.3, -0.1, 0.0, 2.0, 0.05])
    z = importance.double().numpy()
    found = module("delta").attend(importance)
    np.testing.assert_allclose(found.numpy(), softmax((z - z.mean()) / z.std() / 5), rtol=1e-5)
    assert float(found.sum()) == pytest.approx(1)
    assert module("delta").attend(torch.zeros(4)).tolist() == [0.25] * 4


@pytest.mark.parametrize(
    ("backbone", "kind"), [(BACKBONE, "multi-label"), (DEPTHWISE, "binary"), (LAYERNORM, "ordinal")]
)
def test_importance_is_the_rise_of_the_loss_without_the_channel(backbone: Backbone, kind: str) -> None:
    task, run = task_of(kind), new_run(backbone=backbone)
    net = run.network(task.outputs).eval()
    shaken(net)
    images, labels = batch(task, run)
    before = net(images)
    found = module("delta").importances(net, images, labels, task)
    ends = stage_ends(net.features)
    assert [len(z) for z in found] == list(ends.values()) == [m.shape[1] for m in with_maps(net.features, images)[1]]

    for (end, channels), z in zip(ends.items(), found, strict=True):
        for channel in {0, channels // 2, channels - 1}:

            def silence(module, inputs, output, channel=channel):
                output = output.clone()
                output[:, channel] = 0
                return output

            with torch.no_grad(), net.features.get_submodule(end).register_forward_hook(silence):
                silenced = task_loss(net(images), labels, task)
            expected = silenced - task_loss(before, labels, task)
            torch.testing.assert_close(z[channel], expected.detach(), rtol=1e-3, atol=2e-6)
    assert torch.equal(net(images), before), "nothing stays hooked"


def test_a_channel_that_matters_gets_most_attention() -> None:
    task, run = task_of("binary"), new_run()
    net = run.network(task.outputs).eval()
    images, _ = batch(task, run)
    with torch.no_grad():
        features = net.features(images)  # test_resnet's are the means of the last map's channels
        channel = int(features.mean(0).argmax())
        net.head.weight.zero_()
        net.head.weight[1, channel] = 3 / features[:, channel].mean()
    labels = torch.ones(len(images), dtype=torch.int64)
    z = module("delta").importances(net, images, labels, task)[-1]
    assert int(z.argmax()) == channel
    torch.testing.assert_close(z[torch.arange(len(z)) != channel], torch.zeros(len(z) - 1), rtol=0, atol=1e-6)
    assert module("delta").attend(z)[channel] > 2 / len(z)


def test_delta_penalises_nothing_before_the_first_step_and_holds_the_maps_after() -> None:
    penalties: list[float] = []

    class Watched(type(strategy("delta"))):
        def loss(self, net, images, labels, task, hparams, run):
            assert state_digest(net.features) == state_digest(run.frozen()) or penalties
            with torch.no_grad():
                alone = task_loss(net(images), labels, task) + 0.005 * sum(
                    p.square().sum() for p in net.head.parameters()
                )
                held = super().loss(net, images, labels, task, hparams, run)
            penalties.append(float(held - alone))
            return super().loss(net, images, labels, task, hparams, run)

    Watched().fit(task_of("binary"), {"lr": 0.01, "alpha": 1.0}, new_run(backbone=LAYERNORM, protocol=FAST))
    assert penalties[0] == pytest.approx(0, abs=1e-6)
    assert penalties[1] > 1e-4

    task, run = task_of("binary"), new_run()  # BatchNorm is as pretrained in eval mode only
    net = run.network(task.outputs).eval()
    net.features.load_state_dict(run.frozen().state_dict())
    net.memo["attention"] = [torch.full((c,), 1 / c) for c in stage_ends(net.features).values()]
    images, labels = batch(task, run)
    delta = type(strategy("delta"))()
    values = [delta.loss(net, images, labels, task, {"alpha": alpha}, run) for alpha in (0.0, 1e3)]
    assert torch.equal(*values)


def test_delta_measures_a_probe_once_for_a_seed_and_trains_a_new_head() -> None:
    task, run, measured, heads = task_of("binary"), new_run(protocol=FAST), [], []
    delta = module("delta")

    class Watched(type(strategy("delta"))):
        def loss(self, net, images, labels, task, hparams, run):
            heads.append(net.head.weight.detach().clone())
            return super().loss(net, images, labels, task, hparams, run)

    def importances(net, images, labels, task):
        measured.append((net.head.weight.detach().clone(), len(images), net.training))
        return original(net, images, labels, task)

    original, delta.importances = delta.importances, importances
    try:
        for _ in range(2):
            with seeded(3, run.device):
                Watched().fit(task, {"lr": 1e-3, "alpha": 0.01}, run)
    finally:
        delta.importances = original
    [(head, images, training)] = measured
    assert images == min(64, len(task.train))
    assert not training
    assert torch.equal(head, probe_head(task, run.lasting(1))[0])
    assert not torch.equal(heads[0], head)
    assert torch.equal(heads[0], heads[len(heads) // 2])


@pytest.mark.parametrize("epochs", [2, 5])
def test_the_probe_is_part_of_the_budget(epochs: int) -> None:
    task, run = task_of("binary"), new_run(protocol=Protocol(epochs=epochs, batch_size=16))
    strategy("delta").fit(task, strategy("delta").defaults(), run)
    assert run.meter.images_seen == epochs * len(task.train)
    assert len(run.meter.curve) == epochs - 1


def test_networks_that_delta_cannot_hold_are_named() -> None:
    assert maps_obstacle(BACKBONE) is None
    assert maps_obstacle(Backbone("test_resnet", "random", cut=1)) is None
    assert maps_obstacle(Backbone("densenet121", "random", kwargs={"block_config": [2, 2, 2, 2]})) is None
    wrong = "a stage of {} does not end in one feature map that all that follows is computed from"
    for model in ("mambaout_femto", "xception41"):  # channels last; maps inside of blocks
        assert maps_obstacle(Backbone(model, "random")) == wrong.format(f"{model} random")


@pytest.mark.parametrize("backbone", [BACKBONE, LAYERNORM, DEPTHWISE])
def test_a_stage_ends_after_its_parameters(backbone: Backbone) -> None:
    network = build_features(backbone, 0)
    ends = list(stage_ends(network))
    own = [stage for stage in stages(network)[1:] if stage]
    assert len(ends) == len(own)
    for end, stage in zip(ends, own, strict=True):
        assert stage[0].startswith(f"{end}.") or stage[-1].startswith(f"{end}.")


# --- bss


@pytest.mark.parametrize("k", [1, 3])
@pytest.mark.parametrize("shape", [(6, 10), (10, 6)])
def test_bss_is_the_sum_of_the_smallest_squared_singular_values(shape: tuple[int, int], k: int) -> None:
    features = torch.randn(shape, generator=torch.Generator().manual_seed(0), requires_grad=True)
    exact = features.detach().double().numpy()
    penalty = module("bss").shrinkage(features, k)
    gram = exact @ exact.T if shape[0] < shape[1] else exact.T @ exact
    assert penalty.item() == pytest.approx(float(np.linalg.eigvalsh(gram)[:k].sum()), rel=1e-4)
    left, values, right = np.linalg.svd(exact, full_matrices=False)
    slope = 2 * (left[:, -k:] * values[-k:]) @ right[-k:]
    np.testing.assert_allclose(torch.autograd.grad(penalty, features)[0].numpy(), slope, atol=1e-4)


@pytest.mark.parametrize(
    "features", [torch.zeros(4, 6), torch.eye(4, 6), torch.ones(4, 6), torch.eye(6)[[0, 1, 2, 2]] * 2]
)
def test_bss_has_a_gradient_where_singular_values_repeat_or_vanish(features: Tensor) -> None:
    features = features.clone().requires_grad_()
    penalty = module("bss").shrinkage(features, 1)
    assert penalty.item() == pytest.approx(float(torch.linalg.svdvals(features.detach())[-1]) ** 2, abs=1e-6)
    assert torch.isfinite(torch.autograd.grad(penalty, features)[0]).all()


def test_bss_adds_its_penalty_to_the_loss_and_names_a_divergence() -> None:
    task, run = task_of("multi-label"), new_run()
    net = run.network(task.outputs).eval()
    images, labels = batch(task, run)
    smallest = torch.linalg.svdvals(net.features(images))[-1].square()
    found = strategy("bss").loss(net, images, labels, task, {"eta": 20.0}, run)
    torch.testing.assert_close(found, task_loss(net(images), labels, task) + 20 * smallest)
    with pytest.raises(Diverged, match="non-finite"):
        strategy("bss").loss(net, images * torch.nan, labels, task, {"eta": 1e-3}, run)


def test_bss_decomposes_in_float32_where_training_does_not() -> None:
    features = torch.randn(8, 16, generator=torch.Generator().manual_seed(1)).bfloat16()
    expected = torch.linalg.svdvals(features.float())[-1].square()
    with torch.autocast("cpu", torch.bfloat16):
        assert torch.equal(module("bss").shrinkage(features, 1), expected)


# --- stoch_norm


def norms(kind: str) -> nn.BatchNorm2d:
    """A BatchNorm that has seen something, in train mode."""
    generator = torch.Generator().manual_seed(4)
    made: dict[str, nn.BatchNorm2d] = {
        "plain": nn.BatchNorm2d(5, eps=1e-3, momentum=0.3),
        "timm": BatchNormAct2d(5, act_layer=nn.ReLU6),
        "no affine": nn.BatchNorm2d(5, affine=False),
        "cumulative": nn.BatchNorm2d(5, momentum=None),
    }
    norm = made[kind]
    for tensor in (norm.weight, norm.bias, norm.running_mean, norm.running_var):
        if tensor is not None:
            tensor.data.copy_(torch.rand(5, generator=generator) + 0.5)
    return norm


MAPS = 2 * torch.randn(6, 5, 3, 3, generator=torch.Generator().manual_seed(7)) + 1


def moved(norm: nn.Module) -> dict[str, Tensor]:
    return {name: value.detach().clone() for name, value in norm.state_dict().items()}


@pytest.mark.parametrize("kind", ["plain", "timm", "no affine", "cumulative"])
def test_the_ends_of_p_are_batch_norm_in_train_and_in_eval_mode(kind: str) -> None:
    StochNorm2d = module("stoch_norm").StochNorm2d
    reference = norms(kind)
    evaluated = copy.deepcopy(reference).eval()(MAPS)
    trained = reference(MAPS)
    for p, expected in ((0.0, trained), (1.0, evaluated)):
        norm = StochNorm2d(norms(kind), p)
        assert torch.equal(norm(MAPS), expected)
        after = moved(norm)
        assert after.keys() == moved(reference).keys()
        assert all(torch.equal(after[name], value) for name, value in moved(reference).items()), "statistics move on"
        assert torch.equal(norm.eval()(MAPS), reference.eval()(MAPS))
        assert all(torch.equal(after[name], value) for name, value in moved(norm).items()), "but not in eval mode"
        reference.train()


def test_each_channel_is_normalised_in_one_of_two_ways_drawn_from_the_seed() -> None:
    StochNorm2d = module("stoch_norm").StochNorm2d
    by_batch, by_moving = norms("plain")(MAPS), norms("plain").eval()(MAPS)

    def drawn(seed: int) -> Tensor:
        with seeded(seed, torch.device("cpu")):
            return StochNorm2d(norms("plain"), 0.5)(MAPS)

    moving = []
    for seed in range(100):
        maps = drawn(seed)
        for channel in range(5):
            is_moving = torch.equal(maps[:, channel], by_moving[:, channel])
            assert is_moving or torch.equal(maps[:, channel], by_batch[:, channel])
            moving.append(is_moving)
    assert np.mean(moving) == pytest.approx(0.5, abs=0.07)
    assert torch.equal(drawn(1), drawn(1))


def test_the_gradient_is_taken_at_the_statistics_that_were_used() -> None:
    norm, reference = module("stoch_norm").StochNorm2d(norms("plain"), 1.0), norms("plain").eval()
    maps = [MAPS.clone().requires_grad_() for _ in range(2)]
    weights = torch.randn(MAPS.shape, generator=torch.Generator().manual_seed(8))
    found = torch.autograd.grad((norm(maps[0]) * weights).sum(), [maps[0], norm.weight, norm.bias])
    expected = torch.autograd.grad((reference(maps[1]) * weights).sum(), [maps[1], reference.weight, reference.bias])
    for ours, theirs in zip(found, expected, strict=True):
        torch.testing.assert_close(ours, theirs)


@pytest.mark.parametrize("backbone", [BACKBONE, DEPTHWISE])
def test_every_batch_norm_is_replaced_and_the_network_predicts_as_before(backbone: Backbone) -> None:
    task, run = task_of("binary"), new_run(backbone=backbone)
    plain = run.network(task.outputs)
    net = strategy("stoch_norm").build(task, {}, run)
    StochNorm2d = module("stoch_norm").StochNorm2d
    replaced = [name for name, m in net.named_modules() if isinstance(m, StochNorm2d)]
    assert replaced == [name for name, m in plain.named_modules() if isinstance(m, nn.BatchNorm2d)] != []
    assert all(m.p == 0.5 for m in net.modules() if isinstance(m, StochNorm2d))
    assert list(net.state_dict()) == list(plain.state_dict())
    assert state_digest(net) == state_digest(plain)
    images, _ = batch(task, run)
    assert torch.equal(net.eval()(images), plain.eval()(images))

    other = copy.deepcopy(net)
    shaken(other)
    assert state_digest(net) == state_digest(plain), "a copy has tensors of its own"
    other.load_state_dict(plain.state_dict())
    assert torch.equal(other(images), plain(images))


# --- co_tuning


def test_a_relationship_is_the_mean_prediction_of_each_class() -> None:
    co_tuning, task = module("co_tuning"), task_of("multi-class")
    probabilities = torch.tensor([[0.9, 0.1], [0.5, 0.5], [0.2, 0.8], [0.4, 0.6]])
    held = co_tuning.present(torch.tensor([0, 1, 0, 2]), task)
    found = co_tuning.relationship(probabilities, held)
    torch.testing.assert_close(found[:3], torch.tensor([[0.55, 0.45], [0.5, 0.5], [0.4, 0.6]]))
    assert found[3:].eq(0).all()  # classes without an image, and "none"
    torch.testing.assert_close(co_tuning.source_targets(held, found)[[0, 3]], found[[0, 2]])


def test_labels_are_averaged_and_none_is_one_more() -> None:
    co_tuning, task = module("co_tuning"), task_of("multi-label")
    probabilities = torch.tensor([[0.9, 0.1], [0.5, 0.5], [0.3, 0.7]])
    held = co_tuning.present(torch.tensor([[1.0, 1.0], [1.0, 0.0], [0.0, 0.0]]), task)
    assert held.tolist() == [[1, 1, 0], [1, 0, 0], [0, 0, 1]]
    found = co_tuning.relationship(probabilities, held)
    torch.testing.assert_close(found, torch.tensor([[0.7, 0.3], [0.9, 0.1], [0.3, 0.7]]))
    expected = torch.tensor([[0.8, 0.2], [0.7, 0.3], [0.3, 0.7]])
    torch.testing.assert_close(co_tuning.source_targets(held, found), expected)


@pytest.mark.parametrize("kind", PHANTOMS)
def test_both_heads_are_supervised(kind: str, source: dict[str, Tensor]) -> None:
    co_tuning, task, run = strategy("co_tuning"), task_of(kind), new_run()
    net = co_tuning.build(task, {}, run).eval()
    features = run.features(task.train).double().numpy()
    predicted = softmax(features @ source["weight"].double().numpy().T + source["bias"].double().numpy(), axis=1)
    held = task.train.labels.numpy() if kind == "multi-label" else np.eye(task.outputs)[task.train.labels.numpy()]
    held = np.concatenate([held, held.sum(1, keepdims=True) == 0], axis=1)
    seen = held.any(0)
    related = held.T @ predicted / np.maximum(held.sum(0), 1)[:, None]
    np.testing.assert_allclose(net.memo["relationship"].numpy(), related, atol=1e-5)
    np.testing.assert_allclose(net.memo["relationship"].sum(1).numpy()[seen], 1, atol=1e-5)

    images, labels = batch(task, run)
    net.features.load_state_dict(run.frozen().state_dict())  # of seed 0: the predictions below are then those above
    old = log_softmax(features[:8] @ source["weight"].double().numpy().T + source["bias"].double().numpy(), axis=1)
    wanted = held[:8] @ related / held[:8].sum(1, keepdims=True)
    found = co_tuning.loss(net, images, labels, task, {"trade_off": 2.3}, run)
    expected = task_loss(net(images), labels, task).item() - 2.3 * (wanted * old).sum(1).mean()
    assert found.item() == pytest.approx(expected, rel=1e-4)

    slopes = gradients(net, found)
    assert all(slope is not None and slope.abs().sum() > 0 for name, slope in slopes.items() if "features" not in name)
    assert {name for name in slopes if "features" not in name} == {
        "source.weight",
        "source.bias",
        "head.weight",
        "head.bias",
    }
    backbone, head = co_tuning.param_groups(net, task, {}, run, 0)
    sources = {id(p) for p in net.get_submodule("source").parameters()}
    assert sources <= {id(p) for p in backbone.params}, "the old head at the backbone's rate"
    assert [id(p) for p in head.params] == [id(p) for p in net.head.parameters()]


@pytest.mark.parametrize("kind", ["binary", "multi-label"])
def test_co_tuning_keeps_the_contract(kind: str, source: dict[str, Tensor]) -> None:
    findings = list(examine(strategy("co_tuning"), task_of(kind)))
    assert len(findings) >= 7
    assert [finding for finding in findings if finding[1]] == []


def test_co_tuning_teaches_the_old_head(source: dict[str, Tensor]) -> None:
    kept: dict[str, Any] = {}

    class Watched(type(strategy("co_tuning"))):
        def finish(self, net, task, hparams, run):
            kept["net"] = net
            return super().finish(net, task, hparams, run)

    task = task_of("binary")
    predictor = Watched().fit(task, {"lr": 0.01, "trade_off": 2.3}, new_run(protocol=FAST))
    assert predict(predictor, task.val).shape == (len(task.val), 2)
    assert not torch.equal(kept["net"].source.weight, source["weight"])


def test_co_tuning_needs_a_source_head(monkeypatch: pytest.MonkeyPatch) -> None:
    info = task_of("binary").info
    reason = strategy("co_tuning").applies(info, BACKBONE)
    assert reason is not None
    assert "test_resnet random has no classifier over its source's classes" in reason
    monkeypatch.setattr(weights_origin, "source_head", lambda backbone: SOURCE)
    assert strategy("co_tuning").applies(info, BACKBONE) is None


# --- distill


@pytest.mark.parametrize("backbone", [BACKBONE, DEPTHWISE])
def test_distill_is_the_distance_to_the_teachers_features(backbone: Backbone) -> None:
    distill, task, run = strategy("distill"), task_of("multi-class"), new_run(backbone=backbone)
    net = distill.build(task, {}, run).eval()
    images, labels = batch(task, run)

    def losses() -> tuple[Tensor, Tensor]:
        return distill.loss(net, images, labels, task, {"weight": 50.0}, run), task_loss(net(images), labels, task)

    assert torch.equal(*losses())
    shaken(net)
    held, alone = losses()
    distance = (net.features(images) - run.frozen()(images)).square().mean()
    torch.testing.assert_close(held, alone + 50 * distance)
    assert distance > 1e-4
    held.backward()
    assert all(p.grad is None for p in run.frozen().parameters())


def test_all_are_of_one_family_and_name_their_paper() -> None:
    for name in NAMES:
        assert strategy(name).family == "regularised fine-tuning"
        assert f"Paper: {strategy(name).paper}" in " ".join((type(strategy(name)).__doc__ or "").split())
