"""Errors a user sees: each names the thing, the cause and the fix in one or two lines, and is shown without a
traceback."""

from __future__ import annotations

import difflib
import re
import traceback
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path

UNPRINTABLE = re.compile("[\x00-\x1f\x7f-\x9f\u2028\u2029\u202a-\u202e\u2066-\u2069\ud800-\udfff]")
"""Control characters, line ends, what turns the direction of writing, and halves of characters (the bytes of a file
name that is not UTF-8): a name with one of them could break a line, forge one or steer a terminal."""


class MedtransferError(Exception):
    """Base of every error that is the input's or the surroundings' doing, not the program's."""

    def __str__(self) -> str:
        return printable(super().__str__())


class UsageError(MedtransferError):
    """The command line or the matrix file is wrong (exit code 2)."""


class Regression(MedtransferError):
    """`medtransfer compare --fail-under` found a loss larger than what is allowed (exit code 3)."""


class WeightsError(MedtransferError):
    """A backbone's weights cannot be found, read or loaded; fails that backbone's cells only."""


class DataError(MedtransferError):
    """A dataset cannot be found, read or is malformed; fails that dataset's cells only."""


class NotHere(DataError):
    """A dataset's file is not on this machine, and nothing is to be downloaded."""


class StorageError(MedtransferError):
    """The results folder cannot be written, or another command has it; ends the run, since no other cell could be kept
    either."""


class Diverged(MedtransferError):
    """Training gave a non-finite loss or non-finite logits."""


class Spoiled(MedtransferError):
    """A strategy changed in place what it shares with other cells ("the images", ..); fails its own cells only."""

    def __str__(self) -> str:
        what = super().__str__()
        return f"the strategy changed {what} in place, which other cells share. Make it work on a copy."


def nearest(name: str, valid: Iterable[str]) -> str:
    """' Did you mean "x"?', or the valid names where none is near: the end of an unknown-name error."""
    names = sorted(valid)
    lower = {one.lower(): one for one in names}
    close = difflib.get_close_matches(name.lower(), lower, n=1, cutoff=0.5)
    if close:
        return f' Did you mean "{lower[close[0]]}"?'
    return f" Valid: {', '.join(names)}." if names else ""


def printable(text: str) -> str:
    """The text in one line, as any terminal, file or page takes it: what is UNPRINTABLE becomes `\\x1b`, say."""
    return UNPRINTABLE.sub(lambda found: found[0].encode("unicode_escape").decode(), text)


@contextmanager
def reading(name: str) -> Iterator[None]:
    """Around reading the dataset `name`: whatever its plug-in raises in the block is a DataError that says so in one
    line."""
    try:
        yield
    except MedtransferError:
        raise
    except (Exception, SystemExit) as error:
        said = f"{brief(error)}, {place(error)}"
        raise DataError(f"{name}: cannot be read ({said}). Correct its files, or its plug-in.") from error


def place(error: BaseException, within: str = "") -> str:
    """File and line, such as `mine.py:11`, where an error was raised; the last one in the file `within`, if it was
    there."""
    frames = traceback.extract_tb(error.__traceback__)
    where = ([frame for frame in frames if frame.filename == within] or frames)[-1]
    return f"{Path(where.filename).name}:{where.lineno}"


def brief(error: BaseException) -> str:
    """An error of another library in one short line, to be named in one of ours."""
    text = (str(error).strip().splitlines() or [""])[0].strip()
    return f"{type(error).__name__}: {text[:160]}" if text else type(error).__name__
