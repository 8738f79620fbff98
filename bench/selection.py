"""What the trials of a shift cell are chosen by, where no label of the target may be used.

Source val, the default, sees nothing of the target. The label-free scores see the logits on the target's val images.
The oracle sees their labels too: it is stored to show what the other choices cost, and never chooses what a leaderboard
shows. All are stored with every trial, so that choices are compared on the same trials.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from bench.best import in_order


@dataclass(frozen=True)
class Selection:
    """One way of choosing among trials."""

    column: str
    """What of a trial it looks at."""
    says: str
    """In the report: "chosen by ..."."""
    higher: bool = True
    """Whether the highest is the best."""
    labels: bool = False
    """Whether it uses labels of the target, which nobody has who needs adaptation."""

    def key(self, trial: Any) -> tuple[bool, float]:
        """Sorts trials best first; a missing score comes last."""
        value = trial.get(self.column) if isinstance(trial, Mapping) else getattr(trial, self.column)
        if value is None or not math.isfinite(value):
            return True, 0.0
        return False, -value if self.higher else value


SELECTIONS = {
    "source_val": Selection("val_auc", "AUC on the source's val"),
    "entropy": Selection("entropy", "entropy of the predictions on the target's val", higher=False),
    "information": Selection("information", "information that the predictions on the target's val carry"),
    "snd": Selection("snd", "soft neighbourhood density on the target's val"),
    "oracle": Selection("target_val_auc", "AUC on the target's val, with labels", labels=True),
}


def chosen(trials: Sequence[Mapping[str, Any]], selection: str) -> Mapping[str, Any]:
    """The trial that the harness takes, of a trials file's lines. Among those equal by a label-free score, and by
    source val itself, bench.best decides. Raises ValueError where none is complete."""
    complete = [trial for trial in trials if trial["state"] == "complete"]
    scores = [(_known(trial.get("val_auc")), _known(trial.get("val_loss"))) for trial in complete]
    # The margin was measured at each trial's own AUC: the highest one's counts.
    margins = {auc: _known(trial.get("val_margin")) for (auc, _), trial in zip(scores, complete, strict=True)}
    by_val = [complete[at] for at in in_order(scores, lambda auc: margins.get(auc) or 0.0)]
    if not by_val:
        raise ValueError("no trial is complete")
    return by_val[0] if selection == "source_val" else min(by_val, key=SELECTIONS[selection].key)


def _known(value: Any) -> float | None:
    return value if value is not None and math.isfinite(value) else None
