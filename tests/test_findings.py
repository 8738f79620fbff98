"""What README says was found is what the committed rows say."""

from __future__ import annotations

import re
import runpy
from pathlib import Path

import pytest

from tests.small import CHECKOUT

FIGURE = re.compile(r"[+−]?\.\d{3}(?!\d)")
"""An AUC or a difference of two: .695, +.082."""


def test_every_figure_of_the_findings_is_one_that_the_rows_give(capsys: pytest.CaptureFixture[str]) -> None:
    _, _, findings = Path(CHECKOUT, "README.md").read_text(encoding="utf-8").partition("\n## Findings\n")
    said = set(FIGURE.findall(findings.partition("\n## ")[0]))
    runpy.run_path(str(CHECKOUT / "results" / "reference" / "findings.py"), run_name="__main__")
    given = set(FIGURE.findall(capsys.readouterr().out))
    assert len(said) > 20
    assert sorted(said - given) == []
