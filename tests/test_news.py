"""What is new since the last report: remembered once, the same however often the same rows are rendered."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from bench.errors import UsageError
from bench.report import news
from bench.report.news import MEMORY, News, remember, section, sentences
from bench.report.page import gather
from bench.report.section import Evidence
from tests.fake_results import Row, row, rows, write

EVIL = """<script>alert(1)</script>"""


def evidence(*folders: Path) -> Evidence:
    return gather(list(folders))[0]


def reported(*folders: Path) -> News | None:
    """What a report of the folders says is new."""
    found = evidence(*folders)
    remember(found)
    return news.news(found)


def add(folder: Path, made: list[Row]) -> None:
    for one in made:
        (folder / "cells" / f"{one['fingerprint']}-s{one['seed']}.json").write_text(json.dumps(one))


def a_strategy(name: str, auc: float) -> list[Row]:
    """Its rows beside those of rows(), the best or the worst everywhere."""
    cells = {(one["dataset"], one["backbone"]) for one in rows()}
    return [row(*cell, name, seed, auc + seed / 1000) for cell in sorted(cells) for seed in range(3)]


def test_the_first_report_has_no_news(tmp_path: Path) -> None:
    folder = write(tmp_path / "run", rows())
    assert news.news(evidence(folder)) is None
    assert reported(folder) is None
    assert section(evidence(folder)) is None


def test_a_new_strategy_is_marked_and_so_is_who_moved_for_it(tmp_path: Path) -> None:
    folder = write(tmp_path / "run", rows())
    reported(folder)
    add(folder, a_strategy("mine", 0.99))
    found = reported(folder)
    assert found is not None
    assert set(found.cells["change"]) == {"new"}
    assert set(found.cells["strategy"]) == {"mine"}
    assert len(found.cells) == 9
    assert found.places == (("mine", None, 1), ("full_finetune", 1, 2), ("linear_probe", 2, 3), ("scratch", 3, 4))
    assert sentences(found)[0] == "9 cells not in the last report: mine (9)."
    assert "full_finetune 1 → 2" in sentences(found)[1]


def test_the_same_rows_have_the_same_news_however_often_they_are_rendered(tmp_path: Path) -> None:
    folder = write(tmp_path / "run", rows())
    for _ in range(2):
        reported(folder)
    assert section(evidence(folder)) is None
    add(folder, a_strategy("mine", 0.5))
    reported(folder)
    memory, page = (folder / MEMORY).read_bytes(), section(evidence(folder))
    assert page is not None
    reported(folder)
    assert section(evidence(folder)) == page
    assert (folder / MEMORY).read_bytes() == memory


def test_a_page_rendered_before_it_is_remembered_says_the_same(tmp_path: Path) -> None:
    folder = write(tmp_path / "run", rows())
    reported(folder)
    add(folder, a_strategy("mine", 0.5))
    before = section(evidence(folder))
    reported(folder)
    assert section(evidence(folder)) == before != None  # noqa: E711


def test_an_edited_strategy_is_rerun_and_more_seeds_are_more_runs(tmp_path: Path) -> None:
    folder = write(tmp_path / "run", rows())
    reported(folder)
    one = rows()[0]
    later = {"finished_utc": "2025-02-01T00:00:00Z"}
    add(folder, [r | later | {"fingerprint": "edited", "test_auc": 0.7} for r in rows()[:3]])
    other = next(r for r in rows() if r["strategy"] == "full_finetune")
    add(folder, [other | {"seed": 9}])
    found = reported(folder)
    assert found is not None
    changes = found.cells.set_index("strategy")
    assert changes.loc[one["strategy"], "change"] == "rerun"
    assert changes.loc[one["strategy"], "now"] == pytest.approx(0.7)
    assert changes.loc[one["strategy"], "before"] != pytest.approx(0.7)
    assert changes.loc["full_finetune", "change"] == "more runs"
    assert len(changes) == 2


def test_cells_that_are_gone_are_told(tmp_path: Path) -> None:
    folder = write(tmp_path / "run", [*rows(), *a_strategy("old", 0.5)])
    reported(folder)
    for one in a_strategy("old", 0.5):
        (folder / "cells" / f"{one['fingerprint']}-s{one['seed']}.json").unlink()
    found = reported(folder)
    assert found is not None
    assert sentences(found)[0] == "9 cells no longer there: old (9)."
    assert ("old", 4, None) in found.places


def test_a_folder_alone_and_together_with_others_are_different_reports(tmp_path: Path) -> None:
    one, other = write(tmp_path / "one", rows()[:40]), write(tmp_path / "other", rows()[40:])
    assert reported(one) is None
    assert reported(one, other) is None
    assert reported(one) is None
    assert list(json.loads((one / MEMORY).read_text())) == [".", ". + ../other"]


def test_the_memory_goes_with_a_moved_folder(tmp_path: Path) -> None:
    folder = write(tmp_path / "run", rows())
    reported(folder)
    folder = folder.rename(tmp_path / "moved")
    add(folder, a_strategy("mine", 0.5))
    assert reported(folder) is not None


@pytest.mark.parametrize(
    "text", ['{"."', "[]", '{".": {}}', '{".": {"shown": {"cells": 3, "places": {}}, "before": 1}}']
)
def test_a_damaged_memory_is_an_error_that_says_what_to_do(tmp_path: Path, text: str) -> None:
    folder = write(tmp_path / "run", rows())
    (folder / MEMORY).write_text(text)
    with pytest.raises(UsageError, match=r"shown\.json.*cannot be read.*Delete it"):
        reported(folder)


def test_hostile_names_are_only_text(tmp_path: Path) -> None:
    folder = write(tmp_path / "run", rows())
    reported(folder)
    add(folder, [row(EVIL, EVIL, EVIL, seed, 0.8, fingerprint="evil") for seed in range(2)])
    reported(folder)
    found = section(evidence(folder))
    assert found is not None
    assert "<script" not in found.body
    assert found.body.count("&lt;script&gt;") >= 4
