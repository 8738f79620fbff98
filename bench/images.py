"""Images live on the device as uint8 and are resized and normalised there, in batches; no loader processes."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, replace
from functools import partial

import numpy as np
import torch
from torch import Tensor
from torchvision.transforms import InterpolationMode
from torchvision.transforms.v2 import functional as tvf

from bench import clock
from bench.contract import Predictor, Split
from bench.errors import Spoiled
from bench.lent import versions
from bench.marks import Marked, mark
from bench.memory import free_bytes
from bench.parts import joined

RESIZE = {"bilinear": InterpolationMode.BILINEAR, "nearest": InterpolationMode.NEAREST_EXACT}
AT_ONCE = 256
"""Images that are sent to a device at a time."""


@dataclass(frozen=True, eq=False)
class Images:
    """The images of one split: uint8 pixels [N, C, H, W], labels (int64 [N], or float32 [N, K] for multi-label) on the
    device, ids str [N]. Pixels that do not fit on the device stay in the memory map they came from."""

    pixels: Tensor | np.ndarray
    labels: Tensor
    ids: np.ndarray
    key: str
    """Content key: equal keys mean equal pixels; what features are cached under."""
    rows: np.ndarray | None = None
    """int64 [N]: where the images stand in a memory map, if they are not all of it."""
    _versions: tuple[int, ...] = field(init=False, repr=False)

    def __post_init__(self) -> None:
        object.__setattr__(self, "_versions", versions(self.tensors))

    def __len__(self) -> int:
        return len(self.ids)

    @property
    def device(self) -> torch.device:
        return self.labels.device

    @property
    def tensors(self) -> tuple[Tensor, ...]:
        """What a strategy could change in place; a memory map is read-only."""
        return (self.pixels, self.labels) if isinstance(self.pixels, Tensor) else (self.labels,)

    def batch(self, index: Tensor) -> tuple[Tensor, Tensor]:
        """Pixels uint8 [B, C, H, W] and labels of the images at `index` (int64 [B]), on the device: copies. Raises
        Spoiled where the images themselves were changed."""
        if versions(self.tensors) != self._versions:
            raise Spoiled("the images")
        if isinstance(self.pixels, Tensor):
            # Copies whole images, up to 16 times as fast as `pixels[index]`.
            return self.pixels.index_select(0, index), self.labels[index]
        # A memory map is read in file order: random reads of a 13 GB file would seek for every image.
        places = index.cpu().numpy() if self.rows is None else self.rows[index.cpu().numpy()]
        order, back = np.unique(places, return_inverse=True)
        pixels = torch.from_numpy(_channels_first(np.asarray(self.pixels[order])[back]))
        return pixels.to(self.device), self.labels[index]

    def batches(self, size: int) -> Iterator[tuple[Tensor, Tensor]]:
        """All images in order, `size` at a time, each batch marked with what it holds."""
        for start in range(0, len(self), size):
            stop = min(start + size, len(self))
            pixels, labels = self.batch(torch.arange(start, stop, device=self.device))
            yield mark(pixels, Marked(self.key, start, stop)), labels

    def take(self, index: np.ndarray) -> Images:
        """The images at `index`, under a key of their own."""
        if len(index) == len(self) and np.array_equal(index, np.arange(len(self))):
            return self
        chosen = torch.from_numpy(np.asarray(index, dtype=np.int64)).to(self.device)
        ids = self.ids[index]
        part = replace(self, labels=self.labels[chosen], ids=ids, key=f"{self.key}/{_digest(ids)}")
        if isinstance(self.pixels, Tensor):
            return replace(part, pixels=self.pixels[chosen])
        return replace(part, rows=index if self.rows is None else self.rows[index])  # half a memory map may not fit


def to_device(split: Split, key: str, device: torch.device, room: float = 0.5) -> Images:
    """A split as Images. Pixels that would take more than `room` of the free device memory stay where they are."""
    labels = np.asarray(split.labels)
    on_device = torch.from_numpy(np.array(labels, dtype=np.int64 if labels.ndim == 1 else np.float32)).to(device)
    ids = np.array(split.ids)
    ids.flags.writeable = False
    if split.images.nbytes > room * free_bytes(device):
        return Images(split.images, on_device, ids, key)
    return Images(_sent(split.images, device), on_device, ids, key)


def _sent(images: np.ndarray, device: torch.device) -> Tensor:
    """uint8 [N, C, H, W] on the device, sent there part by part: the machine need not hold all of it once more. On a
    CPU gray images are not copied at all, unless they must not be written to, such as those of a memory map."""
    arranged = _channels_first(images)
    if device.type == "cpu" and arranged.dtype == np.uint8 and arranged.flags.carray:
        return torch.from_numpy(arranged)
    pixels = torch.empty(arranged.shape, dtype=torch.uint8, device=device)
    for start in range(0, len(arranged), AT_ONCE):
        part = np.array(arranged[start : start + AT_ONCE], dtype=np.uint8, order="C")
        pixels[start : start + AT_ONCE] = torch.from_numpy(part).to(device)
    return pixels


def resize(images: Tensor, size: int, rule: str) -> Tensor:
    """uint8 [N, C, H, W] -> uint8 [N, C, size, size]; bilinear equals PIL's bit for bit on a CPU."""
    if images.shape[-2:] == (size, size):
        return images
    return tvf.resize(images, [size, size], interpolation=RESIZE[rule], antialias=rule == "bilinear")


def at_size(images: Images, size: int, rule: str, room: float = 0.25) -> Images:
    """The images resized once, rather than each time that they are shown, under a key of their own. They stay as they
    are where they have that size, are a memory map, or would take more than `room` of the free device memory."""
    pixels = images.pixels
    if not isinstance(pixels, Tensor) or pixels.shape[-2:] == (size, size):
        return images
    if len(images) * pixels.shape[1] * size**2 > room * free_bytes(images.device):
        return images
    resized = torch.cat([resize(part, size, rule) for part in pixels.split(256)])
    return replace(images, pixels=resized, key=f"{images.key}/{size} px {rule}")


def normalise(images: Tensor, mean: Tensor, std: Tensor, layout: torch.memory_format = torch.channels_last) -> Tensor:
    """float [N, 1 or 3, H, W] in 0..1 -> three channels in a layout; mean and std are the backbone's own [3]."""
    count, _, height, width = images.shape
    if layout == torch.contiguous_format:
        three = images.expand(-1, 3, -1, -1).clone(memory_format=layout)
        return three.sub_(mean[:, None, None]).div_(std[:, None, None])
    last = images.permute(0, 2, 3, 1).expand(-1, -1, -1, 3).clone(memory_format=torch.contiguous_format)
    # As rows of all three channels: an operation on 3 numbers at a time costs twice as much.
    last.view(count, height, 3 * width).sub_(mean.repeat(width)).div_(std.repeat(width))
    return last.permute(0, 3, 1, 2)


def predict(predictor: Predictor, images: Images, batch_size: int = 256) -> Tensor:
    """Logits float32 [N, K] of all images, in order, in inference mode."""
    return predict_all([predictor], images, batch_size)[0]


def predict_all(predictors: Sequence[Predictor], images: Images, batch_size: int = 256) -> list[Tensor]:
    """Logits of several predictors, batch by batch, so that those that share frozen features compute them once; all
    images at once for a predictor that wants them so."""
    logits: list[list[Tensor]] = [[] for _ in predictors]
    whole = [getattr(predictor, "whole", False) for predictor in predictors]
    for predictor in predictors:
        if not callable(predictor):
            raise TypeError(f"the strategy gave {type(predictor).__name__}, not a predictor: images -> logits")
    # A batch is drawn outside of inference mode, in which torch does not see whether a predictor changes it in place.
    for pixels, _ in images.batches(len(images) if any(whole) else batch_size):
        with torch.inference_mode():
            batches = pixels.split(batch_size) if any(whole) else (pixels,)
            for predictor, parts, at_once in zip(predictors, logits, whole, strict=True):
                if at_once:  # it adapts to them: parts would be another task
                    parts.append(_logits(predictor, pixels))
                else:
                    parts.extend(joined(partial(_logits, predictor), batch) for batch in batches)
    return [torch.cat(parts) for parts in logits]


def _logits(predictor: Predictor, pixels: Tensor) -> Tensor:
    with clock.network():
        found = predictor(pixels)
    if not isinstance(found, Tensor):
        raise TypeError(f"the predictor gave {type(found).__name__}, not a tensor of logits")
    return found.float()


def _channels_first(images: np.ndarray) -> np.ndarray:
    return images[:, None] if images.ndim == 3 else images.transpose(0, 3, 1, 2)


def _digest(ids: np.ndarray) -> str:
    return hashlib.sha256("\n".join(map(str, ids)).encode()).hexdigest()[:16]
