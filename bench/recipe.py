"""What `medtransfer pretrain` is told: a recipe file (TOML) -> a frozen Recipe."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any

from bench.config import backbone_of, only_known, read_toml, table_of
from bench.contract import Backbone
from bench.errors import UsageError
from bench.rules import LIMITS, TEXT, Rule, checked, number

RULES: dict[str, Rule] = {
    "images": TEXT,
    "epochs": number(int, 1),
    "size": number(int, 8),
    "batch_size": number(int, 2),
    "lr": number(float, 0),
    "weight_decay": number(float, 0),
    "label_smoothing": number(float, 0, 1),
    "area": number(float, 0, 1),
    "jitter": number(float, 0, 1),
    "distill": number(float, 0),
    "teacher_size": number(int, 8),
    "seed": number(int, 0),
    "device": LIMITS["device"],
    "out": TEXT,
}


@dataclass(frozen=True)
class Recipe:
    """How the networks of a recipe file are pretrained, each alone, all alike."""

    images: str
    """npz:PATH or folder:PATH (bench/natural.py)."""
    backbones: tuple[Backbone, ...]
    """What is trained, from random weights; a backbone's `name` becomes its file's."""
    teachers: tuple[Backbone, ...] = ()
    """Pretrained networks whose features are learnt as well."""
    epochs: int = 30
    size: int = 64
    """Side in pixels of the random crops that are trained on."""
    batch_size: int = 128
    lr: float = 2e-3
    """AdamW's peak; 5 % warm-up and a cosine to zero."""
    weight_decay: float = 0.05
    label_smoothing: float = 0.1
    area: float = 0.35
    """The smallest share of an image that a crop shows."""
    jitter: float = 0.3
    distill: float = 4.0
    """Weight of the distance to the teachers' features against the class loss."""
    teacher_size: int = 96
    """Side in pixels at which the teachers see the whole images, once."""
    seed: int = 0
    device: str = "auto"
    out: str = "weights"
    """Folder for weights, logs and checkpoints."""


def load_recipe(path: Path, overrides: Mapping[str, Any]) -> Recipe:
    """The recipe in a TOML file: a table [pretrain], a [[backbone]] for each network, a [[teacher]] for each teacher.
    `overrides` holds [pretrain] keys; None leaves the file's. Raises UsageError."""
    document = read_toml(path)
    only_known(document, ("pretrain", "backbone", "teacher"), f"{path}:")
    table = dict(table_of(document.get("pretrain", {}), "[pretrain]", path))
    only_known(table, RULES, f"{path}: [pretrain]")
    table |= {key: value for key, value in overrides.items() if value is not None}
    values = {key: checked(RULES[key], value, f"{path}: {key}") for key, value in table.items()}
    backbones, teachers = (_networks(document, key, path) for key in ("backbone", "teacher"))
    if not backbones or "images" not in values:
        what = "images" if backbones else "[[backbone]]"
        raise UsageError(f"{path}: the recipe has no {what}. Valid keys: {', '.join(RULES)}.")
    for backbone in backbones:
        if not backbone.name or backbone.weights != "random":
            raise UsageError(f'{path}: [[backbone]] {backbone.model}: needs a name and weights = "random".')
        if not re.fullmatch(r"\w[\w.+-]{0,99}", backbone.name):
            raise UsageError(
                f'{path}: [[backbone]] name = "{backbone.name}": becomes the name of files, so it must be letters, '
                "digits, _ . + and -."
            )
    return Recipe(backbones=backbones, teachers=teachers, **values)


def training(recipe: Recipe) -> dict[str, Any]:
    """All that determines the trained weights but images and networks, which have hashes: JSON values."""
    named = {f.name: getattr(recipe, f.name) for f in fields(recipe)}
    return {key: named[key] for key in RULES if key not in ("images", "device", "out")}


def _networks(document: Mapping[str, Any], key: str, path: Path) -> tuple[Backbone, ...]:
    tables = document.get(key, [])
    if not isinstance(tables, list):
        raise UsageError(f"{path}: [{key}] must be [[{key}]], once for each.")
    return tuple(backbone_of(table, path) for table in tables)
