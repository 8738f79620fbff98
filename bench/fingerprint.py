"""What a cell is known by: a hash of all that determines its result."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping

from bench import ENGINE
from bench.choices import Choice
from bench.config import Matrix
from bench.contract import Dataset


def fingerprint(matrix: Matrix, choice: Choice, pixels: int, hashes: Mapping[str, str], dataset: Dataset | None) -> str:
    """The first 20 hex digits of the sha256 of the canonical JSON of all that determines a cell's result."""
    # Not `asdict`, which copies: there may be a hundred thousand cells. The weights' hash counts, not where they were.
    # Names do, since a row says them: two datasets of equal content, or training from scratch beside two files of
    # weights for one network, are two rows.
    network = {key: value for key, value in vars(choice.backbone).items() if key not in ("weights", "name")}
    protocol = dict(vars(matrix.protocol))
    if not (dataset and dataset.target):
        del protocol["selection"]  # there is one way only
    if not matrix.protocol.views:
        del protocol["views"]  # none is what there was before there were any
    facts = {
        "engine": ENGINE,
        "backbone": network | {"label": choice.backbone.label},
        "dataset": choice.dataset,
        "strategy": choice.strategy,
        "settings": matrix.settings.get(choice.strategy, {}),
        "size": choice.size,
        "source_size": pixels,
        "amount": vars(choice.amount),
        "split_seed": matrix.split_seed,
        "protocol": protocol,
        **hashes,
    }
    # What has changed for these cells alone since ENGINE was raised last: to be deleted when it is raised next.
    if matrix.protocol.patience:
        facts["patience"] = "two looks"
    if dataset and dataset.info.kind == "multi-label" and choice.amount.fraction < 1:
        facts["amount"] = vars(choice.amount) | {"of": "all images"}
    # What cannot be read has no hash to tell it from others: its failed rows would take each other's place.
    unknown = {"weights_hash": choice.backbone.weights, "data_hash": choice.dataset, "second_hash": matrix.natural}
    facts |= {key: f"unknown {unknown[key]}" for key, value in hashes.items() if value == "unknown"}
    return hashlib.sha256(json.dumps(facts, sort_keys=True, separators=(",", ":")).encode()).hexdigest()[:20]
