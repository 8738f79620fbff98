"""`logs/<fingerprint>.jsonl` of a results folder: what happened to a cell, an event a line.

An event has a time (`utc`), a name (`event`) and facts. `started`: label, seeds, process and machine. `epoch` and
`trial`: how training goes. `warning`: what a library or the harness said. `row`: a row that is on disk. `failed`: the
reason and the traceback. `given_up`: the cell's process died or took too long. `finished`: the statuses of the rows.
"""

from __future__ import annotations

import json
import logging
import os
import platform
import warnings
from collections import deque
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np

from bench import provenance, store

recent: deque[str] = deque(maxlen=20)
"""The last events of this process, for a crash report."""


@lru_cache(maxsize=64)
def path_of(results: Path, fingerprint: str) -> Path:
    return results / "logs" / f"{fingerprint}.jsonl"


def add(results: Path, fingerprint: str, event: str, **facts: Any) -> None:
    """Append an event of a cell, JSON values only. Raises StorageError."""
    told = {key: store.plain(value) for key, value in facts.items()}
    line = json.dumps({"utc": provenance.utc(), "event": event, **told})
    recent.append(f"{fingerprint} {line}")
    path = path_of(results, fingerprint)
    with store.storing(path), open(path, "ab", buffering=0) as file:
        file.write(line.encode() + b"\n")  # in one write: a kill between two would tear the line


def publish(results: Path, row: Mapping[str, Any], predictions: Mapping[str, np.ndarray] | None = None) -> None:
    """Publish a row, then say so. Raises StorageError."""
    store.publish(results, row, predictions)
    told = {key: row.get(key) for key in ("seed", "status", "reason", "val_auc", "test_auc")}
    add(results, row["fingerprint"], "row", **told)


def started(results: Path, fingerprint: str, label: str, seeds: Sequence[int]) -> None:
    """The first event of an attempt. A line torn by a power cut is ended first. Raises StorageError."""
    path = path_of(results, fingerprint)
    with store.storing(path), open(path, "a+b") as file:
        if file.tell():
            file.seek(-1, os.SEEK_END)
            if file.read() != b"\n":
                file.write(b"\n")
    add(results, fingerprint, "started", cell=label, seeds=list(seeds), process=os.getpid(), machine=platform.node())


@contextmanager
def warnings_of(results: Path, fingerprint: str) -> Iterator[None]:
    """Warnings that are given or logged meanwhile are events, too; they are shown as they would be."""
    show = warnings.showwarning

    class Recorder(logging.Handler):
        def emit(self, record: logging.LogRecord) -> None:
            add(results, fingerprint, "warning", text=record.getMessage(), at=f"{record.filename}:{record.lineno}")

    def record(message: Any, category: Any, filename: str, lineno: int, file: Any = None, line: Any = None) -> None:
        text = f"{category.__name__}: {message}"
        add(results, fingerprint, "warning", text=text, at=f"{Path(filename).name}:{lineno}")
        show(message, category, filename, lineno, file, line)

    recorder = Recorder(logging.WARNING)
    logging.getLogger().addHandler(recorder)
    warnings.showwarning = record
    try:
        yield
    finally:
        warnings.showwarning = show
        logging.getLogger().removeHandler(recorder)
