"""The columns of a row that do not depend on how the fit went, and what is said of a fit that failed."""

from __future__ import annotations

from typing import Any

import torch

from bench import ENGINE, device, provenance
from bench.contract import Task
from bench.errors import Diverged, MedtransferError, brief, place, printable
from bench.plan import Cell
from bench.splits import too_few

SMALL_VAL = 100
"""Below this many val images, choosing among trials is mostly noise, and the row says so."""


def identity(cell: Cell, where: torch.device, seed: int, started: str) -> dict[str, Any]:
    """The columns that do not depend on how the fit went."""
    info = cell.info
    return {
        "dataset": cell.dataset,
        "backbone": cell.backbone.label,
        "strategy": cell.strategy,
        "size": cell.size,
        "fraction": cell.amount.fraction,
        "per_class": cell.amount.per_class,
        "seed": seed,
        "kind": info.kind if info else None,
        "modality": info.modality if info else None,
        "family": cell.family,
        "target": (info.target or None) if info else None,
        "second": cell.natural or None,
        "transductive": cell.transductive,
        "selection": cell.protocol.selection if info and info.target else None,
        "source_size": cell.pixels,
        "resize": cell.protocol.resize,
        "weights": cell.backbone.weights.partition(":")[0],
        "pretrained": cell.pretrained and cell.backbone.weights != "random",
        "notes": "; ".join(cell.notes),
        "epochs": cell.protocol.epochs,
        "trials": cell.protocol.trials,
        "fingerprint": cell.fingerprint,
        "engine": ENGINE,
        **cell.hashes,
        **provenance.code(),
        "device": device.describe(where),
        "precision": None,
        "memory_format": None,
        "threads": torch.get_num_threads(),
        "started_utc": started,
        "finished_utc": provenance.utc(),
        "licence": info.licence if info else None,
        "noncommercial": info.noncommercial if info else None,
        "citation": info.citation if info else None,
    }


def failure(error: BaseException) -> dict[str, Any]:
    """Status and reason of what went wrong, in a line that names the thing."""
    if isinstance(error, Diverged):
        return {"status": "diverged", "reason": str(error)}
    if device.out_of_memory(error):
        return {"status": "oom", "reason": f"out of memory: {brief(error)} Try a smaller batch_size."}
    if isinstance(error, MedtransferError):
        return {"status": "failed", "reason": str(error)}
    said = printable(" ".join(str(error).split()))
    text = f"{type(error).__name__}: {said} ({place(error)}); rerun with --debug for the traceback"
    return {"status": "failed", "reason": text}


def notes_on(task: Task, per_class: int | None) -> tuple[str, ...]:
    """What a reader must know of the images that were trained on, of which `per_class` of each class were asked for,
    and of the split that hyperparameters were chosen on."""
    few = too_few(task.train.labels.cpu().numpy(), task.info.classes, per_class) if per_class else ""
    found: tuple[str, ...] = (few,) if few else ()
    found += (f"val has {len(task.val)} images",) if len(task.val) < SMALL_VAL else ()
    labels = task.val.labels
    positives = labels.sum(0) if labels.ndim == 2 else torch.bincount(labels, minlength=task.outputs)
    if not positives.all() or (labels.ndim == 2 and (positives == len(labels)).any()):
        found += ("val lacks a class, so there is no val AUC: selected on val loss",)
    return found
