"""Notices where a strategy changes in place what it only borrows: images, shared features, the shared backbone.

It would spoil the cells after it, which are given the same ones.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Generic, TypeVar

from torch import Tensor, int64, uint8

T = TypeVar("T")


@dataclass(frozen=True, eq=False)
class Lent(Generic[T]):
    """Something that several fits share, and what its tensors were like when they were made."""

    value: T
    tensors: tuple[Tensor, ...]
    versions: tuple[int, ...]
    sums: tuple[int, ...]

    def changed(self) -> bool:
        """Whether torch knows of a change in place: costs nothing, but misses what is done through `.data` or NumPy."""
        return versions(self.tensors) != self.versions

    def changed_at_all(self) -> bool:
        """Whether the values differ, however that came about: reads all of them."""
        return self.changed() or tuple(map(_sum, self.tensors)) != self.sums


def lend(value: T, tensors: Iterable[Tensor]) -> Lent[T]:
    kept = tuple(tensors)
    return Lent(value, kept, versions(kept), tuple(map(_sum, kept)))


def versions(tensors: Iterable[Tensor]) -> tuple[int, ...]:
    """How often torch has changed each of them in place."""
    return tuple(0 if tensor.is_inference() else tensor._version for tensor in tensors)


def _sum(tensor: Tensor) -> int:
    """Of the bits, as whole numbers that overflow: as fast as memory is."""
    kept = tensor.detach()
    if kept.dim() == 4 and not kept.is_contiguous():
        kept = kept.permute(0, 2, 3, 1)  # channels-last, which would be copied to be laid flat
    flat = kept.reshape(-1).view(uint8)
    whole = len(flat) // 8 * 8
    return int(flat[:whole].view(int64).sum()) + int(flat[whole:].sum())
