"""Scores equal medmnist's Evaluator, and are missing where they are undefined."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from medmnist.evaluator import getACC, getAUC
from scipy.special import expit, softmax
from sklearn import metrics as skm

from bench import metrics

TASKS = {
    "binary": "binary-class",
    "multi-class": "multi-class",
    "multi-label": "multi-label, binary-class",
    "ordinal": "ordinal-regression",
}


def problem(kind: str, seed: int, images: int = 60, ties: bool = False) -> tuple[np.ndarray, np.ndarray]:
    """Labels with every class present, and logits that carry some signal."""
    rng = np.random.default_rng(seed)
    outputs = 2 if kind == "binary" else 4
    if kind == "multi-label":
        labels = (rng.random((images, outputs)) < 0.3).astype(np.int64)
        labels[0], labels[1] = 0, 1
        logits = rng.normal(size=labels.shape) + labels
    else:
        labels = rng.permutation(np.arange(images) % outputs)
        logits = rng.normal(size=(images, outputs)) + np.eye(outputs)[labels]
    return labels, np.round(logits) if ties else logits


@pytest.mark.parametrize("ties", [False, True])
@pytest.mark.parametrize("kind", TASKS)
@settings(max_examples=15, deadline=None)
@given(seed=st.integers(0, 10_000))
def test_auc_and_accuracy_equal_the_medmnist_evaluator(kind: str, ties: bool, seed: int) -> None:
    labels, logits = problem(kind, seed, ties=ties)
    probs = metrics.probabilities(logits, kind)
    assert metrics.auc(labels, probs, kind) == pytest.approx(getAUC(labels, probs, TASKS[kind]), abs=1e-12)
    # The Evaluator takes a binary score as one column; two columns mean the last.
    scores = probs[:, -1] if kind == "binary" else probs
    assert metrics.accuracy(labels, probs, kind) == pytest.approx(getACC(labels, scores, TASKS[kind]), abs=1e-12)


def test_probabilities_are_softmax_but_sigmoid_for_multi_label() -> None:
    logits = np.array([[0.0, 2.0, -1.0]])
    np.testing.assert_allclose(metrics.probabilities(logits, "multi-class"), softmax(logits, axis=1))
    np.testing.assert_allclose(metrics.probabilities(logits, "multi-label"), expit(logits))


@pytest.mark.parametrize("kind", TASKS)
def test_auc_is_missing_when_a_class_is_absent(kind: str) -> None:
    labels, logits = problem(kind, 0)
    if kind == "multi-label":
        labels[:, 2] = 0
    else:
        labels[labels == labels.max()] = 0
    probs = metrics.probabilities(logits, kind)
    assert np.isnan(metrics.auc(labels, probs, kind))
    assert np.isnan(metrics.auc_interval(labels, probs, kind)).all()


def test_other_scores_equal_scikit_learn() -> None:
    labels, logits = problem("ordinal", 3)
    probs = metrics.probabilities(logits, "ordinal")
    scores = metrics.all_scores(labels, probs, "ordinal")
    chosen = probs.argmax(1)
    assert scores["kappa"] == pytest.approx(skm.cohen_kappa_score(labels, chosen, weights="quadratic"))
    assert scores["balanced_acc"] == pytest.approx(skm.balanced_accuracy_score(labels, chosen))
    assert scores["macro_f1"] == pytest.approx(skm.f1_score(labels, chosen, average="macro"))
    assert scores["nll"] == pytest.approx(skm.log_loss(labels, probs))
    assert scores["recall"] == pytest.approx(skm.recall_score(labels, chosen, average=None))
    assert np.isnan(scores["ap"])
    labels, logits = problem("multi-label", 3)
    probs = metrics.probabilities(logits, "multi-label")
    scores = metrics.all_scores(labels, probs, "multi-label")
    assert scores["ap"] == pytest.approx(skm.average_precision_score(labels, probs, average="macro"))
    assert np.isnan(scores["kappa"])


def test_calibration_error_by_hand() -> None:
    probs = np.array([[0.1, 0.9], [0.1, 0.9], [0.4, 0.6], [0.4, 0.6]])
    labels = np.array([1, 0, 1, 1])
    assert metrics.all_scores(labels, probs, "binary")["ece"] == pytest.approx((2 * 0.4 + 2 * 0.4) / 4)


@pytest.mark.parametrize("kind", TASKS)
def test_bootstrap_interval_holds_the_auc_and_repeats(kind: str) -> None:
    labels, logits = problem(kind, 5, images=120)
    probs = metrics.probabilities(logits, kind)
    low, high = metrics.auc_interval(labels, probs, kind)
    assert low < metrics.auc(labels, probs, kind) < high
    assert (low, high) == metrics.auc_interval(labels, probs, kind)


def test_the_interval_of_labels_that_err_together_is_as_wide_as_their_mean_varies() -> None:
    """Fourteen labels of an image whose scores share an error: their mean varies more than if each had its own."""
    draw = np.random.default_rng(0)

    def drawn() -> tuple[np.ndarray, np.ndarray]:
        shared, own = draw.normal(size=(400, 1)), draw.normal(size=(400, 14))
        labels = (draw.normal(size=(400, 1)) + own > 1).astype(int)
        noise = 0.8 * shared + 0.6 * draw.normal(size=(400, 14))
        return labels, 1 / (1 + np.exp(-(labels + noise)))

    spread = np.std([metrics.auc(*drawn(), "multi-label") for _ in range(200)])
    low, high = metrics.auc_interval(*drawn(), "multi-label")
    assert (high - low) / (2 * 1.96) == pytest.approx(spread, rel=0.25)


def test_bootstrap_interval_is_as_wide_as_hanley_and_mcneil_say() -> None:
    """Binary AUC of normal scores: standard error by Hanley & McNeil 1982."""
    rng = np.random.default_rng(0)
    labels = np.arange(400) % 2
    scores = rng.normal(size=400) + 1.2 * labels
    probs = np.column_stack([1 - expit(scores), expit(scores)])
    value = metrics.auc(labels, probs, "binary")
    q1, q2 = value / (2 - value), 2 * value**2 / (1 + value)
    error = np.sqrt((value * (1 - value) + 199 * (q1 - value**2 + q2 - value**2)) / 200**2)
    low, high = metrics.auc_interval(labels, probs, "binary")
    assert (high - low) / (2 * 1.96) == pytest.approx(error, rel=0.15)
