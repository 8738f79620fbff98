"""LogME and the H-score are what their papers define."""

from __future__ import annotations

import numpy as np
import pytest
from scipy.optimize import minimize
from scipy.stats import multivariate_normal
from sklearn import covariance

from bench.advice.transferability import h_score, ledoit_wolf, logme

SHAPES = [(60, 10), (25, 40)]  # more images than features, and fewer


def made(shape: tuple[int, int], classes: int = 2) -> tuple[np.ndarray, np.ndarray]:
    draw = np.random.default_rng(0)
    labels = np.arange(shape[0]) % classes
    return draw.normal(size=shape) + labels[:, None] * np.linspace(0, 1, shape[1]), labels


@pytest.mark.parametrize("shape", SHAPES)
def test_logme_is_the_maximum_of_the_marginal_likelihood(shape: tuple[int, int]) -> None:
    features, labels = made(shape)

    def negative(logs: np.ndarray, target: np.ndarray) -> float:
        prior, noise = np.exp(logs)
        spread = np.eye(len(target)) / noise + features @ features.T / prior
        return -float(multivariate_normal(np.zeros(len(target)), spread).logpdf(target)) / len(target)

    each = []
    for label in (0, 1):
        target = (labels == label).astype(float)
        found = minimize(negative, [2.0, 2.0], args=(target,), method="Nelder-Mead", options={"fatol": 1e-9})
        each.append(-found.fun)
    assert logme(features, labels) == pytest.approx(np.mean(each), abs=1e-5)


@pytest.mark.parametrize("shape", SHAPES)
def test_h_score_is_the_trace_with_ledoit_and_wolfs_covariance(shape: tuple[int, int]) -> None:
    features, labels = made(shape, classes=3)
    centred = features - features.mean(0)
    spread, shrinkage = covariance.ledoit_wolf(centred, assume_centered=True)
    assert ledoit_wolf(centred) == pytest.approx(shrinkage)
    means = np.stack([centred[labels == label].mean(0) for label in labels])
    wanted = (1 - shrinkage) * np.trace(np.linalg.inv(spread) @ means.T @ means) / len(means)
    assert h_score(features, labels) == pytest.approx(wanted)


def test_turning_the_features_changes_neither_and_scaling_them_not_the_h_score() -> None:
    features, labels = made((60, 10))
    turn = np.linalg.qr(np.random.default_rng(1).normal(size=(10, 10)))[0]
    assert logme(features @ turn, labels) == pytest.approx(logme(features, labels))
    assert h_score(7 * features @ turn, labels) == pytest.approx(h_score(features, labels))


@pytest.mark.parametrize("score", [logme, h_score])
def test_features_that_tell_the_classes_score_higher(score) -> None:  # type: ignore[no-untyped-def]
    features, labels = made((60, 10))
    shuffled = np.random.default_rng(2).permutation(labels)
    assert score(features, labels) > score(features, shuffled)
    assert score(features.astype(np.float32), labels) == pytest.approx(score(features, labels), rel=1e-4)


@pytest.mark.parametrize("score", [logme, h_score])
def test_labels_count_alike_and_one_that_never_varies_not_at_all(score) -> None:  # type: ignore[no-untyped-def]
    features, labels = made((60, 10))
    columns = np.column_stack([labels, 1 - labels, np.ones_like(labels)])
    assert np.isfinite(score(features, columns))
    assert score(features, columns) == pytest.approx(score(features, columns[:, :2]))
    assert np.isnan(score(features, np.zeros(60, dtype=int)))


def test_features_that_never_vary_explain_nothing() -> None:
    assert h_score(np.ones((20, 3)), np.arange(20) % 2) == 0
