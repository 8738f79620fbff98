from __future__ import annotations

from torch import Tensor

from bench.adaptation import Adaptation
from bench.contract import Task
from bench.network import Network
from bench.run import Run


class CORAL(Adaptation):
    """Brings the covariances of the two domains' features together.

    Paper: Sun & Saenko 2016, "Deep CORAL: Correlation Alignment for Deep Domain Adaptation": the squared Frobenius
    distance of the two covariance matrices over 4 D^2, D being the features' width, times a trade-off, is added to the
    loss. Differs in that the features are the pooled ones (theirs: the classifier's outputs), in AdamW for SGD, in that
    both domains are normalised as one batch, and in that the trade-off is tuned. Theirs is such that both losses are of
    one order in the end, which of pooled features, hundreds wide with little covariance, takes far more than 1. As in
    the paper the means are not aligned. Cost: twice that of full fine-tuning."""

    name = "coral"
    paper = "Sun & Saenko 2016"
    steady = True
    trade_off = (1.0, 100.0, 10_000.0)

    def gap(self, net: Network, ours: Tensor, theirs: Tensor, task: Task, run: Run) -> Tensor:
        return coral(ours, theirs)


def coral(first: Tensor, second: Tensor) -> Tensor:
    """||C1 - C2||^2 / (4 D^2) of the covariances of features [B, D]; one image alone has none and counts as zeros."""
    return (covariance(first) - covariance(second)).square().mean() / 4


def covariance(features: Tensor) -> Tensor:
    centred = features - features.mean(0)
    return centred.T @ centred / max(len(features) - 1, 1)
