"""Reads something again and again beside what is being done."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TypeVar

Answer = TypeVar("Answer")


@contextmanager
def watching(read: Callable[[], Answer], every: float) -> Iterator[list[Answer]]:
    """Meanwhile `read` is asked every so many seconds; gives its answers, which are all there at the end."""
    seen, done = [read()], threading.Event()

    def watch() -> None:
        while not done.wait(every):
            seen.append(read())

    beside = threading.Thread(target=watch)
    beside.start()
    try:
        yield seen
    finally:
        done.set()
        beside.join()
