"""What the phantoms are drawn with. Coordinates are 0..1 and random numbers do not depend on the size, so an image
shows the same content at any size."""

from __future__ import annotations

import numpy as np

Rng = np.random.Generator
Place = tuple[np.ndarray, np.ndarray]
"""y and x, each [N], in 0..1."""


def canvas(count: int, size: int) -> np.ndarray:
    return np.zeros((count, size, size), dtype=np.float32)


def grid(size: int) -> tuple[np.ndarray, np.ndarray]:
    """y [S, 1] and x [1, S] of the pixel centres."""
    line = ((np.arange(size) + 0.5) / size).astype(np.float32)
    return line[:, None], line[None, :]


def column(values: np.ndarray | float) -> np.ndarray:
    """[N] -> float32 [N, 1, 1], to be used with a grid."""
    return np.asarray(values, dtype=np.float32).reshape(-1, 1, 1)


def turned(size: int, place: Place, angle: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Coordinates [N, S, S] along and across an axis at `angle` (radians) through a place."""
    rows, columns = grid(size)
    down, right = rows - column(place[0]), columns - column(place[1])
    cosine, sine = column(np.cos(angle)), column(np.sin(angle))
    return right * cosine + down * sine, down * cosine - right * sine


def inside(level: np.ndarray, softness: float | np.ndarray) -> np.ndarray:
    """1 where `level` is below 1 and 0 above, with a soft edge."""
    return 1 / (1 + np.exp(np.clip((level - 1) / softness, -30, 30)))


def ellipse(
    size: int,
    place: Place,
    along: np.ndarray | float,
    across: np.ndarray | float,
    angle: np.ndarray,
    softness: float = 0.1,
) -> np.ndarray:
    """Soft filled ellipses [N, S, S]; half-axes in 0..1."""
    first, second = turned(size, place, angle)
    return inside(np.hypot(first / column(along), second / column(across)), softness)


def spots(
    image: np.ndarray, y: np.ndarray, x: np.ndarray, along: np.ndarray, across: np.ndarray,
    angle: np.ndarray, height: np.ndarray,
) -> None:  # fmt: skip
    """Adds M small soft ellipses to each image [N, S, S]; all arguments are [N, M]. Only a window around each is
    touched."""
    size = image.shape[1]
    reach = int(np.ceil(1.6 * max(along.max(), across.max()) * size)) + 1
    window = np.arange(-reach, reach + 1)
    y, x, along, across, angle, height = (values.astype(np.float32) for values in (y, x, along, across, angle, height))
    for index in range(len(image)):  # image by image: memory stays small at any size
        rows = np.floor(y[index] * size).astype(int)[:, None, None] + window[:, None]
        columns = np.floor(x[index] * size).astype(int)[:, None, None] + window[None, :]
        down, right = (rows + 0.5) / size - column(y[index]), (columns + 0.5) / size - column(x[index])
        cosine, sine = column(np.cos(angle[index])), column(np.sin(angle[index]))
        first, second = right * cosine + down * sine, down * cosine - right * sine
        level = np.sqrt((first / column(along[index])) ** 2 + (second / column(across[index])) ** 2)
        value = column(height[index]) * inside(level, 0.12)
        rows, columns = np.broadcast_arrays(rows, columns)
        seen = (rows >= 0) & (rows < size) & (columns >= 0) & (columns < size)
        places = rows[seen] * size + columns[seen]
        image[index] += np.bincount(places, value[seen], size * size).reshape(
            size, size
        )  # 5 times as fast as np.add.at


def waves(rng: Rng, count: int, size: int, low: float, high: float, terms: int = 6) -> np.ndarray:
    """A smooth random field [N, S, S], about -1..1, of `low` to `high` cycles an image."""
    rows, columns = grid(size)
    field = canvas(count, size)
    for _ in range(terms):
        cycles, angle, phase = (
            rng.uniform(low, high, count),
            rng.uniform(0, np.pi, count),
            rng.uniform(0, 2 * np.pi, count),
        )
        field += np.sin(
            2 * np.pi * (column(cycles * np.cos(angle)) * columns + column(cycles * np.sin(angle)) * rows)
            + column(phase)
        )
    return field / np.float32(np.sqrt(terms / 2) * 1.5)


def noise(rng: Rng, count: int, size: int, grain: int = 32) -> np.ndarray:
    """Grainy noise [N, S, S] of unit variance at `grain` px, the same grains at every size (linear in between)."""
    cells = rng.standard_normal((count, grain, grain), dtype=np.float32)
    place = np.clip((np.arange(size) + 0.5) / size * grain - 0.5, 0, grain - 1)
    low = np.minimum(place.astype(int), grain - 2)
    part = (place - low).astype(np.float32)
    cells = cells[:, low] * (1 - part)[:, None] + cells[:, low + 1] * part[:, None]
    return cells[:, :, low] * (1 - part) + cells[:, :, low + 1] * part


def exposed(rng: Rng, image: np.ndarray, spread: tuple[float, float] = (0.12, 0.2)) -> np.ndarray:
    """Each image [N, S, S] at a random mean and contrast, so that neither tells its class."""
    mean, deviation = image.mean((1, 2), keepdims=True), image.std((1, 2), keepdims=True)
    level, contrast = rng.uniform(0.38, 0.62, len(image)), rng.uniform(*spread, len(image))
    return (image - mean) / np.maximum(deviation, 1e-6) * column(contrast) + column(level)


def to_uint8(image: np.ndarray) -> np.ndarray:
    return (image.clip(0, 1) * 255).round().astype(np.uint8)
