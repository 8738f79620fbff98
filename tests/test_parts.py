"""A batch that does not fit in memory is computed in parts, to the same update."""

from __future__ import annotations

import subprocess
import sys
import warnings
from pathlib import Path

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional

from bench.check import new_run, phantom_task
from bench.contract import Protocol
from bench.finetune import FineTune
from bench.parts import backward
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
