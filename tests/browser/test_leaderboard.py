"""What a reader sees after a filter is what Python computes from the same rows."""

from __future__ import annotations

from pathlib import Path
from typing import Any
from urllib.parse import urlencode

import numpy as np
import pandas as pd
import pytest
from playwright.sync_api import Page, expect

import bench.report.written
from bench.report.comparable import MIN_SHARE, comparable
from bench.report.frames import current, read_rows
from bench.report.leaderboard import leaderboard
from bench.report.page import render
from bench.report.stands import lacking, stands_on
from tests.fake_results import row, uneven, write

VIEWS = {"strategy": ["strategy"], "backbone": ["backbone"], "pair": ["strategy", "backbone"]}
STATES: list[dict[str, Any]] = [
    {},
    {"over": "backbone"},
    {"over": "pair"},
    {"dataset": ["breastmnist"]},
    {"dataset": ["breastmnist", "phantom-fundus"], "size": [64]},
    {"over": "backbone", "amount": ["50 a class"]},
    {"over": "pair", "backbone": ["resnet18[:3]", "mobilenetv2_035"], "size": [28]},
    {"kind": ["multi-class"]},
    {"dataset": ["pneumoniamnist"], "backbone": ["densenet121 random"]},
    {"dataset": ["breastmnist"], "kind": ["multi-class"]},
]


def saved(page: Page) -> pd.DataFrame:
    """What the button writes, read back."""
    with page.expect_download() as download:
        page.get_by_role("button", name="Save as CSV").click()
    return pd.read_csv(download.value.path(), keep_default_na=True)


def kept(rows: pd.DataFrame, state: dict[str, Any]) -> pd.DataFrame:
    amounts = rows["per_class"].map(lambda n: "all" if pd.isna(n) else f"{n} a class")
    rows = rows.assign(amount=amounts)
    for name, values in state.items():
        if name != "over":
            rows = rows[rows[name].isin(values)]
    return rows


def expected(rows: pd.DataFrame, state: dict[str, Any]) -> pd.DataFrame:
    """Python's leaderboard of the rows that the state keeps."""
    return leaderboard(kept(rows, state), VIEWS[state.get("over", "strategy")]).table


@pytest.mark.parametrize("state", STATES, ids=lambda state: urlencode(state, doseq=True) or "everything")
def test_figures_are_the_python_ones_in_every_state_that_a_link_opens(
    page: Page, address: str, results: Path, state: dict[str, Any]
) -> None:
    page.goto(f"{address}#{urlencode(state, doseq=True)}")
    found, table = saved(page), expected(current(read_rows(results)), state)
    same(found, table)


def same(found: pd.DataFrame, table: pd.DataFrame) -> None:
    assert len(found) == len(table)
    for name in found.columns:
        if found[name].dtype.kind in "fiub" and len(found):
            assert found[name].to_numpy(dtype=float) == pytest.approx(
                table[name].to_numpy(dtype=float), rel=1e-7, abs=1e-9, nan_ok=True
            ), name
        else:
            assert found[name].fillna("").tolist() == table[name].fillna("").tolist(), name


ALONE = (64, "l2_sp", "breastmnist", True)
"""All seeds but one of this cell were lost."""


@pytest.fixture(scope="module")
def grown(tmp_path_factory: pytest.TempPathFactory) -> Path:
    made = [one for one in uneven(3) if (one["size"], one["strategy"], one["dataset"], one["seed"] > 0) != ALONE]
    folder = write(tmp_path_factory.mktemp("grown") / "run", made)
    render([folder], folder.parent / "grown.html")
    return folder


@pytest.mark.parametrize(
    "state",
    [
        {},
        {"over": "backbone"},
        {"over": "pair"},
        {"backbone": ["net0"]},
        {"amount": ["all", "50 a class"]},
        {"size": [64]},
    ],
    ids=lambda state: urlencode(state, doseq=True) or "everything",
)
def test_an_uneven_study_is_compared_as_python_compares_it(page: Page, grown: Path, state: dict[str, Any]) -> None:
    rows, view = kept(current(read_rows(grown)), state), VIEWS[state.get("over", "strategy")]
    page.goto(f"{(grown.parent / 'grown.html').as_uri()}#{urlencode(state, doseq=True)}")
    same(saved(page), leaderboard(rows, view).table)
    said = f"Stands on {stands_on(leaderboard(rows, view), rows)}{lacking(leaderboard(rows, view))}. At least 3 seeds"
    expect(page.locator("#board-stands")).to_contain_text(said)
    if not state:
        assert said in (grown.parent / "grown.html").read_text(encoding="utf-8").replace("\n", " ")


def test_the_page_chooses_what_is_compared_as_python_does(page: Page, address: str) -> None:
    page.goto(address)
    rng = np.random.default_rng(0)
    for _ in range(200):
        there = rng.random((rng.integers(1, 9), rng.integers(1, 12))) < rng.uniform(0.2, 1)
        controls = rng.permutation(len(there))[:2].tolist()
        found = page.evaluate(
            "([there, controls, share]) => comparable(there.map((has) => Uint8Array.from(has)), controls, share)",
            [there.astype(int).tolist(), controls, MIN_SHARE],
        )
        assert found == [np.flatnonzero(one).tolist() for one in comparable(there, controls)]


@pytest.mark.parametrize("over", VIEWS)
def test_shifts_on_the_same_images_are_one_dataset_and_tent_has_no_rank(page: Page, tmp_path: Path, over: str) -> None:
    draw, made = np.random.default_rng(0), []
    for dataset in ("a->corrupted:blur-1", "a->corrupted:blur-2", "a->corrupted:noise-1", "b->c"):
        for backbone in ("net", "other"):
            for strategy in ("source_only", "dann", "tent"):
                facts = {"transductive": strategy == "tent", "target": dataset.partition(">")[2]}
                cell = f"{dataset}{backbone}{strategy}".encode().hex()[-40:]
                made += [
                    row(dataset, backbone, strategy, seed, float(draw.uniform(0.6, 0.9)), fingerprint=cell, **facts)
                    for seed in range(3)
                ]
    results = write(tmp_path / "shifts", made)
    page.goto(f"{render([results], tmp_path / 'shifts.html').as_uri()}#over={over}")
    found, table = saved(page), expected(current(read_rows(results)), {"over": over})
    for name in ("mean_rank", "auc", "auc_lo", "gain", "p_best", "wins"):
        assert found[name].to_numpy(dtype=float) == pytest.approx(
            table[name].to_numpy(dtype=float), rel=1e-7, abs=1e-9, nan_ok=True
        ), name
    if over != "backbone":
        assert page.get_by_text("Not ranked: it adapts to the test images themselves").count() >= 1


def test_figures_are_written_as_python_writes_them(page: Page, address: str) -> None:
    page.goto(address)
    rng = np.random.default_rng(0)
    values = [0.0, 0.0625, 2.125, 2.375, 0.615, 1.005, 0.9995, 999.5, 1e3, 59.96, 119.9, 120.0, 7200.0, 1.5e9]
    values += [*(rng.integers(0, 4000, 300) / 8), *np.exp(rng.uniform(-5, 16, 300))]
    for name in ("fixed", "signed", "seconds", "count"):
        written = getattr(bench.report.written, name)
        assert page.evaluate(f"(values) => values.map((value) => {name}(value))", values) == list(
            map(written, values)
        ), name
    shares = np.linspace(0, 1, 401).tolist()
    written = list(map(bench.report.written.chance, shares))
    assert page.evaluate("(values) => values.map((value) => chance(value))", shares) == written
    negative = [-1e-9, *(-value for value in values)]
    for name in ("fixed", "signed"):
        written = getattr(bench.report.written, name)
        assert page.evaluate(f"(values) => values.map((value) => {name}(value))", negative) == list(
            map(written, negative)
        )
    assert page.evaluate("fixed(2.125, 2)") == "2.12"
