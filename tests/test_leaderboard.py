"""Rankings stand on complete blocks, count datasets alike and claim no more than the seeds show."""

from __future__ import annotations

import dataclasses
import re
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest

from bench.report.frames import current, read_rows
from bench.report.leaderboard import Leaderboard, leaderboard
from bench.report.same_images import judged_on
from bench.report.significance import TooFew, against_control
from bench.report.stands import lacking, settings, stands_on
from bench.report.words import answer, cautions, winner
from tests.fake_results import Row, row, rows, uneven, write


@pytest.fixture
def table(tmp_path: Path) -> Any:
    """Row dictionaries -> current rows, through the disk as in a real run."""

    def through_disk(made: list[Row]) -> pd.DataFrame:
        return current(read_rows(write(tmp_path / f"run{len(list(tmp_path.iterdir()))}", made)))

    return through_disk


def cell(dataset: str, backbone: str, strategy: str, aucs: list[float], **changes: Any) -> list[Row]:
    return [row(dataset, backbone, strategy, seed, auc, **changes) for seed, auc in enumerate(aucs)]


def by_label(board: Leaderboard) -> pd.DataFrame:
    return board.table.set_index("label")


def test_a_datasets_backbones_share_its_weight(table: Any) -> None:
    made = [
        *cell("d1", "b1", "scratch", [0.6, 0.6]), *cell("d1", "b1", "full_finetune", [0.7, 0.7]),
        *cell("d1", "b2", "scratch", [0.6, 0.6]), *cell("d1", "b2", "full_finetune", [0.9, 0.9]),
        *cell("d2", "b1", "scratch", [0.9, 0.7]), *cell("d2", "b1", "full_finetune", [0.6, 0.6]),
    ]  # fmt: skip
    board = leaderboard(table(made))
    found = by_label(board)
    assert found.loc["full_finetune", "auc"] == pytest.approx((0.8 + 0.6) / 2)
    assert found.loc["scratch", "auc"] == pytest.approx((0.6 + 0.8) / 2)
    assert found["mean_rank"].to_dict() == {"full_finetune": 1.5, "scratch": 1.5}
    assert found["wins"].to_dict() == {"full_finetune": 1, "scratch": 1}
    assert found.loc["full_finetune", "gain"] == pytest.approx(0.0)
    assert np.isnan(found.loc["scratch", "gain"])
    assert (board.control, board.blocks_used, board.blocks_any, board.datasets) == ("scratch", 3, 3, ("d1", "d2"))


@pytest.mark.parametrize(
    ("dataset", "images"),
    [
        ("breastmnist", "breastmnist"),
        ("organamnist", "organ{a,c,s}mnist"),
        ("organamnist->organcmnist", "organ{a,c,s}mnist"),
        ("organamnist->corrupted:blur-1", "organ{a,c,s}mnist"),
        ("breastmnist->corrupted:blur-3", "breastmnist"),
        ("csv:scans.csv@siemens->@philips", "csv:scans.csv@philips"),
        ("csv:a@b.csv@siemens->corrupted:blur-3", "csv:a@b.csv@siemens"),
    ],
)
def test_what_a_dataset_is_tested_on(dataset: str, images: str) -> None:
    assert judged_on(dataset) == images


def test_shifts_that_are_tested_on_the_same_images_are_one_dataset(table: Any) -> None:
    made = []
    for kind in range(6):
        for strategy, auc in (("scratch", 0.6), ("full_finetune", 0.7)):
            made += cell(f"d1->corrupted:blur-{kind}", "b", strategy, [auc, auc + 0.01])
    for strategy, auc in (("scratch", 0.9), ("full_finetune", 0.6)):
        made += cell("d2", "b", strategy, [auc, auc + 0.01])
    board = leaderboard(table(made))
    assert board.matrix is not None
    assert board.matrix.datasets == ("d1", "d2")
    assert len(board.datasets) == 7
    assert by_label(board).loc["full_finetune", "auc"] == pytest.approx((0.705 + 0.605) / 2)
    assert isinstance(against_control(board), TooFew)
    assert "on 1 of 2 datasets (those that are tested on the same images or patients are one)" in " ".join(
        answer(board, table(made))
    )


def test_a_strategy_that_adapts_to_the_test_images_wins_nothing(table: Any) -> None:
    made = [*cell("d", "b", "scratch", [0.6, 0.61]), *cell("d", "b", "full_finetune", [0.7, 0.71])]
    rows = table([*made, *cell("d", "b", "tent", [0.9, 0.91], transductive=True)])
    board = leaderboard(rows)
    assert board.ranked["label"].tolist() == ["full_finetune", "scratch"]
    assert "tent" in board.table["label"].tolist()
    assert (
        "Transductive",
        "tent is not ranked: it adapts to the test images themselves, which the others never see.",
    ) in (cautions(rows))
    assert leaderboard(rows, "backbone").ranked["label"].tolist() == ["b"]


def test_it_is_said_that_all_seeds_share_a_draw_of_training_images(table: Any) -> None:
    few = table(cell("d", "b", "scratch", [0.6, 0.61], per_class=10))
    assert "One draw of training images" in dict(cautions(few))
    assert "One draw of training images" not in dict(cautions(table(cell("d", "b", "scratch", [0.6, 0.61]))))


def test_an_incomplete_block_counts_for_nobody(table: Any) -> None:
    made = [
        *cell("d1", "b", "a", [0.6, 0.61]), *cell("d1", "b", "c", [0.7, 0.71]),
        *cell("d2", "b", "a", [0.9, 0.91]), *cell("d2", "b", "c", [0.1, 0.1], status="failed", test_auc=None),
        *cell("d3", "b", "a", [0.5, 0.51]), *cell("d3", "b", "c", [0.8, 0.81], test_auc=None),
    ]  # fmt: skip
    board = leaderboard(table([*made, *cell("d4", "b", "a", [0.6, 0.6]), *cell("d4", "b", "c", [0.5, 0.5])]))
    found = by_label(board)
    assert (board.blocks_used, board.blocks_any, board.datasets) == (2, 4, ("d1", "d4"))
    assert found.loc["a", "auc"] == pytest.approx((0.605 + 0.6) / 2)
    assert found.loc["c", ["runs", "runs_any", "blocks", "blocks_any"]].tolist() == [4, 8, 2, 4]


def test_one_that_ran_on_few_blocks_is_listed_without_a_rank_and_harms_nobody(table: Any) -> None:
    made = [
        one for d in ("d1", "d2", "d3") for s, auc in (("a", 0.6), ("c", 0.7)) for one in cell(d, "b", s, [auc, auc])
    ]
    board = leaderboard(table([*made, *cell("d1", "b", "rare", [0.99, 0.99])]))
    assert board.ranked["label"].tolist() == ["c", "a"]
    assert board.table["label"].tolist()[-1] == "rare"
    assert np.isnan(board.table["auc"].iloc[-1])
    assert board.blocks_used == 3


def test_a_study_that_grew_unevenly_is_compared_where_most_comparisons_are(table: Any) -> None:
    given = table(uneven())
    board = leaderboard(given)
    core = {"full_finetune", "knn_probe", "l2_sp", "linear_probe", "scratch"}
    assert (set(board.ranked["label"]), board.control, board.blocks_used) == (core, "scratch", 10)
    found = by_label(board)
    assert found.loc["extra0", ["ranked", "blocks", "blocks_any", "blocks_used"]].tolist() == [False, 2, 16, 2]
    assert found.loc["linear_probe", ["ranked", "blocks", "blocks_any", "blocks_used"]].tolist() == [True, 16, 16, 10]
    sweep = [given[given["strategy"] == "linear_probe"].assign(size=size) for size in (96, 128, 224)]
    swept = leaderboard(pd.concat([given, *sweep]))
    pd.testing.assert_frame_equal(swept.ranked.drop(columns=["blocks", "blocks_any", "runs", "runs_any"]),
                                  board.ranked.drop(columns=["blocks", "blocks_any", "runs", "runs_any"]))  # fmt: skip
    assert leaderboard(given, "backbone").ranked["label"].tolist() != ["net0"]
    assert len(leaderboard(given, "backbone").ranked) == 3


def test_ranks_are_recomputed_when_rows_are_filtered(table: Any) -> None:
    everything = table(
        [one for s, auc in (("a", 0.6), ("b", 0.7), ("c", 0.8)) for one in cell("d", "b", s, [auc, auc])]
    )
    assert by_label(leaderboard(everything)).loc["a", "mean_rank"] == 3
    assert by_label(leaderboard(everything[everything["strategy"] != "c"])).loc["a", "mean_rank"] == 2


def test_a_pairs_control_has_the_same_backbone(table: Any) -> None:
    made = [
        *cell("d", "small", "scratch", [0.60, 0.62]), *cell("d", "small", "full_finetune", [0.70, 0.72]),
        *cell("d", "large", "scratch", [0.80, 0.82]), *cell("d", "large", "full_finetune", [0.81, 0.83]),
    ]  # fmt: skip
    found = by_label(leaderboard(table(made), ["strategy", "backbone"]))
    assert found.loc["full_finetune · small", "gain"] == pytest.approx(0.10)
    assert found.loc["full_finetune · large", "gain"] == pytest.approx(0.01)
    assert np.isnan(found.loc["scratch · large", "gain"])
    by_backbone = leaderboard(table(made), "backbone")
    assert by_backbone.control is None
    assert by_label(by_backbone)["gain"].isna().all()
    assert by_label(by_backbone).loc["large", "mean_rank"] == 1


def test_per_class_amounts_are_different_blocks(table: Any) -> None:
    made = []
    for n in (10, 50, None):
        for strategy, auc in (("a", 0.6), ("c", 0.7)):
            made += cell("d", "b", strategy, [auc, auc], per_class=n, fingerprint=f"{strategy}{n}")
    board = leaderboard(table(made))
    assert (board.blocks_used, board.datasets) == (3, ("d",))


def test_seconds_are_tuning_plus_fitting_and_missing_where_any_is(table: Any) -> None:
    made = [*cell("d", "b", "a", [0.6, 0.7], tune_seconds=10.0, fit_seconds=2.0), *cell("d", "b", "c", [0.6, 0.7])]
    made[-1]["fit_seconds"] = None
    found = by_label(leaderboard(table(made)))
    assert found.loc["a", "seconds"] == 12
    assert np.isnan(found.loc["c", "seconds"])


def test_figures_do_not_depend_on_the_order_of_rows(table: Any) -> None:
    given = table(rows())
    shuffled = given.sample(frac=1, random_state=1)
    pd.testing.assert_frame_equal(leaderboard(given).table, leaderboard(shuffled).table, rtol=1e-12)


def test_chances_of_being_best_sum_to_one_and_intervals_hold_the_mean(table: Any) -> None:
    for by in ("strategy", "backbone", ["strategy", "backbone"]):
        ranked = leaderboard(table(rows()), by).ranked
        assert ranked["p_best"].sum() == pytest.approx(1)
        for name in ("auc", "iqm"):
            assert (ranked[f"{name}_lo"] <= ranked[name] + 1e-12).all()
            assert (ranked[name] <= ranked[f"{name}_hi"] + 1e-12).all()
        assert ranked["mean_rank"].mean() == pytest.approx((len(ranked) + 1) / 2)


def test_one_seed_gives_no_interval_and_no_verdict(table: Any) -> None:
    given = table(rows(seeds=1))
    board = leaderboard(given)
    intervals = ["auc_lo", "auc_hi", "iqm_lo", "gain_lo", "behind_lo", "p_best"]
    assert board.seeds == 1
    assert board.table[intervals].isna().all(axis=None)
    assert answer(board, given)[0].startswith("It cannot be told which strategy is best")
    assert "one seed" in answer(board, given)[0]


def test_a_cell_with_one_seed_left_costs_a_block_and_not_all_intervals(table: Any) -> None:
    made = rows()
    lost = {"status": "diverged", "test_auc": None}
    one = {"dataset": "breastmnist", "backbone": "mobilenetv2_035", "strategy": "scratch"}
    for run in made:
        if one.items() <= run.items() and run["seed"]:
            run |= lost
    given = table(made)
    board = leaderboard(given)
    assert (board.blocks_used, board.single, board.blocks_any, board.seeds) == (6, 1, 9, 2)
    assert board.ranked["auc_lo"].notna().all()
    assert "6 of 9 blocks with results (1 left out: a cell has one seed only): 3 datasets (" in answer(board, given)[1]


def test_where_most_blocks_have_one_seed_all_are_kept_and_it_is_said(table: Any) -> None:
    made = [one for n in range(3) for s, auc in (("a", 0.6), ("c", 0.7))
            for one in cell(f"d{n}", "b", s, [auc, auc + 0.01] if n == 0 else [auc])]  # fmt: skip
    given = table(made)
    board = leaderboard(given)
    assert (board.blocks_used, board.single, board.seeds) == (3, 0, 1)
    assert "but with one seed in some cells there are no intervals" in answer(board, given)[0]


def test_a_clear_winner_is_named_with_what_it_stands_on(table: Any) -> None:
    given = table(rows())
    said = " ".join(answer(leaderboard(given), given))
    assert "full_finetune was best" in said
    assert "3 datasets are too few to test" in said
    assert "p-value" in said
    assert "Against the control scratch" in said


def test_the_verdict_is_never_stronger_than_the_intervals(table: Any) -> None:
    """Strategies of equal quality: a winner is named only where seeds and test images cannot explain its lead."""
    verdicts = []
    for trial in range(12):
        rng = np.random.default_rng(trial)
        made = [one for d in ("d1", "d2") for s in "abc" for one in cell(d, "b", s, rng.normal(0.8, 0.02, 3).tolist())]
        given = table(made)
        board = leaderboard(given)
        first = answer(board, given)[0]
        others = board.ranked.iloc[1:]
        verdicts.append("was best" in first)
        assert verdicts[-1] == bool((~others["tied"]).all())
        assert (others["tied"] | (others["behind"] > others["margin"])).all()
        assert (others.loc[~others["tied"], "behind_lo"] > 0).all()
        assert verdicts[-1] != first.startswith("It cannot be told")
    assert sum(verdicts) < len(verdicts) / 2


def test_where_rank_and_mean_disagree_both_are_named(table: Any) -> None:
    """full wins by a hair on two of three datasets, and loses by much on the third."""
    aucs = {"d1": (0.801, 0.800), "d2": (0.801, 0.800), "d3": (0.5, 0.9)}

    def said(noise: list[float]) -> str:
        made = [
            one
            for d, pair in aucs.items()
            for s, auc, fit in zip(("full", "probe"), pair, (100.0, 1.0), strict=True)
            for one in cell(d, "b", s, [auc + shift for shift in noise], fit_seconds=fit)
        ]
        given = table(made)
        return " ".join(answer(leaderboard(given), given))

    several = said([-0.002, 0.0, 0.002])
    assert "rank and mean disagree. full has the best mean rank (1.33 among 2, mean test AUC 0.701" in several
    assert re.search(r"probe the highest mean test AUC \(0.833, best in \d+ %\)", several)
    assert "probe has a mean test AUC 0.133 above that of full, at" in several
    assert "at most 0.01 AUC below" not in several
    one = said([0.0])
    assert "probe the highest mean test AUC (0.833); with one seed there are no intervals." in one
    assert "leads" not in one


def test_one_that_is_best_in_more_resamples_is_named(table: Any) -> None:
    made = [*cell("d1", "b", "a", [0.80, 0.80, 0.80]), *cell("d1", "b", "c", [0.78, 0.80, 0.81]),
            *cell("d1", "b", "e", [0.7, 0.71, 0.72])]  # fmt: skip
    board = leaderboard(table(made))
    ranked = board.table.assign(p_best=[0.3, 0.6, 0.1])
    first = answer(dataclasses.replace(board, table=ranked), table(made))[0]
    assert re.search(r"rank and resamples disagree. a has .*, but c is best in more of them \(60 %\)", first)


@pytest.mark.parametrize("aucs", [[0.8, 0.82], [0.8]])
def test_of_two_that_are_level_none_leads(table: Any, aucs: list[float]) -> None:
    made = [one for s in "ac" for one in cell("d", "b", s, aucs)] + cell("d", "b", "e", [x - 0.4 for x in aucs])
    first = answer(leaderboard(table(made)), table(made))[0]
    assert "a and c are level (mean rank 1.50 among 3" in first
    assert "leads" not in first
    assert "is best by mean rank" not in first


def test_images_that_could_not_be_read_are_not_called_enlarged(table: Any) -> None:
    lost = {"status": "failed", "test_auc": None, "reason": "gone"}
    made = [*cell("d", "b", "a", [0.7]), *cell("gone", "b", "a", [0.7], source_size=0, **lost)]
    assert "Enlarged images" not in dict(cautions(table(made)))


def test_noise_of_few_test_images_or_of_two_seeds_forbids_a_verdict(table: Any) -> None:
    def verdict(seeds: list[float], error: float) -> str:
        made = []
        for strategy, auc in (("a", 0.80), ("c", 0.86)):
            for seed, shift in enumerate(seeds):
                at = auc + shift
                noise = {"test_auc_lo": at - 1.96 * error, "test_auc_hi": at + 1.96 * error}
                made.append(row("d", "b", strategy, seed, at, **noise))
        given = table(made)
        return answer(leaderboard(given), given)[0]

    assert "c was best" in verdict([-0.01, 0.0, 0.01], 0.005)
    assert "c was best" in verdict([-0.01, 0.0, 0.01], 0.016)
    # .06 < 1.96 * sqrt(2) * .022
    assert verdict([-0.01, 0.0, 0.01], 0.022).startswith("It cannot be told")
    assert "c was best" in verdict([-0.001, 0.001], 0.005)
    assert verdict([-0.015, 0.015], 0.005).startswith("It cannot be told")  # 2 seeds: t(2) = 4.30


def test_where_the_noise_of_test_images_is_not_known_nothing_is_told_apart(table: Any) -> None:
    made = [one for s, auc in (("a", 0.6), ("c", 0.9)) for one in cell("d", "b", s, [auc, auc + 0.01, auc])]
    assert winner(leaderboard(table(made))) == "c"
    made[0]["test_auc_lo"] = None
    board = leaderboard(table(made))
    assert board.ranked["margin"].isna().any()
    assert winner(board) is None


def test_the_cheapest_within_a_hundredth_is_named_with_its_share_and_its_cost(table: Any) -> None:
    def said(probe: list[float], **changes: Any) -> str:
        made = [
            *cell("d", "b", "full", [0.900, 0.901, 0.902], tune_seconds=395.0, fit_seconds=5.0),
            *cell("d", "b", "probe", probe, tune_seconds=9.0, fit_seconds=1.0, **changes),
            *cell("d", "b", "costly", [0.900, 0.899, 0.899], tune_seconds=500.0, fit_seconds=1.0),
            *cell("d", "b", "poor", [0.5, 0.51, 0.52], tune_seconds=0.1, fit_seconds=0.1),
        ]
        given = table(made)
        return " ".join(answer(leaderboard(given), given))

    sure = "probe is at most 0.01 AUC below full in over 99 % of resamples, at 1/40 of the cost"
    assert sure in said([0.897, 0.898, 0.899])
    unsure = re.search(r"probe is at most 0.01 AUC below full in (\d+) % of resamples", said([0.870, 0.890, 0.920]))
    assert unsure is not None
    assert 50 < int(unsure[1]) < 95
    assert "of the cost" not in said([0.877, 0.878, 0.879])
    assert "of the cost" not in said([0.897, 0.898, 0.899], device="another machine")


def test_with_six_datasets_or_more_the_answer_has_a_corrected_p_value(table: Any) -> None:
    rng = np.random.default_rng(0)
    made = [
        one
        for d in range(7)
        for s, auc in (("scratch", 0.6), ("a", 0.7), ("c", 0.65))
        for one in cell(f"d{d}", "b", s, (auc + rng.normal(0, 0.003, 3)).tolist())
    ]
    given = table(made)
    said = " ".join(answer(leaderboard(given), given))
    assert "Across the 7 datasets Wilcoxon's test against scratch gives p = .031, corrected for 2 strategies" in said
    one_less = given[given["dataset"] != "d0"]
    assert "p = .062" in " ".join(answer(leaderboard(one_less), one_less))


def test_one_dataset_random_weights_and_phantoms_limit_the_answer(table: Any) -> None:
    made = [one for s, auc in (("a", 0.6), ("c", 0.9)) for one in
            cell("phantom-x", "b", s, [auc, auc + 0.01, auc], weights="random", pretrained=False)]  # fmt: skip
    given = table(made)
    said = " ".join(answer(leaderboard(given), given))
    assert "On phantom-x, c was best" in said
    assert "With one dataset it cannot be told" in said
    assert "says nothing about transfer" in said
    assert "says nothing about medical images" in said


def test_the_answer_says_what_it_stands_on_and_who_is_not_in_it(table: Any) -> None:
    given = table(uneven())
    said = answer(leaderboard(given), given)[1]
    assert said == (
        "This stands on 10 of 16 blocks with results: 2 datasets (breastmnist, pneumoniamnist), 3 backbones, "
        "10 images a class at 28 and 64 px and "
        "50 images a class at 28 px; 6 strategies lack results there and are not in it."
    )
    assert "stands on" not in " ".join(answer(leaderboard(two := given[given["size"] == 64]), two))
    two = given[given["strategy"].isin(["scratch", "linear_probe"])]
    assert stands_on(leaderboard(two, "backbone"), two) == (
        "6 of 14 blocks with results: 2 datasets (breastmnist, pneumoniamnist), 2 strategies, "
        "10 images a class at 28 px and all images at 28 px"
    )
    lacks = given[given["strategy"].isin(["scratch", "linear_probe", "extra0"])]
    assert lacking(leaderboard(lacks)) == "; extra0 lacks results there and is not in it"
    assert settings(given.assign(fraction=0.5, per_class=pd.NA)) == "50 % of the images at 28 and 64 px"


def test_nothing_to_compare_is_said(table: Any) -> None:
    alone = table(cell("d", "b", "a", [0.7, 0.8]))
    assert "nothing to compare" in answer(leaderboard(alone), alone)[0]
    lost = table(cell("d", "b", "a", [0.7, 0.8], status="failed", test_auc=None))
    assert answer(leaderboard(lost), lost) == ["Nothing can be said: no run has a result."]
    apart = table([*cell("d1", "b", "a", [0.7, 0.8]), *cell("d2", "b", "c", [0.7, 0.8])])
    assert "no two of them have results on the same images" in answer(leaderboard(apart), apart)[0]
    empty = table([])
    assert answer(leaderboard(empty), empty) == ["Nothing can be said: no run has a result."]


def test_strategies_that_were_not_run_alike_are_a_grave_caution(table: Any) -> None:
    one = {"epochs": 1, "trials": 1}
    made = [*cell("d", "b", "linear_probe", [0.6, 0.61], **one), *cell("d", "b", "full_finetune", [0.6, 0.62], **one)]
    alike = [*made, *cell("e", "b", "linear_probe", [0.7, 0.71], epochs=6), *cell("d", "c", "scratch", [0.5, 0.5])]
    # Other epochs on other images, on another network, or with more images are no difference of strategies; nor is a
    # second domain that others do not take, or a cell without a result.
    alike += cell("d", "b", "full_finetune", [0.8, 0.81], per_class=10, epochs=6, fingerprint="few")
    alike += cell("d", "b", "dann", [0.5, 0.51], second="skimage", **one)
    alike += cell("d", "b", "bss", [0.5, 0.51], status="failed", test_auc=None)
    assert "Not run alike" not in dict(cautions(table(alike)))
    rows = table([*alike, *cell("d", "b", "l2_sp", [0.9, 0.91], epochs=12, trials=3)])
    heading, said = cautions(rows)[0]
    assert heading == "Not run alike"
    assert "The protocol of strategies differs on d: dann, full_finetune and linear_probe (1 epoch, 1 trial)" in said
    assert "; l2_sp (12 epochs, 3 trials)." in said


def test_images_and_weights_that_changed_under_one_name_are_a_grave_caution(table: Any) -> None:
    new = {"finished_utc": "2025-02-01T10:00:00Z"}
    few = {"per_class": 10, "fingerprint": "few"}
    # Training from scratch takes no weights, and without a second domain there are no images of one.
    made = [*cell("d", "b", "scratch", [0.6, 0.61], weights_hash="random"), *cell("d", "b", "bss", [0.6, 0.62])]
    made += cell("d", "b", "dann", [0.6, 0.62], second="skimage", second_hash="s1")
    made += cell("d", "b", "dann", [0.6, 0.62], data_hash="failed", status="failed", test_auc=None, **few)
    made += cell("d", "b", "bss", [0.6, 0.62], size=128, data_hash="larger", fingerprint="large")
    assert "Not run alike" not in dict(cautions(table(made)))
    heading, said = cautions(table([*made, *cell("d", "b", "l2_sp", [0.6, 0.7], data_hash="edited", **new)]))[0]
    assert heading == "Not run alike"
    assert "Images, labels or splits of d are not the same in all rows, the oldest first: " in said
    assert "the oldest first: bss, dann and scratch; l2_sp. " in said
    _, said = cautions(table([*made, *cell("d", "b", "bss", [0.6, 0.7], data_hash="edited", **few, **new)]))[0]
    assert "the oldest first: bss, dann and scratch; bss (10 a class). " in said
    _, said = cautions(table([*made, *cell("d", "b", "l2_sp", [0.6, 0.7], weights_hash="other", **new)]))[0]
    assert said.startswith("Weights of b are not the same in all rows, the oldest first: bss and dann; l2_sp. ")
    cdan = cell("d", "b", "cdan", [0.6, 0.7], second="skimage", second_hash="s2", **new)
    _, said = cautions(table([*made, *cdan]))[0]
    assert said.startswith("Images of the second domain skimage are not the same in all rows, the oldest first: dann;")
