from __future__ import annotations

import math

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm

from bench.contract import Hparams, Task
from bench.finetune import Group, ProbedFineTune
from bench.network import Network
from bench.run import Run

BATCHES = 5


class AutoRGN(ProbedFineTune):
    """Each tensor's learning rate follows its gradient relative to its size, measured anew before every epoch.

    Paper: Lee et al. 2023, "Surgical Fine-Tuning Improves Adaptation to Distribution Shifts" (Auto-RGN): norm of the
    gradient over norm of the weights, the mean of 5 batches, divided by the largest, is a tensor's multiplier. As
    there, BatchNorm is left as it is; other than there it is in eval mode, so that measuring moves no statistics, and
    Adam's moments are kept from epoch to epoch. Their head knows the classes; ours does from a linear probe, which
    takes one of the epochs: a new one has by far the largest relative gradient, and nothing else would move.
    A tensor of zeros, which has no relative norm, gets 1. Cost: as full fine-tuning and, in every epoch, forward and
    backward for 5 more batches; less the epoch that the probe has."""

    name = "auto_rgn"
    paper = "Lee et al. 2023"

    def param_groups(self, net: Network, task: Task, hparams: Hparams, run: Run, epoch: int) -> list[Group]:
        net.eval()  # measuring draws no dropout; `modes` comes after
        tensors = _tunable(net)
        totals = torch.zeros(len(tensors), device=run.device)
        batches = _batches(task, run, epoch)
        for index in batches:
            pixels, labels = task.train.batch(index.to(run.device))
            with run.autocast():
                loss = self.loss(net, run.prepare(pixels), labels, task, hparams, run)
            gradients = torch.autograd.grad(loss, tensors, materialize_grads=True)
            totals += torch.stack([gradient.norm() for gradient in gradients])
        sizes = torch.stack([tensor.detach().norm() for tensor in tensors])
        multipliers = _multipliers(totals / len(batches), sizes)
        return [Group([tensor], scale) for tensor, scale in zip(tensors, multipliers, strict=True)]


def _tunable(net: nn.Module) -> list[nn.Parameter]:
    """All parameters but BatchNorm's."""
    norms = {id(p) for m in net.modules() if isinstance(m, _BatchNorm) for p in m.parameters(recurse=False)}
    return [parameter for parameter in net.parameters() if id(parameter) not in norms]


def _batches(task: Task, run: Run, epoch: int) -> list[Tensor]:
    """Up to 5 batches (int64 indices) of training images, drawn for this epoch alone and not in training's order."""
    wanted = BATCHES * run.protocol.batch_size
    order = torch.from_numpy(np.random.default_rng([run.seed, epoch]).permutation(len(task.train))[:wanted])
    return list(order.tensor_split(math.ceil(len(order) / run.protocol.batch_size)))


def _multipliers(gradients: Tensor, sizes: Tensor) -> list[float]:
    relative = gradients / sizes
    largest = relative[sizes > 0].max().clamp(min=torch.finfo(relative.dtype).tiny)  # a loss of 0 has no gradient
    return torch.where(sizes > 0, relative / largest, 1.0).tolist()
