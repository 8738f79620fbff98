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
    val_margin: float | None = None
    """Of shift tasks: how far below this val AUC another counts as equal (bench.best)."""
    entropy: float | None = None
    """This and the next two, of shift tasks: label-free scores on the target's val images (bench.selection)."""
    information: float | None = None
    snd: float | None = None
    target_val_auc: float | None = None
    """The oracle's: with the labels of the target's val. Chooses nothing that a leaderboard shows."""
    target_test_auc: float | None = None
    """What the trial scores on the target's test. Chooses nothing at all: it shows what a choice would have given."""
