"""The natural images that are the second domain of an ordinary task: without labels, in one split.

`skimage`: 2000 patches of ten photographs that scikit-image ships inside its wheel. Few, but they need no network.
`cifar10`: the 50,000 training images of CIFAR-10 at 32 px, which torchvision reads from `cifar-10-python.tar.gz` in the
folder of the data, where it is downloaded to.
`folder:PATH`: every image in a folder, at any depth.
`npz:PATH`: the training images of a file that bench/natural.py reads.
"""

from __future__ import annotations

import hashlib
import importlib.util
from collections.abc import Callable
from pathlib import Path
from tarfile import TarError
from tempfile import TemporaryDirectory

import numpy as np
from PIL import Image

from bench import npzfile
from bench.cache import cache_folder, filled, whole_file
from bench.contract import Dataset, Info, Split
from bench.decode import CODE, SUFFIXES, decode
from bench.download import fetch, verify
from bench.errors import DataError, UsageError, brief, nearest
from bench.imagefiles import checked_path, scanned
from bench.natural import load_natural

PHOTOGRAPHS = (
    "astronaut.png", "brick.png", "camera.png", "chelsea.png", "coffee.png", "coins.png", "grass.png", "gravel.png",
    "motorcycle_left.png", "rocket.jpg",
)  # fmt: skip
"""Of everyday things: no medical slides, no retina, nothing drawn, nothing that scikit-image would download."""
PATCHES = 200
"""Of each photograph."""
SMALLEST = 64
"""Side in pixels of the smallest patch; the largest is as high as the photograph."""
PATCHES_RULE = "1"
"""To be changed with how patches are made."""


def open_natural(source: str, root: Path, workspace: Path | None = None) -> Dataset:
    """The natural images of this name; `root` is the folder of downloaded files. Raises UsageError for a name or
    path that does not exist, DataError where the images cannot be had."""
    prefix, colon, path = source.partition(":")
    if prefix + colon in _PATHS and path:
        return _PATHS[prefix + colon](source, Path(path).expanduser())
    if source in _NAMES:
        return _NAMES[source](source, root)
    raise UsageError(f'No natural images "{source}".{nearest(source, (*_NAMES, "folder:PATH", "npz:PATH"))}')


class Unlabelled(Dataset):
    """Images in colour, all in train, with labels 0."""

    def __init__(self, name: str, digest: str, images: Callable[[int], np.ndarray]) -> None:
        self.info = Info(name, "multi-class", ("natural",), channels=3, modality="natural")
        self.digest, self.images = digest, images

    def load(self, split: str, size: int) -> Split:
        if split != "train":
            raise DataError(f"{self.info.name}: natural images have train only, no {split}.")
        images = self.images(size)
        ids = np.array([f"{self.info.name}/{index}" for index in range(len(images))])
        return Split(images, np.zeros(len(images), dtype=np.int64), ids)

    def content_hash(self, size: int) -> str:
        return hashlib.sha256(self.digest.encode()).hexdigest()


def _skimage(source: str, root: Path) -> Dataset:
    package = importlib.util.find_spec("skimage")
    if package is None or package.origin is None:
        raise DataError("scikit-image, whose photographs are the natural images, is missing. pip install scikit-image")
    paths = [Path(package.origin).parent / "data" / name for name in PHOTOGRAPHS]
    if absent := [path for path in paths if not path.is_file()]:
        raise DataError(
            f"{absent[0]}: not in this scikit-image. Install another version, or name other natural images."
        )
    digest = " ".join([PATCHES_RULE, str(PATCHES), *(hashlib.sha256(path.read_bytes()).hexdigest() for path in paths)])
    return Unlabelled(source, digest, lambda size: _patches(paths, size))


def _patches(paths: list[Path], size: int) -> np.ndarray:
    """uint8 [N, size, size, 3]: the same square parts of the photographs at every size, large and small ones."""
    patches = []
    for number, path in enumerate(paths):
        rng = np.random.default_rng(number)
        with Image.open(path) as file:
            photograph = file.convert("RGB")
        for _ in range(PATCHES):
            side = int(np.exp(rng.uniform(np.log(SMALLEST), np.log(min(photograph.size)))))
            left, top = (int(rng.integers(0, length - side + 1)) for length in photograph.size)
            box = (left, top, left + side, top + side)
            patches.append(np.asarray(photograph.resize((size, size), Image.Resampling.BILINEAR, box=box)))
    return np.stack(patches)


def _cifar10(source: str, root: Path) -> Dataset:
    from torchvision.datasets import CIFAR10
    from torchvision.datasets.utils import extract_archive

    archive = root / CIFAR10.filename

    def read() -> np.ndarray:
        if archive.exists():
            verify(archive, CIFAR10.tgz_md5)
        else:
            fetch(CIFAR10.url, archive, CIFAR10.tgz_md5)
        try:
            with TemporaryDirectory() as folder:
                extract_archive(str(archive), folder)
                return np.asarray(CIFAR10(folder).data)
        except (OSError, RuntimeError, TarError) as error:
            raise DataError(
                f"{archive}: cannot be unpacked ({brief(error)}). Free disk space and try again."
            ) from error

    return Unlabelled(source, CIFAR10.tgz_md5, lambda size: _kept(CIFAR10.tgz_md5, read))


def _folder(source: str, path: Path) -> Dataset:
    if not path.is_dir():
        raise UsageError(f"{path}: no such folder. Check the path (it is relative to the current folder).")
    found = sorted(file for file in path.rglob("*") if file.suffix.lower() in SUFFIXES and not file.is_dir())
    files = [checked_path(path, file.relative_to(path).as_posix()) for file in found]
    if not files:
        raise DataError(f"{path}: has no images ({', '.join(SUFFIXES)}). Name a folder that has some.")
    digest = " ".join(scanned(files)[1])

    def images(size: int) -> np.ndarray:
        name = hashlib.sha256(f"{size} natural {digest} {CODE}".encode()).hexdigest()[:24]
        shape = (len(files), size, size, 3)
        return filled(
            cache_folder("images") / f"{name}.npy",
            shape,
            lambda index: decode(files[index], size, gray=False),
            f"{source} at {size} px",
        )

    return Unlabelled(source, digest, images)


def _npz(source: str, path: Path) -> Dataset:
    if not path.exists():
        raise UsageError(f"{path}: no such file. Check the path (it is relative to the current folder).")
    digest = npzfile.fingerprint(path)
    return Unlabelled(source, digest, lambda size: _kept(digest, lambda: load_natural(source, size).images["train"]))


def _kept(digest: str, read: Callable[[], np.ndarray]) -> np.ndarray:
    """What `read` gives, read once: later from the cache folder, as a memory map."""
    path = cache_folder("images") / f"natural-{digest[:24]}.npy"
    if not path.exists():
        with whole_file(path) as temporary, temporary.open("wb") as file:
            np.save(file, read())
    return np.load(path, mmap_mode="r", allow_pickle=False)


_NAMES = {"skimage": _skimage, "cifar10": _cifar10}
_PATHS = {"folder:": _folder, "npz:": _npz}
