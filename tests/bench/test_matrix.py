"""A small matrix shaped like `standard` against the usual way: the same trials, seeds and epochs, and as good AUCs."""

from __future__ import annotations

import math
import shutil
import statistics
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from rich.console import Console

from bench.contract import Hparams, Protocol
from bench.executors import execute
from bench.plan import Cell, make_plan
from bench.store import read_row, read_trials
from tests.bench import usual_way
from tests.bench.files import SMALL, drawn, forget_features, run_of
from tests.bench.measure import OURS, in_turn, ratios, say
from tests.small import CHECKOUT, matrix

PHANTOMS = ("phantom-radiograph", "phantom-histology", "phantom-fundus")
COUNTS = {"train": 160, "val": 80, "test": 200}
SIZE, SEEDS = 32, 2
PROTOCOL = Protocol(epochs=4, trials=2, batch_size=32)
Key = tuple[str, str]
"""Dataset and strategy."""


def test_matrix(tmp_path: Path, benchmark: Any) -> None:
    files = [drawn(tmp_path, name, COUNTS) for name in PHANTOMS]
    datasets = tuple(f"npz:{file}" for file in files)
    results = tmp_path / "results"
    plan = make_plan(
        matrix(results, backbones=(SMALL,), datasets=datasets, sizes=(SIZE,), seeds=SEEDS, protocol=PROTOCOL), CHECKOUT
    )
    found: dict[str, dict[Key, list[float]]] = {}
    tried: dict[Key, list[Hparams]] = {}

    def ours() -> None:
        shutil.rmtree(results, ignore_errors=True)
        forget_features()
        outcome = execute(plan, Console(quiet=True), "tox -e bench", {})
        assert outcome.ok == len(plan.cells) * SEEDS
        rows = {key_of(cell): [read_row(results, cell.fingerprint, s) for s in range(SEEDS)] for cell in plan.cells}
        found[OURS] = {key: [row["test_auc"] for row in seeds] for key, seeds in rows.items()}

    def usual() -> None:
        found["usual"] = {key_of(cell): usual_cell(cell, tried[key_of(cell)]) for cell in plan.cells}

    ours()  # which also says what hyperparameters it tried
    for cell in plan.cells:
        tried[key_of(cell)] = [trial.hparams for trial in read_trials(results, cell.fingerprint)]
    seconds = in_turn(benchmark, ours, {"usual": usual}, warm=False, usual=True)
    text = f"matrix of {len(plan.cells)} cells x {SEEDS} seeds, {PROTOCOL.trials} trials x {PROTOCOL.epochs} epochs"
    say(benchmark, f"{text}, against the usual way", "5x", ratios(seconds["usual"], seconds[OURS]))
    differences = [a - b for key in found[OURS] for a, b in zip(found[OURS][key], found["usual"][key], strict=True)]
    error = statistics.stdev(differences) / math.sqrt(len(differences))
    means = {way: statistics.mean(auc for aucs in cells.values() for auc in aucs) for way, cells in found.items()}
    text = f"mean test AUC {means[OURS]:.4f} against {means['usual']:.4f}: difference in paired standard errors"
    say(benchmark, text, "within 2", [statistics.mean(differences) / error], "")


def key_of(cell: Cell) -> Key:
    return cell.dataset, cell.strategy


def usual_cell(cell: Cell, tried: list[Hparams]) -> list[float]:
    assert cell.info is not None
    file, kind, outputs = Path(cell.dataset.removeprefix("npz:")), cell.info.kind, len(cell.info.classes)
    change = usual_way.transform(SIZE, (0.485, 0.456, 0.406), (0.229, 0.224, 0.225))
    optimizers: dict[str, Callable[..., Any]] = {
        "scratch": lambda net, lr: usual_way.fine_tuning(net, lr, backbone_scale=1.0),
        "full_finetune": lambda net, lr: usual_way.fine_tuning(net, lr, backbone_scale=0.1),
        "linear_probe": usual_way.probing,
    }

    def train_one(hparams: Hparams, seed: int) -> dict[str, float]:
        net = run_of(SMALL, SIZE).fresh(seed).network(outputs, pretrained=cell.strategy != "scratch")
        net = net.to(memory_format=torch.contiguous_format)
        data = usual_way.loaders(file, change, PROTOCOL.batch_size)
        return usual_way.fit(net, optimizers[cell.strategy](net, **hparams), data, kind, PROTOCOL.epochs)

    return usual_way.cell(train_one, tried, SEEDS)
