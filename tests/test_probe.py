"""Many heads at once are what each head is alone."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch
from sklearn.linear_model import LogisticRegression
from torch import nn

from bench.check import new_run, phantom_task
from bench.contract import Protocol, Task
from bench.finetune import task_loss
from bench.probe import PENALTIES, _gradient, _solved, _targets, fit_heads, probe_head, standardisation

PROTOCOL = Protocol(epochs=4, batch_size=16, label_smoothing=0.1)


def features(task: Task) -> tuple[torch.Tensor, torch.Tensor]:
    """Random projections of the pixels: enough signal to have something to select on."""
    draw = torch.Generator().manual_seed(0)
    projection = torch.randn(task.train.pixels[0].numel(), 12, generator=draw)
    return tuple((images.pixels.float().flatten(1) / 255) @ projection for images in (task.train, task.val))


@pytest.mark.parametrize("kind", ["binary", "multi-class", "multi-label", "ordinal"])
def test_a_batch_of_heads_equals_each_head_alone(kind: str) -> None:
    task = phantom_task(kind)
    train, val = features(task)
    hparams = [{"lr": lr, "weight_decay": wd} for lr, wd in [(0.01, 0.0), (0.1, 0.01), (0.3, 1.0)]]
    together = fit_heads(train, val, task, hparams, [0, 1, 2], PROTOCOL)
    for i in range(3):
        alone = fit_heads(train, val, task, [hparams[i]], [i], PROTOCOL)
        torch.testing.assert_close(together.weight[i], alone.weight[0], rtol=1e-4, atol=1e-5)
        torch.testing.assert_close(together.bias[i], alone.bias[0], rtol=1e-4, atol=1e-5)
        assert together.curves[i] == pytest.approx(alone.curves[0], abs=1e-6, nan_ok=True)


@pytest.mark.parametrize("kind", ["multi-class", "multi-label"])
def test_the_closed_form_gradient_is_autograds(kind: str) -> None:
    task = phantom_task(kind)
    labels = task.train.labels
    logits = torch.randn(len(labels), task.outputs, requires_grad=True)
    each = task.outputs if kind == "multi-label" else 1  # a multi-label image's loss is the sum of its labels'
    (each * task_loss(logits, labels, task)).backward()
    targets = labels if kind == "multi-label" else nn.functional.one_hot(labels, task.outputs).float()
    torch.testing.assert_close(_gradient(logits.detach()[None], targets[None], task)[0], logits.grad)


def test_the_heads_equal_torchs_sgd_on_standardised_features() -> None:
    """One head, plain nn.Linear and torch.optim.SGD in a loop: the same numbers at every epoch's end."""
    task = phantom_task("multi-class")
    train, val = features(task)
    protocol = Protocol(epochs=1, batch_size=len(train), warmup=0.0, schedule="constant")
    heads = fit_heads(train, val, task, [{"lr": 0.1, "weight_decay": 0.02}], [5], protocol)
    torch.manual_seed(5)
    linear = nn.Linear(train.shape[1], task.outputs)
    centre, scale = train.mean(0), train.std(0, correction=0)
    optimizer = torch.optim.SGD(
        [{"params": [linear.weight], "weight_decay": 0.02}, {"params": [linear.bias]}],
        lr=0.1,
        momentum=0.9,
        nesterov=True,
    )
    nn.functional.cross_entropy(linear((train - centre) / scale), task.train.labels).backward()
    optimizer.step()
    torch.testing.assert_close(heads(0, val), linear((val - centre) / scale), rtol=1e-4, atol=1e-4)


def test_a_feature_that_is_silent_on_train_has_no_say_on_val() -> None:
    task = phantom_task("binary")
    train, val = features(task)
    train, val = train.clone(), val.clone()
    train[:, 3], val[:, 3] = 0.0, 1e6
    heads = fit_heads(train, val, task, [{"lr": 0.1, "weight_decay": 0.01}], [0], PROTOCOL)
    silent = val.clone()
    silent[:, 3] = 0.0
    assert np.allclose(heads(0, val), heads(0, silent))


def test_a_feature_that_is_nearly_silent_on_train_has_little_say_on_val() -> None:
    """A ReLU's that fired once, faintly, on a training image: where it flashes on val its say is bounded."""
    task = phantom_task("binary")
    train, val = (part.clone() for part in features(task))
    train[:, 3], val[:, 3] = 0.0, 0.0
    train[0, 3] = 1e-4
    flash = val.clone()
    flash[:, 3] = 1.0  # of the others the deviation is of this order
    heads = fit_heads(train, val, task, [{"lr": 0.1, "weight_decay": 0.01}], [0], PROTOCOL)
    usual = heads.weight[0].abs().mean()
    assert (heads(0, flash) - heads(0, val)).abs().max() < 30 * usual  # and not 10,000 times


def test_a_labels_head_does_not_depend_on_how_many_labels_there_are() -> None:
    task = phantom_task("multi-label")
    train, val = features(task)
    doubled = replace(
        task, info=replace(task.info, classes=(*task.info.classes, *(f"{c}'" for c in task.info.classes)))
    )
    for name in ("train", "val"):
        images = getattr(task, name)
        doubled = replace(doubled, **{name: replace(images, labels=images.labels.repeat(1, 2))})
    hparams = [{"lr": 0.1, "weight_decay": 0.0}]
    protocol = Protocol(epochs=40, batch_size=len(train))
    few, many = (fit_heads(train, val, one, hparams, [0], protocol) for one in (task, doubled))
    # Heads start at other random weights, which so many steps forget.
    torch.testing.assert_close(few(0, val), many(0, val)[:, : task.outputs], rtol=0.1, atol=0.3)


@pytest.mark.parametrize("kind", ["binary", "multi-class", "multi-label", "ordinal"])
@pytest.mark.parametrize("penalty", PENALTIES)
def test_a_solved_probe_is_scikit_learns_logistic_regression(kind: str, penalty: float) -> None:
    task = phantom_task(kind)
    train, val = features(task)
    centre, scale = standardisation(train)
    inputs, others = ((part - centre) / scale for part in (train, val))
    weight, bias = _solved(inputs, _targets(task, 0.0), task, penalty)
    labels = task.train.labels.numpy()
    # Theirs sums over the images, has no factor of the norm's, and gives two classes one weight and not two.
    theirs = LogisticRegression(C=1 / (len(train) * penalty), max_iter=10_000, tol=1e-6)
    if kind == "multi-label":
        logits = [theirs.fit(inputs, labels[:, k]).decision_function(others) for k in range(task.outputs)]
        expected, given = np.stack(logits, axis=1), others @ weight + bias
    elif task.outputs == 2:
        theirs.set_params(C=2 / (len(train) * penalty))
        expected = theirs.fit(inputs, labels).decision_function(others)
        given = (others @ weight + bias).diff(dim=1)[:, 0]
    else:
        expected = theirs.fit(inputs, labels).predict_proba(others)
        given = torch.softmax(others @ weight + bias, dim=1)
    np.testing.assert_allclose(given.numpy(), expected, rtol=2e-2, atol=2e-2)


def test_a_solved_probe_is_the_same_for_all_epochs_and_seeds() -> None:
    task = phantom_task("multi-class")
    probes = [probe_head(task, new_run(seed, protocol=Protocol(epochs=epochs))) for seed, epochs in ((0, 1), (3, 50))]
    for one, other in zip(*probes, strict=True):
        assert torch.equal(one, other)
