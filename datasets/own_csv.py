"""Own images listed in a table: `csv:PATH`, UTF-8, one image a row.

| column | meaning |
|---|---|
| `path` | image file (PNG, JPEG, TIFF, DICOM), relative to the CSV's folder and inside it |
| `label` | class name: a binary (two names) or multi-class task |
| or `labels` | names separated by `|`, empty where there is no finding: a multi-label task |
| or `grade` | integers 0, 1, 2, ...: an ordinal task |
| `split` | optional: train, val or test in every row; without val a tenth of train is taken by seed |
| `group` | optional: the patient; no group is ever in two splits |
| `domain` | optional: the hospital or scanner; `csv:PATH@DOMAIN` is the images of one of them |

Exactly one of `label`, `labels` and `grade` is there. Other columns are not used, which `notes` says.

`csv:PATH@A->@B` trains on domain A and is tested on domain B. Splits are drawn within each domain; a group with images
in several is on the same side in all of them, so no patient of one domain's train is in another's test.
"""

from __future__ import annotations

import csv
import re
from difflib import get_close_matches
from pathlib import Path

import numpy as np
import pandas as pd

from bench.contract import SPLITS, Dataset, Info, Kind
from bench.errors import DataError, UsageError, printable
from bench.imagefiles import ImageFiles, Table, checked_names

PREFIX = "csv:"
LABELS = ("label", "labels", "grade")
OPTIONAL = ("split", "group", "domain")
PATIENT = re.compile("patient|subject|case|person", re.IGNORECASE)
"""Columns of which people expect that images of one value are kept together."""
CALLED = {"file": "path", "filename": "path", "image": "path", "class": "label", "diagnosis": "label"}
"""What people call the columns, in lower case -> their name here."""
SEPARATORS = {";": '";"', "\t": "tabs"}


def names() -> list[str]:
    return []


def open_dataset(name: str, root: Path, seed: int, source_size: int) -> Dataset:
    """`name` is `csv:PATH` or `csv:PATH@DOMAIN`. Raises UsageError where there is no such file, DataError."""
    path, domain = _path_and_domain(name.removeprefix(PREFIX))
    frame = _read(path)
    found = _domains(path, frame, domain)
    kind, classes, labels = _labels(path, frame)
    table = Table(
        root=path.parent,
        files=tuple(_filled(path, frame, "path")),
        labels=labels,
        split=_splits(path, frame) if "split" in frame else None,
        groups=np.array(_filled(path, frame, "group")) if "group" in frame else None,
        domains=np.array(_filled(path, frame, "domain")) if domain else None,
    )
    unused = [column for column in frame if column not in ("path", *OPTIONAL, *LABELS)]
    together = f"domain {domain} of {', '.join(found)}" if domain else f"domains together: {', '.join(found)}"
    patient = "group" not in frame and any(PATIENT.search(column) for column in unused)
    hint = "; a column that says which images belong together must be called group" if patient else ""
    hint += "".join(
        f"; {column} is used where it is called {column.lower()}" for column in unused if column.lower() in OPTIONAL
    )
    told = (printable(f"columns not used: {', '.join(unused)}") + hint,) if unused else ()
    notes = told + ((together,) if found else ())
    return ImageFiles(Info(name, kind, classes, channels=3, source=str(path)), table, seed, notes, domain)


def _path_and_domain(text: str) -> tuple[Path, str]:
    """A file may have an "@" in its name."""
    whole, (path, _, domain) = Path(text).expanduser(), text.rpartition("@")
    return (Path(path).expanduser(), domain) if path and not whole.exists() else (whole, "")


def _domains(path: Path, frame: pd.DataFrame, wanted: str) -> list[str]:
    """The domains that there are. Raises DataError where the one that is wanted is not among them."""
    found = sorted(set(_filled(path, frame, "domain"))) if "domain" in frame else []
    checked_names(str(path), found, "domain")
    if wanted and not found:
        raise DataError(f'{path}: has no column "domain", so there is no domain "{wanted}". Add the column.')
    if wanted and wanted not in found:
        raise DataError(f'{path}: has no domain "{wanted}". It has {", ".join(found)}.')
    return found


def _read(path: Path) -> pd.DataFrame:
    try:
        with path.open(encoding="utf-8-sig", newline="") as file:
            # Not pandas' reader: it cuts long rows short, and fills short ones, without a word.
            header, *rows = [row for row in csv.reader(file, skipinitialspace=True, strict=True) if row] or [[]]
    except FileNotFoundError as error:
        raise UsageError(f"{path}: no such file. Check the path (it is relative to the current folder).") from error
    except IsADirectoryError as error:
        raise DataError(f"{path}: a folder, expected a CSV. For images in it write folder:{path}") from error
    except UnicodeDecodeError as error:
        raise DataError(f'{path}: not UTF-8 text ({error.reason}). Save it as "CSV UTF-8".') from error
    except (OSError, ValueError, csv.Error) as error:
        raise DataError(
            f"{path}: not a readable UTF-8 CSV ({str(error).strip()}). Save it as CSV, comma-separated."
        ) from error
    while len(header) > 1 and not header[-1].strip():  # spreadsheets leave commas at the ends of lines
        header.pop()
    columns = [column.strip() for column in header]
    for separator, called in SEPARATORS.items():
        if len(columns) == 1 and separator in columns[0]:
            raise DataError(f"{path}: its columns are separated by {called}, expected commas. Save it with commas.")
    for number, row in enumerate(rows, start=2):
        if len(row) < len(columns) or any(row[len(columns) :]):
            raise DataError(f"{path}: row {number} has {len(row)} values, expected {len(columns)}. Correct it.")
    if twice := [column for column in columns if columns.count(column) > 1]:
        raise DataError(f'{path}: has the column "{twice[0]}" {columns.count(twice[0])} times. Remove all but one.')
    frame = pd.DataFrame([row[: len(columns)] for row in rows], columns=columns, dtype=str)
    if "path" not in frame or sum(column in frame for column in LABELS) != 1:
        needs = "It needs path and exactly one of label, labels and grade."
        raise DataError(f"{path}: has columns {', '.join(columns)}. {needs}{_renamed(columns)}")
    return frame


def _renamed(columns: list[str]) -> str:
    """How columns that seem to be those that are missing should be called; "" where none does."""
    labelled = not {*LABELS}.isdisjoint(columns)
    missing = [*([] if "path" in columns else ["path"]), *([] if labelled else LABELS)]
    found: dict[str, str] = {}
    for column in columns:
        lower = column.lower()
        close = get_close_matches(lower, missing, n=1, cutoff=0.8)
        name = close[0] if close else CALLED.get(lower.replace("_", "").replace(" ", ""), "")
        if name in missing:
            found.setdefault(name, f'"{column}" to {name}')
    return printable(f" Rename {' and '.join(found.values())}, perhaps.") if found else ""


def _labels(path: Path, frame: pd.DataFrame) -> tuple[Kind, tuple[str, ...], np.ndarray]:
    if "labels" in frame:
        sets = [{part.strip() for part in text.split("|")} - {""} for text in frame["labels"]]
        classes = sorted(set().union(*sets))
        return (
            "multi-label",
            tuple(classes),
            np.array([[name in found for name in classes] for found in sets], dtype=np.uint8),
        )
    if "label" in frame:
        names = _filled(path, frame, "label")
        classes = sorted(set(names))
        place = {label: index for index, label in enumerate(classes)}
        kind: Kind = "binary" if len(classes) == 2 else "multi-class"
        return kind, tuple(classes), np.array([place[label] for label in names], dtype=np.int64)
    grades = _filled(path, frame, "grade")
    for row, text in enumerate(grades):
        if not (text.isascii() and text.isdigit()):
            raise DataError(f'{path}: row {row + 2} has the grade "{text}", expected an integer from 0. Correct it.')
    values = np.array([int(text) for text in grades], dtype=np.int64)
    if values.max() >= len(values):
        raise DataError(
            f"{path}: row {values.argmax() + 2} has the grade {values.max()}. Number the grades 0, 1, 2, ..."
        )
    if values.min() > 0:
        raise DataError(f"{path}: grades are {values.min()}..{values.max()}. Number them from 0.")
    return "ordinal", tuple(str(grade) for grade in range(values.max() + 1)), values


def _splits(path: Path, frame: pd.DataFrame) -> np.ndarray:
    values = _filled(path, frame, "split")
    for row, value in enumerate(values):
        if value not in SPLITS:
            raise DataError(f'{path}: row {row + 2} has the split "{value}", expected train, val or test. Correct it.')
    return np.array(values)


def _filled(path: Path, frame: pd.DataFrame, column: str) -> list[str]:
    values = [value.strip() for value in frame[column]]
    if not values:
        raise DataError(f"{path}: has no rows. Add one for each image.")
    if "" in values:
        raise DataError(f"{path}: row {values.index('') + 2} has an empty {column}. Fill it in, or remove the row.")
    return values
