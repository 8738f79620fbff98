"""What a reader does with the page: sort, filter, walk it by keyboard, link to it, print it, and trust it."""

from __future__ import annotations

import re
from pathlib import Path
from urllib.parse import unquote_plus

import numpy as np
import pytest
from axe_playwright_python.sync_playwright import Axe
from playwright.sync_api import Browser, Page, expect

from bench.report.page import render
from tests.fake_results import row, rows, write

EVIL = """<script>window.hacked=1</script>"><img src=x onerror="window.hacked=1">'&amp;</script>"""


def names(page: Page) -> list[str]:
    return page.locator("#board tbody th").all_inner_texts()


def column(page: Page, key: str) -> list[float]:
    """The values that a column is sorted by, top to bottom; NaN where there is none."""
    cells = page.evaluate(
        """(key) => {
            const at = document.querySelector(`#board th[data-key=${key}]`).cellIndex;
            return [...document.querySelectorAll("#board tbody tr")].map((line) => line.cells[at]?.dataset.v ?? "");
        }""",
        key,
    )
    return [float(value) if value else float("nan") for value in cells]


def choose(page: Page, facet: str, *values: str) -> None:
    page.locator(f".facet[data-name={facet}] summary").click()
    for value in values:
        page.locator(f".facet[data-name={facet}]").get_by_label(value, exact=True).check()
    page.keyboard.press("Escape")


@pytest.fixture
def opened(page: Page, address: str) -> Page:
    page.goto(address)
    return page


def test_the_script_draws_what_python_wrote(browser: Browser, page: Page, address: str) -> None:
    """The table that JavaScript draws for the first view is the one in the file, which a reader without it sees."""
    context = browser.new_context(java_script_enabled=False)
    still = context.new_page()
    still.goto(address)
    page.goto(address)
    for part in ("#board", "#board-stands"):
        written, drawn = (re.sub(r"\s+", " ", one.locator(part).inner_text()).strip() for one in (still, page))
        assert written == drawn
    assert not still.locator("#board-controls").is_visible()
    context.close()


def test_a_click_sorts_and_says_so(opened: Page) -> None:
    head = opened.locator("#board th[data-key=auc]")
    for order, sign in (("descending", -1), ("ascending", 1)):
        head.get_by_role("button").click()
        expect(head).to_have_attribute("aria-sort", order)
        values = column(opened, "auc")
        assert values == sorted(values, key=lambda value: sign * value)
    assert opened.locator("#board th[aria-sort]").count() == 1
    opened.locator("#board th[data-key=name]").get_by_role("button").click()
    assert names(opened) == sorted(names(opened))


def test_missing_values_stay_last_in_both_orders(opened: Page) -> None:
    button = opened.locator("#board th[data-key=gain]").get_by_role("button")
    for _ in range(2):
        button.click()
        assert np.isnan(column(opened, "gain")).tolist() == [False, False, True]


def test_every_table_sorts(opened: Page) -> None:
    for table in opened.locator("table.sortable:not(#board)").all():
        for details in opened.locator("main details:not(.facet)").all():
            details.evaluate("(one) => { one.open = true; }")
        head = table.locator("th:has(button)").first
        head.get_by_role("button").click()
        expect(head).to_have_attribute("aria-sort", re.compile("ascending|descending"))


def test_the_keyboard_reaches_and_works_everything(opened: Page) -> None:
    opened.keyboard.press("Tab")
    expect(opened.locator(".skip")).to_be_focused()
    opened.locator("#board-controls input[name=over]").first.focus()
    opened.keyboard.press("ArrowRight")
    expect(opened.locator("#board thead th").first).to_contain_text("Backbone")
    opened.keyboard.press("ArrowLeft")
    opened.keyboard.press("Tab")
    summary = opened.locator(".facet summary").first
    expect(summary).to_be_focused()
    opened.keyboard.press("Enter")
    opened.keyboard.press("Tab")
    opened.keyboard.press("Space")
    expect(opened.locator("#board-stands")).to_contain_text("1 dataset (breastmnist)")
    opened.keyboard.press("Escape")
    expect(summary).to_be_focused()
    assert opened.locator(".facet[open]").count() == 0
    for _ in range(30):
        opened.keyboard.press("Tab")
        if opened.evaluate("document.activeElement.closest('th')?.dataset.key") == "seconds":
            break
    opened.keyboard.press("Enter")
    expect(opened.locator("#board th[data-key=seconds]")).to_have_attribute("aria-sort", "ascending")
    outline = opened.evaluate("getComputedStyle(document.activeElement).outlineStyle")
    assert outline != "none", "focus must be seen"


def test_a_filter_recomputes_and_can_be_taken_back(opened: Page) -> None:
    before = opened.locator("#board").inner_text()
    choose(opened, "dataset", "breastmnist", "phantom-fundus")
    choose(opened, "size", "64")
    expect(opened.locator("#board-stands")).to_contain_text("2 datasets (breastmnist, phantom-fundus)")
    expect(opened.locator("#board-limited")).to_be_visible()
    assert opened.locator("#board").inner_text() != before
    opened.get_by_role("button", name="Show all").click()
    expect(opened.locator("#board-limited")).to_be_hidden()
    assert opened.locator("#board").inner_text() == before


def test_a_filter_keeps_the_order_that_the_reader_chose(opened: Page) -> None:
    head = opened.locator("#board th[data-key=auc]")
    for _ in range(2):
        head.get_by_role("button").click()
    choose(opened, "dataset", "phantom-fundus")
    expect(head).to_have_attribute("aria-sort", "ascending")
    values = [value for value in column(opened, "auc") if not np.isnan(value)]
    assert values == sorted(values)


def test_a_link_restores_the_view(browser: Browser, opened: Page) -> None:
    choose(opened, "dataset", "breastmnist")
    choose(opened, "backbone", "resnet18[:3]", "mobilenetv2_035")
    opened.locator("#board-controls").get_by_text("Pairs").click()
    opened.locator("#board th[data-key=seconds]").get_by_role("button").click()
    link = opened.locator("#board-link").evaluate("(a) => a.href")
    assert link == opened.url
    assert "dataset=breastmnist" in unquote_plus(link)
    context = browser.new_context()
    other = context.new_page()
    other.goto(link)
    assert other.locator("#board").inner_text() == opened.locator("#board").inner_text()
    expect(other.locator("#board th[data-key=seconds]")).to_have_attribute("aria-sort", "ascending")
    expect(other.locator("#leaderboard-head")).to_be_in_viewport()
    context.close()


def test_a_link_to_what_is_not_there_shows_everything(page: Page, address: str) -> None:
    page.goto(f"{address}#over=nothing&dataset=gone&sort=no%20way")
    assert len(names(page)) == 3
    expect(page.locator("#board-limited")).to_be_hidden()


def test_links_to_sections_still_work(opened: Page) -> None:
    opened.locator("nav").get_by_role("link", name="Datasets").click()
    expect(opened.locator("#datasets-head")).to_be_in_viewport()


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("width", [420, 1280])
def test_axe_finds_nothing_serious(page: Page, address: str, scheme: str, width: int) -> None:
    page.emulate_media(color_scheme=scheme, reduced_motion="reduce")  # type: ignore[arg-type]
    page.set_viewport_size({"width": width, "height": 900})
    page.goto(address)
    choose(page, "dataset", "breastmnist")
    page.locator(".facet summary").first.click()
    page.evaluate("document.querySelectorAll('main details:not(.facet)').forEach((one) => (one.open = true))")
    found = Axe().run(page).response["violations"]
    grave = [(one["id"], [node["html"][:200] for node in one["nodes"]][:3])
             for one in found if one["impact"] in ("serious", "critical")]  # fmt: skip
    assert grave == []


def test_dark_mode_follows_the_system(page: Page, address: str) -> None:
    def brightness(scheme: str) -> tuple[float, float]:
        page.emulate_media(color_scheme=scheme)  # type: ignore[arg-type]
        style = page.evaluate(
            "(({ color, backgroundColor }) => [color, backgroundColor])(getComputedStyle(document.body))"
        )
        ink, paper = (float(np.mean([int(n) for n in re.findall(r"\d+", one)[:3]])) for one in style)
        return ink, paper

    page.goto(address)
    ink, paper = brightness("light")
    assert ink < 80 < 200 < paper
    ink, paper = brightness("dark")
    assert paper < 80 < 200 < ink


@pytest.mark.parametrize("width", [420, 1024])
def test_nothing_but_tables_and_figures_is_wider_than_the_window(page: Page, address: str, width: int) -> None:
    page.set_viewport_size({"width": width, "height": 900})
    page.goto(address)
    assert page.evaluate("document.documentElement.scrollWidth") <= width


def test_what_is_cut_off_has_a_shade_at_its_edge(page: Page, address: str) -> None:
    """The last two layers stay at the edges, and the first two, which hide them, scroll along with what is there."""
    page.set_viewport_size({"width": 390, "height": 900})
    page.goto(address)
    board = page.locator(".scroll").first
    assert board.evaluate("(box) => box.scrollWidth > box.clientWidth")
    layers = board.evaluate("(box) => getComputedStyle(box).backgroundAttachment")
    assert layers == "local, local, scroll, scroll"
    for figure in page.locator("figure .scroll").all():
        wide, most = figure.evaluate("(box) => [box.scrollWidth, parseFloat(getComputedStyle(box).maxWidth)]")
        assert wide <= max(most, 390) + 1, "no figure is blown up beyond its own size"


def test_paper_shows_all_and_no_controls(opened: Page) -> None:
    opened.evaluate("dispatchEvent(new Event('beforeprint'))")
    opened.emulate_media(media="print", color_scheme="dark")
    for hidden in ("nav", "#board-controls", ".actions"):
        assert not opened.locator(hidden).is_visible()
    assert opened.locator("main details:not(.facet):not([open])").count() == 0
    style = opened.evaluate(
        "(({ color, backgroundColor }) => [color, backgroundColor])(getComputedStyle(document.body))"
    )
    assert style == ["rgb(0, 0, 0)", "rgb(255, 255, 255)"]
    assert opened.pdf(format="A4").startswith(b"%PDF")


def test_hostile_names_are_harmless(page: Page, tmp_path: Path) -> None:
    def evil(one: dict) -> dict:  # type: ignore[type-arg]
        swap = {"breastmnist": EVIL, "resnet18[:3]": EVIL, "full_finetune": EVIL}
        texts = {name: swap.get(one[name], one[name]) for name in ("dataset", "backbone", "strategy")}
        extra = dict.fromkeys(("notes", "citation", "licence", "kind", "modality", "versions"), EVIL)
        return one | texts | extra | ({"reason": EVIL} if one["status"] != "ok" else {})

    page.goto(render([write(tmp_path / "demo", rows(), evil)], tmp_path / "report.html").as_uri())
    choose(page, "dataset", EVIL)
    page.locator("#board-controls").get_by_text("Pairs").click()
    assert any(EVIL in name for name in names(page))
    assert page.evaluate("window.hacked") is None
    page.reload()
    expect(page.locator("#board-stands")).to_contain_text(EVIL)
    assert page.evaluate("window.hacked") is None
    assert page.evaluate("document.querySelectorAll('script').length") == 2
    assert page.locator("img[src=x]").count() == 0


def test_a_name_that_is_a_formula_is_text_in_the_csv(page: Page, tmp_path: Path) -> None:
    made = [row("d", "b", name, seed, 0.8 + seed / 100, fingerprint=f"f{n}")
            for n, name in enumerate(("scratch", '=cmd|"x",1')) for seed in range(2)]  # fmt: skip
    page.goto(render([write(tmp_path / "demo", made)], tmp_path / "report.html").as_uri())
    with page.expect_download() as download:
        page.get_by_role("button", name="Save as CSV").click()
    lines = download.value.path().read_text(encoding="utf-8").splitlines()
    assert [line.partition(",")[0] for line in lines[:1]] == ["strategy"]
    assert any(line.startswith('"\'=cmd|""x"",1",') for line in lines)


def test_a_script_that_got_in_would_not_run_nor_reach_the_network(
    browser: Browser, address: str, tmp_path: Path
) -> None:
    """The page's own policy: only its script runs, and nothing is fetched."""
    html = Path(address.removeprefix("file://")).read_text(encoding="utf-8")
    (tmp_path / "bad.html").write_text(
        html.replace("</main>", '<script>window.hacked = 1</script><img src="https://192.0.2.1/x.png"></main>')
    )
    context = browser.new_context()
    page = context.new_page()
    refused: list[str | None] = []
    page.on("requestfailed", lambda request: refused.append(request.failure))
    page.goto((tmp_path / "bad.html").as_uri())
    assert page.evaluate("window.hacked") is None
    assert refused == ["csp"], "the policy refuses it before the network is asked"
    assert len(names(page)) == 3
    context.close()
