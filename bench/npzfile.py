"""Arrays of an .npz file in MedMNIST's layout: never unpickled, checked, and memory-mapped where they are large.

A member of an .npz is itself an .npy file, so a large one is unpacked once, in a stream, to `NAME.MEMBER.CRC.npy`
beside the .npz (or into the cache folder where that folder cannot be written to) and memory-mapped from then on. The
checksum in the name means that a changed .npz is unpacked anew.

What a file says of its sizes is checked before anything is unpacked, and no more than it says is ever read, so that a
small file cannot fill the disk or the memory (a "zip bomb").
"""

from __future__ import annotations

import errno
import hashlib
import json
import logging
import math
import os
import shutil
import zipfile
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO

import numpy as np
from numpy.lib import format as npy

from bench.cache import cache_folder, whole_file
from bench.decode import PIXELS
from bench.errors import DataError, brief

log = logging.getLogger(__name__)
LARGE = 256 << 20
"""Members from this many bytes on are memory-mapped."""
RATIO = 200
"""How many times larger than in the file a large array may be: images take a tenth of this, and deflate can go to a
thousand."""
STEM = 160
"""Bytes of the file's own name in that of an unpacked array."""
READ_ONLY = {errno.EACCES, errno.EPERM, errno.EROFS}


def keys(path: Path) -> list[str]:
    """Names of the arrays in the file. Raises DataError."""
    with _archive(path) as archive:
        return [name.removesuffix(".npy") for name in archive.namelist()]


def fingerprint(path: Path) -> str:
    """sha256 (hex) of names, sizes and checksums of the arrays: cheap, and equal for equal contents. Raises
    DataError."""
    with _archive(path) as archive:
        members = sorted((info.filename, info.file_size, info.CRC) for info in archive.infolist())
    return hashlib.sha256(json.dumps(members).encode()).hexdigest()


def array(path: Path, key: str, large: int = LARGE) -> np.ndarray:
    """One array of the file; from `large` bytes on a read-only memory map. Raises DataError."""
    with _archive(path) as archive:
        try:
            info = archive.getinfo(f"{key}.npy")
        except KeyError:
            found = ", ".join(name.removesuffix(".npy") for name in archive.namelist()) or "nothing"
            raise DataError(f'{path}: has no array "{key}" (found: {found}). Add it with np.savez.') from None
        _check_size(path, key, info, large)
        with archive.open(info) as stream:
            _check_header(path, key, info, stream)
        if info.file_size >= large:
            return np.load(_unpacked(path, key, info, archive), mmap_mode="r", allow_pickle=False)
        with archive.open(info) as stream:
            return npy.read_array(stream, allow_pickle=False)


def images_and_labels(path: Path, split: str, large: int = LARGE) -> tuple[np.ndarray, np.ndarray]:
    """`{split}_images` uint8 [N, S, S] or [N, S, S, 3], and `{split}_labels` as int64 [N] or, where they have several
    columns, uint8 [N, K] of 0 and 1. Raises DataError."""
    images, labels = array(path, f"{split}_images", large), array(path, f"{split}_labels", large)
    where = f"{path}: {split}_images"
    if images.dtype != np.uint8:
        raise DataError(f"{where} has dtype {images.dtype}, expected uint8. Scale to 0..255 and use .astype(np.uint8).")
    if images.ndim == 4 and images.shape[-1] == 1:
        images = images[..., 0]
    square = images.ndim in (3, 4) and images.shape[1] == images.shape[2] and images.shape[3:] in ((), (3,))
    if not square or 0 in images.shape[1:]:
        first = images.ndim == 4 and images.shape[1] in (1, 3)
        fix = " Move the channels last: np.moveaxis(images, 1, -1)." if first else ""
        raise DataError(
            f"{where} has shape {images.shape}, expected square images: [N, S, S] (gray) or [N, S, S, 3] (RGB).{fix}"
        )
    if not len(images):
        raise DataError(f"{where} has shape {images.shape}: there is no image in it. Add some (val may be left out).")
    if images.shape[1] ** 2 > PIXELS:
        raise DataError(f"{where} are {images.shape[1]} px a side, more than {math.isqrt(PIXELS)}. Make them smaller.")
    return images, _labels(f"{path}: {split}_labels", labels, len(images))


def _labels(where: str, labels: np.ndarray, count: int) -> np.ndarray:
    if labels.dtype.kind not in "iub":
        fix = ".astype(np.int64)" if labels.dtype.kind == "f" else "np.unique(labels, return_inverse=True)[1]"
        raise DataError(f"{where} has dtype {labels.dtype}, expected integers. Use {fix}.")
    if labels.ndim == 2 and labels.shape[1] == 1:
        labels = labels[:, 0]
    if labels.ndim not in (1, 2) or 0 in labels.shape or len(labels) != count:
        raise DataError(f"{where} has shape {labels.shape}, expected [{count}], [{count}, 1] or [{count}, K].")
    if labels.ndim == 2:
        if labels.min() < 0 or labels.max() > 1:
            raise DataError(
                f"{where} has several columns with values other than 0 and 1. One column a label, 1 where it holds."
            )
        return labels.astype(np.uint8)
    if labels.min() < 0:
        raise DataError(f"{where} has the negative value {labels.min()}. Number the classes 0, 1, 2, ...")
    if labels.max() > np.iinfo(np.int32).max:
        raise DataError(f"{where} has the value {labels.max()}. Number the classes 0, 1, 2, ...")
    return labels.astype(np.int64)


@contextmanager
def _archive(path: Path) -> Iterator[zipfile.ZipFile]:
    """The open file; whatever is wrong with it in the block becomes a DataError."""
    try:
        with zipfile.ZipFile(path) as archive:
            yield archive
    except FileNotFoundError as error:
        raise DataError(f"{path}: no such file. Check the path (it is relative to the current folder).") from error
    except (zipfile.BadZipFile, zlib.error, EOFError, ValueError, NotImplementedError, RuntimeError) as error:
        raise DataError(
            f"{path}: damaged, cut short or not an .npz file ({error}). Make or download it again."
        ) from error
    except IsADirectoryError as error:
        raise DataError(f"{path}: a folder, expected an .npz file. For images in it write folder:{path}") from error
    except OSError as error:
        raise DataError(
            f"{path}: {error.strerror or error}. Check the file, its permissions and the free disk space."
        ) from error


def _check_size(path: Path, key: str, info: zipfile.ZipInfo, large: int) -> None:
    """Before anything is unpacked; reading stops where the declared size is reached."""
    if info.compress_type not in (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED):
        # numpy writes these two; of the others Python cannot unpack a part, however much comes out of it.
        raise DataError(f"{path}: {key} is packed in a way that numpy does not read. Save it with np.savez_compressed.")
    if info.file_size >= large and info.file_size > RATIO * info.compress_size:
        raise DataError(
            f"{path}: {key} would become {info.file_size // max(1, info.compress_size)} times as large as it is in the "
            f"file ({info.file_size >> 20} MB), as no images do. Save it with np.savez if it is what you want."
        )


def _check_header(path: Path, key: str, info: zipfile.ZipInfo, stream: IO[bytes]) -> None:
    """The header is read before the data: a pickle is refused, and a wrong shape cannot ask for more memory than is
    there."""
    version = npy.read_magic(stream)
    try:
        shape, _, dtype = npy.read_array_header_1_0(stream) if version == (1, 0) else npy.read_array_header_2_0(stream)
    except Exception as error:  # numpy parses it as Python's literals, which fails in many ways (TokenError, ..)
        raise ValueError(f"the header of {key} cannot be read: {brief(error)}") from error
    if dtype.hasobject:
        raise DataError(
            f"{path}: {key} holds Python objects, which are never unpickled. Save numbers, or text with dtype=str."
        )
    if stream.tell() + math.prod(shape) * dtype.itemsize != info.file_size:
        raise DataError(f"{path}: {key} is not as long as its shape {shape} says. Make or download the file again.")


def _unpacked(path: Path, key: str, info: zipfile.ZipInfo, archive: zipfile.ZipFile) -> Path:
    """The .npy file of a large member, beside the .npz or in the cache folder, unpacked if it is not there yet."""
    stem = path.stem.encode(errors="surrogateescape")[:STEM].decode(
        errors="ignore"
    )  # as a name takes 255 bytes at most
    name = f"{stem}.{key}.{info.CRC:08x}.npy"
    beside, cached = path.parent / name, cache_folder("arrays") / name
    for target in (beside, cached):
        if target.exists() and target.stat().st_size == info.file_size:
            return target
    try:
        return _unpack(archive, info, beside)
    except OSError as error:
        if error.errno not in READ_ONLY:
            raise
        log.info("%s cannot be written to: using %s", path.parent, cached.parent)
        return _unpack(archive, info, cached)


def _unpack(archive: zipfile.ZipFile, info: zipfile.ZipInfo, target: Path) -> Path:
    if shutil.disk_usage(target.parent).free < info.file_size:  # not after filling the disk for everyone
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
    with whole_file(target) as temporary, archive.open(info) as stream, temporary.open("wb") as file:
        log.info("unpacking %s once (%d MB)", target, info.file_size >> 20)
        shutil.copyfileobj(stream, file, 1 << 20)
    return target
