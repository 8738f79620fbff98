"""Rows on disk -> one tidy table, whose columns are documented in results/README.md."""

from __future__ import annotations

import json
import math
import re
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import pandas as pd

from bench.cache import whole_file
from bench.errors import UsageError, brief, printable
from bench.report.members import members
from bench.store import planned
from bench.trial import problem

CELL = ["dataset", "backbone", "strategy", "size", "fraction", "per_class"]
IDENTITY = [*CELL, "seed"]
MADE_FROM = {"source_hash": "source of the strategy", "weights_hash": "weights", "data_hash": "images or split"}
"""Columns of what a row was made from, in words."""
REQUIRED = ["dataset", "backbone", "strategy", "size", "fraction", "seed", "status"]

_TEXT, _INT, _FLOAT, _BOOL = "string", "Int64", "float64", "boolean"
_GROUPS = [
    (_TEXT, "dataset backbone strategy"),
    (_INT, "size"),
    (_FLOAT, "fraction"),
    (_INT, "per_class seed"),
    (_TEXT, "kind modality family fusion over members target second"),
    (_BOOL, "transductive"),
    (_TEXT, "selection"),
    (_INT, "source_size"),
    (_TEXT, "resize weights"),
    (_BOOL, "pretrained"),
    (_TEXT, "status reason notes"),
    (_FLOAT, "lr"),
    (_TEXT, "hparams"),
    (_INT, "epochs trials"),
    (_FLOAT, "val_auc val_acc test_auc test_auc_lo test_auc_hi test_acc test_balanced_acc test_macro_f1 test_kappa"),
    (_FLOAT, "test_ap test_ece test_brier test_nll"),
    (_TEXT, "test_recall"),
    (_FLOAT, "source_auc pad_before pad_after"),
    (_INT, "n_train n_val n_test views"),
    (_FLOAT, "tune_seconds fit_seconds fuse_seconds cell_seconds network_seconds predict_ms"),
    (_INT, "images_seen tune_images_seen"),
    (_FLOAT, "peak_memory_mb"),
    (_INT, "micro_batch params_total params_trained flops_per_image"),
    (_FLOAT, "energy_joules"),
    (_TEXT, "fingerprint"),
    (_INT, "engine"),
    (_TEXT, "git_commit"),
    (_BOOL, "git_dirty"),
    (_TEXT, "source_hash weights_hash data_hash second_hash versions device precision memory_format"),
    (_INT, "threads"),
    (_TEXT, "started_utc finished_utc licence"),
    (_BOOL, "noncommercial"),
    (_TEXT, "citation curve disc_acc"),
]
COLUMNS: dict[str, str] = {name: dtype for dtype, names in _GROUPS for name in names.split()}
"""Name -> pandas dtype of every documented column, in file order."""


def read_rows(folder: Path) -> pd.DataFrame:
    """Every row in `folder`/cells, stale ones included, with the documented columns first and any others after them.
    Of a folder that was published without its cells, the rows of its table, rows.parquet.

    `.attrs["warnings"]` is a list of str: each unreadable file and each value of the wrong type, which becomes missing.
    Where planned.json says which version of a cell was asked for last, the column `superseded` marks the others.
    Raises UsageError where the folder holds neither, or the table cannot be read.
    """
    if not (folder / "cells").is_dir():
        if (folder / "rows.parquet").is_file():
            return _published(folder / "rows.parquet")
        raise UsageError(f'No results in "{folder}": it has no "cells". Give a folder that `medtransfer run` wrote.')
    rows, warnings = [], []
    for path in sorted((folder / "cells").glob("*.json")):
        try:
            row = json.loads(path.read_bytes())
        except (ValueError, OSError, RecursionError) as error:
            fix = "Delete it; its cell is then run again."
            warnings.append(printable(f"{path.name} cannot be read and is left out: {error}. {fix}"))
            continue
        problem = _problem(row)
        if problem:
            warnings.append(printable(f"{path.name} is left out: {problem}"))
            continue
        file = path.name
        rows.append({printable(name): _checked(name, value, file, warnings) for name, value in row.items()})
    frame, asked = _typed(rows, warnings), planned(folder)
    return frame.assign(superseded=_superseded(frame, asked)) if asked else frame


def read_trials(folder: Path) -> pd.DataFrame:
    """Every tuning trial in `folder`/cells: fingerprint, number, state, val_auc, seconds, images_seen, ... and then
    whatever else its lines hold.

    A torn last line is a trial that was being written when the run was stopped: it never counted and is dropped. Any
    other broken line is in `.attrs["warnings"]`.
    """
    trials, warnings = [], []
    for path in sorted((folder / "cells").glob("*.trials.jsonl")):
        try:
            lines = path.read_bytes().split(b"\n")
        except OSError as error:
            warnings.append(printable(f"{path.name} cannot be read: {error.strerror}"))
            continue
        for number, line in enumerate(lines):
            try:
                if line.strip():
                    trials.append(_trial(line) | {"fingerprint": path.name.removesuffix(".trials.jsonl")})
            except (ValueError, RecursionError) as error:
                if number < len(lines) - 1:
                    text = f"{path.name} line {number + 1} cannot be read and is left out: {error}"
                    warnings.append(printable(text))
    columns = ["fingerprint", "number", "hparams", "state", "val_auc", "val_loss", "curve", "seconds", "images_seen"]
    frame = pd.DataFrame(trials)
    frame = frame.reindex(columns=[*columns, *sorted(set(frame.columns) - set(columns))])
    frame.attrs["warnings"] = warnings
    return frame


def current(rows: pd.DataFrame) -> pd.DataFrame:
    """The rows to be shown, sorted by identity: of each cell only its latest version.

    A cell that was edited and rerun has rows under two fingerprints; only those of the fingerprint that its folder was
    last asked for are current (where that is not known, or in several folders: that finished last), for all seeds,
    because seeds of two versions are no sample of either. A row that is there twice (in
    merged folders) counts once. An ensemble is current where all rows that it was made of are, and have a result.
    `.attrs["stale"]` is the number of rows dropped as superseded, added to what it was before.
    """
    old = rows.get("superseded", pd.Series(False, rows.index)).fillna(False).astype(bool)
    rows = _with_attrs(rows.drop(columns="superseded", errors="ignore"), rows, 0)
    if rows.empty:
        return rows
    finished = pd.to_datetime(rows["finished_utc"], utc=True, format="ISO8601", errors="coerce")
    # Seconds since 1970; a row without a time is older than every other.
    age = (finished - pd.Timestamp(0, tz="UTC")).dt.total_seconds().fillna(-math.inf)
    ordered = rows.assign(_age=age, _old=old).sort_values(
        ["_old", "_age", "fingerprint"], ascending=[False, True, True], kind="stable", na_position="first"
    )
    latest = ordered.groupby(CELL, dropna=False)["fingerprint"].transform("last")
    kept = ordered[(ordered["fingerprint"] == latest).fillna(False) | (ordered["fingerprint"].isna() & latest.isna())]
    stale = len(ordered) - len(kept)
    kept = kept.drop_duplicates(IDENTITY, keep="last").drop(columns=["_age", "_old"])
    outdated = _outdated(kept)
    stale += int(outdated.sum())
    kept = kept[~outdated].sort_values(IDENTITY, kind="stable", na_position="first").reset_index(drop=True)
    return _with_attrs(kept, rows, stale)


def apart(rows: pd.DataFrame) -> tuple[pd.DataFrame, pd.DataFrame, pd.DataFrame]:
    """The rows of networks, which rankings and averages stand on, those of ensembles made of them, and those of
    predictions made elsewhere, which no fair protocol has tuned."""
    made = rows["fusion"].notna()
    theirs = (rows["family"] == "imported").fillna(False) & ~made
    parts = (part.reset_index(drop=True) for part in (rows[~made & ~theirs], rows[made], rows[theirs]))
    networks, ensembles, imported = (_with_attrs(part, rows, 0) for part in parts)
    return networks, ensembles, imported


def compact(folder: Path) -> pd.DataFrame:
    """Write the current rows of `folder` to rows.parquet and rows.csv in it, each whole or not at all; returns them."""
    rows = current(read_rows(folder))
    bare = rows.copy()
    bare.attrs = {}
    with whole_file(folder / "rows.parquet") as path:
        bare.to_parquet(path, index=False)
    write_csv(bare, folder / "rows.csv")
    return rows


FORMULA = ("=", "+", "-", "@", "\t", "\n", "＝", "＋", "－", "＠")
"""What a spreadsheet takes for the beginning of a formula, full-width forms included."""


def write_csv(frame: pd.DataFrame, path: Path) -> None:
    """All of the frame to the file `path`, or nothing. Text that a spreadsheet would run as a formula gets an
    apostrophe before it, as a spreadsheet writes text; numbers are left alone. A carriage return, which readers take
    for the end of a line but pandas leaves unquoted, becomes a new line."""
    text = [name for name, dtype in frame.dtypes.items() if dtype == "object" or isinstance(dtype, pd.StringDtype)]
    safe = frame.assign(**{name: frame[name].map(_harmless, na_action="ignore") for name in text})
    with whole_file(path) as temporary:
        safe.rename(columns=_harmless).to_csv(temporary, index=False, lineterminator="\n", encoding="utf-8")


def _harmless(value: Any) -> Any:
    if not isinstance(value, str):
        return value
    text = value.replace("\r\n", "\n").replace("\r", "\n")
    return f"'{text}" if text.startswith(FORMULA) else text


def ok(rows: pd.DataFrame) -> pd.DataFrame:
    """The rows that have a result: status ok and a defined test AUC."""
    return rows[(rows["status"] == "ok").fillna(False) & rows["test_auc"].notna()]


TAG = " (transductive)"
"""What the name of a strategy that `saw_test` is marked with wherever it stands beside others."""


def saw_test(rows: pd.DataFrame) -> pd.Series:
    """bool: rows of a transductive strategy, which adapts to the unlabelled test images themselves, or of an ensemble
    with one among its members."""
    return rows["transductive"].fillna(False).astype(bool)


def _published(path: Path) -> pd.DataFrame:
    """The rows of a table that stands alone, checked as those of single files are: it may be somebody else's."""
    try:
        table = pd.read_parquet(path).astype(object)
    except Exception as error:  # what a damaged file raises depends on where it is damaged
        raise UsageError(f"{path}: cannot be read ({brief(error)}). Copy it again.") from error
    warnings: list[str] = []
    # Column by column and each value once: a hundred thousand rows have few different ones.
    columns = {
        printable(str(name)): _each(str(name), table[name].where(table[name].notna(), None), path.name, warnings)
        for name in table
    }
    rows = []
    for number, values in enumerate(zip(*columns.values(), strict=True)):
        row = dict(zip(columns, values, strict=True))
        if problem := _problem(row):
            warnings.append(printable(f"{path.name} row {number} is left out: {problem}"))
        else:
            rows.append(row)
    return _typed(rows, warnings)


def _each(name: str, values: Iterable[Any], where: str, warnings: list[str]) -> list[Any]:
    """_checked() of every value of a column."""
    known: dict[tuple[type, Any], Any] = {}
    checked = []
    for value in values:
        plain = value if value is None or isinstance(value, str | int | float) else str(value)
        key = (type(plain), plain)  # True is no 1
        if key not in known:
            known[key] = _checked(name, plain, where, warnings)
        checked.append(known[key])
    return checked


def _superseded(rows: pd.DataFrame, asked: list[str]) -> pd.Series:
    """bool: rows of a cell of which another version was asked for later."""
    place = rows["fingerprint"].map({name: at for at, name in enumerate(asked)}).astype("Float64").fillna(-1.0)
    latest = place.groupby([rows[name] for name in CELL], dropna=False).transform("max")
    return (place < latest).astype(bool)


def _outdated(rows: pd.DataFrame) -> pd.Series:
    """Which rows are of an ensemble that has a result, but a member that is not among these rows or has none."""
    good = (rows["status"] == "ok").fillna(False).astype(bool)
    there = set(zip(rows.loc[good, "fingerprint"], rows.loc[good, "seed"], strict=True))
    made = good & rows["fusion"].notna()
    lacking = [
        text
        for text in rows.loc[made, "members"].unique()
        if any((one.fingerprint, one.seed) not in there for one in members(text))
    ]
    return made & rows["members"].isin(lacking)


def _problem(row: Any) -> str:
    if not isinstance(row, dict):
        return "it is not a JSON object"
    missing = [name for name in REQUIRED if row.get(name) is None]
    if missing:
        return f"it has no {', '.join(missing)}"
    wrong = [name for name in REQUIRED if not _fits(COLUMNS[name], row[name])]
    if wrong:
        return f"{wrong[0]} is {row[wrong[0]]!r}, not {_WORDS[COLUMNS[wrong[0]]]}"
    if row["status"] == "ok" and row.get("fusion") is not None:
        try:
            members(row.get("members"))
        except ValueError as error:
            return str(error)
    return ""


_WORDS = {_TEXT: "text", _INT: "a whole number", _FLOAT: "a number", _BOOL: "true or false"}


def _checked(name: str, value: Any, file: str, warnings: list[str]) -> Any:
    """The value as its column holds it; nested values become JSON text, a value of the wrong type is warned of."""
    if isinstance(value, dict | list):
        value = json.dumps(value, sort_keys=True)
    wanted = _wanted(name, value)
    if wanted:
        warnings.append(printable(f"{file}: {name} is {value!r}, not {wanted}, and counts as missing"))
        return None
    # A reason may have several lines; nothing else of what printable() escapes has a place in a row.
    return "\n".join(map(printable, value.split("\n"))) if isinstance(value, str) else value


def _wanted(name: str, value: Any) -> str:
    """What a column holds, in words, where this value is not that."""
    if value is None:
        return ""
    if name not in COLUMNS:
        return "" if isinstance(value, str | bool) or _fits(_FLOAT, value) else "text or a number"
    if not _fits(COLUMNS[name], value):
        return _WORDS[COLUMNS[name]]
    if name in _LISTS and not _is_list(value):
        return "a list of numbers in JSON"
    # It is part of the name of a file, which must be in the folder.
    return "the name of a file" if name == "fingerprint" and re.search(r"[/\\]", value) else ""


_LISTS = {"curve", "disc_acc", "test_recall"}


def _is_list(text: str) -> bool:
    try:
        found = json.loads(text)
    except (ValueError, RecursionError):
        return False
    return isinstance(found, list) and all(one is None or isinstance(one, float) or _fits(_FLOAT, one) for one in found)


def _trial(line: bytes) -> dict[str, Any]:
    found = json.loads(line)
    if not isinstance(found, dict):
        raise ValueError("it is not a JSON object")
    if said := problem(found) or ("" if "number" in found else "it has no number"):
        raise ValueError(said)
    return {printable(name): value for name, value in found.items()}


def _fits(dtype: str, value: Any) -> bool:
    if dtype == _TEXT:
        return isinstance(value, str)
    if dtype == _BOOL:
        return isinstance(value, bool)
    # Neither without end nor undefined, which a row says by null.
    number = isinstance(value, int | float) and not isinstance(value, bool) and abs(value) < 2**63
    return number and (dtype == _FLOAT or value == int(value))


def _typed(rows: list[dict[str, Any]], warnings: list[str]) -> pd.DataFrame:
    extra = sorted({name for row in rows for name in row} - set(COLUMNS))
    data: dict[str, pd.Series] = {
        name: pd.Series([row.get(name) for row in rows], dtype=dtype) for name, dtype in COLUMNS.items()
    }
    for name in extra:
        column = pd.Series([row.get(name) for row in rows], dtype="object").convert_dtypes()
        data[name] = column.astype("string") if column.dtype == "object" else column
    frame = pd.DataFrame(data)
    frame.attrs = {"warnings": warnings, "stale": 0}
    return frame


def _with_attrs(frame: pd.DataFrame, source: pd.DataFrame, stale: int) -> pd.DataFrame:
    frame.attrs = {"warnings": source.attrs.get("warnings", []), "stale": source.attrs.get("stale", 0) + stale}
    return frame
