"""Alignment of two domains: the distances equal independent computations, and both domains are seen alike."""

from __future__ import annotations

import math
from dataclasses import replace
from functools import cache

import numpy as np
import pytest
import torch
from scipy.spatial.distance import cdist
from scipy.special import softmax
from torch import Tensor

from bench import registry
from bench.adaptation import Adaptation, next_second, second_images
from bench.check import new_run, phantom_task
from bench.computing import Computing
from bench.contract import Protocol, Task
from bench.finetune import task_loss
from bench.images import Images
from bench.run import Run
from tests.plugins import LAYERNORM, module, strategy
from tests.small import CHECKOUT

NAMES = ["coral", "mmd", "mcc"]


@cache
def task_of(kind: str = "shift", images: int = 16) -> Task:
    return phantom_task(kind, images=images)


def drawn(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def batch(task: Task, run: Run, n: int = 8) -> tuple[Tensor, Tensor]:
    pixels, labels = task.train.batch(torch.arange(n))
    return run.prepare(pixels), labels


def numbered(count: int) -> Images:
    """Images that tell their own place by their pixels."""
    pixels = torch.arange(count, dtype=torch.uint8)[:, None, None, None].expand(-1, 1, 8, 8).contiguous()
    return Images(pixels, torch.zeros(count, dtype=torch.int64), np.arange(count).astype(str), "numbered")


def coral_by_numpy(first: np.ndarray, second: np.ndarray) -> float:
    apart = np.cov(first, rowvar=False) - np.cov(second, rowvar=False)
    return float(np.linalg.norm(apart, "fro") ** 2 / (4 * first.shape[1] ** 2))


def mmd_by_numpy(first: np.ndarray, second: np.ndarray) -> float:
    """The squared distance of the two mean embeddings, summed over the kernels."""
    both = np.concatenate([first, second])
    squares = cdist(both, both, "sqeuclidean")
    signs = np.repeat([1 / len(first), -1 / len(second)], [len(first), len(second)])
    return float(sum(signs @ np.exp(-squares / (2 * a * squares.mean())) @ signs for a in (0.125, 0.25, 0.5, 1, 2)))


def confusion_by_hand(logits: np.ndarray, temperature: float) -> float:
    """Jin et al. 2020, equations 2 to 7."""
    count, classes = logits.shape
    probs = softmax(logits / temperature, axis=1)
    entropy = [-sum(p * math.log(p) for p in row) for row in probs]
    total = sum(1 + math.exp(-h) for h in entropy)
    weight = [count * (1 + math.exp(-h)) / total for h in entropy]
    together = np.zeros((classes, classes))
    for i in range(count):
        for j in range(classes):
            for k in range(classes):
                together[j, k] += probs[i, j] * weight[i] * probs[i, k]
    return sum(together[j, k] / together[j].sum() for j in range(classes) for k in range(classes) if j != k) / classes


@pytest.mark.parametrize(("name", "reference"), [("coral", coral_by_numpy), ("mmd", mmd_by_numpy)])
@pytest.mark.parametrize(("first", "second"), [(12, 12), (7, 12), (2, 2)])
@pytest.mark.parametrize("offset", [0.0, 30.0])  # far from the origin float32 rounds most
def test_a_distance_equals_a_double_precision_reference(
    name: str, reference: object, first: int, second: int, offset: float
) -> None:
    assert callable(reference)
    ours, theirs = drawn(first, 40) + offset, 1.5 * drawn(second, 40, seed=1) + 0.3 + offset
    found = getattr(module(name), name)(ours, theirs)
    assert found.dtype == torch.float32
    assert found.item() == pytest.approx(reference(ours.double().numpy(), theirs.double().numpy()), rel=1e-3)


@pytest.mark.parametrize("name", ["coral", "mmd"])
@pytest.mark.parametrize("count", [1, 2, 9, 64])
def test_a_distance_is_0_for_equal_samples_and_more_for_others(name: str, count: int) -> None:
    distance = getattr(module(name), name)
    sample = drawn(count, 40).relu()
    assert distance(sample, sample).item() == pytest.approx(0, abs=1e-6)
    assert distance(sample, sample.flip(0)).item() == pytest.approx(0, abs=1e-6)  # a sample has no order
    if count > 1 or name == "mmd":
        assert distance(sample, 2 * sample + 1) > 1e-3
    constant = torch.ones(count, 40)
    assert distance(constant, constant).item() == pytest.approx(0, abs=1e-6)


@pytest.mark.parametrize("name", ["coral", "mmd"])
@pytest.mark.parametrize("count", [1, 8])
def test_descending_a_distance_brings_samples_together(name: str, count: int) -> None:
    distance = getattr(module(name), name)
    ours, theirs = drawn(count, 10), (2 * drawn(count, 10, seed=1) + 1).requires_grad_()
    before = distance(ours, theirs)
    (gradient,) = torch.autograd.grad(before, theirs)
    assert torch.isfinite(gradient).all()
    if count > 1:  # a single image has no covariance, and is as far as all bandwidths are wide
        assert distance(ours, theirs - 0.1 * gradient / gradient.norm()) < before


def test_mmd_sees_what_coral_does_not() -> None:
    """A shift of the mean; and CORAL's own: a change of scale."""
    coral, mmd = module("coral").coral, module("mmd").mmd
    sample = drawn(64, 10)
    assert coral(sample, sample + 3).item() == pytest.approx(0, abs=1e-6)
    assert mmd(sample, sample + 3) > 0.5
    assert coral(sample, 3 * sample) > 0.1


@pytest.mark.parametrize("classes", [2, 5])
def test_class_confusion_equals_a_literal_loop(classes: int) -> None:
    task, run, mcc = task_of("multi-class" if classes == 5 else "binary"), new_run(), strategy("mcc")
    net = mcc.build(task, mcc.defaults(), run)
    features = 3 * drawn(6, 96)
    logits = net.head(features)
    literal = confusion_by_hand(logits.detach().double().numpy(), 2.5)
    assert mcc.gap(net, drawn(6, 96, seed=1), features, task, run).item() == pytest.approx(literal, rel=1e-5)


def test_class_confusion_of_labels_is_the_mean_of_each_labels_own() -> None:
    """A label's prediction is a distribution over two classes: softmax of 0 and its logit."""
    task, run, mcc = task_of("multi-label"), new_run(), strategy("mcc")
    net = mcc.build(task, mcc.defaults(), run)
    features = 3 * drawn(6, 96)
    logits = net.head(features).detach().double().numpy()
    literal = np.mean([confusion_by_hand(np.stack([0 * column, column], 1), 2.5) for column in logits.T])
    assert mcc.gap(net, features, features, task, run).item() == pytest.approx(literal, rel=1e-5)


def test_class_confusion_is_0_for_sure_predictions_of_every_class_and_most_for_unsure_ones() -> None:
    confusion = module("mcc").confusion
    sure = torch.eye(4)[:, None]
    assert confusion(sure).item() == pytest.approx(0, abs=1e-6)
    assert confusion(torch.full((6, 1, 4), 0.25)).item() == pytest.approx(0.75)
    logits = (400 * drawn(6, 4) - torch.tensor([0, 0, 0, 9999])).requires_grad_()  # a class that nobody has at all
    confusion(logits.softmax(1)[:, None]).backward()
    assert logits.grad is not None
    assert torch.isfinite(logits.grad).all()


def test_the_weights_of_class_confusion_take_no_gradient() -> None:
    logits = drawn(6, 4).double().requires_grad_()
    probs = logits.softmax(1)
    weights = 1 + torch.exp((probs * probs.log()).sum(1))
    weights = (weights / weights.mean()).detach()
    together = (weights[:, None] * probs).T @ probs
    literal = 1 - (together / together.sum(1, keepdim=True)).diagonal().mean()
    (wanted,) = torch.autograd.grad(literal, logits, retain_graph=True)
    (found,) = torch.autograd.grad(module("mcc").confusion(probs[:, None]), logits)
    torch.testing.assert_close(found, wanted)


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("kind", ["shift", "multi-label"])
def test_the_loss_is_the_tasks_plus_the_trade_off_times_the_gap(name: str, kind: str) -> None:
    task, run, found = task_of(kind), new_run(), strategy(name)
    images, labels = batch(task, run)
    net = found.build(task, found.defaults(), run).train()
    features = net.features(torch.cat([images, next_second(net, 8, run)]))  # one batch for BatchNorm
    gap = found.gap(net, features[:8], features[8:], task, run)
    assert gap > 1e-5
    for trade_off in (0.0, 2.0):
        again = found.build(task, found.defaults(), run).train()
        loss = found.loss(again, images, labels, task, {"trade_off": trade_off}, run)
        torch.testing.assert_close(loss, task_loss(net.head(features[:8]), labels, task) + trade_off * gap)


@pytest.mark.parametrize("name", [*NAMES, "dann", "cdan"])
def test_gaps_are_computed_in_float32_under_autocast(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    task, found = task_of(), strategy(name)
    run = replace(new_run(), computing=Computing("bf16"))
    net = found.build(task, found.defaults(), run)
    images, labels = batch(task, run)
    seen = []

    def gap(self: Adaptation, net: object, ours: Tensor, theirs: Tensor, task: Task, run: Run) -> Tensor:
        seen.append((ours.dtype, theirs.dtype, torch.is_autocast_enabled("cpu")))
        return ours.mean() - theirs.mean()

    monkeypatch.setattr(type(found), "gap", gap)
    with run.autocast():
        loss = found.loss(net, images, labels, task, {"trade_off": 1.0}, run)
    assert seen == [(torch.float32, torch.float32, False)]
    assert loss.dtype == torch.float32


def test_second_images_all_come_once_a_pass_in_an_order_of_their_own() -> None:
    second = numbered(10)
    task = replace(task_of(), train=numbered(10), second=second)
    run = new_run(protocol=Protocol(batch_size=4))
    order = [int(image.flatten()[0]) for image in second_images(task, run).take(30)]
    passes = [order[i : i + 10] for i in (0, 10, 20)]
    assert all(sorted(part) == list(range(10)) for part in passes)
    assert passes[0] != passes[1]
    again = [int(image.flatten()[0]) for image in second_images(task, run).take(30)]
    assert again == order
    other = [int(image.flatten()[0]) for image in second_images(task, new_run(4)).take(30)]
    assert other != order
    labelled = torch.randperm(10, generator=torch.Generator().manual_seed(run.seed)).tolist()  # as train shuffles
    assert labelled != passes[0]  # the domains' images do not come in pairs


@pytest.mark.parametrize("name", ["coral", "dann", "mcd"])
def test_a_task_without_a_second_domain_is_an_error(name: str) -> None:
    found = registry.load_strategy(name, CHECKOUT)
    with pytest.raises(ValueError, match="phantom-histology: the task has no second domain"):
        found.fit(replace(task_of("multi-class"), second=None), found.defaults(), new_run())


@pytest.mark.parametrize("name", NAMES)
def test_a_single_image_a_batch_trains_where_the_network_can(name: str) -> None:
    """The last of an epoch may be as small as that; LayerNorm does not mind."""
    task, run = task_of(), new_run(backbone=LAYERNORM)
    small = replace(task, train=task.train.take(np.arange(1)))
    strategy(name).fit(small, {"lr": 1e-3, "trade_off": 1.0}, run)
    assert all(map(math.isfinite, run.meter.curve))
