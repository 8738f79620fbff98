"""The phantoms' drawings: labels in, images out. What tells classes apart is shape and texture at random places;
brightness and contrast are random."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from bench.drawing import (
    Place,
    Rng,
    canvas,
    column,
    ellipse,
    exposed,
    grid,
    inside,
    noise,
    spots,
    to_uint8,
    turned,
    waves,
)

STROMA, GLAND, MUCUS = 0, 2, 4
NUCLEUS = np.array([[0.065, 0.032, 0.035, 0.06, 0.035], [0.022, 0.03, 0.028, 0.05, 0.03]])
"""Half-axes of the nuclei of the five tissues of phantom-histology."""


def histology(rng: Rng, labels: np.ndarray, size: int) -> np.ndarray:
    """Nuclei on stained tissue: spindles in one direction, dense small ones, rings around glands, large ones, or
    waves of mucus. Two nuclei in five are of some other kind."""
    count, most = len(labels), 44
    shape = (count, most)
    kinds = np.where(rng.random(shape) < 0.6, labels[:, None], rng.integers(0, 5, shape))
    y, x = rng.random(shape), rng.random(shape)
    flow = rng.uniform(0, np.pi, (count, 1)) + rng.normal(0, 0.2, shape)
    centres, radius = rng.uniform(0.2, 0.8, (2, count, 3)), rng.uniform(0.14, 0.24, (count, 3))
    which, around = (np.arange(count)[:, None], rng.integers(0, 3, shape)), rng.uniform(0, 2 * np.pi, shape)
    y = np.where(kinds == GLAND, centres[0][which] + radius[which] * np.sin(around), y)
    x = np.where(kinds == GLAND, centres[1][which] + radius[which] * np.cos(around), x)
    angle = np.where(kinds == STROMA, flow, rng.uniform(0, np.pi, shape))
    base = rng.uniform(0.75, 1.25, shape)
    along, across = base * NUCLEUS[0][kinds], base * NUCLEUS[1][kinds]
    number = (np.array([28, 44, 40, 18, 12])[labels] * rng.uniform(0.7, 1.1, count))[:, None]
    height = (np.arange(most) < number) * rng.uniform(0.5, 1.0, shape)
    nuclei = canvas(count, size)
    spots(nuclei, y, x, along, across, angle, height)
    tissue = 0.35 * waves(rng, count, size, 1, 3)
    along_strands, _ = turned(size, (rng.random(count), rng.random(count)), rng.uniform(0, np.pi, count))
    strands = np.sin(2 * np.pi * (3.5 * along_strands + tissue))
    dense = np.minimum(nuclei, 1.3) + column((labels == MUCUS) * rng.uniform(0.1, 0.3, count)) * strands
    dense = exposed(rng, dense + 0.4 * tissue + 0.2 * noise(rng, count, size), (0.14, 0.24))
    # Two stains, each with a hue of its own in every image: haematoxylin in nuclei, eosin between them.
    nuclear = np.array([0.75, 0.85, 0.45]) + rng.normal(0, 0.1, (count, 3))
    ground = np.array([0.95, 0.75, 0.88]) + rng.normal(0, 0.05, (count, 3))
    return to_uint8(ground[:, None, None] - (dense[..., None] - 0.25) * nuclear[:, None, None])


def chest(rng: Rng, count: int, size: int) -> tuple[np.ndarray, Callable[[], Place]]:
    """Two lungs with ribs on a body, [N, S, S], and a function that draws a random place (y, x), each [N], in the
    lungs."""
    shift_y, shift_x, tilt = rng.normal(0.5, 0.035, count), rng.normal(0.5, 0.035, count), rng.normal(0, 0.06, count)
    wide, tall = rng.uniform(0.13, 0.18, count), rng.uniform(0.28, 0.36, count)
    gap = rng.uniform(0.19, 0.24, count)
    flat = np.full(count, np.pi / 2)
    lungs = sum(
        ellipse(size, (shift_y, shift_x + side * gap), tall, wide, flat + side * tilt, 0.08) for side in (-1, 1)
    )
    down, across = turned(size, (shift_y, shift_x), flat + tilt)
    ribs = np.sin(2 * np.pi * (down * column(rng.uniform(5, 7, count)) + 6 * across**2 + column(rng.random(count))))
    body = -column(rng.uniform(0.7, 1.3, count)) * lungs + column(rng.uniform(0.05, 0.18, count)) * ribs * lungs
    body = body + 0.3 * waves(rng, count, size, 0.3, 1.2)

    def place() -> Place:
        side, angle = rng.choice([-1, 1], count), rng.uniform(0, 2 * np.pi, count)
        reach = np.sqrt(rng.random(count)) * 0.7
        return shift_y + tall * reach * np.sin(angle), shift_x + side * gap + wide * reach * np.cos(angle)

    return body, place


def radiograph(rng: Rng, labels: np.ndarray, size: int) -> np.ndarray:
    """Lungs with, or without, one faint mottled opacity; all have a smooth veil of the same strength."""
    count = len(labels)
    body, place = chest(rng, count, size)
    turn = rng.uniform(0, np.pi, count)
    patch = ellipse(size, place(), rng.uniform(0.13, 0.18, count), rng.uniform(0.11, 0.15, count), turn, 0.25)
    veil = ellipse(size, place(), rng.uniform(0.2, 0.3, count), rng.uniform(0.2, 0.3, count), turn, 0.35)
    mottle = column(rng.uniform(0.25, 0.55, count)) * waves(rng, count, size, 5, 7, 4)
    image = body + 0.5 * veil + column(labels) * patch * (0.2 + mottle)
    return to_uint8(exposed(rng, image + 0.15 * noise(rng, count, size), (0.15, 0.24)))


def fundus(rng: Rng, labels: np.ndarray, size: int) -> np.ndarray:
    """A retina with vessels and optic disc; the grade is the number of small red and yellow lesions."""
    count, most = len(labels), 26
    centre = rng.normal(0.5, 0.02, (2, count))
    down, right = grid(size)[0] - column(centre[0]), grid(size)[1] - column(centre[1])
    far = np.hypot(down, right)
    field = inside(far / column(rng.uniform(0.43, 0.49, count)), 0.03)
    side = rng.choice([-1, 1], count)
    disc_y, disc_x = rng.normal(0.5, 0.05, count), 0.5 + side * rng.uniform(0.2, 0.3, count)
    disc = ellipse(size, (disc_y, disc_x), 0.07, 0.06, rng.uniform(0, np.pi, count), 0.15)
    vessels = canvas(count, size)
    for _ in range(6):  # parabolas that leave the optic disc
        first, second = turned(size, (disc_y, disc_x), rng.uniform(0, 2 * np.pi, count))
        bend = second - column(rng.uniform(-1.5, 1.5, count)) * first**2
        vessels = np.maximum(vessels, np.exp(-((bend / 0.014) ** 2)) * (first > 0))
    shape = (count, most)
    low, high = np.array([0, 2, 5, 10, 18])[labels], np.array([0, 3, 7, 13, 26])[labels]
    number = rng.integers(low, high + 1)[:, None]
    reach, angle = np.sqrt(rng.random(shape)) * 0.36, rng.uniform(0, 2 * np.pi, shape)
    radius = rng.uniform(0.02, 0.032, shape)
    yellow = rng.random(shape) < 0.5
    there = (np.arange(most) < number) * rng.uniform(0.8, 1.2, shape)
    lesions = []
    for colour in (yellow, ~yellow):
        lesions.append(canvas(count, size))
        spots(
            lesions[-1], 0.5 + reach * np.sin(angle), 0.5 + reach * np.cos(angle), radius, radius, angle, there * colour
        )
    light = column(rng.uniform(0.8, 1.15, count)) * (1 + 0.15 * waves(rng, count, size, 0.3, 1.2)) * (1 - 0.9 * far**2)
    tone = np.array([0.78, 0.42, 0.2]) + rng.normal(0, 0.05, (count, 3)) * np.array([0.6, 1, 1])
    image = tone[:, None, None] * light[..., None]
    for layer, change in (
        (disc, (0.2, 0.3, 0.2)), (vessels, (-0.22, -0.18, -0.08)),
        (lesions[0], (0.16, 0.3, 0.05)), (lesions[1], (-0.32, -0.26, -0.1)),
    ):  # fmt: skip
        image = image + layer[..., None] * np.array(change)
    image = image + 0.025 * noise(rng, count, size)[..., None]
    return to_uint8(image * field[..., None])


def findings(rng: Rng, labels: np.ndarray, size: int) -> np.ndarray:
    """A chest with any of five findings, each at a random place: nodules, cavity, reticular texture, catheter,
    bulla."""
    count = len(labels)
    image, place = chest(rng, count, size)
    places = [place() for _ in range(5)]
    layers = []
    turn = rng.uniform(0, np.pi, (5, count))
    layers.append(
        1.1 * ellipse(size, places[0], rng.uniform(0.05, 0.065, count), rng.uniform(0.05, 0.065, count), turn[0], 0.2)
    )
    along, across = turned(size, places[1], turn[1])
    layers.append(0.9 * np.exp(-(((np.hypot(along, across) - column(rng.uniform(0.09, 0.13, count))) / 0.025) ** 2)))
    along, across = turned(size, places[2], turn[2])
    grating = np.sin(2 * np.pi * 7 * along) * np.sin(2 * np.pi * 7 * across)
    layers.append(0.9 * grating * inside(np.hypot(along, across) / 0.2, 0.2))
    along, across = turned(size, places[3], turn[3])
    layers.append(0.9 * np.exp(-((across / 0.016) ** 2)) * inside(np.abs(along) / 0.36, 0.05))
    layers.append(
        -0.9 * ellipse(size, places[4], rng.uniform(0.07, 0.1, count), rng.uniform(0.07, 0.1, count), turn[4], 0.15)
    )
    for label, layer in enumerate(layers):
        image = image + column(labels[:, label]) * column(rng.uniform(0.8, 1.2, count)) * layer
    return to_uint8(exposed(rng, image + 0.1 * noise(rng, count, size), (0.15, 0.24)))


def organ(rng: Rng, labels: np.ndarray, size: int, view: str) -> np.ndarray:
    """One organ in the middle of a slice: its shape and inner structure tell it. View b is inverted, noisier, turned
    and smaller."""
    count = len(labels)
    second = view == "b"
    y, x = rng.uniform(0.36, 0.64, (2, count))
    angle = rng.uniform(0, np.pi, count) + (rng.uniform(0.6, 1.2, count) if second else 0)
    scale = rng.uniform(0.8, 1.15, count) * (0.8 if second else 1.0)
    along, across = turned(size, (y, x), angle)
    along, across = along / column(scale), across / column(scale)
    far = np.hypot(along, across)
    vessels = inside(np.abs(np.sin(14 * along + 4 * np.sin(9 * across))) / 0.35, 0.3)
    liver = inside(np.hypot(along / 0.3, (across + 0.5 * along**2) / 0.2), 0.08) * (1 - 0.8 * vessels)
    bean = inside(np.hypot(along / 0.25, (across - 1.6 * along**2) / 0.14), 0.1)
    kidney = bean - 0.9 * inside(np.hypot(along / 0.14, (across - 1.6 * along**2) / 0.06), 0.2)
    spleen = inside(np.hypot(along / 0.3, (across - 3.0 * along**2 + 0.06) / 0.08), 0.12)
    bladder = inside(far / 0.19, 0.06)
    turns = np.arctan2(across, along)
    bowel = inside(far / (0.22 * (1 + 0.16 * np.sin(6 * turns))), 0.08) * (0.5 + 0.5 * np.cos(2 * np.pi * far / 0.09))
    shapes = (liver, kidney, spleen, bladder, bowel)
    target = sum(column(labels == label) * shape for label, shape in enumerate(shapes))
    around = canvas(count, size)
    for _ in range(4):  # other tissue, blurred discs away from the middle
        turn, reach = rng.uniform(0, 2 * np.pi, count), rng.uniform(0.38, 0.55, count)
        radius = rng.uniform(0.06, 0.14, count)
        middle = (0.5 + reach * np.sin(turn), 0.5 + reach * np.cos(turn))
        strength = rng.choice([-1, 1], count) * rng.uniform(0.3, 0.8, count)
        around += column(strength) * ellipse(size, middle, radius, radius, turn, 0.25)
    polarity = rng.choice([-1.0, 1.0], count, p=[0.75, 0.25] if second else [0.25, 0.75])
    image = (
        column(polarity * rng.uniform(0.4, 1, count)) * target + 0.7 * around + 0.4 * waves(rng, count, size, 0.5, 2)
    )
    image = image + (0.35 if second else 0.2) * noise(rng, count, size)
    return to_uint8(exposed(rng, image))
