"""Test-time augmentation: what a network is shown of an image depends on the image, the view and the modality alone."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from bench.check import new_run
from bench.policies import POLICIES
from bench.prediction import Prediction
from bench.tta import viewers

RUN = new_run(size=32)
IMAGES = torch.randint(0, 256, (6, 1, 28, 28), generator=torch.Generator().manual_seed(0), dtype=torch.uint8)
LEFT = torch.zeros(2, 1, 28, 28, dtype=torch.uint8)
LEFT[..., :14] = 200


def pixels(images: Tensor) -> Tensor:
    """A predictor that says what it was shown."""
    return images.flatten(1).float()


def side(images: Tensor) -> Tensor:
    """Whether the left half is the brighter one."""
    half = images.shape[-1] // 2
    return images[..., :half].float().mean((1, 2, 3)) - images[..., half:].float().mean((1, 2, 3))


def test_the_first_view_is_the_image_itself() -> None:
    found = viewers(pixels, 2, "ct", RUN)
    assert found[0] is pixels
    assert len(found) == 3


@pytest.mark.parametrize("modality", POLICIES)
def test_a_view_of_an_image_does_not_depend_on_the_others(modality: str) -> None:
    for view in viewers(pixels, 2, modality, RUN)[1:]:
        together = view(IMAGES)
        assert torch.equal(view(IMAGES), together)
        assert torch.equal(torch.cat([view(IMAGES[:2]), view(IMAGES[2:])]), together)
        assert not torch.equal(together, pixels(RUN.resized(IMAGES).mul(255).byte()))


def test_views_differ() -> None:
    first, second = (view(IMAGES) for view in viewers(pixels, 2, "x-ray", RUN)[1:])
    assert not torch.equal(first, second)


def test_views_follow_the_modality() -> None:
    assert all((view(LEFT) > 0).all() for view in viewers(side, 16, "x-ray", RUN))  # the heart stays on its side
    assert any((view(LEFT) < 0).all() for view in viewers(side, 16, "ultrasound", RUN))


def test_each_domain_keeps_its_own_predictor() -> None:
    adapted = Prediction(pixels, other=lambda images: -pixels(images), whole=True)
    view = viewers(adapted, 1, "oct", RUN)[1]
    assert isinstance(view, Prediction)
    assert view.whole
    assert view.other is not None
    assert torch.equal(view.other(IMAGES), -view(IMAGES))
