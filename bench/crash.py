"""What a user can paste where something went wrong that nobody foresaw."""

from __future__ import annotations

import os
import platform
import sys
import tempfile
import traceback
from datetime import UTC, datetime
from importlib import metadata
from pathlib import Path

from bench import __version__


def crash_report(error: BaseException, command: str) -> Path:
    """Write the report to a file of its own for temporary files, readable by its owner only. Raises OSError."""
    handle, name = tempfile.mkstemp(prefix="medtransfer-crash-", suffix=".txt")
    with open(handle, "w", encoding="utf-8", errors="backslashreplace") as file:
        file.write(text_of(error, command))
    return Path(name)


def text_of(error: BaseException, command: str) -> str:
    """Versions, machine, command, traceback and the last events in the logs. The home directory is written as ~, since
    the text is meant for others' eyes."""
    parts = {
        "when": datetime.now(UTC).isoformat(timespec="seconds"),
        "command": command,
        "machine": f"{platform.platform()}, {os.cpu_count()} cores",
        "versions": _versions(),
        "traceback": "".join(traceback.format_exception(error)).rstrip(),
        "last events": "\n".join(_events()) or "none",
    }
    text = "\n\n".join(f"## {name}\n{value}" for name, value in parts.items())
    return f"# medtransfer crash report\n\n{text}\n".replace(str(Path.home()), "~")


def _versions() -> str:
    """Of what is installed; a broken installation may be why this is asked."""
    names = ("torch", "torchvision", "timm", "numpy", "optuna", "pandas", "ray")
    found = [f"medtransfer {__version__}", f"python {platform.python_version()}"]
    for name in names:
        try:
            found.append(f"{name} {metadata.version(name)}")
        except metadata.PackageNotFoundError:
            found.append(f"{name} not installed")
    return "\n".join(found)


def _events() -> list[str]:
    logs = sys.modules.get("bench.logs")  # not loaded where no cell was run
    return list(logs.recent) if logs else []
