"""What the cells of one process share, and the images of the cell that is run."""

from __future__ import annotations

import logging
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import cast

import numpy as np
import torch

from bench import registry
from bench.contract import Backbone, Dataset, Split, Task
from bench.errors import DataError
from bench.images import Images, at_size, to_device
from bench.labelled import load_split
from bench.lent import Lent, lend
from bench.natural_reference import open_natural
from bench.plan import Cell
from bench.splits import training_subset

log = logging.getLogger(__name__)
Notify = Callable[[str, float], None]
"""What is going on (a trial, an epoch), and the share of the cell that is done."""

LASTING = ("second", "normalisation")
"""Kept whatever cell comes next: small, or with a rule of its own."""


def _silent(text: str, share: float) -> None:
    """Nobody asked."""


@dataclass
class Session:
    """What cells share in one process: the images of the current dataset, frozen networks and features."""

    device: torch.device
    results: Path
    notify: Notify = _silent
    debug: bool = False
    """Let unexpected errors through, with their traceback, instead of making a failed row."""
    memory: dict[object, object] = field(default_factory=dict)
    kept_for: tuple[object, Backbone] | None = None
    """The task and the backbone of the last cell, which what is in `memory` belongs to."""
    loaded: tuple[object, Dataset, Task] | None = None
    borrowed: list[Lent[object]] = field(default_factory=list)
    """The images of the task that is loaded, to see whether a strategy changed them."""
    unreadable: dict[object, str] = field(default_factory=dict)
    """Datasets that could not be read: a download that failed once is not tried again for every cell."""


def load(cell: Cell, session: Session) -> tuple[Dataset, Task]:
    """The cell's task; the images of the last one are kept, since neighbouring cells share them."""
    images = (cell.dataset, cell.data_root, cell.hashes["data_hash"], cell.size, cell.protocol.resize)
    key = (images, cell.amount, cell.split_seed)
    if images in session.unreadable:
        raise DataError(session.unreadable[images])
    _forget_spoiled(session)
    _forget_unshared(session, key, cell.backbone)
    if session.loaded is None or session.loaded[0] != key:
        session.loaded = None
        dataset = registry.open_dataset(cell.dataset, cell.data_root, cell.split_seed, cell.source_size, cell.workspace)
        content = dataset.content_hash(cell.size)
        if content != cell.hashes["data_hash"]:
            raise DataError(f"{cell.dataset}: it has changed since this run was planned. Run the same command again.")
        try:
            splits = {name: load_split(dataset, name, cell.size) for name in ("train", "val")}
        except DataError as error:
            session.unreadable[images] = str(error)
            raise
        chosen = training_subset(splits["train"].labels, cell.amount.fraction, cell.amount.per_class, cell.split_seed)
        train, val = (to_device(split, f"{content}/{name}", session.device) for name, split in splits.items())
        train, val = (at_size(split, cell.size, cell.protocol.resize) for split in (train.take(chosen), val))
        task = Task(dataset.info, cell.size, train, val)
        session.loaded = (key, dataset, task)
        session.borrowed = [lend(None, images.tensors) for images in (task.train, task.val)]
    dataset, task = session.loaded[1:]
    return dataset, replace(task, second=_second(cell, dataset, session))


def _forget_unshared(session: Session, task: object, backbone: Backbone) -> None:
    """Cells of one task and backbone are neighbours: what was kept for those before them, by the harness or by
    strategies, would fill the device in a matrix of many backbones. Of another task the frozen network is the same."""
    if session.kept_for == (task, backbone):
        return
    session.kept_for = (task, backbone)
    for key in list(session.memory):
        if not (isinstance(key, tuple) and (key[0] in LASTING or key[:2] == ("frozen", backbone))):
            del session.memory[key]


def _forget_spoiled(session: Session) -> None:
    """What a strategy changed in place is made anew for the next cell, however it was done."""
    if any(lent.changed_at_all() for lent in session.borrowed):
        log.warning("the cell before this one changed its images in place: they are read again")
        session.loaded = None
        session.borrowed = []
        session.memory.clear()  # features of changed images
    for key, kept in list(session.memory.items()):
        if isinstance(kept, Lent) and kept.changed_at_all():
            what = key[0] if isinstance(key, tuple) else key
            log.warning("the cell before this one changed what cells share in place (%s): it is made anew", what)
            del session.memory[key]


def _second(cell: Cell, dataset: Dataset, session: Session) -> Images | None:
    """The images of the cell's second domain, without labels; None where it has none."""
    if dataset.target is None and not cell.natural:
        return None
    rule = cell.protocol.resize
    key = ("second", cell.natural or (cell.dataset, cell.hashes["data_hash"]), cell.size, rule)
    if key not in session.memory:
        for old in [k for k in session.memory if isinstance(k, tuple) and k[0] == "second"]:
            del session.memory[old]  # one at a time, as of the tasks themselves
        if dataset.target is not None:
            split, content = dataset.target.load("train", cell.size), f"{cell.hashes['data_hash']}/target/train"
        else:
            natural = open_natural(cell.natural, cell.data_root, cell.workspace)
            split, content = natural.load("train", cell.size), f"{cell.hashes['second_hash']}/train"
        unknown = Split(split.images, np.zeros(len(split), dtype=np.int64), split.ids)
        images = at_size(to_device(unknown, content, session.device), cell.size, rule)
        session.memory[key] = lend(images, images.tensors)
    return cast(Lent[Images], session.memory[key]).value
