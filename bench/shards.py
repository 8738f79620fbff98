"""`--shard i/n`: which cells of a matrix are this command's, where several run it at once on a shared folder."""

from __future__ import annotations

import re

ALL = "1/1"


def is_shard(text: str) -> bool:
    """Whether it is i/n with 1 <= i <= n."""
    found = re.fullmatch(r"([1-9][0-9]*)/([1-9][0-9]*)", text)
    return found is not None and int(found[1]) <= int(found[2])


def holds(shard: str, fingerprint: str) -> bool:
    """Whether a cell is of the shard: by its fingerprint, so that every command, whatever it finds done, splits the
    matrix in the same way."""
    number, count = map(int, shard.split("/"))
    return int(fingerprint, 16) % count == number - 1


def overlap(a: str, b: str) -> bool:
    """Whether two shards may have a cell in common: only those of one division are known not to."""
    return a == b or a.partition("/")[2] != b.partition("/")[2]
