"""A matrix file (TOML) or preset, and what the command line overrides in it -> a frozen Matrix. Nothing is guessed."""

from __future__ import annotations

import math
import re
import tomllib
from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import MISSING, dataclass, field, fields
from pathlib import Path
from typing import Any

from bench.contract import Backbone, Protocol
from bench.errors import UsageError, nearest
from bench.rules import BACKBONE, LIMITS, LISTS, OVERS, Rule, checked, is_json, is_range, number, shown
from bench.shards import ALL

PRESETS = Path(__file__).parent / "presets"
ONLY = ("dataset", "backbone", "strategy", "size", "fraction", "per_class")
"""Properties of a cell that `--only` can filter by."""


@dataclass(frozen=True)
class Amount:
    """How much of the training split is used: a fraction of each class, or a number of images per class."""

    fraction: float = 1.0
    per_class: int | None = None


@dataclass(frozen=True)
class Matrix:
    """Everything that a run is asked to do."""

    backbones: tuple[Backbone, ...]
    strategies: tuple[str, ...]
    datasets: tuple[str, ...]
    sizes: tuple[int, ...]
    """Sides in pixels at which networks see the images."""
    results: Path
    """Folder of this run."""
    amounts: tuple[Amount, ...] = (Amount(),)
    seeds: int = 3
    """Fits per cell, with seeds 0..seeds-1."""
    data_root: Path = Path("data/medmnist")
    """Folder of the MedMNIST files."""
    device: str = "auto"
    jobs: int = 1
    """Cells run at the same time, each in a process of its own."""
    executor: str = "local"
    """"local" or "ray"."""
    address: str = "local"
    """Of a Ray cluster; "local" starts one on this machine."""
    shard: str = ALL
    """i/n: the part of the cells that this command runs."""
    time_limit: float = 0.0
    """Minutes that a cell may take; 0 sets no limit."""
    deterministic: bool = False
    """Compute the same bits again on a GPU, too."""
    source_size: int = 0
    """Side of the images that are read and then resized to `sizes`; 0 takes the one nearest to each size."""
    split_seed: int = 0
    """Draws the split of own images and the training fraction."""
    over: tuple[str, ...] = OVERS
    """What the members of ensembles differ in, of those that `strategies` names."""
    natural: str = "skimage"
    """The natural images of strategies with a second domain: a name of bench.natural_reference, or a path."""
    protocol: Protocol = field(default_factory=Protocol)
    settings: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)
    """Strategy name -> hyperparameters that are fixed instead of tuned."""
    only: tuple[tuple[str, str], ...] = ()
    """(property of a cell, pattern as in fnmatch): cells are run that match one pattern of each property."""


PLAIN = (
    "seeds", "device", "jobs", "executor", "address", "shard", "time_limit", "deterministic", "source_size",
    "split_seed",
)  # fmt: skip
"""Keys of `[run]` that are fields of a Matrix as they stand."""
PROTOCOL = {f.name: f.default for f in fields(Protocol)}
SCALARS = (
    PROTOCOL
    | {
        f.name: f.default
        for f in fields(Matrix)
        if f.default is not MISSING and f.name not in ("amounts", "only", "over")
    }
    | {"results": Path()}
)


def presets() -> dict[str, Path]:
    """Name -> file of the presets: general ones, smallest first, then published protocols."""
    order = ("demo", "quick", "standard", "full", "medmnist-v2")
    return {name: PRESETS / f"{name}.toml" for name in order}


def load(source: str, overrides: Mapping[str, Any] | None = None) -> Matrix:
    """The matrix of a preset or TOML file. Raises UsageError.

    `overrides` holds `[run]` keys (and "backbones" and "only", lists of strings) as the command line gave them; None
    and empty lists leave the file's value. Relative paths are relative to the current directory, "~" is the home
    directory.
    """
    path = _find(source)
    document = read_toml(path)
    only_known(document, ("run", "backbone", "settings"), f"{path}:")
    given = {key: value for key, value in (overrides or {}).items() if value not in (None, [], ())}
    specs, only = given.pop("backbones", []), given.pop("only", [])

    run = table_of(document.get("run", {}), "[run]", path)
    only_known(run, (*LISTS, *SCALARS), f"{path}: [run]")
    listed = run.get("strategies", [])
    values = {key: _checked_run(key, value, f"{path}: {key}") for key, value in run.items()}
    if "fractions" in given or "per_class" in given:
        values.pop("fractions", None)
        values.pop("per_class", None)
    values |= {key: _checked_run(key, value, flag(key)) for key, value in given.items()}
    for key in ("strategies", "datasets", "sizes"):
        if key not in values:
            raise UsageError(f"{path}: [run] has no {key}. Add {key} = [...], or give {flag(key)}.")

    tables = document.get("backbone", [])
    if not isinstance(tables, list):
        raise UsageError(f"{path}: [backbone] must be [[backbone]], once for each backbone.")
    backbones = _choose([backbone_of(table, path) for table in tables], specs)
    if not backbones:
        raise UsageError(f"{path}: no backbone. Add a [[backbone]] table with a model, or give --backbone.")
    _distinct(
        [b.label for b in backbones], "backbone", 'Give one of them a name, such as name = "resnet50 radimagenet".'
    )

    amounts = [Amount(fraction=f) for f in values.get("fractions", ())]
    amounts += [Amount(per_class=n) for n in values.get("per_class", ())]
    return Matrix(
        backbones=tuple(backbones),
        strategies=values["strategies"],
        datasets=tuple("->".join(map(_expand, name.split("->"))) for name in values["datasets"]),
        sizes=values["sizes"],
        results=home(values.get("results", f"results/{path.stem}")),
        amounts=tuple(amounts) or (Amount(),),
        data_root=home(values.get("data_root", Matrix.data_root)),
        protocol=Protocol(**{key: value for key, value in values.items() if key in PROTOCOL}),
        settings=_settings(document.get("settings", {}), {*listed, *values["strategies"]}, path),
        only=tuple(map(_only, only)),
        over=values.get("over", Matrix.over),
        natural=_expand(values.get("natural", Matrix.natural)),
        **{key: values[key] for key in PLAIN if key in values},
    )


def flag(key: str) -> str:
    """The command line's name of a `[run]` key: strategies -> --strategy."""
    singular = {"strategies": "strategy", "datasets": "dataset", "sizes": "size", "fractions": "fraction"}
    return "--" + singular.get(key, key).replace("_", "-")


def parse_backbone(spec: str) -> Backbone:
    """A backbone as the command line writes it: `MODEL`, `MODEL[:CUT]`, `MODEL@file:PATH`, `MODEL@random`,
    where MODEL may be `bundled:NAME`. Raises UsageError."""
    if spec.startswith("file:"):
        raise UsageError(f"--backbone {spec}: a file does not say which network it is for. Write MODEL@{spec}.")
    model, _, weights = spec.partition("@")
    return backbone_of({"model": model} | ({"weights": weights} if weights else {}), None)


def _find(source: str) -> Path:
    if source in presets():
        return presets()[source]
    path = home(source)
    try:
        if path.is_file():
            return path
    except OSError as error:
        raise UsageError(f"{source}: {error.strerror}. Check the path.") from error
    if path.suffix == ".toml" or len(path.parts) > 1:
        raise UsageError(f"No matrix file {source}. Check the path, or name a preset: {', '.join(presets())}.")
    raise UsageError(f'No preset or matrix file "{source}".{nearest(source, presets())}')


def read_toml(path: Path) -> dict[str, Any]:
    try:
        return tomllib.loads(path.read_text(encoding="utf-8-sig"))
    except OSError as error:
        raise UsageError(f"{path}: cannot be read: {error.strerror}. Check the path.") from error
    except UnicodeDecodeError as error:
        raise UsageError(f"{path}: not UTF-8 text ({error.reason}). Save it as UTF-8.") from error
    except (ValueError, RecursionError) as error:  # a number of 5000 digits and a list a thousand lists deep among them
        raise UsageError(f"{path}: not valid TOML: {error}") from error


def table_of(value: Any, where: str, path: Path | None) -> dict[str, Any]:
    if not isinstance(value, dict):
        raise UsageError(f"{path}: {where} must be a table, not {value!r}.")
    return value


def only_known(keys: Iterable[str], valid: Iterable[str], where: str) -> None:
    for key in keys:
        if key not in valid:
            raise UsageError(f'{where} unknown key "{key}".{nearest(key, valid)}')


def _checked_run(key: str, value: Any, where: str) -> Any:
    if key in LISTS:
        if not isinstance(value, list) or not value:
            raise UsageError(f"{where} = {value!r}: must be a list of at least one entry, each {LISTS[key].allowed}.")
        _distinct(entries := [checked(LISTS[key], entry, where) for entry in value], where, "Remove one of them.")
        return tuple(entries)
    kind = type(SCALARS[key])
    default = number(kind, 0) if kind in (int, float) else Rule(kind, lambda v: True, "true or false")
    return checked(LIMITS.get(key, default), value, where)


def _distinct(values: list[Any], where: str, fix: str) -> None:
    value, count = Counter(values).most_common(1)[0]
    if count > 1:
        raise UsageError(f"{where}: {shown(value)} is there {count} times. {fix}")


def backbone_of(table: Any, path: Path | None) -> Backbone:
    where = f"{path}: [[backbone]]" if path else "--backbone"
    table = dict(table_of(table, "[[backbone]]", path))
    only_known(table, [f.name for f in fields(Backbone)], where)
    if "model" not in table:
        raise UsageError(f'{where} has no model. Add one, such as model = "resnet18.a1_in1k".')
    for key, value in table.items():
        table[key] = checked(BACKBONE[key], value, f"{where} {key}")
    if found := re.fullmatch(r"(.+)\[:([0-9]{1,4})\]", table["model"]):
        cut = checked(BACKBONE["cut"], int(found[2]), f"{where} {table['model']}: cut")
        if table.setdefault("cut", cut) != cut:
            raise UsageError(f"{where} {table['model']}: contradicts cut = {table['cut']}. Keep one of them.")
        table["model"] = found[1]
    if not re.fullmatch(r"[\w.:/-]+", table["model"]):
        raise UsageError(
            f'{where} model = "{table["model"]}": must be a timm name, or name[:K] to keep its first K stages.'
        )
    for key in ("mean", "std"):
        if key in table:
            table[key] = tuple(map(float, table[key]))
    origin = table["model"] if table["model"].startswith("bundled:") else "hub"
    return Backbone(**table | {"weights": _expand(table.get("weights", origin))})


def _choose(listed: list[Backbone], specs: list[str]) -> list[Backbone]:
    chosen: list[Backbone] = []
    for spec in specs:
        named = [b for b in listed if b.label == spec] or [b for b in listed if b.model == spec]
        chosen += named or [parse_backbone(spec)]
    return chosen or listed


def _settings(tables: Any, strategies: set[str], path: Path) -> dict[str, dict[str, Any]]:
    for name, table in table_of(tables, "[settings]", path).items():
        if name not in strategies:
            raise UsageError(f'{path}: [settings.{name}]: "{name}" is not among strategies.{nearest(name, strategies)}')
        for key, value in table_of(table, f"[settings.{name}]", path).items():
            if not is_json(value):
                raise UsageError(f"{path}: [settings.{name}] {key} = {shown(value)}: must be numbers or text.")
            if isinstance(value, dict) and not {"low", "high"}.isdisjoint(value):
                _range(value, f"{path}: [settings.{name}] {key}")
    return dict(tables)


def _range(value: dict[str, Any], where: str) -> None:
    low, high = (value.get(end, math.nan) for end in ("low", "high"))
    numbers = type(low) in (int, float) and type(high) in (int, float)
    if not is_range(value) or not numbers or not low < high:
        raise UsageError(f"{where}: a range must be {{ low = .., high = .. }}, two numbers, low below high.")


def _only(text: str) -> tuple[str, str]:
    key, equals, pattern = text.partition("=")
    if not equals or not pattern:
        raise UsageError(f"--only {text}: must be KEY=PATTERN, such as dataset=breast*. Keys: {', '.join(ONLY)}.")
    only_known([key], ONLY, "--only:")
    return key, pattern


def _expand(name: str) -> str:
    """`file:~/w.pt` -> `file:/home/me/w.pt`; anything without a path stays as it is."""
    prefix, colon, path = name.partition(":")
    return f"{prefix}:{home(path)}" if colon and path.startswith("~") else name


def home(path: str | Path) -> Path:
    """The path with "~" as the home folder. Raises UsageError where there is none of that name."""
    try:
        return Path(path).expanduser()
    except RuntimeError as error:
        raise UsageError(f"{path}: no such user has a home folder here. Write the path without ~.") from error
