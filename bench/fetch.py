"""`medtransfer fetch`: datasets and weights of a matrix brought to this machine, for later use without internet."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import cast

from rich.console import Console
from rich.markup import escape

from bench import registry
from bench.backbones import resolve
from bench.config import Matrix
from bench.contract import Dataset
from bench.errors import MedtransferError
from bench.listing import SIZES
from bench.natural_reference import open_natural


def fetch(matrix: Matrix, workspace: Path, console: Console) -> bool:
    """Download what is missing, go on where something fails; True where everything is there. Raises UsageError."""
    complete = True
    for what, get in _wanted(matrix, workspace):
        try:
            with console.status(escape(what)):
                get()
            console.print(f"{escape(what)}: [green]here[/green]")
        except MedtransferError as error:
            complete = False
            console.print(f"{escape(what)}: [red]failed[/red]: {escape(str(error))}", soft_wrap=True)
    return complete


def _wanted(matrix: Matrix, workspace: Path) -> Iterator[tuple[str, Callable[[], object]]]:
    for backbone in matrix.backbones:
        yield f"weights of {backbone.label}", partial(resolve, backbone)
    for name in matrix.datasets:
        for size in matrix.sizes:
            # The file's size is asked for: a set that is here at 28 px only would else be enlarged and not downloaded.
            source_size = matrix.source_size or next((side for side in SIZES if side >= size), SIZES[-1])
            yield f"{name} at {source_size} px", partial(_images, matrix, name, source_size, workspace)
    fusions = registry.fusions(workspace)
    strategies = [registry.load_strategy(name, workspace) for name in matrix.strategies if name not in fusions]
    if any(strategy.second_domain for strategy in strategies):
        yield f"natural images {matrix.natural}", partial(_natural, matrix, workspace)


def _images(matrix: Matrix, name: str, size: int, workspace: Path) -> None:
    dataset = registry.open_dataset(name, matrix.data_root, matrix.split_seed, size, workspace)
    for domain in (dataset.source, dataset.target) if dataset.target else (dataset,):
        cast(Dataset, domain).load("train", size)


def _natural(matrix: Matrix, workspace: Path) -> None:
    open_natural(matrix.natural, matrix.data_root, workspace).load("train", min(matrix.sizes))
