"""Cells become rows: whole, resumable, reproducible, and one cell's failure is its own."""

from __future__ import annotations

import contextlib
import json
import os
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import psutil
import pytest
import torch
from rich.console import Console

from bench import clock, metrics, registry, runner, store
from bench.attempt import give_up, run_cell
from bench.config import Amount
from bench.contract import Backbone, Protocol, Task
from bench.executors import execute
from bench.plan import make_plan
from bench.session import Session, load
from tests.processes import started
from tests.small import CHECKOUT, NET, matrix

MEASURED = (
    "started_utc", "finished_utc", "tune_seconds", "fit_seconds", "predict_ms", "peak_memory_mb", "energy_joules",
    "cell_seconds", "network_seconds", "git_dirty", "git_commit", "threads",
)  # fmt: skip
"""Columns that differ from run to run; everything else is promised bit for bit."""


def run(results: Path, workspace: Path = CHECKOUT, **changes: object):
    plan = make_plan(matrix(results, **changes), workspace)
    return execute(plan, Console(quiet=True), "test", {})


def rows(results: Path) -> dict[str, dict[str, Any]]:
    """Row file name -> what is promised of it."""
    found = {}
    for path in sorted((results / "cells").glob("*-s*.json")):
        row = json.loads(path.read_text())
        found[path.name] = {key: value for key, value in row.items() if key not in MEASURED}
    return found


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> Path:
    results = tmp_path_factory.mktemp("finished")
    outcome = run(results)
    assert (outcome.ok, outcome.failed) == (6, 0)
    return results


def test_rows_say_how_much_of_their_time_networks_computed(finished: Path) -> None:
    for path in (finished / "cells").glob("*-s*.json"):
        row = json.loads(path.read_text())
        assert 0 < row["network_seconds"] < row["cell_seconds"]


def test_a_network_within_a_network_is_counted_once(monkeypatch: pytest.MonkeyPatch) -> None:
    times = iter([10.0, 15.0, 20.0, 21.0])
    monkeypatch.setattr(time, "perf_counter", lambda: next(times))
    before = clock.network_seconds()
    with clock.network(), clock.network():
        pass
    with contextlib.suppress(ZeroDivisionError), clock.network():
        raise ZeroDivisionError
    assert clock.network_seconds() - before == 5.0 + 1.0


def test_rows_hold_what_a_reader_needs(finished: Path) -> None:
    for row in rows(finished).values():
        assert row["status"] == "ok"
        assert row["dataset"] == "phantom-radiograph"
        assert 0 <= row["test_auc_lo"] <= row["test_auc"] <= row["test_auc_hi"] <= 1
        assert row["images_seen"] == row["n_train"] * 2
        assert 0 < row["params_trained"] <= row["params_total"]
        assert row["lr"] == json.loads(row["hparams"])["lr"]
        assert (row["params_trained"] < row["params_total"]) == (row["strategy"] == "linear_probe")
        assert row["pretrained"] is False
        assert "random weights" in row["notes"] or row["strategy"] == "scratch"


def test_every_column_is_documented(finished: Path) -> None:
    text = (CHECKOUT / "results/README.md").read_text()
    for row in rows(finished).values():
        assert [name for name in [*row, *MEASURED] if f"`{name}`" not in text] == []


def test_stored_predictions_give_the_rows_scores(finished: Path) -> None:
    for name, row in rows(finished).items():
        stored = np.load(finished / "cells" / name.replace(".json", ".npz"))
        for split in ("val", "test"):
            probs = metrics.probabilities(stored[f"{split}_logits"], row["kind"])
            assert metrics.auc(stored[f"{split}_labels"], probs, row["kind"]) == pytest.approx(
                row[f"{split}_auc"], abs=1e-12
            )
            assert len(set(stored[f"{split}_ids"])) == len(probs)
        assert not set(stored["val_ids"]) & set(stored["test_ids"])


def test_a_finished_matrix_has_nothing_left_to_do(finished: Path) -> None:
    before = {path: path.stat().st_mtime_ns for path in (finished / "cells").iterdir()}
    outcome = run(finished)
    assert (outcome.ok, outcome.there) == (0, 6)
    assert {path: path.stat().st_mtime_ns for path in (finished / "cells").iterdir()} == before


def test_the_same_command_gives_the_same_rows_bit_for_bit(finished: Path, tmp_path: Path) -> None:
    run(tmp_path)
    assert rows(tmp_path) == rows(finished)


def test_a_seed_that_is_run_alone_is_the_same_as_among_the_others_bit_for_bit(tmp_path: Path) -> None:
    """Where a strategy trains all seeds as one, last bits depend on how many there are."""
    facts: dict[str, object] = {"strategies": ("linear_probe", "mlp_probe"), "datasets": ("phantom-chest",), "seeds": 3}
    run(tmp_path, **facts)
    whole = rows(tmp_path)
    for path in (tmp_path / "cells").glob("*-s1.json"):
        path.unlink()
    assert run(tmp_path, **facts).ok == 2
    assert rows(tmp_path) == whole


def test_what_has_changed_since_the_plan_is_not_run_under_its_fingerprint(tmp_path: Path) -> None:
    (tmp_path / "strategies").mkdir()
    file = tmp_path / "strategies/picky.py"
    file.write_text(BROKEN)
    plan = make_plan(matrix(tmp_path / "results", strategies=("shapes", "scratch")), tmp_path)
    file.write_text(BROKEN + "# edited\n")
    outcome = execute(plan, Console(quiet=True), "test", {})
    assert (outcome.ok, outcome.failed) == (2, 2)
    reasons = {json.loads(p.read_text())["reason"] for p in (tmp_path / "results/cells").glob("*.failed.json")}
    assert reasons == {"shapes: it has changed since this run was planned. Run the same command again."}


def test_worker_processes_give_the_same_rows(finished: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "cpu_count", lambda: 2)  # one thread a worker, as this process has
    run(tmp_path, jobs=2)
    assert rows(tmp_path) == rows(finished)


def test_more_seeds_keep_what_is_there_and_reuse_the_tuning(finished: Path, tmp_path: Path) -> None:
    only = {"strategies": ("full_finetune",)}
    run(tmp_path, seeds=1, **only)
    [cell] = make_plan(matrix(tmp_path, **only), CHECKOUT).cells
    trials = (tmp_path / f"cells/{cell.fingerprint}.trials.jsonl").read_bytes()
    assert run(tmp_path, seeds=2, **only).ok == 1
    assert (tmp_path / f"cells/{cell.fingerprint}.trials.jsonl").read_bytes() == trials
    assert rows(tmp_path) == {name: row for name, row in rows(finished).items() if row["strategy"] == "full_finetune"}


def test_kill_9_in_the_middle_then_the_same_command_gives_the_uninterrupted_rows(
    finished: Path, tmp_path: Path
) -> None:
    published: dict[Path, int] = {}
    kills = 0
    for wait_for in (1, 4, 7):  # files: after the first trials, in mid-matrix, and late
        command = started(run, tmp_path)
        deadline = time.monotonic() + 240
        while command.is_alive() and time.monotonic() < deadline:
            if len(list((tmp_path / "cells").glob("*.json*"))) >= wait_for:
                command.kill()
                kills += 1
                break
            time.sleep(0.01)
        command.join()
        now = {p: p.stat().st_mtime_ns for p in (tmp_path / "cells").glob("*-s*.json")}
        assert {p: now[p] for p in published} == published  # no finished row was run again
        published = now
    assert kills >= 2
    run(tmp_path)
    assert rows(tmp_path) == rows(finished)
    after = {p: p.stat().st_mtime_ns for p in published}
    assert after == published


def test_workers_end_with_a_command_that_is_killed(tmp_path: Path) -> None:
    script = (
        "import sys; from pathlib import Path\n"
        "from tests.test_runner import run\n"
        "if __name__ == '__main__': run(Path(sys.argv[1]), jobs=2, seeds=500)"
    )
    (tmp_path / "driver.py").write_text(script)
    environment = os.environ | {"PYTHONPATH": str(CHECKOUT)}
    command = [sys.executable, str(tmp_path / "driver.py"), str(tmp_path / "results")]
    process = subprocess.Popen(command, cwd=CHECKOUT, env=environment)
    deadline = time.monotonic() + 240
    while not list((tmp_path / "results" / "cells").glob("*")) and time.monotonic() < deadline:
        time.sleep(0.1)
    workers = psutil.Process(process.pid).children(recursive=True)
    assert workers
    process.kill()
    process.wait()
    _, alive = psutil.wait_procs(workers, timeout=60)
    assert not alive


BROKEN = '''
from bench.contract import Strategy
from bench.finetune import FineTune
import torch

class Raises(FineTune):
    """Raises."""
    name = "raises"
    family = "fine-tuning"
    def build(self, task, hparams, run):
        raise RuntimeError("on purpose")

class Shapes(FineTune):
    """Wrong shape."""
    name = "shapes"
    family = "fine-tuning"
    def fit(self, task, hparams, run):
        return lambda images: torch.zeros(len(images), 7)

class Nans(FineTune):
    """NaN."""
    name = "nans"
    family = "fine-tuning"
    def fit(self, task, hparams, run):
        return lambda images: torch.full((len(images), task.outputs), float("nan"))

class Picky(FineTune):
    """Applies to nothing."""
    name = "picky"
    family = "fine-tuning"
    def applies(self, info, backbone):
        return f"{info.kind} tasks are not for me"
'''


def test_a_failing_strategy_is_a_row_with_a_reason_and_the_others_go_on(tmp_path: Path) -> None:
    (tmp_path / "strategies").mkdir()
    (tmp_path / "strategies/broken.py").write_text(BROKEN)
    names = ("raises", "shapes", "nans", "picky", "linear_probe")
    outcome = run(tmp_path / "r", tmp_path, strategies=names, seeds=1, protocol=Protocol(epochs=1, trials=1))
    assert (outcome.ok, outcome.skipped, outcome.failed) == (1, 1, 3)
    told = {row["strategy"]: (row["status"], row["reason"]) for row in rows(tmp_path / "r").values()}
    assert told["raises"][0] == "failed"
    assert "on purpose" in told["raises"][1]
    assert told["shapes"][0] == "failed"
    assert "(100, 7)" in told["shapes"][1] or ", 7)" in told["shapes"][1]
    assert told["nans"][0] == "diverged"
    assert told["picky"] == ("skipped", "binary tasks are not for me")
    again = run(tmp_path / "r", tmp_path, strategies=names, seeds=1, protocol=Protocol(epochs=1, trials=1))
    assert (again.ok, again.failed, again.there) == (
        0,
        2,
        3,
    )  # failed rows are tried again, diverged ones would diverge again


@pytest.mark.parametrize("breaks", [lambda path: path.write_text("class"), Path.unlink])
def test_a_strategy_whose_file_is_broken_in_mid_run_fails_its_own_cells_alone(
    tmp_path: Path, breaks: Callable[[Path], object]
) -> None:
    path = tmp_path / "strategies/broken.py"
    path.parent.mkdir()
    path.write_text(BROKEN)
    results = tmp_path / "r"
    [cell] = make_plan(matrix(results, strategies=("raises",)), tmp_path).cells
    breaks(path)
    where = torch.device("cpu")
    assert run_cell(cell, [0], Session(where, results)) == ["failed"]
    assert give_up(cell, [1], "its worker is no more", results, where) == ["failed"]
    told = list(rows(results).values())
    assert [(row["family"], row["pretrained"], row["transductive"]) for row in told] == [
        ("fine-tuning", False, False)
    ] * 2


WRONG = """
from bench.contract import Dataset
from dataclasses import replace
from pathlib import Path
import numpy as np
from bench.registry import open_dataset as opened

PREFIX = ""

def names():
    return ["wrong-train", "wrong-test"]

def open_dataset(name, root, seed, source_size):
    return Wrong(name)

class Wrong(Dataset):
    def __init__(self, name):
        self.whole = opened("phantom-radiograph", Path("."))
        self.info = replace(self.whole.info, name=name)
        self.split = name.partition("-")[2]
    def load(self, split, size):
        found = self.whole.load(split, size)
        labels = np.where(np.arange(len(found)) == 5, 2, found.labels) if split == self.split else found.labels
        return replace(found, labels=labels)
    def content_hash(self, size):
        return self.info.name
"""


def test_a_label_without_a_class_is_an_error_of_the_data_before_it_gets_to_a_device(tmp_path: Path) -> None:
    (tmp_path / "datasets").mkdir()
    (tmp_path / "datasets/wrong.py").write_text(WRONG)
    names, once = ("wrong-train", "wrong-test"), Protocol(epochs=1, trials=1)
    outcome = run(tmp_path / "r", tmp_path, datasets=names, strategies=("linear_probe",), seeds=1, protocol=once)
    assert (outcome.ok, outcome.failed) == (0, 2)
    told = {row["dataset"]: row["reason"] for row in rows(tmp_path / "r").values()}
    for name in names:
        split = name.partition("-")[2]
        assert told[name] == f"{name}: the label 2 is none of 0 to 1 in {split}. Correct the dataset."


def test_weights_that_cannot_be_had_are_rows_with_a_reason(tmp_path: Path) -> None:
    absent = Backbone("test_resnet", weights=f"file:{tmp_path}/nowhere.safetensors", name="absent")
    once = Protocol(epochs=1, trials=1)
    outcome = run(tmp_path, backbones=(absent,), strategies=("linear_probe", "scratch"), seeds=1, protocol=once)
    assert (outcome.ok, outcome.failed) == (1, 1)
    told = {row["strategy"]: (row["status"], row["reason"]) for row in rows(tmp_path).values()}
    assert told["scratch"] == ("ok", "")  # it needs no weights
    assert told["linear_probe"][0] == "failed"
    assert "nowhere.safetensors" in told["linear_probe"][1]


def test_of_what_cells_share_only_that_of_neighbours_is_kept(tmp_path: Path) -> None:
    """Else the frozen networks of all backbones, and what strategies measured, would fill a GPU."""
    once = {"amounts": (Amount(), Amount(per_class=8)), "protocol": Protocol(epochs=1, trials=1), "sizes": (32,)}
    networks = (NET, Backbone("test_convnext", "random"))
    cells = make_plan(matrix(tmp_path, strategies=("linear_probe",), backbones=networks, **once), CHECKOUT).cells
    session = Session(torch.device("cpu"), tmp_path)
    for before, cell in zip([None, *cells], cells, strict=False):
        own = {("mine", cell.backbone): 1, "alone": 2}
        assert run_cell(cell, [0], session) == ["ok"]
        frozen = {key: value for key, value in session.memory.items() if isinstance(key, tuple) and key[0] == "frozen"}
        assert {key[1] for key in frozen} == {cell.backbone}
        of_features = [key for key in session.memory if isinstance(key, tuple) and key[0] == "features"]
        assert {key[1] for key in of_features} == {cell.backbone}
        assert len(of_features) == 2  # train and val, of this amount only
        assert before is None or not {("mine", before.backbone), "alone"} & session.memory.keys()
        session.memory.update(own)
    run_cell(cells[-1], [1], session)  # a neighbour
    assert own.keys() <= session.memory.keys()
    assert all(session.memory[key] is value for key, value in frozen.items())
    fewer = replace(cells[-1], amount=Amount(per_class=4))
    load(fewer, session)  # of another task, but for the same network
    assert {key for key in session.memory if isinstance(key, tuple)} - set(frozen) == {
        ("normalisation", cell.backbone) for cell in cells[:2]
    }
    assert all(session.memory[key] is value for key, value in frozen.items())


def test_an_interrupt_leaves_nothing_half_written(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def interrupt(*args: object, **kwargs: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(runner.evaluate, "test_columns", interrupt)
    with pytest.raises(KeyboardInterrupt):
        run(tmp_path, strategies=("linear_probe",))
    assert store.finished(tmp_path) == set()
    assert [p.name for p in (tmp_path / "cells").iterdir() if not p.name.endswith(".trials.jsonl")] == []


def test_a_task_holds_no_test_images() -> None:
    """By construction: there is no field for them, and no strategy is handed the dataset."""
    assert set(Task.__dataclass_fields__) == {"info", "size", "train", "val", "second"}
    dataset = registry.open_dataset("phantom-radiograph", Path("."))
    ids = {name: set(dataset.load(name, 32).ids) for name in ("train", "val", "test")}
    assert not ids["train"] & ids["test"]
    assert not ids["val"] & ids["test"]


def test_a_small_val_and_a_missing_class_are_noted(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    arrays = {}
    for split, count in (("train", 40), ("val", 12), ("test", 30)):
        arrays[f"{split}_images"] = rng.integers(0, 255, (count, 16, 16), dtype=np.uint8)
        arrays[f"{split}_labels"] = (np.arange(count) % 3)[:, None]
    arrays["val_labels"] = np.arange(12)[:, None] % 2
    np.savez(tmp_path / "own.npz", **arrays)
    run(tmp_path / "r", datasets=(f"npz:{tmp_path}/own.npz",), strategies=("linear_probe",), seeds=1)
    [row] = rows(tmp_path / "r").values()
    assert row["val_auc"] is None
    assert row["test_auc"] is not None
    assert "val has 12 images" in row["notes"]
    assert "val lacks a class" in row["notes"]


def test_the_backbone_used_is_named(finished: Path) -> None:
    assert {row["backbone"] for row in rows(finished).values()} == {NET.label}
    assert torch.get_num_threads() == 1
