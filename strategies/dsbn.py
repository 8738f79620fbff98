from __future__ import annotations

import torch
from torch import Tensor

from bench.adaptation import Adaptation, next_second
from bench.adversarial import Adversarial, annealed, strength
from bench.contract import Backbone, Hparams, Info, Predictor, Protocol, Task
from bench.domain_norm import LABELLED, SECOND, convert, domain_prediction, in_domain, no_batch_norm
from bench.finetune import task_loss
from bench.network import Network
from bench.prediction import Prediction
from bench.run import Run
from bench.train import train


class DSBN(Adversarial):
    """Every BatchNorm has a branch a domain; trained adversarially, then on its own pseudo-labels of the target.

    Paper: Chang et al. 2019, "Domain-Specific Batch Normalization for Unsupervised Domain Adaptation". Both branches
    start as the pretrained BatchNorm, a batch holds one domain, and an image is predicted through its domain's branch.
    The first half of the epochs is adversarial. The second learns the target's images too, by the likeliest labels of a
    mixture: (1 - lambda) of the logits of the network as it was at half-time and lambda of its own, lambda going from 0
    to 1. Differs in that the first stage is DANN's, without the class centroids of MSTN (their base), in that the
    second goes on from the first instead of from the pretrained weights, which would cost the epochs twice, and in that
    its own logits are those of the training step (theirs: of one more pass in eval mode); its learning rate is annealed
    once more from the top. In an ordinary task, whose natural images show none of its classes, the first stage is all.
    Cost: twice that of full fine-tuning, and in the second stage one more forward pass over the target's images."""

    name = "dsbn"
    paper = "Chang et al. 2019"
    steady = True

    def applies(self, info: Info, backbone: Backbone) -> str | None:
        return no_batch_norm(backbone)

    def build(self, task: Task, hparams: Hparams, run: Run) -> Network:
        net = super().build(task, hparams, run)
        convert(net)
        return net

    def loss(self, net: Network, images: Tensor, labels: Tensor, task: Task, hparams: Hparams, run: Run) -> Tensor:
        ours, theirs = apart(net, images, next_second(net, len(images), run))
        learned = task_loss(net.head(ours), labels, task, run.protocol.label_smoothing)
        with torch.autocast(images.device.type, enabled=False):  # as bench.adaptation has it
            return learned + hparams["trade_off"] * self.fooled(net, ours.float(), theirs.float())

    def predictor(self, net: Network, task: Task, run: Run) -> Prediction:
        return domain_prediction(net, task, run)

    def fit(self, task: Task, hparams: Hparams, run: Run) -> Predictor:
        if not task.shift:
            return super().fit(task, hparams, run)
        net, epochs = self.build(task, hparams, run), run.protocol.epochs
        first = max(1, epochs // 2)  # one epoch cannot be divided: each stage then takes one
        train(net, self, task, hparams, run.child().lasting(first))
        net.memo |= {"teacher": frozen_copy(net, task, run), "progress": 0.0}
        train(net, SelfTaught(), task, hparams, run.lasting(max(1, epochs - first)))
        return self.finish(net, task, hparams, run)


class SelfTaught(Adaptation):
    """The second stage of DSBN; no strategy by itself."""

    def lr_factor(self, progress: float, protocol: Protocol) -> float:
        return annealed(progress)

    def loss(self, net: Network, images: Tensor, labels: Tensor, task: Task, hparams: Hparams, run: Run) -> Tensor:
        second, teacher = next_second(net, len(images), run), net.memo["teacher"]
        logits, theirs = (net.head(features) for features in apart(net, images, second))
        with torch.no_grad(), in_domain(teacher, [SECOND] * len(second)):
            mixed = torch.lerp(teacher(second).float(), theirs.float(), strength(net.memo["progress"]))
        learned = task_loss(logits, labels, task, run.protocol.label_smoothing)
        return learned + task_loss(theirs, likeliest(mixed, task), task)

    def predictor(self, net: Network, task: Task, run: Run) -> Prediction:
        return domain_prediction(net, task, run)


def apart(net: Network, images: Tensor, second: Tensor) -> tuple[Tensor, Tensor]:
    """Pooled features [B, D] of labelled and of second images, each through their own branches."""
    with in_domain(net, [LABELLED] * len(images)):
        ours = net.features(images)
    with in_domain(net, [SECOND] * len(second)):
        return ours, net.features(second)


def likeliest(logits: Tensor, task: Task) -> Tensor:
    """Labels as a task's are: int64 [N], or of a multi-label task float [N, K] of 0 and 1."""
    return (logits > 0).float() if task.info.kind == "multi-label" else logits.argmax(1)


def frozen_copy(net: Network, task: Task, run: Run) -> Network:
    """The network as it is now, in eval mode and without gradients."""
    copy = run.network(task.outputs)
    convert(copy)
    copy.load_state_dict(net.state_dict())
    return copy.eval().requires_grad_(False)
