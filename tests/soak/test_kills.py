"""Fifty kills of commands and workers at random moments."""

from __future__ import annotations

from pathlib import Path

from tests.cheap import published
from tests.kills import assert_whole, kill_commands, kill_workers, settle
from tests.test_runner import rows

CELLS = 40


def test_fifty_kills_leave_the_rows_of_an_undisturbed_run(undisturbed: Path, tmp_path: Path) -> None:
    kills = kill_commands(tmp_path, 25, CELLS, seed=1)
    kills += kill_workers(tmp_path, 50 - kills, CELLS, seed=2)
    settle(tmp_path, CELLS)
    assert kills == 50
    assert rows(tmp_path) == rows(undisturbed)
    assert set(published(tmp_path).values()) <= {1}
    assert_whole(tmp_path)
