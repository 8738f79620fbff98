"""Scores of how well frozen features suit labels, without training: LogME and the H-score.

Pure functions on float64. Higher is better; values of one dataset are comparable across backbones, not across datasets.
"""

from __future__ import annotations

import numpy as np

ROUNDS = 500
CLOSE = 1e-7


def logme(features: np.ndarray, labels: np.ndarray) -> float:
    """Log of the maximum evidence, in nats an image, of a Bayesian linear model of each class's 0/1 column on features
    [N, D], mean over the classes (multi-label: labels) that vary (You et al., ICML 2021, with the fixed point of their
    2022 extension). `labels` int [N], or 0/1 [N, K]. NaN where none varies."""
    features = np.asarray(features, dtype=np.float64)
    left, singular, _ = np.linalg.svd(features, full_matrices=False)
    targets = _targets(labels)
    values = [_evidence(left.T @ target, singular**2, float(target @ target), features.shape) for target in targets.T]
    return float(np.mean(values)) if values else float("nan")


def h_score(features: np.ndarray, labels: np.ndarray) -> float:
    """trace(cov(f)^-1 cov(E[f | class])) of features [N, D] (Bao et al., ICIP 2019), at least 0 and, without shrinkage,
    at most the number of classes less one: the share of whitened features' variance that classes explain. `labels` int
    [N]; 0/1 [N, K] is scored label by label, and the mean taken. NaN where no label varies.

    The covariance is Ledoit & Wolf's (2004), as Ibrahim, Ponomareva & Mazumder (2021) found necessary where images are
    few against D; the class means are shrunk by the same factor, so that neither part is inflated alone."""
    labels = np.asarray(labels)
    if labels.ndim == 2:
        varying = [column for column in labels.T if len(np.unique(column)) > 1]
        return float(np.mean([h_score(features, column) for column in varying])) if varying else float("nan")
    if len(np.unique(labels)) < 2:
        return float("nan")
    centred = np.asarray(features, dtype=np.float64)
    centred = centred - centred.mean(axis=0)
    shrinkage = ledoit_wolf(centred)
    groups = [centred[labels == label] for label in np.unique(labels)]
    means = np.stack([group.mean(axis=0) * np.sqrt(len(group) / len(centred)) for group in groups])  # [K, D]
    # Covariance S = a I + B'B with B [N, D]; where D > N the inverse is that of an [N, N] matrix (Woodbury).
    level = shrinkage * (centred**2).sum() / centred.size
    part = centred * np.sqrt((1 - shrinkage) / len(centred))
    if level == 0 or part.shape[1] <= part.shape[0]:
        covariance = level * np.eye(part.shape[1]) + part.T @ part
        explained = float(np.sum(means * (np.linalg.pinv(covariance, hermitian=True) @ means.T).T))
    else:
        inner = np.linalg.solve(level * np.eye(len(part)) + part @ part.T, part @ means.T)
        explained = float(np.sum(means * (means - (part.T @ inner).T)) / level)
    return (1 - shrinkage) * explained


def ledoit_wolf(centred: np.ndarray) -> float:
    """The share, 0 to 1, by which the covariance of centred data [N, D] is best moved towards its mean variance times
    the identity (Ledoit & Wolf, Journal of Multivariate Analysis 2004, equation 13)."""
    count, width = centred.shape
    # Norms of the [D, D] covariance are those of the [N, N] Gram matrix; the smaller of the two is made.
    gram = centred @ centred.T if count < width else centred.T @ centred
    mean = np.trace(gram) / (count * width)
    squared = np.sum(gram**2) / count**2  # |S|²
    distance = squared - width * mean**2
    spread = (np.sum(np.sum(centred**2, axis=1) ** 2) / count - squared) / count
    return float(np.clip(spread / distance, 0, 1)) if distance > 0 else 1.0


def _evidence(projected: np.ndarray, squares: np.ndarray, length: float, shape: tuple[int, ...]) -> float:
    """The largest log evidence an image of one target: its coordinates U'y along the singular directions of the
    features, their singular values squared, and y'y."""
    count, width = shape
    outside = length - float(projected @ projected)  # what no direction explains
    prior = noise = 1.0
    for _ in range(ROUNDS):
        precision = prior + noise * squares
        effective = float(np.sum(noise * squares / precision))
        weights = noise**2 * float(np.sum(squares * projected**2 / precision**2))  # |m|²
        missed = outside + float(np.sum((projected * prior / precision) ** 2))
        before = prior / noise
        prior, noise = effective / max(weights, 1e-12), (count - effective) / max(missed, 1e-12)
        if abs(prior / noise - before) <= CLOSE * before:
            break
    precision = prior + noise * squares
    weights = noise**2 * float(np.sum(squares * projected**2 / precision**2))
    missed = outside + float(np.sum((projected * prior / precision) ** 2))
    determinant = float(np.sum(np.log(precision))) + (width - len(squares)) * np.log(prior)
    fit = width * np.log(prior) + count * np.log(noise / (2 * np.pi)) - determinant
    return float((fit - noise * missed - prior * weights) / (2 * count))


def _targets(labels: np.ndarray) -> np.ndarray:
    """float64 [N, K]: a 0/1 column for every class or label that is neither on all images nor on none."""
    labels = np.asarray(labels)
    columns = labels[:, None] == np.unique(labels) if labels.ndim == 1 else labels > 0
    varying = columns.any(axis=0) & ~columns.all(axis=0)
    return columns[:, varying].astype(np.float64)
