"""Corruptions of images, modality by modality, as in MedMNIST-C (Di Salvo et al. 2024), in five severities.

The kinds of a modality and their strengths are MedMNIST-C's (bench/strengths.py), which has 224 px images; here they
are applied to the images as they are read. Lengths of blurs go with the root of the side: the same share of a 28 px
image would be no blur at all, the same number of pixels would leave nothing of it. Other than there, noise on gray
images is gray, stains are drawn and not taken from pictures of ink, a corner grows with every severity, letters are
large enough to be seen, and `pixelate` lowers the resolution without blocks (of uneven width, those of a mild severity
may be worse than those of the next one).

What is random depends on the kind and the image's id alone: an image is always corrupted alike, and a higher severity
is more of the same.
"""

from __future__ import annotations

import hashlib
import io
import string
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
from PIL import Image, ImageDraw, ImageEnhance, ImageFont
from scipy import ndimage
from skimage import color

from bench.contract import Info
from bench.errors import UsageError
from bench.strengths import STRENGTHS

Rng = np.random.Generator
Corruption = Callable[[np.ndarray, str], np.ndarray]
"""An image uint8 [H, W] or [H, W, 3] and its id -> the image corrupted, in the same shape."""
SEVERITIES = 5


def find(text: str, info: Info) -> Corruption:
    """The corruption `KIND-SEVERITY` for images of a dataset. Raises UsageError."""
    kind, _, severity = text.rpartition("-")
    known = of(info)
    if severity not in map(str, range(1, SEVERITIES + 1)) or kind not in known:
        raise UsageError(
            f'"corrupted:{text}": must be corrupted:KIND-SEVERITY with a severity of 1 to {SEVERITIES} and, for '
            f"{info.modality} images such as those of {info.name}, one of the kinds {', '.join(known)}."
        )
    strength = known[kind][int(severity) - 1]

    def corrupt(image: np.ndarray, name: str) -> np.ndarray:
        digest = hashlib.sha256(f"{kind} {name}".encode()).digest()
        changed = KINDS[kind](image, strength, np.random.default_rng(int.from_bytes(digest[:8], "little")))
        return np.asarray(changed).round().clip(0, 255).astype(np.uint8)

    return corrupt


def of(info: Info) -> Mapping[str, tuple[Any, ...]]:
    """Kind -> five strengths, mildest first, of what can befall a dataset's images."""
    known = STRENGTHS.get(info.modality, STRENGTHS["unknown"])
    return {kind: each for kind, each in known.items() if kind != "saturate" or info.channels == 3}


def _gaussian(image: np.ndarray, strength: float, rng: Rng) -> np.ndarray:
    return image + 255 * strength * rng.standard_normal(image.shape)


def _speckle(image: np.ndarray, strength: float, rng: Rng) -> np.ndarray:
    return image * (1 + strength * rng.standard_normal(image.shape))


def _impulse(image: np.ndarray, share: float, rng: Rng) -> np.ndarray:
    hit, salt = rng.random(image.shape) < share, rng.random(image.shape) < 0.5
    return np.where(hit, 255 * salt, image)


def _shot(image: np.ndarray, photons: float, rng: Rng) -> np.ndarray:
    return rng.poisson(image / 255 * photons) / photons * 255


def _blur(image: np.ndarray, width: float, rng: Rng) -> np.ndarray:
    sigma = (0.3 * ((width - 1) / 2 - 1) + 0.8) * _scale(image)  # as OpenCV's and torchvision's for a kernel's width
    return ndimage.gaussian_filter(image.astype(float), sigma, axes=(0, 1), mode="nearest")


def _defocus(image: np.ndarray, radius: float, rng: Rng) -> np.ndarray:
    radius *= _scale(image)
    reach = int(np.ceil(radius)) + 1
    y, x = np.mgrid[-reach : reach + 1, -reach : reach + 1]
    return _filtered(image, (radius + 1 - np.hypot(y, x)).clip(0, 1))


def _motion(image: np.ndarray, radius_and_sigma: tuple[float, float], rng: Rng) -> np.ndarray:
    """Along a line as long as the radius, at up to 45 degrees, with the weights of one half of a Gaussian."""
    radius, sigma = (each * _scale(image) for each in radius_and_sigma)
    angle = np.deg2rad(rng.uniform(-45, 45))
    along = np.linspace(0, radius, 4 * int(np.ceil(radius)) + 1)
    weights = np.exp(-(along**2) / (2 * sigma**2))
    reach = int(np.ceil(radius)) + 1
    kernel = np.zeros((2 * reach + 1, 2 * reach + 1))
    for distance, weight in zip(along, weights, strict=True):
        y, x = reach + distance * np.sin(angle), reach + distance * np.cos(angle)
        top, left = int(y), int(x)
        down, right = y - top, x - left  # a point between pixels is shared out among them
        kernel[top : top + 2, left : left + 2] += weight * np.outer([1 - down, down], [1 - right, right])
    return _filtered(image, kernel)


def _zoom(image: np.ndarray, most: float, rng: Rng) -> np.ndarray:
    picture, side = Image.fromarray(image), np.array(image.shape[1::-1])
    zoomed = []
    for factor in np.linspace(1, most, 11):
        margin = side * (1 - 1 / factor) / 2
        zoomed.append(picture.resize(picture.size, Image.Resampling.BILINEAR, box=(*margin, *(side - margin))))
    return np.mean([np.asarray(each) for each in zoomed], axis=0)


def _brightness(image: np.ndarray, factor: float, rng: Rng) -> np.ndarray:
    return image.astype(float) * factor


def _contrast(image: np.ndarray, factor: float, rng: Rng) -> np.ndarray:
    return np.asarray(ImageEnhance.Contrast(Image.fromarray(image)).enhance(factor))


def _gamma(image: np.ndarray, exponent: float, rng: Rng) -> np.ndarray:
    return 255 * (image / 255) ** exponent


def _saturate(image: np.ndarray, more: float, rng: Rng) -> np.ndarray:
    hsv = color.rgb2hsv(image)
    hsv[..., 1] = (hsv[..., 1] + more).clip(0, 1)
    return 255 * color.hsv2rgb(hsv)


def _pixelate(image: np.ndarray, share: float, rng: Rng) -> np.ndarray:
    picture = Image.fromarray(image)
    small = [max(1, int(side * share)) for side in picture.size]
    return np.asarray(picture.resize(small, Image.Resampling.LANCZOS).resize(picture.size, Image.Resampling.LANCZOS))


def _jpeg(image: np.ndarray, quality: int, rng: Rng) -> np.ndarray:
    file = io.BytesIO()
    Image.fromarray(image).save(file, "JPEG", quality=quality)
    return np.asarray(Image.open(file, formats=["JPEG"]))


def _stain(image: np.ndarray, count: int, rng: Rng) -> np.ndarray:
    """Dark blots of uneven outline."""
    y, x = np.mgrid[: image.shape[0], : image.shape[1]] / max(image.shape[:2])
    left = np.ones(image.shape[:2])
    for at_y, at_x, radius, phase, depth in rng.random((SEVERITIES, 5))[:count]:
        dy, dx = y - 0.1 - 0.8 * at_y, x - 0.1 - 0.8 * at_x
        around = np.arctan2(dy, dx)
        outline = (0.04 + 0.05 * radius) * (
            1 + 0.3 * np.sin(3 * around + 6.3 * phase) + 0.15 * np.sin(7 * around + 9 * depth)
        )
        inside = ((outline - np.hypot(dy, dx)) / 0.02 + 0.5).clip(0, 1)
        left *= 1 - (0.6 + 0.4 * depth) * inside
    return image * (left if image.ndim == 2 else left[..., None])


def _bubble(image: np.ndarray, radius_and_count: tuple[float, int], rng: Rng) -> np.ndarray:
    """Pale discs with a rim; of 7 to the given number."""
    radius, most = (radius_and_count[0] * image.shape[0] / 224, radius_and_count[1])
    y, x = np.mgrid[: image.shape[0], : image.shape[1]]
    count, rim, changed = 7 + round(rng.random() * (most - 7)), image.shape[0] / 112, image.astype(float)
    for at_y, at_x, size in rng.random((count, 3)):
        own = max(1.0, radius * (0.3 + 0.7 * size))
        distance = np.hypot(y - at_y * image.shape[0], x - at_x * image.shape[1])
        cover = 100 / 255 * (own + 0.5 - distance).clip(0, 1) + 30 / 255 * (own + rim + 0.5 - distance).clip(0, 1)
        changed += (255 - changed) * (cover if image.ndim == 2 else cover[..., None])
    return changed


def _corner(image: np.ndarray, share: float, rng: Rng) -> np.ndarray:
    """Black outside a circle whose radius is a share of half the side."""
    y, x = (np.mgrid[: image.shape[0], : image.shape[1]] + 0.5) / image.shape[0] - 0.5
    seen = np.hypot(y, x) <= share / 2
    return image * (seen if image.ndim == 2 else seen[..., None])


def _characters(image: np.ndarray, words_and_letters: tuple[int, int], rng: Rng) -> np.ndarray:
    picture = Image.fromarray(image)
    pen, font = ImageDraw.Draw(picture), ImageFont.load_default(max(6, image.shape[0] / 16))
    words, letters = words_and_letters
    for _ in range(words):
        text = "".join(rng.choice(list(string.ascii_lowercase), 16)[:letters])
        at, shade = rng.uniform(0, 0.8, 2) * image.shape[0], rng.integers(0, 256, 3)
        pen.text(tuple(at), text, fill=int(shade[0]) if image.ndim == 2 else tuple(map(int, shade)), font=font)
    return np.asarray(picture)


def _scale(image: np.ndarray) -> float:
    return float(np.sqrt(image.shape[0] / 224))


def _filtered(image: np.ndarray, kernel: np.ndarray) -> np.ndarray:
    weights = kernel / kernel.sum()
    return ndimage.convolve(image.astype(float), weights if image.ndim == 2 else weights[..., None], mode="nearest")


KINDS: dict[str, Callable[[np.ndarray, Any, Rng], np.ndarray]] = {
    "pixelate": _pixelate, "jpeg": _jpeg, "gaussian": _gaussian, "speckle": _speckle, "impulse": _impulse,
    "shot": _shot, "blur": _blur, "defocus": _defocus, "motion": _motion, "zoom": _zoom, "brighter": _brightness,
    "darker": _brightness, "contrast_up": _contrast, "contrast_down": _contrast, "gamma_up": _gamma,
    "gamma_down": _gamma, "saturate": _saturate, "stain": _stain, "bubble": _bubble, "corner": _corner,
    "characters": _characters,
}  # fmt: skip
