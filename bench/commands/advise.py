"""advise: which strategies and backbones are worth running."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console

from bench.commands.app import DATA_ROOT, DataRoot, Debug, app, guarded
from bench.commands.selectors import SELECTORS


@app.command()
def advise(
    data: Annotated[str, typer.Option("--data", help="Your images: PATH.npz, a folder, or a dataset's name.")] = "",
    budget: Annotated[str, typer.Option("--budget", help="Time that the matrix may take: 90s, 10min, 2h.")] = "",
    modality: Annotated[str, typer.Option("--modality", help="ultrasound, x-ray, ..., where data do not say.")] = "",
    reference: Annotated[
        list[Path] | None, typer.Option("--reference", help="Results folders to learn from [the reference study].")
    ] = None,
    leave_out: Annotated[
        list[str] | None, typer.Option("--leave-out", metavar="NAME", help="A dataset not to learn from.")
    ] = None,
    validate: Annotated[
        bool, typer.Option("--validate", help="Say how far advice was right on each dataset of the reference.")
    ] = False,
    data_root: DataRoot = DATA_ROOT,
    device: Annotated[str, typer.Option("--device", help=SELECTORS["device"][2])] = "auto",
    out: Annotated[Path, typer.Option("--out", help="The matrix file that is written.")] = Path("advice.toml"),
    debug: Debug = False,
) -> None:
    """Say which strategies and backbones are worth running on your images, and write a matrix file of them."""

    def action() -> bool:
        from bench.advice.command import Asked, said

        asked = Asked(data, tuple(reference or ()), tuple(leave_out or ()), modality, budget, data_root, device, out)
        console = Console()
        for item in said(asked, validate, Path.cwd()):
            console.print(item, soft_wrap=isinstance(item, str), highlight=False)
        return True

    guarded(action, debug)
