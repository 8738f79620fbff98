"""Which entries of an uneven study are compared, and on which blocks: the largest comparison that its results allow.

A study grows unevenly: some strategies on all networks, others on two, cheap ones with more data as well. What is
compared needs results of all in all blocks, and whoever asks for more entries gets fewer blocks. The choice must not
depend on blocks that few entries have, or a cheap sweep of one strategy would push all others out.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

MIN_SHARE = 0.5
"""Further entries are taken in as long as at least this share of the blocks remains: an entry that lacks a few of them
is compared on the others, and one that lacks most would cost the others too much."""


def comparable(there: np.ndarray, controls: Sequence[int] = ()) -> tuple[np.ndarray, np.ndarray]:
    """bool [E, B], whether an entry has a result in a block -> bool [E] and [B]: the entries that are compared, and the
    blocks in which all of them have a result. A single entry that has results is compared with nobody, on all of its
    blocks; of several of which no two share a block none is compared.

    Entries are added one by one, each time the one that costs the fewest blocks. Of the sets on this way the one with
    the most comparisons counts: of every two entries in every block. Where one of the `controls`, positions in order
    of preference, has a result in most of those blocks, the way starts from it and comparisons with it are counted:
    many entries on few blocks then do not outweigh fewer on many.
    """
    known = np.flatnonzero(there.any(axis=1))
    entries = known if len(known) == 1 else _largest(there)
    if len(known) > 1 and len(entries):
        blocks = there[entries].all(axis=0)
        control = next((at for at in controls if there[at, blocks].mean() >= MIN_SHARE), None)
        entries = entries if control is None else _largest(there, control)
    blocks = np.logical_and(there[entries].all(axis=0), len(entries) > 0)
    return np.isin(np.arange(len(there)), entries), blocks


def _largest(there: np.ndarray, control: int | None = None) -> np.ndarray:
    """Positions of the entries of the largest comparison, none where no two share a block."""
    rivals = there @ np.maximum(there.sum(axis=0) - 1, 0)
    left = np.argsort(-rivals, kind="stable").tolist()
    taken, sizes, shared = list[int](), list[int](), np.ones(there.shape[1], dtype=bool)
    while left:
        kept = (there[left] & shared).sum(axis=1)
        at = int(kept.argmax()) if taken else left.index(control) if control is not None else 0
        if not kept[at]:
            break
        taken.append(left.pop(at))
        sizes.append(int(kept[at]))
        shared &= there[taken[-1]]
    blocks, others = np.array(sizes, dtype=int), np.arange(len(sizes))
    comparisons = blocks * (others if control is not None else others * (others + 1) // 2)
    if not comparisons.any():
        return np.array([], dtype=int)
    last = np.flatnonzero(blocks >= MIN_SHARE * blocks[comparisons.argmax()])[-1]
    return np.array(taken[: last + 1])
