"""Small tasks and matrices for tests: phantoms, and timm's own half-million-parameter test network."""

from __future__ import annotations

from pathlib import Path

from bench.config import Matrix
from bench.contract import Backbone, Protocol

NET = Backbone("test_resnet", weights="random")
CHECKOUT = Path(__file__).resolve().parents[1]


def matrix(results: Path, **changes: object) -> Matrix:
    """One phantom, one network, three strategies, few epochs."""
    facts: dict[str, object] = {
        "backbones": (NET,),
        "strategies": ("scratch", "linear_probe", "full_finetune"),
        "datasets": ("phantom-radiograph",),
        "sizes": (32,),
        "results": results,
        "seeds": 2,
        "protocol": Protocol(epochs=2, trials=3, batch_size=64),
        "device": "cpu",
    }
    return Matrix(**facts | changes)  # type: ignore[arg-type]
