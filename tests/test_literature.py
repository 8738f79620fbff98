"""Beside the literature: only what may be compared is, differences are said, and nothing is won within an interval."""

from __future__ import annotations

import json
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import bench
from bench.contract import Backbone, Protocol
from bench.report import literature
from bench.report.literature import Figure, beside, mean_and_interval, published
from bench.report.page import gather
from bench.report.section import Evidence
from tests.fake_results import Row, row, rows, write

EVIL = """<script>alert(1)</script>"""
OURS: dict[str, Any] = {"size": 28, "source_size": 28, "epochs": 100, "trials": 1, "pretrained": False}
NET = Backbone("resnet18", "random", stem="cifar", mean=(0.5,) * 3, std=(0.5,) * 3)
PUBLISHED = Protocol(
    epochs=100,
    trials=1,
    optimizer="adam",
    schedule="step",
    batch_size=128,
    weight_decay=0,
    warmup=0,
    clip=0,
    tolerance=0,
)


def cell(aucs: list[float], dataset: str = "breastmnist", **changes: Any) -> list[Row]:
    """One cell made by the published protocol of ResNet-18 (28), a row a score."""
    name = f"{dataset}{changes.get('backbone')}{changes.get('strategy')}{changes.get('size')}{changes.get('per_class')}"
    values = OURS | {"fingerprint": name} | changes
    backbone, strategy = values.pop("backbone", "resnet18+cifar random"), values.pop("strategy", "scratch")
    return [row(dataset, backbone, strategy, seed, auc, **values) for seed, auc in enumerate(aucs)]


def evidence(folder: Path, made: list[Row], protocol: Protocol | None = PUBLISHED, **matrix: Any) -> Evidence:
    """`protocol` is what run.json says the rows were run with; None: it does not say."""
    write(folder, made)
    facts = {
        "backbones": [asdict(NET)],
        "strategies": sorted({one["strategy"] for one in made}),
        "datasets": sorted({one["dataset"] for one in made}),
        "sizes": sorted({one["size"] for one in made}),
        "amounts": [{"fraction": 1.0, "per_class": None}],
        "seeds": 3,
        **({"protocol": asdict(protocol)} if protocol else {}),
        **matrix,
    }
    (folder / "run.json").write_text(json.dumps({"name": "run", "matrix": facts}))
    return gather([folder])[0]


def test_the_tables_are_whole() -> None:
    v2, plus = published("medmnist_v2"), published("medmnist_plus_means")
    assert len(v2) == 7 * 12 == len(v2.drop_duplicates(["method", "dataset"]))
    assert len(plus) == 10 * 2 * 4 == len(plus.drop_duplicates(["model", "scheme", "size"]))
    means = v2.groupby("method")[["auc", "acc"]].mean().round(4)
    assert means.loc["ResNet-18 (28)"].tolist() == pytest.approx([0.9218, 0.8187], abs=2e-4)
    assert means.loc["ResNet-50 (224)"].tolist() == pytest.approx([0.9226, 0.8214], abs=2e-4)
    for frame in (v2[["auc", "acc"]], plus[["mean_auc_12_sets", "mean_acc_12_sets"]]):
        assert ((frame > 0.4) & (frame < 1)).all(axis=None)


def test_an_installed_package_reads_its_own_tables(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    inside = tmp_path / "bench" / "builtin" / "published"
    inside.mkdir(parents=True)
    (inside / "medmnist_v2.csv").write_text("method,dataset,auc\nx,y,0.5\n")
    monkeypatch.setattr(bench, "__file__", str(tmp_path / "bench" / "__init__.py"))
    assert published("medmnist_v2")["auc"].tolist() == [0.5]
    pyproject = (Path(__file__).parents[1] / "pyproject.toml").read_text()
    assert '"results/published" = "bench/builtin/published"' in pyproject


def test_the_published_protocol_has_no_differences(tmp_path: Path) -> None:
    (figure,) = beside(evidence(tmp_path / "run", cell([0.90, 0.91, 0.905])))
    assert (figure.theirs, figure.seeds, figure.verdict) == (0.901, 3, "not told apart")
    assert figure.published == "MedMNIST v2 (Yang et al. 2023): ResNet-18 (28)"
    assert figure.differences == ()


@pytest.mark.parametrize(("aucs", "verdict"), [
    ([0.96, 0.961, 0.962], "ours is higher"), ([0.82, 0.821, 0.822], "ours is lower"),
    ([0.90, 0.95, 0.99], "not told apart"),  # the mean is far above, but so is the noise of seeds
    ([0.91, 0.91, 0.91], "not told apart"),  # equal seeds: the test images' noise is left
    ([0.99], "not compared: one seed, so there is no interval"),
])  # fmt: skip
def test_a_figure_is_higher_or_lower_only_outside_the_interval(tmp_path: Path, aucs: list[float], verdict: str) -> None:
    changes = {"test_auc_lo": None, "test_auc_hi": None}
    made = [one | {k: one["test_auc"] + d for k, d in zip(changes, (-0.03, 0.03), strict=True)} for one in cell(aucs)]
    (figure,) = beside(evidence(tmp_path / "run", made))
    assert figure.verdict == verdict


def test_rounding_of_a_published_figure_decides_nothing() -> None:
    def verdict(low: float, high: float) -> str:
        return Figure("d", "p", 0.9, "o", (low + high) / 2, low, high, 3, ()).verdict

    assert verdict(0.9004, 0.95) == "not told apart"
    assert verdict(0.9006, 0.95) == "ours is higher"
    assert verdict(0.8, 0.8994) == "ours is lower"


def test_the_interval_holds_seeds_and_test_images(tmp_path: Path) -> None:
    found = evidence(tmp_path / "run", cell([0.9, 0.9, 0.9], test_auc_lo=0.87, test_auc_hi=0.93))
    auc, low, high = mean_and_interval([found.rows])
    assert (auc, low, high) == pytest.approx((0.9, 0.87, 0.93))
    halved = mean_and_interval([found.rows, found.rows])
    assert halved[2] - halved[1] == pytest.approx(0.06 / np.sqrt(2))


@pytest.mark.parametrize("changes", [
    {"per_class": 50}, {"fraction": 0.1}, {"size": 64}, {"backbone": "resnet18[:3]"}, {"backbone": "bundled:resnet"},
    {"backbone": "resnet34"}, {"dataset": "mine"}, {"status": "failed", "test_auc": None},
])  # fmt: skip
def test_what_is_not_the_same_is_not_put_beside(tmp_path: Path, changes: dict[str, Any]) -> None:
    found = evidence(tmp_path / "run", cell([0.9, 0.91], **changes))
    assert beside(found) == []
    section = literature.section(found)
    if changes.get("dataset") == "mine":
        assert section is None
    else:
        assert section is not None
        assert "nothing is compared" in section.body
        assert "0.901" in section.body


def test_differences_of_protocol_are_said(tmp_path: Path) -> None:
    made = cell([0.9, 0.91], "organcmnist", backbone="resnet18.a1_in1k", strategy="lp_ft", pretrained=True,
                epochs=10, trials=4, size=224, source_size=224)  # fmt: skip
    protocol = Protocol(epochs=10, trials=4)
    backbones = [asdict(Backbone("resnet18.a1_in1k"))]
    (figure,) = beside(evidence(tmp_path / "run", made, protocol, backbones=backbones))
    assert figure.published.endswith("ResNet-18 (224)")
    assert figure.differences == (
        "made from 224-pixel images; theirs are the 28-pixel ones, enlarged",
        "normalised otherwise, theirs by mean and standard deviation .5",
        "pretrained weights, theirs random",
        "trained by lp_ft, theirs plainly",
        "10 epochs, theirs 100",
        "hyperparameters tuned in 4 trials, theirs fixed (learning rate 0.001)",
        "optimiser adamw, theirs adam",
        "schedule cosine, theirs step",
        "batch size 64, theirs 128",
        "weight decay 0.01, theirs 0",
        "warm-up 0.05, theirs 0",
        "largest gradient norm 1.0, theirs 0",
        "epoch chosen with a tolerance of 1.0, theirs 0",
        "MedMNIST 2.2.4 removed blank images, so the test set may not be exactly theirs",
    )


@pytest.mark.parametrize(("changes", "says"), [
    ({"backbone": "resnet18 random"}, "a usual first convolution, theirs 3 × 3 with stride 1"),
    ({"size": 224, "backbone": "resnet18 random"}, "enlarged by bilinear, theirs by nearest neighbour"),
    ({"size": 224, "resize": "nearest"}, "another first convolution"),
    ({"lr": 0.01}, "learning rate 0.01, theirs 0.001"),
    ({"source_size": 64}, "made from 64-pixel images; theirs are the 28-pixel ones"),
])  # fmt: skip
def test_one_difference_is_one_sentence(tmp_path: Path, changes: dict[str, Any], says: str) -> None:
    backbones = [asdict(replace(NET, stem=stem)) for stem in ("", "cifar")]
    (figure,) = beside(evidence(tmp_path / "run", cell([0.9, 0.91], **changes), backbones=backbones))
    assert figure.differences == (says,)


def test_an_unrecorded_recipe_is_said_so(tmp_path: Path) -> None:
    unknown = "optimiser, schedule and the like of ours are not recorded"
    made = cell([0.9, 0.91])
    assert beside(evidence(tmp_path / "none", made, None))[0].differences == (unknown,)
    # The folder's last command was another: it does not tell how these rows were made.
    assert beside(evidence(tmp_path / "other", made, strategies=["lp_ft"]))[0].differences == (unknown,)
    assert beside(evidence(tmp_path / "epochs", made, Protocol(epochs=5, trials=1)))[0].differences == (unknown,)


def test_a_name_of_the_users_own_is_looked_up(tmp_path: Path) -> None:
    backbones = [asdict(replace(NET, name="my net"))]
    made = cell([0.9, 0.91], backbone="my net")
    assert beside(evidence(tmp_path / "run", made, backbones=backbones))[0].ours == "my net · scratch"
    fooled = [asdict(Backbone("resnet34", "random", name="resnet18"))]
    assert beside(evidence(tmp_path / "fooled", cell([0.9, 0.91], backbone="resnet18"), backbones=fooled)) == []


def test_means_over_twelve_sets_need_all_twelve(tmp_path: Path) -> None:
    sets = sorted(published("medmnist_v2")["dataset"].unique())
    facts = {"backbone": "resnet18.a1_in1k", "strategy": "linear_probe", "pretrained": True, "size": 64,
             "source_size": 64}  # fmt: skip
    made = [one for name in sets for one in cell([0.85, 0.86], name, **facts)]
    backbones = [asdict(Backbone("resnet18.a1_in1k"))]
    assert beside(evidence(tmp_path / "eleven", made[2:], backbones=backbones)) == []
    (figure,) = beside(evidence(tmp_path / "twelve", made, backbones=backbones))
    assert figure.published == "MedMNIST+ (Doerrich et al. 2025): ResNet-18, linear probe, 64 px"
    assert figure.theirs == 0.8524
    assert figure.auc == pytest.approx(0.855)
    assert "theirs were padded with zeros to 224 pixels" in figure.differences


def test_a_run_on_other_sets_has_no_section(tmp_path: Path) -> None:
    assert literature.section(evidence(tmp_path / "run", [row("phantom-fundus", "b", "s", 0, 0.8)])) is None


def test_the_section_counts_what_it_found(tmp_path: Path) -> None:
    section = literature.section(evidence(tmp_path / "run", cell([0.96, 0.961, 0.962]) + cell([0.7], "retinamnist")))
    assert section is not None
    assert "Of 2 pairs of a cell here and a published figure, ours is higher in 1, lower in 0" in section.body
    assert "1 with one seed are not compared" in section.body


def test_hostile_names_are_only_text(tmp_path: Path) -> None:
    made = [one | {"strategy": EVIL} for one in cell([0.9, 0.91])] + rows()
    section = literature.section(evidence(tmp_path / "run", made))
    assert section is not None
    assert "<script" not in section.body
    assert "&lt;script&gt;" in section.body
