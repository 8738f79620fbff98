from __future__ import annotations

import math
from typing import ClassVar

from bench.averaging import interpolate, reestimate_norms, snapshot
from bench.contract import Hparams, Predictor, Task
from bench.finetune import FineTune
from bench.probe import probed_network
from bench.run import Run
from bench.train import rank, train, validate


class WiseFT(FineTune):
    """Fine-tunes from a linear probe, then mixes the weights before and after in the shares that are best on val.

    Paper: Wortsman et al. 2022a, "Robust fine-tuning of zero-shot models", with the linear probe in the place of their
    zero-shot classifier. Differs in that the share is always chosen on val (they propose a half where there is nothing
    to choose on), that BatchNorm statistics, which most of their networks do not have, are re-estimated on the training
    images for every mix (the two ends keep their own), and that the backbone has a tenth of the head's learning rate,
    as in `full_finetune`. Of the epochs one is the probe's and the rest fine-tuning's; where there is one only, each
    takes one. Cost: as full fine-tuning, one pass over the images for the probe's features, one over val for each
    of 11 shares, and with BatchNorm one over the training images for each of the 9 in between."""

    name = "wise_ft"
    family = "weight averaging"
    paper = "Wortsman et al. 2022a"
    shares: ClassVar[tuple[float, ...]] = tuple(i / 10 for i in range(11))
    """Of the fine-tuned weights in the mix."""

    def fit(self, task: Task, hparams: Hparams, run: Run) -> Predictor:
        net, rest = probed_network(task, run)
        probe = snapshot(net)
        train(net, self, task, hparams, rest)
        tuned = snapshot(net)
        best, chosen = (-math.inf, -math.inf), tuned
        for a in self.shares:
            net.load_state_dict(interpolate(probe, tuned, a))
            if 0 < a < 1:
                reestimate_norms(net, task, run)
            score = rank(*validate(net, task, run, f"the mix with a share of {a} at lr {hparams['lr']:.3g}"))
            if score > best:
                best, chosen = score, snapshot(net)
        net.load_state_dict(chosen)
        return self.finish(net, task, hparams, run)
