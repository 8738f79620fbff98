"""What every fusion must hold to."""

from __future__ import annotations

import inspect
from collections.abc import Iterator

import numpy as np

from bench.contract import Fusion, Kind
from bench.errors import brief, place
from bench.metrics import probabilities

MEMBERS, VAL, TEST, OUTPUTS = 4, 60, 30, 3
RUNS = "it runs"
"""The promise that an exception breaks."""


def drawn(kind: Kind, images: int, seed: int, members: int = MEMBERS) -> tuple[np.ndarray, np.ndarray]:
    """Members' probabilities [M, N, K] of images, each right more often than not, and the labels."""
    rng = np.random.default_rng(seed)
    outputs = 2 if kind == "binary" else OUTPUTS
    labels = rng.permutation(np.arange(images) % outputs)
    truth = np.eye(outputs)[labels]
    if kind == "multi-label":
        labels = truth = (rng.random((images, outputs)) < 0.4).astype(np.int64)
    noise = rng.normal(size=(members, images, outputs)) * np.linspace(0.5, 2, members)[:, None, None]
    return np.stack([probabilities(2 * truth - 1 + one, kind) for one in noise]), labels


def examine_fusion(fusion: Fusion, kind: Kind) -> Iterator[tuple[str, str]]:
    """(promise, what is wrong or "") of each promise of the contract. Stops at the first exception of the fusion."""
    try:
        val, labels = drawn(kind, VAL, seed=0)
        test, _ = drawn(kind, TEST, seed=1)
        given = [array.copy() for array in (val, labels, test)]
        if fusion.uses_val and (reason := fusion.applies(labels, kind)):
            yield "it applies to 60 val images of all classes", reason
            return
        fused = fusion.fit(val, labels, kind)
        probs = fused.combine(test)
        same = all(map(np.array_equal, given, (val, labels, test)))
        yield "what it is given is untouched", "" if same else "probabilities or labels changed"
        yield "it gives finite probabilities [N, K] in 0 to 1", _probabilities(probs, test.shape[1:], kind)
        if fused.val is not None:
            yield "so are those of val", _probabilities(fused.val, val.shape[1:], kind)
        yield "one weight a member, at least 0, sum 1", _weights(fused.weights)
        yield "an image's answer does not depend on the others'", _same(fused.combine(test[:, :5]), probs[:5])
        yield "the same again gives the same", _same(fusion.fit(val, labels, kind).combine(test), probs, 0.0)
        order = np.random.default_rng(2).permutation(MEMBERS)
        swapped = fusion.fit(val[order], labels, kind)
        yield "the order of the members does not matter", _same(swapped.combine(test[order]), probs, 1e-4)
        yield "nor to their weights", _same(swapped.weights, fused.weights[order], 1e-4)
        if not fusion.uses_val:
            none = fusion.fit(val[:, :0], labels[:0], kind)
            yield "without uses_val it does without val", _same(none.combine(test), probs)
    except Exception as error:  # whatever a plug-in raises is a finding
        yield RUNS, f"{brief(error)} ({place(error, inspect.getfile(type(fusion)))})"


def _probabilities(probs: np.ndarray, shape: tuple[int, ...], kind: Kind) -> str:
    if np.shape(probs) != shape:
        return f"shape {np.shape(probs)}, not {shape}"
    if not np.isfinite(probs).all() or probs.min() < 0 or probs.max() > 1 + 1e-9:
        return f"values from {probs.min():.3g} to {probs.max():.3g}"
    off = 0.0 if kind == "multi-label" else float(np.abs(probs.sum(axis=1) - 1).max())
    return f"an image's sum is off 1 by {off:.2g}" if off > 1e-6 else ""


def _weights(weights: np.ndarray) -> str:
    good = np.shape(weights) == (MEMBERS,) and np.min(weights) >= 0 and np.isclose(np.sum(weights), 1)
    return "" if good else f"they are {weights}"


def _same(found: np.ndarray, wanted: np.ndarray, tolerance: float = 1e-9) -> str:
    return "" if np.allclose(found, wanted, rtol=0, atol=tolerance) else f"off by {np.abs(found - wanted).max():.2g}"
