"""A training as timm's own script does it on a GPU: its loader with as many processes as asked for, its transforms,
optimizer and schedule, mixed precision and channels-last; it logs and saves nothing here."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from PIL import Image
from timm.data.loader import create_loader
from timm.optim import create_optimizer_v2
from timm.scheduler.cosine_lr import CosineLRScheduler
from timm.utils.clip_grad import dispatch_clip_grad
from timm.utils.metrics import AverageMeter
from torch import nn

from tests.bench.usual_way import MedMnist


class Labelled(MedMnist):
    """With the labels that timm's collation takes."""

    def __init__(self, file: Path) -> None:
        super().__init__(file, "train", lambda image: image)
        self.transform: Any = None  # create_loader's

    def __getitem__(self, index: int) -> Any:
        return self.transform(Image.fromarray(self.imgs[index]).convert("RGB")), int(self.labels[index, 0])


def loader(file: Path, size: int, batch_size: int, workers: int) -> Any:
    """Resized and flipped, normalised on the GPU."""
    return create_loader(
        Labelled(file), (3, size, size), batch_size, is_training=True, no_aug=True, interpolation="bilinear",
        num_workers=workers, persistent_workers=True, pin_memory=True, device=torch.device("cuda"),
    )  # fmt: skip


def fit(net: nn.Module, lr: float, data: Any, epochs: int) -> float:
    """Mean loss of the last epoch."""
    net.train()
    optimizer = create_optimizer_v2(net, opt="adamw", lr=lr, weight_decay=0.01, foreach=True)
    updates = len(data)
    schedule = CosineLRScheduler(optimizer, epochs * updates, warmup_t=updates // 20, t_in_epochs=False)
    losses = AverageMeter()
    for epoch in range(epochs):
        losses.reset()
        for batch, (images, targets) in enumerate(data):
            images = images.contiguous(memory_format=torch.channels_last)
            with torch.autocast("cuda", torch.bfloat16):
                loss = nn.functional.cross_entropy(net(images), targets)
            optimizer.zero_grad()
            loss.backward()
            dispatch_clip_grad(net.parameters(), 1.0)
            optimizer.step()
            losses.update(loss.item(), len(images))
            schedule.step_update(epoch * updates + batch + 1)
    return float(losses.avg)
