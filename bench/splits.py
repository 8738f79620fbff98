"""Splits and training subsets, drawn by a seed: groups stay whole, classes keep their shares, small draws nest in
larger ones."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np

from bench.errors import UsageError

RATIOS: Mapping[str, float] = {"train": 0.7, "val": 0.1, "test": 0.2}
TRAIN_VAL: Mapping[str, float] = {"train": 0.9, "val": 0.1}


def make_splits(
    labels: np.ndarray,
    seed: int,
    groups: Sequence[str] | np.ndarray | None = None,
    ratios: Mapping[str, float] = RATIOS,
) -> dict[str, np.ndarray]:
    """Ascending int64 indices for each split in `ratios`; together they are all of 0..N-1, and no group is in two of
    them.

    `labels` are int [N], or 0/1 [N, K] for multi-label; `groups` [N] names what may not be torn apart (patients).
    Iterative stratification (Sechidis et al. 2011) over groups, rarest class first, larger groups first: each goes
    where its class is most wanted. A class that few groups have reaches train first, then the other splits in the
    order of their ratios.
    """
    members = _members(labels)
    ids = np.arange(len(members)) if groups is None else np.unique(np.asarray(groups), return_inverse=True)[1]
    counts = np.zeros((ids.max() + 1, members.shape[1]))
    np.add.at(counts, ids, members)
    shares = np.array(list(ratios.values())) / sum(ratios.values())
    wanted = shares[:, None] * counts.sum(0)
    split_of = np.full(len(counts), -1)
    order = np.random.default_rng(seed).permutation(len(counts))
    order = order[np.argsort(-counts[order].sum(1), kind="stable")]
    for label in np.argsort((counts > 0).sum(0), kind="stable"):
        having = order[counts[order, label] > 0]
        lacking = set(range(len(shares))) - set(split_of[having].tolist())
        waiting = having[split_of[having] < 0]
        for left, group in zip(range(len(waiting), 0, -1), waiting.tolist(), strict=True):
            among = lacking if left <= len(lacking) else range(len(shares))
            # Ties between splits of equal want go to the one that wants most images of any class.
            chosen = max(among, key=lambda split: (wanted[split, label], wanted[split].sum()))
            lacking.discard(chosen)
            split_of[group] = chosen
            wanted[chosen] -= counts[group]
    return {name: np.flatnonzero(split_of[ids] == index) for index, name in enumerate(ratios)}


def training_subset(labels: np.ndarray, fraction: float, per_class: int | None, seed: int) -> np.ndarray:
    """Ascending int64 indices of the training images used: per class the first n of one seeded permutation, so that
    smaller draws are subsets of larger ones. n is `fraction` of the class (at least 1), and at most `per_class`.

    For multi-label (0/1 [N, K]) a fraction is of all images, with one more for each label, and "no label", that it has
    none of: drawn label by label, images with many would be drawn more often. `per_class` does draw so, and takes the
    union: of most labels it has more than n. Raises UsageError.
    """
    if not 0 < fraction <= 1:
        raise UsageError(f"fraction = {fraction}: must be above 0 and at most 1.")
    if per_class is not None and per_class < 1:
        raise UsageError(f"per_class = {per_class}: must be at least 1.")
    if fraction == 1 and per_class is None:
        return np.arange(len(labels))
    members = _members(labels)
    taken = np.zeros(len(labels), dtype=bool)
    if np.ndim(labels) == 2 and per_class is None:
        order = np.random.default_rng(seed).permutation(len(labels))
        taken[order[: max(1, round(fraction * len(labels)))]] = True
        for having in members[order].T:
            if having.any() and not taken[order[having]].any():
                taken[order[having.argmax()]] = True
        return np.flatnonzero(taken)
    for label in range(members.shape[1]):
        having = np.flatnonzero(members[:, label])
        count = min(max(1, round(fraction * len(having))), per_class or len(having))
        taken[np.random.default_rng([seed, label]).permutation(having)[:count]] = True
    return np.flatnonzero(taken)


def too_few(labels: np.ndarray, classes: Sequence[str], per_class: int) -> str:
    """What to say where a class has fewer than `per_class` training images, so that all of them are taken; else "". The
    class with the fewest is named."""
    counts = _members(labels)[:, : len(classes)].sum(0)
    fewest = int(counts.argmin())
    if counts[fewest] >= per_class:
        return ""
    return f'"{classes[fewest]}" has {counts[fewest]} training images: {per_class} a class is all of them'


def one_left(labels: np.ndarray, classes: Sequence[str], fraction: float, seed: int) -> str:
    """What to say where this share of a class, or label, is one training image though it has more; else "". The largest
    such class is named."""
    drawn = labels[training_subset(labels, fraction, None, seed)]
    counts, left = (_members(part)[:, : len(classes)].sum(0) for part in (labels, drawn))
    found = [(int(n), name) for n, few, name in zip(counts, left, classes, strict=False) if few == 1 < n]
    return 'fraction {:g} leaves 1 of {} training images of "{}"'.format(fraction, *max(found)) if found else ""


def _members(labels: np.ndarray) -> np.ndarray:
    """bool [N, K]: which image has which class, or which label with "no label" as the last column."""
    labels = np.asarray(labels)
    if labels.ndim == 1:
        return labels[:, None] == np.arange(labels.max() + 1)
    return np.column_stack([labels > 0, ~(labels > 0).any(1)])
