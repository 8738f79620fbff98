"""What lies beside the page: tables that a spreadsheet may open and a summary that a pull request may show."""

from __future__ import annotations

import csv
import html
import json
import re
from pathlib import Path

import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from markdown_it import MarkdownIt
from typer.testing import CliRunner

from bench import cli
from bench.report import markdown, news
from bench.report.exports import export
from bench.report.frames import FORMULA, compact, write_csv
from bench.report.page import gather
from tests.fake_results import row, rows, write

EVIL = """=HYPERLINK("http://x.y") | <script>alert(1)</script> [a](http://x.y) ![b](c) `d` @someone **e** $f$ #1"""
GITHUB = MarkdownIt("commonmark", {"html": True}).enable("table")
"""Commonmark with tables: what GitHub renders, without what it links afterwards."""


def exported(folder: Path, page: Path) -> tuple[str, list[Path]]:
    evidence, unreadable = gather([folder])
    news.remember(evidence)
    paths = export(evidence, unreadable, news.news(evidence), page)
    return paths[-1].read_text(encoding="utf-8"), paths


def test_the_tables_are_those_of_the_page(tmp_path: Path) -> None:
    _, paths = exported(write(tmp_path / "run", rows()), tmp_path / "deep" / "quick.html")
    assert [path.name for path in paths] == ["quick-leaderboard.csv", "quick-results.csv", "quick-summary.md"]
    board, results = (pd.read_csv(path) for path in paths[:2])
    assert board["strategy"].tolist() == ["full_finetune", "linear_probe", "scratch"]
    assert {"mean_rank", "auc", "auc_lo", "auc_hi", "gain", "p_best", "runs"} <= set(board.columns)
    assert len(results) == 25
    assert results["runs"].sum() == 74
    assert results["auc"].tolist() == [part for _, g in results.groupby("dataset") for part in sorted(g["auc"])[::-1]]


def test_the_same_rows_make_the_same_files(tmp_path: Path) -> None:
    folder = write(tmp_path / "run", rows())
    first = [path.read_bytes() for path in exported(folder, tmp_path / "a.html")[1]]
    assert [path.read_bytes() for path in exported(folder, tmp_path / "b.html")[1]] == first


def test_a_run_without_rows_makes_empty_tables(tmp_path: Path) -> None:
    text, _ = exported(write(tmp_path / "run", []), tmp_path / "a.html")
    assert "no run has a result" in text


def test_the_summary_has_the_answer_the_table_and_what_is_new(tmp_path: Path) -> None:
    folder = write(tmp_path / "quick", rows())
    assert "New since" not in exported(folder, tmp_path / "a.html")[0]
    cells = {(one["dataset"], one["backbone"]) for one in rows()}
    for one in [row(*cell, "mine", seed, 0.99) for cell in sorted(cells) for seed in range(3)]:
        (folder / "cells" / f"{one['fingerprint']}-s{one['seed']}.json").write_text(json.dumps(one))
    text, _ = exported(folder, tmp_path / "a.html")
    shown = GITHUB.render(text)
    assert "<h3>medtransfer: quick</h3>" in shown
    assert "9 cells not in the last report: mine (9)." in shown
    assert "full_finetune 1 → 2" in shown
    assert shown.count("<tr>") == 5
    assert "<td>mine</td>" in shown
    assert "<strong>Random weights.</strong>" in shown
    assert "leads" in shown or "was best" in shown


def test_the_summary_says_once_why_runs_have_no_result(tmp_path: Path) -> None:
    text, _ = exported(write(tmp_path / "quick", rows()), tmp_path / "a.html")
    said = [line for line in text.splitlines() if "the hub cannot be reached" in line]
    assert len(said) == 1
    assert said[0].startswith("- Failed, 3 runs (full\\_finetune; phantom-fundus): WeightsError")
    assert text.index("the reasons are below") < text.index(said[0])


def test_hostile_names_are_only_text_in_the_summary(tmp_path: Path) -> None:
    made = [
        row(EVIL, EVIL, s, seed, 0.8 + seed / 100, fingerprint=s[:1]) for s in ("scratch", EVIL) for seed in range(3)
    ]
    folder = write(tmp_path / "run", made)
    run = json.loads((folder / "run.json").read_text()) | {"name": EVIL}
    (folder / "run.json").write_text(json.dumps(run))
    text, _ = exported(folder, tmp_path / "a.html")
    tokens = GITHUB.parse(text)
    kinds = {child.type for token in tokens for child in token.children or []} | {token.type for token in tokens}
    assert not kinds & {"html_block", "html_inline", "link_open", "image", "code_inline", "code_block", "em_open"}
    assert "http://" not in text
    assert not re.search(r"@\w", text)
    cells = [token for token in tokens if token.type in ("th_open", "td_open")]
    assert len(cells) == 3 * 7


def test_a_name_is_written_alike_wherever_it_stands() -> None:
    name = "phantom->corrupted:speckle-3"
    assert markdown.text(f"{name}: drawn") == markdown.text(name) + ": drawn"


@given(st.text(max_size=60))
def test_text_is_shown_as_it_is(value: str) -> None:
    shown = GITHUB.render(markdown.text(value))
    wanted = " ".join("".join(c if c.isprintable() else " " for c in value).split())
    assert html.unescape(re.sub(r"</?p>|\n|\u2060", "", shown)) == wanted.replace("\u2060", "")


@given(st.text(alphabet="-+=*#>1.)|`~_ @<&", max_size=12))
def test_no_text_begins_a_list_a_heading_or_a_rule(value: str) -> None:
    assert {token.type for token in GITHUB.parse(markdown.text(value))} <= {
        "paragraph_open",
        "inline",
        "paragraph_close",
    }


# --- CSV


@settings(max_examples=40)
@given(st.lists(st.text(max_size=8), min_size=1, max_size=4), st.sampled_from(FORMULA))
def test_no_text_in_a_csv_begins_a_formula(
    tmp_path_factory: pytest.TempPathFactory, names: list[str], sign: str
) -> None:
    path = tmp_path_factory.mktemp("csv") / "t.csv"
    frame = pd.DataFrame({"name": [*names, f"{sign}1+1"], f"{sign}head": -1.5})
    write_csv(frame, path)
    with path.open(encoding="utf-8", newline="") as file:
        head, *lines = csv.reader(file)
    assert head == ["name", f"'{sign}head"]
    for (text, number), name in zip(lines, [*names, f"{sign}1+1"], strict=True):
        shown = name.replace("\r\n", "\n").replace("\r", "\n")
        assert text == (f"'{shown}" if shown.startswith(FORMULA) else shown)
        assert float(number) == -1.5


def test_the_parquet_file_holds_names_as_they_are(tmp_path: Path) -> None:
    folder = write(tmp_path / "run", [row("=1+1", "-b", "@s", 0, 0.8, fingerprint="f")])
    compact(folder)
    assert pd.read_parquet(folder / "rows.parquet")["dataset"].tolist() == ["=1+1"]
    assert pd.read_csv(folder / "rows.csv")[["dataset", "backbone", "strategy"]].iloc[0].tolist() == [
        "'=1+1",
        "'-b",
        "'@s",
    ]


@pytest.mark.usefixtures("no_figures")
def test_the_report_command_writes_all_of_it_and_says_what_is_new(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    one, other = write(tmp_path / "one", rows()[:40]), write(tmp_path / "other", rows()[30:])
    result = CliRunner().invoke(cli.app, ["report", str(one), str(other), "--out", "r.html"])
    assert result.exit_code == 0, result.output
    assert {path.name for path in tmp_path.iterdir()} == {
        "one", "other", "r.html", "r-leaderboard.csv", "r-results.csv", "r-summary.md",
    }  # fmt: skip
    assert pd.read_csv("r-results.csv")["runs"].sum() == 74
    assert (one / "rows.parquet").is_file()
    assert (other / "rows.csv").is_file()
    new = row("breastmnist", "resnet18[:3]", "mine", 0, 0.9)
    (one / "cells" / "new-s0.json").write_text(json.dumps(new))
    result = CliRunner().invoke(cli.app, ["report", str(one), str(other), "--out", "r.html"])
    assert "1 cell not in the last report: mine (1)." in result.output
