from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import torch
from torch import Tensor
from torch.nn import functional

from bench.contract import Hparams, Predictor, Strategy, Task
from bench.run import Run

if TYPE_CHECKING:
    import optuna


class KnnProbe(Strategy):
    """The k nearest training images vote, by the cosine of their frozen features; nothing is trained.

    Paper: Doerrich et al. 2025 (MedMNIST+), with k = 11. Differs in that k is tuned (at most all training images are
    asked) and in that every class has one vote more (for multi-label, every label one for and one against): Laplace's
    rule keeps logits finite and changes no order of images or classes. There is no learning rate and nothing random,
    so all seeds give the same. Cost: one forward pass over the images; a prediction is compared with every training
    image. `images_seen` counts each training image once, and `params_trained` the features that are kept of them."""

    name = "knn_probe"
    family = "feature extraction"
    paper = "Doerrich et al. 2025"
    frozen = True

    def space(self, trial: optuna.Trial) -> Hparams:
        return {"k": trial.suggest_int("k", 1, 100, log=True)}

    def defaults(self) -> Hparams:
        return {"k": 11}

    def fit(self, task: Task, hparams: Hparams, run: Run) -> Predictor:
        return self.fit_many(task, [hparams], [run.seed], run)[0]

    def fit_many(self, task: Task, hparams: Sequence[Hparams], seeds: Sequence[int], run: Run) -> list[Predictor]:
        known = functional.normalize(run.features(task.train))
        several = task.info.kind == "multi-label"
        votes = task.train.labels if several else functional.one_hot(task.train.labels, task.outputs)
        run.meter.params_trained = known.numel()
        run.meter.params_total = run.meter.params_trained + sum(p.numel() for p in run.frozen().parameters())
        run.meter.images_seen += len(known)

        def predictor(k: int) -> Predictor:
            def predict(images: Tensor) -> Tensor:
                nearest = (functional.normalize(run.embed(images)) @ known.T).topk(k).indices  # [N, k]
                received = votes[nearest].sum(1).float()  # [N, K]
                if several:
                    return torch.log((received + 1) / (k - received + 1))
                return torch.log((received + 1) / (k + task.outputs))

            return predict

        return [predictor(min(chosen["k"], len(known))) for chosen in hparams]
