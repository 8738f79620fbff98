from __future__ import annotations

import torch
from torch import Tensor

from bench.adaptation import Adaptation
from bench.contract import Task
from bench.network import Network
from bench.run import Run

SCALES = (0.125, 0.25, 0.5, 1.0, 2.0)
"""The Gaussians' variances, as shares of the mean squared distance."""


class MMD(Adaptation):
    """Brings the distributions of the two domains' features together, by the kernel distance between them.

    Paper: Long et al. 2015, "Learning Transferable Features with Deep Adaptation Networks" (DAN): the squared maximum
    mean discrepancy, times a trade-off, is added to the loss. The kernel is a sum of Gaussians whose variances are 1/8,
    1/4, 1/2, 1 and 2 times the mean squared distance in the batch (as in TLlib; the paper has more and learns weights).
    Differs in that the features are the pooled ones alone (theirs: several layers), in that the estimate compares all
    pairs and is the one that is never below 0 (theirs: unbiased, linear in the batch), in AdamW for SGD, in that both
    domains are normalised as one batch, and in that the trade-off is tuned. Cost: twice that of full fine-tuning."""

    name = "mmd"
    paper = "Long et al. 2015"
    steady = True

    def gap(self, net: Network, ours: Tensor, theirs: Tensor, task: Task, run: Run) -> Tensor:
        return mmd(ours, theirs)


def mmd(first: Tensor, second: Tensor) -> Tensor:
    """Squared MMD of features [N, D] and [M, D], 0 or more: the mean kernel within the first, plus that within the
    second, less twice that between them."""
    both = torch.cat([first, second])
    both = both - both.mean(0)  # the same distances, less rounding
    squares = both.square().sum(1)
    apart = (squares[:, None] + squares - 2 * both @ both.T).clamp_min(0)
    variance = apart.detach().mean().clamp_min(1e-12)  # all alike: they are 0 apart, however wide the kernel
    kernel = sum(torch.exp(-apart / (2 * scale * variance)) for scale in SCALES)
    signs = torch.cat([torch.full_like(first[:, 0], 1 / len(first)), torch.full_like(second[:, 0], -1 / len(second))])
    return signs @ kernel @ signs
