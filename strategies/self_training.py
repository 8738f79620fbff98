from __future__ import annotations

from typing import TYPE_CHECKING

import torch
from torch import Tensor
from torch.nn import functional

from bench.adaptation import both_domains, second_images
from bench.contract import Hparams, Predictor, Task
from bench.finetune import FineTune, task_loss
from bench.network import Network
from bench.run import Run
from bench.train import train

if TYPE_CHECKING:
    import optuna


class SelfTraining(FineTune):
    """Fine-tunes on the labelled images, then also on those of the second domain on whose label it is sure itself.

    Paper: Lee 2013, "Pseudo-Label: The Simple and Efficient Semi-Supervised Learning Method for Deep Neural Networks".
    After half of the epochs a step sees as many images of the second domain as labelled ones, in one batch; of those
    whose likeliest label (multi-label: each label, present or absent) is given more than `confidence`, which is tuned,
    the loss is added, and the others count as 0. Either half has the protocol's schedule to itself. Labels are those of
    the step's own forward pass, as in the paper. Differs in that the second domain is not the labelled one's, in the
    confidence (Sohn et al. 2020, "FixMatch"), which takes the place of a weight that grows, and in that only one view
    of an image is drawn. In an ordinary task the second domain is natural images, of which few should pass. Cost: in
    the second half twice that of full fine-tuning."""

    name = "self_training"
    family = "domain adaptation"
    paper = "Lee 2013"
    second_domain = True

    def space(self, trial: optuna.Trial) -> Hparams:
        return super().space(trial) | {"confidence": trial.suggest_float("confidence", 0.5, 0.99)}

    def defaults(self) -> Hparams:
        return super().defaults() | {"confidence": 0.9}

    def build(self, task: Task, hparams: Hparams, run: Run) -> Network:
        net = super().build(task, hparams, run)
        net.memo |= {"second": second_images(task, run), "labelling": False}
        return net

    def loss(self, net: Network, images: Tensor, labels: Tensor, task: Task, hparams: Hparams, run: Run) -> Tensor:
        if not net.memo["labelling"]:
            return super().loss(net, images, labels, task, hparams, run)
        ours, theirs = (net.head(features) for features in both_domains(net, images, run))
        learned = task_loss(ours, labels, task, run.protocol.label_smoothing)
        return learned + confident_loss(theirs, hparams["confidence"], task)

    def fit(self, task: Task, hparams: Hparams, run: Run) -> Predictor:
        net, epochs = self.build(task, hparams, run), run.protocol.epochs
        first = max(1, epochs // 2)  # one epoch cannot be divided: each stage then takes one
        train(net, self, task, hparams, run.child().lasting(first))
        net.memo["labelling"] = True
        train(net, self, task, hparams, run.lasting(max(1, epochs - first)))
        return self.finish(net, task, hparams, run)


def confident_loss(logits: Tensor, confidence: float, task: Task) -> Tensor:
    """The task's loss of logits [N, K] by their own likeliest labels, those given `confidence` or less counting as
    0."""
    logits, given = logits.float(), logits.detach().float()
    if task.info.kind == "multi-label":
        labels, sure = (given > 0).float(), torch.sigmoid(given.abs()) > confidence
        losses = functional.binary_cross_entropy_with_logits(logits, labels, reduction="none")
    else:
        highest, labels = torch.softmax(given, dim=1).max(1)
        losses, sure = functional.cross_entropy(logits, labels, reduction="none"), highest > confidence
    return (losses * sure).mean()
