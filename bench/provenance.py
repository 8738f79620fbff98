"""Where a row came from: code, libraries, machine, time."""

from __future__ import annotations

import importlib.metadata
import json
import subprocess
from datetime import UTC, datetime
from functools import lru_cache
from pathlib import Path

import bench

LIBRARIES = ("torch", "torchvision", "timm", "medmnist", "optuna", "numpy", "scikit-learn")


@lru_cache(maxsize=1)
def code() -> dict[str, object]:
    """git commit and dirty flag of the checkout that runs (null for an installed package), and versions as JSON."""
    checkout = Path(bench.__file__).resolve().parents[1]
    commit = dirty = None
    if (checkout / ".git").exists():
        commit = _git(checkout, "rev-parse", "HEAD")
        status = _git(checkout, "status", "--porcelain", "--untracked-files=no")
        dirty = None if status is None else bool(status)
    versions = {"medtransfer": bench.__version__, "python": _python()}
    versions |= {name: importlib.metadata.version(name) for name in LIBRARIES}
    return {"git_commit": commit, "git_dirty": dirty, "versions": json.dumps(versions)}


def utc() -> str:
    """Now, as ISO 8601 with milliseconds: what tells an older row from a newer one."""
    return datetime.now(UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")


def _git(folder: Path, *command: str) -> str | None:
    try:
        done = subprocess.run(["git", "-C", str(folder), *command], capture_output=True, text=True, timeout=10)
    except (FileNotFoundError, subprocess.TimeoutExpired):
        return None  # no git here: the columns stay empty
    return done.stdout.strip() if done.returncode == 0 else None


def _python() -> str:
    import platform

    return platform.python_version()
