"""A whole frozen cell, from the file to the row on disk: a linear probe's trials and one seed's fit."""

from __future__ import annotations

from collections.abc import Callable
from itertools import count
from pathlib import Path
from typing import Any

import pytest

from bench.attempt import run_cell
from bench.contract import Protocol
from bench.plan import make_plan
from bench.session import Session
from tests.bench import usual_way
from tests.bench.files import CPU, SMALL, forget_features, run_of
from tests.bench.measure import OURS, in_turn, ratios, say
from tests.small import CHECKOUT, matrix

SIZE = 32
BATCH = 64


@pytest.mark.parametrize(("trials", "epochs", "demanded"), [(8, 10, "150x"), (4, 4, "30x")])
def test_frozen_cell(
    trials: int, epochs: int, demanded: str, radiographs: Path, tmp_path: Path, benchmark: Any
) -> None:
    protocol = Protocol(epochs=epochs, trials=trials, batch_size=BATCH)
    facts = {"backbones": (SMALL,), "strategies": ("linear_probe",), "datasets": (f"npz:{radiographs}",)}
    cell = make_plan(matrix(tmp_path, sizes=(SIZE,), seeds=1, protocol=protocol, **facts), CHECKOUT).cells[0]
    number = count()

    def ours() -> None:
        assert run_cell(cell, [0], Session(CPU, tmp_path / str(next(number)))) == ["ok"]

    say_ours = f"frozen cell, {trials} trials x {epochs} epochs, small ResNet at {SIZE} px"
    seconds = in_turn(benchmark, ours, {"usual": usual(radiographs, trials, epochs)}, forget_features, usual=True)
    say(benchmark, say_ours, demanded, ratios(seconds["usual"], seconds[OURS]))


def usual(file: Path, trials: int, epochs: int) -> Callable[[], list[float]]:
    run = run_of(SMALL, SIZE)
    hparams = [{"lr": 1e-3 * 1.5**number, "weight_decay": 0.1} for number in range(trials)]

    def train_one(chosen: dict[str, float], seed: int) -> dict[str, float]:
        net = run.fresh(seed).network(2)
        data = usual_way.loaders(file, usual_way.transform(SIZE, [0.5] * 3, [0.5] * 3), BATCH)
        return usual_way.fit(net, usual_way.probing(net, **chosen), data, "binary", epochs)

    return lambda: usual_way.cell(train_one, hparams, seeds=1)
