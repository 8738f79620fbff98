from __future__ import annotations

import numpy as np
from scipy.optimize import minimize
from sklearn.model_selection import KFold, StratifiedKFold

from bench.contract import Fused, Fusion, Kind
from bench.fusing import from_logs, logs, loss

FOLDS = 5
PENALTIES = (1e-3, 1e-2, 1e-1, 1.0, 10.0)
"""Strengths of the pull towards equal weights that are tried."""
LEVEL = 0.1
"""How much less the intercepts are pulled, to 0."""


class Stacking(Fusion):
    """Logistic regression on the members' logits, fitted on val: how much weight each member gets.

    Stacking (Wolpert 1992) with weights of at least 0 (Breiman 1996). What differs: a member has one weight for all
    classes, beside one intercept a class, so that there are M + K numbers to learn from a val set that may have 80
    images; a penalty pulls the weights to equal ones, and its strength is the one with the lowest cross-fitted loss (5
    folds, stratified for exclusive classes). The val score in its row is cross-fitted, of images that the fit did not
    see; the test images are predicted by a fit on all of val."""

    name = "ensemble_stacking"
    paper = "Wolpert 1992; Breiman 1996"

    def applies(self, labels: np.ndarray, kind: Kind) -> str | None:
        if len(labels) < 2 * FOLDS:
            return f"val has {len(labels)} images, too few to cross-fit on {FOLDS} folds"
        return None

    def fit(self, probs: np.ndarray, labels: np.ndarray, kind: Kind) -> Fused:
        shown = logs(probs, kind)
        folds = _folds(labels, kind)
        crossed = [_cross_fitted(shown, labels, kind, penalty, folds) for penalty in PENALTIES]
        best = int(np.argmin([loss(logits, labels, kind) for logits in crossed]))
        weights, intercepts = _fitted(shown, labels, kind, PENALTIES[best])

        def combine(new: np.ndarray) -> np.ndarray:
            return from_logs(np.tensordot(weights, logs(new, kind), 1) + intercepts, kind)

        shares = weights / weights.sum() if weights.any() else np.full(len(weights), 1 / len(weights))
        return Fused(combine, shares, val=from_logs(crossed[best], kind))


def _folds(labels: np.ndarray, kind: Kind) -> list[tuple[np.ndarray, np.ndarray]]:
    """(fitted on, predicted) image numbers. Stratified where every class has an image for each fold."""
    if kind != "multi-label" and np.unique(labels, return_counts=True)[1].min() >= FOLDS:
        return list(StratifiedKFold(FOLDS, shuffle=True, random_state=0).split(labels, labels))
    return list(KFold(FOLDS, shuffle=True, random_state=0).split(labels))


def _cross_fitted(shown: np.ndarray, labels: np.ndarray, kind: Kind, penalty: float, folds: list) -> np.ndarray:
    """Logits [N, K], each image's from a fit without its fold."""
    logits = np.empty(shown.shape[1:])
    for seen, unseen in folds:
        weights, intercepts = _fitted(shown[:, seen], labels[seen], kind, penalty)
        logits[unseen] = np.tensordot(weights, shown[:, unseen], 1) + intercepts
    return logits


def _fitted(shown: np.ndarray, labels: np.ndarray, kind: Kind, penalty: float) -> tuple[np.ndarray, np.ndarray]:
    """Weights [M] and intercepts [K] of the lowest penalised loss, from logits [M, N, K]."""
    members, count, outputs = shown.shape
    truth = labels if kind == "multi-label" else np.eye(outputs)[labels]
    terms = count * (outputs if kind == "multi-label" else 1)
    equal = 1 / members

    def objective(values: np.ndarray) -> tuple[float, np.ndarray]:
        weights, intercepts = values[:members], values[members:]
        logits = np.tensordot(weights, shown, 1) + intercepts
        pull = weights - equal
        cost = loss(logits, labels, kind) + penalty * (pull @ pull + LEVEL * (intercepts @ intercepts))
        wrong = (from_logs(logits, kind) - truth) / terms
        slope = np.tensordot(shown, wrong, 2) + 2 * penalty * pull
        return cost, np.concatenate([slope, wrong.sum(axis=0) + 2 * LEVEL * penalty * intercepts])

    start = np.concatenate([np.full(members, equal), np.zeros(outputs)])
    bounds = [(0.0, None)] * members + [(None, None)] * outputs
    found = minimize(
        objective, start, jac=True, bounds=bounds, method="L-BFGS-B", options={"ftol": 1e-6, "gtol": 1e-4}
    ).x
    return found[:members], found[members:]
