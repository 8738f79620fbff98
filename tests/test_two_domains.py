"""Two domains through the harness: what a row and its trials record, and what the best trial is chosen by."""

from __future__ import annotations

import json
from dataclasses import asdict
from pathlib import Path

import numpy as np
import pytest
from rich.console import Console

from bench import store
from bench.contract import Protocol
from bench.errors import UsageError
from bench.executors import execute
from bench.plan import Plan, make_plan
from bench.selection import SELECTIONS, chosen
from tests.small import CHECKOUT, matrix

SHIFT = "phantom-organ-a->phantom-organ-b"


def run(folder: Path, **changes) -> Plan:
    plan = make_plan(matrix(folder, **{"seeds": 1, "sizes": (16,)} | changes), CHECKOUT)
    assert execute(plan, Console(quiet=True), "test", {}).failed == 0
    return plan


def row(folder: Path, plan: Plan, strategy: str) -> dict:
    [cell] = [cell for cell in plan.cells if cell.strategy == strategy]
    return store.read_row(folder, cell.fingerprint, 0)


def test_a_shift_is_trained_on_the_source_and_scored_on_the_target(tmp_path: Path) -> None:
    protocol = Protocol(epochs=1, trials=2, batch_size=100)
    plan = run(tmp_path, datasets=(SHIFT,), strategies=("source_only", "dann"), protocol=protocol)
    for name in ("source_only", "dann"):
        found = row(tmp_path, plan, name)
        assert (found["status"], found["target"], found["selection"]) == ("ok", "phantom-organ-b", "source_val")
        assert found["transductive"] is False
        assert 0 <= found["source_auc"] <= 1
        assert 0 <= found["pad_before"] <= 2
        assert 0 <= found["pad_after"] <= 2
        assert found["second"] is None
    stem = tmp_path / "cells" / f"{found['fingerprint']}-s0.npz"
    with np.load(stem) as predictions:
        assert all("phantom-organ-b/" in name for name in predictions["test_ids"])
        assert all("phantom-organ-a/" in name for name in predictions["val_ids"])
    assert len(json.loads(row(tmp_path, plan, "dann")["disc_acc"])) == 1
    assert row(tmp_path, plan, "source_only")["disc_acc"] is None


@pytest.mark.parametrize("selection", ["source_val", "snd"])
def test_all_ways_of_choosing_are_stored_and_the_one_asked_for_chooses(tmp_path: Path, selection: str) -> None:
    protocol = Protocol(epochs=1, trials=4, batch_size=100, selection=selection)
    plan = run(tmp_path, datasets=(SHIFT,), strategies=("source_only",), protocol=protocol)
    trials = store.read_trials(tmp_path, plan.cells[0].fingerprint)
    assert [t.state for t in trials] == ["complete"] * 4  # none is ended early: each choice sees all
    columns = [*(s.column for s in SELECTIONS.values()), "target_test_auc"]
    assert all(np.isfinite(getattr(trial, column)) for trial in trials for column in columns)
    found = row(tmp_path, plan, "source_only")
    taken = chosen([asdict(trial) for trial in trials], selection)
    assert json.loads(found["hparams"]) == taken["hparams"]
    assert found["selection"] == selection


def test_the_selection_is_part_of_a_shift_cell_and_of_no_other(tmp_path: Path) -> None:
    def fingerprints(dataset: str) -> list[str]:
        wanted = [
            matrix(tmp_path, datasets=(dataset,), strategies=("full_finetune",), protocol=Protocol(selection=name))
            for name in ("source_val", "entropy")
        ]
        return [make_plan(found, CHECKOUT).cells[0].fingerprint for found in wanted]

    first, second = fingerprints(SHIFT)
    assert first != second
    first, second = fingerprints("phantom-organ-a")
    assert first == second


def test_natural_images_are_the_second_domain_of_an_ordinary_task(tmp_path: Path) -> None:
    protocol = Protocol(epochs=1, trials=1, batch_size=100)
    names = ("full_finetune", "coral", "source_only")
    plan = run(tmp_path, datasets=("phantom-radiograph",), strategies=names, protocol=protocol)
    found = row(tmp_path, plan, "coral")
    assert (found["status"], found["second"], found["target"], found.get("source_auc")) == ("ok", "skimage", None, None)
    assert found["pad_before"] > 1  # drawn radiographs look like no photograph
    assert row(tmp_path, plan, "full_finetune")["second"] is None
    assert row(tmp_path, plan, "source_only")["status"] == "skipped"
    assert "full_finetune" in row(tmp_path, plan, "source_only")["reason"]


def test_other_natural_images_make_another_cell_where_they_are_used(tmp_path: Path) -> None:
    photographs = tmp_path / "mine"
    photographs.mkdir()
    from PIL import Image

    Image.new("RGB", (20, 20), (200, 30, 30)).save(photographs / "a.png")
    plans = [
        make_plan(
            matrix(tmp_path, datasets=("phantom-radiograph",), strategies=("full_finetune", "mmd"), natural=source),
            CHECKOUT,
        )
        for source in ("skimage", f"folder:{photographs}")
    ]
    plain, paired = ([plan.cells[at].fingerprint for plan in plans] for at in (0, 1))
    assert plain[0] == plain[1]
    assert paired[0] != paired[1]


def test_natural_images_that_cannot_be_read_fail_their_own_cells_alone(tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    facts = {"datasets": ("phantom-radiograph",), "strategies": ("full_finetune", "mmd")}
    plan = make_plan(matrix(tmp_path, natural=f"folder:{tmp_path / 'empty'}", **facts), CHECKOUT)
    assert [bool(cell.error) for cell in plan.cells] == [False, True]
    assert "empty" in plan.cells[1].error


def test_a_mistyped_path_of_natural_images_ends_the_command(tmp_path: Path) -> None:
    facts = {"datasets": ("phantom-radiograph",), "strategies": ("full_finetune", "mmd")}
    for natural in ("folder:nowhere", "npz:nowhere.npz"):
        with pytest.raises(UsageError, match=r"nowhere.*: no such .*Check the path"):
            make_plan(matrix(tmp_path, natural=natural, **facts), CHECKOUT)


def test_a_transductive_strategy_is_marked_in_its_row(tmp_path: Path) -> None:
    protocol = Protocol(epochs=1, trials=1, batch_size=100)
    plan = run(tmp_path, datasets=(SHIFT,), strategies=("tent",), protocol=protocol)
    assert row(tmp_path, plan, "tent")["transductive"] is True
