"""Frozen features are computed once on a machine and read again only for what they were computed from."""

from __future__ import annotations

import os
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor

from bench import feature_store
from bench.cache import cache_folder
from bench.check import new_run, phantom_task
from bench.contract import Backbone
from bench.images import to_device
from bench.run import Run

pytestmark = pytest.mark.usefixtures("own_cache")
TASK = phantom_task("binary", size=16, images=12)
RESNET = Backbone("bundled:resnet", "bundled:resnet")


@pytest.fixture
def passes(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """The sizes of the batches that went through a network."""
    seen: list[int] = []
    embedded = Run._embedded

    def counted(self: Run, images: Tensor, maxima: bool) -> Tensor:
        seen.append(len(images))
        return embedded(self, images, maxima)

    monkeypatch.setattr(Run, "_embedded", counted)
    return seen


def stored() -> list[Path]:
    return sorted(cache_folder("features").iterdir())


def test_a_later_run_reads_the_same_bits(passes: list[int]) -> None:
    first = new_run(backbone=RESNET).features(TASK.train)
    assert sum(passes) == len(TASK.train)
    later = new_run(backbone=RESNET).features(TASK.train)
    assert sum(passes) == len(TASK.train)
    assert torch.equal(first, later)
    assert not later.is_inference()  # a probe trains on them


def test_whatever_the_features_depend_on_they_are_kept_under(passes: list[int]) -> None:
    pixels = np.random.default_rng(0).integers(0, 256, (3, 16, 16), dtype=np.uint8)
    other = pixels.copy()
    other[0, 0, 0] ^= 1
    for images in (pixels, other):  # under one key, as no dataset of ours does
        split = type(
            "Split", (), {"images": images, "labels": np.zeros(3, dtype=np.int64), "ids": np.array(list("abc"))}
        )
        new_run(backbone=RESNET).features(to_device(split(), "same key", torch.device("cpu")))  # type: ignore[arg-type]
    assert len(stored()) == 2
    runs = [new_run(backbone=Backbone("bundled:convnext", "bundled:convnext")), new_run(backbone=RESNET, size=24)]
    for run in runs:
        run.features(TASK.train)
    new_run(backbone=RESNET).features(TASK.train)
    new_run(backbone=RESNET).features(TASK.train, maxima=True)
    new_run(backbone=RESNET).features(TASK.val)
    assert len(stored()) == 7


def test_a_damaged_file_is_computed_anew(passes: list[int]) -> None:
    wanted = new_run(backbone=RESNET).features(TASK.train)
    (file,) = stored()
    for damage in (file.read_bytes()[:50], b"", np.lib.format.MAGIC_PREFIX + b"nonsense"):
        file.write_bytes(damage)
        assert torch.equal(new_run(backbone=RESNET).features(TASK.train), wanted)
    assert sum(passes) == 4 * len(TASK.train)


def test_what_was_not_used_for_longest_goes_first(monkeypatch: pytest.MonkeyPatch) -> None:
    splits = (TASK.train, TASK.val)
    for split in splits:
        new_run(backbone=RESNET).features(split)
    for age, file in enumerate(stored()):
        os.utime(file, (1e9 - age, 1e9 - age))
    new_run(backbone=RESNET).features(TASK.train)  # used again
    sizes = [file.stat().st_size for file in stored()]
    monkeypatch.setattr(feature_store, "LIMIT", sum(sizes) + 100)
    before = set(stored())
    new_run(backbone=RESNET, size=24).features(TASK.train)
    gone = before - set(stored())
    assert len(gone) == 1
    passes_before = len(stored())
    new_run(backbone=RESNET).features(TASK.train)  # is still there
    assert len(stored()) == passes_before


def test_without_a_writable_cache_a_run_goes_on(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    (tmp_path / "file").write_text("")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "file"))
    for _ in range(2):
        assert new_run(backbone=RESNET).features(TASK.train).shape == (len(TASK.train), 96)
    assert len(caplog.records) == 1
    assert "features are not kept on disk" in caplog.text
