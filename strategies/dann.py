from __future__ import annotations

from torch import Tensor

from bench.adversarial import Adversarial
from bench.contract import Task
from bench.network import Network
from bench.run import Run


class DANN(Adversarial):
    """Domain-adversarial training: features from which a discriminator cannot tell the two domains apart.

    Paper: Ganin et al. 2016, "Domain-Adversarial Training of Neural Networks": a discriminator learns the domain from
    the pooled features, and its gradient is reversed on the way to the backbone, times a strength that rises from 0 to
    1 over the planned steps. As there, the learning rate is annealed by 1 / (1 + 10 p)^0.75; the discriminator has two
    hidden layers of 1024 and learns at the head's rate, of which the backbone's is a tenth. Differs in AdamW for SGD
    with momentum, in that both domains are normalised as one batch, and in the trade-off (theirs: 1), which is tuned.
    Cost: twice that of full fine-tuning, and a discriminator of a million parameters and more while training, of which
    nothing is left in the predictor."""

    name = "dann"
    paper = "Ganin et al. 2016"
    steady = True

    def gap(self, net: Network, ours: Tensor, theirs: Tensor, task: Task, run: Run) -> Tensor:
        return self.fooled(net, ours, theirs)
