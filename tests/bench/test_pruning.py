"""What ending hopeless trials saves, and what it loses: the same search with and without, on tasks of its own."""

from __future__ import annotations

import statistics
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from bench import registry
from bench.best import margin_of
from bench.contract import Dataset, Protocol, Task
from bench.evaluate import test_aucs as scored_on_test
from bench.splits import training_subset
from bench.trial import Trial
from bench.tune import ranked, tune
from tests.bench.files import CPU, SMALL, run_of, task
from tests.bench.measure import OURS, ROUNDS, in_turn, ratios, say

SIZE = 28
PROTOCOL = Protocol(epochs=8, trials=8, batch_size=32)
PER_CLASS = {
    "phantom-radiograph": 80, "phantom-histology": 30, "phantom-fundus": 30, "phantom-chest": 30,
    "phantom-organ-a": 30, "phantom-organ-b": 30, "breastmnist": 80, "pneumoniamnist": 80, "retinamnist": 30,
}  # fmt: skip
"""Training images of each class."""
DRAWN = [(name, count) for name, count in PER_CLASS.items() if name.startswith("phantom")]
DRAWN += [("phantom-histology", 8), ("phantom-organ-a", 8)]
REAL = [(name, count) for name, count in PER_CLASS.items() if not name.startswith("phantom")]


@dataclass(frozen=True)
class Found:
    """What a search came to."""

    images: int
    auc: float
    """Of the chosen trial, on test."""


def test_pruning_on_drawn_tasks(benchmark: Any) -> None:
    compare(benchmark, [opened(name, count, Path()) for name, count in DRAWN], "drawn tasks")


def test_pruning_on_real_sets(shared: Path, benchmark: Any) -> None:
    compare(benchmark, [opened(name, count, shared / "data" / "medmnist") for name, count in REAL], "real sets")


def opened(name: str, per_class: int, root: Path) -> tuple[Dataset, Task]:
    dataset = registry.open_dataset(name, root)
    whole = task(dataset, SIZE)
    labels = whole.train.labels.numpy()
    few = training_subset(labels, 1.0, per_class, 0)
    val = np.arange(min(100, len(whole.val)))  # of a large val nothing but time would be seen
    return dataset, replace(whole, train=whole.train.take(few), val=whole.val.take(val))


def compare(benchmark: Any, tasks: Sequence[tuple[Dataset, Task]], what: str) -> None:
    found: dict[bool, list[Found]] = {True: [], False: []}
    turns: Iterator[tuple[Dataset, Task]] = iter(tasks)
    now: list[tuple[Dataset, Task]] = []

    def next_task() -> None:
        now[:] = [next(turns)]

    rounds = len(tasks) if ROUNDS > 1 else 1
    seconds = in_turn(
        benchmark,
        lambda: found[True].append(search(*now[0], prune=True)),
        {"all": lambda: found[False].append(search(*now[0], prune=False))},
        next_task,
        rounds,
        warm=False,
    )
    pairs = list(zip(found[True], found[False], strict=True))
    regrets = [full.auc - pruned.auc for pruned, full in pairs]
    text = f"pruning on {rounds} {what}, {PROTOCOL.trials} trials x {PROTOCOL.epochs} epochs"
    say(benchmark, f"{text}: images seen", "at most 0.65x", [pruned.images / full.images for pruned, full in pairs])
    say(benchmark, f"{text}: time", "-", ratios(seconds[OURS], seconds["all"]))
    say(benchmark, f"{text}: mean regret in test AUC", "at most 0.002", [statistics.mean(regrets)], "")
    say(benchmark, f"{text}: worst regret in test AUC", "at most 0.01", [max(regrets)], "")


def search(dataset: Dataset, there: Task, prune: bool) -> Found:
    """Full fine-tuning's search. Every complete trial is scored on test, which chooses nothing."""
    strategy = registry.load_strategy("full_finetune")
    protocol = replace(PROTOCOL, prune=prune)
    run = replace(run_of(SMALL, SIZE), protocol=protocol)
    on_test = scored_on_test(dataset, SIZE, dataset.info.name, CPU)

    def judge(predictors: Any, aucs: Any) -> list[dict[str, float]]:
        return [{"target_test_auc": auc} for auc in on_test(predictors)]

    trials: list[Trial] = tune(strategy, {}, there, run, dataset.info.name, (), lambda new: None, judge)
    chosen = ranked(trials, margin_of(there, protocol))[0]
    assert chosen.target_test_auc is not None
    return Found(sum(trial.images_seen for trial in trials), chosen.target_test_auc)
