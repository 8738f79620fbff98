"""Random transforms of a batch on the device, drawn anew for every image from a generator."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional

LUMA = (0.299, 0.587, 0.114)


def uniform(count: int, low: float, high: float, images: Tensor, generator: torch.Generator) -> Tensor:
    """float32 [count, 1, 1, 1] on the images' device."""
    return torch.empty(count, 1, 1, 1, device=images.device).uniform_(low, high, generator=generator)


def random_crop(images: Tensor, size: int, area: tuple[float, float], generator: torch.Generator) -> Tensor:
    """Inception's crop (Szegedy et al. 2015): a part of the image of `area` (shares of it) and of an aspect ratio
    between 3/4 and 4/3, at `size` pixels, and in half of the cases mirrored. float [N, C, H, W] -> [N, C, size, size].
    """
    count = len(images)
    share, ratio = uniform(count, *area, images, generator), uniform(count, -1, 1, images, generator)
    stretch = (4 / 3) ** (ratio / 2)
    wide, high = (share.sqrt() * stretch).clamp_max(1), (share.sqrt() / stretch).clamp_max(1)
    right, down = (uniform(count, -1, 1, images, generator) * (1 - side) for side in (wide, high))
    mirror = uniform(count, -1, 1, images, generator).sign()
    zero = torch.zeros_like(wide)
    matrix = torch.cat([wide * mirror, zero, right, zero, high, down], dim=1).view(count, 2, 3)
    grid = functional.affine_grid(matrix, [count, images.shape[1], size, size], align_corners=False)
    return functional.grid_sample(images, grid, mode="bilinear", padding_mode="reflection", align_corners=False)


def colour_jitter(images: Tensor, strength: float, generator: torch.Generator) -> Tensor:
    """Brightness, contrast and saturation, each times 1 ± `strength`. float in 0..1 [N, 3, H, W] -> the same."""
    count = len(images)
    images = images * uniform(count, 1 - strength, 1 + strength, images, generator)
    gray = (images * torch.tensor(LUMA, device=images.device)[:, None, None]).sum(1, keepdim=True)
    mean = gray.mean((2, 3), keepdim=True)
    images = (images - mean) * uniform(count, 1 - strength, 1 + strength, images, generator) + mean
    images = (images - gray) * uniform(count, 1 - strength, 1 + strength, images, generator) + gray
    return images.clamp(0, 1)
