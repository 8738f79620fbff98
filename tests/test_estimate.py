"""The estimate of time: from measured rows where there are some, and honest about how long a long run is."""

from __future__ import annotations

import io
import json
import os
from dataclasses import replace
from pathlib import Path

import pandas as pd
import pytest
import torch
from rich.console import Console

from bench import device
from bench.config import Amount, Matrix
from bench.contract import Backbone, Protocol
from bench.describe import describe
from bench.estimate import Pace, estimate, words
from bench.executors import execute
from bench.plan import Plan, make_plan
from bench.report.frames import compact
from bench.validation import validated
from tests.fake_gpu import GPU, Gpu
from tests.small import CHECKOUT, matrix, picture

CPU = torch.device("cpu")


def seconds(plan: Plan) -> dict[str, float]:
    by_print = estimate(plan, CPU)
    return {cell.strategy: by_print[cell.fingerprint] for cell in plan.todo}


def test_durations_in_words() -> None:
    assert [words(s) for s in (0, 40, 150, 7200, 200_000)] == ["0 s", "40 s", "2 min", "2.0 h", "2.3 days"]


def test_a_calibration_tells_a_frozen_cell_from_a_trained_one_and_scales_with_the_work(tmp_path: Path) -> None:
    plan = make_plan(matrix(tmp_path), CHECKOUT)
    first = seconds(plan)
    assert 0 < first["linear_probe"] < first["full_finetune"] / 5
    few = make_plan(matrix(tmp_path, amounts=(Amount(fraction=0.1),), protocol=Protocol(epochs=1, trials=1)), CHECKOUT)
    assert seconds(few)["scratch"] < first["scratch"]


def test_a_calibration_has_the_threads_of_a_worker(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    seen = []
    monkeypatch.setattr("bench.estimate.calibrate", lambda *_: seen.append(torch.get_num_threads()) or Pace(0.1))
    monkeypatch.setattr("os.sched_getaffinity", lambda _: set(range(4)))
    torch.set_num_threads(4)
    try:
        for jobs in (1, 2, 4):
            estimate(make_plan(matrix(tmp_path, jobs=jobs, strategies=("scratch",)), CHECKOUT), CPU)
        assert torch.get_num_threads() == 4
    finally:
        torch.set_num_threads(1)
    assert seen == [4, 2, 1]


def test_a_network_that_does_not_fit_in_memory_when_it_is_measured_has_a_time_that_is_not_known(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    def full(backbone: Backbone, size: int, *_: object) -> Pace:
        if size == 64:
            raise torch.OutOfMemoryError("CUDA out of memory.")
        return Pace(0.1)

    monkeypatch.setattr("bench.estimate.calibrate", full)
    plan, out = make_plan(matrix(tmp_path, sizes=(32, 64)), CHECKOUT), io.StringIO()
    seconds = describe(plan, Console(file=out, width=400))
    assert seconds.keys() == {cell.fingerprint for cell in plan.cells if cell.size == 32}
    assert "and what 3 of them take, which is not known" in out.getvalue()
    assert caplog.text.count("at 64 px: how long it takes is not known (OutOfMemoryError: CUDA out of memory.)") == 1


def test_a_gpu_is_made_deterministic_before_the_calibration_uses_it_and_given_back_after_it(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, gpu: Gpu
) -> None:
    done: list[str] = []
    monkeypatch.setattr(torch, "use_deterministic_algorithms", lambda on: done.append("deterministic"))
    monkeypatch.setattr("bench.estimate.calibrate", lambda *_: done.append("calibrated") or Pace(0.1))
    monkeypatch.setattr(torch.backends.cudnn, "deterministic", False)
    monkeypatch.setenv("CUBLAS_WORKSPACE_CONFIG", "")
    monkeypatch.setattr(torch.cuda, "empty_cache", lambda: done.append("given back"))
    estimate(make_plan(matrix(tmp_path, strategies=("scratch",), deterministic=True), CHECKOUT), GPU)
    assert done == ["deterministic", "calibrated", "given back"]
    assert torch.backends.cudnn.deterministic
    assert os.environ["CUBLAS_WORKSPACE_CONFIG"] == ":4096:8"


def test_where_metal_cannot_be_deterministic_the_plan_says_so(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr("bench.places.here", lambda matrix: torch.device("mps"))
    monkeypatch.setattr("bench.estimate.calibrate", lambda *_: Pace(0.1))
    monkeypatch.setattr(torch.mps, "empty_cache", lambda: None)
    for deterministic in (False, True):
        plan = make_plan(matrix(tmp_path, deterministic=deterministic), CHECKOUT)
        describe(plan, Console(file=(out := io.StringIO()), width=400))
        assert ("Metal has no such mode" in out.getvalue()) is deterministic


@pytest.mark.parametrize(
    ("jobs", "cores", "pace", "hint"), [(1, 2, 9.0, True), (2, 2, 9.0, False), (1, 1, 9.0, False), (1, 2, 1e-6, False)]
)
def test_a_long_run_on_a_cpu_is_told_of_workers(
    jobs: int, cores: int, pace: float, hint: bool, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr("bench.places.threads", lambda jobs: cores)
    monkeypatch.setattr("bench.estimate.calibrate", lambda *_: Pace(pace))
    plan = make_plan(matrix(tmp_path, jobs=jobs), CHECKOUT)
    describe(plan, Console(file=(out := io.StringIO()), width=400))
    assert ("--jobs 2 runs cells side by side" in out.getvalue()) is hint


def test_measured_rows_replace_the_calibration(tmp_path: Path) -> None:
    plan = make_plan(matrix(tmp_path, strategies=("full_finetune",)), CHECKOUT)
    execute(plan, Console(quiet=True), "test", {})
    compact(tmp_path)
    rows = [json.loads(p.read_text()) for p in (tmp_path / "cells").glob("*-s*.json")]
    epochs = plan.matrix.protocol.epochs
    tested = [(len(validated(epochs, r["n_train"], r["n_val"])) * r["n_val"] + r["n_test"]) / 3 for r in rows]
    rate = sum(r["fit_seconds"] for r in rows) / sum(r["images_seen"] + t for r, t in zip(rows, tested, strict=True))
    more = replace(plan.matrix, seeds=4)
    again = make_plan(more, CHECKOUT)
    [estimated] = estimate(again, CPU).values()
    images = rows[0]["n_train"] * epochs + tested[0]
    # Two seeds are left; the cell's trials are on disk already and cost nothing more.
    assert estimated == pytest.approx(rate * images * 2)


def test_the_plan_says_what_is_there_what_is_left_and_why_a_cell_cannot_run(tmp_path: Path) -> None:
    out = io.StringIO()
    (tmp_path / "torn.npz").write_bytes(b"PK")
    torn = f"npz:{tmp_path}/torn.npz"
    plan = make_plan(matrix(tmp_path / "r", datasets=("phantom-radiograph", torn)), CHECKOUT)
    describe(plan, Console(file=out, width=400))
    text = out.getvalue()
    assert "6 cells: 3 strategies x 1 backbone x 2 datasets x 1 size" in text
    assert "RANDOM WEIGHTS" in text
    assert "cannot run: 3 cells" in text
    assert "torn.npz" in text
    assert f"3 of 6 cells can run on {device.describe(CPU)}: about" in text
    assert text.rstrip().endswith("; 3 cannot")


def test_what_cannot_run_at_all_is_given_no_time(tmp_path: Path) -> None:
    (tmp_path / "torn.npz").write_bytes(b"PK")
    text = described(matrix(tmp_path / "r", datasets=(f"npz:{tmp_path}/torn.npz",)))
    assert text.rstrip().endswith("0 of 3 cells can run")


def test_the_plan_says_why_what_has_results_is_run_again(tmp_path: Path) -> None:
    own = tmp_path / "own"
    for label in ("a", "b"):
        for number in range(20):
            picture(own / label / f"{number}.png")
    once = Protocol(epochs=1, trials=1)
    chosen = matrix(
        tmp_path / "r", datasets=(f"folder:{own}",), strategies=("knn_probe", "linear_probe"), protocol=once
    )
    assert "earlier version" not in described(chosen)
    execute(make_plan(chosen, CHECKOUT), Console(quiet=True), "test", {})
    compact(tmp_path / "r")
    assert "earlier version" not in described(replace(chosen, strategies=("linear_probe", "scratch"), seeds=3))
    picture(own / "a" / "20.png")
    assert described(replace(chosen, strategies=("linear_probe", "scratch"))).endswith(
        "\n1 of them has results of an earlier version; changed: images or split (1)\n"
    )
    (own / "a" / "20.png").unlink()
    longer = described(replace(chosen, protocol=replace(once, epochs=2)))
    assert "2 of them have results of an earlier version; changed: protocol, settings or harness (2)" in longer


def test_one_is_singular(tmp_path: Path) -> None:
    once = Protocol(epochs=1, trials=1)
    text = described(matrix(tmp_path, strategies=("scratch",), seeds=1, protocol=once))
    assert text.startswith(
        "1 cell: 1 strategy x 1 backbone x 1 dataset x 1 size x 1 amount of data; 1 seed, 1 trial, 1 epoch"
    )
    assert "\n1 cell to run on" in text


def test_a_calibration_says_what_it_measures(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level("INFO")
    estimate(make_plan(matrix(tmp_path), CHECKOUT), CPU)
    assert [text for text in caplog.messages if "measuring" in text] == [
        "measuring test_resnet random at 16 px, for the estimate of time"
    ]


def test_rows_of_an_older_version_are_not_estimated_from(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    pd.DataFrame({"status": ["ok"], "device": [device.describe(CPU)]}).to_parquet(tmp_path / "rows.parquet")
    assert all(seconds(make_plan(matrix(tmp_path), CHECKOUT)).values())
    assert any("rows.parquet cannot be read (KeyError" in text for text in caplog.messages)


def described(planned: Matrix) -> str:
    out = io.StringIO()
    describe(make_plan(planned, CHECKOUT), Console(file=out, width=400))
    return out.getvalue()
