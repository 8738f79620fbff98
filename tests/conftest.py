"""Shared fixtures: real data where it is present, a single torch thread so that tests do not fight over two cores."""

from __future__ import annotations

import os
from pathlib import Path

import hypothesis
import pytest
import torch

from tests.fake_gpu import Gpu, installed

torch.set_num_threads(1)
# No test is about time: a busy machine must not fail one.
hypothesis.settings.register_profile("patient", deadline=None)
hypothesis.settings.register_profile("fuzz", deadline=None, max_examples=10_000)  # `tox -e fuzz`
hypothesis.settings.load_profile("patient")


@pytest.fixture(scope="session")
def shared() -> Path:
    """Real images and ImageNet weights (`data/medmnist`, `weights`), where a developer has them; skips otherwise."""
    beside = Path(__file__).resolve().parents[1].parent / "shared"
    folder = Path(os.environ.get("MEDTRANSFER_SHARED", beside))
    if not (folder / "weights").is_dir():
        pytest.skip(f"no real data at {folder} (set MEDTRANSFER_SHARED to a folder with data/medmnist and weights)")
    return folder


@pytest.fixture
def own_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """What is decoded or unpacked is kept in the test's own folder."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """An empty folder for images."""
    (tmp_path / "mine").mkdir()
    return tmp_path / "mine"


@pytest.fixture
def no_figures(monkeypatch: pytest.MonkeyPatch) -> None:
    """Pages without figures, which take most of a page's time, for tests of what else it says."""
    monkeypatch.setattr("bench.report.figures.sections", lambda evidence: [])


@pytest.fixture
def gpu(monkeypatch: pytest.MonkeyPatch) -> Gpu:
    """torch.cuda as of a machine with a GPU."""
    return installed(monkeypatch)
