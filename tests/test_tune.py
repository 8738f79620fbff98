"""The search: the default first, resumed as if never stopped, hopeless trials ended, divergence survived."""

from __future__ import annotations

import warnings

import pytest

from bench import tune
from bench.check import new_run, phantom_task
from bench.contract import Protocol, Strategy
from bench.errors import Diverged
from bench.run import Run
from bench.trial import Trial


class Scripted(Strategy):
    """Reports the curve that its learning rate stands for, without any network."""

    name = "scripted"
    family = "fine-tuning"

    def __init__(self, curve=lambda lr: [lr, lr]):
        self.curve = curve

    def space(self, trial):
        return {"lr": trial.suggest_float("lr", 1e-4, 1e-1, log=True)}

    def defaults(self):
        return {"lr": 1e-2}

    def fit(self, task, hparams, run: Run):
        for epoch, auc in enumerate(self.curve(hparams["lr"])):
            run.report(epoch, auc, 1 - auc)
        labels = task.val.labels
        # A predictor whose AUC grows with the learning rate: right on more of the images.
        right = int(min(1.0, hparams["lr"] * 10) * len(labels))

        def predictor(pixels):
            import torch

            logits = torch.zeros(len(pixels), 2)
            for i in range(len(pixels)):
                logits[i, int(labels[i]) if i < right else 1 - int(labels[i])] = 1.0
            return logits

        return predictor


def search(strategy, trials=6, done=(), settings=None, epochs=2, record=lambda new: None):
    run = new_run(protocol=Protocol(epochs=epochs, trials=trials))
    return tune.tune(strategy, settings or {}, phantom_task("binary"), run, "cell", done, record)


def strip(trials):
    return [(t.number, t.hparams, t.state, t.val_auc, t.curve) for t in trials]


def test_the_first_trial_is_the_default_and_the_rest_are_in_range() -> None:
    trials = search(Scripted())
    assert trials[0].hparams == {"lr": 1e-2}
    assert all(1e-4 <= t.hparams["lr"] <= 1e-1 for t in trials)
    assert len({t.hparams["lr"] for t in trials}) == 6


@pytest.mark.parametrize("stopped_after", [1, 3, 5])
def test_a_resumed_search_is_the_uninterrupted_one(stopped_after: int) -> None:
    whole = search(Scripted())
    resumed = search(Scripted(), done=whole[:stopped_after])
    assert strip(resumed) == strip(whole)


def test_each_trial_is_recorded_as_soon_as_it_ends() -> None:
    recorded = []

    def fail_on_third(new):
        recorded.extend(new)
        if len(recorded) == 3:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        search(Scripted(), record=fail_on_third)
    assert [t.number for t in recorded] == [0, 1, 2]


def test_a_hopeless_trial_ends_at_a_quarter_of_its_epochs() -> None:
    epochs = 8
    trials = search(Scripted(lambda lr: [0.9 if lr >= 1e-2 else 0.5] * epochs), trials=12, epochs=epochs)
    pruned = [t for t in trials if t.state == "pruned"]
    assert pruned
    assert all(len(t.curve) == 2 and t.hparams["lr"] < 1e-2 for t in pruned)
    assert all(t.state == "complete" for t in trials[:2])
    kept = search(Scripted(lambda lr: [0.5] * epochs), trials=5, epochs=epochs)
    assert all(t.state == "complete" for t in kept)


def test_complete_trials_are_ranked_by_highest_val_auc_then_lowest_loss() -> None:
    def trial(number, auc, loss, state="complete"):
        return Trial(number, {}, {"lr": 1.0}, state, auc, loss, [], [], 0.0, 0)

    def order(*trials):
        return [t.number for t in tune.ranked(trials, lambda auc: 0.0)]

    assert order(trial(0, 0.8, 0.1), trial(1, 0.9, 0.5), trial(2, 0.9, 0.4), trial(3, 1.0, 0.0, "pruned")) == [2, 1, 0]
    assert order(trial(0, None, 0.7), trial(1, None, 0.3)) == [1, 0]  # val lacks a class: by loss
    assert order(trial(0, 0.9, 0.4), trial(1, 0.9, 0.4)) == [0, 1]
    assert order(trial(0, None, None, "diverged")) == []


def test_a_diverged_trial_does_not_end_the_search() -> None:
    class Fragile(Scripted):
        def fit(self, task, hparams, run):
            if hparams["lr"] > 1e-2:
                raise Diverged("the loss became nan")
            return super().fit(task, hparams, run)

    trials = search(Fragile(), trials=10)
    states = {t.state for t in trials}
    assert "diverged" in states
    assert tune.ranked(trials, lambda auc: 0.0)[0].state == "complete"
    assert strip(search(Fragile(), trials=10, done=trials[:7])) == strip(trials)


def test_settings_fix_a_hyperparameter_or_change_its_range() -> None:
    assert {t.hparams["lr"] for t in search(Scripted(), trials=3, settings={"lr": 0.5})} == {0.5}
    ranged = search(Scripted(), trials=4, settings={"lr": {"low": 0.02, "high": 0.08}})
    assert all(0.02 <= t.hparams["lr"] <= 0.08 for t in ranged)
    assert ranged[0].hparams["lr"] == pytest.approx(0.04)


def test_the_tuning_seed_is_no_evaluation_seed() -> None:
    seeds = []

    class Watching(Scripted):
        def fit(self, task, hparams, run):
            seeds.append(run.seed)
            return super().fit(task, hparams, run)

    search(Watching(), trials=2)
    assert set(seeds) == {tune.SEED}
    assert tune.SEED > 1000


class Together(Scripted):
    """Trains all trials as one."""

    def fit_many(self, task, hparams, seeds, run):
        return [self.fit(task, one, run) for one in hparams]


def test_trials_of_a_write_that_was_torn_are_not_recorded_twice() -> None:
    whole, recorded = search(Together(), trials=4), []
    found = search(Together(), trials=4, done=whole[:3], record=recorded.extend)
    assert [trial.number for trial in recorded] == [3]
    assert strip(found) == strip(whole)


class Talkative(Scripted):
    """Warns whenever it is asked for its space."""

    def space(self, trial):
        warnings.warn("this will go", DeprecationWarning, stacklevel=1)
        return super().space(trial)


@pytest.mark.filterwarnings("ignore:this will go")
def test_a_search_goes_on_whatever_its_strategy_warns_of() -> None:
    whole = search(Talkative())
    assert strip(search(Talkative(), done=whole[:3])) == strip(whole)
