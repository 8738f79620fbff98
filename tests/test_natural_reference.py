"""The natural images of ordinary tasks: photographs that are here, a download that is checked, own files."""

from __future__ import annotations

import hashlib
import io
import pickle
import socket
import tarfile
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from torchvision.datasets import CIFAR10

from bench import download, natural_reference
from bench.errors import DataError, UsageError
from bench.natural_reference import PHOTOGRAPHS, open_natural
from tests.small import picture
from tests.test_medmnist import server

__all__ = ["server"]  # a fixture
pytestmark = pytest.mark.usefixtures("own_cache")
RNG = np.random.default_rng(0)


@pytest.fixture
def no_network(monkeypatch: pytest.MonkeyPatch) -> None:
    def refused(*args: object, **kwargs: object) -> None:
        raise AssertionError("the network was asked")

    for name in ("connect", "connect_ex"):
        monkeypatch.setattr(socket.socket, name, refused)
    monkeypatch.setattr(socket, "getaddrinfo", refused)


@pytest.mark.usefixtures("no_network")
def test_patches_of_photographs_need_no_network_and_are_always_the_same(tmp_path: Path) -> None:
    natural = open_natural("skimage", tmp_path / "absent")
    found = natural.load("train", 64)
    assert (found.images.dtype, found.images.shape) == (np.uint8, (2000, 64, 64, 3))
    assert len(set(found.ids.tolist())) == 2000
    assert not found.labels.any()
    again = open_natural("skimage", tmp_path)
    assert np.array_equal(again.load("train", 64).images, found.images)
    assert again.content_hash(0) == natural.content_hash(64)
    assert (found.images.reshape(2000, -1).std(1) > 2).mean() > 0.95  # something is to be seen on them
    assert len(np.unique(found.images.reshape(2000, -1), axis=0)) == 2000
    small = natural.load("train", 16).images  # the same places, smaller
    coarse = found.images.reshape(2000, 16, 4, 16, 4, 3).mean((2, 4))
    assert np.abs(small - coarse).mean() < 6


def test_the_photographs_are_everyday_things() -> None:
    medical_or_drawn = {"ihc", "retina", "microaneurysms", "cell", "lfw_subset", "phantom", "logo", "horse", "color"}
    assert not {name.partition(".")[0] for name in PHOTOGRAPHS} & medical_or_drawn
    assert len(PHOTOGRAPHS) * natural_reference.PATCHES == 2000


def cifar(folder: Path, monkeypatch: pytest.MonkeyPatch) -> np.ndarray:
    """A small archive in CIFAR-10's own format, whose MD5s take the place of the official ones; its images."""
    content: dict[str, bytes] = {
        f"data_batch_{number}": pickle.dumps(
            {"data": RNG.integers(0, 256, (4, 3072), dtype=np.uint8), "labels": [0, 1, 2, 3]}
        )
        for number in range(1, 6)
    }
    content["batches.meta"] = pickle.dumps({"label_names": [str(index) for index in range(10)]})
    with tarfile.open(folder / CIFAR10.filename, "w:gz") as archive:
        for name, data in content.items():
            entry = tarfile.TarInfo(f"{CIFAR10.base_folder}/{name}")
            entry.size = len(data)
            archive.addfile(entry, io.BytesIO(data))
    md5 = {name: hashlib.md5(data).hexdigest() for name, data in content.items()}
    monkeypatch.setattr(CIFAR10, "train_list", [[name, md5[name]] for name in content if name != "batches.meta"])
    monkeypatch.setattr(CIFAR10, "test_list", [])
    monkeypatch.setattr(CIFAR10, "meta", CIFAR10.meta | {"md5": md5["batches.meta"]})
    monkeypatch.setattr(CIFAR10, "tgz_md5", hashlib.md5((folder / CIFAR10.filename).read_bytes()).hexdigest())
    batches = [pickle.loads(content[f"data_batch_{number}"])["data"] for number in range(1, 6)]
    return np.concatenate(batches).reshape(20, 3, 32, 32).transpose(0, 2, 3, 1)


def test_cifar10_is_downloaded_once_checked_and_unpacked(
    server: tuple[str, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    url, served = server
    images = cifar(served, monkeypatch)
    monkeypatch.setattr(CIFAR10, "url", f"{url}/{CIFAR10.filename}")
    natural = open_natural("cifar10", tmp_path / "data")
    assert len(natural.content_hash(0)) == 64
    assert not (tmp_path / "data").exists()  # planning downloads nothing
    assert np.array_equal(natural.load("train", 64).images, images)
    assert [file.name for file in (tmp_path / "data").iterdir()] == [CIFAR10.filename]
    (served / CIFAR10.filename).unlink()
    assert np.array_equal(open_natural("cifar10", tmp_path / "data").load("train", 64).images, images)


def test_cifar10_that_cannot_be_had_says_where_to_put_the_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(CIFAR10, "url", "http://127.0.0.1:9/cifar-10-python.tar.gz")
    with pytest.raises(DataError, match=rf"127\.0\.0\.1:9.*put it into {tmp_path} as cifar-10-python\.tar\.gz"):
        open_natural("cifar10", tmp_path).load("train", 32)
    with download.offline(), pytest.raises(DataError, match=r"cifar-10-python\.tar\.gz is not there"):
        open_natural("cifar10", tmp_path).load("train", 32)
    (tmp_path / CIFAR10.filename).write_bytes(b"something else")
    with pytest.raises(DataError, match=rf"MD5 is .*expected {CIFAR10.tgz_md5}"):
        open_natural("cifar10", tmp_path).load("train", 32)


@pytest.mark.usefixtures("no_network")
def test_cifar10_is_read_from_a_file_that_is_there(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    images = cifar(tmp_path, monkeypatch)
    assert np.array_equal(open_natural("cifar10", tmp_path).load("train", 32).images, images)


def test_any_images_of_a_folder_will_do(folder: Path) -> None:
    gray, colour = picture(folder / "a.png"), picture(folder / "deep" / "down" / "b.png", (12, 12, 3))
    (folder / "read me.txt").write_text("not an image")
    natural = open_natural(f"folder:{folder}", Path())
    found = natural.load("train", 12)
    assert found.images.shape == (2, 12, 12, 3)
    assert np.array_equal(found.images[0], np.asarray(Image.open(gray).convert("RGB")))
    assert np.array_equal(found.images[1], np.asarray(Image.open(colour)))
    assert natural.load("train", 6).images.shape == (2, 6, 6, 3)
    before = natural.content_hash(0)
    picture(folder / "c.png")
    assert open_natural(f"folder:{folder}", Path()).content_hash(0) != before


def test_an_npz_gives_its_training_images_encoded_or_not(folder: Path) -> None:
    images, labels = RNG.integers(0, 256, (6, 9, 9, 3), dtype=np.uint8), np.arange(6) % 2
    splits = ("train", "val", "test")
    np.savez(folder / "plain.npz", **{f"{s}_images": images for s in splits}, **{f"{s}_labels": labels for s in splits})
    plain = open_natural(f"npz:{folder / 'plain.npz'}", Path())
    assert np.array_equal(plain.load("train", 64).images, images)
    files = []
    for image in images:
        file = io.BytesIO()
        Image.fromarray(image).save(file, "PNG")
        files.append(np.frombuffer(file.getvalue(), dtype=np.uint8))
    ends = np.cumsum([0, *map(len, files)])
    arrays = {"png_bytes": np.concatenate(files), "offsets": ends, "labels": labels}
    np.savez(
        folder / "encoded.npz",
        **{f"{split}_{key}": value for split in ("train", "val") for key, value in arrays.items()},
    )
    encoded = open_natural(f"npz:{folder / 'encoded.npz'}", Path())
    assert np.array_equal(encoded.load("train", 64).images, images)
    assert encoded.content_hash(0) != plain.content_hash(0)


def test_what_is_not_there_is_named(folder: Path) -> None:
    for name in ("skimag", "imagenet", "folder:", "csv:x.csv"):
        with pytest.raises(UsageError, match=f'No natural images "{name}"'):
            open_natural(name, Path())
    with pytest.raises(UsageError, match='Did you mean "skimage"'):
        open_natural("skimag", Path())
    with pytest.raises(UsageError, match="no such folder"):
        open_natural(f"folder:{folder / 'absent'}", Path())
    with pytest.raises(DataError, match="has no images"):
        open_natural(f"folder:{folder}", Path())
    with pytest.raises(UsageError, match="no such file"):
        open_natural(f"npz:{folder / 'absent.npz'}", Path())
    gray = RNG.integers(0, 256, (6, 9, 9), dtype=np.uint8)
    splits = ("train", "val", "test")
    labels = {f"{split}_labels": np.arange(6) % 2 for split in splits}
    np.savez(folder / "gray.npz", **{f"{split}_images": gray for split in splits}, **labels)
    with pytest.raises(DataError, match="in colour"):
        open_natural(f"npz:{folder / 'gray.npz'}", Path()).load("train", 9)
    with pytest.raises(DataError, match="train only"):
        open_natural("skimage", Path()).load("test", 9)
