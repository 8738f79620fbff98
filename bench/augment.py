"""Transforms of a batch on the device, each image by a strength of its own: torchvision's functions take one number for
all of a batch. Strengths are float [N, 1, 1, 1], images float in 0..1 [N, C, H, W]; what leaves that range is left to
the caller."""

from __future__ import annotations

import math
from functools import cache
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional

LUMA = (0.299, 0.587, 0.114)
HED = ((0.65, 0.70, 0.29), (0.07, 0.99, 0.11), (0.27, 0.57, 0.78))
"""How much haematoxylin, eosin and DAB absorb of red, green and blue (Ruifrok & Johnston 2001)."""
TO_HED = tuple(map(tuple, np.linalg.inv(HED).tolist()))
ACROSS = ((0.0, -1.0, 1.0), (1.0, 0.0, -1.0), (-1.0, 1.0, 0.0))
"""The cross product with the gray axis, times the square root of 3."""


@cache
def _constant(values: tuple[Any, ...], device: torch.device) -> Tensor:
    """float32, sent to a GPU once: sending waits for it."""
    return torch.tensor(values, device=device)


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
    luma = gray(images)
    mean = luma.mean((2, 3), keepdim=True)
    images = (images - mean) * uniform(count, 1 - strength, 1 + strength, images, generator) + mean
    images = (images - luma) * uniform(count, 1 - strength, 1 + strength, images, generator) + luma
    return images.clamp(0, 1)


def gray(images: Tensor) -> Tensor:
    """[N, 1, H, W]; of gray images themselves."""
    return (images * _constant(LUMA, images.device)[:, None, None]).sum(1, keepdim=True)


def blend(images: Tensor, base: Tensor, factor: Tensor) -> Tensor:
    """`base` where the factor is 0, the images where it is 1, beyond them above it: contrast, say, where the base is
    their mean."""
    return base + (images - base) * factor


def warp(images: Tensor, matrix: Tensor) -> Tensor:
    """`matrix` float [N, 2, 3] leads from where a pixel is shown to where it is taken from: x, then y, each from -1 to
    1 across the image. What is taken from outside is 0."""
    grid = functional.affine_grid(matrix, list(images.shape), align_corners=False)
    return functional.grid_sample(images, grid, mode="bilinear", padding_mode="zeros", align_corners=False)


def shifted(images: Tensor, down: Tensor, right: Tensor, fill: Tensor, most: int) -> Tensor:
    """Each image taken from `down` and `right` of where it stands, int64 [N] pixels from -`most` to `most`; what is
    taken from outside it is `fill` [N, C, 1, 1]. One index into the view of all windows of the padded images."""
    side, pad = images.shape[-1], most
    padded = fill.repeat(1, 1, side + 2 * pad, side + 2 * pad)
    padded[..., pad : pad + side, pad : pad + side] = images
    windows = padded.unfold(2, side, 1).unfold(3, side, 1)
    return windows[torch.arange(len(images), device=images.device), :, pad + down, pad + right]


def edge(images: Tensor) -> Tensor:
    """[N, C, 1, 1]: the median of each image's outermost pixels, such as the black around a fundus."""
    sides = (images[..., 0, :], images[..., -1, :], images[..., 0], images[..., -1])
    return torch.cat(sides, dim=2).quantile(0.5, dim=2)[..., None, None]


def rotation(degrees: Tensor) -> Tensor:
    """The part [N, 2, 2] of `warp`'s matrix that turns square images counter-clockwise."""
    angle = degrees.flatten().deg2rad()
    return torch.stack([angle.cos(), -angle.sin(), angle.sin(), angle.cos()], dim=1).view(-1, 2, 2)


def turn_hue(images: Tensor, degrees: Tensor) -> Tensor:
    """Colours turned about the gray axis: the hue (its angle in the plane across that axis) moves by exactly that, the
    mean of red, green and blue and the colourfulness stay. RGB only."""
    angle = degrees.view(-1, 1, 1).deg2rad()
    across = _constant(ACROSS, images.device) / math.sqrt(3)
    matrix = angle.cos() * torch.eye(3, device=images.device) + angle.sin() * across + (1 - angle.cos()) / 3
    return torch.einsum("ndc,nchw->ndhw", matrix, images)


def stain(images: Tensor, factor: Tensor, plus: Tensor) -> Tensor:
    """The amount of each stain (haematoxylin, eosin, DAB), as optical density, times `factor` and `plus` some more,
    both [N, 3, 1, 1]. RGB only."""
    density = -images.clamp_min(1 / 255).log()
    amount = torch.einsum("cs,nchw->nshw", _constant(TO_HED, images.device), density)
    change = amount * (factor - 1) + plus
    # Only the change is carried over, so that what is not changed stays as it was, black included.
    return images * (-torch.einsum("sc,nshw->nchw", _constant(HED, images.device), change)).exp()


def light(images: Tensor, strength: Tensor, degrees: Tensor) -> Tensor:
    """Brighter to one side by a linear slope: times 1 ± `strength` at the edges, in the direction of `degrees`."""
    height, width = images.shape[-2:]
    across = torch.linspace(-1, 1, width, device=images.device)
    along = torch.linspace(-1, 1, height, device=images.device)[:, None]
    angle = degrees.deg2rad()
    return images * (1 + strength * (across * angle.cos() + along * angle.sin()))


def blur(images: Tensor, deviation: Tensor, radius: int) -> Tensor:
    """Gaussian blur by `deviation` pixels, of which `radius` to each side are looked at (fewer than the image has)."""
    steps = torch.arange(-radius, radius + 1, device=images.device)
    kernel = (-0.5 * (steps / deviation.view(-1, 1).clamp_min(1e-3)) ** 2).exp()
    kernel = (kernel / kernel.sum(1, keepdim=True)).repeat_interleave(images.shape[1], dim=0)
    planes = functional.pad(images.flatten(0, 1)[None], [radius] * 4, mode="reflect")
    planes = functional.conv2d(planes, kernel[:, None, None, :], groups=len(kernel))
    return functional.conv2d(planes, kernel[:, None, :, None], groups=len(kernel)).view_as(images)
