"""What the search itself costs: Optuna, the trials file and the log of a cell whose fits take no time."""

from __future__ import annotations

from itertools import count
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from bench import logs, store
from bench.check import new_run, phantom_task
from bench.contract import Hparams, Predictor, Protocol, Task
from bench.finetune import FineTune
from bench.run import Run
from bench.tune import tune
from tests.bench.measure import OURS, in_turn, say

TRIALS, REPORTS = 16, 50


class Idle(FineTune):
    """Reports epochs that get better, so that no trial is pruned, and predicts nothing."""

    name = "idle"

    def fit(self, task: Task, hparams: Hparams, run: Run) -> Predictor:
        for epoch in range(REPORTS):
            run.report(epoch, 0.5 + epoch / 1000, 1.0)

        def predict(images: Tensor) -> Tensor:
            return torch.zeros(len(images), task.outputs)

        return predict


def test_bookkeeping_of_a_search(tmp_path: Path, benchmark: Any) -> None:
    task, number = phantom_task("binary"), count()
    protocol = Protocol(epochs=REPORTS, trials=TRIALS)

    def search() -> None:
        cell = f"cell{next(number)}"  # a trials file and a log of its own

        def logged(epoch: int, auc: float, loss: float) -> None:
            logs.add(tmp_path, cell, "epoch", trial=0, epoch=epoch, val_auc=auc, val_loss=loss)

        run = new_run(protocol=protocol).fresh(0, logged)
        trials = tune(Idle(), {}, task, run, cell, (), lambda new: store.record_trials(tmp_path, cell, new))
        assert [len(trial.curve) for trial in trials] == [REPORTS] * TRIALS

    search()
    milliseconds = [1000 * taken for taken in in_turn(benchmark, search, {})[OURS]]
    text = f"search bookkeeping of a cell, {TRIALS} trials x {REPORTS} reports, on disk"
    say(benchmark, text, "at most 50 ms", milliseconds, "ms")
