"""Many MLP heads on the same frozen features, trained together in batched products.

A head is fastai's `create_head`: BatchNorm, dropout, linear, ReLU, BatchNorm, dropout, linear.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional

from bench import clock
from bench.best import Best, margin_of
from bench.contract import Hparams, Protocol, Task
from bench.finetune import task_loss
from bench.probe import standardisation
from bench.train import lr_factor, steps_of, val_scores
from bench.validation import validated

HIDDEN = 512
DROPOUT = (0.25, 0.5)
NORM_EPS = 1e-5
BETAS = (0.9, 0.999)
ADAM_EPS = 1e-8

Generators = Sequence[torch.Generator]


@dataclass(frozen=True, eq=False)
class Head:
    """One head in eval mode, each BatchNorm folded into the linear map after it."""

    first: tuple[Tensor, Tensor]
    """Weight float32 [D, 512] and bias [512]."""
    second: tuple[Tensor, Tensor]
    """Weight float32 [512, K] and bias [K]."""

    def __call__(self, features: Tensor) -> Tensor:
        hidden = torch.relu(torch.addmm(self.first[1], features, self.first[0]))
        return torch.addmm(self.second[1], hidden, self.second[0])

    @property
    def trained(self) -> int:
        """Parameters that were trained: the weights, and gain and shift of every input's BatchNorm."""
        return sum(weight.numel() + 2 * len(weight) for weight, _ in (self.first, self.second))


@dataclass(frozen=True, eq=False)
class Layer:
    """BatchNorm, dropout and a linear map without a bias, whose part the BatchNorm's shift plays, of P problems."""

    gain: Tensor
    """float32 [P, D], like `shift`, `mean` and `variance`."""
    shift: Tensor
    weight: Tensor
    """float32 [P, D, H]."""
    mean: Tensor
    variance: Tensor
    dropout: float

    @property
    def parameters(self) -> list[Tensor]:
        return [self.gain, self.shift, self.weight]

    def __call__(self, inputs: Tensor, draws: Generators) -> Tensor:
        """[B, P, D] -> [B, P, H] in train mode; the dropout of problem i is drawn from draws[i]."""
        statistics = (self.mean.view(-1), self.variance.view(-1))
        affine = (self.gain.view(-1), self.shift.view(-1))
        normed = functional.batch_norm(inputs.flatten(1), *statistics, *affine, training=True, eps=NORM_EPS)
        masks = [torch.empty_like(inputs[:, 0]).bernoulli_(1 - self.dropout, generator=draw) for draw in draws]
        kept = normed.view_as(inputs) * torch.stack(masks, dim=1) / (1 - self.dropout)
        return torch.einsum("bpd,pdh->bph", kept, self.weight)

    def folded(self, which: int) -> tuple[Tensor, Tensor]:
        """Weight [D, H] and bias [H] of a problem in eval mode."""
        scale = self.gain[which] * (self.variance[which] + NORM_EPS).rsqrt()
        weight = self.weight[which]
        return scale[:, None] * weight, (self.shift[which] - self.mean[which] * scale) @ weight


@clock.network()
def fit_mlps(
    train: Tensor, val: Tensor, task: Task, hparams: Sequence[Hparams], seeds: Sequence[int], protocol: Protocol
) -> list[Head]:
    """Train head i with AdamW, hparams[i] (`lr`, `weight_decay`) and seeds[i] (its initial weights, its order of images
    and its dropout), and give each at its best epoch, chosen as `bench.train.train` does.

    `train` [N, D] and `val` [M, D] are float32 features. A head that diverges gives logits that are not finite."""
    count, device = len(seeds), train.device
    shuffles = [torch.Generator().manual_seed(seed) for seed in seeds]
    draws = [torch.Generator(device).manual_seed(seed) for seed in seeds]
    first = _initial(train.shape[1], HIDDEN, DROPOUT[0], draws)
    second = _initial(HIDDEN, task.outputs, DROPOUT[1], draws)
    # A feature that is silent on train has no say on val: infinite is what its running variance stays.
    first.variance[:, standardisation(train)[1].isinf()] = math.inf
    parameters = [*first.parameters, *second.parameters]
    moments = [(torch.zeros_like(p), torch.zeros_like(p)) for p in parameters]
    rate = torch.tensor([h["lr"] for h in hparams], device=device)
    decay = torch.tensor([h["weight_decay"] for h in hparams], device=device)
    decays = [decay if p.dim() == 3 else 0 * decay for p in parameters]  # of weights only, as in fastai
    steps, asked = steps_of(len(train), protocol), validated(protocol.epochs, len(train), len(val))
    margin = margin_of(task, protocol)
    best = [Best(margin) for _ in range(count)]
    heads: list[Head | None] = [None] * count
    diverged = [False] * count

    for epoch in range(protocol.epochs):
        orders = torch.stack([torch.randperm(len(train), generator=g) for g in shuffles], dim=1).to(device)
        for step, index in enumerate(orders.tensor_split(steps), start=epoch * steps):
            logits = second(torch.relu(first(train[index], draws)), draws)  # [B, P, K]
            labels = task.train.labels[index].flatten(0, 1)
            # A mean over all problems, times their number: each has the gradient that it has alone.
            loss = count * task_loss(logits.flatten(0, 1), labels, task, protocol.label_smoothing)
            slopes = _clipped(torch.autograd.grad(loss, parameters), protocol.clip)
            now = rate * lr_factor(step / (protocol.epochs * steps), protocol)
            for parameter, slope, moving, own in zip(parameters, slopes, moments, decays, strict=True):
                _adamw(parameter, slope, moving, now, own, step + 1)
        if epoch not in asked:  # to choose among more epochs than a fine-tuning may would be an advantage
            continue
        for i in range(count):
            with torch.no_grad():
                head = Head(first.folded(i), second.folded(i))
            logits = head(val)
            # A head that diverged has failed, whatever came before: it stays, for the caller to see.
            diverged[i] = diverged[i] or not bool(torch.isfinite(logits).all())
            if diverged[i] or task.shift or best[i].takes(*val_scores(logits, task.val, task)):
                heads[i] = head
    return [head for head in heads if head is not None]


def _initial(inputs: int, outputs: int, dropout: float, draws: Generators) -> Layer:
    """As fastai begins: Kaiming's normal weights, gain 1 and shift 0.001."""
    device = draws[0].device
    drawn = [torch.randn(inputs, outputs, generator=draw, device=device) for draw in draws]
    weight = torch.stack(drawn) * math.sqrt(2 / inputs)
    ones, zeros = (torch.full((len(draws), inputs), value, device=device) for value in (1.0, 0.0))
    layer = Layer(ones, zeros + 1e-3, weight, zeros, ones.clone(), dropout)
    for parameter in layer.parameters:
        parameter.requires_grad_()
    return layer


def _clipped(slopes: Sequence[Tensor], largest: float) -> list[Tensor]:
    """Gradients [P, ...], those of each problem scaled down to the largest norm; 0 leaves them as they are."""
    if not largest:
        return list(slopes)
    norms = torch.stack([slope.flatten(1).square().sum(1) for slope in slopes]).sum(0).sqrt()
    share = (largest / (norms + 1e-6)).clamp(max=1)
    return [slope * _beside(share, slope) for slope in slopes]


@torch.no_grad()
def _adamw(
    parameter: Tensor, slope: Tensor, moments: tuple[Tensor, Tensor], rate: Tensor, decay: Tensor, step: int
) -> None:
    """One step of AdamW on a parameter [P, ...] whose problems have a rate and a decay [P] each."""
    first, second = moments
    first.lerp_(slope, 1 - BETAS[0])
    second.lerp_(slope.square(), 1 - BETAS[1])
    scale = (second / (1 - BETAS[1] ** step)).sqrt() + ADAM_EPS
    parameter.mul_(_beside(1 - rate * decay, parameter))
    parameter.sub_(_beside(rate / (1 - BETAS[0] ** step), parameter) * first / scale)


def _beside(values: Tensor, tensor: Tensor) -> Tensor:
    """[P] -> [P, 1, ...], to be broadcast over a tensor [P, ...]."""
    return values.view(-1, *[1] * (tensor.dim() - 1))
