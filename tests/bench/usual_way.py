"""The usual way, written plainly: what one gets from the examples of MedMNIST, torchvision and PyTorch.

A `DataLoader` with two workers over a dataset class of medmnist's layout and torchvision's transforms on PIL images; a
training for every trial and every seed; a frozen backbone's features computed anew for every image in every epoch; and
MedMNIST's own loop, which evaluates train, val and test after each epoch. It knows nothing of the harness.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from medmnist.evaluator import getAUC
from PIL import Image
from torch import Tensor, nn
from torch.utils.data import DataLoader, Dataset
from torchvision import transforms

TASKS = {
    "binary": "binary-class",
    "multi-class": "multi-class",
    "multi-label": "multi-label, binary-class",
    "ordinal": "ordinal-regression",
}
"""What medmnist calls them."""
Loaders = dict[str, DataLoader[Any]]


class MedMnist(Dataset[tuple[Tensor, np.ndarray]]):
    """As `medmnist.dataset.MedMNIST2D` with `as_rgb`, whose own class takes its own files only."""

    def __init__(self, file: Path, split: str, transform: Callable[[Image.Image], Tensor]) -> None:
        with np.load(file) as arrays:
            self.imgs, self.labels = arrays[f"{split}_images"], arrays[f"{split}_labels"]
        self.transform = transform

    def __len__(self) -> int:
        return len(self.imgs)

    def __getitem__(self, index: int) -> tuple[Tensor, np.ndarray]:
        image, target = self.imgs[index], self.labels[index].astype(int)
        return self.transform(Image.fromarray(image).convert("RGB")), target


def transform(size: int, mean: Sequence[float], std: Sequence[float], crop_and_flip: bool = False) -> Any:
    """PIL image -> float32 [3, size, size]. The crop is out of the image with a sixteenth of its side around it."""
    moved = [transforms.RandomCrop(size, padding=size // 16), transforms.RandomHorizontalFlip()]
    steps = [transforms.Resize(size), *(moved if crop_and_flip else ())]
    return transforms.Compose([*steps, transforms.ToTensor(), transforms.Normalize(mean, std)])


def loader(dataset: Dataset[Any], batch_size: int, shuffle: bool = False) -> DataLoader[Any]:
    """Two workers, which persist from epoch to epoch."""
    return DataLoader(dataset, batch_size, shuffle, num_workers=2, persistent_workers=True)


def loaders(file: Path, change: Any, batch_size: int) -> Loaders:
    """MedMNIST's four: train to learn from, and train, val and test to evaluate, in batches twice as large."""
    splits = {split: MedMnist(file, split, change) for split in ("train", "val", "test")}
    to_evaluate = {split: loader(images, 2 * batch_size) for split, images in splits.items()}
    return {"learn": loader(splits["train"], batch_size, shuffle=True)} | to_evaluate


def fine_tuning(net: Any, lr: float, backbone_scale: float) -> torch.optim.Optimizer:
    """All of a network with `features` and `head`."""
    groups = [
        {"params": list(net.features.parameters()), "lr": lr * backbone_scale},
        {"params": list(net.head.parameters()), "lr": lr},
    ]
    return torch.optim.AdamW(groups, weight_decay=0.01)


def probing(net: Any, lr: float, weight_decay: float) -> torch.optim.Optimizer:
    """The head alone, on standardised features."""
    net.features.requires_grad_(False)
    net.head = nn.Sequential(nn.BatchNorm1d(net.head.in_features, affine=False), net.head)
    return torch.optim.SGD(net.head.parameters(), lr, 0.9, weight_decay=weight_decay, nesterov=True)


def fit(net: Any, optimizer: torch.optim.Optimizer, data: Loaders, kind: str, epochs: int) -> dict[str, float]:
    """AUC by split, of the epoch with the best one on val."""
    steps = epochs * len(data["learn"])
    schedule = torch.optim.lr_scheduler.LambdaLR(optimizer, lambda step: warm_cosine(step / steps))
    best = {"val": -math.inf}
    for _ in range(epochs):
        train_epoch(net, optimizer, schedule, data["learn"], kind)
        found = {split: evaluate(net, data[split], kind) for split in ("train", "val", "test")}
        best = max(best, found, key=lambda aucs: aucs["val"])
    return best


def train_epoch(net: Any, optimizer: torch.optim.Optimizer, schedule: Any, learn: DataLoader[Any], kind: str) -> None:
    frozen = not any(parameter.requires_grad for parameter in net.features.parameters())
    net.train()
    net.features.train(not frozen)
    for inputs, targets in learn:
        optimizer.zero_grad()
        loss = loss_of(net(inputs), targets, kind)
        loss.backward()
        nn.utils.clip_grad_norm_(net.parameters(), 1.0)
        optimizer.step()
        schedule.step()


def evaluate(net: nn.Module, images: DataLoader[Any], kind: str) -> float:
    """AUC on the images of a loader."""
    net.eval()
    scores, labels = [], []
    with torch.no_grad():
        for inputs, targets in images:
            logits = net(inputs)
            scores.append(logits.sigmoid() if kind == "multi-label" else logits.softmax(1))
            labels.append(targets)
    return float(getAUC(torch.cat(labels).numpy(), torch.cat(scores).numpy(), TASKS[kind]))


def loss_of(logits: Tensor, targets: Tensor, kind: str) -> Tensor:
    if kind == "multi-label":
        return nn.functional.binary_cross_entropy_with_logits(logits, targets.float())
    return nn.functional.cross_entropy(logits, targets.squeeze(1).long())


def warm_cosine(progress: float) -> float:
    """The learning rate's share after `progress` (0..1): up in a twentieth of the steps, then down to 0."""
    if progress < 0.05:
        return max(progress / 0.05, 0.01)
    return 0.5 * (1 + math.cos(math.pi * (progress - 0.05) / 0.95))


def cell(train_one: Callable[[dict[str, Any], int], dict[str, float]], trials: Any, seeds: int) -> list[float]:
    """Test AUCs of `seeds` trainings with the best on val of the `trials`, each a training of its own."""
    best = max(trials, key=lambda hparams: train_one(hparams, 0)["val"])
    return [train_one(best, seed)["test"] for seed in range(seeds)]
