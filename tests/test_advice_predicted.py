"""The model of the advice: it finds what was planted, knows what it does not know, and does not peek."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from bench.advice import predicted
from bench.advice.facts import Facts, differences, imbalance
from bench.advice.knowledge import Knowledge, read
from bench.advice.likeness import likeness
from bench.advice.predicted import predict
from bench.advice.validated import Judged, judged
from bench.advice.verdict import briefly, shown
from bench.errors import UsageError
from tests.fake_reference import reference
from tests.fake_results import Row


@pytest.fixture(scope="module")
def knowledge(tmp_path_factory: pytest.TempPathFactory) -> Knowledge:
    return read([reference(tmp_path_factory.mktemp("advice") / "reference")])


def asked(images: int, **changes: object) -> Facts:
    probe = {"bundled:resnet": 0.83, "bundled:mobilenet": 0.77}
    facts = Facts("new", 32, images, 200, 2, "binary", "x-ray", float("nan"), probe)
    return replace(facts, **changes)  # type: ignore[arg-type]


def test_the_best_strategy_for_the_amount_of_data_is_found_on_a_further_dataset(knowledge: Knowledge) -> None:
    few, many = predict(knowledge, [asked(20), asked(600)])
    assert few.candidates[int(few.auc.argmax())] == ("bitfit", "bundled:resnet")
    assert many.candidates[int(many.auc.argmax())] == ("full_finetune", "bundled:resnet")
    for prediction in (few, many):
        assert prediction.best.sum() == pytest.approx(1)
        assert prediction.best.argmax() == prediction.auc.argmax()
        low, high = prediction.interval
        assert ((low > 0) & (low < prediction.auc) & (prediction.auc < high) & (high < 1)).all()
        assert prediction.within(0.0)[prediction.auc.argmax()] == 1
        assert (prediction.within(0.02) <= prediction.within(0.5)).all()


def test_a_prediction_depends_on_no_other_target_and_is_the_same_every_time(knowledge: Knowledge) -> None:
    [alone] = predict(knowledge, [asked(20)])
    beside = predict(knowledge, [asked(600), asked(20)])[1]
    np.testing.assert_allclose(alone.draws, beside.draws, atol=1e-6)


def test_tasks_that_are_drawn_together_can_be_compared(knowledge: Knowledge) -> None:
    targets = [asked(20), asked(20, size=64, probe={"bundled:resnet": 0.83})]
    alone, together = predict(knowledge, targets), predict(knowledge, targets, together=True)
    for one, other in zip(alone, together, strict=True):
        assert one.candidates == other.candidates
        np.testing.assert_allclose(one.auc, other.auc, atol=5e-3)
        np.testing.assert_allclose(one.interval, other.interval, atol=2e-2)
    small, large = (p.candidates.index(("bitfit", "bundled:resnet")) for p in together)
    apart = np.std(together[1].draws[:, large] - together[0].draws[:, small])
    # What is not known of the strategy, backbone and dataset is the same in both, so the error of a lead is less.
    assert apart < np.hypot(together[1].draws[:, large].std(), together[0].draws[:, small].std())
    assert 0 < np.corrcoef(together[0].draws[:, small], together[1].draws[:, large])[0, 1] < 1


def test_of_more_cells_than_can_be_used_some_are_drawn(knowledge: Knowledge, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(predicted, "STANDS_ON", 60)
    monkeypatch.setattr(predicted, "FITTED_ON", 30)
    [found] = predict(knowledge, [asked(600)])
    assert found.candidates[int(found.auc.argmax())] == ("full_finetune", "bundled:resnet")


def test_what_is_unlike_all_that_is_known_is_less_sure(knowledge: Knowledge) -> None:
    near, far = predict(knowledge, [asked(60), asked(100_000, classes=50, kind="ordinal", modality="oct")])
    contrast = [np.std(p.draws[:, 0] - p.draws[:, 2]) for p in (near, far)]
    assert contrast[1] > contrast[0]


def test_unlike_datasets_are_flagged_and_the_facts_named(knowledge: Knowledge) -> None:
    assert not likeness(asked(60), knowledge.tasks, knowledge.tasks).unlike
    found = likeness(asked(10_000, classes=40), knowledge.tasks, knowledge.tasks)
    assert found.unlike
    assert found.apart[0] == "classes"


def test_facts_that_are_not_known_make_no_difference() -> None:
    assert differences(asked(60), asked(60, imbalance=0.5))["imbalance"] == 0
    assert differences(asked(60, imbalance=0.0), asked(60, imbalance=0.5))["imbalance"] == 2
    assert imbalance([50, 50, 50]) == pytest.approx(0)
    assert 0.5 < imbalance([1000, 1]) < 1
    assert np.isnan(imbalance([]))


def test_the_dataset_that_is_left_out_has_no_part_in_what_is_said_of_it(tmp_path: Path) -> None:
    def spoilt(one: Row) -> Row:
        if one["dataset"] != "b":
            return one
        return one | {"test_auc": 1 - one["test_auc"], "tune_seconds": 1e6, "n_train": 10**6, "modality": "oct"}

    one, other = (read([reference(tmp_path / name, f)], ["b"]) for name, f in (("x", dict), ("y", spoilt)))
    assert one.tasks == other.tasks
    first, second = (predict(k, [asked(60)])[0] for k in (one, other))
    np.testing.assert_array_equal(first.draws, second.draws)
    whole = read([tmp_path / "y"]).without({"b"})
    np.testing.assert_array_equal(first.draws, predict(whole, [asked(60)])[0].draws)


def test_a_task_is_unlike_where_its_strategy_was_run_on_one_dataset_only(knowledge: Knowledge) -> None:
    alone = [task for task in knowledge.tasks if task.dataset == "a"]
    found = likeness(asked(10_000, classes=40), alone, knowledge.tasks)
    assert found.unlike
    assert found.nearest.dataset == "a"
    assert not likeness(asked(60), alone, knowledge.tasks).unlike


def test_tasks_in_which_the_strategy_was_never_run_make_nothing_usual(knowledge: Knowledge) -> None:
    probed = [asked(10**5, dataset="huge", classes=40), asked(10**5, dataset="other", classes=3)]
    found = likeness(asked(3000), knowledge.tasks, [*knowledge.tasks, *probed])
    assert found == likeness(asked(3000), knowledge.tasks, knowledge.tasks)
    assert found.unlike


def test_validation_leaves_whole_datasets_out_and_says_what_it_found(knowledge: Knowledge) -> None:
    found = judged(knowledge)
    assert found.regret.index.value_counts().to_dict() == {"a": 3, "b": 3, "c": 3, "d": 3}
    assert (found.regret >= 0).all(axis=None)
    mean = found.regret.mean()
    assert mean["advice, first"] < mean["full_finetune"]  # planted: no fixed choice is best for every amount
    assert mean["advice, first"] < mean["fixed"]
    assert found.coverage > 0.8
    text = " ".join(one for one in shown(found) if isinstance(one, str))
    assert "The first of the list is better than always full_finetune: +0.0" in text
    assert "4 datasets (12 tasks: 32 px with 10 to 300 images a class), each left out" in text


def test_tasks_that_are_judged_and_those_that_are_not_are_named(tmp_path: Path) -> None:
    def larger(one: Row) -> Row:
        return one | ({"size": 64} if one["per_class"] == 300 else {})

    folder = reference(tmp_path / "r", larger)
    for path in (folder / "cells").iterdir():
        one = json.loads(path.read_bytes())
        if one["per_class"] == 30 and "finetune" in one["strategy"]:
            path.unlink()
    text = " ".join(one for one in shown(judged(read([folder]))) if isinstance(one, str))
    assert "4 datasets (8 tasks: 32 px with 10 images a class; 64 px with 300 images a class), each left out" in text
    assert "What advice is worth elsewhere (4 tasks: 32 px with 30 images a class) is not known" in text


def test_validation_of_some_networks_is_among_these_alone(knowledge: Knowledge) -> None:
    every, some = judged(knowledge), judged(knowledge, ["bundled:mobilenet"])
    pd.testing.assert_frame_equal(judged(knowledge, knowledge.labels).regret, every.regret)
    # Planted: every strategy is far better on the other network, so that the best of all cannot be what it is below.
    best = knowledge.cells.groupby(["task", "backbone"])["auc"].max().unstack()
    assert (some.regret["advice, first"] < (best["bundled:resnet"] - best["bundled:mobilenet"]).to_numpy()).all()
    text = " ".join(briefly(knowledge, ["bundled:mobilenet"]))
    assert "Of these 2 networks only bundled:mobilenet can be loaded on this machine" in text
    mean = some.regret["advice, first"].mean()
    assert f"4 datasets (12 tasks: 32 px with 10 to 300 images a class): advice, first {mean:.3f} (worst task" in text
    assert "The first of the list is better than always full_finetune: +0.0" in text
    assert "None of these 2 networks can be loaded" in " ".join(briefly(knowledge, []))


def test_validation_does_not_praise_advice_that_is_no_better(tmp_path: Path) -> None:
    def plain(one: Row) -> Row:
        return one | {"test_auc": 0.9 if one["strategy"] == "full_finetune" else 0.8}

    text = " ".join(one for one in shown(judged(read([reference(tmp_path / "r", plain)]))) if isinstance(one, str))
    assert "The first of the list is NOT SHOWN to be better than always full_finetune" in text
    assert "is better than" not in text


def test_a_verdict_is_corrected_for_the_number_of_verdicts() -> None:
    gains = {"a": 0.01, "b": 0.02, "c": 0.07, "d": 0.06, "e": 0.095}
    ways = dict.fromkeys(("advice, first", "advice, list", "advice, cheapest", "linear_probe", "fixed"), 0.0)
    ways["advice, cheapest"] = 0.02
    regret = pd.DataFrame([ways | {"full_finetune": gain, "dataset": name} for name, gain in gains.items()])
    found = Judged(regret.set_index("dataset"), 0.95, [asked(20)], [])
    text = " ".join(one for one in shown(found) if isinstance(one, str))
    # Student's p is .0323 alone; of four, two like it and two of no difference, it is four times as much.
    assert "The first of the list is NOT SHOWN to be better than always full_finetune: +0.051 (+0.007 to" in text
    assert "AUC, p = .129." in text
    assert "(at most 0.01 AUC below it) in 0 of the 5 tasks in" in text
    assert "corrected for these 4 comparisons (Holm)" in text


def test_too_few_datasets_to_validate_on_is_a_clear_error(knowledge: Knowledge) -> None:
    with pytest.raises(UsageError, match=r"--validate needs 3 datasets, .* the reference has 2\. Give more folders"):
        judged(knowledge.without({"a", "b"}))


def test_datasets_of_the_same_patients_are_one_to_validate_on(tmp_path: Path) -> None:
    names = dict(zip("abcd", ("organamnist", "organcmnist", "organsmnist", "d"), strict=True))
    kin = read([reference(tmp_path / "r", lambda one: one | {"dataset": names[one["dataset"]]})])
    with pytest.raises(UsageError, match=r"the reference has 2 \(of 4, some are of the same patients\)\."):
        judged(kin)
