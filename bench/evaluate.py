"""The only reader of a test split: each final fit is scored on it once."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor

from bench.contract import Dataset, Kind, Predictor
from bench.errors import Diverged
from bench.images import Images, predict_all, to_device
from bench.labelled import load_split
from bench.metrics import accuracy, all_scores, auc, auc_interval, aucs, probabilities


def test_logits(
    dataset: Dataset, size: int, key: str, predictors: Sequence[Predictor], device: torch.device
) -> tuple[Images, list[Tensor]]:
    """The test images and each predictor's logits on them. Raises DataError."""
    images = to_device(load_split(dataset, "test", size), f"{key}/test", device)
    return images, predict_all(predictors, images)


def test_aucs(
    dataset: Dataset, size: int, key: str, device: torch.device
) -> Callable[[Sequence[Predictor]], list[float]]:
    """AUCs of predictors on the test images, which are loaded once, when first asked for. For figures that choose
    nothing: what a shift task's trials score on the target, and its fits on the source."""
    kept: list[Images] = []

    def scores(predictors: Sequence[Predictor]) -> list[float]:
        if not kept:
            kept.append(to_device(load_split(dataset, "test", size), f"{key}/test", device))
        kind = dataset.info.kind
        probs = [probabilities(logits.cpu().numpy(), kind) for logits in predict_all(predictors, kept[0])]
        return aucs(kept[0].labels.cpu().numpy(), probs, kind)

    return scores


def test_columns(logits: np.ndarray, labels: np.ndarray, kind: Kind) -> dict[str, Any]:
    """The row's test columns, from logits float32 [N, K]: `test_auc`, `test_auc_lo`, .., `n_test`."""
    probs = probabilities(logits, kind)
    scores = all_scores(labels, probs, kind)
    low, high = auc_interval(labels, probs, kind)
    columns: dict[str, Any] = {f"test_{name}": value for name, value in scores.items() if name != "recall"}
    return columns | {
        "test_recall": json.dumps(scores["recall"]),
        "test_auc_lo": low,
        "test_auc_hi": high,
        "n_test": len(labels),
    }


def val_columns(logits: np.ndarray, labels: np.ndarray, kind: Kind) -> dict[str, float]:
    """`val_auc` and `val_acc` of logits [N, K]."""
    probs = probabilities(logits, kind)
    return {"val_auc": auc(labels, probs, kind), "val_acc": accuracy(labels, probs, kind)}


def checked(logits: Tensor, images: int, outputs: int, split: str) -> np.ndarray:
    """Logits as float32 [images, outputs]. Raises ValueError on another shape, Diverged on a value that is not
    finite."""
    if logits.shape != (images, outputs):
        raise ValueError(
            f"the predictor gave logits of shape {tuple(logits.shape)} on {split}, not {(images, outputs)}"
        )
    if not torch.isfinite(logits).all():
        raise Diverged(f"the predictor gave non-finite logits on {split}")
    return logits.float().cpu().numpy()
