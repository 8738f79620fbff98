"""What is measured on the user's images, in seconds: counts, and how well frozen features of each backbone suit the
labels. Train and val alone are looked at, never test."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import torch

from bench.advice.facts import Facts, imbalance
from bench.advice.transferability import h_score, logme
from bench.best import in_order, margin_of
from bench.computing import chosen
from bench.contract import Backbone, Dataset, Protocol, Split, Task
from bench.errors import DataError
from bench.images import to_device
from bench.labelled import load_split
from bench.probe import fit_heads
from bench.run import Run
from bench.splits import training_subset
from bench.train import val_scores

MOST = {"train": 2000, "val": 1000}
"""Images that are looked at: a share of every class where there are more."""
SCORED = 500
"""Training images that LogME and the H-score are computed on, whose cost grows with the cube of this."""
DECAYS = (0.01, 0.1, 1.0)
"""Weight decays of the probes that are tried, as a cell's trials would."""


@dataclass(frozen=True)
class Measured:
    """Of a dataset at a size."""

    facts: Facts
    counts: tuple[int, ...]
    """Training images of each class or label."""
    channels: int
    logme: Mapping[str, float]
    """By label of the backbone; NaN where it is not defined."""
    h_score: Mapping[str, float]
    sampled: bool
    """Whether the scores are of a part of the images."""


def measure(
    dataset: Dataset, size: int, backbones: Sequence[Backbone], protocol: Protocol, where: torch.device, modality: str
) -> Measured:
    """Look at train and val at `size` pixels, through backbones that can take such images. Raises DataError where a
    class is missing from val, so that no probe has an AUC."""
    info = dataset.info
    whole = {name: load_split(dataset, name, size) for name in ("train", "val")}
    looked = {name: _part(split, MOST[name]) for name, split in whole.items()}
    train, val = (to_device(split, name, where) for name, split in looked.items())
    task = Task(info, size, train, val)
    runs = (Run(backbone, protocol, 0, size, where, chosen(backbone, size, where)) for backbone in backbones)
    scores = {run.backbone.label: _scores(task, run) for run in runs}
    if not np.isfinite([auc for auc, _, _ in scores.values()]).all():
        raise DataError(f"{info.name}: val lacks images of a class, so nothing has an AUC. Add some to val.")
    counts = _counts(whole["train"].labels, len(info.classes))
    facts = Facts(
        dataset=info.name, size=size, images=len(whole["train"]), val_images=len(looked["val"]),
        classes=len(info.classes), kind=info.kind, modality=modality, imbalance=imbalance(counts),
        probe={label: found[0] for label, found in scores.items()},
    )  # fmt: skip
    return Measured(
        facts=facts,
        counts=tuple(counts),
        channels=info.channels,
        logme={label: found[1] for label, found in scores.items()},
        h_score={label: found[2] for label, found in scores.items()},
        sampled=any(len(looked[name]) < len(whole[name]) for name in whole),
    )


def _scores(task: Task, run: Run) -> tuple[float, float, float]:
    """val AUC of a linear probe (the best on val of a few), LogME and H-score on train."""
    train, val = run.features(task.train), run.features(task.val)
    tried = [{"lr": 0.01, "weight_decay": decay} for decay in DECAYS]
    heads = fit_heads(train, val, task, tried, [0] * len(tried), run.protocol)
    found = [val_scores(heads(at, val), task.val, task) for at in range(len(tried))]
    best = in_order(found, margin_of(task, run.protocol))[0]
    labels = task.train.labels.cpu().numpy()
    some = training_subset(labels, min(1.0, SCORED / len(labels)), None, 0)
    features = train.cpu().double().numpy()[some]
    return found[best][0], logme(features, labels[some]), h_score(features, labels[some])


def _part(split: Split, most: int) -> Split:
    """At most about `most` images, each class by its share."""
    if len(split) <= most:
        return split
    index = training_subset(split.labels, most / len(split), None, 0)
    return Split(split.images[index], split.labels[index], split.ids[index])


def _counts(labels: np.ndarray, classes: int) -> list[int]:
    found = labels.sum(axis=0, dtype=np.int64) if labels.ndim == 2 else np.bincount(labels, minlength=classes)
    return [int(count) for count in found]
