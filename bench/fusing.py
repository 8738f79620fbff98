"""What fusions are made of: probabilities float64 [M, N, K] of M members -> [N, K]."""

from __future__ import annotations

import numpy as np
from scipy.special import expit

from bench.contract import Kind
from bench.metrics import decide

LEAST = 1e-7
"""Probabilities are kept this far from 0 and 1 before their logarithm is taken: one member that is certain must not
outvote all others."""


def average(values: np.ndarray, weights: np.ndarray) -> np.ndarray:
    """Weighted mean over members: [M, ...] and [M] -> [...]."""
    return np.tensordot(weights, values, 1)


def logs(probs: np.ndarray, kind: Kind) -> np.ndarray:
    """Probabilities as logits of the same shape: their logarithm, for multi-label that of the odds."""
    kept = np.clip(probs, LEAST, 1 - LEAST)
    return np.log(kept) - np.log1p(-kept) if kind == "multi-label" else np.log(kept)


def from_logs(logits: np.ndarray, kind: Kind) -> np.ndarray:
    """Logits [.., K] -> probabilities, float64: softmax over the last axis, for multi-label a sigmoid."""
    if kind == "multi-label":
        return expit(logits)
    raised = np.exp(logits - logits.max(axis=-1, keepdims=True))
    return raised / raised.sum(axis=-1, keepdims=True)


def loss(logits: np.ndarray, labels: np.ndarray, kind: Kind) -> float:
    """Mean cross-entropy in nats of logits [N, K], over images (multi-label: and labels)."""
    if kind == "multi-label":
        return float(np.mean(np.logaddexp(0, np.where(labels > 0, -logits, logits))))
    highest = logits.max(axis=1)
    total = highest + np.log(np.exp(logits - highest[:, None]).sum(axis=1))
    return float(np.mean(total - logits[np.arange(len(labels)), labels]))


def vote(probs: np.ndarray, kind: Kind) -> np.ndarray:
    """1 for the class that a member decides for (multi-label: for each label it affirms), else 0; same shape."""
    if kind == "multi-label":
        return (probs > 0.5).astype(np.float64)
    return np.stack([np.eye(one.shape[1])[decide(one, kind)] for one in probs])
