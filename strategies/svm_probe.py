from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional

from bench.contract import Hparams, Predictor, Strategy, Task
from bench.probe import standardisation
from bench.run import Run

if TYPE_CHECKING:
    import optuna

RBF_IMAGES = 10_000
"""An RBF machine learns from this many training images at most: its cost grows with their square."""


class SvmProbe(Strategy):
    """Support vector machines on frozen, standardised features: linear, or with an RBF kernel.

    Paper: Razavian et al. 2014, "CNN Features off-the-shelf" (linear). One machine a class against the rest, one for a
    binary task, one a label for multi-label: scikit-learn's LinearSVC (squared hinge, primal) or SVC (hinge, its
    gamma = "scale"). Differs in that features are standardised and images not augmented, in that kernel and C are
    tuned, and in that an RBF machine learns from at most 10 000 images, drawn from the seed; nothing else is random. A
    class or label that is constant in train has the logarithm of its odds there, by Laplace's rule, as its logit.

    Logits are the machines' margins, not log-odds: AUC and accuracy mean what they say, but probabilities are not
    calibrated, so read ECE, Brier score and likelihood with that in mind. There is no learning rate. Cost: one forward
    pass over the images, then a solver on the CPU, one machine after the other. `images_seen` counts each training
    image once, and `params_trained` the values that the machines keep (of RBF machines, the support vectors too)."""

    name = "svm_probe"
    family = "feature extraction"
    paper = "Razavian et al. 2014"
    frozen = True

    def space(self, trial: optuna.Trial) -> Hparams:
        return {
            "kernel": trial.suggest_categorical("kernel", ["linear", "rbf"]),
            "c": trial.suggest_float("c", 1e-3, 1e2, log=True),
        }

    def defaults(self) -> Hparams:
        return {"kernel": "linear", "c": 0.01}

    def fit(self, task: Task, hparams: Hparams, run: Run) -> Predictor:
        return self.fit_many(task, [hparams], [run.seed], run)[0]

    def fit_many(self, task: Task, hparams: Sequence[Hparams], seeds: Sequence[int], run: Run) -> list[Predictor]:
        train = run.features(task.train)
        centre, scale = standardisation(train)
        wanted = _binary_problems(task)
        known: dict[tuple[str, float, int], Machines] = {}
        chosen = []
        for hyper, seed in zip(hparams, seeds, strict=True):
            rows, drawn = torch.arange(len(train)), 0
            if hyper["kernel"] == "rbf" and len(train) > RBF_IMAGES:
                rows = torch.randperm(len(train), generator=torch.Generator().manual_seed(seed))[:RBF_IMAGES]
                drawn = seed
            key = (hyper["kernel"], hyper["c"], drawn)
            if key not in known:
                inputs = (train[rows.to(train.device)] - centre) / scale
                known[key] = _solved(inputs, wanted[rows.numpy()], *key[:2])
            chosen.append(known[key])
        run.meter.params_trained = max(machines.size for machines in chosen)
        run.meter.params_total = run.meter.params_trained + sum(p.numel() for p in run.frozen().parameters())
        run.meter.images_seen += len(train)

        def predictor(machines: Machines) -> Predictor:
            def predict(images: Tensor) -> Tensor:
                margins = machines((run.embed(images) - centre) / scale)
                return torch.cat([-margins / 2, margins / 2], dim=1) if task.info.kind == "binary" else margins

            return predict

        return [predictor(machines) for machines in chosen]


@dataclass(frozen=True, eq=False)
class Machines:
    """M binary machines: margins = kernel(x) @ weight + bias."""

    weight: Tensor
    """float32 [D, M], or [V, M] for V support vectors."""
    bias: Tensor
    """float32 [M]."""
    vectors: Tensor | None = None
    """The support vectors of RBF machines, float32 [V, D]."""
    gamma: float = 0.0

    def __call__(self, inputs: Tensor) -> Tensor:
        found = inputs if self.vectors is None else _rbf(inputs, self.vectors, self.gamma)
        return found @ self.weight + self.bias

    @property
    def size(self) -> int:
        return sum(t.numel() for t in (self.weight, self.bias, self.vectors) if t is not None)


def _binary_problems(task: Task) -> np.ndarray:
    """bool [N, M]: the classes against the rest, the second class of two, or the labels."""
    labels = task.train.labels
    if task.info.kind == "multi-label":
        return (labels > 0.5).cpu().numpy()
    classes = functional.one_hot(labels, task.outputs).bool().cpu().numpy()
    return classes[:, 1:] if task.info.kind == "binary" else classes


def _solved(inputs: Tensor, wanted: np.ndarray, kernel: str, c: float) -> Machines:
    from sklearn.svm import SVC, LinearSVC  # here: a second that listing strategies need not wait

    gamma = 1 / (inputs.shape[1] * float(inputs.var(correction=0)) or 1.0)  # scikit-learn's "scale"
    seen = (inputs if kernel == "linear" else _rbf(inputs, inputs, gamma)).double().cpu().numpy()
    weight = np.zeros((seen.shape[1], wanted.shape[1]))
    bias = np.log((wanted.sum(0) + 1) / ((~wanted).sum(0) + 1))
    for m, positive in enumerate(wanted.T):
        if positive.all() or not positive.any():
            continue
        if kernel == "linear":
            machine = LinearSVC(C=c, dual=False).fit(seen, positive)
            weight[:, m] = machine.coef_[0]
        else:
            machine = SVC(C=c, kernel="precomputed").fit(seen, positive)
            weight[machine.support_, m] = machine.dual_coef_[0]
        bias[m] = machine.intercept_[0]
    weights, biases = (torch.from_numpy(values).float().to(inputs.device) for values in (weight, bias))
    if kernel == "linear":
        return Machines(weights, biases)
    support = weights.any(1)
    return Machines(weights[support], biases, inputs[support], gamma)


def _rbf(first: Tensor, second: Tensor, gamma: float) -> Tensor:
    return torch.exp(-gamma * torch.cdist(first, second).square())
