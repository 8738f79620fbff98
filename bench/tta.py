"""Test-time augmentation: several views of each image, drawn as the modality's policy allows, for one network to
predict. What becomes of the predictions is for a fusion to say."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import torch
from torch import Tensor

from bench.contract import Predictor
from bench.policies import POLICIES, augmented
from bench.prediction import Prediction
from bench.run import Run


def viewers(predictor: Predictor, views: int, modality: str, run: Run) -> Sequence[Predictor]:
    """The predictor itself and, for each of `views`, one that predicts images changed in that view's way.

    A view changes all images alike, by draws that depend on its number only: an image's logits do not depend on which
    others are predicted with it."""
    policy = POLICIES.get(modality, POLICIES["unknown"])

    def of(view: int) -> Predictor:
        def changed(images: Tensor) -> Tensor:
            generator = torch.Generator(images.device).manual_seed(view)
            shown = augmented(run.resized(images), policy, generator, alike=True)
            return shown.mul_(255).round_().byte()

        def seen(one: Predictor) -> Predictor:
            return lambda images: one(changed(images))

        if not isinstance(predictor, Prediction):
            return seen(predictor)
        other = seen(predictor.other) if predictor.other else None
        return replace(predictor, logits=seen(predictor.logits), embed=None, other=other)

    return [predictor, *(of(view) for view in range(1, views + 1))]
