"""Rows, trials and predictions on disk. A row's file appears whole or not at all, and its presence means done."""

from __future__ import annotations

import contextlib
import io
import json
import math
import os
import re
import tempfile
import time
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from bench.cache import whole_file
from bench.errors import DataError, StorageError, brief
from bench.trial import Trial, parsed

PLANNED = "planned.json"
"""Fingerprints in the order in which commands last asked for them."""
RUN = "run.json"
FAILED = ".failed.json"
"""Ending of the rows of failed cells, which a rerun tries again."""
_synced: dict[Path, float] = {}
"""The trials file that was last seen on disk, and when."""
HALF_WRITTEN = 3600
"""Seconds after which a file that is still half written has nobody who writes it."""
ROW = re.compile(r"(.+)-s([0-9]+)\.json")
"""The names of the rows that need not be run again: fingerprint and seed."""
ANY_ROW = re.compile(r"(.+)-s([0-9]+)(?:\.failed)?\.json")


def publish(results: Path, row: Mapping[str, Any], predictions: Mapping[str, np.ndarray] | None = None) -> None:
    """Write one row (one cell x seed). Predictions (`val_logits`, `test_logits` float32 [N, K], `val_labels`, ..,
    `val_ids`, ..) go to disk before the row that speaks of them."""
    stem = results / "cells" / f"{row['fingerprint']}-s{row['seed']}"
    if predictions is not None:
        buffer = io.BytesIO()
        np.savez_compressed(buffer, **predictions)  # type: ignore[arg-type]
        write(stem.with_name(stem.name + ".npz"), buffer.getvalue())
    failed = row["status"] in ("failed", "oom")
    text = json.dumps({key: plain(value) for key, value in row.items()}, indent=1, allow_nan=False)
    write(stem.with_name(stem.name + (FAILED if failed else ".json")), text.encode())
    if not failed:
        stem.with_name(stem.name + FAILED).unlink(missing_ok=True)


def sweep(results: Path) -> None:
    """Delete what killed commands left half written. Not what is younger than an hour: another shard may be writing.
    Raises StorageError."""
    for folder in (results, results / "cells", results / "examples"):
        with storing(folder), contextlib.suppress(FileNotFoundError):
            parts = [
                entry for entry in os.scandir(folder) if entry.name.startswith(".") and entry.name.endswith(".part")
            ]
            now = _now(folder) if parts else 0.0
            for entry in parts:
                with contextlib.suppress(FileNotFoundError):  # it has been written, or another shard swept it
                    if now - entry.stat().st_mtime > HALF_WRITTEN:
                        os.unlink(entry)


def _now(folder: Path) -> float:
    """The time of a file that is made there now: by the clock of the server, not of this machine. It stays empty, since
    the disk may be full until the folder is swept."""
    with tempfile.NamedTemporaryFile(dir=folder, prefix=".", suffix=".part") as file:
        return os.stat(file.name).st_mtime


def finished(results: Path, asked: Iterable[str] = ()) -> set[tuple[str, int]]:
    """(fingerprint, seed) of every row that need not be run again. Of the fingerprints in `asked` the end of each file
    is looked at: one that was cut off (by a copy that broke off, say; no run does it) is run again."""
    looked_at = set(asked)
    return {(name, seed) for name, seed in _named(results, ROW) if name not in looked_at or _whole(results, name, seed)}


def _whole(results: Path, fingerprint: str, seed: int) -> bool:
    """Whether a row's file ends as a row does: to parse a hundred thousand takes too long."""
    with open(results / "cells" / f"{fingerprint}-s{seed}.json", "rb", buffering=0) as file:
        size = file.seek(0, os.SEEK_END)
        file.seek(max(0, size - 8))
        return file.read().rstrip().endswith(b"}")


def tried(results: Path) -> set[tuple[str, int]]:
    """(fingerprint, seed) of every row, failed ones included."""
    return _named(results, ANY_ROW)


def _named(results: Path, pattern: re.Pattern[str]) -> set[tuple[str, int]]:
    """Raises StorageError where the results folder is none."""
    done = set()
    if results.exists() and not results.is_dir():
        raise StorageError(f"{results}: a file, not a results folder. Name another folder with --results.")
    with contextlib.suppress(FileNotFoundError):
        for entry in os.scandir(results / "cells"):
            if row := pattern.fullmatch(entry.name):  # any other file is somebody else's
                done.add((row[1], int(row[2])))
    return done


def read_row(results: Path, fingerprint: str, seed: int, ending: str = ".json") -> dict[str, Any]:
    """One finished row, or with the ending FAILED one that a rerun tries again. Raises FileNotFoundError, and DataError
    where the file does not hold one."""
    path = results / "cells" / f"{fingerprint}-s{seed}{ending}"
    try:
        row = json.loads(path.read_bytes())
    except (ValueError, RecursionError) as error:
        raise DataError(f"{path}: damaged ({brief(error)}). Delete it; its cell is then run again.") from error
    if not isinstance(row, dict) or not isinstance(row.get("status"), str):
        raise DataError(f"{path}: not a row. Delete it; its cell is then run again.")
    return row


def status_of(results: Path, fingerprint: str, seed: int) -> str | None:
    """The status of a row that need not be run again; None where there is none."""
    try:
        return str(read_row(results, fingerprint, seed)["status"])
    except FileNotFoundError:
        return None


def any_lost(results: Path, done: Iterable[tuple[str, int]]) -> bool:
    """Whether one of these rows (fingerprint, seed), which need not be run again, has no result all the same: what
    diverged would diverge again. A damaged one is for the report to name."""
    for fingerprint, seed in done:
        with contextlib.suppress(DataError):
            if status_of(results, fingerprint, seed) not in ("ok", "skipped", None):
                return True
    return False


def record_trials(results: Path, fingerprint: str, trials: Sequence[Trial]) -> None:
    """Append trials to the cell's file, in one write, and see it on disk; trials that take less than a second are seen
    there together, so that a power cut costs at most that. A line torn by a kill is cut off first."""
    path = _trials_path(results, fingerprint)
    lines = "".join(json.dumps({k: plain(v) for k, v in vars(t).items()}) + "\n" for t in trials)
    with storing(path), open(path, "a+b") as file:
        file.seek(0)
        whole = file.read().rpartition(b"\n")
        file.truncate(len(whole[0]) + len(whole[1]))
        file.write(lines.encode())
        file.flush()
        if time.monotonic() - _synced.get(path, -math.inf) > 1:
            os.fsync(file.fileno())
            _synced.clear()  # one cell at a time
            _synced[path] = time.monotonic()


def read_trials(results: Path, fingerprint: str) -> list[Trial]:
    """The cell's trials so far. A last line without its end, torn by a kill, does not count: its trial is run again."""
    path = _trials_path(results, fingerprint)
    if not path.exists():
        return []
    *whole, _ = path.read_bytes().split(b"\n")
    try:
        return [parsed(line) for line in whole]
    except ValueError as error:
        raise DataError(
            f"{path}: not a trials file of this version ({error}). Delete it; its cell is then tuned anew."
        ) from None


def strip_path(results: Path, dataset: str, strategy: str) -> Path:
    """The picture of what a strategy's augmentation makes of a dataset's images."""
    name = re.sub(r"[^\w.-]+", "_", f"{dataset}_{strategy}")[-100:]
    # A file's name has 255 bytes at most, and it is written under a longer one first.
    return results / "examples" / (name.encode()[-200:].decode(errors="ignore") + ".jpg")


def planned(results: Path) -> list[str]:
    """Fingerprints, those that were asked for last at the end; of a file that holds none, none: rows can do without."""
    try:
        found = json.loads((results / PLANNED).read_bytes())
    except (OSError, ValueError, RecursionError):
        return []
    return [name for name in found if isinstance(name, str)] if isinstance(found, list) else []


def record_planned(results: Path, fingerprints: Iterable[str]) -> None:
    """Say what the folder is asked for now: of two versions of a cell it is the one that is shown, though the other one
    may have finished later. Raises StorageError."""
    asked = dict.fromkeys(fingerprints)
    before = [name for name in planned(results) if name not in asked]
    write(results / PLANNED, json.dumps([*before, *asked]).encode())


def write_run(results: Path, facts: Mapping[str, Any]) -> None:
    """`run.json`: what was asked for, for the report."""
    write(results / RUN, json.dumps(facts, indent=1, default=str).encode())


def read_run(results: Path) -> dict[str, Any]:
    """What the last command wrote there; of a file that holds nothing of the kind, nothing."""
    try:
        found = json.loads((results / RUN).read_bytes())
    except (OSError, ValueError, RecursionError):
        return {}
    return found if isinstance(found, dict) else {}


def write(path: Path, content: bytes) -> None:
    """All of it or nothing. Raises StorageError."""
    with storing(path), whole_file(path) as temporary:
        temporary.write_bytes(content)


@contextlib.contextmanager
def storing(path: Path) -> Iterator[None]:
    """Around writing to a file of a results folder, whose own folder is made if need be. Raises StorageError where the
    disk is full, the folder read-only, or the like."""
    try:
        if not path.parent.is_dir():
            path.parent.mkdir(parents=True, exist_ok=True)
        yield
    except OSError as error:
        raise StorageError(
            f"{path}: cannot be written ({error.strerror or error}). Free disk space or name another folder with "
            "--results, then run the same command again: what is finished is kept."
        ) from error


def _trials_path(results: Path, fingerprint: str) -> Path:
    return results / "cells" / f"{fingerprint}.trials.jsonl"


def plain(value: Any) -> Any:
    """JSON has no NaN: an undefined score is null."""
    if isinstance(value, np.generic):
        value = value.item()
    if isinstance(value, float) and not math.isfinite(value):
        return None
    if isinstance(value, list | tuple):
        return [plain(v) for v in value]
    return value
