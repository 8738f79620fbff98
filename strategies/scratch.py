from __future__ import annotations

from bench.finetune import FineTune


class Scratch(FineTune):
    """The same network from random weights: what transfer has to beat.

    Paper: Yang et al. 2023 (MedMNIST v2), who train with Adam at 1e-3. Differs in that the learning rate is tuned,
    like every strategy's, in a higher range than fine-tuning's and equal for backbone and head. Cost: as full
    fine-tuning; the images seen are equal too, although random weights would profit from more."""

    name = "scratch"
    family = "baseline"
    paper = "Yang et al. 2023"
    pretrained = False
    lr = (3e-4, 1e-3, 1e-2)
    backbone_scale = 1.0
