"""Rows on disk become one tidy table: nothing is lost in silence, nothing stale is shown."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pandas as pd
import pytest

from bench import store
from bench.errors import UsageError
from bench.report.frames import COLUMNS, IDENTITY, compact, current, read_rows, read_trials
from tests.fake_results import Row, row, rows, write

README = Path(__file__).resolve().parents[1] / "results" / "README.md"


def test_every_column_has_its_documented_type_even_without_rows(tmp_path: Path) -> None:
    for folder in (write(tmp_path / "full", rows()), write(tmp_path / "empty", [])):
        frame = read_rows(folder)
        assert {name: str(dtype) for name, dtype in frame.dtypes.items()} == COLUMNS
        assert list(frame.columns) == list(COLUMNS)


def test_results_readme_documents_every_column_in_order_with_its_type() -> None:
    lines = [line.split("|")[1:4] for line in README.read_text(encoding="utf-8").partition("## Columns")[2].splitlines()
             if line.startswith("| `")]  # fmt: skip
    assert [(name.strip(" `"), dtype.strip()) for name, dtype, _ in lines] == list(COLUMNS.items())
    assert all(meaning.strip() for _, _, meaning in lines)


def test_the_example_averages_the_seeds_of_each_network_alone(tmp_path: Path) -> None:
    made = [row("d", "b", "scratch", seed, 0.6 + seed / 10) for seed in range(2)]
    made.append(row("d", "b", "scratch", 0, 0.5, per_class=10, fingerprint="few"))
    made.append(row("d", "theirs", "imported", 0, 0.9, family="imported", weights=None))
    compact(write(tmp_path / "results" / "demo", made))
    code = README.read_text(encoding="utf-8").split("```python\n")[1].split("```")[0]
    *lines, last = code.replace("results/demo", str(tmp_path / "results/demo")).strip().splitlines()
    names: dict[str, Any] = {}
    exec("\n".join(lines), names)
    table = eval(last, names)
    assert table["mean"].tolist() == pytest.approx([0.5, 0.65])
    assert table["size"].tolist() == [1, 2]


def test_torn_and_foreign_files_are_named(tmp_path: Path) -> None:
    folder = write(tmp_path / "run", rows())
    whole = len(read_rows(folder))
    (folder / "cells" / "torn-s0.json").write_text('{"dataset": "breast')
    (folder / "cells" / "list-s0.json").write_text("[1, 2]")
    (folder / "cells" / "binary-s0.json").write_bytes(b"\xff\xfe\x00")
    lacking = row("a", "b", "c", 0, 0.9)
    del lacking["seed"]
    (folder / "cells" / "lacking-s0.json").write_text(json.dumps(lacking))
    (folder / "cells" / "wrong-s0.json").write_text(json.dumps(row("a", "b", "c", 0, 0.9, size="64")))
    frame = read_rows(folder)
    assert len(frame) == whole
    found = " | ".join(frame.attrs["warnings"])
    assert len(frame.attrs["warnings"]) == 5
    for text in (
        "torn-s0.json cannot be read",
        "list-s0.json is left out: it is not a JSON object",
        "binary-s0.json cannot be read",
        "lacking-s0.json is left out: it has no seed",
        "wrong-s0.json is left out: size is '64', not a whole number",
    ):
        assert text in found


def test_a_value_of_the_wrong_type_counts_as_missing_and_is_named(tmp_path: Path) -> None:
    odd = row("a", "b", "c", 0, 0.9, lr="fast", n_val=78.0, git_dirty=1, hparams={"lr": 1})
    folder = write(tmp_path / "run", [odd])
    frame = read_rows(folder)
    assert frame["lr"].isna().all()
    assert frame["git_dirty"].isna().all()
    assert frame["n_val"].tolist() == [78]
    assert json.loads(frame["hparams"][0]) == {"lr": 1}
    assert len(frame.attrs["warnings"]) == 2
    assert "lr is 'fast', not a number" in frame.attrs["warnings"][0]


def test_no_results_is_a_clear_error(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="medtransfer run"):
        read_rows(tmp_path)


def test_a_published_table_is_read_where_there_are_no_cells(tmp_path: Path) -> None:
    run, published = write(tmp_path / "run", rows()), tmp_path / "published"
    kept = compact(run)
    published.mkdir()
    (run / "rows.parquet").rename(published / "rows.parquet")
    found = read_rows(published)
    pd.testing.assert_frame_equal(found, kept)
    assert found.attrs["warnings"] == []

    bare = pd.DataFrame({"dataset": ["a", "b"], "size": [64, 64.5], "test_auc": ["high", None]}).assign(
        backbone="n", strategy="s", fraction=1.0, seed=0, status="ok"
    )
    bare.astype({"test_auc": "string"}).to_parquet(published / "rows.parquet")
    found = read_rows(published)
    assert found["dataset"].tolist() == ["a"]
    assert found.attrs["warnings"] == [
        "rows.parquet: size is 64.5, not a whole number, and counts as missing",
        "rows.parquet: test_auc is 'high', not a number, and counts as missing",
        "rows.parquet row 1 is left out: it has no size",
    ]
    (published / "rows.parquet").write_bytes(b"PAR1")
    with pytest.raises(UsageError, match=r"rows\.parquet: cannot be read .* Copy it again"):
        read_rows(published)


def test_only_the_latest_version_of_a_cell_is_current(tmp_path: Path) -> None:
    old = [row("a", "b", "c", s, 0.9, fingerprint="old", finished_utc=f"2025-01-01T10:0{s}:00Z") for s in range(3)]
    new = [row("a", "b", "c", s, 0.8, fingerprint="new", finished_utc="2025-01-01T11:30:00.5+01:00") for s in range(2)]
    other = [row("a", "b", "c", 0, 0.7, fingerprint="other", per_class=10)]
    frame = current(read_rows(write(tmp_path / "run", [*old, *new, *other])))
    assert frame[["fingerprint", "seed"]].values.tolist() == [["new", 0], ["new", 1], ["other", 0]]
    assert frame.attrs["stale"] == 3, "seed 2 of the old version is no companion of the new one's"


def test_the_version_that_was_asked_for_last_is_current_though_another_finished_later(tmp_path: Path) -> None:
    first = row("a", "b", "c", 0, 0.9, fingerprint="first", finished_utc="2025-01-01T10:00:00Z")
    second = row("a", "b", "c", 0, 0.8, fingerprint="second", finished_utc="2025-01-02T10:00:00Z")
    folder = write(tmp_path / "run", [first, second])
    for asked in ("first", "second", "first"):
        store.record_planned(folder, [asked, "of another cell"])
        frame = current(read_rows(folder))
        assert frame["fingerprint"].tolist() == [asked]
        assert "superseded" not in frame
    elsewhere = write(tmp_path / "elsewhere", [second])
    merged = current(pd.concat([read_rows(one) for one in (folder, elsewhere)], ignore_index=True))
    assert merged["fingerprint"].tolist() == ["second"], "what one folder was asked for says nothing of another one's"
    (folder / store.PLANNED).write_text('{"not": "a list"}')
    assert current(read_rows(folder))["fingerprint"].tolist() == ["second"]


def test_a_later_failure_replaces_an_earlier_result(tmp_path: Path) -> None:
    good = row("a", "b", "c", 0, 0.9, fingerprint="good", finished_utc="2025-01-01T10:00:00Z")
    later = {"finished_utc": "2025-01-02T10:00:00Z", "status": "failed", "test_auc": None}
    bad = row("a", "b", "c", 0, 0.9, fingerprint="bad", **later)
    undated = row("a", "b", "c", 0, 0.9, fingerprint="undated", finished_utc=None)
    frame = current(read_rows(write(tmp_path / "run", [good, bad, undated])))
    assert frame["status"].tolist() == ["failed"]
    assert frame.attrs["stale"] == 2


def test_the_same_row_in_two_merged_folders_counts_once(tmp_path: Path) -> None:
    parts = [read_rows(write(tmp_path / name, rows())) for name in ("one", "two")]
    merged = current(pd.concat(parts, ignore_index=True))
    assert len(merged) == len(rows())
    assert not merged.duplicated(IDENTITY).any()
    assert merged.attrs["stale"] == 0


def ensemble(seed: int, *made_of: Row, **changes: Any) -> Row:
    """A row of the mean of these rows."""
    members = [
        {"fingerprint": m["fingerprint"], "seed": m["seed"], "label": m["backbone"], "weight": 1 / len(made_of)}
        for m in made_of
    ]
    fusion = {"fusion": "ensemble_mean", "over": "backbones", "members": json.dumps(members)}
    return row("a", "all backbones", "ensemble_mean(c)", seed, 0.9, **(fusion | {"fingerprint": "fused"} | changes))


def test_an_ensemble_is_outdated_when_a_member_is(tmp_path: Path) -> None:
    one = [row("a", "b1", "c", seed, 0.8, fingerprint="one") for seed in range(3)]
    two = [row("a", "b2", "c", seed, 0.8, fingerprint="two") for seed in range(3)]
    two[1] |= {"status": "diverged", "test_auc": None}
    fused = [ensemble(seed, one[seed], two[seed]) for seed in range(3)]
    again = row("a", "b2", "c", 2, 0.8, fingerprint="two again", finished_utc="2025-01-02T10:00:00Z")
    frame = current(read_rows(write(tmp_path / "one version", [*one, *two, *fused])))
    assert frame.loc[frame["fusion"].notna(), "seed"].tolist() == [0, 2], "seed 1 has a member without a result"
    assert frame.attrs["stale"] == 1
    frame = current(read_rows(write(tmp_path / "another version", [*one, *two, again, *fused])))
    assert frame["fusion"].isna().all()
    assert frame.attrs["stale"] == 3 + 3
    reason = {"status": "skipped", "reason": "it has one member", "test_auc": None, "members": None}
    frame = current(read_rows(write(tmp_path / "skipped", [*one, ensemble(0, **reason)])))
    assert frame.loc[frame["fusion"].notna(), "reason"].tolist() == ["it has one member"]


@pytest.mark.parametrize(
    "members", [None, "{", "[1]", '[{"fingerprint": "f", "seed": 0.5, "label": "b", "weight": 1}]']
)
def test_an_ensemble_that_does_not_say_what_it_is_made_of_is_left_out(tmp_path: Path, members: str | None) -> None:
    frame = read_rows(write(tmp_path / "run", [ensemble(0, members=members)]))
    assert frame.empty
    assert "fused-s0.json is left out: members is not a JSON list" in frame.attrs["warnings"][0]


def test_compact_round_trips_is_sorted_and_repeatable(tmp_path: Path) -> None:
    folder = write(tmp_path / "run", rows(), lambda one: one | {"own_score": one["seed"] / 2, "blob": {"x": [1]}})
    frame = compact(folder)
    first = {name: (folder / name).read_bytes() for name in ("rows.parquet", "rows.csv")}
    assert list(frame.columns) == [*COLUMNS, "blob", "own_score"]
    assert frame.equals(frame.sort_values(IDENTITY, na_position="first", ignore_index=True))
    pd.testing.assert_frame_equal(pd.read_parquet(folder / "rows.parquet"), frame)
    csv = pd.read_csv(folder / "rows.csv", dtype=COLUMNS, keep_default_na=True)
    assert csv["test_auc"].tolist() == pytest.approx(frame["test_auc"].tolist(), rel=0, abs=0, nan_ok=True)
    assert csv["dataset"].tolist() == frame["dataset"].tolist()
    compact(folder)
    assert first == {name: (folder / name).read_bytes() for name in first}
    assert sorted(path.name for path in folder.iterdir()) == ["cells", "rows.csv", "rows.parquet", "run.json"]


def test_a_torn_last_trial_is_dropped_and_a_broken_one_before_it_is_named(tmp_path: Path) -> None:
    folder = write(tmp_path / "run", [row("a", "b", "c", 0, 0.9, fingerprint="f")])
    path = folder / "cells" / "f.trials.jsonl"
    path.write_text(path.read_text() + '{"number": 4, "sta')
    trials = read_trials(folder)
    assert trials["number"].tolist() == [0, 1, 2, 3]
    assert trials.attrs["warnings"] == []
    path.write_text("not json\n" + path.read_text())
    assert len(read_trials(folder)) == 4
    assert "f.trials.jsonl line 1 cannot be read" in read_trials(folder).attrs["warnings"][0]
