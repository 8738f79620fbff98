from __future__ import annotations

import copy
import math

import torch
from torch import Tensor

from bench.contract import Backbone, Hparams, Info, Predictor, Task
from bench.domain_norm import moving, no_batch_norm
from bench.finetune import FineTune, task_loss
from bench.network import Network
from bench.prediction import Prediction
from bench.run import Run

RATE = 1e-3
"""Learning rate at test time, the authors' own with Adam. Fixed: source val, which the network is not adapted on, could
not choose one."""


class Tent(FineTune):
    """Fine-tunes; on test images BatchNorm takes each batch's statistics, and its scales and shifts learn to be sure.

    Paper: Wang et al. 2021, "Tent: Fully Test-time Adaptation by Entropy Minimization". Transductive: it sees all of
    the unlabelled test images, in their order, one step of Adam a batch, and answers with what it gave before the step;
    it starts anew from the fine-tuned network for every split. Source images of a shift task are predicted unadapted.
    Differs in that dropout is off, as in a prediction, and that the entropy of a multi-label prediction is its labels'
    mean. Batches of one class, as in sorted files, mislead it. Cost: as full fine-tuning, and a prediction costs what a
    training step does."""

    name = "tent"
    family = "domain adaptation"
    paper = "Wang et al. 2021"
    transductive = True

    def applies(self, info: Info, backbone: Backbone) -> str | None:
        return no_batch_norm(backbone)

    def finish(self, net: Network, task: Task, hparams: Hparams, run: Run) -> Predictor:
        def predict(images: Tensor) -> Tensor:
            return adapt(adaptable(net), images, task, run)

        return Prediction(predict, other=self.predictor(net.eval(), task, run), whole=True)


def adaptable(net: Network) -> Network:
    """A copy of the network in which nothing trains but BatchNorm's scales and shifts, and BatchNorm knows no other
    statistics than the batch's."""
    with torch.inference_mode(False):
        own = copy.deepcopy(net).eval().requires_grad_(False)
    for norm in filter(moving, own.modules()):
        norm.requires_grad_(True)
        norm.track_running_stats = False
        norm.running_mean = norm.running_var = None
    return own


def adapt(net: Network, images: Tensor, task: Task, run: Run) -> Tensor:
    """Logits float32 [N, K] of raw images, batch by batch in their order; the network learns from each batch."""
    optimizer = torch.optim.Adam([p for p in net.parameters() if p.requires_grad], RATE)
    answers = []
    with torch.inference_mode(False), torch.enable_grad():
        # A clone: what was made in inference mode takes no part in a gradient. Equal shares: BatchNorm needs company.
        for pixels in images.tensor_split(math.ceil(len(images) / run.protocol.batch_size)):
            with run.autocast():
                logits = net(run.prepare(pixels.clone())).float()
            optimizer.zero_grad(set_to_none=True)
            entropy(logits, task).backward()
            optimizer.step()
            answers.append(logits.detach())
    return torch.cat(answers)


def entropy(logits: Tensor, task: Task) -> Tensor:
    """Mean entropy of the predictions, in nats: their cross-entropy with themselves, whose gradient is finite for sure
    predictions too."""
    probs = torch.sigmoid(logits) if task.info.kind == "multi-label" else torch.softmax(logits, dim=1)
    return task_loss(logits, probs, task)
