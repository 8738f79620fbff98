"""Images on the device: resized as PIL resizes, normalised as the network wants, whether in memory or mapped."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from bench import images
from bench.contract import Split


def split(path: Path | None = None, channels: int = 3) -> Split:
    rng = np.random.default_rng(0)
    pixels = rng.integers(0, 256, (9, 28, 28, 3) if channels == 3 else (9, 28, 28), dtype=np.uint8)
    if path is not None:
        np.save(path, pixels)
        pixels = np.load(path, mmap_mode="r")
    return Split(pixels, np.arange(9) % 3, np.array([f"i{n}" for n in range(9)]))


@pytest.mark.parametrize("size", [14, 32, 64, 224])
def test_bilinear_resizing_equals_pil_bit_for_bit(size: int) -> None:
    there = images.to_device(split(), "k", torch.device("cpu"))
    ours = images.resize(there.pixels, size, "bilinear").permute(0, 2, 3, 1).numpy()
    for one, pixels in zip(ours, split().images, strict=True):
        pil = np.asarray(Image.fromarray(pixels).resize((size, size), Image.Resampling.BILINEAR))
        np.testing.assert_array_equal(one, pil)


def test_nearest_resizing_equals_pil() -> None:
    there = images.to_device(split(), "k", torch.device("cpu"))
    ours = images.resize(there.pixels, 224, "nearest").permute(0, 2, 3, 1).numpy()
    pil = np.asarray(Image.fromarray(split().images[0]).resize((224, 224), Image.Resampling.NEAREST))
    np.testing.assert_array_equal(ours[0], pil)


@pytest.mark.parametrize("channels", [1, 3])
def test_images_are_sent_part_by_part_with_no_copy_of_all_of_them(
    channels: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    made: list[int] = []
    array = np.array

    def counted(given, *args, **more):  # type: ignore[no-untyped-def]
        made.append(np.size(given))
        return array(given, *args, **more)

    monkeypatch.setattr(images, "AT_ONCE", 4)
    given = split(channels=channels)
    given.images.flags.writeable = False
    monkeypatch.setattr(np, "array", counted)
    there = images.to_device(given, "k", torch.device("cpu"))
    expected = given.images[:, None] if channels == 1 else given.images.transpose(0, 3, 1, 2)
    assert torch.equal(torch.as_tensor(there.pixels), torch.from_numpy(expected.copy()))
    assert max(made) == 4 * expected[0].size


@pytest.mark.parametrize(("writeable", "copied"), [(True, False), (False, True)])
def test_on_a_cpu_gray_images_are_not_copied_unless_they_must_not_be_written_to(writeable: bool, copied: bool) -> None:
    given = split(channels=1)
    given.images.flags.writeable = writeable
    there = images.to_device(given, "k", torch.device("cpu"))
    assert np.shares_memory(torch.as_tensor(there.pixels).numpy(), given.images) is not copied


@pytest.mark.parametrize("channels", [1, 3])
def test_pixels_that_do_not_fit_stay_mapped_and_give_the_same_batches(tmp_path: Path, channels: int) -> None:
    device = torch.device("cpu")
    resident = images.to_device(split(channels=channels), "k", device)
    mapped = images.to_device(split(tmp_path / "pixels.npy", channels), "k", device, room=0.0)
    assert isinstance(resident.pixels, torch.Tensor)
    assert isinstance(mapped.pixels, np.ndarray)
    index = torch.tensor([7, 0, 3, 3])
    for one, other in zip(resident.batch(index), mapped.batch(index), strict=True):
        assert torch.equal(one, other)
    some, fewer = np.array([1, 4, 8]), np.array([2, 0])
    picked = torch.tensor([1, 0, 1])
    wanted = resident.take(some).take(fewer)
    got = mapped.take(some).take(fewer)
    assert got.pixels is mapped.pixels  # a part is not read into memory
    assert wanted.ids.tolist() == got.ids.tolist() == ["i8", "i1"]
    for one, other in zip(wanted.batch(picked), got.batch(picked), strict=True):
        assert torch.equal(one, other)


def test_a_subset_has_a_key_of_its_own_and_the_whole_keeps_its_key() -> None:
    there = images.to_device(split(), "k", torch.device("cpu"))
    assert there.take(np.arange(9)).key == "k"
    assert len({there.key, there.take(np.arange(3)).key, there.take(np.arange(1, 4)).key}) == 3


def test_images_resized_once_give_the_batches_that_they_gave_resized_each_time() -> None:
    there = images.to_device(split(), "k", torch.device("cpu"))
    once = images.at_size(there, 40, "bilinear")
    assert isinstance(once.pixels, torch.Tensor)
    assert torch.equal(once.pixels, images.resize(there.pixels, 40, "bilinear"))
    assert torch.equal(once.labels, there.labels)
    keys = {there.key, once.key, images.at_size(there, 40, "nearest").key, images.at_size(there, 20, "bilinear").key}
    assert len(keys) == 4
    assert images.at_size(there, 28, "bilinear") is there


def test_images_that_would_not_fit_enlarged_or_are_mapped_stay_as_they_are(tmp_path: Path) -> None:
    there = images.to_device(split(), "k", torch.device("cpu"))
    assert images.at_size(there, 40, "bilinear", room=0.0) is there
    mapped = images.to_device(split(tmp_path / "pixels.npy"), "k", torch.device("cpu"), room=0.0)
    assert images.at_size(mapped, 40, "bilinear") is mapped


@pytest.mark.parametrize("layout", [torch.contiguous_format, torch.channels_last])
def test_normalising_leaves_what_it_is_given_as_it_was(layout: torch.memory_format) -> None:
    given = torch.rand(2, 3, 4, 5).contiguous(memory_format=layout)
    before = given.clone()
    mean, std = torch.tensor([0.1, 0.2, 0.3]), torch.tensor([0.5, 0.6, 0.7])
    ours = images.normalise(given, mean, std)
    assert torch.equal(given, before)
    assert torch.equal(ours, (given - mean[:, None, None]) / std[:, None, None])
    assert ours.is_contiguous(memory_format=torch.channels_last)


def test_gray_images_are_given_three_channels_and_normalised() -> None:
    mean, std = torch.tensor([0.1, 0.2, 0.3]), torch.tensor([0.5, 0.6, 0.7])
    gray = torch.rand(2, 1, 4, 4)
    ours = images.normalise(gray, mean, std)
    assert ours.shape == (2, 3, 4, 4)
    for channel in range(3):
        torch.testing.assert_close(ours[:, channel], (gray[:, 0] - mean[channel]) / std[channel])


def test_predictors_are_asked_batch_by_batch_in_order() -> None:
    there = images.to_device(split(), "k", torch.device("cpu"))
    sums = [lambda x: x.float().sum((1, 2, 3))[:, None], lambda x: -x.float().sum((1, 2, 3))[:, None]]
    first, second = images.predict_all(sums, there, batch_size=4)
    assert torch.equal(first[:, 0], there.pixels.float().sum((1, 2, 3)))
    assert torch.equal(second, -first)
