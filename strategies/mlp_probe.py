from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from torch import Tensor

from bench.contract import Hparams, Predictor, Strategy, Task
from bench.mlp import fit_mlps
from bench.run import Run

if TYPE_CHECKING:
    import optuna


class MlpProbe(Strategy):
    """A small MLP on frozen features: the average and the maximum of every channel of the last feature map.

    Paper: Howard & Gugger 2020 (fastai), `create_head`: BatchNorm, dropout 0.25, linear to 512, ReLU, BatchNorm,
    dropout 0.5, linear. Features are those of the map itself, as in fastai: what some networks have behind the pooling
    (a convolution in MobileNetV3, a norm in ConvNeXt) is left out. Differs in that the backbone stays in eval mode and
    is never unfrozen, in torch's AdamW with the protocol's schedule for fastai's one-cycle, in that learning rate and
    weight decay are tuned, that a feature silent on train has no say, and that all trials and seeds train together.
    Neither the protocol's optimizer nor its patience is used: an epoch costs little, and of the epochs after which a
    fine-tuning would be validated the best one on val is kept. As trials train together they are drawn at random, none
    in the knowledge of others, as are those of the other probes.
    Cost: one forward pass over the images; every epoch after that is two matrix products."""

    name = "mlp_probe"
    family = "feature extraction"
    paper = "Howard & Gugger 2020"
    frozen = True

    def space(self, trial: optuna.Trial) -> Hparams:
        return {
            "lr": trial.suggest_float("lr", 1e-4, 1e-2, log=True),
            "weight_decay": trial.suggest_float("weight_decay", 1e-3, 1.0, log=True),
        }

    def defaults(self) -> Hparams:
        return {"lr": 1e-3, "weight_decay": 0.01}

    def fit(self, task: Task, hparams: Hparams, run: Run) -> Predictor:
        return self.fit_many(task, [hparams], [run.seed], run)[0]

    def fit_many(self, task: Task, hparams: Sequence[Hparams], seeds: Sequence[int], run: Run) -> list[Predictor]:
        train, val = run.features(task.train, maxima=True), run.features(task.val, maxima=True)
        heads = fit_mlps(train, val, task, hparams, seeds, run.protocol)
        run.meter.params_trained = heads[0].trained
        run.meter.params_total = run.meter.params_trained + sum(p.numel() for p in run.frozen().parameters())
        run.meter.images_seen += len(task.train) * run.protocol.epochs

        def predictor(i: int) -> Predictor:
            def predict(images: Tensor) -> Tensor:
                return heads[i](run.embed(images, maxima=True))

            return predict

        return [predictor(i) for i in range(len(seeds))]
