"""The page's tables of two domains, recomputed by hand."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pandas as pd

from bench.report import adaptation
from bench.report.frames import current, read_rows, read_trials
from bench.report.leaderboard import leaderboard
from bench.report.section import Evidence
from tests.fake_results import row

SHIFT = "phantom-organ-a->phantom-organ-b"


def evidence(folder: Path, rows: list[dict], trials: dict[str, list[dict]]) -> Evidence:
    cells = folder / "cells"
    cells.mkdir(parents=True)
    for found in rows:
        (cells / f"{found['fingerprint']}-s{found['seed']}.json").write_text(json.dumps(found))
    for fingerprint, lines in trials.items():
        (cells / f"{fingerprint}.trials.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    read = current(read_rows(folder))
    return Evidence(read, read_trials(folder), (folder,), ({},), leaderboard(read, "strategy"))


def shifted(strategy: str, seed: int, auc: float, **changes) -> dict:
    facts = {"target": "phantom-organ-b", "selection": "source_val", "transductive": False, "source_auc": 0.95}
    return row(SHIFT, "resnet18[:3]", strategy, seed, auc, fingerprint=strategy, **facts | changes)


def trial(number: int, **scores) -> dict:
    empty = {"params": {}, "hparams": {}, "curve": [], "losses": [], "seconds": 1.0, "images_seen": 1, "val_loss": 0.1}
    return {"number": number, "state": "complete"} | empty | scores


def text(found: Evidence) -> str:
    section = adaptation.section(found)
    assert section is not None
    return str(section.body)


def test_a_page_without_a_second_domain_has_no_such_section(tmp_path: Path) -> None:
    plain = [row("breastmnist", "resnet18[:3]", "scratch", 0, 0.8, fingerprint="a")]
    assert adaptation.section(evidence(tmp_path, plain, {})) is None


def test_gains_are_seed_by_seed_over_the_control(tmp_path: Path) -> None:
    rows = [shifted("source_only", seed, auc) for seed, auc in enumerate((0.60, 0.70, 0.65))]
    rows += [
        shifted("dann", seed, auc, disc_acc=json.dumps([0.9, 0.6]), pad_before=1.9, pad_after=0.5)
        for seed, auc in enumerate((0.71, 0.80, 0.76))
    ]
    rows += [shifted("tent", seed, 0.66, transductive=True) for seed in range(3)]
    page = text(evidence(tmp_path, rows, {}))
    gains = pd.Series([0.11, 0.10, 0.11])
    half = 4.302652729911275 * gains.std() / 3**0.5  # Student's with two degrees of freedom
    assert f"+{gains.mean():.3f}" in page
    assert f"+{gains.mean() - half:.3f} to +{gains.mean() + half:.3f}" in page
    assert "0.90 → 0.60" in page
    assert "tent (transductive)" in page
    assert page.index(">dann<") < page.index(">tent (") < page.index(">source_only<")
    assert "Student" in page
    assert "phantom-organ-a-&gt;phantom-organ-b" in page


def test_each_choice_is_priced_against_the_oracle_on_the_same_trials(tmp_path: Path) -> None:
    rows = [shifted("dann", seed, 0.7) for seed in range(2)]
    trials = [
        trial(0, val_auc=0.9, entropy=0.6, information=0.1, snd=1.0, target_val_auc=0.5, target_test_auc=0.50),
        trial(1, val_auc=0.8, entropy=0.2, information=0.3, snd=2.0, target_val_auc=0.7, target_test_auc=0.66),
        trial(2, val_auc=0.7, entropy=0.4, information=0.2, snd=1.5, target_val_auc=0.8, target_test_auc=0.75),
    ]
    page = text(evidence(tmp_path, rows, {"dann": trials}))
    costs = page[page.index("Ways of choosing") :]
    lines = {line[0]: line[3] for line in re.findall(r"<tr><th[^>]*>(\w+)</th>" + r"<td[^>]*>(.*?)</td>" * 4, costs)}
    assert lines == {"source_val": "0.250", "entropy": "0.090", "information": "0.090", "snd": "0.090", "oracle": "–"}


def test_what_comes_from_outside_is_escaped(tmp_path: Path) -> None:
    rows = [row("<script>", "<b>", "dann", 0, 0.7, fingerprint="x", second="npz:<i>", pad_before=1.0)]
    page = text(evidence(tmp_path, rows, {}))
    assert "<script>" not in page
    assert "<i>" not in page
    assert "npz:&lt;i&gt;" in page
