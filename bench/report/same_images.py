"""Which datasets are one as far as chance goes: shifts that are tested on the same images, and views of the same
patients."""

from __future__ import annotations

KIN = dict.fromkeys(("organamnist", "organcmnist", "organsmnist"), "organ{a,c,s}mnist")
"""Dataset -> its family, for the patients are the same: axial, coronal and sagittal slices of the same CT scans, in
training, validation and test."""


def judged_on(dataset: str) -> str:
    """Whom a dataset is tested on: its test images, or those patients of whom the test images of its family are. Two
    datasets of which this is the same are one to statistics across datasets."""
    images = images_of(dataset)
    return KIN.get(images, images)


def images_of(dataset: str) -> str:
    """What the test images of a dataset are, or of the shift SOURCE->TARGET (bench/shift.py): the target's, which for a
    corruption are the source's own."""
    source, arrow, target = dataset.partition("->")
    if not arrow or target.startswith("corrupted:"):
        return source
    return source.rpartition("@")[0] + target if target.startswith("@") else target
