"""How far apart two domains are to a network."""

from __future__ import annotations

from typing import cast

import numpy as np
import torch
from sklearn.linear_model import LogisticRegression
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler
from torch import Tensor

from bench.contract import Predictor, Strategy, Task
from bench.images import Images
from bench.parts import joined
from bench.prediction import for_labelled, for_second
from bench.run import Run

AT_MOST = 500
"""Images of each domain that are compared."""


def proxy_a_distance(first: Tensor, second: Tensor, seed: int = 0) -> float:
    """2 (1 - 2 e) of features float [N, D] and [M, D], where e is the error of a linear classifier of the domain on the
    half of the features that it was not trained on: 0 where the domains cannot be told apart, 2 where they always can.

    Ben-David et al. 2007, with logistic regression on standardised features for their linear classifier, and as many
    images of one domain as of the other (at most 500). Below 0, chance, is given as 0. NaN for fewer than 4 of one."""
    count = min(len(first), len(second), AT_MOST)
    if count < 4:
        return float("nan")
    rng = np.random.default_rng(seed)
    halves: tuple[list[np.ndarray], list[np.ndarray]] = ([], [])
    for features in (first, second):
        drawn = features[torch.from_numpy(rng.permutation(len(features))[:count])].cpu().double().numpy()
        halves[0].append(drawn[: count // 2])
        halves[1].append(drawn[count // 2 :])
    (train, where), (held_out, truth) = (
        (np.concatenate(half), np.repeat([0, 1], [len(part) for part in half])) for half in halves
    )
    classifier = make_pipeline(StandardScaler(), LogisticRegression(max_iter=1000)).fit(train, where)
    error = 1 - classifier.score(held_out, truth)
    return max(0.0, 2 * (1 - 2 * float(error)))


def embedded(embed: Predictor, images: Images, seed: int = 0) -> Tensor:
    """Features [N, D] of at most 500 of the images, drawn by seed."""
    index = np.random.default_rng(seed).permutation(len(images))[:AT_MOST]
    part = images.take(np.sort(index))
    with torch.inference_mode():
        return torch.cat([joined(embed, pixels) for pixels, _ in part.batches(128)])


def between(task: Task, predictor: Predictor, strategy: Strategy, run: Run) -> dict[str, float | None]:
    """`pad_before` and `pad_after`: the proxy A-distance between the two domains' training images, as the pretrained
    backbone sees them and as the fitted network does. Empty where there is no second domain."""
    if task.second is None:
        return {}
    key = ("pad", run.backbone, run.size, run.protocol.resize, task.train.key, task.second.key, strategy.pretrained)
    if strategy.pretrained and key not in run.memory:
        run.memory[key] = proxy_a_distance(embedded(run.embed, task.train), embedded(run.embed, task.second))
    before = cast(float | None, run.memory.get(key))
    labelled, second = (getattr(choose(predictor, task.shift), "embed", None) for choose in (for_labelled, for_second))
    if labelled is None or second is None:
        return {"pad_before": before, "pad_after": before if strategy.frozen else None}
    after = proxy_a_distance(embedded(labelled, task.train), embedded(second, task.second))
    return {"pad_before": before, "pad_after": after}
