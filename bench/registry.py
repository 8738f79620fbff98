"""Finds plug-ins: every file of `strategies/` and `datasets/`, the built-in ones and those of the workspace.

A file is loaded by its path, so adding `strategies/mine.py` is the whole installation. A broken file is a named error;
the others go on. Files whose name starts with "_" are ignored.
"""

from __future__ import annotations

import hashlib
import importlib.util
import inspect
import os
import re
import sys
import traceback
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from types import ModuleType
from typing import cast

from bench import shift
from bench.contract import Dataset, Fusion, Strategy
from bench.errors import DataError, MedtransferError, UsageError, nearest


@dataclass(frozen=True)
class Plugins:
    """The plug-ins of one kind: name -> file, and the files that could not be used with the reason."""

    files: dict[str, Path]
    broken: dict[Path, str]
    clashing: dict[str, str]
    """Name that two files give -> what is to be done; the first of them stays in `files`."""


def strategies(workspace: Path | None = None) -> dict[str, Strategy]:
    """Name -> strategy, of the built-in files and of the workspace (default: the current directory)."""
    return {name: one for name, one in _every(workspace).items() if isinstance(one, Strategy)}


def fusions(workspace: Path | None = None) -> dict[str, Fusion]:
    """Name -> fusion, of the same files."""
    return {name: one for name, one in _every(workspace).items() if isinstance(one, Fusion)}


def load_strategy(name: str, workspace: Path | None = None) -> Strategy:
    """The strategy of this name. Raises UsageError with the nearest name, or with what is wrong with its file."""
    if not isinstance(found := _strategies_of(source(name, workspace))[name], Strategy):
        raise UsageError(f'"{name}" is an ensemble of strategies, not a strategy.')
    return found


def load_fusion(name: str, workspace: Path | None = None) -> Fusion:
    """The fusion of this name. Raises UsageError likewise."""
    if not isinstance(found := _strategies_of(source(name, workspace))[name], Fusion):
        raise UsageError(f'"{name}" is a strategy, not an ensemble.')
    return found


def source(name: str, workspace: Path | None = None) -> Path:
    """The file that a strategy or fusion is in. Raises UsageError."""
    return _file("strategies", "strategy", name, find("strategies", workspace))


def source_hash(name: str, workspace: Path | None = None) -> str:
    """sha256 (hex) of a strategy's source file: an edited strategy is a new one. The line `steady = True` does not
    count: it says how fast a strategy may be computed, not what. Raises UsageError."""
    text = source(name, workspace).read_bytes()
    return hashlib.sha256(re.sub(rb"(?m)^    steady = True\r?\n", b"", text)).hexdigest()


def names_in(path: Path) -> dict[str, Strategy | Fusion]:
    """Name -> strategy or fusion, of one file, wherever it is. Raises UsageError with what is wrong with it."""
    try:
        return _strategies_of(path.resolve())
    except OSError as error:
        raise UsageError(f"{path}: cannot be read ({error.strerror}). Check the path.") from error
    except Exception as error:
        raise UsageError(f"{path}: {_reason(error, path.resolve())}") from error


def datasets(workspace: Path | None = None) -> dict[str, ModuleType]:
    """Dataset name, or prefix such as "npz:", -> the plug-in that opens it."""
    return {name: _module(path) for name, path in find("datasets", workspace).files.items()}


def open_dataset(name: str, root: Path, seed: int = 0, source_size: int = 0, workspace: Path | None = None) -> Dataset:
    """The dataset of this name ("npz:PATH", ..., or a shift, SOURCE->TARGET). Raises UsageError, DataError.

    `root` is the folder of downloaded files, `seed` draws splits that are not given, `source_size` is the side in
    pixels of the images that are read (0: the nearest one there is to the task's)."""
    if shift.ARROW in name:
        return shift.open_shift(name, seed, lambda one: open_dataset(one, root, seed, source_size, workspace))
    found = find("datasets", workspace)
    prefix, colon, _ = name.partition(":")
    path = _file("datasets", "dataset", prefix + colon if prefix + colon in found.files else name, found)
    try:
        dataset: Dataset = _module(path).open_dataset(name, root, seed, source_size)
    except MedtransferError:
        raise
    except OSError as error:
        raise DataError(f"{name}: {error.strerror or error}. Check the path and its permissions.") from error
    except (Exception, SystemExit) as error:  # whatever a plug-in raises is its own fault and fails its own cells only
        raise DataError(f"{name}: {path} gave up: {_reason(error, path)}. Correct it.") from error
    if not isinstance(dataset, Dataset):
        raise DataError(f"{path}: open_dataset({name!r}) gave {type(dataset).__name__}, not a bench.contract.Dataset.")
    return dataset


def broken(workspace: Path | None = None) -> dict[Path, str]:
    """File -> what is wrong with it, of all plug-in files that cannot be used."""
    return {path: why for kind in _NAMES for path, why in find(kind, workspace).broken.items()}


def find(kind: str, workspace: Path | None = None) -> Plugins:
    """The plug-ins of a kind ("strategies" or "datasets").

    A workspace's file takes the place of the built-in file of the same file name, so that a copy of a built-in plug-in
    can be edited. Of any other two files that give the same name the second is left out."""
    here = (workspace or Path.cwd()).resolve() / kind
    plugins = Plugins({}, {}, {})
    for folder in dict.fromkeys((builtin(kind), here)):
        for path in sorted(folder.glob("[!_]*.py")):
            try:
                names = _NAMES[kind](path)
            except (Exception, SystemExit) as error:  # a plug-in's own fault; the reason is kept and shown
                plugins.broken[path] = _reason(error, path)
                continue
            taken = {name: plugins.files[name] for name in names if name in plugins.files}
            clashing = {name: other for name, other in taken.items() if other.name != path.name}
            for name, other in clashing.items():
                why = f'"{name}" is given by two files: {other} and {path}. Rename one of them.'
                plugins.broken[path] = plugins.clashing[name] = why
            if not clashing:
                plugins.files.update(dict.fromkeys(names, path))
    return plugins


def builtin(kind: str) -> Path:
    """The folder of the built-in plug-ins: beside `bench` in a checkout, inside it in an installed package."""
    package = Path(__file__).resolve().parent
    installed = package / "builtin" / kind
    return installed if installed.is_dir() else package.parent / kind


def _every(workspace: Path | None) -> dict[str, Strategy | Fusion]:
    return {name: _strategies_of(path)[name] for name, path in find("strategies", workspace).files.items()}


def _strategies_of(path: Path) -> dict[str, Strategy | Fusion]:
    return _made(path, _digest(path))


@cache
def _made(path: Path, digest: str) -> dict[str, Strategy | Fusion]:
    """The strategies of a file, which are stateless, so that every cell may share them."""
    module = _load(path, digest)
    classes = [c for _, c in inspect.getmembers(module, inspect.isclass) if c.__module__ == module.__name__]
    classes = [c for c in classes if issubclass(c, Strategy | Fusion)]
    found: dict[str, Strategy | Fusion] = {}
    for cls in classes:
        if not isinstance(name := getattr(cls, "name", None), str):
            continue
        if name in found:
            raise ValueError(f'the name "{name}" is given to two classes')
        if not isinstance(getattr(cls, "family", None), str):
            raise ValueError(f'class {cls.__name__} has no family: add family = "fine-tuning", say')
        found[name] = cast("Strategy | Fusion", cls())
    if not found:
        what = (
            f"class {classes[0].__name__} has no name" if classes else "there is no subclass of bench.contract.Strategy"
        )
        raise ValueError(f'{what}: a strategy is a class with name = "..."')
    return found


def _datasets_of(path: Path) -> list[str]:
    module = _module(path)
    if not callable(getattr(module, "open_dataset", None)):
        raise ValueError("there is no function open_dataset(name, root, seed, source_size)")
    prefix = getattr(module, "PREFIX", "")
    names = [*(module.names() if hasattr(module, "names") else []), *([prefix] if prefix else [])]
    if not names:
        raise ValueError("there is neither a name in names() nor a PREFIX")
    return names


_NAMES = {"strategies": _strategies_of, "datasets": _datasets_of}


def _digest(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()


def _module(path: Path) -> ModuleType:
    return _load(path, _digest(path))


@cache
def _load(path: Path, digest: str) -> ModuleType:
    # Compiled from the source and not through a .pyc file, which is not renewed where a file is edited within a second.
    name = f"medtransfer_{path.parent.name}_{path.stem}_{digest[:8]}"
    spec = importlib.util.spec_from_file_location(name, path)
    assert spec is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[name] = module  # dataclasses and pickle look a class's module up there
    try:
        exec(compile(path.read_bytes(), str(path), "exec", dont_inherit=True), module.__dict__)
    except BaseException:
        del sys.modules[name]
        raise
    return module


def _reason(error: BaseException, path: Path) -> str:
    if isinstance(error, SyntaxError):
        return f"line {error.lineno}: {error.msg}"
    lines = [frame.lineno for frame in traceback.extract_tb(error.__traceback__) if frame.filename == str(path)]
    where = f"line {lines[-1]}: " if lines else ""
    return f"{where}{type(error).__name__}: {error}" if where or not isinstance(error, ValueError) else str(error)


def _file(kind: str, noun: str, name: str, plugins: Plugins) -> Path:
    if name in plugins.clashing:
        raise UsageError(plugins.clashing[name])
    if name in plugins.files:
        return plugins.files[name]
    for path, why in plugins.broken.items():
        if path.stem == name or f'"{name}"' in path.read_text(errors="replace"):
            raise UsageError(f"{noun} {name} cannot be loaded: {path}: {why}")
    if len(several := name.split(",")) > 1 and not plugins.files.keys().isdisjoint(several):
        raise UsageError(f'No {noun} "{name}". Give --{noun} once for each of them, or a list in the matrix file.')
    prefix = "folder:" if os.path.isdir(name) else f"{Path(name).suffix.lower().removeprefix('.')}:"
    if prefix in plugins.files and os.path.exists(name):
        raise UsageError(f'No {noun} "{name}". To read what lies there write "{prefix}{name}".')
    raise UsageError(f'No {noun} "{name}".{nearest(name, plugins.files)} Own ones are files in {kind}/.')
