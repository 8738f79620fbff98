"""How long a filter takes with 10,000 rows: printed, not asserted. Run with `tox -e browser -- -s -k quick`."""

from __future__ import annotations

import time
from pathlib import Path

import numpy as np
from playwright.sync_api import Page, expect

from bench.report.page import render
from tests.fake_results import row, write

CLICK = """([name, value]) => {
    const boxes = [...document.querySelectorAll(`#board-controls input[name="${name}"]`)];
    const box = boxes.find((one) => one.value === value);
    const start = performance.now();
    box.click();
    document.getElementById("board").offsetHeight;
    const shown = performance.now() - start;
    const csv = document.getElementById("board-csv");
    return new Promise((done) => {
        const look = () => (csv.disabled ? setTimeout(look) : done([shown, performance.now() - start]));
        look();
    });
}"""


def test_a_filter_is_quick_with_ten_thousand_rows(page: Page, tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    made = []
    for d in range(12):
        for b in range(9):
            for s in range(31):
                for seed in range(3):
                    auc = float(np.clip(0.8 + d * 0.01 - b * 0.004 + s * 0.002 + rng.normal(0, 0.008), 0, 0.999))
                    name = f"strategy{s:02d}" if s else "scratch"
                    kind = "multi-class" if d % 2 else "binary"
                    made.append(row(f"set{d:02d}", f"net{b}", name, seed, auc, kind=kind, fingerprint=f"{d}-{b}-{s}"))
    assert len(made) >= 10_000
    folder = write(tmp_path / "demo", made)
    start = time.process_time()
    file = render([folder], tmp_path / "report.html")
    print(f"\nrender: {time.process_time() - start:.1f} s of CPU, {file.stat().st_size / 1e6:.1f} MB")
    assert file.stat().st_size < 10_000_000
    page.goto(file.as_uri())
    expect(page.locator("#board-csv")).to_be_enabled(timeout=60_000)
    for name, value in (("dataset", "set03"), ("dataset", "set03"), ("kind", "binary"), ("kind", "binary"),
                        ("over", "backbone"), ("over", "pair"), ("over", "strategy")):  # fmt: skip
        shown, complete = page.evaluate(CLICK, [name, value])
        print(f"{name} {value}: new table after {shown:.0f} ms, resamples complete after {complete:.0f} ms")
        expect(page.locator("#board tbody tr").first).to_be_visible()
