"""The labels of a shift: what its two domains have in common, and how the labels of either become the shift's."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from bench.contract import Info, Kind
from bench.errors import DataError

Relabel = Callable[[np.ndarray], np.ndarray]


def label_space(
    name: str, source: Info, target: Info
) -> tuple[Kind, tuple[str, ...], Relabel, Relabel, tuple[str, ...]]:
    """Kind and classes of the shift, how the labels of either side become its own, and notes. Raises DataError."""
    if source.kind == target.kind:
        apart = [f'"{c}" ({side.name} only)' for side, other in ((source, target), (target, source))
                 for c in side.classes if c not in other.classes]  # fmt: skip
        if apart:
            raise DataError(f"{name}: not in both domains: {', '.join(apart)}. Give both the same classes.")
        if source.kind == "ordinal" and source.classes != target.classes:
            raise DataError(f"{name}: the grades of the domains are in different orders. Bring them to one.")
        return source.kind, source.classes, same, _reordered(target, source.classes), ()
    for binary, many in ((source, target), (target, source)):
        shared = set(binary.classes) & set(many.classes)
        if (binary.kind, many.kind) == ("binary", "multi-label") and len(shared) == 1:
            label = shared.pop()
            views = {binary.name: same, many.name: _one_label(many, binary.classes, label)}
            other = binary.classes[1 - binary.classes.index(label)]
            notes = (f'{many.name}: its label "{label}" only; all images without it, whatever else they show, count '
                     f'as "{other}"',)  # fmt: skip
            return "binary", binary.classes, views[source.name], views[target.name], notes
    raise DataError(f"{name}: {source.name} is {source.kind}, {target.name} is {target.kind}. Name sets of one kind.")


def same(labels: np.ndarray) -> np.ndarray:
    """Labels that are the shift's already."""
    return labels


def _reordered(info: Info, classes: tuple[str, ...]) -> Relabel:
    """Labels of a dataset -> labels in another order of its classes."""
    if info.kind == "multi-label":
        columns = [info.classes.index(each) for each in classes]
        return lambda labels: labels[:, columns]
    place = np.array([classes.index(each) for each in info.classes], dtype=np.int64)
    return lambda labels: place[labels]


def _one_label(info: Info, classes: tuple[str, ...], label: str) -> Relabel:
    """Labels [N, K] -> [N] of two classes, one of which is the label."""
    column, positive = info.classes.index(label), classes.index(label)
    return lambda labels: np.where(labels[:, column] > 0, positive, 1 - positive).astype(np.int64)
