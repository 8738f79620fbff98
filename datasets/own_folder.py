"""Own images in folders: `folder:PATH`.

Either PATH/CLASS/... (split 70/10/20 by seed) or PATH/train/CLASS/..., PATH/test/CLASS/... and perhaps
PATH/val/CLASS/... (without val, a tenth of train is taken by seed). PNG, JPEG, TIFF or DICOM files (.dcm, or of a
name without one of these endings), at any depth below the class folder. Two classes make a binary task, more a
multi-class one. Names that start with a dot, and the index DICOMDIR of a hospital's CD, are ignored; any
other file that is not an image is an error. A folder says nothing of patients: where images of one patient are several,
use a CSV with a `group` column.
"""

from __future__ import annotations

import os
from pathlib import Path
from typing import NoReturn

import numpy as np

from bench.contract import SPLITS, Dataset, Info, Kind
from bench.errors import DataError, UsageError
from bench.imagefiles import ImageFiles, Table

PREFIX = "folder:"
ALIKE = {*SPLITS, "training", "valid", "validation", "testing"}
"""What people call the folders of splits, in lower case."""


def names() -> list[str]:
    return []


def open_dataset(name: str, root: Path, seed: int, source_size: int) -> Dataset:
    """`name` is `folder:PATH`. Raises UsageError where there is no such folder, DataError."""
    folder = Path(name.removeprefix(PREFIX)).expanduser()
    if not folder.is_dir():
        raise UsageError(f"{folder}: no such folder. Check the path (it is relative to the current folder).")
    tops = _folders(folder)
    _check_not_alike(folder, [top.name for top in tops])
    given = {top.name for top in tops} & set(SPLITS)
    if given and {top.name for top in tops} - set(SPLITS):
        raise DataError(f"{folder}: has {sorted(given)} beside other folders. Keep either splits or classes there.")
    if given and not {"train", "test"} <= given:
        raise DataError(
            f"{folder}: has {sorted(given)} only. Add train and test, or put the class folders into {folder} itself."
        )
    holders = tops if given else [folder]
    classes = sorted({top.name for holder in holders for top in _folders(holder)})
    rows = [
        (file.relative_to(folder).as_posix(), classes.index(top.name), holder.name)
        for holder in holders
        for top in _folders(holder)
        for file in _files(folder, top)
    ]
    table = Table(
        root=folder,
        files=tuple(file for file, _, _ in rows),
        labels=np.array([label for _, label, _ in rows], dtype=np.int64),
        split=np.array([part for _, _, part in rows]) if given else None,
    )
    kind: Kind = "binary" if len(classes) == 2 else "multi-class"
    return ImageFiles(Info(name, kind, tuple(classes), channels=3, source=str(folder)), table, seed)


def _check_not_alike(folder: Path, names: list[str]) -> None:
    """Folders for splits that have other names would be taken for classes. Raises DataError."""
    if len(names) > 1 and set(names) - set(SPLITS) and {name.lower() for name in names} <= ALIKE:
        raise DataError(f"{folder}: {', '.join(names)} look like splits: name them train, val and test.")


def _folders(folder: Path) -> list[Path]:
    """The folders in `folder`; a file beside them is an error, since it would be left out unnoticed."""
    try:
        found = sorted(path for path in folder.iterdir() if not _ignored(path.name))
    except OSError as error:
        _cannot_read(error)
    for path in found:
        if not path.is_dir():
            raise DataError(
                f"{path}: a file where class folders are expected. Move it into its class folder, or remove it."
            )
    return found


def _ignored(name: str) -> bool:
    return name.startswith(".") or name.upper() == "DICOMDIR"


def _cannot_read(error: OSError) -> NoReturn:
    raise DataError(f"{error.filename}: {error.strerror}. Correct the folder's permissions, or remove it.") from error


def _files(folder: Path, top: Path) -> list[Path]:
    if not top.resolve().is_relative_to(folder.resolve()):
        raise DataError(f"{top}: leads out of {folder} (to {top.resolve()}). Copy the images into the folder.")
    found = []
    for parent, folders, files in os.walk(top, onerror=_cannot_read):
        found += [Path(parent, name) for name in files]
        found += [path for name in folders if (path := Path(parent, name)).is_symlink()]
    found = sorted(found)
    found = [path for path in found if not any(map(_ignored, path.relative_to(folder).parts))]
    if not found:
        raise DataError(f"{top}: has no images. Add some, or remove the folder.")
    return found
