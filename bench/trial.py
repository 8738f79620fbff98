"""One set of hyperparameters tried for a cell: a line of its trials file."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from bench.contract import Hparams


@dataclass(frozen=True)
class Trial:
    number: int
    params: dict[str, Any]
    """What Optuna drew."""
    hparams: Hparams
    """What the strategy was given: `params` and what follows from them or is fixed."""
    state: str
    """complete | pruned | diverged."""
    val_auc: float | None
    """Of the returned predictor (pruned: the best epoch's). None where undefined."""
    val_loss: float | None
    curve: list[float | None]
    """val AUC after each epoch, where the strategy reports epochs."""
    losses: list[float]
    """val loss after each epoch."""
    seconds: float
    images_seen: int
