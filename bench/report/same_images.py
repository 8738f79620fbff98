"""Which datasets are one as far as chance goes: shifts that are tested on the same images."""

from __future__ import annotations


def judged_on(dataset: str) -> str:
    """What the test images of a dataset are, or of the shift SOURCE->TARGET (bench/shift.py): the target's, which for a
    corruption are the source's own. Two datasets of which this is the same are one to statistics across datasets."""
    source, arrow, target = dataset.partition("->")
    if not arrow or target.startswith("corrupted:"):
        return source
    return source.rpartition("@")[0] + target if target.startswith("@") else target
