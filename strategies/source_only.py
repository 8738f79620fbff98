from __future__ import annotations

from bench.contract import Backbone, Info
from bench.finetune import FineTune


class SourceOnly(FineTune):
    """Fine-tunes the whole network on the source alone: what a shift task's adaptation is compared with.

    Paper: none; the control of every paper on domain adaptation (Ganin et al. 2016). Differs in nothing from
    full_finetune but its name. Cost: as full fine-tuning."""

    name = "source_only"
    family = "domain adaptation"

    def applies(self, info: Info, backbone: Backbone) -> str | None:
        return None if info.target else "test is of the domain that train is of, where full_finetune is the same"
