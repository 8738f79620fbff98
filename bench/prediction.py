"""A predictor that says more of itself than its logits."""

from __future__ import annotations

from dataclasses import dataclass

from torch import Tensor

from bench.contract import Predictor


@dataclass(frozen=True, eq=False)
class Prediction:
    """A predictor for images of the domain that test is of."""

    logits: Predictor
    embed: Predictor | None = None
    """Raw images -> features float32 [N, D], as the head sees them; None where there are none to show."""
    other: Predictor | None = None
    """For images of the other domain (shift tasks: the source, else the second one); None where they are predicted
    alike."""
    whole: bool = False
    """To be given all images of a split at once: it adapts to them."""

    def __call__(self, images: Tensor) -> Tensor:
        return self.logits(images)


def for_labelled(predictor: Predictor, shift: bool) -> Predictor:
    """The predictor for images of the labelled domain, which train and val are of."""
    return _other(predictor) if shift else predictor


def for_second(predictor: Predictor, shift: bool) -> Predictor:
    """The predictor for images of the second domain."""
    return predictor if shift else _other(predictor)


def _other(predictor: Predictor) -> Predictor:
    return getattr(predictor, "other", None) or predictor
