"""Frozen features on disk: what a network makes of a dataset is computed once on a machine, whatever is run later."""

from __future__ import annotations

import hashlib
import logging
import os
from collections.abc import Callable
from functools import cache
from pathlib import Path

import numpy as np
import timm
import torch
import torchvision
from torch import Tensor

from bench import ENGINE, device
from bench.backbones import resolve
from bench.cache import cache_folder, whole_file
from bench.contract import Backbone
from bench.errors import DataError
from bench.images import Images

LIMIT = 10 * 2**30
"""Bytes that all of it may take; what was not used for longest is deleted."""

log = logging.getLogger(__name__)


def stored_features(
    backbone: Backbone, images: Images, facts: tuple[object, ...], computed: Callable[[], Tensor]
) -> Tensor:
    """Features float32 [N, D] of the images, on their device: those on disk, else `computed` and put there. `facts` say
    how they are computed. They are kept under all that their bits depend on: the weights, the images' pixels, the
    code, the device and its threads."""
    versions = (torch.__version__, torchvision.__version__, timm.__version__)
    where = (device.describe(images.device), torch.get_num_threads(), versions, ENGINE)
    parts = (resolve(backbone).hash, repr(backbone), _content(images), repr(facts), repr(where), _code())
    name = hashlib.sha256("\n".join(parts).encode()).hexdigest()[:40]
    try:
        path = cache_folder("features") / f"{name}.npy"
        if (found := _read(path, len(images))) is not None:
            return torch.from_numpy(found).to(images.device)
    except (OSError, DataError) as error:
        _told(str(error))
        return computed().clone()
    features = computed().clone()
    try:
        with whole_file(path) as temporary, temporary.open("wb") as file:
            np.save(file, features.cpu().numpy())
        _keep_within(path.parent, LIMIT)
    except OSError as error:
        _told(str(error))
    return features


@cache
def _code() -> str:
    """What makes features of images: edited, it makes others."""
    files = (
        Path(__file__).with_name(f"{name}.py") for name in ("backbones", "images", "run", "stages", "weights_origin")
    )
    return hashlib.sha256(b"".join(file.read_bytes() for file in files)).hexdigest()


def _content(images: Images) -> str:
    digest = hashlib.sha256()
    for pixels, _ in images.batches(1024):
        digest.update(repr(tuple(pixels.shape[1:])).encode())
        digest.update(pixels.cpu().numpy().tobytes())
    return digest.hexdigest()


def _read(path: Path, count: int) -> np.ndarray | None:
    try:
        found = np.load(path, allow_pickle=False)
        os.utime(path)  # used now
    except (FileNotFoundError, EOFError, ValueError):  # none, or no longer what was written
        return None
    return found if found.ndim == 2 and len(found) == count and found.dtype == np.float32 else None


def _keep_within(folder: Path, limit: int) -> None:
    whole = folder.glob("[!.]*.npy")  # not what another worker is writing
    there = sorted(((path.stat().st_mtime, path.stat().st_size, path) for path in whole), reverse=True)
    total = 0
    for _, size, path in there:
        total += size
        if total > limit:
            path.unlink(missing_ok=True)


@cache
def _told(reason: str) -> None:
    """Once a reason: a run does without this as well, only slower."""
    log.warning("features are not kept on disk (%s)", reason)
