"""The chance in the report's resamples: a hash of a counter, which the page's script can draw as well.

NumPy's generators cannot be followed in a browser at a bearable speed. The n-th number of a stream is
lowbias32(n + 0x9e3779b9 (seed + 1)) in 32-bit arithmetic, an integer hash without measurable bias by C. Wellons
("Prospecting for hash functions", 2018). templates/figures.js holds the same lines.
"""

from __future__ import annotations

import numpy as np

_GOLDEN = 0x9E3779B9


def hashed(start: int, shape: tuple[int, ...], seed: int = 0) -> np.ndarray:
    """Numbers `start`, `start` + 1, ... of the stream of `seed`: uint64 below 2**32, in the order of a C array."""
    first = (start + _GOLDEN * (seed + 1)) % 2**32
    x = np.arange(first, first + int(np.prod(shape)), dtype=np.uint64).astype(np.uint32)
    x ^= x >> 16
    x *= np.uint32(0x7FEB352D)
    x ^= x >> 15
    x *= np.uint32(0x846CA68B)
    x ^= x >> 16
    return x.astype(np.uint64).reshape(shape)


def index_below(counts: np.ndarray, start: int, shape: tuple[int, ...], seed: int = 0) -> np.ndarray:
    """Whole numbers from 0 to `counts` - 1 (0 where that is 0), int64 of `shape`; `counts` broadcasts to it."""
    return ((hashed(start, shape, seed) * counts.astype(np.uint64)) >> np.uint64(32)).astype(np.int64)
