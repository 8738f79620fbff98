"""How much the test images alone make the difference of two networks' AUCs vary, when both saw the same images."""

from __future__ import annotations

import numpy as np
from scipy.stats import rankdata

from bench.contract import Kind


def image_variance(labels: np.ndarray, probs_a: np.ndarray, probs_b: np.ndarray, kind: Kind) -> float:
    """Variance, over draws of the test images, of B's mean AUC over seeds less A's.

    `labels` int [N] (multi-label: 0/1 [N, K]), `probs_a` and `probs_b` float [S, N, K] of the same images by S seeds.
    The AUC is that of bench.metrics. For binary tasks and one seed this is the estimate of DeLong, DeLong &
    Clarke-Pearson (Biometrics 44, 1988), exactly; further classes and seeds enter as means of an image's structural
    components. It is given the number of images of each class (multi-label: of all images). NaN where a class has a
    single image, whose spread is unknown."""
    truth = labels > 0 if labels.ndim == 2 else labels[:, None] == np.arange(probs_a.shape[-1])
    if kind == "binary":
        truth, probs_a, probs_b = truth[:, -1:], probs_a[..., -1:], probs_b[..., -1:]
    parts = (_components(truth, probs_b) - _components(truth, probs_a)).mean(axis=-1)  # [N]
    groups = np.zeros(len(labels), dtype=int) if kind == "multi-label" else labels
    each = [parts[groups == group] for group in np.unique(groups)]
    if min(map(len, each)) < 2:
        return float("nan")
    return float(sum(len(one) * one.var(ddof=1) for one in each))


def _components(truth: np.ndarray, probs: np.ndarray) -> np.ndarray:
    """What each image contributes to each class's AUC, as mean over seeds: bool [N, K], [S, N, K] -> [N, K].

    A positive's is the share of negatives that it is placed above, a negative's the share of positives that are placed
    above it (ties count half), less the AUC and divided by the number of positives or of negatives."""
    result = np.empty(truth.shape)
    for k in range(truth.shape[1]):
        positive, scores = truth[:, k], probs[..., k]
        places = rankdata(scores, axis=-1)
        above = (places[:, positive] - rankdata(scores[:, positive], axis=-1)).mean(axis=0) / (~positive).sum()
        below = 1 - (places[:, ~positive] - rankdata(scores[:, ~positive], axis=-1)).mean(axis=0) / positive.sum()
        result[positive, k] = (above - above.mean()) / positive.sum()
        result[~positive, k] = (below - below.mean()) / (~positive).sum()
    return result
