from __future__ import annotations

from bench.averaging import interpolate, reestimate_norms, snapshot
from bench.contract import Hparams, Predictor, Protocol, Task
from bench.finetune import FineTune, Step
from bench.network import Network
from bench.run import Run
from bench.train import lr_factor

START = 0.75
"""Share of the epochs before averaging, as in the paper."""
RATE = 0.2
"""The learning rate while averaging, as a share of its peak; the authors' own are 0.1 to 0.5."""


class SWA(FineTune):
    """Averages the weights at the end of each epoch of the last quarter, in which the learning rate stays up.

    Paper: Izmailov et al. 2018, "Averaging Weights Leads to Wider Optima and Better Generalization". Differs in AdamW
    for SGD and in that the learning rate falls to its constant value as the protocol's schedule falls (theirs: in a
    line). No epoch is chosen on val: what counts is the average. Fewer than four epochs leave the last one alone to
    average, and a fit that `patience` ends before the last quarter has nothing but its best epoch. Cost: as full
    fine-tuning, and one forward pass over the training images, which re-estimates BatchNorm statistics."""

    name = "swa"
    family = "weight averaging"
    paper = "Izmailov et al. 2018"

    def lr_factor(self, progress: float, protocol: Protocol) -> float:
        share = lr_factor(min(progress / START, 1.0), protocol)
        return share if progress / START < protocol.warmup else RATE + (1 - RATE) * share

    def stepped(self, net: Network, hparams: Hparams, step: Step) -> None:
        if step.ends_epoch and step.progress >= START:
            now, taken = snapshot(net), net.memo.get("taken", 0) + 1
            net.memo |= {"taken": taken, "average": interpolate(net.memo.get("average", now), now, 1 / taken)}

    def finish(self, net: Network, task: Task, hparams: Hparams, run: Run) -> Predictor:
        if "average" in net.memo:
            net.load_state_dict(net.memo["average"])
            reestimate_norms(net, task, run)
        return super().finish(net, task, hparams, run)
