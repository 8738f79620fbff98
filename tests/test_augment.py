"""Transforms and policies: drawn for each image, reproducible by seed, nothing where their strength is nothing, and
never what a modality forbids."""

from __future__ import annotations

import inspect
import math
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor
from torchvision.transforms import InterpolationMode
from torchvision.transforms.v2 import functional as tvf

from bench import registry
from bench.augment import blur, colour_jitter, light, random_crop, rotation, stain, turn_hue, warp
from bench.contract import Info
from bench.errors import UsageError
from bench.policies import LIMITS, POLICIES, SHARES, Policy, augmented, policy_of
from tests.small import CHECKOUT


def seeded(seed: int) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def test_the_whole_image_or_its_mirror_image_where_a_crop_leaves_nothing_out() -> None:
    images = torch.rand(16, 3, 12, 12)
    # Aspect ratios are clamped to the image: at full area one side is always whole.
    seen = random_crop(images[:, :, :, :1].expand(-1, -1, -1, 12), 12, (1.0, 1.0), seeded(0))
    assert seen.shape == images.shape
    full = random_crop(torch.ones(4, 3, 8, 8), 8, (0.2, 0.5), seeded(0))
    assert torch.allclose(full, torch.ones(4, 3, 8, 8))  # never a border that was not in the image


def test_every_image_is_drawn_for_alone_and_by_the_seed() -> None:
    images = torch.rand(1, 3, 16, 16).expand(8, -1, -1, -1)
    for transform in (
        lambda seed: random_crop(images, 10, (0.3, 0.9), seeded(seed)),
        lambda seed: colour_jitter(images, 0.3, seeded(seed)),
    ):
        once = transform(1)
        assert len({tuple(image.flatten().tolist()) for image in once}) == 8
        assert torch.equal(once, transform(1))
        assert not torch.equal(once, transform(2))


def test_no_strength_no_change_and_no_value_outside_the_range() -> None:
    images = torch.rand(4, 3, 8, 8)
    assert torch.allclose(colour_jitter(images, 0.0, seeded(0)), images, atol=1e-6)
    strong = colour_jitter(images, 0.9, seeded(0))
    assert strong.min() >= 0
    assert strong.max() <= 1


ROUND = Policy(horizontal_flip=0.5, vertical_flip=0.5, quarter_turn=0.75)


def column(*values: float) -> Tensor:
    return torch.tensor(values, dtype=torch.float32).view(-1, 1, 1, 1)


def hue(images: Tensor) -> Tensor:
    """Degrees in the plane across the gray axis (the hue of HSI), [N, H, W]."""
    red, green, blue = images.unbind(1)
    return torch.atan2(math.sqrt(3) * (green - blue), 2 * red - green - blue).rad2deg()


def apart(first: Tensor, second: Tensor) -> Tensor:
    """Degrees between two hues."""
    return ((first - second + 180) % 360 - 180).abs()


def asymmetric(channels: int, count: int) -> Tensor:
    """The same slope `count` times, upwards at 22.5 degrees: as far from every flip and quarter turn as can be."""
    x, y = torch.meshgrid(torch.linspace(-1, 1, 32), torch.linspace(-1, 1, 32), indexing="xy")
    angle = math.radians(22.5)
    return (0.5 + 0.35 * (x * math.cos(angle) + y * math.sin(angle))).expand(count, channels, 32, 32)


def orientations(images: Tensor) -> list[Tensor]:
    """As it is, mirrored; then both turned by 90, 180 and 270 degrees."""
    return [turned.rot90(k, (2, 3)) for k in range(4) for turned in (images, images.flip(3))]


def nearest_orientations(policy: Policy, channels: int) -> set[int]:
    """Which of the eight orientations the image is nearest to, in 400 draws of the policy."""
    images = asymmetric(channels, 400)
    changed = augmented(images, policy, seeded(0)).flatten(1)
    changed = changed - changed.mean(1, keepdim=True)
    found = torch.stack([(changed * (o.flatten(1) - o.mean((1, 2, 3))[:, None])).sum(1) for o in orientations(images)])
    return set(found.argmax(0).tolist())


def test_a_warp_is_torchvisions_with_an_angle_a_size_and_a_shift_for_each_image() -> None:
    images, angles = torch.rand(3, 3, 16, 16), (30.0, -75.0, 200.0)
    nowhere = torch.zeros(3, 2, 1)
    turned = warp(images, torch.cat([rotation(column(*angles)), nowhere], dim=2))
    for image, angle, got in zip(images, angles, turned, strict=True):
        assert torch.allclose(got, tvf.rotate(image, angle, InterpolationMode.BILINEAR), atol=1e-4)
    # torchvision says where the image goes; a warp says where it comes from.
    back = rotation(column(*angles)) / 1.25
    pixels = torch.tensor([3.0, -2.0]).view(1, 2, 1)
    moved = warp(images, torch.cat([back, -back @ pixels * 2 / 16], dim=2))
    for image, angle, got in zip(images, angles, moved, strict=True):
        wanted = tvf.affine(image, -angle, [3, -2], 1.25, [0.0], InterpolationMode.BILINEAR)
        assert torch.allclose(got, wanted, atol=1e-4)


@pytest.mark.parametrize("side", [7, 8])
def test_right_angles_and_flips_are_those_of_a_warp_but_to_the_bit(side: int) -> None:
    images = torch.rand(64, 3, side, side)
    exact = augmented(images, ROUND, seeded(0))
    warped = augmented(images, replace(ROUND, rotate=1e-4), seeded(0))  # draws the same, and interpolates
    assert torch.allclose(exact, warped, atol=1e-3)
    found = torch.stack(orientations(images)).eq(exact).all(dim=(2, 3, 4))
    assert found.any(0).all()
    assert found.any(1).all()


def test_a_shift_alone_is_by_whole_pixels_and_uncovers_the_colour_of_the_edge() -> None:
    image = 0.2 + 0.6 * torch.rand(1, 1, 16, 16)
    image[..., 0, :] = image[..., -1, :] = image[..., 0] = image[..., -1] = 0.1
    moved = augmented(image.expand(2000, 1, 16, 16), Policy(shift=1 / 8), seeded(0))
    around = torch.nn.functional.pad(image, [2] * 4, value=0.1)
    windows = {around[0, :, y : y + 16, x : x + 16].numpy().tobytes() for y in range(5) for x in range(5)}
    assert {one.numpy().tobytes() for one in moved} == windows


def test_hue_turns_by_the_angle_and_nothing_else_does() -> None:
    images, degrees = 0.3 + 0.4 * torch.rand(4, 3, 8, 8), column(0, 4, -30, 120)
    turned = turn_hue(images, degrees)
    assert torch.allclose(apart(hue(turned), hue(images)), degrees.abs().view(4, 1, 1).expand(4, 8, 8), atol=0.05)
    assert torch.allclose(turned.mean(1), images.mean(1), atol=1e-6)
    assert torch.allclose(turned.std(1), images.std(1), atol=1e-6)
    assert torch.allclose(turn_hue(images, column(0, 0, 0, 0)), images, atol=1e-6)


def test_stains_are_those_of_ruifrok_and_johnston() -> None:
    amounts = torch.tensor([0.9, 0.4, 0.2])
    matrix = np.array([[0.65, 0.70, 0.29], [0.07, 0.99, 0.11], [0.27, 0.57, 0.78]])
    pixel = torch.from_numpy(np.exp(-amounts.numpy() @ matrix)).float().view(1, 3, 1, 1)
    factor, plus = torch.tensor([1.5, 0.7, 1.0]), torch.tensor([0.0, 0.1, -0.05])
    wanted = np.exp(-(amounts * factor + plus).numpy() @ matrix)
    got = stain(pixel, factor.view(1, 3, 1, 1), plus.view(1, 3, 1, 1))
    assert got.flatten().numpy() == pytest.approx(wanted, abs=1e-5)


def test_no_change_of_the_stains_is_no_change_of_any_colour() -> None:
    images = torch.randint(256, (4, 3, 16, 16), generator=seeded(0)) / 255
    images[0, :, :4], images[0, 0, 4:8] = 0, 0
    assert torch.allclose(stain(images, torch.ones(4, 3, 1, 1), torch.zeros(4, 3, 1, 1)), images, atol=1e-6)
    # There and back, but where a colour has left the range of what an image holds.
    factor, plus = 1 + 0.1 * torch.rand(4, 3, 1, 1), 0.05 * torch.rand(4, 3, 1, 1)
    back = stain(stain(images[1:], factor[1:], plus[1:]), 1 / factor[1:], -plus[1:] / factor[1:])
    inside = stain(images[1:], factor[1:], plus[1:]) > 1 / 255
    whole = inside.all(1, keepdim=True) & (images[1:] > 1 / 255).all(1, keepdim=True)
    assert torch.allclose(back[whole.expand_as(back)], images[1:][whole.expand_as(back)], atol=1e-4)


def test_blur_is_torchvisions_by_a_width_for_each_image_and_light_a_slope() -> None:
    images = torch.rand(3, 3, 16, 16)
    blurred = blur(images, column(0.0, 0.8, 1.5), radius=4)
    assert torch.equal(blurred[0], images[0])
    for i, deviation in ((1, 0.8), (2, 1.5)):
        assert torch.allclose(blurred[i], tvf.gaussian_blur(images[i], [9, 9], [deviation, deviation]), atol=1e-5)
    ones = torch.ones(2, 1, 5, 5)
    right, down = light(ones, column(0.2, 0.4), column(0, 90))
    assert torch.allclose(right[0], torch.tensor([0.8, 0.9, 1.0, 1.1, 1.2]).expand(5, 5))
    assert torch.allclose(down[0], torch.tensor([0.6, 0.8, 1.0, 1.2, 1.4])[:, None].expand(5, 5), atol=1e-6)


@pytest.mark.parametrize("name", LIMITS)
def test_each_transform_alone(name: str) -> None:
    policy = Policy(**{name: LIMITS[name] / 2})
    images = torch.rand(1, 3, 16, 16, generator=seeded(5)).expand(12, -1, -1, -1) * 0.8 + 0.1
    once = augmented(images, policy, seeded(1))
    assert once.shape == images.shape
    assert once.min() >= 0
    assert once.max() <= 1
    assert len({tuple(image.flatten().tolist()) for image in once}) >= (2 if name in SHARES else 9)
    assert torch.equal(once, augmented(images, policy, seeded(1)))
    assert not torch.equal(once, augmented(images, policy, seeded(2)))
    none = Policy(**{name: 0.0 if name in SHARES else 1e-7})
    assert torch.allclose(augmented(images, none, seeded(1)), images, atol=1e-5)
    changes = not torch.equal(augmented(images[:, :1], policy, seeded(1)), images[:, :1])
    assert changes == (name not in ("stain", "saturation", "hue"))  # gray images have no colour


def test_images_that_no_policy_changes_are_the_images() -> None:
    images = torch.rand(4, 3, 8, 8)
    assert torch.equal(augmented(images, Policy(), seeded(0)), images)
    assert Policy(rotate=10, vertical_flip=0.5).scaled(0) == Policy(vertical_flip=0.5)
    assert Policy(rotate=10, light=0.6, horizontal_flip=0.5).scaled(1.5) == Policy(
        rotate=15, light=0.7, horizontal_flip=0.5
    )


@pytest.mark.parametrize(
    ("modality", "seen"),
    [
        ("histology", set(range(8))),
        ("microscopy", set(range(8))),
        ("fundus", {0, 1, 4, 5}),  # as it is, mirrored, turned by 180 degrees, and that mirrored: upside down
        ("dermatoscopy", {0, 1, 4, 5}),
        ("oct", {0, 1}),
        ("ultrasound", {0, 1}),
        ("x-ray", {0}),
        ("ct", {0}),
        ("unknown", {0}),
    ],
)
@pytest.mark.parametrize("channels", [1, 3])
def test_no_image_is_seen_in_an_orientation_that_its_modality_forbids(
    modality: str, seen: set[int], channels: int
) -> None:
    policy = POLICIES[modality].scaled(1.5)
    if policy.rotate > 20:  # any orientation may come of a turn; here it is about the flips
        policy = replace(policy, rotate=0.0, light=0.0)
    assert nearest_orientations(policy, channels) == seen


def test_what_a_modality_forbids_is_in_no_policy() -> None:
    for modality in ("x-ray", "ct", "unknown"):
        policy = POLICIES[modality]
        assert (policy.horizontal_flip, policy.vertical_flip, policy.quarter_turn) == (0, 0, 0)
        assert policy.rotate <= 10
    for modality in ("oct", "ultrasound"):
        policy = POLICIES[modality]
        assert (policy.vertical_flip, policy.quarter_turn) == (0, 0)
        assert policy.rotate <= 10
    for modality in ("dermatoscopy", "fundus"):
        assert 0 < POLICIES[modality].hue <= 5
    assert {p.hue for name, p in POLICIES.items() if name not in ("dermatoscopy", "fundus")} == {0}
    assert POLICIES["dermatoscopy"].rotate == 180


def test_histology_loses_no_pixel() -> None:
    policy = POLICIES["histology"]
    moves = replace(ROUND, rotate=policy.rotate, zoom=policy.zoom, shift=policy.shift)
    assert moves == ROUND
    images = torch.rand(64, 3, 15, 15)
    changed = augmented(images, moves, seeded(0))
    assert torch.allclose(changed.flatten(2).sort(dim=2).values, images.flatten(2).sort(dim=2).values, atol=1e-4)
    shares = [torch.isclose(changed, o, atol=1e-4).all(3).all(2).all(1).float().mean() for o in orientations(images)]
    assert sum(shares) == pytest.approx(1)


def test_what_a_move_uncovers_has_the_colour_of_the_images_edge() -> None:
    x, y = torch.meshgrid(torch.linspace(-1, 1, 32), torch.linspace(-1, 1, 32), indexing="xy")
    disc = (x**2 + y**2 < 0.98).float()  # it touches the edge, which is mostly background
    background, colour = torch.tensor([[0.0, 0.1, 0.2], [0.5, 0.4, 0.3]]).view(2, 1, 3, 1, 1)
    images = (background + (colour - background) * disc).expand(64, 3, 32, 32)
    turned = augmented(images, Policy(rotate=45), seeded(0))
    assert torch.allclose(turned[..., :4, :4], background.expand(64, 3, 4, 4), atol=1e-5)
    assert torch.allclose(turned[..., 8:24, 8:24], colour.expand(64, 3, 16, 16), atol=1e-5)
    shifted = augmented(images, Policy(shift=0.5), seeded(0))
    assert torch.equal(shifted.amin((0, 2, 3)), background.flatten())


@pytest.mark.parametrize("modality", ["dermatoscopy", "fundus"])
def test_the_colour_of_a_lesion_hardly_moves(modality: str) -> None:
    colours = torch.tensor([[0.75, 0.35, 0.25], [0.8, 0.7, 0.3], [0.5, 0.3, 0.2], [0.7, 0.5, 0.45]])
    images = colours.repeat(100, 1).view(400, 3, 1, 1).expand(400, 3, 8, 8)
    strongest = POLICIES[modality].scaled(1.5)
    moved = apart(hue(augmented(images, Policy(hue=strongest.hue), seeded(0))), hue(images))
    assert 0.8 * strongest.hue < moved.max() <= strongest.hue + 0.05
    changed = augmented(images, strongest, seeded(0))
    whole = (changed.amax(1) < 0.99) & (changed.amin(1) > 0.01)  # a colour that is clipped has another hue
    assert apart(hue(changed), hue(images))[whole].max() < 12


def test_every_modality_has_a_policy_and_every_built_in_set_a_modality() -> None:
    words = (inspect.getsource(Info).split('modality: str = "unknown"')[1]).split(": picks")[0]
    assert {word.strip(' "|\n') for word in words.split("|")} == set(POLICIES)
    names = [name for name in registry.datasets(CHECKOUT) if not name.endswith(":")]
    assert len(names) >= 18
    assert {registry.open_dataset(name, Path()).info.modality for name in names} <= set(POLICIES) - {"unknown"}


def test_a_policy_is_a_modality_or_a_table_and_every_mistake_is_named() -> None:
    assert policy_of("auto", "oct") == policy_of("oct", "x-ray") == POLICIES["oct"]
    assert policy_of("auto", "thermography") == POLICIES["unknown"]
    assert policy_of({"rotate": 10, "contrast": 0.2}, "oct") == Policy(rotate=10.0, contrast=0.2)
    assert policy_of({}, "oct") == Policy()
    for setting, message in (
        ({"horizontal_flop": 0.5}, 'policy: there is no transform "horizontal_flop". Did you mean "horizontal_flip"?'),
        ({"rotate": 300}, "policy: rotate = 300.0: must be a number, at least 0 and at most 180"),
        ({"rotate": {"degrees": 3}}, "policy: rotate = {'degrees': 3}: must be a number"),
        ("xray", 'Did you mean "x-ray"?'),
        (3, 'policy = 3: must be "auto", a modality or a table such as { rotate = 10'),
    ):
        with pytest.raises(UsageError) as error:
            policy_of(setting, "oct")
        assert message in str(error.value)
