from __future__ import annotations

import torch
from torch import Tensor
from torchvision.transforms.v2 import functional as tvf

from bench.augment import blend, gray, rotation, warp
from bench.contract import Hparams, Task
from bench.finetune import FineTune

MOVES = ("shear_x", "shear_y", "translate_x", "translate_y", "rotate")
COLOURS = ("brightness", "color", "contrast", "sharpness", "posterize", "solarize", "autocontrast", "equalize")
OPS = ("identity", *MOVES, *COLOURS)
BINS = 31


class TrivialAugment(FineTune):
    """Full fine-tuning with one random transform of any strength for each image: a control that knows no modality.

    Paper: Müller & Hutter 2021, "TrivialAugment", its wide space of 14 transforms and 31 strengths. Differs in bilinear
    for nearest interpolation, and in that the crops and flips that the paper adds for natural images are left out.
    Shifts are by up to 32 pixels whatever the size, as in the paper: at 28 pixels some leave an empty image. Cost: as
    full fine-tuning; every transform is computed for every image, on the device."""

    name = "trivial_augment"
    family = "augmentation"
    paper = "Müller & Hutter 2021"

    def augment(
        self, images: Tensor, labels: Tensor, task: Task, hparams: Hparams, generator: torch.Generator
    ) -> tuple[Tensor, Tensor]:
        op, level, sign = (
            torch.randint(below, (len(images), 1, 1, 1), generator=generator, device=images.device)
            for below in (len(OPS), BINS, 2)
        )
        return transformed(images, op, (2 * sign - 1) * level / (BINS - 1)), labels


def transformed(images: Tensor, op: Tensor, strength: Tensor) -> Tensor:
    """Each image by the transform at its place in OPS (int64 [N, 1, 1, 1]), of a strength from -1 to 1 [N, 1, 1, 1]."""
    level, luma, factor = strength.abs(), gray(images), 1 + 0.99 * strength
    step = 2 ** (6 * level).round()  # 8 to 2 bits are left
    made = dict.fromkeys(MOVES, _moved(images, op, strength)) | {
        "brightness": images * factor,
        "color": blend(images, luma, factor),
        "contrast": blend(images, luma.mean((2, 3), keepdim=True), factor),
        "sharpness": blend(images, tvf.adjust_sharpness(images, 0.0), factor),
        "posterize": ((images * 255).round() / step).floor() * step / 255,
        "solarize": torch.where(images >= 1 - level, 1 - images, images),
        "autocontrast": tvf.autocontrast(images),
        "equalize": tvf.equalize(images),
    }
    for name, image in made.items():
        images = torch.where(op == OPS.index(name), image, images)
    return images.clamp(0, 1)


def _moved(images: Tensor, op: Tensor, strength: Tensor) -> Tensor:
    """The five geometric transforms at once: of an image at most one of them is not zero."""
    own = [strength * (op == OPS.index(name)) for name in MOVES]
    shear_x, shear_y, right, down, turn = (value.view(-1, 1, 1) for value in own)
    # Shears leave the upper left corner where it is, and shifts are by whole pixels, as in the paper's code.
    shear_x, shear_y = 0.99 * shear_x, 0.99 * shear_y
    right, down = ((32 * pixels).trunc() * 2 / images.shape[-1] for pixels in (right, down))
    zero = torch.zeros_like(shear_x)
    sheared = torch.cat([torch.cat([zero, shear_x], dim=2), torch.cat([shear_y, zero], dim=2)], dim=1)
    offset = torch.cat([shear_x + right, shear_y + down], dim=1)
    return warp(images, torch.cat([rotation(135 * turn) + sheared, offset], dim=2))
