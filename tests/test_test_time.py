"""Tent, self-training and source_only: what adapts, what stays, and what a prediction may depend on."""

from __future__ import annotations

import copy
import io
from dataclasses import replace
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest
import torch
from rich.console import Console
from torch import Tensor
from torch.nn import functional
from torch.nn.modules.batchnorm import _BatchNorm

from bench import listing
from bench.check import BACKBONE, new_run, phantom_task, state_digest
from bench.contract import Backbone, Protocol, Task
from bench.images import Images, predict
from bench.network import Network
from bench.prediction import Prediction, for_labelled, for_second
from bench.run import Run
from tests.plugins import DEPTHWISE, module, strategy

SHORT = Protocol(epochs=2, trials=1, batch_size=8)


def small(kind: str, images: int = 20) -> Task:
    return phantom_task(kind, images=images)


def pixels(images: Images) -> Tensor:
    return images.batch(torch.arange(len(images)))[0]


def tented(task: Task, run: Run) -> tuple[Network, Prediction]:
    """An untrained network, and Tent's predictor of it."""
    net = run.network(task.outputs)
    chosen = strategy("tent")
    found = chosen.finish(net, task, chosen.defaults(), run)
    assert isinstance(found, Prediction)
    return net, found


def entropy_by_hand(logits: np.ndarray, multi_label: bool) -> float:
    logits = logits.astype(np.float64)
    if multi_label:
        p = 1 / (1 + np.exp(-logits))
        return float(-(p * np.log(p) + (1 - p) * np.log(1 - p)).mean())
    p = np.exp(logits) / np.exp(logits).sum(1, keepdims=True)
    return float(-(p * np.log(p)).sum(1).mean())


@pytest.mark.parametrize("kind", ["shift", "multi-label"])
@pytest.mark.parametrize("backbone", [BACKBONE, DEPTHWISE], ids=["resnet", "depthwise"])
def test_tent_changes_nothing_but_scales_and_shifts(kind: str, backbone: Backbone) -> None:
    task, run = small(kind), new_run(backbone=backbone, protocol=SHORT)
    net, tent = run.network(task.outputs), module("tent")
    own = tent.adaptable(net)
    before = {name: tensor.clone() for name, tensor in own.state_dict().items()}
    with torch.inference_mode():
        tent.adapt(own, pixels(task.val), task, run)
    moved = {name for name, tensor in own.state_dict().items() if not torch.equal(tensor, before[name])}
    affine = {
        f"{path}.{name}" for path, m in net.named_modules() if isinstance(m, _BatchNorm) for name in ("weight", "bias")
    }
    assert moved == affine
    # What the copy has no use for, moving statistics, is all that it lacks.
    statistics = {name for name in net.state_dict() if name.endswith(("running_mean", "running_var"))}
    assert set(net.state_dict()) - set(before) == statistics


@pytest.mark.parametrize("kind", ["shift", "binary", "multi-label"])
def test_tent_lowers_the_entropy(kind: str) -> None:
    task, run = small(kind), new_run(protocol=replace(SHORT, batch_size=20))
    net, tent = run.network(task.outputs), module("tent")
    own, images = tent.adaptable(net), pixels(task.val)
    seen = [tent.adapt(own, images, task, run).numpy() for _ in range(6)]  # the same batch over and over
    entropies = [entropy_by_hand(logits, kind == "multi-label") for logits in seen]
    assert all(later < sooner for sooner, later in pairwise(entropies))


@pytest.mark.parametrize("kind", ["shift", "multi-label"])
def test_the_entropy_and_its_gradient_are_those_of_the_formula(kind: str) -> None:
    task, entropy = small(kind), module("tent").entropy
    logits = torch.randn(7, task.outputs, generator=torch.Generator().manual_seed(0), requires_grad=True)
    found = entropy(logits, task)
    assert found.item() == pytest.approx(entropy_by_hand(logits.detach().numpy(), kind == "multi-label"), rel=1e-5)
    [slope] = torch.autograd.grad(found, logits)
    step = 1e-4
    for place in [(0, 0), (3, 1), (6, 2)]:
        ends = [logits.detach().double().clone() for _ in range(2)]
        ends[0][place] += step
        ends[1][place] -= step
        up, down = (entropy_by_hand(end.numpy(), kind == "multi-label") for end in ends)
        assert slope[place].item() == pytest.approx((up - down) / (2 * step), rel=1e-3, abs=1e-7)
    sure = torch.full((2, task.outputs), -300.0).index_fill_(1, torch.tensor([0]), 300.0).requires_grad_()
    entropy(sure, task).backward()
    assert sure.grad is not None
    assert sure.grad.isfinite().all()


def test_tent_is_one_step_of_adam_a_batch_over_the_images_in_order() -> None:
    """Against a loop of its own: torch's functional batch_norm on batch statistics, answers from before each step."""
    task, run = small("shift"), new_run(protocol=SHORT)
    net, found = tented(task, run)
    images = pixels(task.val)
    answers = predict(found, task.val)
    own = copy.deepcopy(net).eval().requires_grad_(False)
    norms = [m for m in own.modules() if isinstance(m, _BatchNorm)]
    for norm in norms:
        norm.requires_grad_(True)
        norm.train()  # batch statistics; the moving ones go on, and nothing looks at them
    optimizer = torch.optim.Adam([p for norm in norms for p in norm.parameters()], 1e-3)
    wanted = []
    for batch in (images[:7], images[7:14], images[14:]):  # 20 images in three batches of at most 8
        logits = own(run.prepare(batch))
        probs = torch.softmax(logits, 1)
        optimizer.zero_grad()
        (-(probs * torch.log_softmax(logits, 1)).sum(1).mean()).backward()
        optimizer.step()
        wanted.append(logits.detach())
    assert torch.allclose(answers, torch.cat(wanted), rtol=1e-4, atol=1e-5)
    assert torch.equal(answers[:7], wanted[0])


def test_tent_starts_anew_for_every_split_and_leaves_the_network_alone() -> None:
    task, run = small("shift"), new_run(protocol=SHORT)
    net, found = tented(task, run)
    before = state_digest(net)
    first = predict(found, task.val)
    other = predict(found, task.train)
    assert torch.equal(predict(found, task.val), first)
    assert torch.equal(predict(tented(task, run)[1], task.train), other)
    assert state_digest(net) == before
    assert not any(p.is_inference() for p in net.parameters())


def test_tent_is_given_a_split_whole_whatever_the_batch() -> None:
    task, run = small("shift"), new_run(protocol=SHORT)
    _, found = tented(task, run)
    assert found.whole
    assert strategy("tent").transductive
    assert torch.equal(predict(found, task.val, batch_size=3), predict(found, task.val, batch_size=256))
    turned = predict(found, task.val.take(np.arange(len(task.val))[::-1].copy()))
    assert not torch.allclose(turned.flip(0), predict(found, task.val), rtol=1e-3)  # it is online: order counts


def test_source_images_are_predicted_unadapted() -> None:
    task, run = small("shift"), new_run(protocol=SHORT)
    net, found = tented(task, run)
    plain = run.predictor(net.eval())
    assert torch.equal(predict(for_labelled(found, task.shift), task.val), predict(plain, task.val))
    assert for_second(found, task.shift) is found
    assert not torch.allclose(predict(found, task.val), predict(plain, task.val), rtol=1e-2)


@pytest.mark.parametrize("kind", ["shift", "multi-label"])
def test_only_what_is_sure_counts(kind: str) -> None:
    """Against a loop in plain Python, at a confidence that some pass and some do not."""
    task, loss = small(kind), module("self_training").confident_loss
    logits = 2 * torch.randn(9, task.outputs, generator=torch.Generator().manual_seed(0))
    total, passed = 0.0, 0
    for row in logits.double().numpy():
        if kind == "multi-label":
            for z in row:
                p = max(1 / (1 + np.exp(-z)), 1 / (1 + np.exp(z)))
                total, passed = total - (np.log(p) if p > 0.7 else 0), passed + (p > 0.7)
        else:
            p = np.exp(row).max() / np.exp(row).sum()
            total, passed = total - (np.log(p) if p > 0.7 else 0), passed + (p > 0.7)
    entries = logits.numel() if kind == "multi-label" else len(logits)
    assert 0 < passed < entries
    assert loss(logits, 0.7, task).item() == pytest.approx(total / entries, rel=1e-5)
    unsure = torch.zeros_like(logits, requires_grad=True)
    loss(unsure, 0.7, task).backward()
    assert unsure.grad is not None
    assert not unsure.grad.any()


def test_self_training_labels_in_the_second_half_only(monkeypatch: pytest.MonkeyPatch) -> None:
    task, run = small("shift"), new_run(protocol=replace(SHORT, epochs=4, batch_size=10))
    drawn: list[int] = []
    labels = module("self_training").confident_loss
    monkeypatch.setattr(
        module("self_training"),
        "confident_loss",
        lambda logits, *rest: drawn.append(len(logits)) or labels(logits, *rest),
    )
    chosen = strategy("self_training")
    chosen.fit(task, chosen.defaults(), run)
    assert drawn == [10] * 4  # two epochs of two steps, as many images as labelled ones
    assert run.meter.images_seen == 4 * len(task.train)
    assert len(run.meter.curve) == 4


def test_where_nothing_is_sure_only_the_labelled_images_teach() -> None:
    """The gradient is the labelled images', in a batch with the others."""
    task, run = small("shift"), new_run(protocol=SHORT)
    chosen = strategy("self_training")
    hparams = chosen.defaults() | {"confidence": 1.0}
    net = chosen.build(task, hparams, run)
    net.memo["second"].draw(8)
    second = net.memo["second"].take(8)  # a step of as many images takes them again
    net.memo["labelling"] = True
    images, labels = run.prepare(pixels(task.train)[:8]), task.train.labels[:8]
    found = torch.autograd.grad(chosen.loss(net, images, labels, task, hparams, run), net.head.weight)
    both = net(torch.cat([images, run.prepare(second)]))
    wanted = torch.autograd.grad(functional.cross_entropy(both[:8], labels), net.head.weight)
    assert torch.allclose(found[0], wanted[0], rtol=1e-4, atol=1e-6)


def test_source_only_is_full_finetuning_on_the_source() -> None:
    task = small("shift")
    answers = []
    for name in ("source_only", "full_finetune"):
        chosen = strategy(name)
        answers.append(predict(chosen.fit(task, chosen.defaults(), new_run(protocol=SHORT)), task.val))
    assert torch.equal(*answers)
    blind = replace(task, second=None)  # it has no need of the target at all
    chosen = strategy("source_only")
    assert torch.equal(predict(chosen.fit(blind, chosen.defaults(), new_run(protocol=SHORT)), task.val), answers[0])
    assert chosen.applies(task.info, BACKBONE) is None
    assert "full_finetune" in (chosen.applies(small("binary").info, BACKBONE) or "")


def test_the_list_marks_what_adapts_to_test_images(own_cache: None, tmp_path: Path) -> None:
    marks = {}
    for name in ("tent", "linear_probe"):
        console = Console(width=200, record=True, file=io.StringIO())
        console.print(*listing.strategies([name], tmp_path))
        marks[name] = console.export_text()
    assert "domain adaptation; transductive; Wang et al. 2021" in marks["tent"]
    assert "transductive: its predictor adapts" in marks["tent"]
    assert "transductive" not in marks["linear_probe"]
