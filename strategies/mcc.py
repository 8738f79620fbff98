from __future__ import annotations

import torch
from torch import Tensor

from bench.adaptation import Adaptation
from bench.contract import Task
from bench.label_free import distributions, entropies
from bench.network import Network
from bench.run import Run

TEMPERATURE = 2.5
"""As in the paper."""


class MCC(Adaptation):
    """Teaches predictions on the second domain to decide for one class where they waver between two.

    Paper: Jin et al. 2020, "Minimum Class Confusion for Versatile Domain Adaptation": predictions are softened by a
    temperature of 2.5; how often each pair of classes occurs together in one prediction, over a batch in which sure
    predictions weigh more, is normalised by class, and what lies off the diagonal, times a trade-off, is added to the
    loss. No gradient goes through the weights, as in the authors' code. A multi-label prediction is so many
    distributions over two classes, of which the mean is taken. In an ordinary task the second domain's natural images
    are of none of the classes. Differs in AdamW for SGD, in that both domains are normalised as one batch, and in that
    the trade-off (theirs: 1) is tuned. Cost: twice that of full fine-tuning."""

    name = "mcc"
    paper = "Jin et al. 2020"
    steady = True

    def gap(self, net: Network, ours: Tensor, theirs: Tensor, task: Task, run: Run) -> Tensor:
        return confusion(distributions(net.head(theirs) / TEMPERATURE, task.info.kind))


def confusion(probs: Tensor) -> Tensor:
    """The share of class confusion in predictions [B, L, C], the mean over the L."""
    weights = (1 + torch.exp(-entropies(probs))).detach()
    weights = weights / weights.mean(0)
    together = torch.einsum("bl,bli,blj->lij", weights, probs, probs)
    shares = together / together.sum(2, keepdim=True).clamp_min(torch.finfo(together.dtype).tiny)
    return 1 - shares.diagonal(dim1=1, dim2=2).mean()
