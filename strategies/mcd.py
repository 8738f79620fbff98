from __future__ import annotations

import torch
from torch import Tensor, nn

from bench.adaptation import Adaptation, both_domains
from bench.adversarial import reverse
from bench.contract import Hparams, Kind, Task
from bench.finetune import task_loss
from bench.label_free import distributions
from bench.network import Network
from bench.run import Run, seeded


class MCD(Adaptation):
    """Two heads that disagree on the second domain as much as they can, and a backbone that brings them to agree.

    Paper: Saito et al. 2018, "Maximum Classifier Discrepancy for Unsupervised Domain Adaptation": both heads learn the
    task; beyond that the heads maximise and the backbone minimises the mean absolute difference of their predictions on
    the second domain. Differs in that this happens in one step, by reversing the gradient between heads and backbone
    (the authors' code has that as `train_onestep`), where the paper takes three steps in turn, the backbone's four
    times over; in that the heads are linear; in that both domains are normalised as one batch; in AdamW for SGD; and in
    a trade-off (theirs: 1), which is tuned. The prediction is the mean of both heads' logits. A multi-label prediction
    is so many distributions over two classes. Cost: twice that of full fine-tuning."""

    name = "mcd"
    paper = "Saito et al. 2018"
    steady = True

    def build(self, task: Task, hparams: Hparams, run: Run) -> Network:
        net = super().build(task, hparams, run)
        # Two equal heads would never disagree, and the next seed's first head would be shared by both seeds.
        with seeded(run.seed + 1_000_003, run.device):
            other = nn.Linear(net.head.in_features, task.outputs).to(run.device)
        net.add_module("head", TwoHeads(net.head, other))
        return net

    def loss(self, net: Network, images: Tensor, labels: Tensor, task: Task, hparams: Hparams, run: Run) -> Tensor:
        first, second = net.head.children()
        ours, theirs = both_domains(net, images, run)
        learned = [task_loss(head(ours), labels, task, run.protocol.label_smoothing) for head in (first, second)]
        with torch.autocast(images.device.type, enabled=False):  # as bench.adaptation has it
            theirs = reverse(theirs.float(), 1.0)
            return sum(learned) - hparams["trade_off"] * discrepancy(first(theirs), second(theirs), task.info.kind)


class TwoHeads(nn.Module):
    """Predicts the mean of two heads' logits."""

    def __init__(self, first: nn.Linear, second: nn.Linear) -> None:
        super().__init__()
        self.first, self.second = first, second

    def forward(self, features: Tensor) -> Tensor:
        return (self.first(features) + self.second(features)) / 2


def discrepancy(first: Tensor, second: Tensor, kind: Kind) -> Tensor:
    """The mean absolute difference of the probabilities that two heads' logits [B, K] stand for."""
    return (distributions(first, kind) - distributions(second, kind)).abs().mean()
