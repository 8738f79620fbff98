"""A batch that does not fit in memory is computed in parts, to the same update and the same predictions."""

from __future__ import annotations

import subprocess
import sys
import warnings
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional

from bench.averaging import reestimate_norms
from bench.check import new_run, phantom_task
from bench.contract import Protocol, Split
from bench.finetune import FineTune
from bench.images import Images, predict_all, to_device
from bench.lent import lend
from bench.parts import backward, joined
from bench.prediction import Prediction
from bench.run import Run
from tests.small import CHECKOUT


def network() -> nn.Module:
    torch.manual_seed(0)
    return nn.Sequential(nn.Flatten(), nn.Linear(3 * 4 * 4, 8), nn.GELU(), nn.Linear(8, 3))


def gradients(size: int, room: int, parts: int = 1) -> tuple[list[Tensor], float, int]:
    """Of a batch of `size` images where memory takes `room` of them."""
    net = network()
    draw = torch.Generator().manual_seed(1)
    images, labels = torch.randn(size, 3, 4, 4, generator=draw), torch.arange(size) % 3

    def loss_of(some: Tensor, their: Tensor) -> Tensor:
        if len(some) > room:
            raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB.")
        return functional.cross_entropy(net(some), their)

    loss, parts = backward(loss_of, images, labels, torch.optim.SGD(net.parameters()), parts)
    return [p.grad for p in net.parameters() if p.grad is not None], float(loss), parts


@pytest.mark.parametrize(("room", "parts"), [(12, 2), (7, 4), (3, 8)])
@pytest.mark.filterwarnings("ignore:out of memory")
def test_the_parts_add_up_to_the_whole(room: int, parts: int) -> None:
    whole, loss, one = gradients(23, 23)
    assert one == 1
    found, same_loss, number = gradients(23, room)
    assert number == parts
    assert same_loss == pytest.approx(loss, rel=1e-6)
    torch.testing.assert_close(found, whole, rtol=1e-5, atol=1e-7)


@pytest.mark.filterwarnings("ignore:out of memory")
def test_where_not_even_two_images_fit_the_error_comes_through() -> None:
    with pytest.raises(torch.OutOfMemoryError):
        gradients(16, 1)


def test_no_part_of_a_smaller_batch_is_a_single_image() -> None:
    found, _, parts = gradients(5, 3, parts=4)
    whole, _, _ = gradients(5, 5)
    assert parts == 4
    torch.testing.assert_close(found, whole, rtol=1e-5, atol=1e-7)


@pytest.mark.filterwarnings("ignore:out of memory")
def test_what_is_merely_kept_is_let_go_of_before_a_batch_is_halved() -> None:
    kept = ["features", "activations"]

    def loss_of(some: Tensor, their: Tensor) -> Tensor:
        if kept or len(some) > 4:
            raise torch.OutOfMemoryError("CUDA out of memory.")
        return functional.cross_entropy(net(some), their)

    net, images, labels = network(), torch.zeros(8, 3, 4, 4), torch.zeros(8, dtype=torch.int64)
    make_room = lambda: bool(kept) and kept.clear() is None  # noqa: E731
    _, parts = backward(loss_of, images, labels, torch.optim.SGD(net.parameters()), 1, make_room)
    assert (kept, parts) == ([], 2)


@pytest.mark.filterwarnings("ignore:out of memory")
def test_a_batch_is_halved_where_its_loss_fetches_what_was_let_go_of() -> None:
    asked: list[int] = []

    def loss_of(some: Tensor, their: Tensor) -> Tensor:
        if len(some) > 4:
            raise torch.OutOfMemoryError("CUDA out of memory.")
        return functional.cross_entropy(net(some), their)

    def make_room() -> bool:
        assert len(asked) < 9  # it would be asked for ever
        asked.append(1)
        return True

    net, images, labels = network(), torch.zeros(8, 3, 4, 4), torch.zeros(8, dtype=torch.int64)
    _, parts = backward(loss_of, images, labels, torch.optim.SGD(net.parameters()), 1, make_room)
    assert (len(asked), parts) == (1, 2)


def test_a_fit_lets_go_of_what_other_fits_left_but_not_of_the_activations_it_uses() -> None:
    run = new_run()
    used, unused = torch.zeros(1), torch.zeros(1)
    kept: dict[object, object] = {
        ("activations", "a"): lend(used, [used]),
        ("activations", "b"): lend(unused, [unused]),
        ("activations", "c"): lend(None, []),  # they did not fit
        ("features", "a"): lend(unused, [unused]),
        ("frozen", "a"): 1,
        ("embedded", "a"): lend(unused, [unused]),
    }
    run.memory.update(kept)
    assert run.forget(used)
    assert run.memory.keys() == {("activations", "a"), ("activations", "c"), ("frozen", "a")}
    assert not run.forget(used)
    assert run.forget(None)
    assert run.memory.keys() == {("activations", "c"), ("frozen", "a")}


def full_beyond(room: int) -> Callable[[Tensor], Tensor]:
    def compute(images: Tensor) -> Tensor:
        if len(images) > room:
            raise RuntimeError("CUDA error: out of memory")
        return images.float().flatten(1).sum(1)[:, None]

    return compute


@pytest.mark.parametrize(("room", "parts"), [(9, 0), (5, 1), (4, 2), (1, 4)])
def test_predictions_of_a_batch_that_does_not_fit_are_those_of_its_parts(room: int, parts: int) -> None:
    images = torch.arange(9 * 4, dtype=torch.uint8).reshape(9, 1, 2, 2)
    with warnings.catch_warnings(record=True) as told:
        warnings.simplefilter("always")
        assert torch.equal(joined(full_beyond(room), images), full_beyond(9)(images))
    assert len(told) == parts


@pytest.mark.filterwarnings("ignore:out of memory")
def test_where_not_even_one_image_can_be_predicted_the_error_comes_through() -> None:
    with pytest.raises(RuntimeError, match="out of memory"):
        joined(full_beyond(0), torch.zeros(3, 1, 2, 2))


def images_of(count: int) -> Images:
    draw = np.random.default_rng(0)
    pixels = draw.integers(0, 256, (count, 8, 8, 3), dtype=np.uint8)
    split = Split(pixels, np.zeros(count, dtype=np.int64), np.array([str(n) for n in range(count)]))
    return to_device(split, "k", torch.device("cpu"))


@pytest.mark.filterwarnings("ignore:out of memory")
def test_predictors_go_on_in_parts_but_for_one_that_adapts_to_all_images() -> None:
    images = images_of(9)
    [found] = predict_all([full_beyond(2)], images)
    assert torch.equal(found, full_beyond(9)(images.batch(torch.arange(9))[0]))
    with pytest.raises(RuntimeError, match="out of memory"):
        predict_all([Prediction(full_beyond(2), whole=True)], images)


@pytest.mark.filterwarnings("ignore:out of memory")
def test_frozen_features_and_norms_go_on_in_parts(monkeypatch: pytest.MonkeyPatch) -> None:
    task, room = phantom_task("binary"), [10**6]
    run = new_run(protocol=Protocol(epochs=1, batch_size=16))
    prepare = Run.prepare

    def prepared(self: Run, images: Tensor) -> Tensor:
        if len(images) > room[0]:
            raise torch.OutOfMemoryError("CUDA out of memory.")
        return prepare(self, images)

    monkeypatch.setattr(Run, "prepare", prepared)
    pixels = task.train.batch(torch.arange(12))[0]
    whole = run.embed(pixels)
    room[0] = 5
    torch.testing.assert_close(run.embed(pixels.clone()), whole)
    net = run.network(2)
    with pytest.warns(UserWarning, match="BatchNorm's statistics are taken over"):
        reestimate_norms(net, task, run)
    smaller = replace(run, protocol=replace(run.protocol, batch_size=3))
    again = run.network(2)
    reestimate_norms(again, task, smaller)
    for one, other in zip(net.buffers(), again.buffers(), strict=True):
        assert torch.equal(one, other)


def test_another_error_is_not_taken_for_a_lack_of_memory() -> None:
    def loss_of(some: Tensor, their: Tensor) -> Tensor:
        raise RuntimeError("on purpose")

    with warnings.catch_warnings():
        warnings.simplefilter("error")
        with pytest.raises(RuntimeError, match="on purpose"):
            backward(loss_of, torch.zeros(8, 1), torch.zeros(8), torch.optim.SGD(network().parameters()), 1)


def test_a_fit_whose_batches_do_not_fit_goes_on_in_parts_and_says_so() -> None:
    class Large(FineTune):
        name = "large"

        def loss(self, net, images, labels, task, hparams, run):
            if len(images) > 5:
                raise torch.OutOfMemoryError("CUDA out of memory.")
            return super().loss(net, images, labels, task, hparams, run)

    task = phantom_task("binary")
    run = new_run(protocol=Protocol(epochs=1, batch_size=16))
    with pytest.warns(UserWarning, match="in 4 parts"):
        Large().fit(task, {"lr": 0.01}, run)
    assert run.meter.micro_batch == 4
    assert run.meter.images_seen == len(task.train)


REAL = """
import resource, sys, torch
from pathlib import Path
from bench.check import new_run, phantom_task
from bench.contract import Protocol
from bench.finetune import FineTune
from tests.test_parts import network
from bench.parts import backward
torch.set_num_threads(1)
net = torch.nn.Sequential(torch.nn.Conv2d(1, 64, 3, padding=1), torch.nn.ReLU(), torch.nn.Flatten(),
                          torch.nn.AdaptiveAvgPool1d(8), torch.nn.Linear(8, 2))
images, labels = torch.randn(64, 1, 128, 128), torch.arange(64) % 2
loss_of = lambda some, their: torch.nn.functional.cross_entropy(net(some), their)
used = int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()
resource.setrlimit(resource.RLIMIT_AS, (used + 400 * 2**20,) * 2)  # a batch takes 256 MiB a layer
loss, parts = backward(loss_of, images, labels, torch.optim.SGD(net.parameters()), 1)
print(parts, float(loss))
"""


@pytest.mark.skipif(not Path("/proc/self/statm").exists(), reason="only Linux limits a process's memory so")
def test_with_memory_that_is_really_too_small() -> None:
    done = subprocess.run([sys.executable, "-c", REAL], cwd=CHECKOUT, capture_output=True, text=True, check=True)
    parts, loss = done.stdout.split()
    assert int(parts) > 1
    assert 0 < float(loss) < 2
    assert "out of memory" in done.stderr
