"""Run one cell, come what may: whatever goes wrong is a row with a reason, and stands in the cell's log."""

from __future__ import annotations

import time
import traceback
from collections.abc import Sequence
from pathlib import Path

import torch

from bench import device, logs, provenance, store
from bench.errors import MedtransferError, StorageError
from bench.plan import Cell
from bench.row import failure, identity
from bench.runner import fit_cell
from bench.session import Session


def run_cell(cell: Cell, seeds: Sequence[int], session: Session) -> list[str]:
    """Run the cell for `seeds` and publish a row each; gives their statuses. Only KeyboardInterrupt, StorageError and
    (with `debug`) unexpected errors come through."""
    started, begun = provenance.utc(), time.perf_counter()
    logs.started(session.results, cell.fingerprint, cell.label, seeds)
    statuses = _run(cell, seeds, session, started)
    seconds = time.perf_counter() - begun
    logs.add(session.results, cell.fingerprint, "finished", statuses=statuses, seconds=seconds)
    return statuses


def give_up(cell: Cell, seeds: Sequence[int], reason: str, results: Path, where: torch.device) -> list[str]:
    """Publish failed rows of a cell whose process is no more; gives their statuses. Raises StorageError."""
    logs.add(results, cell.fingerprint, "given_up", reason=reason)
    for seed in seeds:
        row = identity(cell, where, seed, provenance.utc()) | {"status": "failed", "reason": reason}
        logs.publish(results, row)
    return ["failed"] * len(seeds)


def _run(cell: Cell, seeds: Sequence[int], session: Session, started: str) -> list[str]:
    results = session.results
    there: list[str] = []  # rows that the cell had published when something went wrong
    if cell.error or cell.skip:
        status, reason = ("failed", cell.error) if cell.error else ("skipped", cell.skip)
        row = {"status": status, "reason": reason}
    else:
        try:
            with logs.warnings_of(results, cell.fingerprint):
                return fit_cell(cell, seeds, session, started)
        except StorageError:
            raise  # a row that says so could not be written either
        except (Exception, SystemExit) as error:  # a strategy may raise anything; the others' cells go on
            if session.debug and not isinstance(error, MedtransferError):
                raise
            row = failure(error)
            logs.add(results, cell.fingerprint, "failed", traceback=traceback.format_exc(), **row)
            found = {seed: store.status_of(results, cell.fingerprint, seed) for seed in seeds}
            there = [status for status in found.values() if status is not None]
            seeds = [seed for seed, status in found.items() if status is None]
        finally:
            device.release(session.device)
    for seed in seeds:
        logs.publish(results, identity(cell, session.device, seed, started) | row)
    return [*there, *[row["status"]] * len(seeds)]
