"""Which backbones of the knowledge can be loaded here; nothing is downloaded."""

from __future__ import annotations

from pathlib import Path

from bench.advice.knowledge import Knowledge
from bench.backbones import resolve
from bench.contract import Backbone
from bench.errors import MedtransferError
from bench.hub import cached
from bench.weights_origin import timm_config


def available(knowledge: Knowledge) -> tuple[list[Backbone], list[str]]:
    """The backbones that are here with the weights that the knowledge is about, and why the others are left out."""
    found, notes = [], []
    for label in knowledge.labels:
        backbone = knowledge.backbones.get(label)
        if why := _obstacle(backbone, knowledge.weights.get(label, "random")):
            notes.append(f"{label} is left out: {why}")
        elif backbone is not None:
            found.append(backbone)
    return found, notes


def _obstacle(backbone: Backbone | None, wanted: str) -> str:
    if backbone is None:
        return "the reference does not say which network and file it is (no run.json)"
    try:
        if backbone.weights == "hub" and not cached(timm_config(backbone)):
            return "its weights are not on this machine (medtransfer fetch gets them)"
        kind, _, path = backbone.weights.partition(":")
        if kind == "file" and not Path(path).expanduser().exists():  # a path of whoever ran the reference
            return f"its weights are not on this machine (the reference read {path})"
        if resolve(backbone).hash != wanted:
            return f"{backbone.weights} holds other weights than the reference was made with"
    except MedtransferError as error:
        return str(error)
    return ""
