"""Where things made once are kept, and files that are there whole or not at all."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from bench.errors import DataError


def cache_folder(name: str) -> Path:
    """`$XDG_CACHE_HOME/medtransfer/NAME` (by default under `~/.cache`), made if need be. Raises DataError."""
    folder = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "medtransfer" / name
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise DataError(
            f"{folder}: the cache folder cannot be made ({error.strerror}). Set XDG_CACHE_HOME to a writable folder."
        ) from error
    return folder


@contextmanager
def whole_file(path: Path) -> Iterator[Path]:
    """A temporary path beside `path` to write to; it becomes `path` when the block ends well, else it is removed. It is
    on the disk before it has its name, so that a power cut leaves all of it or nothing."""
    handle, name = tempfile.mkstemp(prefix=f".{path.name}.", suffix=".part", dir=path.parent)
    os.close(handle)
    temporary = Path(name)
    try:
        yield temporary
        with temporary.open("rb") as written:
            os.fsync(written.fileno())
        temporary.chmod(0o644)  # mkstemp's 0600 would hide a shared folder's data from colleagues
        os.replace(temporary, path)
    finally:
        temporary.unlink(missing_ok=True)
