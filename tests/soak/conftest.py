"""What the soak tests share."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.cheap import run


@pytest.fixture(scope="module")
def undisturbed(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A results folder of a run of the module's CELLS that nothing happened to."""
    results = tmp_path_factory.mktemp("undisturbed")
    run(results, request.module.CELLS)
    return results
