"""How far images of each modality may be changed in training: one policy for each, as data, and its application."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, fields

import torch
from torch import Tensor

from bench.augment import blend, blur, edge, gray, light, rotation, shifted, stain, turn_hue, uniform, warp
from bench.errors import UsageError, nearest
from bench.rules import Rule, checked


@dataclass(frozen=True)
class Policy:
    """The largest strength of each transform; every image draws its own strengths, from none to that, evenly. 0 leaves
    a transform out."""

    horizontal_flip: float = 0.0
    """Share of the images that are mirrored left to right."""
    vertical_flip: float = 0.0
    """Share of the images that are turned upside down."""
    quarter_turn: float = 0.0
    """Share of the images that are turned by 90, 180 or 270 degrees."""
    rotate: float = 0.0
    """Degrees to either side; what a move uncovers is filled with the colour of the image's edge."""
    zoom: float = 0.0
    """Larger or smaller by a factor of up to 1 + zoom."""
    shift: float = 0.0
    """Share of the side, in both directions; whole pixels where nothing is rotated or zoomed."""
    stain: float = 0.0
    """Amount of haematoxylin, eosin and DAB: times 1 ± stain, and ± stain of optical density (Tellez et al. 2018)."""
    brightness: float = 0.0
    """Times 1 ± brightness, as are contrast and saturation."""
    contrast: float = 0.0
    saturation: float = 0.0
    hue: float = 0.0
    """Degrees of the colour circle to either side."""
    gamma: float = 0.0
    """An exponent of up to 1 + gamma, or one over that."""
    light: float = 0.0
    """Uneven illumination: times 1 ± light at opposite edges, in any direction."""
    blur: float = 0.0
    """Deviation of a Gaussian, as a share of the side."""
    speckle: float = 0.0
    """Deviation of noise that multiplies."""
    noise: float = 0.0
    """Deviation of noise that adds up, where white is 1."""

    def scaled(self, strength: float) -> Policy:
        """All strengths times `strength`, up to their limits. Flips and quarter turns are no matter of degree and
        stay."""
        names = [field.name for field in fields(self) if field.name not in SHARES]
        scaled = {name: min(getattr(self, name) * strength, LIMITS[name]) for name in names}
        return Policy(**scaled | {name: getattr(self, name) for name in SHARES})


SHARES = ("horizontal_flip", "vertical_flip", "quarter_turn")
LIMITS = {
    "horizontal_flip": 1.0, "vertical_flip": 1.0, "quarter_turn": 1.0, "rotate": 180.0, "zoom": 1.0, "shift": 0.5,
    "stain": 0.5, "brightness": 1.0, "contrast": 1.0, "saturation": 1.0, "hue": 180.0, "gamma": 2.0, "light": 0.7,
    "blur": 0.05, "speckle": 1.0, "noise": 0.5,
}  # fmt: skip
"""The largest values that a policy may have."""

POLICIES = {
    # Cells and tissue have no upright position. Nothing is cropped away: turns are by right angles only.
    "histology": Policy(
        horizontal_flip=0.5, vertical_flip=0.5, quarter_turn=0.75,
        stain=0.1, brightness=0.1, contrast=0.1, saturation=0.1, blur=0.008,
    ),
    # The colour of a lesion is a finding: hue hardly moves.
    "dermatoscopy": Policy(
        horizontal_flip=0.5, vertical_flip=0.5, rotate=180, zoom=0.1,
        brightness=0.15, contrast=0.15, saturation=0.15, hue=4, light=0.15,
    ),
    # The heart is on the left: no flips.
    "x-ray": Policy(rotate=7, zoom=0.1, shift=0.05, contrast=0.2, gamma=0.2, noise=0.02, blur=0.005),
    # Brightness and contrast are the intensity window. The liver is on the right: no flips.
    "ct": Policy(rotate=10, zoom=0.1, shift=0.05, brightness=0.15, contrast=0.15, gamma=0.2, noise=0.02),
    # Red and yellow lesions differ in hue, which hardly moves.
    "fundus": Policy(
        horizontal_flip=0.5, vertical_flip=0.5, rotate=30,
        brightness=0.15, contrast=0.15, saturation=0.15, hue=4, gamma=0.2, light=0.15,
    ),
    # The layers of the retina have an order, top to bottom.
    "oct": Policy(horizontal_flip=0.5, rotate=7, shift=0.05, speckle=0.1),
    # Sound comes from above, shadows fall down.
    "ultrasound": Policy(horizontal_flip=0.5, rotate=7, zoom=0.1, shift=0.05, gamma=0.2, speckle=0.1),
    "microscopy": Policy(
        horizontal_flip=0.5, vertical_flip=0.5, quarter_turn=0.75, brightness=0.2, contrast=0.1, noise=0.02
    ),
    # Nothing is known of what may be changed: a little of what no camera or scanner holds constant.
    "unknown": Policy(rotate=5, zoom=0.05, shift=0.05, brightness=0.1, contrast=0.1),
}  # fmt: skip
"""By `Info.modality`. What would change a finding is not in a modality's policy."""


def policy_of(setting: object, modality: str, where: str = "policy") -> Policy:
    """The policy that a matrix file asks for: "auto" for that of the dataset's modality ("unknown" where it has none),
    the name of a modality, or a table of transforms, which replaces all of a policy. Raises UsageError, naming
    `where`."""
    if isinstance(setting, Mapping):
        for name in setting:
            if name not in LIMITS:
                raise UsageError(f'{where}: there is no transform "{name}".{nearest(name, LIMITS)}')
        return Policy(**{name: checked(_rule(name), value, f"{where}: {name}") for name, value in setting.items()})
    if setting == "auto":
        return POLICIES.get(modality, POLICIES["unknown"])
    if not isinstance(setting, str) or setting not in POLICIES:
        table = "{ rotate = 10, contrast = 0.2 }"
        hint = nearest(setting, ("auto", *POLICIES)) if isinstance(setting, str) else ""
        raise UsageError(f'{where} = {setting!r}: must be "auto", a modality or a table such as {table}.{hint}')
    return POLICIES[setting]


def augmented(images: Tensor, policy: Policy, generator: torch.Generator, alike: bool = False) -> Tensor:
    """Images float32 in 0..1 [N, C, S, S], each changed by draws of its own, or all by the same ones where they are to
    be changed `alike`. Colour is left alone in gray images."""
    draws = 1 if alike else len(images)

    def between(low: float, high: float) -> Tensor:
        return uniform(draws, low, high, images, generator).expand(len(images), -1, -1, -1)

    def spread(most: float) -> Tensor:
        return between(-most, most)

    def noise(deviation: float) -> Tensor:
        drawn = torch.randn((draws, *images.shape[1:]), generator=generator, device=images.device)
        return drawn * between(0, deviation)

    colour = images.shape[1] == 3
    if any((*(getattr(policy, name) for name in SHARES), policy.rotate, policy.zoom, policy.shift)):
        quarters = (between(0, 1) < policy.quarter_turn) * between(1, 4).floor()
        mirrored = [between(0, 1) < share for share in (policy.horizontal_flip, policy.vertical_flip)]
        zoom = spread(math.log1p(policy.zoom)).exp().view(-1, 1, 1)
        moved = torch.cat([spread(2 * policy.shift), spread(2 * policy.shift)], dim=1).view(-1, 2, 1)
        degrees = spread(policy.rotate)
        if policy.rotate or policy.zoom:
            scale = torch.cat([1 - 2 * mirror.float() for mirror in mirrored], dim=1).view(-1, 1, 2) * zoom
            matrix = torch.cat([rotation(90 * quarters + degrees) * scale, moved], dim=2)
            around = edge(images)
            images = warp(images - around, matrix) + around
        else:  # nothing is interpolated, at a third of the time
            if policy.shift:
                side = images.shape[-1]
                right, down = (moved.flatten(1) * side / 2).round().long().unbind(1)
                images = shifted(images, down, right, edge(images), math.ceil(policy.shift * side))
            images = _turned(images, policy, quarters, *mirrored)
    if policy.stain and colour:
        factor, plus = (torch.cat([spread(policy.stain) for _ in range(3)], dim=1) for _ in range(2))
        images = stain(images, 1 + factor, plus)
    if policy.brightness:
        images = images * (1 + spread(policy.brightness))
    if policy.contrast:
        images = blend(images, gray(images).mean((2, 3), keepdim=True), 1 + spread(policy.contrast))
    if policy.saturation and colour:
        images = blend(images, gray(images), 1 + spread(policy.saturation))
    if policy.hue and colour:
        images = turn_hue(images, spread(policy.hue))
    if policy.gamma:
        images = images.clamp(0, 1) ** spread(math.log1p(policy.gamma)).exp()
    if policy.light:
        images = light(images, between(0, policy.light), spread(180))
    if policy.blur:
        widest = policy.blur * images.shape[-1]
        images = blur(images, between(0, widest), min(math.ceil(3 * widest), images.shape[-1] - 1))
    if policy.speckle:
        images = images * (1 + noise(policy.speckle))
    if policy.noise:
        images = images + noise(policy.noise)
    return images.clamp(0, 1)


def _turned(images: Tensor, policy: Policy, quarters: Tensor, across: Tensor, down: Tensor) -> Tensor:
    """Square images flipped (bool [N, 1, 1, 1], left to right and upside down), then turned counter-clockwise by
    `quarters` [N, 1, 1, 1]; what the policy never does is not gone through."""
    if policy.quarter_turn:  # a transposition and a flip; half a turn is both flips
        odd, half = quarters % 2 == 1, quarters >= 2
        images = torch.where(odd, images.transpose(2, 3), images)
        across, down = across ^ half, down ^ half ^ odd
    if policy.horizontal_flip or policy.quarter_turn:
        images = torch.where(across, images.flip(3), images)
    if policy.vertical_flip or policy.quarter_turn:
        images = torch.where(down, images.flip(2), images)
    return images


def _rule(name: str) -> Rule:
    return Rule(float, lambda v: 0 <= v <= LIMITS[name], f"a number, at least 0 and at most {LIMITS[name]:g}")
