"""Adversarial strategies: what is reversed, by how much and when; what the discriminator sees; who gains by whom."""

from __future__ import annotations

import math
from dataclasses import replace
from functools import cache
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional

from bench import adversarial
from bench.adaptation import next_second
from bench.adversarial import Accuracy, Adversarial, annealed, discriminator, reverse, strength
from bench.check import BACKBONE, new_run, phantom_task
from bench.contract import Backbone, Protocol, Task
from bench.finetune import FineTune, task_loss
from bench.images import predict
from bench.network import Network
from bench.run import Run, seeded
from bench.train import train
from tests.plugins import DEPTHWISE, LAYERNORM, module, strategy

NETS = pytest.mark.parametrize("backbone", [BACKBONE, LAYERNORM, DEPTHWISE], ids=lambda b: b.label)
BOTH = pytest.mark.parametrize("name", ["dann", "cdan"])
FAST = Protocol(epochs=2, batch_size=8)


def adversary(name: str) -> Adversarial:
    found = strategy(name)
    assert isinstance(found, Adversarial)
    return found


@cache
def task_of(kind: str = "shift", images: int = 16) -> Task:
    return phantom_task(kind, images=images)


def batch(task: Task, run: Run, n: int = 8) -> tuple[Tensor, Tensor]:
    pixels, labels = task.train.batch(torch.arange(n))
    return run.prepare(pixels), labels


def drawn(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def grads(loss: Tensor, params: Any) -> list[Tensor]:
    return list(torch.autograd.grad(loss, list(params), retain_graph=True))


def watched_lambdas(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    """Fills with the strength of every reversal."""
    lambdas: list[float] = []

    def watched(inputs: Tensor, scale: float | Tensor) -> Tensor:
        lambdas.append(float(scale))
        return reverse(inputs, scale)

    monkeypatch.setattr(adversarial, "reverse", watched)
    return lambdas


def heads_of(net: Network) -> tuple[nn.Linear, nn.Linear]:
    first, second = net.head.children()
    assert isinstance(first, nn.Linear)
    assert isinstance(second, nn.Linear)
    return first, second


def assert_scaled(found: list[Tensor], plain: list[Tensor], scale: float) -> None:
    """`found` is `scale` times `plain`, and not because both are nothing."""
    assert sum(float(p.abs().sum()) for p in plain) > 0
    for one, other in zip(found, plain, strict=True):
        torch.testing.assert_close(one, scale * other, rtol=1e-4, atol=1e-6)


@NETS
@pytest.mark.parametrize("progress", [0.0, 0.1, 1.0])
def test_the_backbone_gets_minus_lambda_times_the_gradient_that_the_discriminator_sends(
    backbone: Backbone, progress: float
) -> None:
    task, run = task_of(), new_run(backbone=backbone)
    dann = adversary("dann")
    net = dann.build(task, dann.defaults(), run).eval()
    net.memo["strength"].fill_(strength(progress))
    ours, theirs = (run.prepare(images.batch(torch.arange(6))[0]) for images in (task.train, task.second or task.val))
    features = net.features(torch.cat([ours, theirs]))
    judge = net.memo["discriminator"]
    truth = torch.tensor([0.0] * 6 + [1.0] * 6)
    plain = functional.binary_cross_entropy_with_logits(judge(features)[:, 0], truth)

    gap = dann.gap(net, features[:6], features[6:], task, run)

    assert torch.equal(gap, plain)  # the same value
    assert_scaled(grads(gap, net.features.parameters()), grads(plain, net.features.parameters()), -strength(progress))
    assert_scaled(grads(gap, judge.parameters()), grads(plain, judge.parameters()), 1.0)  # it learns to tell them apart


def test_reversal_changes_gradients_only() -> None:
    inputs = drawn(3, 4).requires_grad_()
    assert torch.equal(reverse(inputs, 0.7), inputs)
    reverse(inputs, 0.7).square().sum().backward()
    torch.testing.assert_close(inputs.grad, -0.7 * 2 * inputs.detach())


def test_lambda_and_the_learning_rate_at_the_start_in_the_middle_and_at_the_end() -> None:
    assert [strength(p) for p in (0.0, 0.5, 1.0)] == pytest.approx([0.0, 0.986614, 0.999909], abs=1e-6)
    assert [annealed(p) for p in (0.0, 0.5, 1.0)] == pytest.approx([1.0, 6**-0.75, 11**-0.75])


@BOTH
def test_lambda_and_the_learning_rate_follow_the_planned_steps_of_a_training(
    name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    lambdas, rates = watched_lambdas(monkeypatch), []
    found = adversary(name)
    plain = torch.optim.AdamW.step

    def step(self: torch.optim.AdamW) -> None:
        rates.append(self.param_groups[1]["lr"])
        plain(self)

    monkeypatch.setattr(torch.optim.AdamW, "step", step)
    run = new_run(protocol=Protocol(epochs=4, batch_size=6, patience=1))  # which no longer matters in a shift task

    found.fit(task_of(images=15), {"lr": 1e-3, "trade_off": 1.0}, run)

    progress = np.arange(12) / 12  # 3 batches of 5 in each of 4 epochs
    assert lambdas == pytest.approx(2 / (1 + np.exp(-10 * progress)) - 1)
    assert rates == pytest.approx(1e-3 / (1 + 10 * progress) ** 0.75)
    assert lambdas[0] == 0
    assert lambdas[6] == pytest.approx(0.9866, abs=1e-4)


def test_lambda_goes_by_the_planned_steps_where_a_fit_ends_early(monkeypatch: pytest.MonkeyPatch) -> None:
    lambdas = watched_lambdas(monkeypatch)
    monkeypatch.setattr("bench.train.scores_on_val", lambda *_: (0.5, 1.0))  # never better than at first
    adversary("dann").fit(
        task_of("binary"), {"lr": 1e-3, "trade_off": 1.0}, new_run(protocol=replace(FAST, epochs=10, patience=1))
    )
    assert lambdas == pytest.approx([strength(done / 20) for done in range(4)])


@BOTH
def test_the_accuracy_of_each_epoch_is_the_share_of_images_whose_domain_was_told(
    name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    told: list[np.ndarray] = []

    def watched(logits: Tensor, truth: Tensor, weights: Tensor | None = None) -> Tensor:
        told.append((logits.detach()[:, 0].numpy() > 0) == (truth.numpy() == 1))
        return plain(logits, truth, weights)

    plain = adversarial.domain_loss
    monkeypatch.setattr(adversarial, "domain_loss", watched)
    run = new_run(protocol=replace(FAST, epochs=3))

    adversary(name).fit(task_of(images=13), {"lr": 1e-3, "trade_off": 1.0}, run)

    assert [len(part) for part in told] == [14, 12] * 3  # 13 images in equal shares, with as many of the second domain
    epochs = [np.concatenate(told[i : i + 2]).mean() for i in (0, 2, 4)]
    assert run.meter.disc_acc == pytest.approx(epochs)


def test_accuracy_counts_images_not_batches() -> None:
    accuracy = Accuracy()
    accuracy.add(torch.tensor([[1.0], [-1.0], [2.0]]), torch.tensor([1.0, 0.0, 0.0]))
    accuracy.add(torch.tensor([[-1.0]]), torch.tensor([1.0]))
    accuracy.end_epoch()
    accuracy.add(torch.tensor([[3.0]]), torch.tensor([1.0]))
    accuracy.end_epoch()
    assert accuracy.epochs == [0.5, 1.0]


@BOTH
def test_the_discriminator_trains_and_nothing_of_it_is_in_the_predictor(name: str) -> None:
    task, run, found = task_of(), new_run(protocol=FAST), adversary(name)
    hparams = found.defaults()
    with seeded(run.seed, run.device):
        net = found.build(task, hparams, run)
        before = [p.detach().clone() for p in net.memo["discriminator"].parameters()]
        train(net, found, task, hparams, run)
        predictor = found.finish(net, task, hparams, run)
    after = list(net.memo["discriminator"].parameters())
    assert all(not torch.equal(old, new) for old, new in zip(before, after, strict=True))
    plain = run.network(task.outputs)
    assert set(net.state_dict()) == set(plain.state_dict())
    assert run.meter.params_total == sum(p.numel() for p in plain.parameters())
    logits = predict(predictor, task.val)
    with torch.no_grad():
        for parameter in after:
            parameter.fill_(torch.nan)
    assert torch.equal(predict(predictor, task.val), logits)


def test_the_discriminator_is_the_papers_and_starts_unlike_the_head() -> None:
    run = new_run()
    net, judge = run.network(4), discriminator(96, run.seed)
    assert [type(layer) for layer in judge] == [nn.Linear, nn.ReLU, nn.Linear, nn.ReLU, nn.Linear]
    assert [tuple(layer.weight.shape) for layer in judge if isinstance(layer, nn.Linear)] == [
        (1024, 96), (1024, 1024), (1, 1024),
    ]  # fmt: skip
    first = next(judge.parameters())[:4].flatten()
    head = net.head.weight.flatten()
    assert torch.corrcoef(torch.stack([first, head]))[0, 1].abs() < 0.3


def test_the_discriminator_learns_at_the_heads_rate() -> None:
    task, run, dann = task_of(), new_run(), adversary("dann")
    net = dann.build(task, dann.defaults(), run)
    backbone, head = dann.param_groups(net, task, dann.defaults(), run, 0)
    assert head.scale == 1.0
    assert {id(p) for p in head.params} >= {id(p) for p in net.memo["discriminator"].parameters()}
    assert backbone.scale == 0.1


def test_a_discriminator_alone_learns_to_tell_the_domains_apart() -> None:
    """With nothing reversed; features are frozen."""
    task, run, dann = task_of("binary"), new_run(protocol=replace(FAST, epochs=6)), adversary("dann")

    class Onlooker(type(dann)):  # type: ignore[misc]
        def param_groups(self, *args: Any) -> Any:
            backbone, head = super().param_groups(*args)
            return [replace(backbone, scale=0.0), head]

    Onlooker().fit(task, {"lr": 3e-3, "trade_off": 1.0}, run)
    assert run.meter.disc_acc[-1] > 0.9 > run.meter.disc_acc[0]


def test_the_multilinear_map_holds_every_product() -> None:
    features, probs = drawn(5, 3).double(), drawn(5, 4, seed=1).double().softmax(1)
    found = module("cdan").multilinear(features, probs)
    for b in range(5):
        literal = [float(probs[b, k] * features[b, d]) for k in range(4) for d in range(3)]
        assert found[b].tolist() == pytest.approx(literal)


def test_the_random_multilinear_map_keeps_inner_products() -> None:
    """<T(a), T(b)> is on average <f_a, f_b> <g_a, g_b>, that of the full map."""
    features, probs = drawn(6, 30).double(), drawn(6, 8, seed=1).double().softmax(1)
    maps = [drawn(30, 60_000, seed=2).double(), drawn(8, 60_000, seed=3).double()]
    full, random = (module("cdan").multilinear(features, probs, m) for m in (None, maps))
    literal = [
        sum(float(maps[0][d, 7] * features[2, d]) for d in range(30))
        * sum(float(maps[1][k, 7] * probs[2, k]) for k in range(8))
        / math.sqrt(60_000)
    ]
    assert random[2, 7].item() == pytest.approx(literal[0])
    torch.testing.assert_close(random @ random.T, full @ full.T, rtol=0, atol=0.06 * float((full @ full.T).max()))


@pytest.mark.parametrize("kind", ["multi-class", "multi-label", "ordinal", "binary"])
def test_entropy_weights_and_the_discriminators_loss_equal_a_literal_computation(kind: str) -> None:
    task, run, cdan = task_of(kind), new_run(), adversary("cdan")
    net = cdan.build(task, cdan.defaults(), run)
    net.memo["strength"].fill_(strength(0.3))
    with torch.no_grad():
        net.head.weight.mul_(5)  # some predictions sure, some not
        net.memo["discriminator"][-1].weight.mul_(100)
    ours, theirs = drawn(4, 96), drawn(4, 96, seed=1)

    found = cdan.gap(net, ours, theirs, task, run)

    losses = []
    net.double()
    judge = net.memo["discriminator"].double()
    for features, of_second in ((ours, False), (theirs, True)):
        weights, terms = [], []
        for image in features.double():
            logits = net.head(image).detach()
            if kind == "multi-label":
                p = torch.sigmoid(logits)
                probs = torch.stack([1 - p, p], dim=1)
                entropy = sum(-float((q * q.log()).sum()) for q in probs) / len(probs)
            else:
                probs = logits.softmax(0)
                entropy = -float((probs * probs.log()).sum())
            weights.append(1 + math.exp(-entropy))
            seen = torch.outer(probs.flatten(), image).flatten()
            says = float(torch.sigmoid(judge(seen[None])[0, 0].detach()))
            terms.append(-math.log(says if of_second else 1 - says))
        losses.append(np.average(terms, weights=weights))
    assert found.item() == pytest.approx(np.mean(losses), rel=1e-4)


def test_no_gradient_of_the_domain_loss_reaches_the_head() -> None:
    task, run, cdan = task_of(), new_run(), adversary("cdan")
    net = cdan.build(task, cdan.defaults(), run)
    net.memo["strength"].fill_(strength(0.5))
    features = [drawn(4, 96).requires_grad_(), drawn(4, 96, seed=1).requires_grad_()]
    cdan.gap(net, features[0], features[1], task, run).backward()
    assert all(p.grad is None for p in net.head.parameters())
    assert features[0].grad is not None
    assert features[0].grad.abs().sum() > 0


def test_a_wide_map_is_a_random_one_the_same_for_a_seed(monkeypatch: pytest.MonkeyPatch) -> None:
    task, cdan = task_of(), adversary("cdan")
    assert "maps" not in cdan.build(task, cdan.defaults(), new_run()).memo  # 96 x 5
    monkeypatch.setattr(module("cdan"), "WIDEST", 479)
    nets = [cdan.build(task, cdan.defaults(), new_run(seed)) for seed in (0, 0, 1)]
    maps = [net.memo["maps"] for net in nets]
    assert [tuple(m.shape) for m in maps[0]] == [(96, 1024), (5, 1024)]
    assert torch.equal(maps[0][0], maps[1][0])
    assert not torch.equal(maps[0][0], maps[2][0])
    assert nets[0].memo["discriminator"][0].in_features == 1024
    assert torch.isfinite(cdan.gap(nets[0], drawn(4, 96), drawn(4, 96, seed=1), task, new_run()))


@NETS
@pytest.mark.parametrize("kind", ["shift", "multi-label"])
def test_in_mcd_the_heads_move_apart_and_the_backbone_brings_them_together(backbone: Backbone, kind: str) -> None:
    """Of what the loss holds beyond the task's: the heads get minus the discrepancy's gradient, the backbone plus."""
    task, run, mcd = task_of(kind), new_run(backbone=backbone), strategy("mcd")
    images, labels = batch(task, run)
    found = {}
    for trade_off in (0.0, 3.0):
        net = mcd.build(task, mcd.defaults(), run).eval()  # eval: a batch does not change the network
        loss = mcd.loss(net, images, labels, task, {"trade_off": trade_off}, run)
        found[trade_off] = [grads(loss, part.parameters()) for part in (net.features, net.head)]
    both = net.features(torch.cat([images, seconds(mcd, task, run, len(images))]))[len(images) :]
    first, second = (head(both) for head in heads_of(net))
    if kind == "multi-label":
        apart = (torch.sigmoid(first) - torch.sigmoid(second)).abs().mean()
    else:
        apart = (first.softmax(1) - second.softmax(1)).abs().mean()
    assert apart > 0
    for part, sign, (plain, full) in zip(
        (net.features, net.head), (1, -1), zip(found[0.0], found[3.0], strict=True), strict=True
    ):
        difference = [b - a for a, b in zip(plain, full, strict=True)]
        assert_scaled(difference, grads(apart, part.parameters()), sign * 3.0)


def seconds(mcd: FineTune, task: Task, run: Run, count: int) -> Tensor:
    """The second images of the first step."""
    return next_second(mcd.build(task, mcd.defaults(), run), count, run)


def test_mcds_two_heads_differ_both_learn_the_task_and_predict_together() -> None:
    task, run, mcd = task_of(), new_run(), strategy("mcd")
    net = mcd.build(task, mcd.defaults(), run).eval()
    first, second = heads_of(net)
    assert not torch.allclose(first.weight, second.weight, atol=0.01)
    assert torch.equal(first.weight, run.network(task.outputs).head.weight)  # the other strategies' head
    following = heads_of(mcd.build(task, mcd.defaults(), new_run(1)))
    assert not torch.equal(second.weight, following[0].weight)
    images, labels = batch(task, run)
    features = net.features(images)
    learned = task_loss(first(features), labels, task) + task_loss(second(features), labels, task)
    loss = mcd.loss(net, images, labels, task, {"trade_off": 0.0}, run)
    torch.testing.assert_close(loss, learned, rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(net(images), (first(features) + second(features)) / 2)


def test_a_step_of_the_heads_widens_what_a_step_of_the_backbone_closes() -> None:
    task, run, mcd = task_of(), new_run(), strategy("mcd")
    images, labels = batch(task, run)

    def apart(net: Network) -> float:
        with torch.no_grad():
            theirs = net.features(seconds(mcd, task, run, len(images)))
            return float(module("mcd").discrepancy(*(h(theirs) for h in heads_of(net)), task.info.kind))

    for part, sign in (("head", 1), ("features", -1)):
        net = mcd.build(task, mcd.defaults(), run).eval()
        start = apart(net)
        params = list(net.get_submodule(part).parameters())
        plain = mcd.loss(net, images, labels, task, {"trade_off": 0.0}, run)
        net.memo["second"] = mcd.build(task, mcd.defaults(), run).memo["second"]
        pulled = mcd.loss(net, images, labels, task, {"trade_off": 1.0}, run) - plain
        with torch.no_grad():
            for parameter, gradient in zip(params, torch.autograd.grad(pulled, params), strict=True):
                parameter.sub_(gradient, alpha=0.01)
        assert (apart(net) - start) * sign > 0
