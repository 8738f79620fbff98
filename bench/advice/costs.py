"""What running a cell would take here: what the reference says a strategy costs beside full fine-tuning, times what
full fine-tuning of the backbone takes on this device."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence

import numpy as np
import torch

from bench.advice.facts import Facts
from bench.advice.knowledge import CONTROL, Knowledge
from bench.config import Matrix
from bench.contract import Backbone
from bench.errors import UsageError
from bench.estimate import FORWARD_SHARE, calibrate
from bench.validation import validated

UNITS = {"s": 1.0, "m": 60.0, "h": 3600.0}


def parse_budget(text: str) -> float:
    """ "90s", "10min", "10 minutes" or "2h" in seconds. Raises UsageError."""
    found = re.fullmatch(r"([0-9]{1,6}(?:\.[0-9]{1,3})?) ?(s(?:econds?)?|min(?:utes?)?|h(?:ours?)?)", text.strip())
    if not found or not float(found[1]):
        raise UsageError(f"--budget {text}: must be a time above 0 with its unit, such as 90s, 10min or 2h.")
    return float(found[1]) * UNITS[found[2][0]]


def relative(knowledge: Knowledge) -> dict[tuple[str, str], float]:
    """(strategy, backbone) -> seconds of its tuning and fit in those of full fine-tuning of the same backbone on the
    same task, median over tasks; over all backbones where one has none of its own. Raises UsageError where the
    knowledge has no full fine-tuning."""
    cells = knowledge.cells[knowledge.cells["seconds"] > 0]
    control = cells[cells["strategy"] == CONTROL].set_index(["task", "backbone"])["seconds"]
    if control.empty:
        raise UsageError(f"the reference has no {CONTROL}, which costs are measured by. Give a folder that has it.")
    beside = cells.join(control.rename("control"), on=["task", "backbone"]).dropna(subset=["control"])
    ratio = np.log(beside["seconds"] / beside["control"])
    own = ratio.groupby([beside["strategy"], beside["backbone"]]).median()
    common = ratio.groupby(beside["strategy"]).median()
    return {
        pair: float(np.exp(own.get(pair, common.get(pair[0], 0.0)))) for pair in knowledge.candidates
    }  # a strategy of which no cost is known counts as full fine-tuning


def seconds(
    backbones: Sequence[Backbone], shares: Mapping[tuple[str, str], float], facts: Facts, matrix: Matrix,
    where: torch.device,
) -> dict[tuple[str, str], float]:  # fmt: skip
    """(strategy, backbone) -> expected seconds on this device of a whole cell of the matrix, its trials and fits."""
    protocol = matrix.protocol
    fits = (protocol.trials if protocol.trials > 1 else 0) + matrix.seeds
    asked = len(validated(protocol.epochs, facts.images, facts.val_images))
    shown = (facts.images * protocol.epochs + FORWARD_SHARE * facts.val_images * asked) * fits
    paces = {one.label: calibrate(one, facts.size, protocol, where) for one in backbones}
    whole = {label: pace.image * shown + pace.fit * fits for label, pace in paces.items()}
    return {pair: whole[pair[1]] * share for pair, share in shares.items() if pair[1] in whole}
