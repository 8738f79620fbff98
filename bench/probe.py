"""Many linear heads on the same frozen features, trained together in batched products."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import cast

import torch
from torch import Tensor, nn

from bench import clock
from bench.best import in_order, margin_of
from bench.contract import Hparams, Protocol, Task
from bench.metrics import aucs, probabilities
from bench.network import Network
from bench.run import Run
from bench.train import lr_factor, steps_of, val_scores

MOMENTUM = 0.9
FLOOR = 0.1
"""The least deviation of a feature that counts, as a share of the root mean square of all features' deviations."""
PENALTIES = (0.001, 0.01, 0.1, 1.0)
"""Of the squared norm of a solved probe's weight."""
ITERATIONS = 200
"""At most, of L-BFGS."""


@dataclass(frozen=True, eq=False)
class Heads:
    """P heads as they ended, on raw (not standardised) features."""

    weight: Tensor
    """float32 [P, D, K]."""
    bias: Tensor
    """float32 [P, K]."""
    curves: list[list[float]]
    """val AUC of each head after each epoch."""

    def __call__(self, which: int, features: Tensor) -> Tensor:
        return features @ self.weight[which] + self.bias[which]


@clock.network()
def fit_heads(
    train: Tensor, val: Tensor, task: Task, hparams: Sequence[Hparams], seeds: Sequence[int], protocol: Protocol
) -> Heads:
    """Train head i with hparams[i] (`lr`, `weight_decay`) and seeds[i] (its initial weights and its order of images).

    `train` [N, D] and `val` [M, D] are float32 features. They are standardised with the training images' mean and
    deviation, without which a probe's conditioning is poor, and SGD with Nesterov momentum follows the softmax's
    (multi-label: sigmoid's) closed-form gradient. The problem is convex and the rate falls to zero, so the last epoch
    is kept: choosing one by val AUC would only add the noise of a small val."""
    count, width, outputs, device = len(seeds), train.shape[1], task.outputs, train.device
    centre, scale = standardisation(train)
    train, val = (train - centre) / scale, (val - centre) / scale
    targets = _targets(task, protocol.label_smoothing)

    weight, bias = _initial(width, outputs, seeds, device)
    speed = [torch.zeros_like(weight), torch.zeros_like(bias)]
    rate = torch.tensor([h["lr"] for h in hparams], device=device)[:, None]
    decay = torch.tensor([h["weight_decay"] for h in hparams], device=device)[:, None, None]
    shuffles = [torch.Generator().manual_seed(seed) for seed in seeds]
    steps = steps_of(len(train), protocol)
    curves: list[list[float]] = [[] for _ in seeds]
    labels = task.val.labels.cpu().numpy()

    for epoch in range(protocol.epochs):
        orders = torch.stack([torch.randperm(len(train), generator=g) for g in shuffles]).to(device)
        for step, index in enumerate(orders.tensor_split(steps, dim=1)):
            shown = index.flatten()
            inputs = train.index_select(0, shown).view(*index.shape, width)  # [P, B, D], in a quarter of the time
            wanted = targets.index_select(0, shown).view(*index.shape, outputs)  # [P, B, K]
            logits = torch.baddbmm(bias[:, None], inputs, weight)
            error = _gradient(logits, wanted, task)
            now = rate * lr_factor((epoch * steps + step) / (protocol.epochs * steps), protocol)
            slopes = [torch.bmm(inputs.transpose(1, 2), error) + decay * weight, error.sum(1)]
            for value, moving, slope, pace in zip((weight, bias), speed, slopes, (now[:, None], now), strict=True):
                moving.mul_(MOMENTUM).add_(slope)
                value.sub_(pace * (slope + MOMENTUM * moving))
        logits = torch.baddbmm(bias[:, None], val.expand(count, -1, -1), weight)
        probs = [probabilities(one, task.info.kind) for one in logits.cpu().numpy()]
        for curve, area in zip(curves, aucs(labels, probs, task.info.kind), strict=True):
            curve.append(area)

    # Fold the standardisation into the heads.
    weight = weight / scale[:, None]
    return Heads(weight, bias - torch.einsum("d,pdk->pk", centre, weight), curves)


def standardisation(train: Tensor) -> tuple[Tensor, Tensor]:
    """Mean and deviation of each feature, [D]. The deviation of one that is silent on train is infinite, and that of
    one that nearly is (a ReLU's, of few images) at least FLOOR: a single flash on val would outweigh all the rest, and
    so would its weight in a head that goes back to raw features."""
    scale = train.std(0, correction=0)
    floor = FLOOR * scale.square().mean().sqrt()
    return train.mean(0), scale.clamp_min(floor).masked_fill(scale < 1e-6, math.inf)


def probe_head(task: Task, run: Run) -> tuple[Tensor, Tensor]:
    """`weight` float32 [K, D] and `bias` [K] of a linear probe, from which two-stage strategies start: a logistic
    regression on standardised features, solved, of several penalties the best on val by bench.best.

    Solved, and not trained for a share of the epochs: with few images these have few steps, and a head that is nearly
    random would distort the features as if there had been no probe. Nothing is drawn: all trials and seeds start from
    the same one, which is solved once."""
    run.meter.images_seen += len(task.train)
    # The stage's own number of epochs has no part in it.
    key = ("probe", run.backbone, run.size, task.train.key, task.val.key, replace(run.protocol, epochs=0))
    if key not in run.memory:
        run.memory[key] = _best_head(task, run)
    weight, bias = cast(tuple[Tensor, Tensor], run.memory[key])
    return weight.clone(), bias.clone()


def _best_head(task: Task, run: Run) -> tuple[Tensor, Tensor]:
    train, val = run.features(task.train), run.features(task.val)
    centre, scale = standardisation(train)
    inputs, targets = (train - centre) / scale, _targets(task, run.protocol.label_smoothing)
    heads = []
    for penalty in PENALTIES:
        weight, bias = _solved(inputs, targets, task, penalty)
        weight = weight / scale[:, None]  # the standardisation is folded into the head
        heads.append((weight, bias - centre @ weight))
    scores = [val_scores(val @ weight + bias, task.val, task) for weight, bias in heads]
    weight, bias = heads[in_order(scores, margin_of(task, run.protocol))[0]]
    return weight.T.contiguous(), bias


def probed_network(task: Task, run: Run) -> tuple[Network, Run]:
    """A network whose head is a linear probe, and the run of the epochs that are left to fine-tune it: the probe has
    one, as it sees each image once. Where there is one only, each takes one."""
    net = run.network(task.outputs)
    net.features.load_state_dict(run.frozen().state_dict())  # the probe's features: random weights differ by seed
    weight, bias = probe_head(task, run)
    net.head.load_state_dict({"weight": weight, "bias": bias})
    return net, run.lasting(max(1, run.protocol.epochs - 1))


@clock.network()
def _solved(inputs: Tensor, targets: Tensor, task: Task, penalty: float) -> tuple[Tensor, Tensor]:
    """Weight [D, K] and bias [K] where the mean loss (multi-label: summed over labels) and `penalty` / 2 times the
    weight's squared norm are smallest."""
    weight = torch.zeros(inputs.shape[1], targets.shape[1], device=inputs.device, requires_grad=True)
    bias = torch.zeros(targets.shape[1], device=inputs.device, requires_grad=True)
    solver = torch.optim.LBFGS([weight, bias], max_iter=ITERATIONS, line_search_fn="strong_wolfe")

    def objective() -> Tensor:
        solver.zero_grad()
        logits = inputs @ weight + bias
        if task.info.kind == "multi-label":
            loss = nn.functional.binary_cross_entropy_with_logits(logits, targets) * targets.shape[1]
        else:
            loss = nn.functional.cross_entropy(logits, targets)
        loss = loss + penalty / 2 * weight.square().sum()
        loss.backward()
        return loss

    solver.step(objective)
    return weight.detach(), bias.detach()


def _initial(width: int, outputs: int, seeds: Sequence[int], device: torch.device) -> tuple[Tensor, Tensor]:
    heads = []
    with torch.random.fork_rng(devices=[]):
        for seed in seeds:
            torch.default_generator.manual_seed(seed)
            heads.append(nn.Linear(width, outputs))
    weight = torch.stack([head.weight.detach().T for head in heads])
    return weight.to(device).contiguous(), torch.stack([head.bias.detach() for head in heads]).to(device)


def _targets(task: Task, label_smoothing: float) -> Tensor:
    """float32 [N, K]: smoothed as torch's losses smooth."""
    if task.info.kind == "multi-label":
        return task.train.labels * (1 - label_smoothing) + 0.5 * label_smoothing
    one_hot = nn.functional.one_hot(task.train.labels, task.outputs).float()
    return one_hot * (1 - label_smoothing) + label_smoothing / task.outputs


def _gradient(logits: Tensor, targets: Tensor, task: Task) -> Tensor:
    """d(mean loss)/d(logits) of each problem, [P, B, K]. The loss of a multi-label image is the sum of its labels', not
    their mean as in bench.finetune.task_loss: SGD would train each label's head at a rate that falls with their number.
    """
    if task.info.kind == "multi-label":
        return (torch.sigmoid(logits) - targets) / logits.shape[1]
    return (torch.softmax(logits, dim=2) - targets) / logits.shape[1]
