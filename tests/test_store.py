"""What is on disk is whole, and its presence means done."""

from __future__ import annotations

import json
import os
import time
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from bench import store
from bench.trial import Trial

ROW = {"fingerprint": "abc", "seed": 1, "status": "ok", "test_auc": float("nan"), "test_recall": "[1.0]"}


def trial(number: int, auc: float | None = 0.5) -> Trial:
    return Trial(number, {"lr": 0.1}, {"lr": 0.1}, "complete", auc, 0.3, [auc], [0.3], 1.0, 10)


def test_a_row_is_there_whole_and_undefined_scores_are_null(tmp_path: Path) -> None:
    store.publish(tmp_path, ROW, {"test_logits": np.zeros((2, 2), np.float32)})
    assert store.finished(tmp_path) == {("abc", 1)}
    assert store.read_row(tmp_path, "abc", 1)["test_auc"] is None
    assert sorted(p.name for p in (tmp_path / "cells").iterdir()) == ["abc-s1.json", "abc-s1.npz"]
    assert np.load(tmp_path / "cells/abc-s1.npz")["test_logits"].shape == (2, 2)


def test_a_failed_row_is_tried_again_and_replaced(tmp_path: Path) -> None:
    store.publish(tmp_path, ROW | {"status": "failed"})
    assert store.finished(tmp_path) == set()
    store.publish(tmp_path, ROW)
    assert [p.name for p in (tmp_path / "cells").iterdir()] == ["abc-s1.json"]


def test_what_killed_commands_left_half_written_is_swept_and_nothing_else(tmp_path: Path) -> None:
    store.publish(tmp_path, ROW)
    store.sweep(tmp_path)
    names = [".abc-s1.json.x1.part", ".abc-s1.json.x2.part", "mine.part", ".hidden"]
    for name in names:
        (tmp_path / "cells" / name).write_text("")
        os.utime(tmp_path / "cells" / name, (1e9, 1e9))
    os.utime(tmp_path / "cells" / names[1])  # a shard is writing it
    os.utime(tmp_path / "cells" / "abc-s1.json", (1e9, 1e9))
    store.sweep(tmp_path)
    assert sorted(p.name for p in (tmp_path / "cells").iterdir()) == sorted([*names[1:], "abc-s1.json"])


@pytest.mark.parametrize("ahead", [-7200, 7200])
def test_how_old_a_file_is_is_told_by_the_clock_that_dates_files(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, ahead: int
) -> None:
    store.publish(tmp_path, ROW)
    young, old = tmp_path / "cells/.young.part", tmp_path / "cells/.old.part"
    for path in (young, old):
        path.write_text("")
    now = young.stat().st_mtime
    os.utime(old, (now - 3700, now - 3700))
    monkeypatch.setattr(time, "time", lambda: now + ahead)  # of this machine
    store.sweep(tmp_path)
    assert sorted(path.name for path in (tmp_path / "cells").iterdir()) == [young.name, "abc-s1.json"]


def test_nothing_half_written_stays_when_writing_fails(tmp_path: Path) -> None:
    with pytest.raises(TypeError):
        store.write(tmp_path / "x.json", "no bytes")  # type: ignore[arg-type]
    assert list(tmp_path.iterdir()) == []


def test_a_leftover_temporary_file_is_no_row(tmp_path: Path) -> None:
    (tmp_path / "cells").mkdir()
    (tmp_path / "cells/.abc-s1.json.x7.part").write_text("{")
    assert store.finished(tmp_path) == set()


@given(cut=st.integers(0, 400))
def test_a_torn_last_trial_is_dropped_and_appending_goes_on(tmp_path_factory: pytest.TempPathFactory, cut: int) -> None:
    folder = tmp_path_factory.mktemp("torn")
    store.record_trials(folder, "abc", [trial(0), trial(1, None)])
    path = folder / "cells/abc.trials.jsonl"
    whole = path.read_bytes()
    path.write_bytes(whole[: min(cut, len(whole))])
    there = store.read_trials(folder, "abc")
    assert there == [trial(0), trial(1, None)][: len(there)]
    assert len(there) >= whole[: min(cut, len(whole))].count(b"\n")
    store.record_trials(folder, "abc", [trial(n) for n in range(len(there), 3)])
    assert [t.number for t in store.read_trials(folder, "abc")] == [0, 1, 2]
    assert [json.loads(line)["number"] for line in path.read_bytes().splitlines()] == [0, 1, 2]
