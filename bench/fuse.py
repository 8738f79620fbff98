"""Ensembles from stored predictions: each is fitted on its members' val predictions, scored once and published as a
row."""

from __future__ import annotations

import json
import time
import zipfile
import zlib
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from rich.console import Console
from rich.progress import track

from bench import ENGINE, evaluate, provenance, registry, store
from bench.contract import Fused, Fusion, Kind
from bench.ensembles import Ensemble, Member
from bench.errors import DataError, Diverged
from bench.fusing import logs
from bench.metrics import probabilities
from bench.plan import Plan

COMMON = (
    "dataset", "size", "fraction", "per_class", "kind", "modality", "target", "second", "selection", "source_size",
    "resize", "epochs", "trials", "data_hash", "n_train", "n_val", "threads", "licence", "noncommercial", "citation",
)  # fmt: skip
"""Columns that an ensemble shares with its members."""
SUMS = ("fit_seconds", "images_seen", "energy_joules", "params_total", "params_trained")
"""Columns that add up over the fits that an ensemble is made of."""

_AGAIN = "Delete it and its .json, and run the same command again."


@dataclass
class Library:
    """What has been read of a results folder: a member is in many ensembles."""

    results: Path
    rows: dict[tuple[str, int], dict[str, Any] | None] = field(default_factory=dict)
    arrays: dict[tuple[str, int], dict[str, np.ndarray]] = field(default_factory=dict)

    def row(self, member: Member) -> dict[str, Any] | None:
        """The member's row; None where it is not finished."""
        key = (member.fingerprint, member.seed)
        if key not in self.rows:
            try:
                self.rows[key] = store.read_row(self.results, *key)
            except FileNotFoundError:
                self.rows[key] = None
        return self.rows[key]

    def predictions(self, member: Member) -> dict[str, np.ndarray]:
        """The member's arrays, as `store.publish` was given them. Raises DataError."""
        key = (member.fingerprint, member.seed)
        if key not in self.arrays:
            self.arrays[key] = read_predictions(self.results, *key)
        return self.arrays[key]


def read_predictions(results: Path, fingerprint: str, seed: int) -> dict[str, np.ndarray]:
    """All arrays of one row's predictions. Raises DataError where they are missing or damaged."""
    path = results / "cells" / f"{fingerprint}-s{seed}.npz"
    try:
        with np.load(path, allow_pickle=False) as file:
            found = dict(file)
    except (OSError, ValueError, EOFError, NotImplementedError, zipfile.BadZipFile, zlib.error) as error:
        raise DataError(f"{path} cannot be read ({error}). {_AGAIN}") from None
    for split in ("val", "test"):
        parts = [found[name] for name in (f"{split}_logits", f"{split}_labels", f"{split}_ids") if name in found]
        if split == "val" and not parts:
            continue  # imported without them
        if len(parts) < 3 or len(set(map(len, parts))) > 1 or not np.isfinite(parts[0]).all():
            raise DataError(f"{path} does not hold predictions of {split}. {_AGAIN}")
    return found


def fuse_missing(plan: Plan, console: Console) -> list[str]:
    """Publish the rows of the plan's ensembles whose members are finished, with progress, and give their statuses. An
    ensemble that lacks a member waits for another run, and says so."""
    library, statuses, waiting = Library(plan.matrix.results), list[str](), list[tuple[Ensemble, Member]]()
    place: object = None
    fusions = {name: registry.load_fusion(name, plan.workspace) for name in {one.fusion for one in plan.unfused}}
    for ensemble in track(
        plan.unfused, "ensembles", console=console, transient=True, disable=not console.is_terminal or not plan.unfused
    ):
        if ensemble.place != place:
            library.arrays.clear()  # no member of one is asked for in another
            place = ensemble.place
        if lacking := [member for member in ensemble.members if library.row(member) is None]:
            waiting.append((ensemble, lacking[0]))
            continue
        row, predictions = _fused(ensemble, library, fusions[ensemble.fusion])
        store.publish(plan.matrix.results, row, predictions)
        statuses.append(row["status"])
        if row["status"] not in ("ok", "skipped"):
            _say(console, f"{ensemble.label}: {row['status']}: {row['reason']}")
    if statuses:
        _say(console, f"{len(statuses)} ensembles of stored predictions: {_counted(statuses)}")
    if waiting:
        ensemble, member = waiting[0]
        _say(console, f"{len(waiting)} ensembles wait for members without a result, such as {ensemble.label} for "
                      f"{member.label}")  # fmt: skip
    return statuses


def _counted(statuses: Sequence[str]) -> str:
    return ", ".join(f"{count} {status}" for status, count in Counter(statuses).items())


def _say(console: Console, text: str) -> None:
    console.print(text, highlight=False, markup=False, soft_wrap=True)


def _fused(ensemble: Ensemble, library: Library, fusion: Fusion) -> tuple[dict[str, Any], dict[str, np.ndarray] | None]:
    """A row and its predictions, if it has any."""
    started, clock = provenance.utc(), time.perf_counter()
    rows = {member: library.row(member) or {} for member in ensemble.members}
    members = [member for member in ensemble.members if rows[member]["status"] == "ok"]
    notes = [
        f"left out: {member.label} ({rows[member]['status']})" for member in ensemble.members if member not in members
    ]
    identity = _identity(ensemble, [rows[member] for member in members or ensemble.members], started)
    outcome: dict[str, Any]
    predictions = None
    if len(members) < 2:
        outcome = {"status": "skipped", "reason": "fewer than two of its members have a result"}
    else:
        try:
            outcome, predictions = _scored(fusion, members, rows, library)
        except Diverged as error:
            outcome = {"status": "diverged", "reason": str(error)}
        except DataError as error:
            outcome = {"status": "failed", "reason": str(error)}
        except Exception as error:  # a fusion may raise anything; the row says what, and the others go on
            outcome = {"status": "failed", "reason": f"{fusion.name} raised {type(error).__name__}: {error}"}
    spent = time.perf_counter() - clock
    finished = {"notes": "; ".join(notes), "fuse_seconds": spent, "finished_utc": provenance.utc()}
    return identity | outcome | finished, predictions


def _identity(ensemble: Ensemble, rows: Sequence[Mapping[str, Any]], started: str) -> dict[str, Any]:
    """The columns that do not depend on how the members are combined."""
    trained = [row for row in rows if row.get("family") != "imported"] or rows
    joined = {name: "; ".join(sorted({str(row[name]) for row in rows if row.get(name)})) or None
              for name in ("device", "precision", "memory_format", "weights")}  # fmt: skip
    return {name: trained[0].get(name) for name in COMMON} | joined | {
        "backbone": ensemble.backbone,
        "strategy": ensemble.strategy,
        "seed": ensemble.seed,
        "family": "ensemble",
        "fusion": ensemble.fusion,
        "over": ensemble.over,
        "transductive": any(bool(row.get("transductive")) for row in rows),
        "pretrained": all(bool(row.get("pretrained")) for row in trained),
        "fingerprint": ensemble.fingerprint,
        "source_hash": ensemble.source_hash,
        "engine": ENGINE,
        "started_utc": started,
        **provenance.code(),
    }  # fmt: skip


def _scored(
    fusion: Fusion, members: Sequence[Member], rows: Mapping[Member, Mapping[str, Any]], library: Library
) -> tuple[dict[str, Any], dict[str, np.ndarray] | None]:
    kind: Kind = rows[members[0]]["kind"]
    found = {member: library.predictions(member) for member in members}
    test, labels, ids = _joined(members, found, "test", kind)
    without = [member.label for member in members if "val_logits" not in found[member]]
    if without and fusion.uses_val:
        return {
            "status": "skipped",
            "reason": f"{without[0]} has no predictions of val, which {fusion.name} needs",
        }, None
    val, val_labels, val_ids = (
        (np.empty((len(members), 0, test.shape[2])), labels[:0], ids[:0])
        if without
        else _joined(members, found, "val", kind)
    )
    if reason := (fusion.applies(val_labels, kind) if fusion.uses_val else None):
        return {"status": "skipped", "reason": reason}, None
    fused = fusion.fit(val.copy(), val_labels.copy(), kind)
    weights = _weights(fused, len(members), fusion.name)
    on_test = _logits(fused.combine(test.copy()), test.shape[1:], kind, "test")
    columns = evaluate.test_columns(on_test, labels, kind) | _costs(members, rows)
    predictions = {"test_logits": on_test, "test_labels": labels, "test_ids": ids}
    if not without:
        on_val = _logits(fused.combine(val) if fused.val is None else fused.val, val.shape[1:], kind, "val")
        columns |= evaluate.val_columns(on_val, val_labels, kind)
        predictions |= {"val_logits": on_val, "val_labels": val_labels, "val_ids": val_ids}
    listed = [
        {"fingerprint": m.fingerprint, "seed": m.seed, "label": m.label, "weight": float(weight)}
        | ({} if m.view is None else {"view": m.view})
        for m, weight in zip(members, weights, strict=True)
    ]
    return columns | {"status": "ok", "reason": "", "members": json.dumps(listed, ensure_ascii=False)}, predictions


def _joined(
    members: Sequence[Member], found: Mapping[Member, Mapping[str, np.ndarray]], split: str, kind: Kind
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Probabilities [M, N, K], labels and ids of the first member's images in its order. Raises DataError where the
    members did not predict the same images, or not with the same labels."""
    first = found[members[0]]
    ids, labels = first[f"{split}_ids"], first[f"{split}_labels"]
    parts = []
    for member in members:
        own = found[member]
        order = _places(ids, own[f"{split}_ids"])
        if order is None:
            raise DataError(f"{member.label} and {members[0].label} did not predict the same {split} images.")
        if not np.array_equal(own[f"{split}_labels"][order], labels):
            raise DataError(f"{member.label} and {members[0].label} have other labels for the same {split} images.")
        if (logits := _of_view(own, split, member))[order].shape != (len(ids), first[f"{split}_logits"].shape[1]):
            raise DataError(f"{member.label} and {members[0].label} do not tell the same classes apart.")
        parts.append(probabilities(logits[order], kind))
    return np.stack(parts), labels, ids


def _of_view(own: Mapping[str, np.ndarray], split: str, member: Member) -> np.ndarray:
    return own[f"{split}_views"][member.view - 1] if member.view else own[f"{split}_logits"]


def _places(wanted: np.ndarray, there: np.ndarray) -> np.ndarray | None:
    """Where each wanted id stands; None where they are not the same ids."""
    if np.array_equal(wanted, there):
        return np.arange(len(wanted))
    order = np.argsort(there)
    if not np.array_equal(there[order], np.sort(wanted)):
        return None
    return order[np.searchsorted(there[order], wanted)]


def _weights(fused: Fused, members: int, name: str) -> np.ndarray:
    weights = np.asarray(fused.weights, dtype=np.float64)
    if weights.shape != (members,) or not np.isclose(weights.sum(), 1) or weights.min() < 0:
        raise ValueError(f"{name} gave weights that are not {members} numbers of at least 0 with sum 1: {weights}")
    return weights


def _logits(probs: np.ndarray, shape: tuple[int, ...], kind: Kind, split: str) -> np.ndarray:
    """Probabilities as logits float32. Raises ValueError on another shape, Diverged on values that are not finite."""
    if np.shape(probs) != shape:
        raise ValueError(f"it gave probabilities of shape {np.shape(probs)} on {split}, not {shape}")
    if not np.isfinite(probs).all():
        raise Diverged(f"it gave non-finite probabilities on {split}")
    return logs(np.asarray(probs, dtype=np.float64), kind).astype(np.float32)


def _costs(members: Sequence[Member], rows: Mapping[Member, Mapping[str, Any]]) -> dict[str, Any]:
    """Sums over the members: a fit counts once, however many of its views there are, and a cell's tuning once, however
    many of its seeds. None where a member's is not known."""
    fits = {(member.fingerprint, member.seed): rows[member] for member in members}
    cells = {member.fingerprint: rows[member] for member in members}
    costs = {name: _sum(row.get(name) for row in fits.values()) for name in SUMS}
    costs |= {name: _sum(row.get(name) for row in cells.values()) for name in ("tune_seconds", "tune_images_seen")}
    return costs | {name: _sum(rows[m].get(name) for m in members) for name in ("predict_ms", "flops_per_image")}


def _sum(values: Iterable[Any]) -> Any:
    known = list(values)
    return None if any(value is None for value in known) else sum(known)
