from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from bench.contract import Hparams, Task
from bench.finetune import FineTune
from bench.policies import augmented, policy_of
from bench.rules import checked, is_range, number

if TYPE_CHECKING:
    import optuna


class AugmentDomain(FineTune):
    """Full fine-tuning on images that are changed as their modality allows: no flipped chest, no cropped cell.

    `[settings.augment_domain] policy` may name another modality's policy, or be a table of transforms that replaces it,
    such as { rotate = 10, contrast = 0.2 }; bench/policies.py has the transforms and the policies. `strength` scales a
    policy as a whole and is tuned.

    Paper: Di Salvo et al. 2024, "MedMNIST-C" (corruptions of a modality as augmentation); for histology Tellez et al.
    2018 (stain jitter). Differs in that each image gets all transforms of its policy, each at a strength of its own
    from nothing up, rather than one corruption of five severities, and in the geometric transforms (flips, right angles
    and shifts alone interpolate nothing). Cost: as full fine-tuning; the transforms run on the device."""

    name = "augment_domain"
    family = "augmentation"
    paper = "Di Salvo et al. 2024"
    steady = True

    def space(self, trial: optuna.Trial) -> Hparams:
        return super().space(trial) | {"policy": "auto", "strength": trial.suggest_float("strength", 0.5, 1.5)}

    def defaults(self) -> Hparams:
        return super().defaults() | {"policy": "auto", "strength": 1.0}

    def check_settings(self, settings: Mapping[str, Any]) -> None:
        where = f"[settings.{self.name}]"
        policy_of(settings.get("policy", "auto"), "unknown", f"{where} policy")
        if not is_range(strength := settings.get("strength", 1.0)):
            checked(number(float, 0), strength, f"{where} strength")

    def augment(
        self, images: Tensor, labels: Tensor, task: Task, hparams: Hparams, generator: torch.Generator
    ) -> tuple[Tensor, Tensor]:
        policy = policy_of(hparams["policy"], task.info.modality)
        return augmented(images, policy.scaled(hparams["strength"]), generator), labels
