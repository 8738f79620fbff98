"""The page in a real browser: Debian's Chromium, or the one that MEDTRANSFER_CHROMIUM names, driven by Playwright."""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest
from playwright import sync_api

from bench.report.page import render
from tests.fake_results import rows, write

NAMES = ("chromium", "chromium-browser", "google-chrome")


@pytest.fixture(scope="session")
def browser() -> Iterator[sync_api.Browser]:
    path = os.environ.get("MEDTRANSFER_CHROMIUM") or next(filter(None, map(shutil.which, NAMES)), None)
    if path is None:
        reason = "no Chromium on the PATH: install Debian's package chromium, or name one in MEDTRANSFER_CHROMIUM"
        (pytest.fail if os.environ.get("MEDTRANSFER_BROWSER") == "required" else pytest.skip)(reason)
    with sync_api.sync_playwright() as playwright:
        started = playwright.chromium.launch(executable_path=path, args=["--disable-quic"])
        yield started
        started.close()


@pytest.fixture
def page(browser: sync_api.Browser) -> Iterator[sync_api.Page]:
    """A laptop's window. A page that breaks a script, or asks for anything but itself, fails its test."""
    context = browser.new_context(viewport={"width": 1280, "height": 900}, accept_downloads=True)
    opened = context.new_page()
    problems: list[str] = []
    opened.on("pageerror", lambda error: problems.append(f"script: {error}"))
    opened.on("console", lambda line: problems.append(f"console: {line.text}") if line.type == "error" else None)
    opened.on("request", lambda asked: problems.append(f"request: {asked.url}") if _foreign(asked.url) else None)
    yield opened
    context.close()
    assert problems == []


def _foreign(url: str) -> bool:
    return not url.startswith(("file:", "data:", "blob:"))


@pytest.fixture(scope="session")
def results(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two sizes and two amounts of data, three tasks, skips and failures; the breast images are seen in three seeds."""
    made = []
    for size, per_class, better in ((64, None, 0.0), (64, 50, -0.04), (28, None, -0.02)):
        for one in rows():
            auc = None if one["test_auc"] is None else min(one["test_auc"] + better, 0.999)
            kind = {"breastmnist": "binary", "pneumoniamnist": "binary"}.get(one["dataset"], "multi-class")
            amounts = {"size": size, "per_class": per_class, "kind": kind, "test_auc": auc}
            made.append(one | amounts | {"fingerprint": f"{one['fingerprint']}-{size}-{per_class}"})
    return write(tmp_path_factory.mktemp("results") / "demo", made)


@pytest.fixture(scope="session")
def address(results: Path) -> str:
    return render([results], results.parent / "report.html").as_uri()
