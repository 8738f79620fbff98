"""The report on ensembles: what they gain is measured against the network that val would have chosen, on the same test
images, and rankings of networks stay as they are."""

from __future__ import annotations

import json
import re
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from rich.console import Console

from bench.report.compare import compare
from bench.report.delong import image_variance
from bench.report.diversity import correlation, decisions, disagreement
from bench.report.ensembles import headline, section
from bench.report.ensembles_listed import listing
from bench.report.frames import apart, compact, current, ok, read_rows
from bench.report.gains import Gain, gain, reader, shares
from bench.report.intervals import Noise, quantile
from bench.report.leaderboard import leaderboard
from bench.report.markdown import summary
from bench.report.page import gather, write
from bench.report.section import Evidence
from bench.report.terminal import terminal_summary
from bench.report.ways import best_member, best_network, ways
from bench.store import publish
from tests import fake_ensembles
from tests.fake_results import Row, row
from tests.fake_results import write as write_rows

EVIL = "<script>alert(1)</script>&\"'"


def frames(folder: Path) -> tuple[pd.DataFrame, pd.DataFrame]:
    """Networks and ensembles with a result."""
    networks, made, _ = apart(current(read_rows(folder)))
    return ok(networks), ok(made)


def plain(html: str) -> str:
    return re.sub(r"<svg.*?</svg>|<[^>]+>", "|", html, flags=re.DOTALL).replace("&#39;", "'")


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return fake_ensembles.write(tmp_path_factory.mktemp("results") / "run")


@pytest.fixture(scope="module")
def evidence(folder: Path) -> Evidence:
    return gather([folder])[0]


@pytest.fixture(scope="module")
def body(evidence: Evidence) -> str:
    found = section(evidence)
    assert found is not None
    return str(found.body)


# Pairs of networks


def test_disagreement_and_error_correlation_by_hand() -> None:
    truth = np.array([1, 1, 1, 1, 0, 0, 0, 0])
    decided = np.array(
        [
            [[1, 1, 1, 0, 0, 0, 0, 1]],  # wrong on images 3 and 7
            [[1, 1, 0, 0, 0, 0, 0, 0]],  # on 2 and 3
            [[1, 1, 1, 1, 0, 0, 0, 0]],  # on none
        ]
    )
    differ = disagreement(decided)
    assert differ.tolist() == [[0, 2 / 8, 2 / 8], [2 / 8, 0, 2 / 8], [2 / 8, 2 / 8, 0]]
    phi = correlation(decided != truth)
    # One image both get wrong, one each alone, five neither: (1 * 5 - 1 * 1) / (2 * 6).
    assert phi[0, 1] == pytest.approx(4 / 12)
    assert phi[0, 0] == pytest.approx(1)
    assert np.isnan(phi[2]).all(), "a network without errors has none to go together with others"


def test_pairs_are_of_equal_seeds_and_seeds_without_errors_do_not_count() -> None:
    one = np.array([[1, 0, 0, 1], [0, 0, 0, 0]], dtype=bool)
    other = np.array([[1, 0, 0, 1], [1, 1, 0, 0]], dtype=bool)
    assert disagreement(np.stack([one, other]))[0, 1] == (0 + 2 / 4) / 2
    assert correlation(np.stack([one, other]))[0, 1] == pytest.approx(1)


def test_multi_label_decisions_are_of_every_label() -> None:
    probs = np.array([[[0.9, 0.2], [0.6, 0.7]]])
    assert decisions(probs, "multi-label").tolist() == [[True, False, True, True]]
    assert decisions(np.array([[[0.4, 0.6], [0.9, 0.1]]]), "binary").tolist() == [[1, 0]]


# Gains


LABELS = np.array([0, 0, 0, 0, 1, 1, 1, 1])
POSITIVE = {
    "ensemble": ([0.1, 0.2, 0.3, 0.6, 0.5, 0.7, 0.8, 0.9], [0.1, 0.2, 0.3, 0.4, 0.5, 0.7, 0.8, 0.9]),
    "network": ([0.1, 0.6, 0.3, 0.7, 0.5, 0.4, 0.8, 0.9], [0.4, 0.2, 0.6, 0.1, 0.5, 0.3, 0.8, 0.9]),
}
AUCS = {"ensemble": (15 / 16, 1.0), "network": (11 / 16, 13 / 16)}
"""By counting pairs of a positive and a negative in the right order."""


def stored(folder: Path, dataset: str = "d", reverse: bool = False) -> tuple[pd.DataFrame, pd.DataFrame]:
    """The pair above, two seeds each, with its predictions; `reverse` stores the network's images in another order."""
    made = []
    ids = np.array([f"{dataset}/{n}" for n in range(8)])
    for name, runs in POSITIVE.items():
        for seed, positive in enumerate(runs):
            one = row(dataset, "b", name, seed, AUCS[name][seed], fingerprint=f"{dataset}-{name}")
            probs = np.column_stack([1 - np.array(positive), positive])
            order = np.arange(8)[:: -1 if reverse and name == "network" else 1]
            arrays = {"test_logits": np.log(probs)[order], "test_labels": LABELS[order], "test_ids": ids[order]}
            publish(folder, one, arrays)
            made.append(one)
    rows = pd.DataFrame(made)
    return rows[rows["strategy"] == "ensemble"], rows[rows["strategy"] == "network"]


def runs(name: str) -> np.ndarray:
    return np.stack([np.column_stack([1 - np.array(positive), positive]) for positive in POSITIVE[name]])


@pytest.mark.parametrize("reverse", [False, True])
def test_a_gain_has_the_noise_of_paired_seeds_and_of_the_test_images(tmp_path: Path, reverse: bool) -> None:
    found = gain([stored(tmp_path, reverse=reverse)], reader([tmp_path], []))
    assert found.auc == pytest.approx((4 / 16 + 3 / 16) / 2)
    assert found.of_seeds is not None
    assert found.of_images is not None
    # Differences 4/16 and 3/16: their variance is (1/16)² / 2, and of the mean of two half of that.
    assert found.of_seeds.variance == pytest.approx(1 / 16**2 / 4)
    images = image_variance(LABELS, runs("network"), runs("ensemble"), "binary")
    assert found.of_images.variance == pytest.approx(images)
    seeds = float(found.of_seeds.variance)
    half = quantile((seeds + images) ** 2 / seeds**2) * np.sqrt(seeds + images)
    assert found.interval == pytest.approx((found.auc - half, found.auc + half))
    assert found.over == "seeds and test images"


def test_datasets_count_alike_and_their_noise_is_independent(tmp_path: Path) -> None:
    pairs = [stored(tmp_path, name) for name in ("d1", "d2")]
    read = reader([tmp_path], [])
    one, both = gain(pairs[:1], read), gain(pairs, read)
    assert both.auc == pytest.approx(one.auc)
    for single, joined in ((one.of_seeds, both.of_seeds), (one.of_images, both.of_images)):
        assert single is not None
        assert joined is not None
        assert joined.variance == pytest.approx(float(single.variance) / 2)


def test_shifts_that_are_tested_on_the_same_images_are_one_dataset(tmp_path: Path) -> None:
    pairs = [stored(tmp_path, name) for name in ("d", "d->corrupted:blur-1", "d->corrupted:blur-2", "e")]
    assert shares([ensemble for ensemble, _ in pairs]) == pytest.approx([1 / 6, 1 / 6, 1 / 6, 1 / 2])
    read = reader([tmp_path], [])
    one, every = gain(pairs[:1], read), gain(pairs, read)
    assert one.of_images is not None
    assert every.of_images is not None
    assert every.of_images.variance == pytest.approx(float(one.of_images.variance) / 2), "of two datasets, not of four"


def test_what_is_not_known_is_not_in_the_interval(tmp_path: Path) -> None:
    ensemble, network = stored(tmp_path)
    read = reader([tmp_path], [])
    of_one_run = gain([(ensemble.iloc[:1], network)], read)
    assert of_one_run.over == "test images", "one run tells nothing of other seeds"
    assert of_one_run.auc == pytest.approx(15 / 16 - 12 / 16)
    (tmp_path / "cells" / "d-network-s1.npz").unlink()
    without = gain([(ensemble, network)], reader([tmp_path], []))
    assert without.over == "seeds"
    low, high = without.interval
    assert high - low == pytest.approx(2 * quantile(1) / 16 / 2)
    nothing = gain([(ensemble.iloc[:1], network)], reader([], []))
    assert nothing.over == ""
    assert np.isnan(nothing.interval).all()
    assert not nothing.told_apart


def test_a_damaged_file_of_predictions_is_named(tmp_path: Path) -> None:
    pair = stored(tmp_path)
    (tmp_path / "cells" / "d-network-s1.npz").write_bytes(b"torn")
    problems: list[str] = []
    assert gain([pair], reader([tmp_path], problems)).over == "seeds"
    assert "d-network-s1.npz cannot be read" in problems[0]


def test_seeds_that_agree_tell_of_no_error() -> None:
    none = Noise(np.zeros(()), np.zeros(()))
    assert np.isnan(Gain(0.1, none, None).interval).all()
    assert Gain(0.1, none, Noise(np.array(0.01), np.zeros(()))).told_apart is False
    assert Gain(0.1, none, Noise(np.array(0.001), np.zeros(()))).told_apart is True


# What is compared with what


def ensemble(dataset: str, fusion: str, over: str, what: str, auc: float, val: float | None, *members: Row) -> Row:
    listed = [
        {"fingerprint": m["fingerprint"], "seed": m["seed"], "label": "m", "weight": 1 / len(members)} for m in members
    ]
    own = {"fusion": fusion, "over": over, "members": json.dumps(listed), "val_auc": val}
    return row(dataset, "all backbones", f"{fusion}({what})", 0, auc, **own)


def test_of_several_of_a_kind_the_one_that_val_prefers_counts_on_the_datasets_that_have_all(tmp_path: Path) -> None:
    network = row("d1", "b", "c", 0, 0.8)
    made = [
        ensemble("d1", "mean", "backbones", "x", 0.95, 0.80, network),
        ensemble("d1", "mean", "backbones", "y", 0.90, 0.85, network),
        ensemble("d2", "mean", "backbones", "x", 0.70, 0.70, network),
        ensemble("d3", "mean", "backbones", "x", 0.60, 0.60, network),
        ensemble("d1", "vote", "all", "all", 0.85, None, network),
        ensemble("d2", "vote", "all", "all", 0.75, None, network),
        ensemble("d3", "stacking", "all", "all", 0.65, 0.99, network),
    ]
    found = {way.fusion: way for way in ways(frames(write_rows(tmp_path / "run", [network, *made]))[1])}
    assert [part["test_auc"].tolist() for part in found["mean"].chosen] == [[0.90], [0.70]]
    assert [part["dataset"].iloc[0] for part in found["vote"].chosen] == ["d1", "d2"]
    assert found["mean"].compared
    assert found["vote"].compared
    assert not found["stacking"].compared, "it is on one of three datasets, which would cost the others two"
    assert [part["dataset"].iloc[0] for part in found["stacking"].chosen] == ["d3"]


def test_the_best_member_is_the_one_that_val_prefers(tmp_path: Path) -> None:
    fits = [
        row("d", backbone, "c", seed, test, val_auc=val, fingerprint=backbone)
        for backbone, seed, test, val in (
            ("b1", 0, 0.90, 0.70), ("b1", 1, 0.90, 0.72),
            ("b2", 0, 0.80, 0.75), ("b2", 1, 0.81, 0.73),
            ("b3", 0, 0.99, None), ("b3", 1, 0.99, 0.99),
            ("elsewhere", 0, 0.95, 0.95), ("elsewhere", 1, 0.95, 0.95),
        )
    ]  # fmt: skip
    by = {(one["backbone"], one["seed"]): one for one in fits}
    each = [
        ensemble("d", "mean", "all", "all", 0.9, 0.9, *(by[b, s] for b in ("b1", "b2", "b3"))) | {"seed": s}
        for s in (0, 1)
    ]
    seeds = ensemble("d", "mean", "seeds", "seeds of c", 0.9, 0.9, by["b2", 0], by["b2", 1])
    lone = ensemble("d", "mean", "backbones", "c", 0.9, 0.9, by["b3", 0])
    networks, made = frames(write_rows(tmp_path / "run", [*fits, *each, seeds, lone]))
    of = {over: part.sort_values("seed") for over, part in made.groupby("over")}

    def aucs(rows: pd.DataFrame | None) -> list[float] | None:
        return None if rows is None else rows["test_auc"].tolist()

    assert aucs(best_member(of["all"], networks)) == [0.80, 0.81], (
        "b3 lacks a val AUC, and the highest val is no member"
    )
    assert aucs(best_member(of["seeds"], networks)) == [0.80]
    assert best_member(of["backbones"], networks) is None
    assert aucs(best_network(of["all"], networks)) == [0.95, 0.95]


def test_what_saw_the_test_images_is_neither_compared_nor_compared_with(tmp_path: Path) -> None:
    seen = {"transductive": True}
    fair, tent = row("d", "b", "dann", 0, 0.8, val_auc=0.8), row("d", "b", "tent", 0, 0.99, val_auc=0.99) | seen
    made = [
        ensemble("d", "mean", "backbones", "dann", 0.85, 0.8, fair),
        ensemble("d", "vote", "strategies", "all", 0.99, 0.99, fair, tent) | seen,
    ]
    networks, ensembles = frames(write_rows(tmp_path / "run", [fair, tent, *made]))
    assert [way.fusion for way in ways(ensembles)] == ["mean"]
    best = best_network(ensembles[ensembles["fusion"] == "mean"], networks)
    assert best is not None
    assert best["strategy"].tolist() == ["dann"]
    said = " ".join(headline(networks, ensembles, reader([], [])))
    assert "tent" not in said
    assert "mean over backbones has" in said
    alone = ensembles[ensembles["fusion"] == "vote"]
    assert headline(networks, alone, reader([], [])) == [
        "Every ensemble has a transductive member, which saw the test images, so none is compared."
    ]
    listed = str(listing(ensembles, networks, reader([], [])))
    assert "vote(all) (transductive)" in listed
    assert "0.50 each: dann, tent (transductive)" in listed
    assert "mean(dann) (" not in listed


# The page


def test_the_section_has_every_kind_best_first_with_gain_and_cost(body: str) -> None:
    text = plain(body)
    kinds = re.search(r"Kinds of ensembles\..*?All \d+ ensembles", text, re.DOTALL)
    assert kinds is not None
    lines = [
        [cell for cell in line.split("|") if cell]
        for line in kinds[0].splitlines()
        if re.match(r"\W*(ensemble_\w+ over|best single network)", line)
    ]
    names = [line[0] for line in lines]
    overs = ("mean over seeds", "mean over backbones", "mean over strategies", "mean over all", "greedy over all")
    assert sorted(names) == sorted(["best single network", *(f"ensemble_{over}" for over in overs)])
    aucs = [float(line[1]) for line in lines]
    assert aucs == sorted(aucs, reverse=True)
    costs = {line[0]: line[-1] for line in lines}
    assert costs["ensemble_mean over all"] == "7.2", "six networks at 1.2 ms"
    best = names[0]
    assert f"{best} has the highest mean test AUC of 5 kinds of ensembles, {aucs[0]:.3f} on 3 datasets, which" in text
    assert "the best of 5 is picked on these very test images" in text
    assert costs["ensemble_greedy over all"] == "3.6", "three of its six members have a weight"
    ratio = float(costs[best]) / 1.2
    assert f"at {ratio:.3g} times its time of prediction" in text
    gained = aucs[0] - aucs[names.index("best single network")]
    said = re.search(r"it differs by ([+−][\d.]+) \(95 % interval over", text)
    assert said is not None
    assert float(said[1].replace("−", "-")) == pytest.approx(gained, abs=0.0011)
    assert "images only" in next(line for line in lines if line[0].endswith("seeds"))[3]
    assert "Val has 60 (breastmnist), 60 (chestmnist), 60 (pathmnist) images." in text


def test_members_are_listed_with_their_weights(body: str) -> None:
    text = plain(body)
    assert "All 39 ensembles" in text
    greedy = re.search(r"ensemble_greedy\(all\).*\n?.*? of weight 0", text)
    assert greedy is not None
    weights = [float(weight) for weight in re.findall(r"(0\.\d\d)(?:,|\|)", greedy[0].partition("· ")[2])]
    assert weights == sorted(weights, reverse=True)
    assert sum(weights) == pytest.approx(1, abs=0.02)
    assert "0.33 each: densenet121, mobilenetv2_035, resnet18" in text
    assert "0.50 each: seed 0, seed 1" in text


def test_views_of_one_network_are_told_apart(tmp_path: Path) -> None:
    network = row("d", "b", "c", 0, 0.8)
    made = ensemble("d", "mean", "views", "views of c", 0.9, 0.9, network)
    members = [
        {"fingerprint": network["fingerprint"], "seed": 0, "label": "m", "weight": weight, "view": view}
        for view, weight in ((0, 0.6), (1, 0.4))
    ]
    run = write_rows(tmp_path / "run", [network, made | {"members": json.dumps(members)}])
    text = plain(listing(*reversed(frames(run)), reader([run], [])))
    assert "the image itself 0.60, view 1 0.40" in text
    assert "+0.100" in text, "its gain is over the network without views"


def test_pairs_are_drawn_and_the_mean_ensembles_gain_stands_beside_them(body: str) -> None:
    assert body.count("<svg") == 3
    line = re.search(r"chestmnist\|\|60\|\|6\|\|2\|\|(0\.\d+)\|\|(0\.\d+)\|\|ensemble_mean\(all\)", plain(body))
    assert line is not None
    description = re.findall(r"<desc[^>]*>(.*?)</desc>", body)[1]
    pairs = re.findall(r"(\d\.\d\d) and ([−\d.]+)(?:;|\.)", description)
    assert len(pairs) == 6 * 5 / 2
    assert np.mean([float(one) for one, _ in pairs]) == pytest.approx(float(line[1]), abs=0.006)


def test_rankings_of_networks_stay_as_they_are(folder: Path, evidence: Evidence) -> None:
    alone = ok(evidence.rows)
    assert alone["strategy"].isin(list(fake_ensembles.STRATEGIES)).all()
    board = leaderboard(alone)
    pd.testing.assert_frame_equal(evidence.board.table, board.table)
    everything = compact(folder)
    assert len(everything) == len(evidence.rows) + len(evidence.ensembles)
    assert len(pd.read_parquet(folder / "rows.parquet")) == len(everything)


def test_the_whole_page_is_made_and_names_are_only_text(tmp_path: Path) -> None:
    fits = [row("d", b, EVIL, s, 0.8, fingerprint=f"{b}-x") for b in ("b1", "b2") for s in range(2)]
    other = row("d", "theirs", "imported", 0, 0.8, fingerprint="i", family="imported")
    unknown = ("val_auc", "val_acc", "tune_seconds", "fit_seconds", "predict_ms", "images_seen", "params_total", "lr")
    other |= dict.fromkeys(unknown)
    fused = [ensemble("d", EVIL, "backbones", EVIL, 0.9, 0.9, fits[s], fits[2 + s]) | {"seed": s} for s in range(2)]
    mixed = ensemble("d", "ensemble_mean", "all", "all", 0.9, None, fits[0], other) | {"predict_ms": None}
    skipped = row("d", "all backbones", "stacking(all)", 0, 0.9, fusion="stacking", over="all", test_auc=None)
    skipped |= {"status": "skipped", "reason": f"val lacks a class {EVIL}"}
    run = write_rows(tmp_path / "run", [*fits, other, *fused, mixed, skipped])
    evidence, unreadable = gather([run])
    assert unreadable == []
    html = write(evidence, unreadable, tmp_path / "page.html").read_text()
    assert "<script>alert" not in html
    assert 'href="#ensembles"' in html
    body = html.partition('<section id="ensembles"')[2].partition("</section>")[0]
    assert "val lacks a class &lt;script&gt;" in body
    assert "&lt;script&gt;alert(1)&lt;/script&gt;&amp;&#34;&#39; over backbones" in body


def test_without_ensembles_there_is_no_section_and_without_results_the_reason(tmp_path: Path) -> None:
    network = row("d", "b", "c", 0, 0.8)
    assert section(gather([write_rows(tmp_path / "alone", [network])])[0]) is None
    lost = ensemble("d", "mean", "all", "all", 0.9, 0.9, network)
    lost |= {"status": "failed", "test_auc": None, "reason": "b1 and b2 did not predict the same images"}
    found = section(gather([write_rows(tmp_path / "lost", [network, lost])])[0])
    assert found is not None
    assert "No ensemble has a result." in found.body
    assert re.search(r"Failed\|+b1 and b2 did not predict the same images\|+1\|", plain(found.body))


def test_nothing_told_apart_is_said(tmp_path: Path) -> None:
    fits = [row("d", b, "c", s, 0.80 + 0.02 * s, fingerprint=b, predict_ms=2.0) for b in ("b1", "b2") for s in range(2)]
    fused = [
        ensemble("d", "mean", "backbones", "c", 0.82 - 0.01 * s, 0.9, fits[s], fits[2 + s])
        | {"seed": s, "predict_ms": 4.0}
        for s in range(2)
    ]
    found = section(gather([write_rows(tmp_path / "run", [*fits, *fused])])[0])
    assert found is not None
    for sentence in (
        "at 2 times its time of prediction",
        "So the two are not told apart: no gain is shown.",
        "No kind of ensemble is told apart from its best member.",
    ):
        assert sentence in found.body, sentence


def weighted(one: Row, *weights: float) -> Row:
    listed = json.loads(one["members"])
    return one | {"members": json.dumps([m | {"weight": w} for m, w in zip(listed, weights, strict=True)])}


def test_one_member_with_all_the_weight_is_no_ensemble_and_gains_nothing(tmp_path: Path) -> None:
    fits = [row("d", b, "c", 0, auc, fingerprint=b, val_auc=val) for b, auc, val in (("x", 0.7, 0.9), ("y", 0.9, 0.8))]
    made = weighted(ensemble("d", "greedy", "all", "all", 0.9, 0.95, *fits), 0.0, 1.0)
    said = " ".join(headline(*frames(write_rows(tmp_path / "run", [*fits, made])), reader([], [])))
    assert "One member has all the weight" in said
    assert "there is no gain" in said
    assert "differs by" not in said


def test_a_single_network_that_scores_as_high_is_named_and_members_without_weight_cost_nothing(tmp_path: Path) -> None:
    aucs = {"x": (0.7, 0.9), "y": (0.9, 0.8), "z": (0.6, 0.7)}
    fits = [row("d", b, "c", 0, auc, fingerprint=b, val_auc=val, predict_ms=2.0) for b, (auc, val) in aucs.items()]
    made = weighted(ensemble("d", "greedy", "all", "all", 0.9, 0.95, *fits), 0.5, 0.5, 0.0)
    run = write_rows(tmp_path / "run", [*fits, made | {"predict_ms": 6.0}])
    said = " ".join(headline(*frames(run), reader([], [])))
    assert "A single network of this run scores as high on test: c, y (0.900)." in said
    assert "at 2 times its time of prediction" in said
    lower = write_rows(tmp_path / "lower", [*fits, made | {"test_auc": 0.91}])
    assert "as high on test" not in " ".join(headline(*frames(lower), reader([], [])))


def test_the_terminal_and_the_summary_name_the_best_ensemble(folder: Path, evidence: Evidence) -> None:
    console = Console(width=100)
    with console.capture() as capture:
        console.print(terminal_summary(compact(folder), [folder]))
    shown = " ".join(capture.get().split())
    assert "the highest mean test AUC of 5 kinds of ensembles" in shown
    assert "over seeds and test images" in shown
    assert "ensemble_mean(all)" not in shown.partition("ensembles:")[0], "it is no line of the table"
    written = summary(evidence, [], None)
    line = next(line for line in written.splitlines() if line.startswith("**Ensembles.**"))
    assert "times its time of prediction" in line


def test_a_comparison_pairs_ensembles_but_counts_networks_only(tmp_path: Path) -> None:
    folders = []
    for name, gained in (("a", 0.0), ("b", 0.01)):
        fits = [row("d", b, "c", s, 0.8 + gained + s / 100, fingerprint=f"{b}{name}") for b in "xy" for s in range(2)]
        made = [
            ensemble("d", "mean", "backbones", "c", 0.9 + 5 * gained + s / 100, 0.9, fits[s], fits[2 + s])
            | {"seed": s, "fingerprint": f"e{name}"}
            for s in range(2)
        ]
        folders.append(write_rows(tmp_path / name, [*fits, *made]))
    found = compare(*folders)
    assert sorted(found.cells["difference"].round(6)) == [0.01, 0.01, 0.05]
    assert found.mean[0] == pytest.approx(0.01)
