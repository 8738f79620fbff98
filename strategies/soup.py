"""Both model soups: several fine-tunings from one initialisation, averaged."""

from __future__ import annotations

from bench.averaging import State, mean, reestimate_norms, snapshot
from bench.contract import Hparams, Predictor, Task
from bench.errors import Diverged
from bench.finetune import FineTune
from bench.network import Network
from bench.probe import probed_network
from bench.run import Run, seeded
from bench.train import rank, train, validate

Score = tuple[float, float]


class SoupUniform(FineTune):
    """Fine-tunes once with the hyperparameters of every trial, all from one linear probe, and averages all weights.

    Paper: Wortsman et al. 2022b, "Model soups". Differs in that ingredients differ in the learning rate alone (theirs
    also in weight decay, augmentation, length and more), that the backbone has a tenth of it, as in `full_finetune`,
    that BatchNorm statistics, which most of their networks do not have, are re-estimated on the training images, and
    that a fine-tuning that diverges is left out. A trial of tuning fits one ingredient, its own; the final fit trains
    one anew, with its own seed, for each trial that was complete (neither ended early nor diverged). Untuned (trials =
    1) there are three, at a third, once and three times the default learning rate. Of the epochs one is the
    probe's, which all share, and the rest each fine-tuning's; where there is one only, each takes one. Cost: as many
    fine-tunings as ingredients, all of them in `images_seen`, one pass over the images for the probe's features, and
    one over the training images for the statistics."""

    name = "soup_uniform"
    family = "weight averaging"
    paper = "Wortsman et al. 2022b"

    def fit(self, task: Task, hparams: Hparams, run: Run) -> Predictor:
        net, states = ingredients(self, task, hparams, run)
        blend(net, states, task, run)
        return self.finish(net, task, hparams, run)


class SoupGreedy(FineTune):
    """Fine-tunes once with the hyperparameters of every trial and averages, best first, what does not harm on val.

    Paper: Wortsman et al. 2022b, "Model soups" (their Recipe 1), with val AUC, and the loss among equals, for accuracy.
    Differs as `soup_uniform` does and has the same ingredients; each soup that is tasted gets BatchNorm statistics of
    its own. Cost: as `soup_uniform`, with one pass over the training images and one over val for each ingredient."""

    name = "soup_greedy"
    family = "weight averaging"
    paper = "Wortsman et al. 2022b"

    def fit(self, task: Task, hparams: Hparams, run: Run) -> Predictor:
        net, states = ingredients(self, task, hparams, run)
        kept = states[:1]
        best = blend(net, kept, task, run)
        soup = snapshot(net)
        for state in states[1:]:
            score = blend(net, [*kept, state], task, run)
            if score >= best:
                kept, best, soup = [*kept, state], score, snapshot(net)
        net.load_state_dict(soup)
        return self.finish(net, task, hparams, run)


def recipes(hparams: Hparams, run: Run) -> list[Hparams]:
    """The hyperparameters of each ingredient."""
    if run.trials:
        return list(run.trials)
    if run.protocol.trials > 1:  # this fit is itself a trial
        return [hparams]
    return [hparams | {"lr": hparams["lr"] * factor} for factor in (1 / 3, 1.0, 3.0)]


def ingredients(strategy: FineTune, task: Task, hparams: Hparams, run: Run) -> tuple[Network, list[State]]:
    """A network and its states after each recipe's fine-tuning, best on val first. Raises Diverged where none lives."""
    net, rest = probed_network(task, run)
    start = snapshot(net)
    found: list[tuple[Score, State]] = []
    wanted = recipes(hparams, run)
    for recipe in wanted:
        net.load_state_dict(start)
        try:
            with seeded(run.seed, run.device):  # each as it would be without the others
                train(net, strategy, task, recipe, rest)
            score = rank(*validate(net, task, run, f"an ingredient of the soup at lr {recipe['lr']:.3g}"))
        except Diverged:
            continue
        found.append((score, snapshot(net)))
    if not found:
        raise Diverged(f"all {len(wanted)} ingredients of the soup diverged")
    found.sort(key=lambda ingredient: ingredient[0], reverse=True)
    return net, [state for _, state in found]


def blend(net: Network, states: list[State], task: Task, run: Run) -> Score:
    """Give the network the mean of the states, with BatchNorm statistics of its own (one state alone has them), and
    score it on val."""
    net.load_state_dict(mean(states))
    if len(states) > 1:
        reestimate_norms(net, task, run)
    return rank(*validate(net, task, run, f"a soup of {len(states)}"))
