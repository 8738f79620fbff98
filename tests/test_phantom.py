"""Phantoms are deterministic, the same at every size, and learnable by a CNN but hardly by a linear probe on pixels."""

from __future__ import annotations

from functools import cache
from pathlib import Path

import numpy as np
import pytest
import torch
from sklearn.metrics import roc_auc_score
from torch import nn

from bench import registry
from bench.contract import Dataset, Split

KINDS = {
    "phantom-histology": ("multi-class", 5, 3),
    "phantom-radiograph": ("binary", 2, 1),
    "phantom-fundus": ("ordinal", 5, 3),
    "phantom-chest": ("multi-label", 5, 1),
    "phantom-organ-a": ("multi-class", 5, 1),
    "phantom-organ-b": ("multi-class", 5, 1),
}


@cache
def phantom(name: str) -> Dataset:
    return registry.open_dataset(name, Path())


@cache
def drawn(name: str, split: str, size: int) -> Split:
    return phantom(name).load(split, size)


@pytest.mark.parametrize("name", KINDS)
def test_shapes_kinds_and_splits(name: str) -> None:
    info = phantom(name).info
    assert (info.kind, len(info.classes), info.channels) == KINDS[name]
    assert info.licence == "CC0 1.0"
    ids: list[str] = []
    for split in ("train", "val", "test"):
        part = drawn(name, split, 28)
        assert part.images.dtype == np.uint8
        assert part.images.shape[1:] == ((28, 28) if info.channels == 1 else (28, 28, 3))
        assert part.images.std((1, 2)).min() > 5
        width = len(info.classes)
        multi = info.kind == "multi-label"
        present = part.labels.sum(0) if multi else np.bincount(part.labels, minlength=width)
        assert present.min() > 0
        ids += part.ids.tolist()
    assert len(set(ids)) == len(ids)
    assert len(
        {image.tobytes() for split in ("train", "val", "test") for image in drawn(name, split, 28).images}
    ) == len(ids)


@pytest.mark.parametrize("name", KINDS)
def test_drawing_again_gives_the_same_pixels(name: str) -> None:
    again = phantom(name).load("val", 28)
    np.testing.assert_array_equal(again.images, drawn(name, "val", 28).images)
    np.testing.assert_array_equal(again.labels, drawn(name, "val", 28).labels)


@pytest.mark.parametrize("name", KINDS)
def test_another_size_shows_the_same_content(name: str) -> None:
    small, large = drawn(name, "val", 28), phantom(name).load("val", 84)
    np.testing.assert_array_equal(small.labels, large.labels)
    shape = (100, 28, 3, 28, 3, *large.images.shape[3:])
    reduced = large.images.astype(float).reshape(shape).mean((2, 4))
    for one, two in zip(small.images, reduced, strict=True):
        assert np.corrcoef(one.ravel(), two.ravel())[0, 1] > 0.7


def test_hashes_tell_names_and_sizes_apart() -> None:
    hashes = {phantom(name).content_hash(size) for name in KINDS for size in (28, 64)}
    assert len(hashes) == 2 * len(KINDS)


def test_organs_in_the_two_views_have_the_same_classes() -> None:
    assert phantom("phantom-organ-a").info.classes == phantom("phantom-organ-b").info.classes


@pytest.mark.parametrize("name", KINDS)
def test_a_linear_probe_on_pixels_is_clearly_worse_than_a_small_cnn(name: str) -> None:
    train, test = drawn(name, "train", 28), drawn(name, "test", 28)
    probe, cnn = auc(test.labels, linear_probe(train, test)), auc(test.labels, small_cnn(train, test))
    assert cnn > 0.65
    assert probe < cnn - 0.1


def auc(labels: np.ndarray, scores: np.ndarray) -> float:
    onehot = labels if labels.ndim == 2 else np.eye(scores.shape[1])[labels]
    return float(np.mean([roc_auc_score(onehot[:, k], scores[:, k]) for k in range(scores.shape[1])]))


def linear_probe(train: Split, test: Split) -> np.ndarray:
    """Ridge regression on standardised pixels, in its dual form (fewer images than pixels)."""
    x, z = (part.images.reshape(len(part), -1) / 255 for part in (train, test))
    mean, spread = x.mean(0), x.std(0) + 1e-3
    x, z = (x - mean) / spread, (z - mean) / spread
    targets = train.labels.astype(float) if train.labels.ndim == 2 else np.eye(train.labels.max() + 1)[train.labels]
    return z @ x.T @ np.linalg.solve(x @ x.T + x.shape[1] * np.eye(len(x)), targets - targets.mean(0))


def small_cnn(train: Split, test: Split, epochs: int = 10, width: int = 16) -> np.ndarray:
    torch.manual_seed(0)
    x, z = (torch.from_numpy(part.images).float().div(255).sub(0.5).mul(4) for part in (train, test))
    x, z = (t.unsqueeze(1) if t.ndim == 3 else t.permute(0, 3, 1, 2) for t in (x, z))
    y, layers, before = torch.from_numpy(train.labels), list[nn.Module](), x.shape[1]
    for out in (width, 2 * width, 4 * width):
        layers += [nn.Conv2d(before, out, 3, padding=1), nn.BatchNorm2d(out), nn.ReLU(), nn.MaxPool2d(2)]
        before = out
    outputs = y.shape[1] if y.ndim == 2 else int(y.max()) + 1
    net = nn.Sequential(*layers[:-1], nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(before, outputs))
    loss = nn.BCEWithLogitsLoss() if y.ndim == 2 else nn.CrossEntropyLoss()
    y = y.float() if y.ndim == 2 else y
    optimiser = torch.optim.AdamW(net.parameters(), weight_decay=0.01)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimiser, 0.006, epochs=epochs, steps_per_epoch=len(x) // 40)
    for epoch in range(epochs):
        for batch in torch.randperm(len(x)).split(40):
            loss(net(x[batch].flip(-1) if epoch % 2 else x[batch]), y[batch]).backward()
            optimiser.step()
            optimiser.zero_grad()
            schedule.step()
    net.eval()
    with torch.inference_mode():
        return net(z).numpy()
