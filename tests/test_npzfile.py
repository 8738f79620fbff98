"""npz files: nothing is unpickled, large arrays are mapped, and every malformed file is a named error."""

from __future__ import annotations

import errno
import tempfile
from pathlib import Path

import numpy as np
import pytest

from bench import npzfile
from bench.errors import DataError


@pytest.fixture(autouse=True)
def _own_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))


def write(folder: Path, **arrays: np.ndarray) -> Path:
    images = np.random.default_rng(0).integers(0, 256, (20, 28, 28), dtype=np.uint8)
    path = folder / "some.npz"
    np.savez_compressed(path, **{"train_images": images, "train_labels": np.arange(20)[:, None] % 2, **arrays})
    return path


def test_small_arrays_load_and_labels_are_squeezed(tmp_path: Path) -> None:
    images, labels = npzfile.images_and_labels(write(tmp_path), "train")
    assert images.shape == (20, 28, 28)
    assert images.dtype == np.uint8
    assert labels.dtype == np.int64
    assert labels.tolist() == [0, 1] * 10
    assert [file.name for file in tmp_path.iterdir()] == ["some.npz"]


def test_multi_label_columns_become_uint8(tmp_path: Path) -> None:
    _, labels = npzfile.images_and_labels(write(tmp_path, train_labels=np.eye(20, 3, dtype=np.int64)), "train")
    assert labels.dtype == np.uint8
    assert labels.shape == (20, 3)


def test_large_arrays_are_mapped_from_a_file_beside_and_read_again(tmp_path: Path) -> None:
    path = write(tmp_path)
    whole = npzfile.array(path, "train_images")
    mapped = npzfile.array(path, "train_images", large=1000)
    assert isinstance(mapped, np.memmap)
    assert not mapped.flags.writeable
    np.testing.assert_array_equal(mapped, whole)
    (unpacked,) = tmp_path.glob("some.train_images.*.npy")
    time = unpacked.stat().st_mtime_ns
    npzfile.array(path, "train_images", large=1000)
    assert unpacked.stat().st_mtime_ns == time


def test_a_changed_npz_is_unpacked_anew(tmp_path: Path) -> None:
    npzfile.array(write(tmp_path), "train_images", large=1000)
    other = write(tmp_path, train_images=np.full((20, 28, 28), 7, dtype=np.uint8))
    assert (npzfile.array(other, "train_images", large=1000) == 7).all()


def test_a_read_only_folder_uses_the_cache_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path, make = write(tmp_path), tempfile.mkstemp

    def refuse(*args: object, **kwargs: object) -> object:
        if kwargs["dir"] == tmp_path:
            raise OSError(errno.EROFS, "Read-only file system")
        return make(*args, **kwargs)  # type: ignore[call-overload]

    monkeypatch.setattr(tempfile, "mkstemp", refuse)
    mapped = npzfile.array(path, "train_images", large=1000)
    assert Path(str(mapped.filename)).parent == tmp_path / "cache" / "medtransfer" / "arrays"


def test_unpacking_that_fails_leaves_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def fill_up(source: object, target: object, length: int) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr("shutil.copyfileobj", fill_up)
    with pytest.raises(DataError, match="No space left on device"):
        npzfile.array(write(tmp_path), "train_images", large=1000)
    assert [file.name for file in tmp_path.iterdir() if file.is_file()] == ["some.npz"]


def test_python_objects_are_refused_without_unpickling(tmp_path: Path) -> None:
    class Trap:
        def __reduce__(self) -> tuple[object, tuple[str]]:
            return (Path.touch, (tmp_path / "sprung",))  # type: ignore[return-value]

    path = write(tmp_path, train_labels=np.array([Trap()], dtype=object))
    with pytest.raises(DataError, match="never unpickled"):
        npzfile.images_and_labels(path, "train")
    assert not (tmp_path / "sprung").exists()


@pytest.mark.parametrize(
    ("arrays", "says"),
    [
        ({"train_images": np.zeros((20, 28, 28), dtype=np.float32)}, "dtype float32, expected uint8"),
        ({"train_images": np.zeros((20, 28, 30), dtype=np.uint8)}, "expected square images"),
        ({"train_images": np.zeros((20, 28, 28, 4), dtype=np.uint8)}, "expected square images"),
        ({"train_images": np.zeros((20, 3, 28, 28), dtype=np.uint8)}, r"np\.moveaxis\(images, 1, -1\)"),
        ({"train_labels": np.array(["a", "b"] * 10)}, r"np\.unique\(labels, return_inverse=True\)\[1\]"),
        ({"train_images": np.zeros((20, 0, 0), dtype=np.uint8)}, "expected square images"),
        ({"train_images": np.zeros((0, 28, 28), dtype=np.uint8)}, "there is no image in it"),
        ({"train_labels": np.zeros(19, dtype=np.int64)}, r"shape \(19,\), expected \[20\]"),
        ({"train_labels": np.zeros(20)}, "dtype float64, expected integers"),
        ({"train_labels": np.full(20, -1)}, "negative value -1"),
        ({"train_labels": np.full(20, 2**63, dtype=np.uint64)}, "has the value 9223372036854775808"),
        ({"train_labels": np.full(20, np.nan)}, "dtype float64, expected integers"),
        ({"train_labels": np.full((20, 2), 3)}, "other than 0 and 1"),
    ],
)
def test_wrong_contents_are_named(tmp_path: Path, arrays: dict[str, np.ndarray], says: str) -> None:
    with pytest.raises(DataError, match=says) as caught:
        npzfile.images_and_labels(write(tmp_path, **arrays), "train")
    assert "some.npz" in str(caught.value)


def test_a_missing_array_lists_what_there_is(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r'no array "val_images".*train_images, train_labels'):
        npzfile.images_and_labels(write(tmp_path), "val")


def test_a_missing_file_is_named(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"none\.npz: no such file"):
        npzfile.keys(tmp_path / "none.npz")


@pytest.mark.parametrize("keep", [0.0, 0.3, 0.9, 0.999])
def test_a_truncated_file_is_an_error(tmp_path: Path, keep: float) -> None:
    path = write(tmp_path)
    path.write_bytes(path.read_bytes()[: int(keep * path.stat().st_size)])
    with pytest.raises(DataError, match="damaged, cut short or not an"):
        npzfile.images_and_labels(path, "train")


def test_a_flipped_byte_is_an_error_also_when_mapped(tmp_path: Path) -> None:
    path = write(tmp_path)
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 0xFF
    path.write_bytes(data)
    for large in (1000, npzfile.LARGE):
        with pytest.raises(DataError, match="damaged"):
            npzfile.array(path, "train_images", large)
    assert not list(tmp_path.glob("*.npy"))
