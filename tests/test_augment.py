"""Random transforms: drawn for each image, reproducible by seed, and nothing where their strength is nothing."""

from __future__ import annotations

import torch

from bench.augment import colour_jitter, random_crop


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
