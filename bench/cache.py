"""Where things made once are kept, and files that are there whole or not at all."""

from __future__ import annotations

import logging
import os
import tempfile
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path

import numpy as np

from bench.errors import DataError

log = logging.getLogger(__name__)


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


def filled(target: Path, shape: tuple[int, ...], image: Callable[[int], np.ndarray], what: str) -> np.ndarray:
    """uint8 image(0), image(1), ... as a read-only memory map of the .npy file `target`; made on first use, in threads,
    each image straight to its place on disk. Raises DataError."""
    if not target.exists():
        log.info("making %d images of %s once, to %s", shape[0], what, target)
        try:
            with whole_file(target) as temporary:
                _fill(temporary, shape, image)
        except OSError as error:
            raise DataError(
                f"{target}: cannot be written ({error.strerror}). Free disk space or set XDG_CACHE_HOME."
            ) from error
    return np.load(target, mmap_mode="r", allow_pickle=False)


def _fill(path: Path, shape: tuple[int, ...], image: Callable[[int], np.ndarray]) -> None:
    out = np.lib.format.open_memmap(path, mode="w+", dtype=np.uint8, shape=shape)

    def put(index: int) -> None:
        out[index] = image(index)

    with ThreadPoolExecutor(os.cpu_count()) as pool:
        try:
            for _ in pool.map(put, range(shape[0])):
                pass
        except BaseException:
            pool.shutdown(cancel_futures=True)
            raise
    out.flush()
