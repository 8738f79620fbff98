"""Corruptions grow with their severity, never depend on the order of images, and are what their names say."""

from __future__ import annotations

from functools import cache

import numpy as np
import pytest

from bench import corruptions
from bench.contract import Info
from bench.errors import UsageError
from bench.strengths import STRENGTHS
from tests.small import opened

CASES = [(modality, kind) for modality, kinds in STRENGTHS.items() for kind in kinds]


def info(modality: str, channels: int = 3) -> Info:
    return Info("mine", "binary", ("a", "b"), channels, modality)


@cache
def pictures(channels: int, size: int) -> np.ndarray:
    """A few drawn images, stained tissue or organs: neither black nor white, with edges."""
    return opened("phantom-histology" if channels == 3 else "phantom-organ-a").load("val", size).images[:8]


def corrupted(images: np.ndarray, modality: str, text: str) -> np.ndarray:
    corrupt = corruptions.find(text, info(modality, 3 if images.ndim == 4 else 1))
    return np.stack([corrupt(image, f"mine/{index}") for index, image in enumerate(images)])


@pytest.mark.parametrize(("modality", "kind"), CASES)
@pytest.mark.parametrize("size", [28, 64])
def test_every_severity_takes_an_image_farther_from_the_original(modality: str, kind: str, size: int) -> None:
    for channels in (3,) if kind == "saturate" else (1, 3):
        images = pictures(channels, size)
        distances = [
            np.abs(corrupted(images, modality, f"{kind}-{severity}").astype(float) - images).mean()
            for severity in range(1, 6)
        ]
        assert distances[0] > 0
        assert (np.diff(distances) > 0).all(), distances


@pytest.mark.parametrize("kind", list(corruptions.KINDS))
def test_an_image_is_corrupted_alike_wherever_it_stands(kind: str) -> None:
    modality = next(modality for modality, kinds in STRENGTHS.items() if kind in kinds)
    images = pictures(3, 28)
    whole = corrupted(images, modality, f"{kind}-3")
    corrupt = corruptions.find(f"{kind}-3", info(modality))
    before = images.copy()
    np.random.seed(7)
    for index in (5, 0, 5):
        assert np.array_equal(corrupt(images[index], f"mine/{index}"), whole[index])
    assert np.array_equal(images, before)
    assert (whole.dtype, whole.shape) == (np.uint8, images.shape)


@pytest.mark.parametrize("kind", ["gaussian", "speckle", "impulse", "shot", "corner", "characters", "motion"])
def test_two_images_with_the_same_pixels_differ_where_there_is_chance(kind: str) -> None:
    corrupt, image = corruptions.find(f"{kind}-5", info("dermatoscopy")), pictures(3, 64)[0]
    assert np.array_equal(corrupt(image, "one"), corrupt(image, "other")) == (kind == "corner")


def test_noise_has_the_strength_it_is_given() -> None:
    flat = np.full((224, 224), 128, dtype=np.uint8)
    spread = {
        kind: float((corrupted(flat[None], "x-ray", f"{kind}-1") / 255).std()) for kind in ("gaussian", "speckle")
    }
    assert spread["gaussian"] == pytest.approx(0.04, rel=0.05)
    assert spread["speckle"] == pytest.approx(0.05 * 128 / 255, rel=0.05)
    shot = corrupted(flat[None], "x-ray", "shot-2") / 255
    assert shot.var() == pytest.approx(128 / 255 / 25, rel=0.05)  # of a Poisson count, in parts of 25 photons
    salted = corrupted(flat[None], "x-ray", "impulse-5")
    assert (salted != 128).mean() == pytest.approx(0.17, rel=0.05)
    assert (salted == 255).sum() == pytest.approx((salted == 0).sum(), rel=0.1)


def test_tones_follow_their_formulas() -> None:
    ramp = np.arange(256, dtype=np.uint8).reshape(16, 16)
    assert np.array_equal(corrupted(ramp[None], "ct", "darker-1")[0], np.round(ramp * 0.8))
    assert np.array_equal(corrupted(ramp[None], "ct", "brighter-5")[0], np.round(ramp * 1.6).clip(max=255))
    doubled = corrupted(ramp[None], "ultrasound", "brighter-5")[0]
    assert np.array_equal(doubled, (ramp * 2.0).clip(max=255))
    assert np.array_equal(corrupted(ramp[None], "ct", "gamma_up-5")[0], np.round(255 * (ramp / 255) ** 2))
    contrast = corrupted(ramp[None], "ct", "contrast_down-5")[0].astype(float)
    assert np.abs(contrast - (128 + 0.5 * (ramp - 128.0))).max() <= 1


def test_blurs_keep_the_mean_and_spread_a_point_as_far_as_they_say() -> None:
    point = np.zeros((224, 224), dtype=np.uint8)
    point[108:117, 108:117] = 255
    for text, modality in (("blur-5", "ct"), ("defocus-5", "fundus"), ("motion-5", "fundus")):
        assert corrupted(point[None], modality, text).mean() == pytest.approx(point.mean(), rel=0.02)
    line = np.zeros((224, 224), dtype=np.uint8)
    line[:, 112:] = 255
    across = (
        np.diff(corrupted(line[None], "ct", "blur-3")[0, 100].astype(float)) / 255
    )  # the kernel, seen along an edge
    place = np.arange(len(across)) + 0.5
    centre = (across * place).sum()
    assert (across * (place - centre) ** 2).sum() ** 0.5 == pytest.approx(0.3 * ((15 - 1) / 2 - 1) + 0.8, rel=0.05)
    seen = np.flatnonzero(corrupted(point[None], "fundus", "defocus-5")[0, 112])
    assert len(seen) == pytest.approx(9 + 2 * 8, abs=2)


def test_pixelated_images_have_the_resolution_they_are_given() -> None:
    waves = np.sin(
        2 * np.pi * np.arange(64) / 64 * np.array([3, 20])[:, None]
    )  # periods in an image; it keeps 12 pixels
    images = (128 + 100 * waves[:, None].repeat(64, 1)).astype(np.uint8)
    slow, fast = corrupted(images, "ultrasound", "pixelate-3")[:, 32, 16:48].astype(float).std(1)
    assert slow > 0.75 * 100 / 2**0.5
    assert fast < 0.1 * 100 / 2**0.5


def test_an_unknown_kind_names_those_that_the_modality_has() -> None:
    with pytest.raises(UsageError, match=r"corrupted:bubble-3.*ultrasound.*pixelate, jpeg, speckle, motion") as caught:
        corruptions.find("bubble-3", info("ultrasound"))
    assert "bubble," not in str(caught.value)
    for text in ("speckle", "speckle-0", "speckle-6", "speckle-", "-3", "speckle-03"):
        with pytest.raises(UsageError, match="severity of 1 to 5"):
            corruptions.find(text, info("ultrasound"))


def test_images_of_unknown_modality_take_the_general_kinds_and_gray_ones_no_colour() -> None:
    assert "speckle" in corruptions.of(info("unknown"))
    assert "bubble" not in corruptions.of(info("unknown"))
    assert "saturate" in corruptions.of(info("histology", 3))
    assert "saturate" not in corruptions.of(info("histology", 1))
