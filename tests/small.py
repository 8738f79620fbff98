"""Small matrices and images for tests: phantoms, timm's own half-million-parameter test network, noise."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from PIL import Image

from bench import registry
from bench.config import Matrix
from bench.contract import Backbone, Dataset, Protocol

NET = Backbone("test_resnet", weights="random")
CHECKOUT = Path(__file__).resolve().parents[1]


def matrix(results: Path, **changes: object) -> Matrix:
    """One phantom, one network, three strategies, few epochs."""
    facts: dict[str, object] = {
        "backbones": (NET,),
        "strategies": ("scratch", "linear_probe", "full_finetune"),
        "datasets": ("phantom-radiograph",),
        "sizes": (16,),
        "results": results,
        "seeds": 2,
        "protocol": Protocol(epochs=2, trials=3, batch_size=64),
        "device": "cpu",
    }
    return Matrix(**facts | changes)  # type: ignore[arg-type]


def opened(name: str, seed: int = 0) -> Dataset:
    return registry.open_dataset(name, Path(), seed)


def picture(path: Path, shape: tuple[int, ...] = (12, 12)) -> Path:
    """A file of noise, another one for every path."""
    path.parent.mkdir(parents=True, exist_ok=True)
    draw = np.random.default_rng(list(str(path).encode()))
    Image.fromarray(draw.integers(0, 256, shape, dtype=np.uint8)).save(path)
    return path
