"""import and pretrain: the commands that bring in predictions and weights."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.console import Console

from bench.commands.app import DATA_ROOT, DataRoot, Debug, app, guarded
from bench.commands.selectors import SELECTORS


@app.command("import")
def import_(
    files: Annotated[
        list[Path],
        typer.Argument(help="As medmnist's Evaluator writes them: breastmnist_test_..@0.csv, .._val_..@0.csv."),
    ],
    name: Annotated[str, typer.Option("--name", help="What the rows are called, in the place of a backbone.")],
    results: Annotated[Path, typer.Option("--results", help="The results folder that they are added to.")],
    dataset: Annotated[str, typer.Option("--dataset", help="Where the files' names do not say it.")] = "",
    size: Annotated[int, typer.Option("--size", help="Pixels of the cells to compare with [as the name says].")] = 0,
    data_root: DataRoot = DATA_ROOT,
    debug: Debug = False,
) -> None:
    """Add predictions made elsewhere to a results folder, to compare with and to be members of ensembles."""

    def action() -> bool:
        from bench.imported import import_predictions, seeds_of

        before = seeds_of(name, results)
        rows = import_predictions(files, name, results, data_root, Path.cwd(), dataset, size)
        for row in rows:
            val = f", val AUC {row['val_auc']:.3f}" if "val_auc" in row else ", no val predictions"
            typer.echo(
                f"{row['dataset']} {row['size']} px · {name} · seed {row['seed']}: test AUC {row['test_auc']:.3f}{val}"
            )
        for place in dict.fromkeys((row["dataset"], row["size"]) for row in rows):
            if seeds := before.get(place):
                said = f"seed{'s' if len(seeds) > 1 else ''} {', '.join(map(str, seeds))} of {name} there"
                typer.echo(f"{place[0]} {place[1]} px: replaces {said}. To keep them, import all runs in one command.")
        typer.echo(f"next: medtransfer report {results}, or a run of its matrix with an ensemble over all")
        return True

    guarded(action, debug)


@app.command()
def pretrain(
    recipe: Annotated[Path, typer.Argument(help="A recipe file (TOML), such as bench/weights/recipe.toml.")],
    images: Annotated[str | None, typer.Option("--images", help="npz:PATH or folder:PATH.")] = None,
    epochs: Annotated[int | None, typer.Option("--epochs", help="Epochs for each network.")] = None,
    device: Annotated[str | None, typer.Option("--device", help=SELECTORS["device"][2])] = None,
    out: Annotated[str | None, typer.Option("--out", help="Folder for weights and logs [weights].")] = None,
    debug: Debug = False,
) -> None:
    """Pretrain networks on natural images, as the bundled weights were made. Goes on where it was interrupted."""

    def action() -> bool:
        from rich.progress import track

        from bench.pretrain import pretrain
        from bench.recipe import load_recipe

        console = Console()
        given = {"images": images, "epochs": epochs, "device": device, "out": out}

        def say(text: str) -> None:
            console.print(text, highlight=False, markup=False, soft_wrap=True)

        def watch(steps: Sequence[Any], text: str) -> Iterable[Any]:
            return track(steps, text, console=console, transient=True, disable=not console.is_terminal)

        pretrain(load_recipe(recipe, given), say, watch)
        return True

    guarded(action, debug)
