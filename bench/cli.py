"""The command `medtransfer`. Its commands register themselves with the application, in the order of `--help`."""

# ruff: isort: skip_file
from __future__ import annotations

from bench.commands import run  # noqa: F401
from bench.commands import report  # noqa: F401
from bench.commands import advise  # noqa: F401
from bench.commands import bring  # noqa: F401
from bench.commands import plugins  # noqa: F401
from bench.commands.app import app


def main() -> None:
    app(prog_name="medtransfer")
