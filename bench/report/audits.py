"""`datasets.json` of a results folder, as bench/integrity.py writes it: what was found in each dataset that was run."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from bench.errors import printable

FILE = "datasets.json"


def read(folder: Path) -> tuple[dict[str, dict[str, Any]], list[str]]:
    """Key -> entry (the fields of bench.audit.Audit, and `dataset` and `size`), and a sentence for each one that cannot
    be read, which is left out: a folder may be somebody else's, or damaged."""
    path = folder / FILE
    try:
        found = json.loads(path.read_bytes())
    except FileNotFoundError:
        return {}, []
    except (ValueError, OSError, RecursionError) as error:
        return {}, [printable(f"{FILE} of {folder.name} cannot be read: {error}. Delete it; the next run writes it.")]
    entries: dict[str, Any] = cleaned(found) if isinstance(found, dict) else {"": None}
    good = {key: entry for key, entry in entries.items() if _is_entry(entry)}
    fix = "Delete the file; the next run writes it."
    return good, [f"{FILE} of {folder.name}: what it says of {key} is left out. {fix}" for key in entries.keys() - good]


def cleaned(value: Any) -> Any:
    """A JSON value with all text as printable() has it."""
    if isinstance(value, dict):
        return {printable(key): cleaned(one) for key, one in value.items()}
    if isinstance(value, list):
        return [cleaned(one) for one in value]
    return printable(value) if isinstance(value, str) else value


def _is_entry(entry: Any) -> bool:
    if not isinstance(entry, dict):
        return False
    texts = all(isinstance(entry.get(name), str) for name in ("name", "dataset", "sampled"))
    counts = all(_is_count(entry.get(name)) for name in ("source_size", "blank"))
    sizes, classes, overlaps = (entry.get(name) for name in ("sizes", "class_counts", "overlaps"))
    return texts and counts and _are_sizes(sizes) and _are_classes(classes) and _are_overlaps(overlaps)


def _are_sizes(sizes: Any) -> bool:
    return isinstance(sizes, dict) and all(_is_count(sizes.get(part)) for part in ("train", "val", "test"))


def _are_classes(counts: Any) -> bool:
    """Of each split the same classes."""
    if not isinstance(counts, dict) or "train" not in counts:
        return False
    splits = list(counts.values())
    known = all(isinstance(split, dict) and all(map(_is_count, split.values())) for split in splits)
    return known and all(split.keys() == splits[0].keys() for split in splits)


def _are_overlaps(overlaps: Any) -> bool:
    return isinstance(overlaps, list) and all(
        isinstance(one, dict)
        and all(isinstance(one.get(name), str) for name in ("first", "second"))
        and all(_is_count(one.get(name)) for name in ("exact", "near"))
        for one in overlaps
    )


def _is_count(value: Any) -> bool:
    return type(value) is int and 0 <= value < 2**63
