"""list, check and new: the commands about plug-ins."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console

from bench.commands.app import DATA_ROOT, DataRoot, Debug, app, guarded, warn_of_broken
from bench.errors import UsageError, nearest

new = typer.Typer(no_args_is_help=True, rich_markup_mode=None)
app.add_typer(new, name="new", help="Write a small plug-in that works, to start from.")


LISTINGS = ("strategies", "datasets", "backbones", "presets")
"""What `medtransfer list` can show."""


@app.command("list")
def list_(
    what: Annotated[
        str | None, typer.Argument(metavar=f"[{'|'.join(LISTINGS)}]", help="Default: strategies, datasets and presets.")
    ] = None,
    names: Annotated[
        list[str] | None, typer.Argument(help="Only these; a pattern such as 'resnet*' for backbones.")
    ] = None,
    data_root: DataRoot = DATA_ROOT,
    debug: Debug = False,
) -> None:
    """Show strategies, datasets, backbones, presets.

    `list datasets` reads the images that are on this machine: hash, licence, classes, duplicates across splits."""

    def action() -> bool:
        from bench import listing

        if what and what not in LISTINGS:
            raise UsageError(f"list {what}: there is no such list.{nearest(what, LISTINGS)}")
        console = Console()
        warn_of_broken(console)
        for kind in [what] if what else ["strategies", "presets", "datasets"]:
            for item in getattr(listing, kind)(names or [], data_root):
                console.print(item, soft_wrap=isinstance(item, str))
            console.print()
        return True

    guarded(action, debug)


@app.command()
def check(
    file: Annotated[Path, typer.Argument(help="A strategy's file, such as strategies/mine.py, or its name.")],
    debug: Debug = False,
) -> None:
    """Run the contract suite on one strategy."""

    def action() -> bool:
        from bench import registry
        from bench.check import check_strategy

        path = file if file.suffix or file.exists() else registry.source(str(file), Path.cwd())
        return check_strategy(path, Console())

    guarded(action, debug)


@new.command()
def strategy(name: Annotated[str, typer.Argument(help="Its name, such as head_first.")], debug: Debug = False) -> None:
    """Write strategies/NAME.py, a strategy of ten lines that passes `medtransfer check`."""

    def action() -> bool:
        from bench.scaffold import new_strategy

        path = new_strategy(name, Path.cwd()).relative_to(Path.cwd())
        typer.echo(f"{path} is written. Next:\n  medtransfer check {path}\n  medtransfer run --strategy {name}")
        return True

    guarded(action, debug)
