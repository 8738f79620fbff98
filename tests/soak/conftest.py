"""What the soak tests share."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from tests.cheap import run

# oneDNN keeps what it has made ready for the last 1,024 shapes of a computation, in each process. These cells have one
# number of images each, hence as many shapes, and two thousand of them would not be enough to see that it ends.
os.environ["ONEDNN_PRIMITIVE_CACHE_CAPACITY"] = "128"


@pytest.fixture(scope="module")
def undisturbed(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A results folder of a run of the module's CELLS that nothing happened to."""
    results = tmp_path_factory.mktemp("undisturbed")
    run(results, request.module.CELLS)
    return results
