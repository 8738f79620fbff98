"""A cell's log holds what libraries and the harness say while it is run."""

from __future__ import annotations

import logging
import warnings
from pathlib import Path

import pytest

from bench import logs
from tests.cheap import events


def test_what_is_warned_of_and_logged_is_in_the_log_and_shown(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    def cell() -> None:
        with logs.warnings_of(tmp_path, "cell"):
            warnings.warn("a library's", stacklevel=1)
            logging.getLogger("bench.session").warning("the harness's: %d", 3)
            logging.getLogger("bench.session").info("nothing")

    with pytest.warns(UserWarning, match="a library's"):
        cell()
    logging.getLogger("bench.session").warning("of another cell")
    assert [(one["event"], one["text"]) for one in events(tmp_path, "cell")] == [
        ("warning", "UserWarning: a library's"),
        ("warning", "the harness's: 3"),
    ]
    shown = [record.getMessage() for record in caplog.records if record.levelno >= logging.WARNING]
    assert shown == ["the harness's: 3", "of another cell"]
