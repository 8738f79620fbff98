"""A Matrix becomes cells: which run, which are skipped and why, which are done already."""

from __future__ import annotations

import itertools
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from bench import registry, store
from bench.backbones import resolve, too_small
from bench.choices import Choice, chosen, valid
from bench.config import Amount, Matrix
from bench.contract import Backbone, Dataset, Info, Protocol, Strategy
from bench.ensembles import Ensemble, ensembles, of_cells
from bench.errors import MedtransferError, UsageError, brief, nearest, place, reading
from bench.fingerprint import fingerprint
from bench.imported import imported
from bench.natural_reference import open_natural
from bench.rules import is_range, shown
from bench.shards import holds
from bench.splits import one_left, too_few
from bench.tune import check_ranges


@dataclass(frozen=True)
class Cell:
    """backbone x strategy x dataset x size x amount: tuned once, then fitted once a seed."""

    backbone: Backbone
    strategy: str
    dataset: str
    size: int
    amount: Amount
    protocol: Protocol
    settings: Mapping[str, Any]
    data_root: Path
    source_size: int
    """As asked for; 0 leaves it to the dataset."""
    pixels: int
    """Side of the images that are read, before they are resized to `size`; 0 where the dataset cannot be opened."""
    split_seed: int
    workspace: Path
    fingerprint: str
    seeds: int
    """Fits that the matrix asks for."""
    hashes: Mapping[str, str]
    """source_hash, weights_hash and data_hash, and second_hash where the cell uses the natural images."""
    info: Info | None
    """None where the dataset cannot be opened."""
    family: str
    """The strategy's, as the two below: a row says them though its file is broken or gone when it is written."""
    pretrained: bool
    transductive: bool
    natural: str = ""
    """The natural images that are its second domain; empty where it has none, or a target domain."""
    notes: tuple[str, ...] = ()
    skip: str = ""
    """Why the strategy does not apply; empty where it does."""
    error: str = ""
    """Why the cell cannot run: weights or data are missing or damaged."""

    @property
    def label(self) -> str:
        amount = f" {self.amount.per_class} a class" if self.amount.per_class else ""
        amount = amount or (f" {self.amount.fraction:g} of train" if self.amount.fraction != 1 else "")
        return f"{self.dataset} {self.size} px{amount} · {self.backbone.label} · {self.strategy}"


@dataclass(frozen=True)
class Plan:
    """What a run will do."""

    matrix: Matrix
    workspace: Path
    cells: list[Cell]
    done: set[tuple[str, int]]
    """(fingerprint, seed) of the rows that are there already."""
    notes: tuple[str, ...] = field(default=())
    """What a user should know of the data and weights."""
    ensembles: tuple[Ensemble, ...] = ()
    """Made of the cells' predictions, once those are there."""

    def missing(self, cell: Cell) -> list[int]:
        """The seeds whose rows are not there yet."""
        return [seed for seed in range(self.matrix.seeds) if (cell.fingerprint, seed) not in self.done]

    @property
    def todo(self) -> list[Cell]:
        """The cells of the shard of which a row is missing, skipped ones included."""
        shard = self.matrix.shard
        return [cell for cell in self.cells if holds(shard, cell.fingerprint) and self.missing(cell)]

    @property
    def there(self) -> set[tuple[str, int]]:
        """The rows of the plan, those of its shard and of its ensembles, that need not be run again."""
        seeds = range(self.matrix.seeds)
        rows = {(c.fingerprint, s) for c in self.cells if holds(self.matrix.shard, c.fingerprint) for s in seeds}
        return self.done & (rows | {(one.fingerprint, one.seed) for one in self.ensembles})

    @property
    def unfused(self) -> list[Ensemble]:
        """The ensembles whose row is missing."""
        return [one for one in self.ensembles if (one.fingerprint, one.seed) not in self.done]

    @property
    def fingerprints(self) -> list[str]:
        """Of all that a row is wanted of."""
        of_cells, of_ensembles = (cell.fingerprint for cell in self.cells), (one.fingerprint for one in self.ensembles)
        return list(dict.fromkeys((*of_cells, *of_ensembles)))

    @property
    def skips(self) -> list[Cell]:
        return [cell for cell in self.cells if cell.skip]

    @property
    def errors(self) -> list[Cell]:
        return [cell for cell in self.cells if cell.error]


def make_plan(matrix: Matrix, workspace: Path) -> Plan:
    """Resolve weights, datasets and strategies, and fingerprint every cell. A backbone or dataset that cannot be had
    fails its own cells only. Raises UsageError for a name that does not exist or an `--only` that matches nothing."""
    known = registry.fusions(workspace)
    fusions = [name for name in matrix.strategies if name in known]
    singles = [name for name in matrix.strategies if name not in fusions]
    if not singles:
        raise UsageError(
            f"{', '.join(fusions)}: ensembles of nothing. Name the strategies that they are made of as well."
        )
    lists = (matrix.datasets, matrix.sizes, matrix.amounts, matrix.backbones, singles)
    # Neighbouring cells share images and features, so datasets and sizes change most slowly.
    every = [Choice(*combination) for combination in itertools.product(*lists)]
    choices = [c for c in every if chosen(c, matrix.only)]
    if not choices:
        wanted = " ".join(f"--only {key}={pattern}" for key, pattern in matrix.only)
        raise UsageError(f"{wanted}: no cell of this matrix matches. {valid(every, matrix.only)}")
    strategies = {
        name: (registry.load_strategy(name, workspace), registry.source_hash(name, workspace))
        for name in dict.fromkeys(c.strategy for c in choices)
    }
    for name, (strategy, _) in strategies.items():
        _check_settings(strategy, matrix.settings.get(name, {}))
    wanted_weights = any(strategy.pretrained for strategy, _ in strategies.values())
    natural = _natural(matrix, [s for s, _ in strategies.values()], workspace)
    weights = {b: _weights(b) if wanted_weights else ("", "") for b in dict.fromkeys(c.backbone for c in choices)}
    places = dict.fromkeys((c.dataset, c.size) for c in choices)
    datasets = {place: _dataset(matrix, *place, workspace) for place in places}
    cells = [
        _cell(matrix, workspace, c, *strategies[c.strategy], weights[c.backbone], datasets[c.dataset, c.size], natural)
        for c in choices
    ]
    notes = _notes((name, dataset) for (name, _), (dataset, _, _) in datasets.items() if dataset)
    notes += _few(matrix, {name: dataset for (name, _), (dataset, _, _) in datasets.items() if dataset})
    if random := sorted({c.backbone.label for c in choices if c.backbone.weights == "random"}):
        have = "has" if len(random) == 1 else "have"
        notes.append(
            f"RANDOM WEIGHTS: {', '.join(random)} {have} no pretrained weights, so what is compared here is the "
            "machinery, not transfer."
        )
    if fusions and any(key in ("backbone", "strategy") for key, _ in matrix.only):
        notes.append("--only keeps some members of the ensembles out, so none is made: a run without it makes them.")
        fusions = []
    hashes = {name: registry.source_hash(name, workspace) for name in fusions}
    candidates = of_cells(cells, matrix.seeds) + imported(matrix.results, places) if fusions else []
    planned = tuple(ensembles(candidates, hashes, matrix.over))
    plan = Plan(matrix, workspace, cells, set(), tuple(dict.fromkeys(notes)), planned)
    return replace(plan, done=store.finished(matrix.results, plan.fingerprints))


def _notes(datasets: Iterable[tuple[str, Dataset]]) -> list[str]:
    """What datasets say of themselves, each note with the names of those that say it."""
    about: dict[str, dict[str, None]] = {}
    for name, dataset in datasets:
        for note in dataset.notes:
            about.setdefault(note, {})[name] = None
    return [note if note.startswith(next(iter(names))) else f"{', '.join(names)}: {note}"
            for note, names in about.items()]  # fmt: skip


def _few(matrix: Matrix, datasets: Mapping[str, Dataset]) -> list[str]:
    """Notes on datasets that have not as many images of each class as are asked for, and on those of which a fraction
    leaves one."""
    asked = max((amount.per_class or 0 for amount in matrix.amounts), default=0)
    least = min((amount.fraction for amount in matrix.amounts), default=1.0)
    if not asked and least == 1:
        return []
    known = {name: labels for name, one in datasets.items() if (labels := one.train_labels()) is not None}
    said = []
    for name, labels in known.items():
        classes = datasets[name].info.classes
        notes = (too_few(labels, classes, asked) if asked else "", one_left(labels, classes, least, matrix.split_seed))
        said += [f"{name}: {note}" for note in notes if note]
    return said


def _check_settings(strategy: Strategy, settings: Mapping[str, Any]) -> None:
    try:
        defaults = strategy.defaults()
    except Exception:  # a plug-in's: its own cells fail with it, and say so
        return
    for key, value in settings.items():
        where = f"[settings.{strategy.name}]"
        if key not in defaults:
            raise UsageError(f'{where}: it has no hyperparameter "{key}".{nearest(key, defaults)}')
        if isinstance(defaults[key], int | float):
            if not is_range(value) and not isinstance(value, int | float):
                wanted = "a number, or a range { low = .., high = .. } to tune in"
                raise UsageError(f"{where} {key} = {shown(value)}: must be {wanted}.")
        elif is_range(value):
            raise UsageError(f"{where} {key} = {shown(value)}: a range, but {key} is not a number.")
    strategy.check_settings(settings)
    check_ranges(strategy, settings)


def _cell(
    matrix: Matrix,
    workspace: Path,
    choice: Choice,
    strategy: Strategy,
    source_hash: str,
    weights: tuple[str, str],
    opened: tuple[Dataset | None, str, str],
    natural: tuple[str, str],
) -> Cell:
    dataset, data_hash, data_error = opened
    second = strategy.second_domain and dataset is not None and dataset.target is None
    weights_hash, weights_error = weights if strategy.pretrained else ("random", "")
    hashes = {"source_hash": source_hash, "weights_hash": weights_hash, "data_hash": data_hash}
    if second:
        hashes["second_hash"] = natural[0]
    skip, error = "", data_error or weights_error or (natural[1] if second else "")
    if dataset and not error:
        skip, error = _obstacle(strategy, dataset.info, choice.backbone, choice.size)
    pixels = dataset.source_size(choice.size) if dataset else 0
    random = choice.backbone.weights == "random" and strategy.pretrained
    return Cell(
        **choice._asdict(),
        protocol=matrix.protocol,
        settings=matrix.settings.get(choice.strategy, {}),
        data_root=matrix.data_root,
        source_size=matrix.source_size,
        pixels=pixels,
        split_seed=matrix.split_seed,
        workspace=workspace,
        fingerprint=fingerprint(matrix, choice, pixels, hashes, dataset),
        seeds=matrix.seeds,
        hashes=hashes,
        info=dataset.info if dataset else None,
        family=strategy.family,
        pretrained=strategy.pretrained,
        transductive=strategy.transductive,
        natural=matrix.natural if second else "",
        notes=(dataset.notes if dataset else ()) + (("random weights",) if random else ()),
        skip=skip,
        error=error,
    )


def _weights(backbone: Backbone) -> tuple[str, str]:
    """(hash, error) of a backbone's weights."""
    try:
        return resolve(backbone).hash, ""
    except UsageError:
        raise
    except MedtransferError as error:
        return "unknown", str(error)


def _dataset(matrix: Matrix, name: str, size: int, workspace: Path) -> tuple[Dataset | None, str, str]:
    """(dataset, content hash, error)."""
    try:
        with reading(name):
            dataset = registry.open_dataset(name, matrix.data_root, matrix.split_seed, matrix.source_size, workspace)
            dataset.source_size(size)  # asked for again below, where nothing may be raised
            return dataset, dataset.content_hash(size), ""
    except UsageError:
        raise
    except MedtransferError as error:
        return None, "unknown", str(error)


def _natural(matrix: Matrix, strategies: Iterable[Strategy], workspace: Path) -> tuple[str, str]:
    """(content hash, error) of the natural images, where a strategy may want them."""
    if not any(strategy.second_domain for strategy in strategies):
        return "", ""
    try:
        return open_natural(matrix.natural, matrix.data_root, workspace).content_hash(0), ""
    except UsageError:
        raise
    except MedtransferError as error:
        return "unknown", str(error)


def _obstacle(strategy: Strategy, info: Info, backbone: Backbone, size: int) -> tuple[str, str]:
    """(why the cell is skipped, why it cannot run)."""
    try:
        return too_small(backbone, size) or strategy.applies(info, backbone) or "", ""
    except UsageError:
        raise
    except MedtransferError as error:
        return "", str(error)
    except Exception as error:  # `applies` is a plug-in's
        return "", f"{strategy.name}.applies raised {brief(error).rstrip('.')} ({place(error)}). Correct it."
