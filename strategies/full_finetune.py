from __future__ import annotations

from bench.finetune import FineTune


class FullFinetune(FineTune):
    """All pretrained weights train, the backbone at a tenth of the head's learning rate.

    Paper: Kornblith et al. 2019, "Do Better ImageNet Models Transfer Better?". Differs in AdamW for SGD, in a range of
    learning rates for it, and in the tenth for the backbone, which is the Transfer Learning Library's. Cost: forward
    and backward through the whole network for every image seen."""

    name = "full_finetune"
    paper = "Kornblith et al. 2019"
