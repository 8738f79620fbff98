"""Tests across datasets and on the same test images, against scikit-posthocs, statsmodels, exact counts, simulation."""

from __future__ import annotations

import itertools
import re
import shutil
from pathlib import Path

import numpy as np
import pytest
import scikit_posthocs
from hypothesis import given, settings
from hypothesis import strategies as st
from rich.console import Console
from scipy import stats as scipy_stats
from statsmodels.stats import contingency_tables
from statsmodels.stats.multitest import multipletests

from bench.commands.report import write_report
from bench.contract import Kind
from bench.metrics import auc, probabilities
from bench.report import power
from bench.report.bayes import Shares, signed_rank
from bench.report.delong import image_variance
from bench.report.frames import current, read_rows, read_trials
from bench.report.intervals import Noise
from bench.report.leaderboard import leaderboard
from bench.report.page import gather
from bench.report.paired import Paired, mcnemar, paired
from bench.report.same_images import KIN
from bench.report.section import Evidence
from bench.report.significance import (
    CriticalDifference,
    Friedman,
    TooFew,
    against_control,
    critical_difference,
    friedman,
    holm,
    nemenyi,
    wilcoxon,
)
from bench.report.statistics import section
from bench.store import publish
from tests.fake_results import row, rows, write

RNG = np.random.default_rng


def test_friedman_is_scipys_and_iman_davenports_f_is_the_two_way_anova_of_ranks() -> None:
    scores = RNG(0).normal(size=(9, 4)) + np.arange(4) * 0.3
    found = friedman(scores)
    assert isinstance(found, Friedman)
    assert (found.chi2, found.p_chi2) == pytest.approx(tuple(scipy_stats.friedmanchisquare(*scores.T)))
    ranks = scipy_stats.rankdata(scores, axis=1)
    between = 9 * ((ranks.mean(axis=0) - 2.5) ** 2).sum()
    within = ((ranks - 2.5) ** 2).sum() - between
    assert found.f == pytest.approx((between / 3) / (within / 24))
    assert found.p == pytest.approx(scipy_stats.f.sf(found.f, 3, 24))


def test_friedmans_f_holds_its_level() -> None:
    rejected = [friedman(RNG(seed).normal(size=(8, 5))).p < 0.05 for seed in range(600)]  # type: ignore[union-attr]
    assert 0.03 < np.mean(rejected) < 0.07


def test_nemenyis_critical_difference_is_demsars_and_agrees_with_scikit_posthocs() -> None:
    # Demšar 2006, table 5: q of .05 for 2 to 10 classifiers.
    q = [1.960, 2.343, 2.569, 2.728, 2.850, 2.949, 3.031, 3.102, 3.164]
    for entries, value in enumerate(q, 2):
        expected = value * np.sqrt(entries * (entries + 1) / (6 * 12))
        assert nemenyi(12, entries) == pytest.approx(expected, rel=1e-3)
    for seed in range(5):
        scores = RNG(seed).normal(size=(12, 5)) + np.arange(5) * 0.5
        p = scikit_posthocs.posthoc_nemenyi_friedman(scores).to_numpy()
        ranks = scipy_stats.rankdata(-scores, axis=1).mean(axis=0)
        apart = np.abs(ranks[:, None] - ranks) > nemenyi(12, 5)
        assert np.array_equal(apart, (p < 0.05) & ~np.eye(5, dtype=bool))


def test_groups_are_the_longest_runs_within_the_critical_difference() -> None:
    scores = RNG(1).normal(size=(12, 6)) + np.arange(6) * 0.8
    found = critical_difference(list("abcdef"), scores)
    assert isinstance(found, CriticalDifference)
    assert found.labels[0] == "f"
    ranks = np.array(found.mean_ranks)
    assert np.all(np.diff(ranks) >= 0)
    together = {(i, j) for i, j in itertools.combinations(range(6), 2) if ranks[j] - ranks[i] < found.difference}
    covered = {pair for a, b in found.groups for pair in itertools.combinations(range(a, b + 1), 2)}
    assert together == covered
    assert not any(a <= c and d <= b for (a, b), (c, d) in itertools.permutations(found.groups, 2))


def test_where_friedman_rejects_nothing_all_are_one_group() -> None:
    found = critical_difference(list("abc"), RNG(3).normal(size=(12, 3)))
    assert isinstance(found, CriticalDifference)
    assert found.friedman.p > 0.05
    assert found.groups == ((0, 2),)


@pytest.mark.parametrize(("datasets", "entries"), [(1, 4), (5, 4), (12, 2)])
def test_too_few_datasets_or_strategies_give_a_sentence(datasets: int, entries: int) -> None:
    found = critical_difference([str(e) for e in range(entries)], RNG(0).normal(size=(datasets, entries)))
    assert isinstance(found, TooFew)
    assert found.startswith("No Friedman test")


def test_strategies_that_are_alike_everywhere_have_no_ranks() -> None:
    found = critical_difference(list("abc"), np.full((6, 3), 0.8))
    assert isinstance(found, TooFew)
    assert found.startswith("All strategies have the same score")


@settings(max_examples=25)
@given(st.integers(0, 10**6), st.integers(6, 9))
def test_wilcoxon_is_the_count_of_all_signs(seed: int, n: int) -> None:
    gains = RNG(seed).normal(0.3, 1, n)
    ranks = scipy_stats.rankdata(np.abs(gains))
    seen = ranks[gains > 0].sum()
    sums = np.array(list(itertools.product([0, 1], repeat=n))) @ ranks
    exact = min(1.0, 2 * min(np.mean(sums >= seen), np.mean(sums <= seen)))
    assert wilcoxon(gains) == pytest.approx(exact)


def test_wilcoxon_says_what_too_few_datasets_can_give() -> None:
    assert "over 5 datasets the smallest that Wilcoxon's test can give is 0.062" in wilcoxon(np.ones(5))  # type: ignore[operator]
    assert wilcoxon(np.arange(1.0, 7)) == pytest.approx(2 / 64)
    assert wilcoxon(np.zeros(8)) == 1


def test_holm_is_statsmodels() -> None:
    for seed in range(5):
        p = (RNG(seed).integers(0, 40, 3 * seed + 1) / 200).tolist()
        assert holm(p) == pytest.approx(multipletests(p, method="holm")[1])


def slow_signed_rank(gains: list[float], rope: float, draws: int) -> list[float]:
    """Benavoli et al. (2017), equation 13, word by word; another generator and gammas instead of a Dirichlet."""
    rng = np.random.RandomState(7)
    values, wins = [0.0, *gains], [0.0, 0.0, 0.0]
    for _ in range(draws):
        gammas = rng.gamma(1.0, size=len(values))
        weights = gammas / gammas.sum()
        chance = [0.0, 0.0, 0.0]
        for (a, u), (b, v) in itertools.product(zip(values, weights, strict=True), repeat=2):
            chance[0 if a + b < -2 * rope else 2 if a + b > 2 * rope else 1] += u * v
        wins[int(np.argmax(chance))] += 1 / draws
    return wins


def test_bayesian_signed_rank_is_its_definition() -> None:
    for seed in range(3):
        gains = RNG(seed).normal(0.006, 0.015, 7)
        found = signed_rank(gains, 0.01)
        assert isinstance(found, Shares)
        assert [found.left, found.rope, found.right] == pytest.approx(
            slow_signed_rank(list(gains), 0.01, 3000), abs=0.03
        )
        assert found.left + found.rope + found.right == pytest.approx(1)


@pytest.mark.parametrize("n", [6, 12])
def test_what_agreement_of_n_datasets_can_show_is_its_closed_form(n: int) -> None:
    found = signed_rank(np.full(n, 0.5), 0.01)
    assert isinstance(found, Shares)
    assert found.right == pytest.approx(1 - (1 - np.sqrt(0.5)) ** n, abs=0.004)
    assert signed_rank(np.full(n, -0.5), 0.01).left == pytest.approx(found.right, abs=0.004)  # type: ignore[union-attr]
    assert signed_rank(np.zeros(n), 0.01) == Shares(0, 1, 0)


def test_few_datasets_give_no_probability_however_alike() -> None:
    assert isinstance(signed_rank(np.full(5, 0.2), 0.01), TooFew)


def test_power_is_scipys_noncentral_t_and_the_smallest_effect_has_the_wanted_power() -> None:
    noise = Noise(np.array(0.02**2), np.array(0.02**4 / 7))  # 7 degrees of freedom
    t = scipy_stats.t.ppf(0.975, 7)
    assert power.power(0.05, noise) == pytest.approx(scipy_stats.nct.sf(t, 7, 2.5))
    assert power.power(power.smallest_effect(noise), noise) == pytest.approx(0.8, abs=1e-4)
    known = Noise(np.array(0.02**2), np.array(0.0))
    assert power.smallest_effect(known) == pytest.approx(0.02 * (1.959964 + 0.841621), rel=1e-4)


def clouds(kind: Kind, seed: int = 0) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Labels of 150 images and probabilities of two strategies with two runs each, that err on the same images."""
    rng = RNG(seed)
    classes = 2 if kind == "binary" else 4
    labels = rng.integers(0, classes, 150) if kind != "multi-label" else (rng.random((150, 3)) < 0.3).astype(int)
    truth = np.eye(classes)[labels] if kind != "multi-label" else labels.astype(float)
    hard = rng.normal(size=truth.shape)
    runs = [[gain * truth + hard + 0.5 * rng.normal(size=truth.shape) for _ in range(2)] for gain in (1.0, 1.6)]
    one, other = (np.stack([probabilities(logits, kind) for logits in part]) for part in runs)
    return labels, one, other


@pytest.mark.parametrize("kind", ["binary", "multi-class", "multi-label"])
def test_variance_of_a_difference_of_mean_aucs_is_that_of_a_bootstrap_over_images(kind: Kind) -> None:
    labels, one, other = clouds(kind)
    rng = RNG(1)
    groups = [np.arange(150)] if kind == "multi-label" else [np.flatnonzero(labels == c) for c in np.unique(labels)]
    drawn = []
    for _ in range(300):
        index = np.concatenate([rng.choice(group, len(group)) for group in groups])
        aucs = [np.mean([auc(labels[index], run[index], kind) for run in runs]) for runs in (one, other)]
        drawn.append(aucs[1] - aucs[0])
    assert np.sqrt(image_variance(labels, one, other, kind)) == pytest.approx(np.std(drawn), rel=0.12)


def test_mcnemar_of_single_runs_is_the_mid_p() -> None:
    one = np.array([[1, 1, 1, 1, 1, 1, 1, 0, 0, 1, 1, 0]], dtype=float)
    other = np.array([[0, 0, 0, 0, 0, 0, 1, 1, 0, 1, 1, 0]], dtype=float)  # 6 against 1
    exact = contingency_tables.mcnemar([[3, 6], [1, 2]], exact=True).pvalue
    assert mcnemar(one, other) == pytest.approx(exact - scipy_stats.binom.pmf(1, 7, 0.5))
    assert mcnemar(one, one) == 1
    assert mcnemar(np.array([[1.0, 0.0]]), np.array([[0.0, 1.0]])) == pytest.approx(0.5)


def test_mcnemar_of_equal_runs_is_the_asymptotic_one_and_holds_its_level_for_clusters() -> None:
    rng = RNG(0)
    one, other = (rng.random((1, 400)) < 0.8), (rng.random((1, 400)) < 0.7)
    table = [[(one & other).sum(), (one & ~other).sum()], [(~one & other).sum(), (~one & ~other).sum()]]
    theirs = contingency_tables.mcnemar(table, exact=False, correction=False).pvalue
    twice = [np.repeat(part, 2, axis=0).astype(float) for part in (one, other)]
    assert mcnemar(*twice) == pytest.approx(theirs)
    rejected = []
    for _ in range(600):
        hard = rng.random(200)
        runs = [(rng.random((3, 200)) < 0.4 + 0.6 * hard).astype(float) for _ in range(2)]
        rejected.append(mcnemar(*runs) < 0.05)
    assert 0.03 < np.mean(rejected) < 0.07


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two strategies on a binary and a multi-class dataset, two seeds, with predictions; a third without."""
    results = tmp_path_factory.mktemp("results") / "run"
    made = []
    kinds: list[tuple[str, Kind]] = [("d1", "binary"), ("d2", "multi-class")]
    for dataset, kind in kinds:
        labels, *runs = clouds(kind, seed=len(dataset))
        for strategy, probs in zip(("scratch", "<b>tuned"), runs, strict=True):
            for seed, run in enumerate(probs):
                one = row(dataset, "b", strategy, seed, auc(labels, run, kind), kind=kind, n_test=150)
                logits = np.log(np.clip(run, 1e-9, 1)).astype(np.float32)
                ids = np.array([f"{dataset}/test/{n}" for n in range(150)])
                publish(results, one, {"test_logits": logits, "test_labels": labels, "test_ids": ids})
                made.append(one)
    made += [row(d, "b", "other", seed, 0.6 + seed / 100, kind=k, n_test=150) for d, k in kinds for seed in range(2)]
    rest = write(results.parent / "rest", made)
    for path in (rest / "cells").iterdir():
        if not (results / "cells" / path.name).exists():
            path.rename(results / "cells" / path.name)
    return results


def test_a_paired_test_joins_delongs_variance_and_that_of_seeds(folder: Path) -> None:
    board = leaderboard(current(read_rows(folder)))
    found = paired(board, "<b>tuned", "scratch", [folder], [])
    assert [type(one) for one in found] == [Paired] * 3
    assert [one.dataset for one in found if isinstance(one, Paired)] == ["d1", "d2", "all"]
    labels, one, other = clouds("binary", seed=2)
    aucs = [[auc(labels, run, "binary") for run in runs] for runs in (other, one)]
    first = found[0]
    assert isinstance(first, Paired)
    assert first.auc == pytest.approx(np.mean(aucs[0]) - np.mean(aucs[1]))
    assert first.of_images.variance == pytest.approx(image_variance(labels, one, other, "binary"), rel=1e-5)
    assert first.of_seeds.variance == pytest.approx(sum(np.var(part, ddof=1) / 2 for part in aucs))
    distance = first.auc / np.sqrt(first.of_images.variance)
    assert first.p_images == pytest.approx(2 * scipy_stats.norm.sf(abs(distance)))
    assert first.p > first.p_images
    lacking = paired(board, "<b>tuned", "other", [folder], [])
    assert lacking == ["d1: not all predictions of other are stored.", "d2: not all predictions of other are stored."]


def test_views_of_the_same_patients_are_one_dataset_whose_errors_go_together(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    rows = current(read_rows(folder))
    each = [one for one in paired(leaderboard(rows), "<b>tuned", "scratch", [folder], []) if isinstance(one, Paired)]
    for dataset in ("d1", "d2"):
        monkeypatch.setitem(KIN, dataset, "d")
    board = leaderboard(rows)
    assert board.matrix is not None
    assert board.matrix.datasets == ("d",)
    (found,) = paired(board, "<b>tuned", "scratch", [folder], [])
    assert isinstance(found, Paired)
    assert (found.dataset, found.images) == ("d", 300)
    assert found.auc == pytest.approx(np.mean([one.auc for one in each[:2]]))
    error = np.mean([np.sqrt(one.of_images.variance) for one in each[:2]])
    assert np.sqrt(found.of_images.variance) == pytest.approx(error)
    assert np.sqrt(each[2].of_images.variance) < error
    assert np.isnan(found.p_accuracy)
    said = section(Evidence(rows, read_trials(folder), (folder,), ({},), board))
    assert said is not None
    assert "nan" not in said.body


def test_one_damaged_file_of_predictions_costs_its_own_figures_and_is_named_on_page_and_summary(
    folder: Path, tmp_path: Path
) -> None:
    copy = shutil.copytree(folder, tmp_path / "run")
    damaged = sorted((copy / "cells").glob("*-s1.npz"))[0]
    damaged.write_bytes(b"abc")
    write_report([copy], tmp_path / "page.html", Console(quiet=True))
    page, summary = ((tmp_path / name).read_text() for name in ("page.html", "page-summary.md"))
    for text in (page, summary):
        assert text.count(f"{damaged.name} cannot be read and counts as missing") == 1
    assert "not all predictions of" in page
    assert "On the same test images" in page


def test_the_section_gives_numbers_or_says_why_not_and_escapes_names(folder: Path) -> None:
    rows = current(read_rows(folder))
    board = leaderboard(rows)
    found = section(Evidence(rows, read_trials(folder), (folder,), ({},), board))
    assert found is not None
    for sentence in (
        "No p-value: over 2 datasets", "No probabilities: fewer than 6 datasets", "No Friedman test",
        "Gain over scratch", "told apart with a power of 80 %", "&lt;b&gt;tuned",
    ):  # fmt: skip
        assert sentence in found.body.replace("&#39;", "'"), sentence
    assert "<b>" not in found.body
    assert isinstance(against_control(board), TooFew)
    alone = rows[rows["strategy"] == "other"]
    assert section(Evidence(alone, read_trials(folder), (folder,), ({},), leaderboard(alone))) is None
    single = rows[rows["seed"] == 0]
    said = section(Evidence(single, read_trials(folder), (folder,), ({},), leaderboard(single)))
    assert said is not None
    assert "With one seed the noise between seeds is not known" in said.body


def test_a_level_that_no_run_is_above_is_no_column(tmp_path: Path) -> None:
    aucs = {"scratch": (0.5, 0.6), "full_finetune": (1.0, 1.0), "linear_probe": (1.0, 1.0)}
    made = [row("d", "b", s, seed, auc) for s, both in aucs.items() for seed, auc in enumerate(both)]
    found = section(gather([write(tmp_path / "run", made)])[0])
    assert found is not None
    assert re.findall(r"Share above ([\d.]+)", found.body) == ["0.70"]


def test_with_datasets_enough_the_section_tests_across_them(tmp_path: Path) -> None:
    rng = RNG(0)
    made = [
        row(f"d{d}", "b", strategy, seed, 0.8 + gain + rng.normal(0, 0.002))
        for d in range(8)
        for strategy, gain in (("scratch", 0.0), ("a", 0.03), ("c", 0.001))
        for seed in range(3)
    ]
    run = write(tmp_path / "run", made)
    rows = current(read_rows(run))
    board = leaderboard(rows)
    tests = against_control(board)
    assert isinstance(tests, dict)
    assert tests["a"] == pytest.approx(2 * 2 / 2**8)
    found = section(Evidence(rows, read_trials(run), (run,), ({},), board))
    assert found is not None
    assert "Nemenyi" in found.body
    assert "chi-squared" in found.body


def test_power_below_half_is_said_to_be_at_most_that(tmp_path: Path) -> None:
    found = gather([write(tmp_path / "run", rows())])[0]
    said = " ".join(str(section(found).body).split())
    assert "at least this where it is above 50 %, and at most this where it is below" in said
