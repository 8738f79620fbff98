"""The audit finds images that are in two splits, counts classes and stays quick."""

from __future__ import annotations

import time
from pathlib import Path

import numpy as np
import pytest

from bench import audit as module
from bench import registry
from bench.audit import audit
from bench.contract import SPLITS, Dataset, Info, Split

RNG = np.random.default_rng(0)


def smooth(count: int, size: int = 28) -> np.ndarray:
    """Random images with structure at all scales down to a few pixels, as photographs have."""
    fine = (np.arange(size) * 8 // size)[:, None], (np.arange(size) * 8 // size)[None]
    coarse = (np.arange(size) * 3 // size)[:, None], (np.arange(size) * 3 // size)[None]
    image = RNG.normal(0, 25, (count, 8, 8))[:, *fine] + RNG.normal(0, 25, (count, 3, 3))[:, *coarse]
    return (image + RNG.normal(0, 2, image.shape) + 128).clip(0, 255).astype(np.uint8)


class Made(Dataset):
    def __init__(self, images: dict[str, np.ndarray], labels: dict[str, np.ndarray] | None = None) -> None:
        labels = labels or {name: np.zeros(len(part), dtype=np.int64) for name, part in images.items()}
        multi = labels["train"].ndim == 2
        self.info = Info(
            "made", "multi-label" if multi else "binary", ("a", "b"), 1, licence="CC BY-NC 4.0", noncommercial=True
        )
        self.parts = {
            name: Split(images[name], labels[name], np.array([f"{name}/{i}" for i in range(len(images[name]))]))
            for name in SPLITS
        }

    def load(self, split: str, size: int) -> Split:
        return self.parts[split]

    def content_hash(self, size: int) -> str:
        return "hash"


def test_copies_and_look_alikes_are_found_and_told_apart() -> None:
    images = {"train": smooth(500), "val": smooth(60), "test": smooth(100)}
    images["test"][:5] = images["train"][100:105]
    brighter = images["train"][200:210].astype(float) * 0.9 + 15 + RNG.normal(0, 2, (10, 28, 28))
    images["test"][10:20] = brighter.clip(0, 255).astype(np.uint8)
    images["val"][7] = images["test"][50]
    result = audit(Made(images), 28)
    found = {(part.first, part.second): part for part in result.overlaps}
    assert found["train", "test"].exact == 5
    assert found["train", "test"].near >= 9
    assert found["train", "test"].near <= 10
    assert found["train", "test"].examples[0] == ("train/100", "test/0")
    assert (found["val", "test"].exact, found["val", "test"].near) == (1, 0)
    assert found["val", "test"].examples == (("val/7", "test/50"),)
    assert (found["train", "val"].exact, found["train", "val"].near) == (0, 0)
    assert result.sampled == ""
    assert (result.content_hash, result.licence, result.noncommercial) == ("hash", "CC BY-NC 4.0", True)


def test_blank_images_are_counted_once_and_do_not_explode() -> None:
    images = {"train": smooth(3000), "val": smooth(1000), "test": smooth(1000)}
    images["train"][:2000], images["test"][:500] = 0, 0
    images["val"][:500] = RNG.integers(0, 2, (500, 28, 28))
    start = time.perf_counter()
    result = audit(Made(images), 28)
    assert time.perf_counter() - start < 10
    assert result.blank == 3000
    found = {(part.first, part.second): (part.exact, part.near) for part in result.overlaps}
    assert found == {("train", "val"): (0, 0), ("train", "test"): (500, 0), ("val", "test"): (0, 0)}


def test_class_counts_for_single_and_multi_label() -> None:
    images = {name: smooth(4) for name in SPLITS}
    single = audit(Made(images, dict.fromkeys(SPLITS, np.array([0, 1, 1, 1]))), 28)
    assert single.class_counts["val"] == {"a": 1, "b": 3}
    assert single.sizes == {"train": 4, "val": 4, "test": 4}
    multi = np.array([[1, 0], [1, 1], [0, 0], [0, 0]], dtype=np.uint8)
    assert audit(Made(images, dict.fromkeys(SPLITS, multi)), 28).class_counts["test"] == {"a": 2, "b": 1, "no label": 2}


def test_beyond_the_budget_images_are_sampled_and_it_says_so(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "BUDGET", 100 * 28 * 28)
    result = audit(Made({"train": smooth(800), "val": smooth(100), "test": smooth(100)}), 28)
    assert result.sampled == "duplicates and blank images looked for in 100 of 1000 images"
    assert result.sizes["train"] == 800


def test_colour_images_of_any_size_are_audited() -> None:
    images = {name: smooth(30, 40)[..., None].repeat(3, -1) for name in SPLITS}
    images["test"][3] = images["train"][4]
    assert audit(Made(images), 40).overlaps[1].exact == 1


def test_the_known_duplicates_of_real_sets_are_found(shared: Path) -> None:
    root = shared / "data" / "medmnist"
    pneumonia = audit(registry.open_dataset("pneumoniamnist", root), 28)
    assert [(part.exact, part.near) for part in pneumonia.overlaps] == [(8, 0), (0, 0), (0, 0)]
    breast = audit(registry.open_dataset("breastmnist", root), 28)
    assert breast.overlaps[1].exact == 1
    assert (
        breast.overlaps[1].near > 10
    )  # the ultrasound set it was made from has images of one lesion taken moments apart
    retina = audit(registry.open_dataset("retinamnist", root), 28)
    assert not any(part.exact or part.near for part in retina.overlaps)
    assert breast.class_counts["test"] == {"malignant": 42, "normal, benign": 114}
