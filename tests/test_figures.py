"""The page's figures as a reader gets them: they say what is true, leave out what they must, and stay harmless."""

from __future__ import annotations

import base64
import io
import json
import re
from html.parser import HTMLParser
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from PIL import Image

from bench import registry
from bench.report import figures, mistakes, predictions
from bench.report.frames import current, read_rows, read_trials
from bench.report.leaderboard import leaderboard
from bench.report.plots import canvas
from bench.report.section import Evidence
from tests.fake_results import Row, audited, row, rows, write

EVIL = """<script>alert(1)</script>"><img src=x onerror=alert(2)> $a_b$ --> ]]> {{ 7*7 }} 'é 超 url(#a #010101"""


def evidence(*folders: Path) -> Evidence:
    row_parts, trial_parts = [read_rows(folder) for folder in folders], [read_trials(folder) for folder in folders]
    for part in (*row_parts, *trial_parts):
        part.attrs = {}
    given = current(pd.concat(row_parts, ignore_index=True))
    trials = pd.concat(trial_parts, ignore_index=True)
    runs = tuple(json.loads((folder / "run.json").read_text()) for folder in folders)
    return Evidence(given, trials, folders, runs, leaderboard(given))


def matrix(datasets: tuple[str, ...], strategies: dict[str, float], amounts: tuple[int, ...] = (100,)) -> list[Row]:
    """Rows on two backbones, two seeds each; a strategy's AUC is .7 and its gain, and .05 a decade of images."""
    rng = np.random.default_rng(0)
    return [
        row(
            d, b, s, seed, float(0.7 + gain + 0.05 * np.log10(n / 100) * (s == "scratch") + rng.normal(0, 0.002)),
            n_train=n, per_class=n, fingerprint=f"{d[-20:]}-{b}-{s[-20:]}-{n}".replace("/", "_"), curve="[0.5, 0.6]",
            tune_seconds=10.0 * (1 + len(s)), kind="binary",
        )
        for d in datasets for b in ("b1", "b2") for s, gain in strategies.items() for n in amounts for seed in range(2)
    ]  # fmt: skip


def predict(folder: Path, dataset: str, ids: np.ndarray, labels: np.ndarray, logits: np.ndarray) -> None:
    """Store the same predictions for all rows of a dataset."""
    for path in (folder / "cells").glob("*.json"):
        if json.loads(path.read_text())["dataset"] == dataset:
            np.savez(path.with_suffix(".npz"), test_logits=logits, test_labels=labels, test_ids=ids)


@pytest.fixture(scope="module")
def full(tmp_path_factory: pytest.TempPathFactory) -> Evidence:
    """Six datasets, three strategies, two amounts of data, and predictions for one dataset."""
    datasets = tuple(f"set{n}" for n in range(6))
    strategies = {"scratch": -0.03, "linear_probe": 0.0, "full_finetune": 0.01}
    folder = write(tmp_path_factory.mktemp("results") / "full", matrix(datasets, strategies, (10, 1000)))
    rng = np.random.default_rng(1)
    labels = rng.integers(0, 2, 80)
    logits = (rng.normal(0, 1, (80, 2)) + np.eye(2)[labels]).astype(np.float32)
    predict(folder, "set0", np.array([f"set0/test/{n}" for n in range(80)]), labels, logits)
    return evidence(folder)


@pytest.fixture(scope="module")
def drawn(full: Evidence) -> dict[str, str]:
    """Key of a section -> its body."""
    return {section.key: str(section.body) for section in figures.sections(full)}


def test_every_figure_is_there_under_its_heading_with_n_and_interval(drawn: dict[str, str]) -> None:
    ids = {key: re.findall(r'aria-labelledby="([\w-]+)-title', body) for key, body in drawn.items()}
    assert ids == {
        "scores": ["heat0", "strip0", "heat1", "strip1", "ranks"],
        "cost": ["cost"],
        "tuning": ["rates", "trials", "valtest"],
        "learning": ["curves", "amounts"],
        "predictions": ["reliability", "recall"],
        "mistakes": [],
    }
    for body in drawn.values():
        for caption in re.findall(r"<figcaption>(.*?)</figcaption>", body):
            assert re.search(r"n\u00a0=\u00a0\d", caption), caption
            assert "interval" in caption or "noise of seeds" in caption, caption


def test_the_same_rows_give_the_same_bytes(phantoms: Evidence) -> None:
    assert figures.sections(phantoms) == figures.sections(evidence(*phantoms.folders))


def test_text_alternatives_name_what_is_best(full: Evidence, drawn: dict[str, str]) -> None:
    said = dict(re.findall(r'<desc id="([\w-]+)-desc">(.*?)</desc>', "".join(drawn.values())))
    rows, trials = full.rows, full.trials
    large, small = (rows[rows["per_class"] == n] for n in (1000, 10))
    for name, part in (("heat0", large), ("heat1", small)):
        means = part.groupby(["dataset", "strategy"])["test_auc"].mean()
        for dataset in means.index.unique("dataset"):
            assert f"{dataset}: {means[dataset].idxmax()} {means[dataset].max():.3f}" in said[name]
    first = full.board.table.iloc[0]["strategy"]
    assert said["ranks"].startswith(f"Mean ranks, best first: {first} ")
    pairs = leaderboard(rows, ["strategy", "backbone"]).ranked
    cheapest = pairs.sort_values("seconds").iloc[0]["seconds"]
    best = pairs[pairs["seconds"] == cheapest].sort_values("auc").iloc[-1]
    assert said["cost"].startswith(f"On the Pareto front, cheapest first: {best['label']} {cheapest:.3g} s")
    assert "scratch 0.1" in said["rates"], "of the complete trials that with lr .1 is .01 above that with lr 1"
    assert f"set0: full_finetune {trials['val_auc'].max():.3f}" in said["trials"]
    gaps = (large["val_auc"] - large["test_auc"]).groupby(large["dataset"]).mean()
    assert f"Largest on {gaps.idxmax()}" in said["valtest"]
    assert "set0: full_finetune 0.600" in said["curves"]
    assert "set0: scratch overtakes full_finetune at about" in said["amounts"]
    highest = large[large["dataset"] == "set3"].groupby("strategy")["test_auc"].mean()
    assert f"set3: {highest.idxmax()} {highest.max():.3f}" in said["amounts"]
    assert re.search(r"Lowest expected calibration error: set0: \w+ 0\.\d{3}\.", said["reliability"])
    assert "set0: class " in said["recall"]


def test_colours_come_from_css_and_ids_are_unique(drawn: dict[str, str]) -> None:
    page = "".join(drawn.values())
    ids = re.findall(r'\bid="([^"]+)"', page)
    assert len(ids) == len(set(ids))
    assert set(re.findall(r'(?:href="#|url\(#)([^")]+)', page)) <= set(ids)
    for marker in (canvas.INK, canvas.RULE, canvas.SOFT, canvas.PAPER, *canvas.SERIES):
        assert marker not in page
    for css in ("currentColor", "var(--rule)", "var(--soft)", "var(--series-1)"):
        assert css in page
    # Only a heatmap's squares, and the figures on them, have colours of their own.
    others = re.sub(r'<svg[^>]*"heat\d.*?</svg>', "", page, flags=re.DOTALL)
    assert not re.findall(r"[ :]#[0-9a-f]{6}\b", others)


def test_hostile_names_are_only_text(tmp_path: Path) -> None:
    given = matrix((EVIL, "_b"), {"scratch": 0.0, EVIL: 0.02, "_s": 0.01}, (10, 100))
    for n, one in enumerate(given):
        one |= {"licence": EVIL, "fingerprint": f"f{n // 2}"}
    folder = write(tmp_path / "run", given)
    labels = np.arange(40) % 2
    logits = np.random.default_rng(0).normal(0, 1, (40, 2)).astype(np.float32)
    for dataset in (EVIL, "_b"):
        predict(folder, dataset, np.array([f"{EVIL}{n}" for n in range(40)]), labels, logits)
    entry = audited(EVIL, class_counts={"train": {EVIL: 1, "other": 1}})
    (folder / "datasets.json").write_text(json.dumps({"one": entry}))
    found = figures.sections(evidence(folder))
    page = "".join(section.body for section in found)
    tags: list[str] = []
    reader = HTMLParser()
    reader.handle_starttag = lambda tag, attrs: tags.extend([tag, *(name for name, _ in attrs)])  # type: ignore[method-assign]
    reader.feed(page)
    assert not {"script", "img", "onerror"} & set(tags)
    assert page.count("&lt;script&gt;alert(1)") > 10
    assert "_s" in re.findall(r"<text[^>]*>([^<]*)</text>", page), "a name may begin with an underscore"


def test_nothing_to_draw_gives_no_section(tmp_path: Path) -> None:
    lost = [row("d", "b", "s", 0, 0.8, status="failed", test_auc=None)]
    assert figures.sections(evidence(write(tmp_path / "run", lost))) == []


def test_a_small_run_says_why_a_figure_is_missing(tmp_path: Path) -> None:
    given = [one for one in rows() if one["dataset"] == "breastmnist"]
    found = {section.key: section.body for section in figures.sections(evidence(write(tmp_path / "run", given)))}
    assert "6 datasets" in found["scores"]
    assert "ranks-title" not in found["scores"]
    assert "predictions are not at hand" in found["predictions"]
    assert "mistakes" not in found
    assert "amounts-title" not in found["learning"], "one amount of data makes no curve"


def test_predictions_too_few_for_a_calibration_diagram_are_said(tmp_path: Path) -> None:
    folder = write(tmp_path / "run", matrix(("one",), {"scratch": 0.0, "linear_probe": 0.1}))
    labels = np.arange(8) % 2
    logits = np.column_stack([np.zeros(8), np.linspace(-2, 2, 8)]).astype(np.float32)
    predict(folder, "one", np.array([f"one/test/{n}" for n in range(8)]), labels, logits)
    body = {section.key: section.body for section in figures.sections(evidence(folder))}["predictions"]
    assert "reliability-title" not in body
    assert "No calibration diagram: no bin of probabilities has 10 predictions or more" in body


def test_a_damaged_file_of_predictions_is_named_and_the_others_are_drawn(tmp_path: Path) -> None:
    folder = write(tmp_path / "run", matrix(("one", "two"), {"scratch": 0.0, "linear_probe": 0.1}))
    labels, ids = np.arange(40) % 2, np.array([str(n) for n in range(40)])
    predict(folder, "one", ids, labels, np.eye(2, dtype=np.float32)[labels])
    predict(folder, "two", ids, labels, np.eye(2, dtype=np.float32)[labels])
    for path in (folder / "cells").glob("two-*.npz"):
        path.write_bytes(b"torn")
    found = evidence(folder)
    body = figures._predictions(found)[0].body
    assert ".npz cannot be read" in found.damaged[0]
    assert 'id="reliability-title"' in body


def test_only_the_leading_are_drawn_of_many_and_the_caption_says_so(tmp_path: Path) -> None:
    strategies = {"scratch": 0.0} | {f"s{n:02d}": n / 1000 for n in range(13)}
    given = evidence(write(tmp_path / "run", matrix(("d",), strategies)))
    found = {section.key: section.body for section in figures.sections(given)}
    assert "Of 14 strategies the 12 of the best mean rank are drawn" in found["scores"]
    coloured = "Of 14 strategies, the 6 of the best mean rank are in colour, with scratch as the control"
    assert coloured in found["learning"]
    assert "Learning rate: 6 of 6 other strategies" in found["tuning"]
    assert "s12" in found["learning"]
    assert "s03" not in found["learning"]


@pytest.fixture
def phantoms(tmp_path: Path) -> Evidence:
    """A real dataset's test images under networks that are right on all but three of them."""
    dataset = registry.open_dataset("phantom-fundus", tmp_path)
    split = dataset.load("test", 28)
    logits = 4 * np.eye(len(dataset.info.classes), dtype=np.float32)[split.labels]
    for place, sure in ((5, 9.0), (17, 12.0), (30, 6.0)):
        logits[place, (split.labels[place] + 1) % len(dataset.info.classes)] = sure
    made = matrix(("phantom-fundus",), {"scratch": 0.0, "linear_probe": 0.1})
    known = {"data_hash": dataset.content_hash(28), "size": 28, "kind": dataset.info.kind, "licence": "CC0 1.0"}
    folder = write(tmp_path / "run", [one | known for one in made])
    predict(folder, "phantom-fundus", split.ids, split.labels, logits)
    run = {"name": "run", "matrix": {"data_root": str(tmp_path), "split_seed": 0, "source_size": 0}}
    (folder / "run.json").write_text(json.dumps(run))
    return evidence(folder)


def shown(given: Evidence) -> str:
    return str(figures._predictions(given)[1].body)


def test_the_most_confident_mistakes_come_first_with_their_own_images(phantoms: Evidence, tmp_path: Path) -> None:
    body = shown(phantoms)
    assert re.findall(r'alt="Test image (\d+)"', body) == ["17", "5", "30"]
    said = [float(p) for p in re.findall(r"said [^(]+\((0\.\d{3})\)", body)]
    assert said == sorted(said, reverse=True)
    split = registry.open_dataset("phantom-fundus", tmp_path).load("test", 28)
    cell = predictions.best_cells(phantoms.rows, ["dataset"])[0]
    predicted = predictions.read(cell, phantoms.folders, [])
    assert predicted is not None
    found, wrong = mistakes.worst(predicted)
    assert wrong == 3
    images = mistakes._images(predicted, [one.index for one in found], phantoms.runs[0])
    assert all(np.array_equal(image, split.images[one.index]) for image, one in zip(images, found, strict=True))


def test_images_that_are_others_or_may_not_be_shown_stay_out(phantoms: Evidence) -> None:
    for change, why in (
        ({"licence": None}, "no licence is known"),
        ({"licence": "unknown"}, "no licence is known"),
        ({"data_hash": "another"}, "not the ones that it was tested on"),
    ):
        rows = phantoms.rows.assign(**{k: pd.Series(v, phantoms.rows.index, "string") for k, v in change.items()})
        body = shown(Evidence(rows, phantoms.trials, phantoms.folders, phantoms.runs, phantoms.board))
        assert "<img" not in body
        assert why in body


def test_a_multi_label_mistake_is_the_label_that_is_wrong_with_the_highest_probability() -> None:
    probs = np.array([[[0.9, 0.2], [0.4, 0.03], [0.1, 0.2]]])
    labels = np.array([[0, 1], [0, 1], [0, 0]], dtype=np.uint8)
    ids, row_of = np.array(["a", "b", "c"]), pd.DataFrame({"licence": ["CC0"]})
    one = predictions.Predicted("d", "s", "b", "multi-label", ("x", "y"), (0,), labels, probs, ids, 0, row_of)
    found, wrong = mistakes.worst(one)
    assert wrong == 2
    assert found == [mistakes.Mistake(1, "y", "no y", 0.97), mistakes.Mistake(0, "no x", "x", 0.9)]


def test_images_are_small() -> None:
    text = mistakes._jpeg(np.zeros((500, 300, 3), dtype=np.uint8))
    assert max(Image.open(io.BytesIO(base64.b64decode(text))).size) == mistakes.SIDE
