from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from torch import Tensor

from bench.contract import Hparams, Predictor, Strategy, Task
from bench.probe import fit_heads
from bench.run import Run

if TYPE_CHECKING:
    import optuna


class LinearProbe(Strategy):
    """A linear head on frozen features: the backbone stays as it was pretrained, in eval mode.

    Paper: Kornblith et al. 2019; Kumar et al. 2022. Differs in that features are standardised, so that learning rates
    are a tenth of theirs, that weight decay is tuned too (its default is strong: a few hundred images against as many
    features), that the last epoch is kept, and that all trials and seeds train together. Cost: one forward pass over
    the images; every epoch after that is a small matrix product."""

    name = "linear_probe"
    family = "feature extraction"
    paper = "Kornblith et al. 2019"
    frozen = True

    def space(self, trial: optuna.Trial) -> Hparams:
        return {
            "lr": trial.suggest_float("lr", 1e-3, 1e-1, log=True),
            "weight_decay": trial.suggest_float("weight_decay", 1e-2, 1.0, log=True),
        }

    def defaults(self) -> Hparams:
        return {"lr": 0.01, "weight_decay": 1.0}

    def fit(self, task: Task, hparams: Hparams, run: Run) -> Predictor:
        return self.fit_many(task, [hparams], [run.seed], run)[0]

    def fit_many(self, task: Task, hparams: Sequence[Hparams], seeds: Sequence[int], run: Run) -> list[Predictor]:
        train, val = run.features(task.train), run.features(task.val)
        heads = fit_heads(train, val, task, hparams, seeds, run.protocol)
        run.meter.params_trained = heads.weight[0].numel() + heads.bias[0].numel()
        run.meter.params_total = run.meter.params_trained + sum(p.numel() for p in run.frozen().parameters())
        run.meter.images_seen += len(task.train) * run.protocol.epochs

        def predictor(i: int) -> Predictor:
            def predict(images: Tensor) -> Tensor:
                return heads(i, run.embed(images))

            return predict

        return [predictor(i) for i in range(len(seeds))]
