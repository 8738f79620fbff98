"""A matrix on the command line: its file or preset, and the options that override what that says."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Iterable
from typing import Annotated, Any

import typer

from bench.commands.app import Debug, app, guarded

MATRIX = "A matrix file (TOML) or preset: demo, quick, standard, full, medmnist-v2."
# Key of the matrix file -> flag, type and help. Lists may be given several times.
SELECTORS: dict[str, tuple[str, Any, str]] = {
    "backbones": (
        "--backbone",
        list[str],
        "Its name in the matrix, MODEL, MODEL[:CUT], MODEL@file:PATH or MODEL@random; MODEL may be bundled:NAME.",
    ),
    "strategies": ("--strategy", list[str], "A strategy (`medtransfer list strategies`)."),
    "datasets": ("--dataset", list[str], "Its name, npz:PATH, folder:PATH, csv:PATH, or 'SOURCE->TARGET'."),
    "sizes": ("--size", list[int], "Side of the images in pixels."),
    "fractions": ("--fraction", list[float], "Share of the training images of each class."),
    "per_class": ("--per-class", list[int], "Number of training images of each class."),
    "seeds": ("--seeds", int, "Fits per cell."),
    "trials": ("--trials", int, "Sets of hyperparameters tried per cell."),
    "epochs": ("--epochs", int, "Epochs per fit."),
    "data_root": ("--data-root", str, "Folder of the MedMNIST files."),
    "natural": ("--natural", str, "Natural images of a second domain: skimage, cifar10, folder:PATH or npz:PATH."),
    "results": ("--results", str, "Folder that this run writes to."),
    "device": ("--device", str, "auto, cpu, cuda[:N] or mps."),
    "jobs": ("--jobs", int, "Cells run at the same time."),
    "executor": ("--executor", str, "local (processes on this machine) or ray."),
    "address": ("--address", str, "Of a Ray cluster; auto: the one of this machine; local: a new one here [local]."),
    "shard": ("--shard", str, "i/n: run the i-th of n parts of the cells, beside the others on a shared folder."),
    "time_limit": ("--time-limit", float, "Minutes after which a cell is given up."),
    "deterministic": ("--deterministic", bool, "Give the same bits again on a GPU, too (slower)."),
    "only": (
        "--only",
        list[str],
        "Only cells with KEY=PATTERN: dataset, backbone, strategy, size, fraction, per_class.",
    ),
}
METAVAR = {list[str]: "NAME", str: "TEXT", list[int]: "N", int: "N", list[float]: "SHARE", float: "MIN", bool: None}


def matrix_command(name: str, keys: Iterable[str] = SELECTORS, **flags: str) -> Callable[[Callable[..., bool]], None]:
    """Registers action(matrix, debug, **flags) as a command with the selectors `keys` and flags (name -> help)."""
    parameters: dict[str, tuple[Any, Any]] = {
        "source": (Annotated[str, typer.Argument(metavar="MATRIX", help=MATRIX)], "demo")
    }
    for key in keys:
        option, kind, text = SELECTORS[key]
        parameters[key] = (Annotated[kind | None, typer.Option(option, metavar=METAVAR[kind], help=text)], None)
    for key, text in flags.items():
        parameters[key] = (Annotated[bool, typer.Option("--" + key.replace("_", "-"), help=text)], False)
    parameters["debug"] = (Debug, False)

    def register(action: Callable[..., bool]) -> None:
        def command(**given: Any) -> None:
            def load_and_act() -> bool:
                from bench.config import load

                matrix = load(given["source"], {key: given[key] for key in keys})
                return action(matrix, given["debug"], **{key: given[key] for key in flags})

            guarded(load_and_act, given["debug"])

        # typer reads a function's signature; this one is made from the table above.
        command.__annotations__ = {key: annotation for key, (annotation, _) in parameters.items()}
        command.__signature__ = inspect.Signature(  # type: ignore[attr-defined]
            [
                inspect.Parameter(key, inspect.Parameter.KEYWORD_ONLY, default=default, annotation=annotation)
                for key, (annotation, default) in parameters.items()
            ]
        )
        app.command(name, help=action.__doc__)(command)

    return register
