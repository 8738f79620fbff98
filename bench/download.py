"""Files whose MD5 is known: fetched whole or not at all, and checked before they are believed."""

from __future__ import annotations

import hashlib
import http.client
import logging
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from pathlib import Path

from bench.cache import cache_folder, whole_file
from bench.errors import DataError, NotHere

log = logging.getLogger(__name__)
CHUNK = 1 << 20
REMEMBER = 64 << 20
"""Files from this many bytes on have their MD5 remembered: hashing 13 GB takes half a minute."""

_failed: dict[tuple[str, Path], str] = {}
"""(URL, path) of downloads that failed in this process -> why: they are not tried again for every cell."""
_offline: ContextVar[bool] = ContextVar("offline", default=False)


@contextmanager
def offline() -> Iterator[None]:
    """What is not on this machine is a NotHere in the block, instead of a download."""
    token = _offline.set(True)
    try:
        yield
    finally:
        _offline.reset(token)


def fetch(url: str, path: Path, md5: str, timeout: float = 60.0) -> None:
    """Download `url` to `path`. Raises DataError (with nothing left behind) unless all of it came and has that MD5;
    what failed once is not tried again by this process."""
    if _offline.get():
        raise NotHere(f"{path} is not there. `medtransfer fetch` downloads it.")
    if (url, path) in _failed:
        raise DataError(_failed[url, path])
    try:
        _fetch(url, path, md5, timeout)
    except DataError as error:
        _failed[url, path] = str(error)
        raise


def _fetch(url: str, path: Path, md5: str, timeout: float) -> None:
    by_hand = f"Download it elsewhere, put it into {path.parent} as {path.name}, and run again."
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with whole_file(path) as temporary:
            log.info("downloading %s", url)
            found = _stream(url, temporary, timeout)
            if found != md5:
                raise DataError(f"{url}: the download has MD5 {found}, expected {md5}. {by_hand}")
    except (OSError, http.client.HTTPException, ValueError) as error:
        raise DataError(f"{url}: cannot be downloaded ({error}). {by_hand}") from error


def verify(path: Path, md5: str) -> None:
    """Raises DataError, with both hashes, unless the file at `path` has that MD5."""
    try:
        found = _remembered_md5(path)
    except OSError as error:
        raise DataError(f"{path}: cannot be read ({error.strerror}). Check the file and its permissions.") from error
    if found != md5:
        raise DataError(
            f"{path}: MD5 is {found}, expected {md5}: the file is damaged, cut short or another version. "
            "Delete it and download it again."
        )


def _stream(url: str, target: Path, timeout: float) -> str:
    """Writes the body of `url` to `target` and returns its MD5."""
    digest, done = hashlib.md5(usedforsecurity=False), 0
    with urllib.request.urlopen(url, timeout=timeout) as response, target.open("wb") as file:
        total = int(response.headers.get("Content-Length") or 0)
        while chunk := response.read(CHUNK):
            file.write(chunk)
            digest.update(chunk)
            if total and done * 10 // total != (done + len(chunk)) * 10 // total:
                log.info("%s: %d of %d MB", target.name, (done + len(chunk)) >> 20, total >> 20)
            done += len(chunk)
    if total and done != total:  # read(n) does not raise when the server hangs up early
        raise ValueError(f"connection closed after {done} of {total} bytes")
    return digest.hexdigest()


def _remembered_md5(path: Path) -> str:
    """The file's MD5; for a large file remembered in the cache folder for as long as its size and time stay the
    same."""
    stat = path.stat()
    if stat.st_size < REMEMBER:
        return _md5(path)
    key = hashlib.sha256(f"{path.resolve()}\n{stat.st_size}\n{stat.st_mtime_ns}".encode()).hexdigest()
    note = cache_folder("md5") / key
    if not note.exists():
        log.info("checking the MD5 of %s", path)
        with whole_file(note) as temporary:
            temporary.write_text(_md5(path))
    return note.read_text()


def _md5(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, lambda: hashlib.md5(usedforsecurity=False)).hexdigest()
