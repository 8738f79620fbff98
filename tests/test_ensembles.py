"""From a matrix to the rows of its ensembles: who is a member, what it costs, and when it is made anew."""

from __future__ import annotations

import json
import shutil
from collections import Counter
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from rich.console import Console

from bench import fuse, registry, store
from bench.config import Matrix
from bench.contract import Backbone, Protocol
from bench.ensembles import ALL_BACKBONES, Candidate, Ensemble, ensembles
from bench.errors import UsageError
from bench.executors import execute
from bench.fuse import fuse_missing
from bench.imported import import_predictions
from bench.metrics import auc, probabilities
from bench.plan import Plan, make_plan
from bench.report.frames import current, read_rows
from tests.small import CHECKOUT, NET, matrix, opened

CONSOLE = Console(quiet=True)
OVER = ("backbones", "seeds", "strategies", "all", "views")
OTHER = Backbone("test_resnet", weights="random", cut=2)


def candidate(backbone: str, strategy: str, views: int = 0, **more: Any) -> Candidate:
    facts = {"dataset": "d", "size": 28, "fraction": 1.0, "per_class": None, "seeds": (0, 1)} | more
    return Candidate(f"{backbone}/{strategy}", backbone=backbone, strategy=strategy, views=views, **facts)


SQUARE = [candidate(backbone, strategy) for backbone in "AB" for strategy in ("probe", "tune")]


def made(candidates: list[Candidate], over: tuple[str, ...] = OVER) -> list[Ensemble]:
    return ensembles(candidates, {"mean": "hash"}, over)


def shown(found: list[Ensemble]) -> set[tuple[str, str, int]]:
    return {(one.backbone, one.strategy, one.seed) for one in found}


def test_members_differ_in_one_thing_each() -> None:
    found = made(SQUARE)
    assert Counter(one.over for one in found) == {"backbones": 4, "seeds": 4, "strategies": 4, "all": 2}
    assert (ALL_BACKBONES, "mean(tune)", 1) in shown(found)
    assert ("A", "mean(seeds of probe)", 0) in shown(found)
    assert ("B", "mean(strategies)", 1) in shown(found)
    of = {(one.over, one.backbone, one.strategy, one.seed): one.members for one in found}
    assert {m.fingerprint for m in of["all", ALL_BACKBONES, "mean(all)", 0]} == {c.fingerprint for c in SQUARE}
    assert {m.seed for m in of["all", ALL_BACKBONES, "mean(all)", 1]} == {1}
    assert {m.seed for m in of["seeds", "A", "mean(seeds of probe)", 0]} == {0, 1}


def test_all_is_not_said_twice() -> None:
    assert not [one for one in made([candidate("A", "probe"), candidate("A", "tune")]) if one.over == "all"]


def test_members_see_the_same_task() -> None:
    assert made([candidate("A", "tune"), candidate("B", "tune", size=64)], ("backbones",)) == []
    assert made([candidate("A", "tune"), candidate("B", "tune", per_class=10)], ("backbones",)) == []


def test_what_is_asked_for_is_made() -> None:
    assert {one.over for one in made(SQUARE, ("seeds",))} == {"seeds"}


def test_views_are_members_of_one_network() -> None:
    found = [one for one in made([candidate("A", "tune", views=2)]) if one.over == "views"]
    assert [[member.view for member in one.members] for one in found] == [[0, 1, 2]] * 2


def test_imported_predictions_are_members_over_all() -> None:
    theirs = candidate("theirs", "imported", seeds=(0,), imported=True)
    found = {(one.over, one.seed): one.members for one in made([*SQUARE, theirs], ("all", "backbones", "strategies"))}
    assert theirs.fingerprint in {member.fingerprint for member in found["all", 0]}
    assert theirs.fingerprint not in {member.fingerprint for member in found["all", 1]}
    assert all("theirs" not in one.backbone for one in made([*SQUARE, theirs]))


def test_a_changed_member_or_fusion_is_another_ensemble() -> None:
    before = {one.fingerprint for one in made(SQUARE, ("all",))}
    assert len(before) == 1  # one for both seeds
    changed = [candidate("A", "edited"), *SQUARE[1:]]
    assert before.isdisjoint(one.fingerprint for one in made(changed, ("all",)))
    assert before.isdisjoint(one.fingerprint for one in ensembles(SQUARE, {"mean": "edited"}, ("all",)))


@pytest.fixture(scope="module")
def ran(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, pd.DataFrame]:
    results = tmp_path_factory.mktemp("ensembles")
    execute(make_plan(small(results), CHECKOUT), CONSOLE, "", {})
    return results, current(read_rows(results))


def small(results: Path, **changes: object) -> Matrix:
    facts = {
        "strategies": ("linear_probe", "knn_probe", "ensemble_mean", "ensemble_greedy"),
        "backbones": (NET, OTHER),
        "protocol": Protocol(epochs=1, trials=1, batch_size=64, views=1),
    }
    return matrix(results, **facts | changes)


def test_ensembles_are_rows_beside_their_members(ran: tuple[Path, pd.DataFrame]) -> None:
    results, rows = ran
    assert set(rows["status"]) == {"ok"}
    assert rows["fusion"].isna().sum() == 2 * 2 * 2
    # Over backbones 2, strategies 2, all 1, views 4, each for two seeds, and over seeds 4; two fusions of each.
    assert rows["fusion"].notna().sum() == 2 * (2 * (2 + 2 + 1 + 4) + 4)
    assert make_plan(small(results), CHECKOUT).unfused == []


def test_the_mean_is_that_of_the_stored_predictions(ran: tuple[Path, pd.DataFrame]) -> None:
    results, rows = ran
    row = rows[(rows["strategy"] == "ensemble_mean(all)") & (rows["seed"] == 1)].iloc[0]
    members = json.loads(row["members"])
    assert [member["weight"] for member in members] == [0.25] * 4
    stored = [arrays(results, member["fingerprint"], member["seed"]) for member in members]
    mean = np.mean([probabilities(one["test_logits"], "binary") for one in stored], axis=0)
    fused = arrays(results, row["fingerprint"], 1)
    assert probabilities(fused["test_logits"], "binary") == pytest.approx(mean, abs=1e-6)
    assert row["test_auc"] == pytest.approx(auc(stored[0]["test_labels"], mean, "binary"))


def test_an_ensemble_costs_what_its_members_cost(ran: tuple[Path, pd.DataFrame]) -> None:
    _, rows = ran
    single = rows[rows["fusion"].isna()].set_index(["backbone", "strategy", "seed"])
    of_all = rows[(rows["strategy"] == "ensemble_mean(all)") & (rows["seed"] == 0)].iloc[0]
    assert of_all["fit_seconds"] == pytest.approx(single.xs(0, level="seed")["fit_seconds"].sum())
    views = rows[(rows["strategy"] == "ensemble_mean(views of knn_probe)") & (rows["backbone"] == NET.label)].iloc[0]
    one = single.loc[(NET.label, "knn_probe", 0)]
    assert views["fit_seconds"] == pytest.approx(one["fit_seconds"])  # one network
    assert views["predict_ms"] == pytest.approx(2 * one["predict_ms"])  # that is asked twice
    assert (rows[rows["fusion"].notna()]["fuse_seconds"] > 0).all()


def test_a_view_is_another_look_at_the_same_images(ran: tuple[Path, pd.DataFrame]) -> None:
    results, rows = ran
    row = rows[(rows["strategy"] == "linear_probe") & (rows["seed"] == 0)].iloc[0]
    found = arrays(results, row["fingerprint"], 0)
    assert found["test_views"].shape == (1, *found["test_logits"].shape)
    assert not np.allclose(found["test_views"][0], found["test_logits"])


def test_an_ensemble_waits_for_its_members(ran: tuple[Path, pd.DataFrame], tmp_path: Path) -> None:
    plan = make_plan(small(tmp_path), CHECKOUT)
    assert fuse_missing(plan, CONSOLE) == []
    assert store.finished(tmp_path) == set()


def test_an_edited_strategy_makes_its_ensembles_stale(ran: tuple[Path, pd.DataFrame]) -> None:
    results, _ = ran
    edited = small(results, settings={"knn_probe": {"k": 3}})
    plan = make_plan(edited, CHECKOUT)
    stale = {one.strategy for one in plan.unfused if "ensemble_mean" in one.fusion}
    assert stale == {
        "ensemble_mean(knn_probe)", "ensemble_mean(seeds of knn_probe)", "ensemble_mean(strategies)",
        "ensemble_mean(all)", "ensemble_mean(views of knn_probe)",
    }  # fmt: skip


def test_a_diverged_member_is_left_out_and_named(tmp_path: Path) -> None:
    plan = fake(tmp_path, {"A": "ok", "B": "ok", "C": "diverged"})
    assert fuse_missing(plan, CONSOLE) == ["ok"]
    row = read_rows(tmp_path).query("fusion == 'ensemble_mean'").iloc[0]
    assert len(json.loads(row["members"])) == 2
    assert "left out: C · tune · seed 0 (diverged)" in row["notes"]


@pytest.mark.parametrize(("size", "reads"), [(28, 2), (56, 4)])
def test_predictions_are_kept_for_the_ensembles_of_one_place_only(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, size: int, reads: int
) -> None:
    """Which share members; else those of a whole matrix would fill the memory."""
    plan = fake(tmp_path, {"A": "ok", "B": "ok"})
    [one] = plan.ensembles
    other = replace(one, fingerprint="other", place=("d", size, 1.0, None))
    read, made = [], fuse.read_predictions
    monkeypatch.setattr(fuse, "read_predictions", lambda *key: read.append(key) or made(*key))
    assert one.place == ("d", 28, 1.0, None)
    assert fuse_missing(replace(plan, ensembles=(one, other)), CONSOLE) == ["ok", "ok"]
    assert len(read) == reads


def test_one_member_is_no_ensemble(tmp_path: Path) -> None:
    assert fuse_missing(fake(tmp_path, {"A": "ok", "C": "diverged"}), CONSOLE) == ["skipped"]


def test_members_are_joined_by_image_ids(tmp_path: Path) -> None:
    plan = fake(tmp_path, {"A": "ok", "B": "ok"}, order={"B": [2, 0, 3, 1]})
    assert fuse_missing(plan, CONSOLE) == ["ok"]
    fused = arrays(tmp_path, plan.unfused[0].fingerprint, 0)
    assert probabilities(fused["test_logits"], "binary")[:, 1] == pytest.approx([0.1, 0.4, 0.6, 0.8], abs=1e-6)


def test_members_of_other_images_are_refused(tmp_path: Path) -> None:
    plan = fake(tmp_path, {"A": "ok", "B": "ok"}, ids={"B": ["1", "2", "3", "5"]})
    assert fuse_missing(plan, CONSOLE) == ["failed"]
    reason = read_rows(tmp_path).query("fusion == 'ensemble_mean'").iloc[0]["reason"]
    assert reason == "B · tune · seed 0 and A · tune · seed 0 did not predict the same test images."


def test_damaged_predictions_are_named(tmp_path: Path) -> None:
    plan = fake(tmp_path, {"A": "ok", "B": "ok"})
    np.savez(tmp_path / "cells" / "B-tune-s0.npz", test_logits=np.zeros((4, 2)))
    assert fuse_missing(plan, CONSOLE) == ["failed"]
    reason = read_rows(tmp_path).query("fusion == 'ensemble_mean'").iloc[0]["reason"]
    assert "B-tune-s0.npz does not hold predictions of test. Delete it" in reason


@pytest.mark.parametrize("at", [0, 64])  # the first byte of what is packed is the 65th
def test_predictions_that_cannot_be_unpacked_are_named(tmp_path: Path, at: int) -> None:
    plan = fake(tmp_path, {"A": "ok", "B": "ok"})
    path = tmp_path / "cells" / "B-tune-s0.npz"
    whole = path.read_bytes()
    path.write_bytes(whole[:at] + b"\xff" * 3 + (whole[at + 3 :] if at else b""))
    assert fuse_missing(plan, CONSOLE) == ["failed"]
    reason = read_rows(tmp_path).query("fusion == 'ensemble_mean'").iloc[0]["reason"]
    assert "B-tune-s0.npz cannot be read" in reason


@pytest.mark.parametrize("fusion", ["ensemble_weighted", "ensemble_greedy", "ensemble_ranks"])
def test_labels_of_test_change_no_prediction(tmp_path: Path, fusion: str) -> None:
    found = []
    for folder, flipped in ((tmp_path / "as they are", False), (tmp_path / "flipped", True)):
        plan = fake(folder, {"A": "ok", "B": "ok"}, fusion=fusion)
        for backbone in "AB" if flipped else "":
            own = arrays(folder, f"{backbone}-tune", 0)
            np.savez(folder / "cells" / f"{backbone}-tune-s0.npz", **own | {"test_labels": 1 - own["test_labels"]})
        assert fuse_missing(plan, CONSOLE) == ["ok"]
        found.append(arrays(folder, plan.unfused[0].fingerprint, 0))
    assert not np.array_equal(found[0]["test_labels"], found[1]["test_labels"])
    np.testing.assert_array_equal(found[0]["test_logits"], found[1]["test_logits"])


def test_a_fusion_that_raises_fails_its_rows_only(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    plan = fake(tmp_path, {"A": "ok", "B": "ok"})

    def fit(*_: object) -> None:
        raise ZeroDivisionError("no")

    monkeypatch.setattr(type(registry.load_fusion("ensemble_mean", CHECKOUT)), "fit", fit)
    assert fuse_missing(plan, CONSOLE) == ["failed"]
    assert (
        "ensemble_mean raised ZeroDivisionError: no"
        in read_rows(tmp_path).query("status == 'failed'").iloc[0]["reason"]
    )


def test_ensembles_need_members(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="ensembles of nothing"):
        make_plan(matrix(tmp_path, strategies=("ensemble_mean",)), CHECKOUT)


def test_only_some_members_make_no_ensemble(tmp_path: Path) -> None:
    plan = make_plan(small(tmp_path, only=(("strategy", "knn_probe"),)), CHECKOUT)
    assert plan.ensembles == ()
    assert any("ensembles" in note for note in plan.notes)


def test_imported_predictions_are_fused_with_ours(ran: tuple[Path, pd.DataFrame], tmp_path: Path) -> None:
    shutil.copytree(ran[0], tmp_path / "results")
    labels = np.asarray(opened("phantom-radiograph").load("test", 16).labels)
    theirs = np.clip(labels * 0.6 + 0.2, 0, 1)
    file = tmp_path / "test_[AUC]1.000@0.csv"
    pd.DataFrame(np.stack([1 - theirs, theirs], axis=1)).to_csv(file, header=None)
    (row,) = import_predictions(
        [file], "theirs", tmp_path / "results", tmp_path, CHECKOUT, dataset="phantom-radiograph", size=16
    )
    assert row["test_auc"] == 1
    plan = make_plan(small(tmp_path / "results", over=("all",)), CHECKOUT)
    store.record_planned(tmp_path / "results", plan.fingerprints)  # as the command does
    assert Counter(fuse_missing(plan, CONSOLE)) == {"ok": 3, "skipped": 1}  # greedy wants predictions of val
    rows = current(read_rows(tmp_path / "results"))
    mean = rows[(rows["strategy"] == "ensemble_mean(all)") & (rows["seed"] == 0)].iloc[0]
    assert "theirs · imported · seed 0" in mean["members"]
    assert pd.isna(mean["fit_seconds"])  # nobody knows what they cost


def arrays(results: Path, fingerprint: str, seed: int) -> dict[str, np.ndarray]:
    with np.load(results / "cells" / f"{fingerprint}-s{seed}.npz") as file:
        return dict(file)


SCORES = {"A": [0.1, 0.3, 0.7, 0.8], "B": [0.1, 0.5, 0.5, 0.8]}


def fake(
    results: Path, statuses: dict[str, str], order: dict[str, list[int]] | None = None,
    ids: dict[str, list[str]] | None = None, fusion: str = "ensemble_mean",
) -> Plan:  # fmt: skip
    """A plan of one ensemble over backbones, whose members' rows are there already."""
    labels, names = np.array([0, 0, 1, 1]), np.array(["1", "2", "3", "4"])
    for backbone, status in statuses.items():
        row = {"fingerprint": f"{backbone}/tune".replace("/", "-"), "seed": 0, "status": status, "kind": "binary"}
        row |= {"dataset": "d", "backbone": backbone, "strategy": "tune", "size": 28, "fraction": 1.0, "family": "x"}
        predictions = None
        if status == "ok":
            scores = np.array(SCORES[backbone])
            at = (order or {}).get(backbone, [0, 1, 2, 3])
            own = {
                "logits": np.log(np.stack([1 - scores, scores], axis=1))[at].astype(np.float32),
                "labels": labels[at],
                "ids": np.array((ids or {}).get(backbone, names))[at],
            }
            predictions = {f"{split}_{name}": array for split in ("val", "test") for name, array in own.items()}
        store.publish(results, row, predictions)
    cells = [candidate(backbone, "tune", seeds=(0,)) for backbone in statuses]
    cells = [Candidate(**vars(one) | {"fingerprint": one.fingerprint.replace("/", "-")}) for one in cells]
    found = ensembles(cells, {fusion: "hash"}, ("backbones",))
    return Plan(matrix(results), CHECKOUT, [], set(), ensembles=tuple(found))
