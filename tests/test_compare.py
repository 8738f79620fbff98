"""Two results folders compared: pairs, intervals against independent implementations, verdicts, exit code 3."""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
import pytest
from scipy.stats import rankdata, ttest_rel
from typer.testing import CliRunner

from bench import cli
from bench.errors import UsageError
from bench.metrics import auc, probabilities
from bench.report.compare import Comparison, breaches, compare
from bench.report.compare_shown import page, sentences, terminal
from bench.report.delong import image_variance
from tests.fake_results import Row, row, rows, write

EVIL = """<script>alert(1)</script> [red]x[/] {{ 7*7 }} =1+1"""


def cells(strategy: str, scores: Sequence[float], dataset: str = "d", **changes: object) -> list[Row]:
    """One cell, a row a score."""
    return [row(dataset, "b", strategy, seed, score, **changes) for seed, score in enumerate(scores)]


def folders(tmp_path: Path, a: list[Row], b: list[Row]) -> tuple[Path, Path]:
    return write(tmp_path / "a", a), write(tmp_path / "b", b)


def compared(tmp_path: Path, a: list[Row], b: list[Row]) -> Comparison:
    return compare(*folders(tmp_path, a, b))


def test_verdicts_by_cell_the_worst_first(tmp_path: Path) -> None:
    before = [0.8, 0.81, 0.82]
    a = [*cells("better", before), *cells("worse", before), *cells("same", before), *cells("noisy", before)]
    b = [*cells("better", [0.851, 0.86, 0.871]), *cells("worse", [0.75, 0.761, 0.77]), *cells("same", before)]
    found = compared(tmp_path, a, [*b, *cells("noisy", [0.9, 0.7, 0.84])])
    verdicts = dict(zip(found.cells["strategy"], found.cells["verdict"], strict=True))
    assert list(verdicts) == ["worse", "same", "noisy", "better"]
    assert list(verdicts.values()) == ["regressed", "no difference shown", "no difference shown", "improved"]
    assert found.cells.set_index("strategy").loc["same", ["low", "high"]].tolist() == [0, 0]
    assert "4 cells (12 runs) have a result in both: 1 improved, 1 regressed, 2 without" in sentences(found)[0]


def test_without_predictions_the_interval_is_the_paired_t_test(tmp_path: Path) -> None:
    a, b = [0.80, 0.83, 0.79, 0.81], [0.82, 0.84, 0.83, 0.82]
    found = compared(tmp_path, cells("s", a), cells("s", b))
    theirs = ttest_rel(b, a).confidence_interval(0.95)
    for low, high in (found.cells.iloc[0][["low", "high"]], found.mean[1:]):
        assert (low, high) == pytest.approx((theirs.low, theirs.high))
    assert "leaves out the noise of the test images" in " ".join(sentences(found))


def test_pairs_are_equal_seeds_whatever_else_there_is(tmp_path: Path) -> None:
    a = [*cells("s", [0.80, 0.90, 0.5]), *cells("gone", [0.7, 0.7])]
    b = [*cells("s", [0.81, 0.91]), *cells("new", [0.7])]
    found = compared(tmp_path, a, b)
    assert found.cells[["strategy", "seeds"]].to_numpy().tolist() == [["s", 2]]
    assert found.cells["difference"].tolist() == pytest.approx([0.01])
    assert found.only_a[["strategy", "seed"]].to_numpy().tolist() == [["gone", 0], ["gone", 1], ["s", 2]]
    assert found.only_b["strategy"].tolist() == ["new"]
    assert "3 runs only in A: gone (2), s (1)." in sentences(found)


def test_amounts_of_data_are_different_cells(tmp_path: Path) -> None:
    a = [*cells("s", [0.6, 0.61], per_class=10, fingerprint="f"), *cells("s", [0.9, 0.91], fingerprint="g")]
    found = compared(tmp_path, a, a)
    assert found.cells["per_class"].isna().sum() == 1
    assert found.cells["difference"].tolist() == [0, 0]


def test_the_mean_counts_datasets_alike(tmp_path: Path) -> None:
    def side(plus: float) -> list[Row]:
        many = [one for n in range(4) for one in cells(f"s{n}", [0.8, 0.82], "many")]
        return many + cells("s0", [0.7 + plus, 0.71 + plus], "few")

    found = compared(tmp_path, side(0), side(0.04))
    assert found.mean[0] == pytest.approx(0.02)


def test_one_seed_is_no_verdict(tmp_path: Path) -> None:
    found = compared(tmp_path, cells("s", [0.9]), cells("s", [0.5]))
    assert found.cells["verdict"].tolist() == ["cannot be told"]
    said = " ".join(sentences(found))
    assert "1 cell with one seed in both" in said
    assert "cannot be told whether that is chance" in said
    with pytest.raises(UsageError, match="no cell has two seeds"):
        breaches(found, 0.01)


def test_a_cell_with_one_seed_does_not_keep_the_mean_from_being_judged(tmp_path: Path) -> None:
    a = [*cells("s", [0.80, 0.81, 0.82]), *cells("t", [0.80, 0.81, 0.82]), *cells("alone", [0.9])]
    b = [*cells("s", [0.75, 0.761, 0.77]), *cells("t", [0.75, 0.761, 0.77]), *cells("alone", [0.9])]
    found = compared(tmp_path, a, b)
    assert found.mean[0] == pytest.approx(-0.05, abs=0.001)
    assert found.mean[2] < 0
    assert "1 cell with one seed in both; not in the mean" in " ".join(sentences(found))


def test_of_many_cells_some_differ_by_chance_and_none_fails_for_it(tmp_path: Path) -> None:
    rng = np.random.default_rng(1)
    sides = [[one for n in range(200) for one in cells(f"s{n}", rng.normal(0.8, 0.01, 5), fingerprint=f"f{n}")]
             for _ in range(2)]  # fmt: skip
    found = compared(tmp_path, *sides)
    assert (found.cells["verdict"] == "regressed").sum() > 0
    assert [said for said in breaches(found, 0.0) if "mean" not in said] == []


def test_seeds_that_all_agree_are_no_proof(tmp_path: Path) -> None:
    found = compared(tmp_path, cells("probe", [0.8, 0.8, 0.8]), cells("probe", [0.81, 0.81, 0.81]))
    assert found.cells["verdict"].tolist() == ["cannot be told"]


def test_a_result_that_was_lost_is_named_with_its_reason(tmp_path: Path) -> None:
    a = rows()
    failed = cells("s", [0.8, 0.8], status="failed", test_auc=None, reason="DataError: gone")
    found = compared(tmp_path, [*a, *cells("s", [0.8, 0.81])], [*a, *failed])
    assert found.lost[["strategy", "status", "reason"]].to_numpy().tolist() == [["s", "failed", "DataError: gone"]] * 2
    assert "2 runs with a result in A, none in B: failed (2)." in sentences(found)
    assert breaches(found, 0.5) == ["2 runs with a result in A failed in B"]


def test_what_differs_is_told(tmp_path: Path) -> None:
    new = {"fingerprint": "new", "source_hash": "edited", "device": "another"}
    found = compared(tmp_path, rows(), [*rows()[3:], *(one | new for one in rows()[:3])])
    assert dict(found.origins) == {"source of the strategy": 1, "device": 1}
    assert found.unchanged == len(found.cells) - 1


def test_when_nothing_changed_few_cells_are_called_changed(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    sides = [[one for n in range(150) for one in cells(f"s{n}", rng.normal(0.8, 0.01, 3), fingerprint=f"f{n}")]
             for _ in range(2)]  # fmt: skip
    found = compared(tmp_path, *sides)
    changed = found.cells["verdict"].isin(["improved", "regressed"]).sum()
    assert changed <= 16  # 7.5 are expected; this is three standard deviations more
    assert "about 7.5 of 150 would still be called" in " ".join(sentences(found))
    assert breaches(found, 0.05) == []


def test_folders_with_nothing_in_common_cannot_be_compared(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="no run with a result in common"):
        compared(tmp_path, cells("s", [0.8]), cells("t", [0.8]))


# --- the same test images


def draw(kind: str, images: int, seeds: int, seed: int = 0) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Labels, and two networks' logits [S, N, K] that share most of their errors."""
    rng = np.random.default_rng(seed)
    classes = 2 if kind == "binary" else 4
    labels = rng.integers(0, 2, (images, classes)) if kind == "multi-label" else rng.integers(0, classes, images)
    truth = labels if kind == "multi-label" else np.eye(classes)[labels]
    shared = truth * 1.2 + rng.normal(0, 1, truth.shape)
    a, b = (shared + rng.normal(0, 0.5, (seeds, *truth.shape)) for _ in range(2))
    return labels, np.round(a, 1), np.round(b + 0.2 * truth, 1)


def test_binary_variance_is_delongs_by_its_definition() -> None:
    labels, a, b = draw("binary", 60, 1)
    scores = [probabilities(one[0], "binary")[:, 1] for one in (a, b)]
    components = []
    for one in scores:
        wins = (one[labels == 1, None] > one[labels == 0]) + 0.5 * (one[labels == 1, None] == one[labels == 0])
        components.append((wins.mean(axis=1), wins.mean(axis=0)))
    (pos_a, neg_a), (pos_b, neg_b) = components
    theirs = (pos_b - pos_a).var(ddof=1) / len(pos_a) + (neg_b - neg_a).var(ddof=1) / len(neg_a)
    assert image_variance(labels, probs(a, "binary"), probs(b, "binary"), "binary") == pytest.approx(theirs)


@pytest.mark.parametrize("kind", ["binary", "multi-class", "multi-label"])
def test_variance_is_that_of_redrawn_images(kind: str) -> None:
    labels, a, b = draw(kind, 160, 2)
    rng = np.random.default_rng(1)

    def difference(index: np.ndarray) -> float:
        return float(np.mean([fast_auc(labels[index], y[index], kind) - fast_auc(labels[index], x[index], kind)
                              for x, y in zip(probs(a, kind), probs(b, kind), strict=True)]))  # fmt: skip

    everything = np.arange(len(labels))
    groups = [everything] if kind == "multi-label" else [np.flatnonzero(labels == k) for k in np.unique(labels)]
    drawn = [difference(np.concatenate([rng.choice(g, len(g)) for g in groups])) for _ in range(300)]
    ours = image_variance(labels, probs(a, kind), probs(b, kind), kind)  # type: ignore[arg-type]
    assert np.sqrt(ours) == pytest.approx(np.std(drawn), rel=0.15)


def probs(logits: np.ndarray, kind: str) -> np.ndarray:
    return np.stack([probabilities(one, kind) for one in logits])  # type: ignore[arg-type]


def fast_auc(labels: np.ndarray, scores: np.ndarray, kind: str) -> float:
    truth = labels > 0 if kind == "multi-label" else labels[:, None] == np.arange(scores.shape[1])
    if kind == "binary":
        truth, scores = truth[:, -1:], scores[:, -1:]
    positive = truth.sum(0)
    wins = (rankdata(scores, axis=0) * truth).sum(0) - positive * (positive + 1) / 2
    return float((wins / positive / (len(truth) - positive)).mean())


def test_a_class_with_one_image_has_no_known_spread() -> None:
    scores = np.random.default_rng(0).random((1, 5, 2))
    assert np.isnan(image_variance(np.array([0, 0, 0, 0, 1]), scores, scores[:, ::-1], "binary"))


def with_predictions(folder: Path, logits: np.ndarray, labels: np.ndarray, ids: np.ndarray) -> Path:
    """A folder of one cell, whose rows and stored predictions agree."""
    scores = [auc(labels, probabilities(one, "binary"), "binary") for one in logits]
    write(folder, cells("s", scores))
    for seed, one in enumerate(logits):
        name = f"{cells('s', scores)[0]['fingerprint']}-s{seed}.npz"
        np.savez(folder / "cells" / name, test_logits=one.astype(np.float32), test_labels=labels, test_ids=ids)
    return folder


def test_damaged_predictions_count_as_missing_and_are_named(tmp_path: Path) -> None:
    labels, a, b = draw("binary", 80, 3)
    ids = np.array([f"d/test/{n}" for n in range(80)])
    one, other = (with_predictions(tmp_path / name, run, labels, ids) for name, run in (("a", a), ("b", b)))
    next((other / "cells").glob("*-s1.npz")).write_bytes(b"abc")
    found = compare(one, other)
    assert found.cells["images"].tolist() == [False]
    assert len(found.warnings) == 1
    assert found.warnings[0].startswith(f"{other}: ")
    assert "-s1.npz cannot be read" in found.warnings[0]


@pytest.mark.parametrize("same", [True, False])
def test_the_interval_holds_the_test_images_only_where_they_are_the_same(tmp_path: Path, same: bool) -> None:
    labels, a, b = draw("binary", 80, 3)
    ids = np.array([f"d/test/{n}" for n in range(80)])
    one = with_predictions(tmp_path / "a", a, labels, ids)
    found = compare(one, with_predictions(tmp_path / "b", b, labels, ids if same else ids[::-1]))
    assert found.cells["images"].tolist() == [same]
    assert found.mean_images == same
    low, high = found.cells.iloc[0][["low", "high"]]
    over_seeds = ttest_rel(*([auc(labels, probabilities(x, "binary"), "binary") for x in side] for side in (b, a)))
    if not same:
        assert high - low == pytest.approx(np.diff(over_seeds.confidence_interval(0.95))[0])
    else:
        error = np.sqrt(image_variance(labels, probs(a, "binary"), probs(b, "binary"), "binary"))
        assert high - low > 2 * 1.96 * error
    assert ("seeds only" in page(found, tmp_path / "c.html").read_text()) != same


# --- terminal, page and exit codes


@pytest.fixture
def regressed(tmp_path: Path) -> tuple[Path, Path]:
    before, after = [0.80, 0.81, 0.82, 0.81], [0.76, 0.771, 0.78, 0.769]
    return folders(tmp_path, cells("s", before) + cells("t", before), cells("s", before) + cells("t", after))


def run(*words: object) -> tuple[int, str, str]:
    result = CliRunner().invoke(cli.app, ["compare", *map(str, words)])
    return result.exit_code, result.stdout, result.stderr


def test_fail_under_is_exit_code_3_where_the_whole_interval_is_below(regressed: tuple[Path, Path]) -> None:
    code, out, err = run(*regressed, "--fail-under", "0.02")
    assert code == 3
    assert "1 regressed" in out
    assert "d · b · t: −0.040" in err
    assert "d · b · s" not in err
    assert run(*regressed, "--fail-under", "0.039")[0] == 0  # the interval reaches above: it may be less than that
    assert run(*regressed)[0] == 0
    assert run(*reversed(regressed), "--fail-under", "0")[0] == 0


@pytest.mark.parametrize("limit", ["-0.1", "nan", "1"])
def test_a_limit_that_is_none_is_wrong_usage(regressed: tuple[Path, Path], limit: str) -> None:
    code, _, err = run(*regressed, "--fail-under", limit)
    assert code == 2
    assert "must be a loss of test AUC from 0 to 1" in err


def test_a_folder_without_results_is_wrong_usage(tmp_path: Path, regressed: tuple[Path, Path]) -> None:
    code, _, err = run(regressed[0], tmp_path / "none")
    assert code == 2
    assert "No results in" in err


def test_the_terminal_shows_what_differs_and_nothing_else(regressed: tuple[Path, Path]) -> None:
    _, out, _ = run(*regressed)
    assert "t · 64 px" in re.sub(r"\s+", " ", out)
    assert "b · s" not in out
    assert terminal(compare(regressed[0], regressed[0])) is None


def test_the_page_is_self_contained_and_repeatable(tmp_path: Path, regressed: tuple[Path, Path]) -> None:
    code, out, _ = run(*regressed, "--html", tmp_path / "deep" / "c.html")
    assert code == 0
    assert "deep/c.html" in out.replace("\n", "")
    html = (tmp_path / "deep" / "c.html").read_text(encoding="utf-8")
    assert html == page(compare(*regressed), tmp_path / "again.html").read_text(encoding="utf-8")
    assert not re.search(r"https?:|src=|@import|<script|<link|url\((?!#)", html)
    assert "default-src 'none'" in html
    assert "regressed" in html
    columns = re.findall(r"<th[^>]*scope=\"col\"[^>]*>([^<]+)", html)
    assert columns.index("Verdict") == 3, "where a narrow window does not cut it off"
    assert len(re.findall(r"<h[1-6][^>]*>", html)) == len(re.findall(r"</h[1-6]>", html)) == 3


def hostile(change: Callable[[Row], Row]) -> list[Row]:
    return [change(one) for one in cells(EVIL, [0.8, 0.81, 0.805], EVIL, fingerprint="f")]


def test_hostile_names_are_only_text(tmp_path: Path) -> None:
    lost = cells(EVIL, [0.8], "other", fingerprint="g")
    broken = [one | {"status": "failed", "test_auc": None, "reason": EVIL} for one in lost]
    worse = hostile(lambda one: one | {"test_auc": one["test_auc"] - 0.1 - one["seed"] / 1000})
    a, b = folders(tmp_path, hostile(dict) + lost + cells(EVIL, [0.7], "only"), worse + broken)
    code, out, err = run(a, b, "--html", tmp_path / "c.html", "--fail-under", "0")
    assert code == 3
    assert "<script>alert(1)</script> [red]x[/]" in err
    assert "[red]x[/]" in re.sub(r"[│\s]+", "", out)
    html = (tmp_path / "c.html").read_text(encoding="utf-8")
    assert "<script" not in html
    assert html.count("&lt;script&gt;alert(1)&lt;/script&gt;") >= 5
    assert "{{ 7*7 }}" in html
