"""Ensembles that average what their members say, each in its own scale."""

from __future__ import annotations

import numpy as np

from bench.contract import Fused, Fusion, Kind
from bench.fusing import average, from_logs, logs, vote
from bench.metrics import auc


class Mean(Fusion):
    """The mean of the members' probabilities.

    As in deep ensembles. Costs what its members cost; nothing is fitted."""

    name = "ensemble_mean"
    paper = "Lakshminarayanan et al. 2017"
    uses_val = False

    def fit(self, probs: np.ndarray, labels: np.ndarray, kind: Kind) -> Fused:
        weights = _equal(len(probs))
        return Fused(lambda shown: average(shown, weights), weights)


class Logits(Fusion):
    """The mean of the members' logits: a member that is sure weighs more.

    For exclusive classes that is the geometric mean of the probabilities, normalised (a product of experts to the power
    1/M), for multi-label the sigmoid of the mean logit. Nothing is fitted."""

    name = "ensemble_logits"
    paper = "Hinton 2002"
    uses_val = False

    def fit(self, probs: np.ndarray, labels: np.ndarray, kind: Kind) -> Fused:
        weights = _equal(len(probs))
        return Fused(lambda shown: from_logs(average(logs(shown, kind), weights), kind), weights)


class Weighted(Fusion):
    """The mean of the members' probabilities, weighted by their val AUC above chance.

    Weight: val AUC - 0.5, or 0 where that is below 0. Where val lacks a class (no AUC), or no member is above chance,
    all count alike. With members of like quality it hardly differs from the plain mean, by intent: a small val set
    says little of which is better."""

    name = "ensemble_weighted"
    paper = "Opitz & Maclin 1999"

    def fit(self, probs: np.ndarray, labels: np.ndarray, kind: Kind) -> Fused:
        above = np.array([max(auc(labels, one, kind) - 0.5, 0.0) for one in probs])
        weights = above / above.sum() if np.isfinite(above).all() and above.any() else _equal(len(probs))
        return Fused(lambda shown: average(shown, weights), weights)


class Ranks(Fusion):
    """The mean of the members' places among their own val scores: how a member is calibrated does not matter.

    Each member's score of a class becomes the share of its val scores of that class below it, linear in between, with 0
    and 1 as the ends of the scale; the members' places are averaged, and divided by their sum over the (exclusive)
    classes. Places among the test images themselves, as is usual, would make an image's score depend on the others."""

    name = "ensemble_ranks"
    paper = "Ho, Hull & Srihari 1994"

    def fit(self, probs: np.ndarray, labels: np.ndarray, kind: Kind) -> Fused:
        weights = _equal(len(probs))
        count = probs.shape[1]
        ends = np.zeros((len(probs), 1, probs.shape[2]))
        scores = np.concatenate([ends, np.sort(probs, axis=1), ends + 1], axis=1)
        places = np.concatenate([[0.0], (np.arange(count) + 0.5) / count, [1.0]])

        def combine(shown: np.ndarray) -> np.ndarray:
            placed = np.empty(shown.shape)
            for member in range(shown.shape[0]):
                for k in range(shown.shape[2]):
                    placed[member, :, k] = np.interp(shown[member, :, k], *_distinct(scores[member, :, k], places))
            mean = average(placed, weights)
            return mean if kind == "multi-label" else (mean + 1e-9) / (mean + 1e-9).sum(axis=1, keepdims=True)

        return Fused(combine, weights)


class Vote(Fusion):
    """The share of the members that decide for each class: majority vote.

    All that a member says beyond its decision is lost, so that many images are level and the AUC suffers: what is
    left when only decisions can be had. Nothing is fitted."""

    name = "ensemble_vote"
    paper = "Lam & Suen 1997"
    uses_val = False

    def fit(self, probs: np.ndarray, labels: np.ndarray, kind: Kind) -> Fused:
        weights = _equal(len(probs))
        return Fused(lambda shown: average(vote(shown, kind), weights), weights)


def _equal(members: int) -> np.ndarray:
    return np.full(members, 1 / members)


def _distinct(scores: np.ndarray, places: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Each score once, with the mean of its places: equal scores are level."""
    found, where = np.unique(scores, return_inverse=True)
    return found, np.bincount(where, places) / np.bincount(where)
