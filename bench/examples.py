"""Training images before and after a strategy's augmentation, for the report."""

from __future__ import annotations

import io
from pathlib import Path

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from bench import store
from bench.contract import Hparams, Strategy, Task
from bench.finetune import FineTune
from bench.images import resize
from bench.run import Run

COUNT, SIDE = 8, 48
"""Images in a strip, and the side in pixels at which they are shown."""


def record(results: Path, dataset: str, strategy: Strategy, task: Task, hparams: Hparams, run: Run) -> None:
    """Write the strip of a strategy that augments beside the results; the dataset's cell that ran last gives it."""
    if isinstance(strategy, FineTune) and type(strategy).augment is not FineTune.augment:
        picture = io.BytesIO()
        Image.fromarray(strip(strategy, task, hparams, run)).save(picture, "JPEG", quality=90, subsampling=0)
        store.write(store.strip_path(results, dataset, strategy.name), picture.getvalue())


def strip(strategy: FineTune, task: Task, hparams: Hparams, run: Run) -> np.ndarray:
    """uint8 [2 * SIDE, COUNT * SIDE] (gray) or [.., 3]: training images, evenly spaced in the split, and under each the
    same one as a network is shown it; a strategy that mixes images mixes these."""
    index = torch.linspace(0, len(task.train) - 1, min(COUNT, len(task.train))).long()
    pixels, labels = task.train.batch(index.to(run.device))
    images = run.resized(pixels)
    generator = torch.Generator(run.device).manual_seed(0)
    shown, _ = strategy.augment(images.clone(), labels, task, hparams, generator)
    return np.concatenate([_row(images), _row(shown)])


def _row(images: Tensor) -> np.ndarray:
    small = resize((images.clamp(0, 1) * 255).round().byte().cpu(), SIDE, "bilinear").permute(0, 2, 3, 1).numpy()
    return np.concatenate(list(small[..., 0] if small.shape[3] == 1 else small), axis=1)
