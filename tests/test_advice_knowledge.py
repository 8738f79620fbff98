"""What advice learns from: the right rows of results folders, and a clear word on all others."""

from __future__ import annotations

import json
from pathlib import Path

import huggingface_hub
import pandas as pd
import pytest

from bench.advice import available as available_here
from bench.advice.available import available
from bench.advice.costs import parse_budget, relative
from bench.advice.knowledge import read
from bench.contract import Backbone, Protocol
from bench.errors import UsageError
from bench.report.frames import compact
from tests.fake_reference import AMOUNTS, BACKBONES, DATASETS, GAINS, reference
from tests.fake_results import Row, row
from tests.small import CHECKOUT


def add(folder: Path, *more: Row) -> None:
    for at, one in enumerate(more):
        (folder / "cells" / f"more{at}-s0.json").write_text(json.dumps(one | {"fingerprint": f"more{at}"}))


def told(run: dict[str, object], folder: Path) -> None:
    (folder / "run.json").write_text(json.dumps({"matrix": run}))


def test_tasks_and_cells_are_those_of_networks_on_one_domain(tmp_path: Path) -> None:
    folder = reference(tmp_path / "r")
    told({"protocol": {"epochs": 2, "trials": 1}}, folder)
    here = {"size": 32, "per_class": 10, "epochs": 2, "trials": 1}
    add(
        folder,
        row("a", "bundled:resnet", "tent", 0, 0.99, transductive=True, **here),
        row("a->b", "bundled:resnet", "dann", 0, 0.99, target="b", **here),
        row("a", "theirs", "imported", 0, 0.99, family="imported", **here),
        row("lonely", "bundled:resnet", "full_finetune", 0, 0.99, **here),
    )
    knowledge = read([folder])
    assert len(knowledge.tasks) == len(DATASETS) * len(AMOUNTS)
    assert len(knowledge.cells) == len(knowledge.tasks) * len(BACKBONES) * len(GAINS)
    assert {strategy for strategy, _ in knowledge.candidates} == set(GAINS)
    assert knowledge.notes == ("lonely 32 px is left out: it has no linear_probe",)
    task = knowledge.tasks[0]
    assert (task.dataset, task.size, task.images, task.classes, task.kind) == ("a", 32, 20, 2, "binary")
    assert set(task.probe) == set(BACKBONES)
    assert (knowledge.cells["variance"] > 0).all()
    assert {(protocol.epochs, protocol.trials) for protocol in knowledge.protocols} == {(2, 1)}


def test_a_published_table_and_several_folders_are_read_alike(tmp_path: Path) -> None:
    folder = reference(tmp_path / "r")
    compact(folder)
    halves = [tmp_path / name for name in ("one", "two")]
    rows = pd.read_parquet(folder / "rows.parquet")
    for half, part in zip(halves, (rows[rows["dataset"] < "c"], rows[rows["dataset"] >= "c"]), strict=True):
        half.mkdir()
        part.to_parquet(half / "rows.parquet")
    whole, merged = read([folder]), read(halves)
    assert merged.tasks == whole.tasks
    pd.testing.assert_frame_equal(merged.cells, whole.cells)


def test_of_a_task_only_the_rows_of_one_budget_count(tmp_path: Path) -> None:
    folder = reference(tmp_path / "r")
    add(folder, row("a", "bundled:resnet", "full_finetune", 5, 0.5, size=32, per_class=10, epochs=50, trials=9))
    pd.testing.assert_frame_equal(read([folder]).cells, read([reference(tmp_path / "same")]).cells)

    longer = read([reference(tmp_path / "long", lambda r: r | ({"epochs": 9} if r["dataset"] == "a" else {}))])
    assert longer.notes[0] == (
        "tasks of the reference had different budgets (9 epochs, 1 trials and 2 epochs, 1 trials), and are taken as "
        "alike"
    )


def test_rows_that_a_later_command_superseded_are_not_learned_from(tmp_path: Path) -> None:
    folder = reference(tmp_path / "r", lambda one: one | {"epochs": 20})
    before = read([folder])
    later = sorted({path.name.partition("-")[0] for path in (folder / "cells").iterdir()})
    for path in list((folder / "cells").iterdir()):  # an earlier command, whose budget wins a vote that is a tie
        one = json.loads(path.read_bytes())
        one |= {"epochs": 10, "test_auc": 0.5, "fingerprint": f"old-{one['fingerprint']}"}
        (folder / "cells" / f"old-{path.name}").write_text(json.dumps(one))
    (folder / "planned.json").write_text(json.dumps([*(f"old-{name}" for name in later), *later]))
    after = read([folder])
    pd.testing.assert_frame_equal(after.cells, before.cells)
    assert {protocol.epochs for protocol in after.protocols} == {20}


def test_backbones_are_what_run_json_says_where_their_weights_are_here(tmp_path: Path) -> None:
    folder = reference(tmp_path / "r")
    bundled = {"model": "bundled:resnet", "weights": "bundled:resnet", "cut": None, "kwargs": {}, "mean": None}
    told({"backbones": [bundled | {"mean": [0.5, 0.5, 0.5]}, {"model": 7}, "odd"]}, folder)
    found, notes = available(read([folder]))
    assert notes == []
    assert {one.label: one.mean for one in found} == {"bundled:mobilenet": None, "bundled:resnet": (0.5, 0.5, 0.5)}

    def elsewhere(one: Row) -> Row:
        return one | {"weights": "file"} if "mobile" in one["backbone"] else one | {"weights_hash": "other"}

    found, notes = available(read([reference(tmp_path / "gone", elsewhere)]))
    assert found == []
    assert notes == [
        "bundled:mobilenet is left out: the reference does not say which network and file it is (no run.json)",
        "bundled:resnet is left out: bundled:resnet holds other weights than the reference was made with",
    ]


def test_nothing_is_downloaded_to_see_what_is_here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: object) -> None:
        raise AssertionError("asked the hub")

    monkeypatch.setattr(available_here, "resolve", refuse)
    monkeypatch.setattr(huggingface_hub, "try_to_load_from_cache", lambda *_, **__: None)
    hub = {"backbone": "resnet18.a1_in1k", "weights": "hub"}
    found, notes = available(read([reference(tmp_path / "r", lambda one: one | hub)]))
    assert found == []
    assert notes == ["resnet18.a1_in1k is left out: its weights are not on this machine (medtransfer fetch gets them)"]


def test_weights_of_the_reference_that_are_not_here_are_nobodys_mistake() -> None:
    theirs = Backbone("resnet18", "file:/their/weights.safetensors")
    said = "its weights are not on this machine (the reference read /their/weights.safetensors)"
    assert available_here._obstacle(theirs, "their hash") == said


def test_the_protocol_is_what_run_json_says_as_far_as_a_matrix_could(tmp_path: Path) -> None:
    folder = reference(tmp_path / "r")
    told({"protocol": {"epochs": 2, "trials": 1, "batch_size": 16, "clip": "none", "warmup": -3.0, "x": 1}}, folder)
    assert set(read([folder]).protocols) == {Protocol(epochs=2, trials=1, batch_size=16)}
    told({"protocol": {"epochs": 7, "trials": 1, "batch_size": 16}}, folder)
    assert set(read([folder]).protocols) == {Protocol(epochs=2, trials=1, batch_size=16)}
    told({"protocol": {"epochs": 2, "trials": 3, "batch_size": 16}}, folder)
    assert set(read([folder]).protocols) == {Protocol(epochs=2, trials=1)}


def test_of_several_protocols_that_of_the_amount_counts_and_a_guess_is_said(tmp_path: Path) -> None:
    folder = reference(tmp_path / "r", lambda one: one | {"epochs": {10: 20, 30: 20, 300: 4}[one["per_class"]]})

    def command(epochs: int, per_class: int, batch: int) -> dict[str, object]:
        amounts = [{"fraction": 1.0, "per_class": per_class}]
        return {"amounts": amounts, "protocol": {"epochs": epochs, "trials": 1, "batch_size": batch}}

    def batches(*listed: object) -> list[int]:
        (folder / "run.json").write_text(json.dumps({"matrix": command(4, 300, 32), "protocols": listed}))
        knowledge = read([folder])
        return [knowledge.protocol(2 * images, 2).batch_size for images in (10, 30, 300)]

    guess = "no run.json says what 20 epochs and 1 trials were run with, so batch size and the like are a guess"
    assert batches(command(20, 10, 16), command(20, 30, 8)) == [16, 8, 32]
    assert guess not in read([folder]).notes
    assert batches(command(20, 10, 16), None, 3) == [16, 32, 32]
    assert guess in read([folder]).notes


def test_the_reference_tells_every_protocol_that_it_was_run_with() -> None:
    knowledge = read([CHECKOUT / "results" / "reference"])
    few = [images if (images := task.images // task.classes) <= 50 else "all" for task in knowledge.tasks]
    told = {(images, p.epochs, p.batch_size) for images, p in zip(few, knowledge.protocols, strict=True)}
    assert told == {(10, 20, 16), (50, 10, 16), ("all", 6, 32)}
    assert not [note for note in knowledge.notes if "guess" in note]


def test_a_task_is_given_the_epochs_of_the_most_similar_amount(tmp_path: Path) -> None:
    folder = reference(tmp_path / "r", lambda one: one | {"epochs": {10: 20, 30: 9, 300: 4}[one["per_class"]]})
    knowledge = read([folder])
    assert [knowledge.protocol(2 * images, 2).epochs for images in (1, 15, 60, 20_000)] == [20, 20, 9, 4]
    assert knowledge.without(["a"]).protocol(600, 2).epochs == 4


def test_costs_are_beside_full_fine_tuning_of_the_same_backbone(tmp_path: Path) -> None:
    shares = relative(read([reference(tmp_path / "r")]))
    assert shares["full_finetune", "bundled:resnet"] == pytest.approx(1)
    assert shares["linear_probe", "bundled:mobilenet"] == pytest.approx(2 / 40)
    without = reference(tmp_path / "w", lambda r: r | {"strategy": r["strategy"].replace("full_finetune", "x")})
    with pytest.raises(UsageError, match="the reference has no full_finetune"):
        relative(read([without]))


def test_a_budget_is_a_time_with_its_unit() -> None:
    assert [parse_budget(text) for text in ("90s", "10min", "1.5 h", "10 minutes")] == [90, 600, 5400, 600]
    for wrong in ("10", "ten minutes", "0s", "-5min", "1e3s", "10m"):
        with pytest.raises(UsageError, match=r"--budget .* must be a time above 0 with its unit"):
            parse_budget(wrong)


def test_views_of_the_same_patients_are_left_out_together(tmp_path: Path) -> None:
    names = {"a": "organamnist", "b": "organcmnist"}
    folder = reference(tmp_path / "r", lambda one: one | {"dataset": names.get(one["dataset"], one["dataset"])})
    known = {task.dataset for task in read([folder]).tasks}
    assert {task.dataset for task in read([folder], ["organamnist"]).tasks} == known - set(names.values())


def test_too_little_to_learn_from_is_a_clear_error(tmp_path: Path) -> None:
    folder = reference(tmp_path / "r")
    with pytest.raises(UsageError, match=r'--leave-out aa: not in the reference\. Did you mean "a"'):
        read([folder], ["aa"])
    with pytest.raises(UsageError, match=r"results of fewer than 2 datasets .* leave fewer datasets out"):
        read([folder], ["a", "b", "c"])
    with pytest.raises(UsageError, match="No results"):
        read([tmp_path / "nowhere"])
    (folder / "run.json").write_text("[")
    (folder / "datasets.json").write_text('{"a 32 px": {"class_counts": 3}}')
    assert len(read([folder]).tasks) == 12
