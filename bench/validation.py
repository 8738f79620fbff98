"""After which epochs a fit is validated: no more often than its training is worth."""

from __future__ import annotations

import math


def quarter(epochs: int) -> int:
    """The epoch, from 0, at which a quarter of them is over: where the tuner ends hopeless trials."""
    return max(1, math.ceil(epochs / 4)) - 1


def validated(epochs: int, train: int, val: int) -> set[int]:
    """The epochs, from 0, after which `val` images are predicted, where an epoch shows `train` images.

    Every epoch where train is at least as large. With 20 training and 500 validation images, epochs of which each was
    validated would spend nine tenths of the time on val, so it waits until as many images were trained on as val has;
    the first epoch, that at a quarter and the last one always count."""
    wait = math.ceil(val / train)
    return {0, quarter(epochs), epochs - 1, *range(wait - 1, epochs, wait)}
