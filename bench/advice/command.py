"""The command `medtransfer advise`: from a dataset's name to an answer."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from pathlib import Path

import torch
from rich.console import RenderableType

from bench import device, registry
from bench.advice.answer import Advice, matrix_file, told
from bench.advice.available import available
from bench.advice.costs import parse_budget, relative, seconds
from bench.advice.knowledge import Knowledge, read
from bench.advice.likeness import likeness
from bench.advice.measured import Measured, measure
from bench.advice.predicted import Prediction, predict
from bench.advice.shortlist import Shortlist, shortlist
from bench.advice.sizes import chosen, lead
from bench.advice.validated import judged
from bench.advice.verdict import briefly, shown
from bench.cache import whole_file
from bench.config import Matrix
from bench.contract import Dataset
from bench.errors import UsageError, nearest
from bench.estimate import words
from bench.plan import make_plan
from bench.policies import POLICIES

SEEDS = 3
"""Fits per cell of the matrix that is written."""
AUGMENTED = "augment_domain"
"""The strategy that a modality of the user's own changes."""


@dataclass(frozen=True)
class Asked:
    """What the command line says."""

    data: str = ""
    reference: tuple[Path, ...] = ()
    """Empty for the study that comes with medtransfer."""
    leave_out: tuple[str, ...] = ()
    modality: str = ""
    """"" leaves it to the dataset."""
    budget: str = ""
    """"" sets no limit."""
    data_root: Path = Matrix.data_root
    device: str = "auto"
    out: Path = Path("advice.toml")


def said(asked: Asked, validate: bool, workspace: Path) -> Iterator[RenderableType]:
    """The answer, for a terminal; the matrix file is written. With `validate` how far such answers were right. Raises
    UsageError, DataError, WeightsError."""
    if validate:
        yield from _validated(read(asked.reference or (reference(),), asked.leave_out))
        return
    if not asked.data:
        raise UsageError("advise needs --data PATH.npz or a dataset's name (or --validate).")
    advice = advise(asked, workspace)
    with whole_file(asked.out) as path:
        path.write_text(matrix_file(advice.matrix), encoding="utf-8")
    yield from told(advice, asked.out)


def _validated(knowledge: Knowledge) -> Iterator[RenderableType]:
    """With all networks of the reference, and with those that can be loaded here where these are fewer."""
    yield from shown(judged(knowledge))
    found, absent = available(knowledge)
    if absent:
        yield from briefly(knowledge, [backbone.label for backbone in found])


def reference() -> Path:
    """The study that is read where none is named: in a checkout or inside an installed package."""
    package = Path(__file__).resolve().parents[1]
    installed = package / "builtin" / "reference"
    return installed if installed.is_dir() else package.parent / "results" / "reference"


def advise(asked: Asked, workspace: Path) -> Advice:
    """Measure, predict and choose. Raises UsageError, DataError, WeightsError."""
    if asked.modality and asked.modality not in POLICIES:
        raise UsageError(f"--modality {asked.modality}: not known.{nearest(asked.modality, POLICIES)}")
    budget = parse_budget(asked.budget) if asked.budget else math.inf
    where = device.pick(asked.device)
    name = _named(asked.data)
    dataset = registry.open_dataset(name, asked.data_root, workspace=workspace)
    if dataset.target is not None:
        raise UsageError(f"--data {name}: advice is for one domain. Give the source or the target alone.")
    knowledge = read(asked.reference or (reference(),), asked.leave_out)
    backbones, absent = available(knowledge)
    if not backbones:
        raise UsageError(f"no backbone of the reference can be used here: {absent[0]}.")
    protocol = knowledge.protocol(dataset.count("train"), len(dataset.info.classes))
    matrix = Matrix(
        backbones=tuple(backbones), strategies=(), datasets=(name,), sizes=(), results=Path("results", asked.out.stem),
        seeds=SEEDS, data_root=asked.data_root, device=asked.device, protocol=protocol,
    )  # fmt: skip
    modality = asked.modality or dataset.info.modality
    measured = [
        measure(dataset, size, [one for one in backbones if one.label in there], protocol, where, modality)
        for size, there in sorted(knowledge.sizes.items())
        if any(one.label in there for one in backbones)
    ]
    predictions = predict(knowledge, [one.facts for one in measured], together=True)
    options = [
        _option(*pair, matrix, knowledge, budget, where, workspace) for pair in zip(measured, predictions, strict=True)
    ]
    sizes = {one.measured.facts.size: one for one in options if one.costs}
    if not sizes:
        raise UsageError(f"nothing to advise: {'; '.join(options[-1].notes)}. Give more time or another --reference.")
    expected = {size: one.prediction for size, one in sizes.items()}
    size = chosen(expected)
    option, listed, matrix = _runnable(sizes[size], matrix, budget, workspace)
    if asked.modality and AUGMENTED in matrix.strategies:
        matrix = replace(matrix, settings={AUGMENTED: {"policy": asked.modality}})
    return Advice(
        measured=option.measured,
        likeness=likeness(
            option.measured.facts, knowledge.tasks_of(*option.prediction.candidates[listed.first]), knowledge.tasks
        ),
        prediction=option.prediction,
        costs=option.costs,
        shortlist=listed,
        matrix=matrix,
        known=knowledge.datasets,
        others={other: lead(expected[other], expected[size]) for other in expected if other != size},
        notes=[*dataset.notes, *_larger(dataset, knowledge), *knowledge.notes, *absent, *option.notes],
    )


def _larger(dataset: Dataset, knowledge: Knowledge) -> list[str]:
    """That images are larger than any size that is known, so that nothing is said of what they would do as they are."""
    own, known = dataset.stored_size() or 0, sorted(knowledge.sizes)
    if own <= known[-1]:
        return []
    return [
        f"the images are {own} px a side, but the reference knows {' and '.join(map(str, known))} px only, so nothing "
        "is said of larger ones (medtransfer run --size tries them)"
    ]


@dataclass(frozen=True, eq=False)
class _Option:
    """What could be run at one size."""

    measured: Measured
    prediction: Prediction
    costs: list[float]
    notes: list[str]

    def without(self, pairs: Mapping[tuple[str, str], str]) -> _Option:
        """Less candidates that are left out, and why."""
        costs = dict(zip(self.prediction.candidates, self.costs, strict=True))
        notes = [f"{strategy} on {backbone} is left out: {why}" for (strategy, backbone), why in pairs.items()]
        kept = [cost for pair, cost in costs.items() if pair not in pairs]
        return replace(self, prediction=self.prediction.without(pairs), costs=kept, notes=self.notes + notes)


def _option(
    measured: Measured, prediction: Prediction, matrix: Matrix, knowledge: Knowledge, budget: float,
    where: torch.device, workspace: Path,
) -> _Option:  # fmt: skip
    """The candidates of strategies that are here, each within the budget."""
    here = registry.strategies(workspace)
    unknown = dict.fromkeys(strategy for strategy, _ in prediction.candidates if strategy not in here)
    notes = [f"{strategy} is left out: there is no such strategy here" for strategy in unknown]
    measured_on = [one for one in matrix.backbones if one.label in measured.facts.probe]
    spent = seconds(measured_on, relative(knowledge), measured.facts, matrix, where)
    prediction = prediction.without([pair for pair in prediction.candidates if pair[0] in unknown])
    fitting = prediction.without([pair for pair in prediction.candidates if spent[pair] > budget])
    if dear := len(prediction.candidates) - len(fitting.candidates):
        least = words(min(spent[pair] for pair in prediction.candidates))
        notes.append(
            f"{dear} of {len(prediction.candidates)} candidates do not fit --budget: the cheapest takes {least}"
        )
    return _Option(measured, fitting, [spent[pair] for pair in fitting.candidates], notes)


def _runnable(option: _Option, matrix: Matrix, budget: float, workspace: Path) -> tuple[_Option, Shortlist, Matrix]:
    """The short list, none of whose cells would be skipped, and the matrix that runs it. Only what is listed is
    planned: to ask every strategy about every backbone takes longer than all the rest."""
    while option.costs and (listed := shortlist(option.prediction, option.costs, budget)):
        pairs = [option.prediction.candidates[at] for at in listed.cells]
        strategies, labels = (tuple(dict.fromkeys(pair[side] for pair in pairs)) for side in (0, 1))
        backbones = {one.label: one for one in matrix.backbones}
        own = replace(
            matrix, strategies=strategies, backbones=tuple(backbones[label] for label in labels),
            sizes=(option.measured.facts.size,),
        )  # fmt: skip
        cells = make_plan(own, workspace).cells
        refused = {(c.strategy, c.backbone.label): c.skip or c.error for c in cells if c.skip or c.error}
        if not refused:
            return option, listed, own
        option = option.without(refused)
    raise UsageError(f"nothing to advise: {'; '.join(option.notes)}. Give another --reference.")


def _named(data: str) -> str:
    """A path as the dataset's name that opens it: my.npz -> npz:my.npz."""
    for ending, prefix in ((".npz", "npz:"), (".csv", "csv:")):
        if data.endswith(ending) and ":" not in data:
            return prefix + data
    return f"folder:{data}" if ":" not in data and Path(data).is_dir() else data
