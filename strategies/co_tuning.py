from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn
from torch.nn import functional

from bench import weights_origin
from bench.contract import Backbone, Hparams, Info, Task
from bench.finetune import FineTune, Group, task_loss
from bench.network import Network
from bench.run import Run

if TYPE_CHECKING:
    import optuna


class CoTuning(FineTune):
    """Keeps the classifier over the pretraining's classes and teaches it what they have to do with the task's.

    Paper: You et al. 2020, "Co-Tuning for Transfer Learning": p(source class | class of the task) is learned from the
    pretrained network's predictions on train; then the cross-entropy of the old head to it, times a trade-off, is added
    to the task's loss, and both heads train. Differs in that the relationship is the paper's direct one (the mean of
    the predicted probabilities over a class's images) and not its reverse one, in that predictions are not calibrated
    first (that needs images of the source), in that val has no part in it, in AdamW for SGD, and in that the trade-off
    is tuned. For multi-label the old head's target is the mean over the labels that an image has; having none counts as
    one more. Needs weights that come with their classifier. Cost: one forward pass over the training images, then as
    full fine-tuning."""

    name = "co_tuning"
    family = "regularised fine-tuning"
    paper = "You et al. 2020"
    steady = True

    def applies(self, info: Info, backbone: Backbone) -> str | None:
        if weights_origin.source_head(backbone) is not None:
            return None
        return f"{backbone.label} has no classifier over its source's classes: bundled weights, not cut, come with one"

    def space(self, trial: optuna.Trial) -> Hparams:
        return super().space(trial) | {"trade_off": trial.suggest_float("trade_off", 0.1, 10.0, log=True)}

    def defaults(self) -> Hparams:
        return super().defaults() | {"trade_off": 2.3}

    def build(self, task: Task, hparams: Hparams, run: Run) -> Network:
        net = super().build(task, hparams, run)
        head = weights_origin.source_head(run.backbone)
        assert head is not None  # or `applies` would have said so
        classes, width = head["weight"].shape
        source = nn.Linear(width, classes, bias="bias" in head).to(run.device)
        source.load_state_dict(head)
        net.add_module("source", source)
        with torch.no_grad():
            probabilities = source(run.features(task.train)).softmax(1)
        net.memo["relationship"] = relationship(probabilities, present(task.train.labels, task))
        return net

    def param_groups(self, net: Network, task: Task, hparams: Hparams, run: Run, epoch: int) -> list[Group]:
        backbone, head = super().param_groups(net, task, hparams, run, epoch)
        return [replace(backbone, params=[*backbone.params, *net.get_submodule("source").parameters()]), head]

    def loss(self, net: Network, images: Tensor, labels: Tensor, task: Task, hparams: Hparams, run: Run) -> Tensor:
        features = net.features(images)
        wanted = source_targets(present(labels, task), net.memo["relationship"])
        old = functional.cross_entropy(net.get_submodule("source")(features).float(), wanted)
        new = task_loss(net.head(features), labels, task, run.protocol.label_smoothing)
        return new + hparams["trade_off"] * old


def present(labels: Tensor, task: Task) -> Tensor:
    """float32 [N, K + 1], 0 or 1: the classes or labels that an image has; the last column says that it has none."""
    held = labels if labels.ndim == 2 else functional.one_hot(labels, task.outputs).float()
    return torch.cat([held, (held.sum(1, keepdim=True) == 0).float()], dim=1)


def relationship(probabilities: Tensor, held: Tensor) -> Tensor:
    """p(source class | column of `held`), [K + 1, C]: the mean of probabilities [N, C] over its images; zeros where it
    has no image."""
    return held.T @ probabilities / held.sum(0).clamp_min(1)[:, None]


def source_targets(held: Tensor, related: Tensor) -> Tensor:
    """p(source class | image) [N, C]: the mean of `related` [K + 1, C] over what the image has."""
    # Not a matrix product: autocast would round it to bf16.
    return (held[:, :, None] * related).sum(1) / held.sum(1, keepdim=True)
