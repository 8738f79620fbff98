"""What the figures compute, against brute force: a figure that is wrong looks as good as one that is right."""

from __future__ import annotations

import itertools
from collections.abc import Callable
from functools import partial
from pathlib import Path
from types import ModuleType

import numpy as np
import pandas as pd
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as some
from markupsafe import Markup
from matplotlib.figure import Figure

from bench.metrics import all_scores
from bench.report.frames import current, read_rows
from bench.report.leaderboard import leaderboard
from bench.report.plots import amounts, calibration, learning, overtuning, pareto, scores
from bench.report.plots.amounts import crossings, takeovers
from bench.report.plots.calibration import bins, confidence, error, recalls, wilson
from bench.report.plots.canvas import INK, MARKERS, RULE, SERIES, SOFT, Picture, dots, short, single, style, svg
from bench.report.plots.choice import colours, complete, leading
from bench.report.plots.choice import settings as settings_of
from bench.report.plots.cost import spread
from bench.report.plots.learning import band, epochs
from bench.report.plots.overtuning import optimism
from bench.report.plots.ranks import lanes
from bench.report.plots.tuning import expected_best, of_cells, with_rates
from bench.report.predictions import Predicted
from tests.fake_results import row, write

AUCS = some.integers(0, 20).map(lambda n: n / 20)


@given(some.lists(AUCS, min_size=1, max_size=7))
def test_the_expected_best_is_the_mean_over_all_subsets(scores: list[float]) -> None:
    brute = [np.mean([max(s) for s in itertools.combinations(scores, n + 1)]) for n in range(len(scores))]
    assert expected_best(scores) == pytest.approx(brute)


@given(some.lists(some.tuples(some.integers(1, 6), some.integers(0, 6)), min_size=1, max_size=12))
def test_the_front_holds_whatever_nothing_beats(points: list[tuple[int, int]]) -> None:
    def beaten(one: tuple[int, int]) -> bool:
        return any(c <= one[0] and s >= one[1] and (c, s) != one for c, s in points)

    costs, scores = np.array(points, dtype=float).T
    assert pareto(costs, scores).tolist() == [not beaten(one) for one in points]


HEIGHTS = some.integers(0, 6).map(float)


@given(some.lists(some.tuples(HEIGHTS, HEIGHTS), min_size=2, max_size=6))
def test_crossings_are_where_the_lines_meet_between_amounts(pairs: list[tuple[float, float]]) -> None:
    one, other = np.array(pairs).T
    x = np.arange(len(one)) ** 1.5
    found = crossings(x, one, other)
    assert len(found) == sum(a * b < 0 for a, b in itertools.pairwise(one - other))
    assert np.interp(found, x, one) == pytest.approx(np.interp(found, x, other))


@settings(max_examples=60)
@given(some.lists(some.tuples(HEIGHTS, HEIGHTS, HEIGHTS), min_size=2, max_size=4))
def test_the_lead_changes_where_a_fine_grid_says_so(heights: list[tuple[float, float, float]]) -> None:
    lines = {name: np.array(line) for name, line in zip("abc", np.array(heights).T, strict=True)}
    level = [(one - other) == 0 for one, other in itertools.combinations(lines.values(), 2)]
    assume(not any((here[:-1] & here[1:]).any() for here in level))
    x = np.arange(len(heights), dtype=float)
    grid = np.arange(0.5, 300 * x[-1]) / 300  # crossings lie a hundred and thirty-second apart or more
    values = np.array([np.interp(grid, x, line) for line in lines.values()])
    ordered = np.sort(values, axis=0)
    sure = ordered[-1] > ordered[-2] + 1e-9
    leader = np.array(list(lines))[values.argmax(axis=0)][sure]
    changes = np.flatnonzero(leader[1:] != leader[:-1])
    found = takeovers(x, lines)
    assert [(before, after) for _, _, before, after in found] == [(leader[n], leader[n + 1]) for n in changes]
    assert [at for at, *_ in found] == pytest.approx(grid[sure][changes], abs=0.008)


def test_of_lines_that_are_level_the_one_that_led_leads() -> None:
    x = np.array([0.0, 1.0, 2.0, 3.0])
    level = {"a": np.ones(4), "b": np.array([2.0, 1.0, 1.0, 2.0])}
    assert takeovers(x, level) == []
    assert takeovers(x, level | {"b": np.array([2.0, 1.0, 1.0, 0.0])}) == [(2.0, 1.0, "b", "a")]


def predicted(kind: str, probs: np.ndarray, labels: np.ndarray) -> Predicted:
    classes = tuple(f"c{n}" for n in range(probs.shape[-1]))
    ids = np.array([f"d/test/{n}" for n in range(len(labels))])
    seeds = tuple(range(len(probs)))
    return Predicted("d", "s", "b", kind, classes, seeds, labels, probs, ids, 0, pd.DataFrame({"licence": ["CC0"]}))  # type: ignore[arg-type]


def drawn(kind: str) -> Predicted:
    rng = np.random.default_rng(3)
    if kind == "multi-label":
        return predicted(kind, rng.random((1, 300, 4)), (rng.random((300, 4)) < 0.3).astype(np.uint8))
    outputs = 2 if kind == "binary" else 5
    return predicted(kind, rng.dirichlet(np.ones(outputs), (1, 300)), rng.integers(0, outputs, 300))


@pytest.mark.parametrize("kind", ["binary", "multi-class", "multi-label"])
def test_the_drawn_bins_and_recalls_are_those_of_the_rows_scores(kind: str) -> None:
    one = drawn(kind)
    scores = all_scores(one.labels, one.probs[0], one.kind)
    claims, right = confidence(one)
    assert error(bins(claims.ravel(), right.ravel())) == pytest.approx(scores["ece"])
    assert recalls(one)[0].tolist() == pytest.approx(scores["recall"])


@given(some.lists(some.tuples(some.floats(0, 1), some.booleans()), min_size=1, max_size=40), some.integers(1, 15))
def test_reliability_bins_count_every_prediction_once(pairs: list[tuple[float, bool]], number: int) -> None:
    claims, right = np.array([p for p, _ in pairs]), np.array([r for _, r in pairs])
    table = bins(claims, right, number)
    assert table[:, 0].sum() == len(pairs)
    for n, (size, claim, share) in enumerate(table):
        inside = [n <= p * number < n + 1 or (p * number >= number and n == number - 1) for p in claims]
        assert size == sum(inside)
        if size:
            assert claim == pytest.approx(claims[inside].mean())
            assert share == pytest.approx(right[inside].mean())


def test_wilson_is_scipys() -> None:
    from scipy.stats import binomtest

    for right, number in ((0, 5), (3, 7), (40, 40), (123, 500)):
        expected = binomtest(right, number).proportion_ci(0.95, "wilson")
        assert wilson(np.array(right / number), np.array(number)) == pytest.approx((expected.low, expected.high))


@given(some.lists(some.floats(0, 1), min_size=1, max_size=12))
def test_names_are_moved_apart_in_their_order_and_stay_inside(places: list[float]) -> None:
    moved = spread(np.sort(places), 0.2, 0.0, 1.0)
    assert (np.diff(moved) >= min(0.2, 1 / max(1, len(places) - 1)) - 1e-9).all()
    assert moved.min() >= -1e-9
    assert moved.max() <= 1 + 1e-9


@given(some.lists(some.tuples(some.integers(0, 9), some.integers(0, 9)).map(lambda p: (min(p), max(p))), max_size=8))
def test_bars_of_one_lane_do_not_overlap(bars: list[tuple[int, int]]) -> None:
    bars = sorted(bars)
    for one, other in itertools.combinations(zip(lanes(bars), bars, strict=True), 2):
        assert one[0] != other[0] or one[1][1] < other[1][0]


def test_trials_are_measured_from_the_best_complete_one_of_their_cell() -> None:
    rows = pd.DataFrame([row("d", "b", "s", 0, 0.8, fingerprint="f"), row("d", "b", "u", 0, 0.8, fingerprint="g")])
    trials = pd.DataFrame(
        [
            {"fingerprint": "f", "number": 0, "hparams": {"lr": 0.1}, "state": "complete", "val_auc": 0.7},
            {"fingerprint": "f", "number": 1, "hparams": {"lr": 0.2}, "state": "pruned", "val_auc": 0.9},
            {"fingerprint": "f", "number": 2, "hparams": {"lr": "?"}, "state": "diverged", "val_auc": None},
            {"fingerprint": "g", "number": 0, "hparams": {"k": 3}, "state": "complete", "val_auc": 0.6},
            {"fingerprint": "gone", "number": 0, "hparams": {"lr": 1}, "state": "complete", "val_auc": 1.0},
        ]
    )
    found = of_cells(trials, rows)
    assert found["behind"].tolist() == pytest.approx([0, -0.2, np.nan, 0], nan_ok=True)
    assert found["lr"].tolist() == pytest.approx([0.1, 0.2, np.nan, np.nan], nan_ok=True)
    assert with_rates(found, ["u", "s"]) == ["s"]


def test_the_val_auc_of_the_trial_that_was_chosen_counts_and_not_the_highest() -> None:
    rows = pd.DataFrame([row("d", "b", "s", seed, 0.8, fingerprint="f", hparams='{"lr": 0.1}') for seed in (0, 1)])
    states = [({"lr": 0.1}, "complete", 0.7), ({"lr": 0.2}, "complete", 0.75), ({"lr": 0.3}, "pruned", 0.9)]
    names = ("hparams", "state", "val_auc")
    trials = pd.DataFrame([{"fingerprint": "f"} | dict(zip(names, one, strict=True)) for one in states])
    assert optimism(rows, trials).to_dict() == pytest.approx({"f": 0.7 - 0.81})


def test_a_curve_that_stopped_early_holds_its_last_value_and_backbones_count_alike() -> None:
    runs = pd.DataFrame({"backbone": ["a", "a", "b", "b"], "curve": [[0.5], [0.7], [0.8, 0.9], [0.8, 1.0]]})
    mean, low, high = band(runs)
    assert mean.tolist() == pytest.approx([(0.6 + 0.8) / 2, (0.6 + 0.95) / 2])
    assert (low < mean).all()
    assert (high > mean).all()
    assert np.isnan(band(runs[:3])[1]).all(), "one seed says nothing of the spread"
    assert [epochs(text) for text in ("[0.5, 1]", "[]", "{", "[null]", None, "3")] == [[0.5, 1.0], [], [], [], [], []]


def figure_of(monkeypatch: pytest.MonkeyPatch, module: ModuleType, draw: Callable[[], object]) -> Figure:
    """What a function of a module of figures draws."""
    found: list[Figure] = []
    monkeypatch.setattr(module, "svg", lambda figure, *_: found.append(figure) or Markup(""))
    draw()
    return found[0]


def test_intervals_of_an_auc_end_at_0_and_1(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    made = [
        row("d", "b", s, seed, auc, n_train=n, per_class=n, fingerprint=f"{s}{n}", curve=[auc, auc])
        for s in ("a", "c") for n in (10, 100) for seed, auc in enumerate((0.1, 0.9))
    ]  # fmt: skip
    rows, hues = current(read_rows(write(tmp_path / "run", made))), dict(zip("ac", SERIES, strict=False))
    few = rows[rows["per_class"] == 10]
    for module, draw in (
        (scores, lambda: scores.strips(few, "x", "x")),
        (amounts, lambda: amounts.efficiency(rows, hues, "x", "x")),
        (learning, lambda: learning.curves(few, hues, "x", "x")),
    ):
        low, high = figure_of(monkeypatch, module, draw).axes[0].dataLim.intervaly
        if module is scores:
            low, high = figure_of(monkeypatch, module, draw).axes[0].dataLim.intervalx
        assert (low, high) == (0, 1), module.__name__


def test_a_strategy_that_lacks_an_amount_has_no_line(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    made = [
        row("d", "b", s, seed, 0.8 + seed / 100, n_train=n, per_class=n, fingerprint=f"{s}{n}")
        for s, counts in (("a", (10, 100)), ("c", (10,))) for n in counts for seed in range(2)
    ]  # fmt: skip
    rows, hues = current(read_rows(write(tmp_path / "run", made))), dict(zip("ac", SERIES, strict=False))
    axes = figure_of(monkeypatch, amounts, lambda: amounts.efficiency(rows, hues, "x", "x")).axes[0]
    assert [line.get_xdata().tolist() for line in axes.lines] == [[10, 100]]


def test_lines_over_amounts_are_named_and_whatever_has_none_is_too(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    few, every = {"n_train": 20, "per_class": 10, "epochs": 20}, {"n_train": 546, "epochs": 6}
    more = {"n_train": 100, "per_class": 50}
    made = [
        row("d", "b", s, seed, 0.8 + seed / 100, **amount, fingerprint=f"{s}{amount['n_train']}")
        for s, given in (("probe", (few, every)), ("tuned", (few,)), ("other", (few, every, more)))
        for amount in given for seed in range(2)
    ]  # fmt: skip
    rows = current(read_rows(write(tmp_path / "run", made)))
    assert amounts.several(rows) == ({"other"}, {"probe"})
    both = rows[(rows["n_train"] != 100).fillna(False)]
    assert amounts.several(both) == ({"other", "probe"}, set())
    one = {"probe": SERIES[0]}
    figure = figure_of(monkeypatch, amounts, lambda: amounts.efficiency(both, one, "x", "x"))
    assert [text.get_text() for legend in figure.legends for text in legend.get_texts()] == ["probe"]
    caption = amounts.efficiency(both, one, "x", "x").caption
    assert "on which probe has results" in caption
    assert "Without a line, for they were run with one amount of a dataset: tuned." in caption
    assert "differs along a line: 10 a class: 20 epochs; all: 6 epochs." in caption
    assert "Of 2 strategies with several amounts the 1 of the best mean rank are drawn." in caption
    caption = amounts.efficiency(rows, {"other": SERIES[0]}, "x", "x").caption
    assert "Without a line, for they were run with some of the amounts only: probe." in caption


def test_amounts_that_come_to_the_same_images_are_no_further_seeds(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """500 images a class are more than there are: all 546, the same as a fraction of 1, seed by seed."""
    made = [
        row("d", "b", "probe", seed, level + seed / 50, per_class=per_class, n_train=n, fingerprint=f"{per_class}")
        for per_class, n, level in ((10, 20, 0.6), (500, 546, 0.8), (None, 546, 0.8)) for seed in range(3)
    ]  # fmt: skip
    rows, hues = current(read_rows(write(tmp_path / "run", made))), {"probe": SERIES[0]}
    few = rows[~rows["per_class"].eq(500).fillna(False)]
    with_both = figure_of(monkeypatch, amounts, lambda: amounts.efficiency(rows, hues, "x", "x"))
    alone = figure_of(monkeypatch, amounts, lambda: amounts.efficiency(few, hues, "x", "x"))
    bars = [figure.axes[0].collections[0].get_segments() for figure in (with_both, alone)]
    assert np.array(bars[0]) == pytest.approx(np.array(bars[1]))
    picture = amounts.efficiency(rows, hues, "x", "x")
    assert "n = 6 runs" in picture.caption
    assert "are balanced; fractions, and all images, are as the dataset is." in picture.caption
    balanced = amounts.efficiency(rows[rows["per_class"].notna()], hues, "x", "x")
    assert "balanced" not in balanced.caption


def test_every_run_draws_the_ranked_and_marks_those_on_fewer_backbones(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Fourteen strategies run on the better network only would leave no room for those of the leaderboard."""
    made = [row("d", net, s, 0, auc, fingerprint=f"{net}{s}")
            for s in ("scratch", "probe") for net, auc in (("good", 0.9), ("poor", 0.5))]  # fmt: skip
    made += [row("d", "good", f"extra{n:02d}", 0, 0.91 + n / 1000, fingerprint=f"e{n}") for n in range(14)]
    rows = current(read_rows(write(tmp_path / "run", made)))
    drawn: list[scores.Picture | None] = []
    figure = figure_of(monkeypatch, scores, lambda: drawn.append(scores.strips(rows, "x", "x", ["probe", "scratch"])))
    labels = [text.get_text() for text in figure.axes[0].get_yticklabels()]
    assert labels == [*(f"extra{n:02d}*" for n in range(4, 14)), "probe", "scratch"]
    assert drawn[0] is not None
    assert "* has results on fewer datasets and backbones: its mean is not comparable" in drawn[0].caption
    assert "Of 16 strategies the 12 of the best mean rank, or else with the highest mean, are drawn" in drawn[0].caption
    alone = scores.strips(rows[rows["backbone"] == "good"], "x", "x", ["probe"])
    assert alone is not None
    assert "* has results" not in alone.caption


def test_bars_that_cannot_be_seen_and_curves_that_stay_level_are_explained(tmp_path: Path) -> None:
    made = [row("d", "b", s, seed, 0.8 + seed * step, fingerprint=s, n_train=20, n_val=78)
            for s, step in (("scratch", 0.01), ("svm_probe", 0.0)) for seed in range(3)]  # fmt: skip
    few = current(read_rows(write(tmp_path / "run", made)))
    assert "or all seeds equal (svm_probe: nothing is drawn at random)." in scores.strips(few, "x", "x").caption
    hues = {"scratch": SERIES[0], "svm_probe": SERIES[1]}
    assert "not every epoch is validated" in learning.curves(few, hues, "x", "x").caption
    many = few[few["strategy"] == "scratch"].assign(n_train=100)
    assert "all seeds equal" not in scores.strips(many, "x", "x").caption
    assert "not every epoch is validated" not in learning.curves(many, hues, "x", "x").caption


def test_marks_at_1_are_whole(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    made = [row("d", "b", "a", seed, auc, val_auc=auc) for seed, auc in enumerate((0.4, 1.0))]
    rows = current(read_rows(write(tmp_path / "run", made)))
    draw = partial(
        overtuning.val_against_test, rows, pd.DataFrame(columns=["state", "hparams", "val_auc"]), {"a": SERIES[0]}
    )
    axes = figure_of(monkeypatch, overtuning, lambda: draw("x", "x")).axes[0]
    axes.figure.canvas.draw()
    _, top = axes.transData.transform((1, 1))
    radius = np.sqrt(13) / 2 * axes.figure.dpi / 72
    assert axes.get_window_extent().y1 - top >= radius


def test_a_dataset_without_a_bin_of_ten_is_no_panel_and_the_caption_says_so(monkeypatch: pytest.MonkeyPatch) -> None:
    def predicted(dataset: str, images: int) -> Predicted:
        labels = np.arange(images) % 2
        probs = np.stack([np.column_stack([1 - p, p]) for p in [np.linspace(0.05, 0.95, images)]])
        return Predicted(
            dataset, "a", "b", "binary", ("x", "y"), (0,), labels, probs, labels.astype(str), 0, pd.DataFrame()
        )  # fmt: skip

    few, many = predicted("few", 12), predicted("many", 400)
    assert calibration.reliability([few], {"a": SERIES[0]}, "x", "x") is None
    found: list[Picture | None] = []
    drawn = figure_of(
        monkeypatch, calibration,
        lambda: found.append(calibration.reliability([few, many], {"a": SERIES[0]}, "x", "x")),
    )  # fmt: skip
    assert [axes.get_title(loc="left") for axes in drawn.axes if axes.get_visible()] == ["many"]
    assert found[0] is not None
    assert "Not drawn, since no bin has 10: few." in found[0].caption


def test_means_are_compared_on_blocks_that_have_all_parts() -> None:
    cells = pd.DataFrame(
        [("d", "b1", "s1"), ("d", "b1", "s2"), ("d", "b2", "s1"), ("e", "b1", "s1")],
        columns=["dataset", "backbone", "strategy"],
    )
    kept = complete(cells, ["dataset", "backbone"], ["strategy"])
    assert kept.values.tolist() == [["d", "b1", "s1"], ["d", "b1", "s2"], ["e", "b1", "s1"]]


def test_the_control_is_among_the_leading_and_colours_do_not_depend_on_ranks(tmp_path: Path) -> None:
    given_rows = [
        row("d", "b", s, seed, auc + seed / 1000, fingerprint=s)
        for s, auc in (("scratch", 0.6), ("x", 0.9), ("y", 0.8), ("z", 0.7))
        for seed in range(2)
    ]
    board = leaderboard(current(read_rows(write(tmp_path / "run", given_rows))))
    assert leading(board, 2) == ["x", "scratch"]
    assert leading(board, 9) == ["x", "y", "z", "scratch"]
    assert leading(board, 2, {"y", "z"}) == ["y", "z"]
    assert colours(["z", "x"]) == colours(["x", "z"])
    assert colours(["a", "x"], colours(["x", "z"])) == {"x": SERIES[0], "a": SERIES[1]}
    assert len(MARKERS) == len(SERIES)


def test_the_setting_with_most_results_comes_first_then_the_largest() -> None:
    frame = pd.DataFrame(
        [
            {"size": size, "fraction": fraction, "per_class": per_class, "status": "ok", "test_auc": 0.5}
            for size, fraction, per_class in ((28, 0.1, pd.NA), (28, 1.0, 10), (28, 1.0, pd.NA), (64, 1.0, 10))
        ]
        + [{"size": 28, "fraction": 0.1, "per_class": pd.NA, "status": "ok", "test_auc": 0.6}]
    ).astype({"status": "string", "per_class": "Int64"})
    assert [name for name, _ in settings_of(frame)] == [
        "28 px, 10 % of training images", "64 px, 10 training images a class", "28 px, all training images",
        "28 px, 10 training images a class",
    ]  # fmt: skip


def test_a_name_is_never_taken_for_a_mark_of_the_figure() -> None:
    """Colours, ids and numbers are rewritten in the SVG's tags; a dataset may be called like one."""
    name = f'{INK} {RULE} url(#a) id="b" href="#c" 0.123456789 <&>'
    with style():
        figure, axes = single(3, 2)
        axes.set_title(name)
        dots(axes, [1, 2], [3, 4], SOFT, 3)
        text = str(svg(figure, "fig", name, name))
    escaped = '#010101 #020202 url(#a) id="b" href="#c" 0.123456789 &lt;&amp;&gt;'
    assert text.count(escaped) == 1
    assert text.count(escaped.replace('"', "&#34;")) == 2
    assert "var(--soft)" in text
    assert SOFT not in text
    assert "stroke-linecap: round" in text


def test_a_long_name_keeps_its_end() -> None:
    assert short("a" * 24) == "a" * 24
    cut = short("folder:/home/someone/a/very/long/path/to/scans")
    assert len(cut) == 24
    assert cut.startswith("folder…")
    assert cut.endswith("long/path/to/scans"[-17:])
