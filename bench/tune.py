"""One Optuna study a cell, in memory; what lasts is the trials file, from which a killed study is rebuilt."""

from __future__ import annotations

import hashlib
import math
import statistics
import time
import warnings
from collections.abc import Callable, Mapping, Sequence
from copy import deepcopy
from typing import Any

import numpy as np
import optuna
import torch
from torch import Tensor

from bench.best import Margin, in_order, margin_of
from bench.contract import Hparams, Protocol, Strategy, Task
from bench.errors import Diverged, UsageError, brief
from bench.images import predict, predict_all
from bench.label_free import Judge
from bench.prediction import for_labelled
from bench.rules import is_range
from bench.run import Run, seeded
from bench.selection import SELECTIONS
from bench.train import val_scores
from bench.trial import Trial
from bench.validation import quarter

SEED = 10_007
"""Tuning fits use a seed of their own, so that no evaluation seed is selected on."""

Hopeless = Callable[[int, float], bool]
"""Epoch, val AUC -> whether the trial ends there."""

optuna.logging.set_verbosity(optuna.logging.WARNING)


class Bounded:
    """An Optuna trial whose ranges the matrix file overrides: `[settings.NAME] lr = { low = .., high = .. }`."""

    def __init__(self, trial: optuna.Trial, settings: Mapping[str, Any]) -> None:
        self.trial, self.settings = trial, settings

    def suggest_float(self, name: str, low: float, high: float, **options: Any) -> float:
        return self.trial.suggest_float(name, *self._bounds(name, low, high), **options)

    def suggest_int(self, name: str, low: int, high: int, **options: Any) -> int:
        return self.trial.suggest_int(name, *self._bounds(name, low, high), **options)

    def __getattr__(self, name: str) -> Any:
        return getattr(self.trial, name)

    def _bounds(self, name: str, low: Any, high: Any) -> tuple[Any, Any]:
        wanted = self.settings.get(name)
        return (wanted["low"], wanted["high"]) if is_range(wanted) else (low, high)


def tune(
    strategy: Strategy,
    settings: Mapping[str, Any],
    task: Task,
    run: Run,
    cell: str,
    done: Sequence[Trial],
    record: Callable[[Sequence[Trial]], None],
    judge: Judge | None = None,
) -> list[Trial]:
    """All of the cell's trials: those `done` (from an interrupted run) and the rest, each recorded as soon as it ends.

    The first trial is the strategy's default, so tuning can only help on val. The sampler is seeded by the cell and
    the number of trials done, so that a resumed search goes on as an uninterrupted one would. `judge` gives the further
    scores of a trial in a shift task, where none is ended early: each way of choosing sees the same trials."""
    trials = list(done)
    judge = judge or (lambda predictors, aucs: [{}] * len(predictors))
    if strategy.fit_many is not None:
        left = run.protocol.trials - len(trials)
        return _together(strategy, settings, task, run, cell, trials, record, judge) if left > 0 else trials
    study, margin = _study(), margin_of(task, run.protocol)
    for trial in trials:
        _replay(study, strategy, settings, trial)
    while len(trials) < run.protocol.trials:
        asked, hparams = _ask(study, strategy, settings, cell, len(trials))
        hopeless = _hopeless(trials, run.protocol, margin)
        trial = _try(strategy, task, hparams, run, asked, judge, hopeless)
        _tell(study, asked, trial)
        record([trial])
        trials.append(trial)
    return trials


def check_ranges(strategy: Strategy, settings: Mapping[str, Any]) -> None:
    """Raises UsageError for ranges of the matrix file that cannot be drawn from, such as a negative one on a log
    scale."""
    if any(map(is_range, settings.values())):
        try:
            _ask(_study(), strategy, settings, "", 0)
        except Exception as error:  # Optuna's, or the strategy's own
            ranges = ", ".join(name for name, value in settings.items() if is_range(value))
            raise UsageError(
                f"[settings.{strategy.name}] {ranges}: cannot be tuned in this range ({brief(error)}). "
                "Correct low and high."
            ) from error


def ranked(trials: Sequence[Trial], margin: Margin, selection: str = "source_val") -> list[Trial]:
    """The complete trials, best first, by bench.best; or by one of bench.selection's scores before that."""
    complete = [t for t in trials if t.state == "complete"]
    by_val = [complete[i] for i in in_order([(t.val_auc, t.val_loss) for t in complete], margin)]
    return by_val if selection == "source_val" else sorted(by_val, key=SELECTIONS[selection].key)


def defaults(strategy: Strategy, settings: Mapping[str, Any]) -> Hparams:
    """The strategy's default hyperparameters, with what the matrix file fixes; the geometric middle of an overridden
    range."""
    chosen = deepcopy(strategy.defaults())
    for name, value in settings.items():
        if not is_range(value):
            chosen[name] = deepcopy(value)
        elif not value["low"] <= chosen.get(name, math.nan) <= value["high"]:
            middle = math.sqrt(value["low"] * value["high"])
            chosen[name] = round(middle) if isinstance(chosen.get(name), int) else middle
    return chosen


def score(logits: Tensor, task: Task) -> tuple[float, float]:
    """AUC and loss of a predictor's logits on val. Raises Diverged on a non-finite one."""
    if logits.shape != (len(task.val), task.outputs):
        raise ValueError(
            f"the predictor gave logits of shape {tuple(logits.shape)}, not {(len(task.val), task.outputs)}"
        )
    if not torch.isfinite(logits).all():
        raise Diverged("the predictor gave non-finite logits on val")
    return val_scores(logits, task.val, task)


def _score_or_none(logits: Tensor, task: Task) -> tuple[float, float] | None:
    try:
        return score(logits, task)
    except Diverged:
        return None


def _try(
    strategy: Strategy, task: Task, hparams: Hparams, run: Run, asked: optuna.Trial, judge: Judge, hopeless: Hopeless
) -> Trial:
    started, curve, losses = time.perf_counter(), [], []

    def report(epoch: int, auc: float, loss: float) -> None:
        curve.append(_known(auc))
        losses.append(loss)
        run.report(epoch, auc, loss)
        if run.protocol.prune and not task.shift and hopeless(epoch, auc):
            raise optuna.TrialPruned

    own = run.fresh(SEED, report)
    auc: float | None = None
    loss: float | None = None
    judged: dict[str, float | None] = {}
    try:
        with seeded(SEED, run.device):
            predictor = strategy.fit(task, deepcopy(hparams), own)
            auc, loss = score(predict(for_labelled(predictor, task.shift), task.val), task)
        judged = {name: _known(value) for name, value in judge([predictor], [auc])[0].items()}
        state = "complete"
    except optuna.TrialPruned:
        state, auc = "pruned", max((a for a in curve if a is not None), default=None)
    except Diverged:
        state = "diverged"
    seconds = time.perf_counter() - started
    shown = own.meter.images_seen
    return Trial(asked.number, asked.params, hparams, state, _known(auc), loss, curve, losses, seconds, shown, **judged)


def _together(
    strategy: Strategy,
    settings: Mapping[str, Any],
    task: Task,
    run: Run,
    cell: str,
    done: Sequence[Trial],
    record: Callable[[Sequence[Trial]], None],
    judge: Judge,
) -> list[Trial]:
    """All trials of a strategy that can train them as one: drawn without seeing each other's results."""
    assert strategy.fit_many is not None
    started = time.perf_counter()
    study = _study()
    asked = [_ask(study, strategy, settings, cell, number) for number in range(run.protocol.trials)]
    own = run.fresh(SEED)
    with seeded(SEED, run.device):
        predictors = strategy.fit_many(task, [deepcopy(h) for _, h in asked], [SEED] * len(asked), own)
    # Together, so that the frozen features of an image are computed once for all of them.
    logits = predict_all([for_labelled(one, task.shift) for one in predictors], task.val)
    scores = [_score_or_none(one, task) for one in logits]
    complete = [at for at, found in enumerate(scores) if found]
    aucs = [found[0] for found in scores if found]
    judged = dict(zip(complete, judge([predictors[at] for at in complete], aucs) if complete else [], strict=True))
    seconds = (time.perf_counter() - started) / len(asked)
    trials = []
    for at, (trial, hparams) in enumerate(asked):
        auc, loss = scores[at] or (None, None)
        state, shown = "complete" if at in judged else "diverged", own.meter.images_seen
        further = {name: _known(value) for name, value in judged.get(at, {}).items()}
        trials.append(
            Trial(trial.number, trial.params, hparams, state, _known(auc), loss, [], [], seconds, shown, **further)
        )
    record(trials[len(done) :])  # some may be there already, from a write that was torn
    return [*done, *trials[len(done) :]]


def _study() -> optuna.Study:
    return optuna.create_study(direction="maximize", pruner=optuna.pruners.NopPruner())


def _hopeless(trials: Sequence[Trial], protocol: Protocol, margin: Margin) -> Hopeless:
    """Asked once, at a quarter of the epochs: is the AUC below the median of the complete trials' there, by more than
    the noise of val? Earlier or repeated halving, or Optuna's own against the bare median, loses good trials on short
    cosine schedules, where a low learning rate starts late and a high one stumbles first."""
    there_at = quarter(protocol.epochs)
    complete = (t.curve[there_at] for t in trials if t.state == "complete" and len(t.curve) > there_at)
    there = [auc for auc in complete if auc is not None]

    def hopeless(epoch: int, auc: float) -> bool:
        if epoch != there_at or len(there) < 2 or not math.isfinite(auc):
            return False
        median = statistics.median(there)
        return auc < median - margin(median)

    return hopeless


def _ask(
    study: optuna.Study, strategy: Strategy, settings: Mapping[str, Any], cell: str, number: int
) -> tuple[optuna.Trial, Hparams]:
    seed = int(hashlib.sha256(f"{cell}/{number}".encode()).hexdigest()[:8], 16)
    study.sampler = optuna.samplers.TPESampler(seed=seed, n_startup_trials=5)
    if number == 0:
        fixed = {name for name, value in settings.items() if not is_range(value)}
        study.enqueue_trial({k: v for k, v in defaults(strategy, settings).items() if k not in fixed})
    trial = study.ask()
    return trial, _space(strategy, settings, trial)


def _space(strategy: Strategy, settings: Mapping[str, Any], trial: optuna.Trial) -> Hparams:
    hparams = strategy.space(Bounded(trial, settings))  # type: ignore[arg-type]
    return hparams | {name: deepcopy(value) for name, value in settings.items() if not is_range(value)}


def _tell(study: optuna.Study, asked: optuna.Trial, trial: Trial) -> None:
    if trial.state == "complete":
        study.tell(asked, _objective(trial.val_auc, trial.val_loss))
    else:
        if trial.curve:  # the sampler ranks pruned trials by their last epoch; it never looks at the others
            asked.report(_objective(trial.curve[-1], trial.losses[-1]), len(trial.curve) - 1)
        states = {"pruned": optuna.trial.TrialState.PRUNED, "diverged": optuna.trial.TrialState.FAIL}
        study.tell(asked, state=states[trial.state])


def _replay(study: optuna.Study, strategy: Strategy, settings: Mapping[str, Any], trial: Trial) -> None:
    study.enqueue_trial(trial.params)
    with warnings.catch_warnings():
        # A stored value outside the range would silently be drawn anew.
        warnings.filterwarnings("error", message="Fixed parameter")
        asked = study.ask()
        _space(strategy, settings, asked)
    _tell(study, asked, trial)


def _objective(auc: float | None, loss: float | None) -> float:
    """What is maximised: val AUC, or minus the val loss where val lacks a class and has no AUC."""
    return auc if auc is not None and math.isfinite(auc) else -(loss if loss is not None else math.inf)


def _known(value: float | None) -> float | None:
    return None if value is None or np.isnan(value) else float(value)
