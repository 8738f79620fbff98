"""Bespoke classifiers on frozen features: each is what an independent implementation gives on the same features."""

from __future__ import annotations

import math
import sys
from dataclasses import replace
from functools import cache
from itertools import pairwise

import numpy as np
import pytest
import torch
from sklearn.multiclass import OneVsRestClassifier
from sklearn.neighbors import KNeighborsClassifier
from sklearn.svm import SVC, LinearSVC
from torch import Tensor, nn

from bench import registry, tune
from bench.best import Best, margin_of
from bench.check import PHANTOMS, new_run, phantom_task
from bench.contract import Backbone, Protocol, Strategy, Task
from bench.finetune import task_loss
from bench.images import Images, predict
from bench.mlp import fit_mlps
from bench.run import Run
from bench.train import lr_factor, val_scores
from bench.validation import validated
from tests.small import CHECKOUT

PROTOCOL = Protocol(
    epochs=6, batch_size=16, label_smoothing=0.1, tolerance=0.0
)  # by AUC alone the best epoch is not always the last
BACKBONES = [
    Backbone("test_resnet", "random"),
    Backbone("test_convnext", "random"),  # a norm after the pooling
    Backbone("mobilenetv3_small_050", "random"),  # a convolution after the pooling
    Backbone("mobilenetv2_035", "random", cut=2),
]


@cache
def task_of(kind: str, size: int = 32, images: int = 40) -> Task:
    return phantom_task(kind, size, images)


def strategy(name: str) -> Strategy:
    return registry.load_strategy(name, CHECKOUT)


def projected(task: Task) -> tuple[Tensor, Tensor]:
    """Random projections of the pixels: features with something to learn in them."""
    projection = torch.randn(task.train.pixels[0].numel(), 12, generator=torch.Generator().manual_seed(0))
    return tuple((images.pixels.float().flatten(1) / 255) @ projection for images in (task.train, task.val))


def fitted(name: str, task: Task, hparams: dict, run: Run | None = None) -> np.ndarray:
    """Logits on val, float64."""
    run = run or new_run()
    return predict(strategy(name).fit(task, hparams, run), task.val).double().numpy()


def arrays(task: Task, run: Run) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Features of train and val, and the training labels, as scikit-learn takes them."""
    train, val = (run.features(images).double().numpy() for images in (task.train, task.val))
    return train, val, task.train.labels.numpy()


def standardised(train: np.ndarray, val: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """By the mean and deviation of train, of which none is below a tenth of their root mean square."""
    scale = train.std(axis=0)
    scale = np.where(scale < 1e-6, np.inf, np.maximum(scale, 0.1 * np.sqrt(np.mean(scale**2))))
    return (train - train.mean(axis=0)) / scale, (val - train.mean(axis=0)) / scale


class Masked(nn.Module):
    """Dropout whose mask comes from a generator of its own."""

    def __init__(self, share: float, draw: torch.Generator) -> None:
        super().__init__()
        self.share, self.draw = share, draw

    def forward(self, inputs: Tensor) -> Tensor:
        if not self.training:
            return inputs
        return inputs * torch.empty_like(inputs).bernoulli_(1 - self.share, generator=self.draw) / (1 - self.share)


def trained_by_torch(train: Tensor, val: Tensor, task: Task, hparams: dict, seed: int) -> tuple[Tensor, int]:
    """fastai's head of torch's modules, alone, with torch's AdamW, clipping and the schedule: logits on val at the best
    epoch, and which that is."""
    draw, shuffle = torch.Generator().manual_seed(seed), torch.Generator().manual_seed(seed)
    widths = (train.shape[1], 512, task.outputs)
    linears = [nn.Linear(inputs, outputs, bias=False) for inputs, outputs in pairwise(widths)]
    for linear in linears:
        drawn = torch.randn(linear.in_features, linear.out_features, generator=draw)
        linear.weight.data = drawn.T.contiguous() * math.sqrt(2 / linear.in_features)
    norms = [nn.BatchNorm1d(width) for width in widths[:2]]
    for norm in norms:
        nn.init.constant_(norm.bias, 1e-3)
    net = nn.Sequential(norms[0], Masked(0.25, draw), linears[0], nn.ReLU(), norms[1], Masked(0.5, draw), linears[1])
    groups = [
        {"params": [linear.weight for linear in linears], "weight_decay": hparams["weight_decay"]},
        {"params": [p for norm in norms for p in norm.parameters()], "weight_decay": 0.0},
    ]
    optimizer = torch.optim.AdamW(groups, lr=1.0)
    steps, step, kept = math.ceil(len(train) / PROTOCOL.batch_size), 0, (val, -1)
    best = Best(margin_of(task, PROTOCOL))
    for epoch in range(PROTOCOL.epochs):
        net.train()
        for index in torch.randperm(len(train), generator=shuffle).tensor_split(steps):
            for group in optimizer.param_groups:
                group["lr"] = hparams["lr"] * lr_factor(step / (steps * PROTOCOL.epochs), PROTOCOL)
            optimizer.zero_grad()
            task_loss(net(train[index]), task.train.labels[index], task, PROTOCOL.label_smoothing).backward()
            nn.utils.clip_grad_norm_(net.parameters(), PROTOCOL.clip)
            optimizer.step()
            step += 1
        with torch.no_grad():
            logits = net.eval()(val)
        if best.takes(*val_scores(logits, task.val, task)):
            kept = logits, epoch
    return kept


@pytest.mark.parametrize("kind", ["binary", "multi-class", "multi-label"])
def test_a_batch_of_mlps_is_each_trained_alone_by_torch(kind: str) -> None:
    task = task_of(kind)
    train, val = projected(task)
    hparams = [{"lr": lr, "weight_decay": wd} for lr, wd in [(1e-3, 0.01), (3e-3, 1.0), (1e-2, 0.0)]]
    heads = fit_mlps(train, val, task, hparams, [0, 1, 2], PROTOCOL)
    alone = [trained_by_torch(train, val, task, hparams[i], i) for i in range(3)]
    for head, (logits, _) in zip(heads, alone, strict=True):
        torch.testing.assert_close(head(val), logits, rtol=1e-3, atol=1e-3)
    assert min(epoch for _, epoch in alone) < PROTOCOL.epochs - 1  # not just the last epoch
    assert heads[0].trained == 12 * 2 + 12 * 512 + 512 * 2 + 512 * task.outputs


@pytest.mark.parametrize("kind", PHANTOMS)
def test_a_batch_of_mlps_equals_each_alone(kind: str) -> None:
    task = task_of(kind)
    train, val = projected(task)
    hparams = [{"lr": lr, "weight_decay": 0.01} for lr in (1e-3, 1e-2, 1e-3)]
    together = fit_mlps(train, val, task, hparams, [0, 1, 2], PROTOCOL)
    for i, seed in enumerate([0, 1, 2]):
        [alone] = fit_mlps(train, val, task, [hparams[i]], [seed], PROTOCOL)
        torch.testing.assert_close(together[i](val), alone(val), rtol=1e-4, atol=1e-4)
    assert not torch.allclose(together[0](val), together[2](val), atol=1e-2)  # they differ in the seed only


def test_an_mlp_is_validated_no_more_often_than_a_fine_tuning(monkeypatch: pytest.MonkeyPatch) -> None:
    task = phantom_task("binary", images=6)
    task = replace(task, val=phantom_task("binary", images=30).train)
    looks = []
    monkeypatch.setattr("bench.mlp.val_scores", lambda *given: looks.append(given) or val_scores(*given))
    protocol = Protocol(epochs=12, batch_size=6)
    fit_mlps(*projected(task), task, [{"lr": 1e-3, "weight_decay": 0.01}], [0], protocol)
    assert len(looks) == len(validated(12, 6, 30)) == 5


def test_an_mlp_that_diverges_fails_alone() -> None:
    task = task_of("binary")
    train, val = projected(task)
    hparams = [{"lr": 1e-3, "weight_decay": 0.01}, {"lr": math.inf, "weight_decay": 0.01}]
    good, bad = fit_mlps(train, val, task, hparams, [0, 0], PROTOCOL)
    [alone] = fit_mlps(train, val, task, hparams[:1], [0], PROTOCOL)
    torch.testing.assert_close(good(val), alone(val), rtol=1e-4, atol=1e-4)
    assert not torch.isfinite(bad(val)).all()


def test_a_feature_that_is_silent_on_train_has_no_say_in_an_mlp() -> None:
    task = task_of("binary")
    train, val = (features.clone() for features in projected(task))
    train[:, 3], val[:, 3] = 2.0, 2.0
    [head] = fit_mlps(train, val, task, [{"lr": 1e-3, "weight_decay": 0.01}], [0], PROTOCOL)
    flash = val.clone()
    flash[:, 3] = 1e6
    assert torch.equal(head(val), head(flash))


@pytest.mark.parametrize("backbone", BACKBONES, ids=lambda b: b.label)
def test_maxima_are_average_and_maximum_of_the_last_map(backbone: Backbone) -> None:
    task = task_of("binary", size=64, images=6)
    run = new_run(backbone=backbone, size=64)
    with torch.no_grad():
        maps = run.frozen().forward_features(run.prepare(task.train.pixels))
    assert maps.dim() == 4
    assert maps.shape[2] * maps.shape[3] > 1
    wanted = torch.cat([nn.functional.adaptive_avg_pool2d(maps, 1), nn.functional.adaptive_max_pool2d(maps, 1)], dim=1)
    torch.testing.assert_close(run.features(task.train, maxima=True), wanted.flatten(1))
    with torch.no_grad():
        torch.testing.assert_close(run.features(task.train), run.frozen()(run.prepare(task.train.pixels)))


@pytest.mark.usefixtures("own_cache")
def test_features_are_computed_once_for_all_trials_and_seeds() -> None:
    task, run = task_of("multi-class"), new_run()
    seen = []
    first = next(module for module in run.frozen().modules() if isinstance(module, nn.Conv2d))
    first.register_forward_hook(lambda module, inputs, output: seen.append(len(inputs[0])))
    for _ in range(2):
        strategy("knn_probe").fit_many(task, [{"k": 3}, {"k": 5}], [0, 1], run)
        strategy("svm_probe").fit_many(task, [{"kernel": "linear", "c": c} for c in (0.1, 1.0)], [0, 1], run)
    assert sum(seen) == len(task.train)
    for _ in range(2):
        strategy("mlp_probe").fit_many(task, [{"lr": 1e-3, "weight_decay": 0.01}] * 2, [0, 1], run)
    assert sum(seen) == 2 * len(task.train) + len(task.val)


@pytest.mark.parametrize("kind", PHANTOMS)
@pytest.mark.parametrize("k", [1, 11, 1000])
def test_knn_gives_scikit_learns_vote_shares(kind: str, k: int) -> None:
    task, run = task_of(kind), new_run()
    train, val, labels = arrays(task, run)
    asked = min(k, len(train))
    shares = KNeighborsClassifier(asked, metric="cosine").fit(train, labels).predict_proba(val)
    logits = fitted("knn_probe", task, {"k": k}, run)
    if kind == "multi-label":
        shares = np.stack([label[:, 1] for label in shares], axis=1)
        found = (asked + 2) / (1 + np.exp(-logits)) - 1
    else:
        assert np.exp(logits).sum(1) == pytest.approx(1)
        found = np.exp(logits) * (asked + task.outputs) - 1
    np.testing.assert_allclose(found / asked, shares, atol=1e-4)
    assert run.meter.images_seen == len(train)
    assert run.meter.params_trained == train.size


def test_a_class_without_training_images_gets_no_vote() -> None:
    task = without(task_of("multi-class"), 2)
    logits = fitted("knn_probe", task, {"k": 5})
    assert logits[:, 2] == pytest.approx(math.log(1 / (5 + task.outputs)))


def test_a_range_of_k_in_the_matrix_file_keeps_k_whole() -> None:
    assert tune.defaults(strategy("knn_probe"), {"k": {"low": 20, "high": 50}}) == {"k": 32}


@pytest.mark.parametrize("kind", PHANTOMS)
@pytest.mark.parametrize(("kernel", "c"), [("linear", 0.01), ("rbf", 1.0)])
def test_svm_gives_scikit_learns_decisions(kind: str, kernel: str, c: float) -> None:
    task, run = task_of(kind), new_run()
    train, val, labels = arrays(task, run)
    train, val = standardised(train, val)
    machine = LinearSVC(C=c, dual=False) if kernel == "linear" else SVC(C=c, kernel="rbf", gamma="scale")
    direct = OneVsRestClassifier(machine).fit(train, labels)
    wanted = direct.decision_function(val)
    logits = fitted("svm_probe", task, {"kernel": kernel, "c": c}, run)
    np.testing.assert_allclose(np.diff(logits)[:, 0] if kind == "binary" else logits, wanted, atol=2e-3)
    if kind == "binary":
        assert logits[:, 0] == pytest.approx(-logits[:, 1])
    assert run.meter.images_seen == len(train)


@pytest.mark.parametrize("kernel", ["linear", "rbf"])
def test_svm_does_without_a_class_and_with_a_label_that_all_have(kernel: str) -> None:
    hparams = {"kernel": kernel, "c": 1.0}
    task = without(task_of("multi-class"), 2)
    logits = fitted("svm_probe", task, hparams)
    assert logits[:, 2] == pytest.approx(-math.log(len(task.train) + 1))
    assert (logits.argmax(1) != 2).all()

    task = task_of("multi-label")
    labels = task.train.labels.clone()
    labels[:, 0], labels[:, 1] = 1.0, 0.0
    task = replace(task, train=replace(task.train, labels=labels))
    logits = fitted("svm_probe", task, hparams)
    odds = math.log(len(task.train) + 1)
    assert logits[:, 0] == pytest.approx(odds)
    assert logits[:, 1] == pytest.approx(-odds)
    assert logits[:, 2].std() > 0


def test_a_large_rbf_machine_learns_from_images_drawn_from_the_seed(monkeypatch: pytest.MonkeyPatch) -> None:
    task, hparams = task_of("binary"), {"kernel": "rbf", "c": 1.0}
    monkeypatch.setattr(sys.modules[type(strategy("svm_probe")).__module__], "RBF_IMAGES", 30)
    run = new_run()
    together = [predict(p, task.val) for p in strategy("svm_probe").fit_many(task, [hparams] * 3, [0, 1, 0], run)]
    assert torch.equal(together[0], together[2])
    assert not torch.allclose(together[0], together[1])
    drawn = torch.randperm(len(task.train), generator=torch.Generator().manual_seed(1))[:30].numpy()
    train, val, labels = arrays(task, run)
    train, val = standardised(train, val)
    direct = SVC(C=1.0, gamma="scale").fit(train[drawn], labels[drawn])
    wanted = direct.decision_function(val)
    np.testing.assert_allclose(np.diff(together[1].numpy())[:, 0], wanted, atol=2e-3)


def without(task: Task, label: int) -> Task:
    """The task with no training image of a class."""
    train: Images = task.train.take(np.flatnonzero(task.train.labels.numpy() != label))
    return replace(task, train=train)
