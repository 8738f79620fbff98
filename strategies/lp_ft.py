from __future__ import annotations

from bench.finetune import ProbedFineTune
from bench.network import Network


class LPFT(ProbedFineTune):
    """A linear probe first, then full fine-tuning from its head, so that a random head does not distort the features.

    Paper: Kumar et al. 2022, "Fine-Tuning can Distort Pretrained Features and Underperform Out-of-Distribution".
    As there, the probe is a logistic regression, solved, whose penalty is chosen on val; fine-tuning has one learning
    rate for backbone and head; and the network stays in eval mode: BatchNorm's statistics are the pretrained ones
    throughout, its affine parameters train. Differs in that the probe counts as one epoch of the budget, and in AdamW
    for SGD. Cost: one pass over the images for the probe's features, then as full fine-tuning for the other epochs."""

    name = "lp_ft"
    paper = "Kumar et al. 2022"
    lr = (1e-5, 1e-4, 1e-3)
    backbone_scale = 1.0

    def modes(self, net: Network) -> None:
        net.eval()
