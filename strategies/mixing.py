from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional

from bench.contract import Hparams, Task
from bench.finetune import FineTune


class Mixup(FineTune):
    """Full fine-tuning on weighted means of two images and of their labels: a control that knows no modality.

    Paper: Zhang et al. 2018, "mixup: Beyond Empirical Risk Minimization", alpha 0.2. Differs in that every image draws
    its own weight, where the paper's code draws one a batch. Grades of ordinal tasks are mixed as classes: half of 0
    and half of 2 is not 1. Cost: as full fine-tuning."""

    name = "mixup"
    family = "augmentation"
    paper = "Zhang et al. 2018"
    steady = True

    def augment(
        self, images: Tensor, labels: Tensor, task: Task, hparams: Hparams, generator: torch.Generator
    ) -> tuple[Tensor, Tensor]:
        partner = torch.randperm(len(images), generator=generator, device=images.device)
        share = beta(len(images), 0.2, generator)
        weight = share.view(-1, 1, 1, 1)
        return images * weight + images[partner] * (1 - weight), mixed(labels, partner, share, task)


class CutMix(FineTune):
    """Full fine-tuning on images with a rectangle of another, labels mixed by area: a control that knows no modality.

    Paper: Yun et al. 2019, "CutMix", alpha 1, on every batch. Differs in that every image draws its own rectangle,
    where the paper's code draws one a batch. Labels are weighted by the area that is left after the rectangle is
    clipped at the border. Grades of ordinal tasks are mixed as classes. Cost: as full fine-tuning."""

    name = "cutmix"
    family = "augmentation"
    paper = "Yun et al. 2019"
    steady = True

    def augment(
        self, images: Tensor, labels: Tensor, task: Task, hparams: Hparams, generator: torch.Generator
    ) -> tuple[Tensor, Tensor]:
        count, size, device = len(images), images.shape[-1], images.device
        partner = torch.randperm(count, generator=generator, device=device)
        cut = torch.rand(count, 1, generator=generator, device=device)  # Beta(1, 1) is uniform
        half = (size * cut.sqrt()).floor() // 2
        down, across = torch.randint(size, (2, count, 1), generator=generator, device=device)
        pixel = torch.arange(size, device=device)
        rows, columns = ((pixel >= centre - half) & (pixel < centre + half) for centre in (down, across))
        inside = rows[:, None, :, None] & columns[:, None, None, :]
        share = 1 - inside.float().mean((1, 2, 3))
        return torch.where(inside, images[partner], images), mixed(labels, partner, share, task)


def beta(count: int, alpha: float, generator: torch.Generator) -> Tensor:
    """Draws [count] of Beta(alpha, alpha), by Jöhnk's method (torch's own takes no generator): of pairs of powers of
    uniform numbers the first whose sum is at most 1. Eight pairs hold one but for 1 in 10^10 where alpha is 0.2."""
    uniform = 1 - torch.rand(2, 8, count, generator=generator, device=generator.device)  # above 0
    first, second = uniform ** (1 / alpha)
    chosen = (first + second <= 1).int().argmax(0, keepdim=True)
    first, second = first.gather(0, chosen)[0], second.gather(0, chosen)[0]
    return first / (first + second)


def mixed(labels: Tensor, partner: Tensor, share: Tensor, task: Task) -> Tensor:
    """Float [B, K]: of each image's own label its `share` [B], of its partner's the rest."""
    if task.info.kind != "multi-label":
        labels = functional.one_hot(labels, task.outputs).float()
    weight = share[:, None]
    return labels * weight + labels[partner] * (1 - weight)
