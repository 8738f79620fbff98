"""Predictions made elsewhere: read as medmnist's Evaluator writes them, or refused in a line."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from rich.console import Console
from typer.testing import CliRunner

from bench.cli import app
from bench.errors import DataError, UsageError
from bench.executors import execute
from bench.imported import import_predictions, imported, read_probabilities
from bench.metrics import auc
from bench.plan import make_plan
from bench.report.frames import compact
from bench.report.imported import section
from bench.report.markdown import summary
from bench.report.page import gather
from bench.report.terminal import terminal_summary
from tests.small import CHECKOUT, NET, matrix, opened

NAME = "phantom-histology"


def written(folder: Path, split: str, run: str = "0", seed: int = 0) -> tuple[Path, np.ndarray]:
    """A file of one split's probabilities, as `Evaluator.evaluate(.., save_folder)` writes it."""
    labels = np.asarray(opened(NAME).load(split, 28).labels)
    classes = len(opened(NAME).info.classes)
    scores = np.random.default_rng(seed).random((len(labels), classes)) + np.eye(classes)[labels]
    probs = scores / scores.sum(axis=1, keepdims=True)
    path = folder / f"{split}_[AUC]0.900_[ACC]0.800@{run}.csv"
    pd.DataFrame(probs).to_csv(path, header=None)
    return path, probs


def imports(files: list[Path], results: Path, **more: Any) -> list[dict[str, Any]]:
    (results / "cells").mkdir(exist_ok=True, parents=True)
    return import_predictions(files, "theirs", results, results, CHECKOUT, **{"dataset": NAME, "size": 28} | more)


def test_rows_have_the_scores_of_the_file(tmp_path: Path) -> None:
    files = [written(tmp_path, split, run, seed) for split in ("val", "test") for run, seed in (("0", 1), ("1", 2))]
    rows = imports([path for path, _ in files], tmp_path)
    assert [row["seed"] for row in rows] == [0, 1]
    labels = np.asarray(opened(NAME).load("test", 28).labels)
    assert rows[1]["test_auc"] == pytest.approx(auc(labels, files[3][1], "multi-class"), abs=1e-6)
    assert rows[1]["val_auc"] > 0.5
    (found,) = imported(tmp_path, {(NAME, 28)})
    assert (found.backbone, found.seeds, found.imported) == ("theirs", (0, 1), True)
    assert imported(tmp_path, {(NAME, 64)}) == []


def test_a_torn_row_is_left_out_with_a_warning(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    imports([written(tmp_path, "test")[0]], tmp_path)
    for name, text in (("torn", "{"), ("bare", "{}"), ("list", "[]")):
        (tmp_path / f"cells/imported{name}-s0.json").write_text(text)
    assert len(imported(tmp_path, {(NAME, 28)})) == 1
    assert len([text for text in caplog.messages if "is left out: not a row" in text]) == 3


def test_a_second_import_takes_the_place_of_the_first(tmp_path: Path) -> None:
    imports([written(tmp_path, "test", seed=1)[0]], tmp_path)
    (old,) = imported(tmp_path, {(NAME, 28)})
    (row,) = imports([written(tmp_path, "test", seed=2)[0]], tmp_path)
    (new,) = imported(tmp_path, {(NAME, 28)})
    assert new.fingerprint == row["fingerprint"] != old.fingerprint


def test_runs_named_by_their_time_are_numbered(tmp_path: Path) -> None:
    files = [written(tmp_path, "test", run)[0] for run in ("1764110000.25", "1764110007.5")]
    assert [row["seed"] for row in imports(files, tmp_path)] == [0, 1]


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("0,0.5,0.5\n1,0.5,0.5\n", "has 2 images' predictions, the split has 3"),
        ("0,0.5,0.5\n1,0.5,0.5\n1,0.5,0.5\n", "has 2 images' predictions"),
        ("0,1,0\n1,0.5,0.6\n2,0,1\n", "do not sum to 1"),
        ("0,-3,4\n1,2,1\n2,0,1\n", "logits, perhaps"),
        ("0,nan,0\n1,1,0\n2,0,1\n", "outside 0 to 1"),
        ("0,1,0,0\n1,1,0,0\n2,0,1,0\n", "has 3 probabilities a line, not 2"),
        ("id,a,b\n0,1,0\n", r"line 1 ('id,a,b') is no image's prediction"),
        ("0.5,1,0\n1,1,0\n2,0,1\n", r"line 1 ('0.5,1,0') is no image's prediction"),
        ("inf,1,0\n1,1,0\n2,0,1\n", r"line 1 ('inf,1,0') is no image's prediction"),
        ("", "has 0 images"),
    ],
)
def test_what_is_no_prediction_is_refused(tmp_path: Path, text: str, reason: str) -> None:
    path = tmp_path / "test@0.csv"
    path.write_text(text)
    with pytest.raises(DataError) as caught:
        read_probabilities(path, images=3, classes=2, kind="binary")
    assert reason in str(caught.value)
    assert str(caught.value).startswith("test@0.csv: ")


def test_binary_files_may_give_the_second_class_alone(tmp_path: Path) -> None:
    path = tmp_path / "test@0.csv"
    path.write_text("2,0.9\n0.0,0.25\n1.0,0.5\n")
    found = read_probabilities(path, images=3, classes=2, kind="binary")
    assert found[:, 1].tolist() == [0.25, 0.5, 0.9]
    assert found.sum(axis=1).tolist() == [1, 1, 1]


def test_a_name_that_says_nothing_is_refused(tmp_path: Path) -> None:
    (tmp_path / "cells").mkdir()
    for name, reason in (("model.csv", "does not say"), ("breastmnist_train@0.csv", "train")):
        (tmp_path / name).write_text("")
        with pytest.raises(UsageError, match=reason):
            import_predictions([tmp_path / name], "theirs", tmp_path, tmp_path, CHECKOUT)
    with pytest.raises(UsageError, match="no predictions of test"):
        imports([written(tmp_path, "val")[0]], tmp_path)


def test_the_command_says_what_it_added(tmp_path: Path) -> None:
    file, _ = written(tmp_path, "test")
    (tmp_path / "cells").mkdir()
    options = ["--name", "theirs", "--results", str(tmp_path), "--dataset", NAME, "--size", "28"]
    done = CliRunner().invoke(app, ["import", str(file), *options])
    assert done.exit_code == 0, done.output
    assert "theirs · seed 0: test AUC 0." in done.output
    assert "no val predictions" in done.output
    assert "replaces" not in done.output
    both = [str(written(tmp_path, "test", run)[0]) for run in "01"]
    done = CliRunner().invoke(app, ["import", *both, *options])
    assert f"{NAME} 28 px: replaces seed 0 of theirs there. To keep them, import all" in done.output
    done = CliRunner().invoke(app, ["import", str(file), *options])
    assert f"{NAME} 28 px: replaces seeds 0, 1 of theirs there." in done.output
    done = CliRunner().invoke(app, ["import", str(file), *[one.replace("theirs", "others") for one in options]])
    assert "replaces" not in done.output


def test_a_page_compares_it_with_the_best_network_and_ranks_ours_alone(tmp_path: Path) -> None:
    results = tmp_path / "results"
    plan = make_plan(matrix(results, datasets=(NAME,), sizes=(28,), strategies=("knn_probe", "linear_probe")), CHECKOUT)
    execute(plan, Console(quiet=True), "", {})
    before = gather([results])[0]
    imports([written(tmp_path, "test", run, int(run))[0] for run in ("0", "1")], results)
    after, problems = gather([results])
    assert problems == []
    pd.testing.assert_frame_equal(after.board.table, before.board.table)
    found = section(after)
    assert found is not None
    best = after.rows.groupby("strategy")["val_auc"].mean().idxmax()
    ours = after.rows[after.rows["strategy"] == best]["test_auc"].mean()
    difference = after.imported["test_auc"].mean() - ours
    assert f"{best}, {NET.label}" in found.body
    assert f"{difference:+.3f}".replace("-", "−") in found.body
    assert section(before) is None
    wanted = rf"theirs, {NAME}, 28 px, 2 seeds: test AUC 0\.\d+, [+−]0\.\d+ \(.+\) from {best}, {NET.label}"
    for shown in (summary(after, [], None).replace("\\", ""), printed(compact(results), [results])):
        assert re.search(wanted, shown), shown
    with pytest.raises(UsageError, match=r"a backbone of .* has this name"):
        import_predictions([written(tmp_path, "test")[0]], NET.label, results, results, CHECKOUT, NAME, 28)


def test_predictions_that_an_ensemble_over_their_seeds_was_made_of_can_be_renewed(tmp_path: Path) -> None:
    results = tmp_path / "results"
    chosen = matrix(results, datasets=(NAME,), sizes=(28,), strategies=("knn_probe", "ensemble_mean"), over=("seeds",))
    execute(make_plan(chosen, CHECKOUT), Console(quiet=True), "", {})
    imports([written(tmp_path, "test", run, int(run))[0] for run in ("0", "1")], results)
    execute(make_plan(chosen, CHECKOUT), Console(quiet=True), "", {})
    made = gather([results])[0].ensembles
    assert set(made["backbone"]) == {NET.label, "theirs"}
    assert [row["seed"] for row in imports([written(tmp_path, "test", "0", 7)[0]], results)] == [0]


def printed(*given: Any) -> str:
    console = Console(width=200)
    with console.capture() as capture:
        console.print(terminal_summary(*given))
    return " ".join(capture.get().split())


def test_a_folder_that_no_run_has_written_to_is_refused(tmp_path: Path) -> None:
    (tmp_path / "results" / "quick" / "cells").mkdir(parents=True)
    typo = tmp_path / "results" / "quik"
    with pytest.raises(UsageError, match=r"no run has written there.*Did you mean .*quick"):
        import_predictions([written(tmp_path, "test")[0]], "theirs", typo, tmp_path, CHECKOUT, NAME, 28)
    assert not typo.exists()


def test_the_name_of_a_strategy_is_refused(tmp_path: Path) -> None:
    (tmp_path / "cells").mkdir()
    with pytest.raises(UsageError, match=r"--name scratch: a strategy has this name\."):
        import_predictions([written(tmp_path, "test")[0]], "scratch", tmp_path, tmp_path, CHECKOUT, NAME, 28)
