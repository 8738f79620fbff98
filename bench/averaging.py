"""Averages of weights, and the BatchNorm statistics that belong to them."""

from __future__ import annotations

import warnings
from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm

from bench.contract import Task
from bench.device import out_of_memory, release
from bench.images import Images
from bench.parts import SMALLEST
from bench.run import Run
from bench.train import steps_of

State = dict[str, Tensor]
"""A network's state dict: parameters and buffers."""


def snapshot(net: nn.Module) -> State:
    """The network's state as it is now, in tensors of its own."""
    return {name: tensor.detach().clone() for name, tensor in net.state_dict().items()}


def interpolate(theta0: State, theta1: State, a: float) -> State:
    """(1 - a) theta0 + a theta1 in tensors of its own, at 0 and 1 the ends bit for bit. What is not floating (BatchNorm
    counts its batches) has nothing in between and is the nearer end's."""
    return {
        name: torch.lerp(start, theta1[name], a)
        if start.is_floating_point()
        else (start if a < 0.5 else theta1[name]).clone()
        for name, start in theta0.items()
    }


def mean(states: Sequence[State]) -> State:
    """The arithmetic mean of one or more states. It is a running mean, so that equal states give themselves bit for
    bit."""
    average = states[0]
    for count, state in enumerate(states[1:], 2):
        average = interpolate(average, state, 1 / count)
    return average


def reestimate_norms(net: nn.Module, task: Task, run: Run) -> None:
    """Give every BatchNorm the statistics of the training images, as `reestimate_norms_on` does."""
    reestimate_norms_on(net, task.train, run)


@torch.no_grad()
def reestimate_norms_on(net: nn.Module, images: Images, run: Run) -> None:
    """Give every BatchNorm the statistics of the images under the weights that the network has now, and leave it in
    eval mode: the mean over batches of each batch's mean and variance, as `torch.optim.swa_utils.update_bn` has it.
    That function itself would put the whole network in train mode, dropout and stochastic depth included. Without
    BatchNorm nothing happens."""
    norms = [module for module in net.modules() if isinstance(module, _BatchNorm)]
    if not norms:
        return
    net.eval()
    momenta = [norm.momentum for norm in norms]
    for norm in norms:
        norm.momentum = None  # torch's way to ask for a cumulative average
        norm.train()
    # Shuffled, since files may come sorted by class and a batch's variance knows nothing of other batches; in equal
    # shares, since every batch counts the same. Smaller batches where these do not fit in memory.
    order = torch.randperm(len(images), generator=torch.Generator().manual_seed(run.seed))
    forward = run.predictor(net)
    batches = steps_of(len(order), run.protocol)
    while True:
        for norm in norms:
            norm.reset_running_stats()
        try:
            for index in order.tensor_split(batches):
                forward(images.batch(index.to(run.device))[0])
            break
        except RuntimeError as error:
            if not out_of_memory(error) or 2 * batches > len(order) // SMALLEST:
                raise
        batches *= 2  # and all over again: some norms had seen the batch that did not fit
        warnings.warn(f"out of memory: BatchNorm's statistics are taken over {batches} batches", stacklevel=2)
        release(run.device)
    for norm, momentum in zip(norms, momenta, strict=True):
        norm.momentum = momentum
    net.eval()
