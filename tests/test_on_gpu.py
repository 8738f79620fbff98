"""What only a GPU shows; skipped where there is none."""

from __future__ import annotations

import os
import subprocess
import sys
import time
import warnings
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pandas as pd
import pytest
import torch
from torch import Tensor

from bench import clock, computing, device, registry
from bench import train as training
from bench.check import BACKBONE, SIZE, phantom_task
from bench.contract import Protocol, Task
from bench.finetune import FineTune, plain, steady
from bench.images import Images, predict
from bench.prediction import for_labelled
from bench.replay import Replay
from bench.run import Run, seeded
from tests.small import CHECKOUT

pytestmark = pytest.mark.skipif(not torch.cuda.is_available(), reason="torch sees no CUDA device here")
GPU = torch.device("cuda", 0)
STOPS = """
import torch
from bench.finetune import FineTune


class Stops(FineTune):
    name = "stops"
    steady = True

    def loss(self, *given):
        torch.cuda.synchronize()
        return super().loss(*given)
"""
GRADIENT = [name for name, one in registry.strategies(CHECKOUT).items() if isinstance(one, FineTune)]


@pytest.fixture(autouse=True)
def _as_a_run_is(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    monkeypatch.setenv("CUBLAS_WORKSPACE_CONFIG", ":4096:8")
    torch.use_deterministic_algorithms(True, warn_only=True)
    with device.own_stream(GPU):
        yield
    torch.use_deterministic_algorithms(False)


def on_gpu(images: Images) -> Images:
    assert isinstance(images.pixels, Tensor)
    return replace(images, pixels=images.pixels.to(GPU), labels=images.labels.to(GPU))


def task_of(kind: str) -> Task:
    task = phantom_task(kind)
    assert task.second is not None
    return replace(task, train=on_gpu(task.train), val=on_gpu(task.val), second=on_gpu(task.second))


class Counted(Replay):
    recorded = 0

    def _recorded(self, *inputs: Tensor):  # type: ignore[no-untyped-def]
        Counted.recorded += 1
        return super()._recorded(*inputs)


class Never(Replay):
    def __init__(self, compute, where, draws=(), recordable=True) -> None:  # type: ignore[no-untyped-def]
        super().__init__(compute, where, draws, False)


def fitted(name: str, task: Task, monkeypatch: pytest.MonkeyPatch, way: type[Replay]) -> Tensor:
    """Logits on val."""
    monkeypatch.setattr(training, "Replay", way)
    strategy = registry.load_strategy(name, CHECKOUT)
    run = Run(BACKBONE, Protocol(epochs=5, batch_size=10), 3, SIZE, GPU)  # batches of two sizes
    with seeded(3, GPU), warnings.catch_warnings():
        warnings.filterwarnings("ignore", message=".*deterministic")
        predictor = strategy.fit(task, strategy.defaults(), run)
        return predict(for_labelled(predictor, task.shift), task.val)


@pytest.mark.parametrize("kind", ["multi-class", "shift"])
@pytest.mark.parametrize("name", GRADIENT)
def test_a_replayed_fit_is_the_same_as_one_that_is_not(name: str, kind: str, monkeypatch: pytest.MonkeyPatch) -> None:
    task = task_of(kind)
    strategy = registry.load_strategy(name, CHECKOUT)
    if reason := strategy.applies(task.info, BACKBONE):
        pytest.skip(reason)
    Counted.recorded = 0
    replayed = fitted(name, task, monkeypatch, Counted)
    assert isinstance(strategy, FineTune)
    assert (Counted.recorded > 0) == (steady(strategy) or plain(strategy))
    assert torch.equal(replayed, fitted(name, task, monkeypatch, Never))


def test_a_recording_draws_what_the_function_itself_would() -> None:
    own, other = (torch.Generator(GPU).manual_seed(5) for _ in range(2))

    def drawn(generator: torch.Generator) -> Replay:
        def compute(values: Tensor) -> Tensor:
            return values + torch.rand(values.shape, generator=generator, device=GPU) + torch.rand_like(values)

        return Replay(compute, GPU, [generator])

    replayed, called = drawn(own), drawn(other)
    found = []
    for replay, function in ((replayed, replayed), (called, called.compute)):
        torch.manual_seed(1)
        found.append([function(torch.full((size,), 1.0, device=GPU)).clone() for size in (8, 8, 8, 6, 6, 8)])
        assert len(replay.recordings) == (2 if function is replay else 0)
    assert all(map(torch.equal, *found))


def test_what_waits_for_the_gpu_is_called_each_time_and_the_log_says_so() -> None:
    replay = Replay(lambda values: values * values.sum().item(), GPU)
    ones = torch.ones(3, device=GPU)
    replay(ones)
    with pytest.warns(UserWarning, match="not replayed, since it waits for the GPU"):
        replay(ones)
    assert [replay(ones * n).tolist() for n in (1, 2)] == [[3.0] * 3, [12.0] * 3]
    assert not replay.recordings


def test_recordings_share_their_memory_and_give_it_back() -> None:
    def large(values: Tensor) -> Tensor:
        wide = values.repeat(2**20, 1)  # 256 MB
        return (wide * 2).sum(0)

    torch.cuda.empty_cache()
    before = torch.cuda.memory_reserved(GPU)
    replay = Replay(large, GPU)
    for count in (64, 64, 64, 63, 63):
        found = replay(torch.ones(count, device=GPU))
    torch.cuda.empty_cache()
    assert len(replay.recordings) == 2
    held = torch.cuda.memory_reserved(GPU) - before
    assert 2**29 <= held < 2**29 + 2**28  # of the two tensors of one of them
    with pytest.warns(UserWarning, match="no longer replayed, since memory is short"):
        assert replay.forget()
    del found
    torch.cuda.empty_cache()
    assert torch.cuda.memory_reserved(GPU) - before < 2**26
    assert replay(torch.ones(64, device=GPU)).tolist() == [2.0**21] * 64
    assert not replay.recordings
    assert not replay.forget()


def test_the_seconds_of_networks_are_those_of_the_gpu(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(clock, "_clock", clock._Clock(device=GPU))
    large = torch.rand(8192, 8192, device=GPU)
    (large @ large).sum().item()  # sets cuBLAS up
    with clock.network():
        product = large @ large  # some 20 ms
    torch.cuda.synchronize()
    assert clock.network_seconds() > 0.005
    before = clock.network_seconds()
    replay = Replay(lambda values: values @ values, GPU)
    for _ in range(4):
        replay(product)
    time.sleep(0.5)
    assert 0.01 < clock.network_seconds() - before < 0.4


def test_on_the_default_stream_nothing_is_recorded() -> None:
    with torch.cuda.stream(torch.cuda.default_stream(GPU)):
        replay = Replay(torch.neg, GPU)
        for n in range(4):
            assert replay(torch.full((2,), float(n), device=GPU)).tolist() == [-n, -n]
    assert not replay.recordings


def test_the_way_to_compute_is_measured_on_replayed_steps() -> None:
    found = computing._measured(BACKBONE, SIZE, GPU)
    assert list(found) == computing.ways(GPU)
    assert all(0 < seconds < 0.1 for seconds in found.values())


def medtransfer(results: Path, *options: str) -> pd.DataFrame:
    """The rows of a small run on the GPU, in a process of its own."""
    command = [sys.executable, "-m", "bench", "run", "--device", "cuda", "--results", str(results), "--size", "32"]
    command += ["--dataset", "phantom-radiograph", "--backbone", "bundled:resnet", "--epochs", "3", "--trials", "2"]
    done = subprocess.run([*command, *options], cwd=CHECKOUT, capture_output=True, text=True, timeout=500)
    assert done.returncode == 0, done.stdout + done.stderr
    return pd.read_csv(results / "rows.csv").sort_values(["strategy", "seed"]).reset_index(drop=True)


def test_deterministic_runs_give_the_same_bits(tmp_path: Path) -> None:
    names = ["full_finetune", "augment_domain", "dann", "linear_probe", "mlp_probe"]
    options = ["--deterministic", "--natural", "skimage", *(f"--strategy={name}" for name in names)]
    one, other = (medtransfer(tmp_path / name, *options) for name in ("one", "other"))
    assert list(one.status.unique()) == ["ok"], one.reason.tolist()
    assert ((one.network_seconds > 0) & (one.network_seconds < one.cell_seconds)).all()
    columns = ["lr", "val_auc", "test_auc", "test_nll", "test_brier", "curve"]
    pd.testing.assert_frame_equal(one[columns], other[columns], check_exact=True)


def test_a_step_that_cannot_be_recorded_fails_its_own_cell_alone(tmp_path: Path) -> None:
    (tmp_path / "strategies").mkdir()
    (tmp_path / "strategies" / "stops.py").write_text(STOPS)
    command = [sys.executable, "-m", "bench", "run", "--device", "cuda", "--size", "32", "--jobs", "2"]
    command += ["--results", "rows"]
    command += ["--dataset", "phantom-radiograph", "--backbone", "bundled:resnet", "--epochs", "3", "--trials", "1"]
    command += ["--strategy", "stops", "--strategy", "full_finetune", "--strategy", "l2_sp", "--seeds", "2"]
    environment = os.environ | {"PYTHONPATH": f"{CHECKOUT}:{os.environ.get('PYTHONPATH', '')}"}
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, timeout=500, env=environment)
    assert done.returncode == 1, done.stdout + done.stderr
    rows = pd.read_csv(tmp_path / "rows" / "rows.csv").set_index("strategy")
    assert set(rows.loc["stops", "status"]) == {"failed"}, done.stdout + done.stderr
    assert rows.loc["stops", "reason"].str.contains("take `steady = True` out of the strategy").all()
    assert set(rows.drop("stops")["status"]) == {"ok"}, done.stdout + done.stderr


def test_workers_share_a_gpu_within_their_shares_of_its_memory(tmp_path: Path) -> None:
    names = ["full_finetune", "l2_sp", "linear_probe", "bn_only"]
    rows = medtransfer(tmp_path / "rows", "--jobs", "3", *(f"--strategy={name}" for name in names))
    assert list(rows.status.unique()) == ["ok"], rows.reason.tolist()


def test_a_share_of_the_memory_is_all_that_a_process_can_take() -> None:
    code = """if True:
        import torch
        from bench import memory
        gpu = torch.device("cuda", 0)
        memory.limit(gpu, 0.1)
        total = torch.cuda.get_device_properties(gpu).total_memory
        assert memory.free_bytes(gpu) < 0.1 * total, memory.free_bytes(gpu)
        kept = torch.empty(int(0.05 * total), dtype=torch.uint8, device=gpu)
        assert memory.free_bytes(gpu) < 0.05 * total
        try:
            torch.empty(int(0.06 * total), dtype=torch.uint8, device=gpu)
        except torch.OutOfMemoryError:
            print("no more")
    """
    done = subprocess.run([sys.executable, "-c", code], cwd=CHECKOUT, capture_output=True, text=True, timeout=200)
    assert done.stdout == "no more\n", done.stdout + done.stderr
