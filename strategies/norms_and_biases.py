from __future__ import annotations

from functools import lru_cache

from torch import nn
from torch.nn.modules.batchnorm import _BatchNorm

from bench.backbones import build_features
from bench.contract import Backbone, Hparams, Info, Task
from bench.finetune import FineTune, Group
from bench.network import Network
from bench.run import Run


class BNOnly(FineTune):
    """Only the scales and shifts of the normalisation layers train, and the head.

    Paper: Frankle et al. 2021, "Training BatchNorm and Only BatchNorm"; Kumar et al. 2022, who tune them in pretrained
    networks. Differs in that LayerNorm and GroupNorm count as well. BatchNorm's statistics follow the new images.
    Cost: forward and backward through the whole network for every image seen, though few parameters train."""

    name = "bn_only"
    family = "parameter-efficient"
    paper = "Frankle et al. 2021"
    lr = (3e-4, 3e-3, 3e-2)

    def applies(self, info: Info, backbone: Backbone) -> str | None:
        if _has_norms(backbone):
            return None
        return f"{backbone.label} has no BatchNorm, LayerNorm or GroupNorm with scales and shifts to train"

    def param_groups(self, net: Network, task: Task, hparams: Hparams, run: Run, epoch: int) -> list[Group]:
        return [Group([*_norms(net.features), *net.head.parameters()])]


class BitFit(FineTune):
    """Only the biases train, those of normalisation layers included, and the head.

    Paper: Zaken et al. 2022, "BitFit: Simple Parameter-efficient Fine-tuning for Transformer-based Masked
    Language-models". Differs in that the networks are convolutional: most of their biases are BatchNorm's shifts, and
    BatchNorm's statistics follow the new images. Cost: as bn_only."""

    name = "bitfit"
    family = "parameter-efficient"
    paper = "Zaken et al. 2022"
    lr = (3e-4, 3e-3, 3e-2)

    def param_groups(self, net: Network, task: Task, hparams: Hparams, run: Run, epoch: int) -> list[Group]:
        biases = [p for name, p in net.features.named_parameters() if name.endswith("bias")]
        return [Group([*biases, *net.head.parameters()])]


def _norms(features: nn.Module) -> list[nn.Parameter]:
    kinds = (_BatchNorm, nn.LayerNorm, nn.GroupNorm)  # timm's own are subclasses of these
    return [p for m in features.modules() if isinstance(m, kinds) for p in m.parameters(recurse=False)]


@lru_cache(maxsize=256)
def _has_norms(backbone: Backbone) -> bool:
    return bool(_norms(build_features(backbone, seed=0, pretrained=False)))
