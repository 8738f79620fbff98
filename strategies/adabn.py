from __future__ import annotations

import copy
from dataclasses import replace

from bench.adaptation import second_of
from bench.averaging import reestimate_norms_on
from bench.contract import Backbone, Hparams, Info, Predictor, Task
from bench.domain_norm import no_batch_norm
from bench.finetune import FineTune
from bench.images import Images
from bench.network import Network
from bench.prediction import Prediction
from bench.run import Run


class AdaBN(FineTune):
    """Fine-tunes on the labelled images; then BatchNorm gets the statistics of the domain that is predicted.

    Paper: Li et al. 2016, "Revisiting Batch Normalization For Practical Domain Adaptation". In a shift task that is the
    target's unlabelled training images; source images keep the statistics of fine-tuning. In an ordinary task it is the
    task's own training images, and natural images, which only the distance between the domains is measured on, have
    theirs. Differs in that one pass serves all layers: a layer's statistics are the mean over batches of each batch's,
    whose earlier layers were normalised by that batch (theirs: by all images, one layer after the other). Cost: as full
    fine-tuning, and one forward pass over the images for each domain's statistics."""

    name = "adabn"
    family = "domain adaptation"
    paper = "Li et al. 2016"
    second_domain = True

    def applies(self, info: Info, backbone: Backbone) -> str | None:
        return no_batch_norm(backbone)

    def finish(self, net: Network, task: Task, hparams: Hparams, run: Run) -> Predictor:
        second = adapted(net, second_of(task), run)
        if task.shift:
            return replace(second, other=self.predictor(net.eval(), task, run))
        return replace(adapted(net, task.train, run), other=second)


def adapted(net: Network, images: Images, run: Run) -> Prediction:
    """A copy of the network with the BatchNorm statistics of the images; scales and shifts stay."""
    own = copy.deepcopy(net)
    reestimate_norms_on(own, images, run)
    return run.predictor(own)
