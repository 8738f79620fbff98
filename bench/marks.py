"""Which images a batch holds, so that what was made of them once need not be made again."""

from __future__ import annotations

from typing import NamedTuple

from torch import Tensor
from torch.utils.weak import WeakTensorKeyDictionary

from bench.lent import versions


class Marked(NamedTuple):
    """The images of a split from `start` up to `stop`."""

    key: str
    """The split's content key."""
    start: int
    stop: int


_marked = WeakTensorKeyDictionary()


def mark(pixels: Tensor, images: Marked) -> Tensor:
    """The same batch, of which is known from now on what it holds, until it is changed in place."""
    _marked[pixels] = (images, versions([pixels]))
    return pixels


def mark_of(pixels: Tensor) -> Marked | None:
    """What a batch holds; None where that is not known, or no longer so: a batch that was drawn in inference mode may
    have been changed unseen."""
    images, unchanged = _marked.get(pixels, (None, None))
    return images if versions([pixels]) == unchanged and not pixels.is_inference() else None
