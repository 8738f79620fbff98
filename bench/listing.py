"""`medtransfer list`: what there is, as lines and tables for the terminal."""

from __future__ import annotations

import fnmatch
import inspect
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path

from rich.console import RenderableType
from rich.markup import escape
from rich.progress import track
from rich.table import Table

from bench import config, corruptions, registry, shift
from bench.audit import Audit, audit
from bench.contract import Dataset, Fusion, Info, Strategy
from bench.download import offline
from bench.errors import DataError, MedtransferError, NotHere, UsageError, brief, nearest, reading
from bench.strengths import STRENGTHS

SIZES = (28, 64, 128, 224)
"""Sides in pixels at which a dataset's images are looked for, in this order."""


def strategies(names: Sequence[str], data_root: Path) -> Iterator[RenderableType]:
    """Name, share of the parameters that it trains, whether it uses a second domain, the first line of what it says of
    itself, family, paper, and a mark where its predictor adapts to the test images."""
    from bench.trained import NETWORK, trained_share

    found: dict[str, Strategy | Fusion] = {**registry.strategies(Path.cwd()), **registry.fusions(Path.cwd())}
    # Family and paper below the text: columns of their own would leave it a few letters of a narrow terminal.
    table = _table("strategy", "trains", "2nd domain", "what it does; family; paper")
    chosen = _chosen(names, list(found), "strategy")
    for name in track(chosen, "measuring (once)", transient=True, disable=not sys.stdout.isatty()):
        says = (inspect.getdoc(type(found[name])) or "").partition("\n")[0]
        if isinstance(one := found[name], Fusion):
            table.add_row(escape(name), "-", "no", f"{escape(says)}\n[dim]{escape(f'{one.family}; {one.paper}')}[/dim]")
            continue
        try:
            trains = f"{trained_share(name, Path.cwd()):.1%}"
        except Exception as error:  # a strategy of the user's own that does not run is listed all the same
            trains = f"does not run: {brief(error)}"
        second = "yes" if one.second_domain else "no"
        seen = "transductive" if one.transductive else ""
        origin = "; ".join(filter(None, (one.family, seen, one.paper)))
        table.add_row(escape(name), escape(trains), second, f"{escape(says)}\n[dim]{escape(origin)}[/dim]")
    yield table
    yield f"trains: share of the parameters, by the strategy's defaults on {NETWORK.label}."
    if any(isinstance(one := found[name], Strategy) and one.transductive for name in chosen):
        yield "transductive: its predictor adapts to the unlabelled test images themselves, which others never see."


def presets(names: Sequence[str], data_root: Path) -> Iterator[RenderableType]:
    """Name, number of cells and what the file's comment says."""
    table = _table("preset", "cells", "seeds", "what it is")
    fusions = registry.fusions(Path.cwd())
    for name in _chosen(names, list(config.presets()), "preset"):
        path = config.presets()[name]
        matrix = config.load(name)
        singles = [one for one in matrix.strategies if one not in fusions]
        lists = (matrix.backbones, singles, matrix.datasets, matrix.sizes, matrix.amounts)
        cells = 1
        for entries in lists:
            cells *= len(entries)
        comment = path.read_text(encoding="utf-8").partition("\n")[0].removeprefix(f"# {name}: ").rstrip(",")
        table.add_row(name, str(cells), str(matrix.seeds), escape(comment))
    yield table


def backbones(names: Sequence[str], data_root: Path) -> Iterator[RenderableType]:
    """The bundled weights, or what timm has pretrained weights for under a pattern."""
    if not names:
        from bench.weights_origin import BUNDLED, FOLDER

        table = _table("backbone", "network", "arguments")
        for name, bundled in BUNDLED.items():
            arguments = ", ".join(f"{key} = {value}" for key, value in bundled.kwargs.items())
            table.add_row(*map(escape, (f"bundled:{name}", bundled.model, arguments)))
        yield table
        yield f"What they were pretrained on, how, and what they score: {FOLDER / 'README.md'}"
        yield "Any convolutional network of timm will do. Names: medtransfer list backbones 'resnet*'"
        return
    import timm

    for pattern in names:
        if not (found := timm.list_pretrained(pattern) or timm.list_pretrained(f"{pattern}.*")):
            raise UsageError(f'timm has no pretrained network "{pattern}". Use a pattern, such as "resnet*".')
        yield "\n".join(map(escape, found))


def datasets(names: Sequence[str], data_root: Path) -> Iterator[RenderableType]:
    """Of each dataset on this machine: hash, licence, counts and duplicates across splits; nothing is downloaded.
    Raises DataError, after all of them, where one that is here cannot be read."""
    known = [name for name in registry.datasets(Path.cwd()) if not name.endswith(":")]
    infos, unreadable = [], []
    for name in names or known:
        try:
            with reading(name):
                dataset = registry.open_dataset(name, data_root, workspace=Path.cwd())
                said = [_facts(dataset), *(f"  {line}" for line in _images(dataset))]
            infos.append(dataset.info)
        except UsageError:
            raise
        except MedtransferError as error:
            unreadable.append(name)
            said = [f"[red]cannot be read[/red]: {escape(str(error))}"]
        yield f"[bold]{escape(name)}[/bold]  " + "\n".join(said)
    if not names:
        prefixes = [name for name in registry.datasets(Path.cwd()) if name.endswith(":")]
        yield "Own images: " + ", ".join(f"{prefix}PATH" for prefix in prefixes)
        yield from _shifts(infos)
    if unreadable:
        raise DataError(f"{', '.join(unreadable)}: cannot be read, for the reasons above.")


def _shifts(infos: Sequence[Info]) -> Iterator[str]:
    """How the two domains of a shift are written, and which there are."""
    yield "\n[bold]Shifts[/bold], SOURCE->TARGET: train and val of one domain, test of another one; the same classes"
    yield "  " + escape(", ".join(shift.pairs(infos)))
    yield "  Own images: folder:PATH->folder:PATH, csv:PATH@DOMAIN->@DOMAIN (two values of its column domain), ..."
    yield f"  The same images corrupted: NAME->corrupted:KIND-SEVERITY, severity 1 to {corruptions.SEVERITIES}. Kinds:"
    for modality in dict.fromkeys(info.modality for info in infos):
        found = dict.fromkeys(kind for info in infos if info.modality == modality for kind in corruptions.of(info))
        yield f"  {modality}: {', '.join(found)}"
    if "unknown" not in {info.modality for info in infos}:
        yield f"  own images: {', '.join(STRENGTHS['unknown'])}"


def _facts(dataset: Dataset) -> str:
    info = dataset.info
    licence = escape(info.licence) + (" [bold red]NON-COMMERCIAL[/bold red]" if info.noncommercial else "")
    return f"{info.kind}, {len(info.classes)} classes, {info.modality}, licence {licence}"


def _images(dataset: Dataset) -> list[str]:
    reasons = []
    with offline():
        for size in SIZES:
            try:
                return _audited(audit(dataset, size))
            except NotHere as error:  # another size may be
                reasons.append(str(error))
    return [f"[yellow]not here[/yellow]: {escape(reasons[0])}"]


def _audited(found: Audit) -> list[str]:
    lines = [f"{found.source_size} px, hash {found.content_hash[:16]}"]
    for split, images in found.sizes.items():
        counts = "; ".join(f"{escape(label)} {count}" for label, count in found.class_counts[split].items())
        lines.append(f"{split} {images}: {counts}")
    duplicates = [f"{o.first}/{o.second} {o.exact} exact, {o.near} near" for o in found.overlaps]
    lines.append("duplicates: " + "; ".join(duplicates))
    if found.blank:
        lines.append(f"blank images: {found.blank}")
    return lines + [escape(line) for line in (found.sampled, *found.notes) if line]


def _chosen(patterns: Sequence[str], known: list[str], noun: str) -> list[str]:
    for pattern in patterns:
        if not fnmatch.filter(known, pattern):
            raise UsageError(f'No {noun} "{pattern}".{nearest(pattern, known)}')
    return [name for name in known if not patterns or any(fnmatch.fnmatch(name, pattern) for pattern in patterns)]


def _table(*columns: str) -> Table:
    table = Table(box=None, pad_edge=False, header_style="bold")
    for column in columns:
        table.add_column(column, overflow="fold")
    return table
