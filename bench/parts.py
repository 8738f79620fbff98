"""A batch that does not fit in memory as a whole: the gradients of its parts, added up, or what a network makes of
them, joined."""

from __future__ import annotations

import warnings
from collections.abc import Callable

import torch
from torch import Tensor

from bench.device import out_of_memory, release

SMALLEST = 2
"""Images in a part: BatchNorm has no variance over one."""


def backward(
    loss_of: Callable[[Tensor, Tensor], Tensor],
    images: Tensor,
    labels: Tensor,
    optimizer: torch.optim.Optimizer,
    parts: int,
    make_room: Callable[[], bool] = lambda: False,
) -> tuple[Tensor, int]:
    """The mean loss of a batch (float32 scalar, detached), whose gradient is left in the optimizer's parameters; and
    the number of parts that it was computed in: `parts`, doubled until one fits in memory. `loss_of` gives a part's
    mean loss. The update is the whole batch's, but for BatchNorm, which sees one part at a time, and for losses that
    compare images with each other. `make_room` is asked first, and once, since the loss may fetch it again: it lets go
    of what can be done without, and says whether there was any. Raises torch's error where not even two images fit."""
    asked = False
    while True:
        count = max(1, min(parts, len(images) // SMALLEST))
        try:
            if count == 1:
                return _whole(loss_of, images, labels, optimizer), parts
            return _added_up(loss_of, images, labels, optimizer, count), parts
        except RuntimeError as error:
            if not out_of_memory(error) or (images.is_cuda and torch.cuda.is_current_stream_capturing()):
                raise  # while a step is recorded nothing can be given back
            room, asked = not asked and make_room(), True
            if not room and 2 * count > len(images) // SMALLEST:
                raise
        # Down here, the error's traceback no longer holds on to the tensors of what failed.
        if not room:
            parts = 2 * count
            text = f"out of memory with {len(images)} images: going on with a batch in {parts} parts"
            warnings.warn(text, stacklevel=2)
        release(images.device)


def joined(compute: Callable[[Tensor], Tensor], images: Tensor) -> Tensor:
    """What `compute` gives for each of the images (any [N, ..] on their device -> [N, ..]), of as many of them at once
    as fit in memory: all, half, and so on. Raises torch's error where not even one fits."""
    parts = 1
    while True:
        try:
            if parts == 1:
                return compute(images)
            return torch.cat([compute(some) for some in images.tensor_split(parts)])
        except RuntimeError as error:
            if not out_of_memory(error) or parts >= len(images):
                raise
        parts = min(2 * parts, len(images))
        warnings.warn(f"out of memory with {len(images)} images: they are predicted in {parts} parts", stacklevel=2)
        release(images.device)


def _whole(
    loss_of: Callable[[Tensor, Tensor], Tensor], images: Tensor, labels: Tensor, optimizer: torch.optim.Optimizer
) -> Tensor:
    loss = loss_of(images, labels)
    optimizer.zero_grad(set_to_none=True)
    loss.backward()
    return loss.detach()


def _added_up(
    loss_of: Callable[[Tensor, Tensor], Tensor],
    images: Tensor,
    labels: Tensor,
    optimizer: torch.optim.Optimizer,
    count: int,
) -> Tensor:
    total = torch.zeros((), device=images.device)
    optimizer.zero_grad(set_to_none=True)
    for some, their in zip(images.tensor_split(count), labels.tensor_split(count), strict=True):
        loss = loss_of(some, their) * (len(some) / len(images))
        loss.backward()
        total += loss.detach()
    return total
