"""What every command shares: the application, and how an error becomes a line and an exit code.

Exit codes: 0 all ok, 1 some cells failed, 2 wrong usage, 3 `compare --fail-under` found a regression, 130 interrupted.
"""

from __future__ import annotations

import errno
import logging
import shlex
import signal
import sys
import traceback
from collections.abc import Callable
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console

from bench import __version__
from bench.errors import MedtransferError, Regression, UsageError, printable

# torch and timm take seconds to import: every command imports what it needs, so that --help is instant.
app = typer.Typer(no_args_is_help=True, add_completion=False, pretty_exceptions_enable=False, rich_markup_mode=None)
Debug = Annotated[bool, typer.Option("--debug", help="Show the traceback of an error.")]
DataRoot = Annotated[Path, typer.Option("--data-root", help="Folder of the MedMNIST files.")]
DATA_ROOT = Path("data/medmnist")
DISK = (errno.ENOSPC, errno.EDQUOT, errno.EROFS, errno.EACCES, errno.EPERM)
"""Errors of the system that are no fault of the program."""


def _told_version(wanted: bool) -> None:
    if wanted:
        typer.echo(f"medtransfer {__version__}")
        raise typer.Exit


@app.callback()
def _main(
    version: Annotated[
        bool, typer.Option("--version", help="Show the version and exit.", callback=_told_version, is_eager=True)
    ] = False,
) -> None:
    """Options before a command's name."""


def guarded(action: Callable[[], bool], debug: bool = False) -> None:
    """Run a command; False is exit code 1."""
    logging.basicConfig(format="%(message)s", level=logging.WARNING)
    logging.getLogger("bench").setLevel(logging.INFO)
    try:
        code = 0 if action() else 1
    except KeyboardInterrupt:
        before = signal.signal(signal.SIGINT, signal.SIG_IGN)  # a second Ctrl-C shall not tear the line
        typer.echo(
            f"\ninterrupted. What is finished is kept; to go on, run the same command:\n  {command_line()}", err=True
        )
        signal.signal(signal.SIGINT, before)
        code = 130
    except Exception as error:
        code = 2 if isinstance(error, UsageError) else 3 if isinstance(error, Regression) else 1
        if debug:
            traceback.print_exc()
        if isinstance(error, MedtransferError):
            typer.echo(f"error: {error}", err=True)
        elif isinstance(error, OSError) and error.errno in DISK:
            where = printable(str(error.filename or "the disk"))
            typer.echo(f"error: {where}: {error.strerror}. Free disk space, or check who may write there.", err=True)
        else:
            said = f"{type(error).__name__}: {printable(str(error))}"
            typer.echo(f"error: {said} ({_kept(error)})", err=True)
    raise typer.Exit(code)


def _kept(error: Exception) -> str:
    from bench.crash import crash_report

    try:
        return f"to report it, paste {crash_report(error, command_line())}"
    except OSError:
        return "run again with --debug for the traceback"


def command_line() -> str:
    return shlex.join(["medtransfer", *sys.argv[1:]])


def warn_of_broken(console: Console) -> None:
    from bench.registry import broken

    for path, why in broken(Path.cwd()).items():
        console.print(f"warning: {path} is left out: {why}", style="yellow", markup=False, soft_wrap=True)
