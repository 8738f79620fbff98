"""Scores of predictions, equal to medmnist's Evaluator where it has them; NaN where a score is undefined."""

from __future__ import annotations

from collections.abc import Sequence
from functools import lru_cache

import numpy as np
from scipy.special import expit, softmax

from bench.contract import Kind

ECE_BINS = 15
KEPT = 2_000_000
"""Resampled images up to which the draws are kept in memory, 4 bytes each."""


def probabilities(logits: np.ndarray, kind: Kind) -> np.ndarray:
    """Logits [N, K] -> probabilities float64 [N, K]."""
    logits = np.asarray(logits, dtype=np.float64)
    return expit(logits) if kind == "multi-label" else softmax(logits, axis=1)


def auc(labels: np.ndarray, probs: np.ndarray, kind: Kind) -> float:
    """The area under the ROC curve as MedMNIST defines it: the last column for binary, otherwise the unweighted mean
    over classes (one against the rest) or labels. NaN when a class is absent or the only one: never 0 or 0.5."""
    return aucs(labels, [probs], kind)[0]


def aucs(labels: np.ndarray, probs: Sequence[np.ndarray], kind: Kind) -> list[float]:
    """`auc` of several predictions [N, K] of the same images, which are ranked together."""
    from scipy.stats import rankdata

    both = [_columns(labels, one, kind) for one in probs]
    truth, scores = both[0][0], np.concatenate([one for _, one in both], axis=1)
    ranks, finite = rankdata(scores, axis=0), np.isfinite(scores).all(axis=0)
    classes = truth.shape[1]
    values = [
        _area(truth[:, place % classes], ranks[:, place]) if finite[place] else float("nan")
        for place in range(len(both) * classes)
    ]
    return [float(np.mean(values[start : start + classes])) for start in range(0, len(values), classes)]


def accuracy(labels: np.ndarray, probs: np.ndarray, kind: Kind) -> float:
    """Argmax accuracy; binary at p > 0.5; multi-label the mean over labels at p > 0.5."""
    if kind == "multi-label":
        return float(np.mean(np.mean((probs > 0.5) == (labels > 0.5), axis=0)))
    return float(np.mean(decide(probs, kind) == labels))


def decide(probs: np.ndarray, kind: Kind) -> np.ndarray:
    """Predicted class int64 [N]."""
    return (probs[:, -1] > 0.5).astype(np.int64) if kind == "binary" else np.argmax(probs, axis=1)


def all_scores(labels: np.ndarray, probs: np.ndarray, kind: Kind) -> dict[str, float | list[float | None]]:
    """Every score of a row. `labels` int [N] (multi-label: 0/1 [N, K]), `probs` float [N, K].

    balanced_acc and recall are over the classes present; kappa is quadratic-weighted (ordinal only), ap the mean
    average precision (multi-label only), ece has 15 equal-width bins of the top probability (of every label's, for
    multi-label), brier is the mean squared error summed over classes (mean over labels for multi-label), nll is in
    nats."""
    from sklearn import metrics as skm  # here and below: a second that a command without scores need not wait

    truth = labels if kind == "multi-label" else np.eye(probs.shape[1])[labels]
    clipped = np.clip(probs, 1e-7, 1 - 1e-7)
    scores: dict[str, float | list[float | None]] = {
        "auc": auc(labels, probs, kind),
        "acc": accuracy(labels, probs, kind),
        "kappa": float("nan"),
        "ap": float("nan"),
    }
    if kind == "multi-label":
        positive = probs > 0.5
        recall = [
            float(positive[truth[:, k] > 0, k].mean()) if truth[:, k].any() else None for k in range(truth.shape[1])
        ]
        specificity = [
            (~positive[truth[:, k] == 0, k]).mean() for k in range(truth.shape[1]) if (truth[:, k] == 0).any()
        ]
        present = [r for r in recall if r is not None]
        scores["balanced_acc"] = (
            float((np.mean(present) + np.mean(specificity)) / 2) if present and specificity else float("nan")
        )
        scores["macro_f1"] = float(skm.f1_score(truth, positive, average="macro", zero_division=0))
        with_positives = [k for k in range(truth.shape[1]) if truth[:, k].any()]
        if len(with_positives) == truth.shape[1]:
            scores["ap"] = float(
                np.mean([skm.average_precision_score(truth[:, k], probs[:, k]) for k in with_positives])
            )
        scores["ece"] = _ece(np.where(positive, probs, 1 - probs).ravel(), (positive == (truth > 0)).ravel())
        scores["brier"] = float(np.mean((probs - truth) ** 2))
        scores["nll"] = float(-np.mean(truth * np.log(clipped) + (1 - truth) * np.log(1 - clipped)))
    else:
        chosen = decide(probs, kind)
        recall = [
            float((chosen[labels == k] == k).mean()) if (labels == k).any() else None for k in range(probs.shape[1])
        ]
        scores["balanced_acc"] = float(np.mean([r for r in recall if r is not None]))
        scores["macro_f1"] = float(
            skm.f1_score(labels, chosen, labels=range(probs.shape[1]), average="macro", zero_division=0)
        )
        if kind == "ordinal":
            scores["kappa"] = _kappa(labels, chosen, probs.shape[1])
        scores["ece"] = _ece(probs.max(axis=1), np.argmax(probs, axis=1) == labels)
        scores["brier"] = float(np.mean(np.sum((probs - truth) ** 2, axis=1)))
        scores["nll"] = float(-np.mean(np.log(clipped[np.arange(len(labels)), labels])))
    scores["recall"] = recall
    return scores


def auc_interval(
    labels: np.ndarray, probs: np.ndarray, kind: Kind, seed: int = 0, resamples: int = 1000
) -> tuple[float, float]:
    """95 % percentile bootstrap interval of `auc` over test images, resampled within classes, so that no resample loses
    one. Of multi-label tasks images are resampled as they are, with all their labels, whose errors go together; a
    resample that loses a label does not count. NaN where the AUC is."""
    truth, scores = _columns(labels, probs, kind)
    groups = np.zeros(len(labels), np.int64) if kind == "multi-label" else labels.astype(np.int64)
    few = len(groups) * resamples <= KEPT
    weights = (
        _kept(groups.tobytes(), seed, resamples)
        if few
        else _resample_weights(groups, np.random.default_rng(seed), resamples)
    )
    means = np.mean([_bootstrap_auc(truth[:, k], scores[:, k], weights) for k in range(scores.shape[1])], axis=0)
    if kind == "multi-label":
        means = means[np.isfinite(means)]
    if not len(means) or not np.isfinite(means).all():
        return float("nan"), float("nan")
    low, high = np.quantile(means, [0.025, 0.975])
    return float(low), float(high)


def _columns(labels: np.ndarray, probs: np.ndarray, kind: Kind) -> tuple[np.ndarray, np.ndarray]:
    """Truth bool [N, M] and scores [N, M] of the M one-against-rest problems."""
    if kind == "multi-label":
        return labels > 0.5, probs
    if kind == "binary":
        return (labels == 1)[:, None], probs[:, -1:]
    return labels[:, None] == np.arange(probs.shape[1]), probs


def _area(truth: np.ndarray, ranks: np.ndarray) -> float:
    positives = int(truth.sum())
    negatives = len(truth) - positives
    if positives == 0 or negatives == 0:
        return float("nan")
    return float((ranks[truth].sum() - positives * (positives + 1) / 2) / (positives * negatives))


@lru_cache(maxsize=4)
def _kept(labels: bytes, seed: int, resamples: int) -> np.ndarray:
    """The draws for the next predictions of the same test images: ensembles have hundreds of them."""
    return _resample_weights(np.frombuffer(labels, np.int64), np.random.default_rng(seed), resamples)


def _resample_weights(groups: np.ndarray, rng: np.random.Generator, resamples: int) -> np.ndarray:
    """How often each image is drawn, int [resamples, N], when every group is resampled to its own size."""
    weights = np.zeros((resamples, len(groups)), dtype=np.int32)
    for group in np.unique(groups):
        members = np.flatnonzero(groups == group)
        weights[:, members] = rng.multinomial(len(members), np.full(len(members), 1 / len(members)), size=resamples)
    return weights


def _bootstrap_auc(truth: np.ndarray, scores: np.ndarray, weights: np.ndarray) -> np.ndarray:
    """AUC of every weighting [B, N] at once: sum over tied groups of negatives below plus half of those level."""
    if truth.all() or not truth.any():
        return np.full(len(weights), np.nan)
    order = np.argsort(scores, kind="stable")
    starts = np.flatnonzero(np.r_[True, np.diff(scores[order]) != 0])
    positive = np.add.reduceat(weights[:, order] * truth[order], starts, axis=1).astype(np.float64)
    negative = np.add.reduceat(weights[:, order] * ~truth[order], starts, axis=1).astype(np.float64)
    below = np.cumsum(negative, axis=1) - negative
    pairs = positive.sum(axis=1) * negative.sum(axis=1)
    won = (positive * (below + negative / 2)).sum(axis=1)
    return np.divide(won, pairs, out=np.full(len(won), np.nan), where=pairs > 0)


def _ece(confidence: np.ndarray, correct: np.ndarray) -> float:
    bins = np.minimum((confidence * ECE_BINS).astype(int), ECE_BINS - 1)
    counts = np.bincount(bins, minlength=ECE_BINS)
    gaps = np.abs(
        np.bincount(bins, confidence, minlength=ECE_BINS) - np.bincount(bins, correct.astype(float), minlength=ECE_BINS)
    )
    return float(gaps.sum() / counts.sum())


def _kappa(labels: np.ndarray, chosen: np.ndarray, classes: int) -> float:
    from sklearn.metrics import confusion_matrix

    table = confusion_matrix(labels, chosen, labels=range(classes)).astype(np.float64)
    disagreement = (np.arange(classes)[:, None] - np.arange(classes)) ** 2
    expected = np.outer(table.sum(1), table.sum(0)) / table.sum()
    # Every image in one class and every prediction too: chance agreement is complete and kappa has no meaning.
    return (
        float(1 - (disagreement * table).sum() / (disagreement * expected).sum())
        if (disagreement * expected).any()
        else float("nan")
    )
