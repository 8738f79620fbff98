"""Trust: nothing missing is passed over, looks at the test images are counted, mixed sources are named."""

from __future__ import annotations

import json
import re
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest

from bench.contract import Backbone
from bench.report import planned, trust
from bench.report.page import gather
from bench.report.section import Evidence
from tests.fake_results import Row, audited, row, rows, write

EVIL = """<script>alert(1)</script>"""
LOST = {"test_auc": None, "test_auc_lo": None, "test_auc_hi": None}


def evidence(*folders: Path) -> Evidence:
    return gather(list(folders))[0]


def plan(folder: Path, **changes: Any) -> Path:
    """Give the folder a run.json as a run writes it."""
    matrix = {
        "backbones": [asdict(Backbone("resnet18", "random")), asdict(Backbone("resnet18", cut=3, name="mine"))],
        "strategies": ["scratch", "linear_probe"],
        "datasets": ["d", "e"],
        "sizes": [64],
        "amounts": [{"fraction": 1.0, "per_class": None}, {"fraction": 1.0, "per_class": 10}],
        "seeds": 2,
        "only": [],
        **changes,
    }
    (folder / "run.json").write_text(json.dumps({"name": folder.name, "matrix": matrix}))
    return folder


def full() -> list[Row]:
    """Every row that `plan` asks for."""
    return [
        row(dataset, backbone, strategy, seed, 0.8 + seed / 100, per_class=n,
            fingerprint=f"{dataset}{backbone[:2]}{strategy}{n}")
        for dataset in "de" for backbone in ("resnet18 random", "mine") for strategy in ("scratch", "linear_probe")
        for n in (None, 10) for seed in range(2)
    ]  # fmt: skip


def text_of(found: Evidence) -> str:
    return re.sub(r"\s+", " ", re.sub(r"<[^>]+>", " ", trust.section(found).body))


def test_a_whole_run_lacks_nothing(tmp_path: Path) -> None:
    found = evidence(plan(write(tmp_path / "run", full())))
    counts, missing = trust.coverage(found)
    assert counts["planned"].tolist() == counts["result"].tolist() == [16, 16]
    assert missing.empty
    assert not counts[["missing", "extra", *trust.STATUSES]].to_numpy().any()
    assert "32 runs were planned; every one left a row" in text_of(found)


def test_what_is_missing_skipped_or_failed_is_counted_with_reasons(tmp_path: Path) -> None:
    made = full()
    made = [one for one in made if (one["dataset"], one["backbone"]) != ("e", "mine")]
    made[0] |= LOST | {"status": "failed", "reason": "DataError: gone"}
    made[1] |= LOST | {"status": "skipped", "reason": "does not apply"}
    made[2] |= LOST | {"status": "oom", "reason": ""}
    made[3] |= LOST
    made.append(row("d", "mine", "earlier", 0, 0.8))
    found = evidence(plan(write(tmp_path / "run", made)))
    counts, missing = trust.coverage(found)
    by = counts.set_index("strategy")
    first = made[0]["strategy"]
    assert by.loc[first, ["failed", "skipped", "oom", "undefined"]].tolist() == [1, 1, 1, 1]
    assert by["missing"].to_dict() == {"scratch": 4, "linear_probe": 4, "earlier": 0}
    assert by["extra"].to_dict() == {"scratch": 0, "linear_probe": 0, "earlier": 1}
    assert set(missing["dataset"]) == {"e"}
    said = text_of(found)
    for text in ("8 left no row", "DataError: gone", "does not apply", "no reason recorded", "Beyond the plan"):
        assert text in said, text
    assert by[["result", "failed", "skipped", "oom", "undefined"]].to_numpy().sum() == len(made)


def test_ensembles_are_no_planned_runs(tmp_path: Path) -> None:
    """They have rows of their own, under other names and in other places than the matrix has cells."""
    strategies = ["scratch", "linear_probe", "ensemble_mean", "ensemble_greedy"]
    folder = plan(write(tmp_path / "run", full()), strategies=strategies)
    run = json.loads((folder / "run.json").read_text())
    (folder / "run.json").write_text(json.dumps(run | {"plan": {"fusions": strategies[2:]}}))
    assert "32 runs were planned; every one left a row" in text_of(evidence(folder))
    made = row("d", "all backbones", "ensemble_mean(scratch)", 0, 0.9, fusion="ensemble_mean", over="backbones",
               members="[]", fingerprint="made")  # fmt: skip
    old = plan(write(tmp_path / "old", [*full(), made]), strategies=strategies[:3])  # its run.json names no fusions
    counts, missing = trust.coverage(evidence(old))
    assert counts["strategy"].tolist() == ["linear_probe", "scratch"]
    assert missing.empty


def test_a_plan_is_the_last_commands_where_there_are_rows_of_others(tmp_path: Path) -> None:
    said = text_of(evidence(plan(write(tmp_path / "run", full()), datasets=["d"])))
    assert "16 runs were planned by the last command; every one left a row" in said


def test_a_plan_keeps_to_its_only(tmp_path: Path) -> None:
    only = [["dataset", "d"], ["backbone", "resnet*"], ["per_class", "10"]]
    counts, _ = trust.coverage(evidence(plan(write(tmp_path / "run", full()), only=only)))
    assert counts["planned"].tolist() == [2, 2]
    assert counts["extra"].tolist() == [14, 14]


def test_brackets_of_a_cut_backbone_are_no_pattern(tmp_path: Path) -> None:
    cut = [asdict(Backbone("resnet18", cut=3))]
    folder = plan(write(tmp_path / "run", []), backbones=cut, only=[["backbone", "resnet18[:3]"]])
    assert {key[1] for key in planned.cells(evidence(folder).runs[0]) or ()} == {"resnet18[:3]"}


def test_an_unknown_plan_is_said_and_not_taken_for_a_whole_one(tmp_path: Path) -> None:
    known = plan(write(tmp_path / "known", full()))
    unknown = write(tmp_path / "unknown", rows())
    found = evidence(known, unknown)
    assert trust.coverage(found)[0]["planned"].isna().all()
    assert "what is missing altogether cannot be told" in text_of(found)


def test_plans_of_several_folders_add_up(tmp_path: Path) -> None:
    made = full()
    halves = [
        plan(write(tmp_path / name, part), datasets=[name]) for name, part in (("d", made[:16]), ("e", made[16:]))
    ]
    counts, missing = trust.coverage(evidence(*halves))
    assert counts["planned"].tolist() == [16, 16]
    assert missing.empty


def test_looks_at_the_test_images_are_fits_and_scored_trials(tmp_path: Path) -> None:
    folder = plan(write(tmp_path / "run", full()))
    cell = full()[0]["fingerprint"]
    trial = {"number": 7, "hparams": {}, "state": "complete", "val_auc": 0.8, "target_test_auc": 0.7}
    with (folder / "cells" / f"{cell}.trials.jsonl").open("a") as file:
        file.write(json.dumps(trial) + "\n")
    found = trust.touches(evidence(folder)).set_index("dataset")
    assert found["fits"].to_dict() == {"d": 16, "e": 16}
    assert found["cells"].to_dict() == {"d": 8, "e": 8}
    assert found["trials"].to_dict() == {"d": 1, "e": 0}
    error = 0.02 / (2 * 1.959964)
    assert found.loc["d", "error"] == pytest.approx(error)
    aucs = pd.DataFrame(full()).query("dataset == 'd'").groupby("fingerprint")["test_auc"]
    seeds = np.sqrt(aucs.var().mean() / 2)
    assert found.loc["d", "seeds"] == pytest.approx(seeds)
    assert found.loc["d", "flattery"] == pytest.approx(np.hypot(error, seeds) * 1.4236, rel=1e-3)
    assert "Trials scored" in text_of(evidence(folder))


def test_ensembles_have_looked_at_the_test_images_too(tmp_path: Path) -> None:
    first = full()[0]
    member = json.dumps([{"fingerprint": first["fingerprint"], "seed": 0, "label": "x", "weight": 1.0}])
    made = row("d", "all backbones", "ensemble_mean(scratch)", 0, 0.9, fusion="ensemble_mean", over="backbones",
               members=member, fingerprint="made")  # fmt: skip
    given = evidence(write(tmp_path / "run", [*full(), made]))
    assert len(given.ensembles) == 1
    found = trust.touches(given).set_index("dataset")
    assert found["fits"].to_dict() == {"d": 17, "e": 16}
    assert found["cells"].to_dict() == {"d": 9, "e": 8}
    assert "Fits and ensembles scored" in text_of(given)


def test_superseded_rows_have_looked_too(tmp_path: Path) -> None:
    old = [one | {"fingerprint": "old", "finished_utc": "2024-01-01T00:00:00Z"} for one in full()[:2]]
    assert "2 runs of earlier versions" in text_of(evidence(write(tmp_path / "run", full() + old)))


def test_a_reader_who_takes_the_best_cell_is_flattered_by_seeds_too(tmp_path: Path) -> None:
    """200 cells that are equally good, whose seeds differ more than the test images make them."""
    draw = np.random.default_rng(0).normal(0.8, 0.01, (200, 3))
    made = [row("d", "b", f"s{at:03d}", seed, float(auc), test_auc_lo=auc - 0.006, test_auc_hi=auc + 0.006)
            for at, aucs in enumerate(draw) for seed, auc in enumerate(aucs)]  # fmt: skip
    found = trust.touches(evidence(write(tmp_path / "run", made))).iloc[0]
    assert found["flattery"] >= draw.mean(axis=1).max() - 0.8
    one = evidence(write(tmp_path / "one", made[::3]))
    assert np.isnan(trust.touches(one)["seeds"].iloc[0])
    assert trust.touches(one)["flattery"].iloc[0] > 0
    assert "Of d it leaves out what seeds do: no cell there has several." in text_of(one)


def test_the_expected_best_is_that_of_normal_draws() -> None:
    assert trust.expected_best(1) == pytest.approx(0, abs=1e-9)
    assert trust.expected_best(2) == pytest.approx(1 / np.sqrt(np.pi), rel=1e-5)
    assert trust.expected_best(3) == pytest.approx(3 / (2 * np.sqrt(np.pi)), rel=1e-5)
    drawn = np.random.default_rng(0).normal(size=(20_000, 30)).max(axis=1).mean()
    assert trust.expected_best(30) == pytest.approx(drawn, rel=0.01)


def test_mixed_sources_are_named(tmp_path: Path) -> None:
    made = full()
    made[0] |= {"data_hash": "another", "source_hash": "edited", "device": "cuda", "engine": 0, "git_dirty": True}
    made[0] |= {"noncommercial": True}
    made[8] |= {"weights_hash": "other", "pretrained": True}
    made[9] |= {"pretrained": True}
    for one in made[16:]:
        one["licence"] = None
    made[28]["trials"] = made[29]["trials"] = 9
    said = text_of(evidence(write(tmp_path / "run", made)))
    for text in (
        "rows come from different images or splits: d at 64 px",
        "rows come from different source code: scratch",
        "rows come from different weights: mine",
        "2 devices: times cannot be compared",
        "2 engines",
        "The protocol of strategies differs on e: scratch (4 trials); linear_probe (9 trials).",
        "1 run from code that no commit records",
        "Not for commercial use: d",
        "Not known, so ask before passing images or models on: e",
    ):
        assert text in said, text
    clean = text_of(evidence(write(tmp_path / "clean", full())))
    for text in ("One hash for each dataset and size", "One device", "none forbids commercial use", "One commit.",
                 "The same for strategies that are compared."):  # fmt: skip
        assert text in clean, text


def test_copies_in_test_are_named_and_so_is_what_was_not_audited(tmp_path: Path) -> None:
    folder = write(tmp_path / "run", full())
    overlap = {"first": "train", "second": "test", "exact": 1, "near": 22, "examples": []}
    clean = {"first": "train", "second": "val", "exact": 5, "near": 5, "examples": []}
    entry = audited("d", overlaps=[overlap, clean])
    (folder / "datasets.json").write_text(json.dumps({"d 64 px": entry}))
    said = text_of(evidence(folder))
    assert "In test: d train–test: 1 exact, 22 near. They make a test score too good. Not looked for in e." in said
    assert "train–val" not in said


@pytest.mark.parametrize("made", [[], [row("d", "b", "s", 0, 0.8) | LOST | {"status": "failed", "reason": None}]])
def test_a_run_without_results_has_a_section(tmp_path: Path, made: list[Row]) -> None:
    assert "no test image has been scored" in text_of(evidence(write(tmp_path / "run", made)))


def test_hostile_names_are_only_text(tmp_path: Path) -> None:
    made = [row(EVIL, EVIL, EVIL, 0, 0.8, licence=EVIL, noncommercial=True),
            row(EVIL, "b", EVIL, 0, 0.8, **LOST, status="failed", reason=EVIL, fingerprint="f")]  # fmt: skip
    folder = plan(write(tmp_path / "run", made), datasets=[EVIL], strategies=[EVIL])
    body = trust.section(evidence(folder)).body
    assert "<script" not in body
    assert body.count("&lt;script&gt;") > 5
