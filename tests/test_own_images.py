"""Own images in folders, DICOM among them; every malformed input is an error that names the file."""

from __future__ import annotations

import os
import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from bench.contract import Dataset
from bench.decode import longer_side
from bench.errors import DataError, UsageError
from tests.small import opened, picture

pytestmark = pytest.mark.usefixtures("own_cache")


def class_folders(folder: Path, count: int = 20, classes: tuple[str, ...] = ("cat", "dog")) -> Path:
    for label in classes:
        for index in range(count):
            picture(folder / label / f"{index}.png")
    return folder


def all_ids(dataset: Dataset) -> list[str]:
    return [name for split in ("train", "val", "test") for name in dataset.load(split, 8).ids.tolist()]


def test_folder_of_classes_is_split_by_seed(folder: Path) -> None:
    dataset = opened(f"folder:{class_folders(folder)}")
    assert (dataset.info.kind, dataset.info.classes, dataset.info.channels) == ("binary", ("cat", "dog"), 1)
    assert dataset.notes == ("split 70/10/20 by seed 0",)
    assert [len(dataset.load(split, 8)) for split in ("train", "val", "test")] == [28, 4, 8]
    assert sorted(all_ids(dataset)) == sorted(f"{label}/{index}.png" for label in ("cat", "dog") for index in range(20))
    assert all_ids(opened(f"folder:{folder}", 1)) != all_ids(dataset)


def test_folder_with_splits_keeps_them(folder: Path) -> None:
    for split in ("train", "test"):
        class_folders(folder / split, 10, ("a", "b", "c"))
    dataset = opened(f"folder:{folder}")
    assert dataset.info.kind == "multi-class"
    assert dataset.notes == ("no val given: 10% of train taken by seed 0",)
    assert all(name.startswith("test/") for name in dataset.load("test", 8).ids)
    assert [len(dataset.load(split, 8)) for split in ("train", "val", "test")] == [27, 3, 30]


def test_pixels_are_padded_to_a_square_then_resized(folder: Path) -> None:
    class_folders(folder)
    Image.fromarray(np.full((10, 20), 200, dtype=np.uint8)).save(folder / "cat" / "wide.png")
    dataset = opened(f"folder:{folder}")
    parts = [dataset.load(split, 20) for split in ("train", "val", "test")]
    images = {name: image for part in parts for name, image in zip(part.ids, part.images, strict=True)}
    assert (images["cat/wide.png"][6:14] == 200).all()
    assert (images["cat/wide.png"][:4] == 0).all()
    assert images["cat/0.png"].shape == (20, 20)


def test_the_size_of_files_is_the_longer_side_of_the_usual_training_image(folder: Path) -> None:
    class_folders(folder)
    assert opened(f"folder:{folder}").stored_size() == 12
    for path in folder.rglob("*.png"):
        Image.fromarray(np.zeros((10, 30), dtype=np.uint8)).save(path)
    picture(folder / "cat" / "0.png")
    assert opened(f"folder:{folder}").stored_size() == 30


def test_one_coloured_image_makes_the_set_rgb(folder: Path) -> None:
    picture(class_folders(folder) / "dog" / "colour.jpg", (12, 12, 3))
    dataset = opened(f"folder:{folder}")
    assert dataset.info.channels == 3
    assert dataset.load("train", 8).images.shape[1:] == (8, 8, 3)


def test_images_are_decoded_once_and_again_when_a_file_changes(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from bench import imagefiles

    decoded: list[Path] = []
    original = imagefiles.decode
    monkeypatch.setattr(imagefiles, "decode", lambda path, *rest: decoded.append(path) or original(path, *rest))
    class_folders(folder)
    first = opened(f"folder:{folder}")
    images = first.load("train", 8).images
    assert isinstance(images, np.memmap)
    count = len(decoded)
    opened(f"folder:{folder}").load("train", 8)
    assert len(decoded) == count
    changed = first.load("train", 8).ids[0]
    picture(folder / changed, (14, 14))
    second = opened(f"folder:{folder}")
    second.load("train", 8)
    assert len(decoded) == 2 * count
    assert second.content_hash(8) != first.content_hash(8)


@pytest.mark.parametrize(
    ("suffix", "mode", "values"),
    [
        ("png", np.uint16, (0, 65535)),
        ("tif", np.uint16, (0, 65535)),
        ("tiff", np.float32, (-3.0, 9.5)),
        ("tif", np.uint8, (0, 255)),
    ],
)
def test_16_bit_and_float_images_are_scaled(folder: Path, suffix: str, mode: type, values: tuple[float, float]) -> None:
    class_folders(folder)
    half = np.array([[values[0]] * 12, [values[1]] * 12] * 6, dtype=mode)
    for index in range(20):
        (folder / "dog" / f"{index}.png").unlink()
        Image.fromarray(half).save(folder / "dog" / f"{index}.{suffix}")
    train = opened(f"folder:{folder}").load("train", 12)
    assert train.images.ndim == 3
    dog = train.images[train.labels == 1][0]
    assert (dog[0] == 0).all()
    assert (dog[1] == 255).all()


def test_16_bit_images_that_use_little_of_their_range_are_said_to(folder: Path) -> None:
    class_folders(folder)
    Image.fromarray(np.full((12, 12), 4095, dtype=np.uint16)).save(folder / "cat/0.png")
    dark = opened(f"folder:{folder}")
    assert [note for note in dark.notes if "16-bit" in note] == [
        f"folder:{folder}: its images use only 6.2 % of the 16-bit range, so they will look nearly black: rescale them"
    ]
    Image.fromarray(np.full((12, 12), 40950, dtype=np.uint16)).save(folder / "dog/0.png")
    assert not [note for note in opened(f"folder:{folder}").notes if "16-bit" in note]


def test_transparent_and_palette_images_are_read(folder: Path) -> None:
    class_folders(folder)
    Image.new("RGBA", (12, 12), (200, 100, 50, 0)).save(folder / "cat" / "clear.png")
    Image.new("P", (12, 12), 3).save(folder / "cat" / "palette.png")
    dataset = opened(f"folder:{folder}")
    assert dataset.info.channels == 3
    clear = [
        part.images[part.ids == "cat/clear.png"] for part in (dataset.load(s, 8) for s in ("train", "val", "test"))
    ]
    assert np.concatenate(clear).max() == 0


def harm_text(folder: Path) -> str:
    (folder / "cat" / "notes.txt").write_text("hello")
    return r"notes\.txt: not an image file"


def harm_fake(folder: Path) -> str:
    (folder / "cat" / "fake.png").write_text("hello")
    return r"fake\.png: not a readable image"


def harm_truncated(folder: Path) -> str:
    path = picture(folder / "cat" / "cut.jpg", (200, 200))
    path.write_bytes(path.read_bytes()[:2000])
    return r"cut\.jpg: damaged or cut short"


def harm_link(folder: Path) -> str:
    outside = picture(folder.parent / "outside.png")
    (folder / "cat" / "link.png").symlink_to(outside)
    return r"link\.png: leads out of"


def harm_linked_folder(folder: Path) -> str:
    class_folders(folder.parent / "elsewhere")
    os.symlink(folder.parent / "elsewhere" / "cat", folder / "linked")
    return "linked: leads out of"


def harm_broken_link(folder: Path) -> str:
    (folder / "cat" / "gone.png").symlink_to(folder / "cat" / "nothing.png")
    return r"gone\.png: no such file \(a broken link\)"


def harm_empty_class(folder: Path) -> str:
    (folder / "empty").mkdir()
    return "empty: has no images"


def harm_stray(folder: Path) -> str:
    picture(folder / "stray.png")
    return r"stray\.png: a file where class folders are expected"


def harm_pages(folder: Path) -> str:
    pages = [Image.new("L", (12, 12), value) for value in (1, 2, 3)]
    pages[0].save(folder / "cat" / "pages.tif", save_all=True, append_images=pages[1:])
    return r"pages\.tif: has 3 pages"


@pytest.mark.parametrize("harm", [value for name, value in sorted(globals().items()) if name.startswith("harm_")])
def test_folder_errors_name_the_file(folder: Path, harm: object) -> None:
    says = harm(class_folders(folder))  # type: ignore[operator]
    with pytest.raises(DataError, match=says):
        all_ids(opened(f"folder:{folder}"))
    assert not list((folder.parent / "cache").rglob("*.part"))


@pytest.mark.parametrize(
    "names", [("Train", "Val", "Test"), ("training", "validation", "testing"), ("train", "valid", "test")]
)
def test_folders_that_look_like_splits_are_no_classes(folder: Path, names: tuple[str, ...]) -> None:
    for name in names:
        class_folders(folder / name, 4)
    with pytest.raises(DataError, match="look like splits: name them train, val and test"):
        opened(f"folder:{folder}")


def test_too_few_images_to_split_are_not_told_to_be_split(folder: Path) -> None:
    with pytest.raises(DataError, match=r"val has no images. There are too few images to split them. Add some.$"):
        opened(f"folder:{class_folders(folder, 2)}")


def test_files_are_counted_without_being_decoded(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    dataset = opened(f"folder:{class_folders(folder)}")
    monkeypatch.setattr("bench.imagefiles.decode", None)
    assert [dataset.count(split) for split in ("train", "val", "test")] == [28, 4, 8]


def test_folder_errors_without_images(folder: Path) -> None:
    with pytest.raises(UsageError, match="no such folder"):
        opened(f"folder:{folder / 'none'}")
    with pytest.raises(DataError, match="has no images"):
        opened(f"folder:{folder}")
    class_folders(folder / "train")
    with pytest.raises(DataError, match="Add train and test"):
        opened(f"folder:{folder}")
    class_folders(folder / "test", 20, ("cat", "dog", "owl"))
    with pytest.raises(DataError, match='no training image has the class "owl"'):
        opened(f"folder:{folder}")


# --- DICOM


def dicom(path: Path, pixels: np.ndarray, **tags: object) -> Path:
    pydicom = pytest.importorskip("pydicom")
    from pydicom.dataset import Dataset as Dicom
    from pydicom.dataset import FileMetaDataset

    meta = FileMetaDataset()
    meta.TransferSyntaxUID = pydicom.uid.ExplicitVRLittleEndian
    meta.MediaStorageSOPClassUID, meta.MediaStorageSOPInstanceUID = pydicom.uid.SecondaryCaptureImageStorage, "1.2.3"
    file = Dicom()
    file.file_meta = meta
    file.SOPClassUID, file.SOPInstanceUID = meta.MediaStorageSOPClassUID, "1.2.3"
    file.Rows, file.Columns = pixels.shape
    file.SamplesPerPixel, file.PhotometricInterpretation = 1, "MONOCHROME2"
    file.BitsAllocated = file.BitsStored = 16
    file.HighBit, file.PixelRepresentation = 15, 1
    for tag, value in tags.items():
        setattr(file, tag, value)
    file.PixelData = pixels.astype(np.int16).tobytes()
    file.save_as(path, enforce_file_format=True)
    return path


@pytest.mark.parametrize(
    ("tags", "expected"),
    [
        ({}, [0, 64, 128, 255]),  # the image's own range, -1000..1000 after rescaling by 1
        ({"PhotometricInterpretation": "MONOCHROME1"}, [255, 191, 127, 0]),
        ({"RescaleSlope": "2", "RescaleIntercept": "-5", "WindowCenter": "0", "WindowWidth": "2001"}, [0, 0, 127, 255]),
        ({"WindowCenter": ["0.5", "40"], "WindowWidth": ["1001", "400"]}, [0, 0, 128, 255]),
    ],
)
def test_dicom_window_rescale_and_inversion(folder: Path, tags: dict[str, object], expected: list[int]) -> None:
    from bench.decode import decode, is_gray

    pixels = np.array([[-1000, -500, 0, 1000]] * 4)
    path = dicom(folder / "a.dcm", pixels, **tags)
    assert is_gray(path)
    np.testing.assert_allclose(decode(path, 4, gray=True)[0].astype(int), expected, atol=1)


def test_dicom_as_on_a_hospitals_cd(folder: Path) -> None:
    class_folders(folder)
    for name in ("IM0005", "1.2.840.113619.2"):
        dicom(folder / "cat" / name, np.arange(64).reshape(8, 8))
    (folder / "DICOMDIR").write_bytes(bytes(128) + b"DICM")
    (folder / "dog" / "deep").mkdir()
    (folder / "dog" / "deep" / "dicomdir").write_bytes(bytes(128) + b"DICM")
    ids = all_ids(opened(f"folder:{folder}"))
    assert len(ids) == 42
    assert {"cat/IM0005", "cat/1.2.840.113619.2"} <= set(ids)
    (folder / "cat" / "VERSION").write_bytes(b"1.0")
    with pytest.raises(DataError, match=r"cat/VERSION: not an image file \(.*, or DICOM of any name\)"):
        opened(f"folder:{folder}")


def test_dicom_in_a_folder_and_errors(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    class_folders(folder)
    dicom(folder / "cat" / "scan.dcm", np.arange(64).reshape(8, 8))
    assert len(all_ids(opened(f"folder:{folder}"))) == 41
    assert longer_side(folder / "cat" / "scan.dcm") == 8
    whole = (folder / "cat" / "scan.dcm").read_bytes()
    (folder / "cat" / "scan.dcm").write_bytes(whole[:-40])
    with pytest.raises(DataError, match=r"scan\.dcm: the DICOM pixels cannot be read"):
        all_ids(opened(f"folder:{folder}"))
    (folder / "cat" / "scan.dcm").write_bytes(b"not DICOM at all")
    with pytest.raises(DataError, match=r"scan\.dcm: not a readable DICOM image"):
        opened(f"folder:{folder}")
    monkeypatch.setitem(sys.modules, "pydicom", None)
    with pytest.raises(DataError, match=r"pip install medtransfer\[dicom\]"):
        opened(f"folder:{folder}")
