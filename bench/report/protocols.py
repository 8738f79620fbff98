"""In which ways our rows were made differently from published figures, in words."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import pandas as pd

from bench.report import planned

FEWER_BLANKS = ("organcmnist", "organsmnist")


class Network(NamedTuple):
    """What stands behind a backbone's label."""

    name: str
    """timm's, without a tag; empty where it is cut, or is no network of timm's own."""
    stem: str
    halves: bool
    """Whether images are normalised by mean and standard deviation .5; True where that is not known."""


Recipes = Sequence[tuple[set[planned.Key], Mapping[str, Any]]]
"""The cells of each run, and the protocol that they were run with."""


def unlike_v2(part: pd.DataFrame, network: Network, protocol: Mapping[str, Any]) -> tuple[str, ...]:
    """Of one cell's rows, from ResNets of MedMNIST v2."""
    first, size = part.iloc[0], part["size"].iloc[0]
    said = []
    if first["source_size"] != 28:
        images = f"{first['source_size']}-pixel images" if pd.notna(first["source_size"]) else "images of unknown size"
        said.append(f"made from {images}; theirs are the 28-pixel ones{', enlarged' if size != 28 else ''}")
    elif size != 28 and first["resize"] != "nearest":
        said.append(f"enlarged by {first['resize']}, theirs by nearest neighbour")
    if (size == 28) != (network.stem == "cifar"):
        said.append(
            "a usual first convolution, theirs 3 × 3 with stride 1" if size == 28 else "another first convolution"
        )
    if not network.halves:
        said.append("normalised otherwise, theirs by mean and standard deviation .5")
    if part["pretrained"].fillna(False).any():
        said.append("pretrained weights, theirs random")
    if first["strategy"] not in ("scratch", "full_finetune"):
        said.append(f"trained by {first['strategy']}, theirs plainly")
    said += _recipe_differs(
        part, protocol, lr=1e-3, epochs=100, optimizer="adam", schedule="step", batch_size=128, weight_decay=0,
        warmup=0, clip=0, label_smoothing=0, tolerance=0,
    )  # fmt: skip
    if first["dataset"] in FEWER_BLANKS:
        said.append("MedMNIST 2.2.4 removed blank images, so the test set may not be exactly theirs")
    return tuple(said)


def unlike_plus(part: pd.DataFrame, network: Network, protocol: Mapping[str, Any]) -> tuple[str, ...]:
    """Of the rows of one backbone and strategy on all sets, from networks of MedMNIST+."""
    first = part.iloc[0]
    said = []
    if (part["source_size"] != part["size"]).fillna(True).any():
        said.append("images of another size, resized; theirs are native")
    if first["size"] != 224:
        said.append("theirs were padded with zeros to 224 pixels")
    if network.stem:
        said.append("another first convolution")
    if first["strategy"] == "linear_probe":
        said.append("nothing of the backbone changes, theirs went on updating BatchNorm statistics")
    said += _recipe_differs(part, protocol, lr=1e-4, epochs=100, optimizer="adamw", schedule="cosine", batch_size=64)
    said.append("theirs stopped early on validation loss")
    return tuple(said)


def _recipe_differs(
    part: pd.DataFrame, protocol: Mapping[str, Any], lr: float, epochs: int, **theirs: Any
) -> list[str]:
    said = []
    if (part["epochs"] != epochs).fillna(True).any():
        said.append(f"{_values(part['epochs'])} epochs, theirs {epochs}")
    if (part["trials"] > 1).fillna(True).any():
        said.append(f"hyperparameters tuned in {_values(part['trials'])} trials, theirs fixed (learning rate {lr:g})")
    elif (part["lr"] != lr).any():
        said.append(f"learning rate {_values(part['lr'])}, theirs {lr:g}")
    if not protocol:
        return [*said, "optimiser, schedule and the like of ours are not recorded"]
    return said + [
        f"{_WORDS[k]} {protocol.get(k, v)}, theirs {v}" for k, v in theirs.items() if protocol.get(k, v) != v
    ]


_WORDS = {
    "optimizer": "optimiser",
    "schedule": "schedule",
    "batch_size": "batch size",
    "weight_decay": "weight decay",
    "warmup": "warm-up",
    "clip": "largest gradient norm",
    "label_smoothing": "label smoothing",
    "tolerance": "epoch chosen with a tolerance of",
}


def _values(column: pd.Series) -> str:
    values = sorted(column.dropna().unique())
    return " or ".join(f"{value:g}" for value in values) or "unknown"


def recipe_of(part: pd.DataFrame, recipes: Recipes) -> Mapping[str, Any]:
    """The protocol of the run that planned these cells with their epochs and trials; empty where that is not clear: an
    earlier command of the same folder may have run them in another way."""
    wanted = set(planned.keys(part))
    found = [
        protocol
        for cells, protocol in recipes
        if wanted <= cells and all((part[name] == protocol.get(name)).all() for name in ("epochs", "trials"))
    ]
    return found[0] if found and all(one == found[0] for one in found) else {}


def recipe(run: Mapping[str, Any]) -> Mapping[str, Any]:
    """The protocol in a run's matrix; empty where run.json does not hold it."""
    matrix = run.get("matrix")
    protocol = matrix.get("protocol") if isinstance(matrix, dict) else None
    return protocol if isinstance(protocol, dict) else {}
