"""The page: self-contained, harmless, honest about what is missing, repeatable and accessible."""

from __future__ import annotations

import base64
import hashlib
import json
import re
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from rich.console import Console
from typer.testing import CliRunner

import bench.report
from bench.cli import app
from bench.report import plots
from bench.report.frames import current, read_rows
from bench.report.leaderboard import leaderboard
from bench.report.markdown import summary
from bench.report.page import gather, render
from bench.report.tables import integrity
from bench.report.terminal import terminal_summary
from tests.fake_results import Row, audited, row, rows, uneven, write

VOID = {"meta", "br", "link", "img", "input", "hr", "path", "use"}
EVIL = """<script>alert(1)</script>"><img src=x onerror=alert(2)> $a_b$ --> ]]> {{ 7*7 }} 'é 超"""


class Page(HTMLParser):
    """Tags with their attributes, text by innermost tag, and whether every tag is closed."""

    def __init__(self, html: str) -> None:
        super().__init__()
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.stack: list[str] = []
        self.text = ""
        self.feed(html)
        assert self.stack == []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))
        if tag not in VOID:
            self.stack.append(tag)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))

    def handle_endtag(self, tag: str) -> None:
        if tag not in VOID:
            assert self.stack.pop() == tag

    def handle_data(self, data: str) -> None:
        if not {"script", "style"} & set(self.stack):
            self.text += data

    def all(self, tag: str) -> list[dict[str, str | None]]:
        return [attrs for name, attrs in self.tags if name == tag]


@pytest.fixture(scope="module")
def demo(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write(tmp_path_factory.mktemp("results") / "demo", rows())


@pytest.fixture(scope="module")
def html(demo: Path) -> str:
    return render([demo], demo.parent / "deep" / "report.html").read_text(encoding="utf-8")


def made(tmp_path: Path, given: list[Row]) -> Page:
    return Page(render([write(tmp_path / "demo", given)], tmp_path / "report.html").read_text(encoding="utf-8"))


def test_the_page_loads_nothing(html: str) -> None:
    page = Page(html)
    assert not {"link", "iframe", "object", "embed", "base", "video", "audio"} & {tag for tag, _ in page.tags}
    for _, attrs in page.tags:
        assert (attrs.get("src") or "data:").startswith("data:")
        for name in ("href", "xlink:href"):
            assert (attrs.get(name) or "#").startswith("#")
        assert not [name for name in attrs if name.startswith("on")]
    assert set(re.findall(r"url\((.)", html)) <= {"#"}
    assert "@import" not in html
    assert "http" not in re.sub(r'xmlns(:xlink)?="[^"]+"|http-equiv', "", html)


def test_the_pages_policy_allows_its_own_script_only(html: str) -> None:
    policy = next(attrs["content"] for attrs in Page(html).all("meta") if "http-equiv" in attrs)
    script = html.rpartition("<script>")[2].rpartition("</script>")[0]
    digest = base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()
    assert policy is not None
    assert f"script-src 'sha256-{digest}'" in policy
    assert "default-src 'none'" in policy


def test_the_answer_comes_first_and_what_it_rests_on_after_it(html: str) -> None:
    order = re.findall(r'<section id="([a-z]+)"', html)
    wanted = ["answer", "leaderboard", "statistics", "scores", "literature", "run", "trust", "results", "reading"]
    assert [key for key in order if key in wanted] == [key for key in wanted if key in order]
    assert len(set(wanted) - set(order)) <= 1  # the literature has nothing on made-up images


def test_the_rows_in_the_page_are_all_of_the_rows(html: str, demo: Path) -> None:
    carried = json.loads(html.partition('id="rows">')[2].partition("</script>")[0])
    given = current(read_rows(demo))
    for name in ("strategy", "dataset", "backbone", "size", "kind"):
        codes = carried["columns"][name]
        assert [carried["labels"][name][code] for code in codes] == given[name].tolist()
    assert carried["labels"]["amount"] == ["all"]
    found = pd.Series(carried["columns"]["auc"], dtype=float)
    assert found.tolist() == pytest.approx(given["test_auc"].tolist(), rel=0, nan_ok=True)
    assert found.isna().sum() == (given["status"] != "ok").sum() > 0


def test_the_page_is_accessible(html: str) -> None:
    page = Page(html)
    assert page.all("html")[0]["lang"] == "en-GB"
    ids = [attrs["id"] for _, attrs in page.tags if "id" in attrs]
    assert len(ids) == len(set(ids))
    for _, attrs in page.tags:
        for name in ("aria-labelledby", "xlink:href", "href"):
            assert {one.removeprefix("#") for one in (attrs.get(name) or "").split()} <= set(ids)
    assert {len(page.all(tag)) for tag in ("main", "header", "footer", "nav", "h1")} == {1}
    assert all(attrs.get("scope") in ("col", "row") for attrs in page.all("th"))
    assert len(page.all("caption")) == len(page.all("table")) > 5
    assert len(page.all("svg")) >= 3
    for attrs in page.all("svg"):
        assert attrs["role"] == "img"
        title, description = (attrs["aria-labelledby"] or "").split()
        assert re.search(f'<title id="{title}">[^<]+</title><desc id="{description}">[^<]{{20,}}</desc>', html)
    sorted_by = [attrs for attrs in page.all("th") if "aria-sort" in attrs]
    assert {attrs["aria-sort"] for attrs in sorted_by} == {"ascending", "descending"}


def test_text_has_contrast_aa_in_light_and_dark() -> None:
    css = (Path(bench.report.__file__).parent / "templates" / "report.css").read_text(encoding="utf-8")
    light, dark = re.findall(r":root \{(.*?)\}", css, flags=re.DOTALL)[:2]
    pairs = [
        ("ink", "paper"),
        ("soft", "paper"),
        ("accent", "paper"),
        ("bad", "paper"),
        ("ink", "wash"),
        ("soft", "wash"),
    ]
    for block in (light, dark):
        colours = dict(re.findall(r"--([\w-]+): (#[0-9a-f]{6})", block))
        for text, ground in [*pairs, ("warn-ink", "warn-paper"), ("accent", "warn-paper")]:
            assert contrast(colours[text], colours[ground]) >= 4.5, (text, ground)
        for n in range(1, 7):
            assert contrast(colours[f"series-{n}"], colours["paper"]) >= 3


def contrast(one: str, other: str) -> float:
    def luminance(colour: str) -> float:
        channels = np.array([int(colour[i : i + 2], 16) / 255 for i in (1, 3, 5)])
        linear = np.where(channels <= 0.04045, channels / 12.92, ((channels + 0.055) / 1.055) ** 2.4)
        return float(linear @ [0.2126, 0.7152, 0.0722])

    dark, light = sorted([luminance(one), luminance(other)])
    return (light + 0.05) / (dark + 0.05)


def test_hostile_names_are_only_text(tmp_path: Path) -> None:
    given = [row(EVIL, EVIL, s, seed, 0.8 + seed / 100, notes=EVIL, citation=EVIL, licence=EVIL, versions=EVIL)
             for s in ("scratch", EVIL) for seed in range(3)]  # fmt: skip
    given += [row(EVIL, "other", EVIL, 0, 0.8, status="failed", test_auc=None, reason=EVIL)]
    for n, one in enumerate(given):
        one["fingerprint"] = f"f{n // 3}"
    page = made(tmp_path, given)
    assert [attrs.get("type") for attrs in page.all("script")] == ["application/json", None]
    assert not page.all("img")
    assert not [attrs for _, attrs in page.tags if any(name.startswith("on") for name in attrs)]
    assert page.text.count(EVIL) > 10


def test_a_table_without_its_trials_tells_of_none(html: str, tmp_path: Path) -> None:
    folder = write(tmp_path / "demo", rows())
    for path in (folder / "cells").glob("*.trials.jsonl"):
        path.unlink()
    bare = render([folder], tmp_path / "bare.html").read_text(encoding="utf-8")
    assert "Trials complete" in html
    assert "Trials complete" not in bare
    assert "trials are of their cells" not in bare


def test_images_that_were_read_at_one_size_for_two_are_listed_once(tmp_path: Path) -> None:
    folder = write(tmp_path / "demo", rows())
    entries = {f"{name} {size} px": audited(name, size=size) for name in ("b", "a") for size in (64, 28)}
    (folder / "datasets.json").write_text(json.dumps(entries | {"a 128 px": audited("a", size=128, source_size=128)}))
    assert [(one["name"], one["source_size"]) for one in integrity([folder])] == [("a", 128), ("a", 28), ("b", 28)]


@pytest.mark.usefixtures("no_figures")
def test_blank_images_are_a_caution(tmp_path: Path) -> None:
    folder = write(tmp_path / "demo", rows())
    entries = {"a 64 px": audited("a", blank=3), "a 28 px": audited("a", size=28, blank=1), "b 64 px": audited("b")}
    (folder / "datasets.json").write_text(json.dumps(entries))
    page = render([folder], tmp_path / "page.html").read_text(encoding="utf-8")
    total = sum(entries["a 64 px"]["sizes"].values())
    assert f"3 of {total} images of a have next to no contrast" in page
    assert page.count("have next to no contrast") == 1


def test_a_class_with_few_test_images_is_a_caution(tmp_path: Path) -> None:
    folder = write(tmp_path / "demo", rows()[:3])

    def counts(**test: int) -> dict[str, Any]:
        return {"class_counts": {"train": dict.fromkeys(test, 9), "test": test}}

    entries = {
        "a 64 px": audited("a", **counts(well=60, ill=3, worse=7)),
        "a 28 px": audited("a", size=28, **counts(well=60, ill=3, worse=7)),
        "b 64 px": audited("b", **counts(well=10, ill=10)),
        "c 64 px": audited("c", kind="multi-label", **counts(ill=30, **{"no label": 2})),
    }
    (folder / "datasets.json").write_text(json.dumps(entries))
    said = summary(*gather([folder]), None)
    assert "**Few test images.** a (3 of the class ill): the error that the test images cause is understated" in said
    (folder / "datasets.json").write_text(json.dumps({"b 64 px": entries["b 64 px"]}))
    assert "Few test images" not in summary(*gather([folder]), None)


def test_the_same_rows_make_the_same_page(html: str, demo: Path, tmp_path: Path) -> None:
    assert render([demo], tmp_path / "again.html").read_text(encoding="utf-8") == html
    assert re.search(r"The last row finished on \d{4}-\d\d-\d\d \d\d:\d\d UTC", html)


def test_figures_are_byte_identical_and_take_their_colours_from_css(tmp_path: Path) -> None:
    given = current(read_rows(write(tmp_path / "demo", rows())))
    board = leaderboard(given, ["strategy", "backbone"])
    for draw in (lambda: plots.heatmap(given, "h", "Heat"), lambda: plots.strips(given, "s", "Strip"),
                 lambda: plots.cost(board, "c", "Cost")):  # fmt: skip
        picture = draw()
        assert picture is not None
        assert picture == draw()
        assert "currentColor" in picture.svg
        assert not [marker for marker in (plots.INK, plots.RULE, *plots.SERIES) if marker in picture.svg]
        assert re.search(r"n = \d+", picture.caption)


def test_what_saw_the_test_images_is_marked_beside_others_and_never_bold(tmp_path: Path) -> None:
    made = [row("d", "b", s, seed, auc + seed / 100, fingerprint=s, transductive=s == "tent")
            for s, auc in (("scratch", 0.6), ("dann", 0.7), ("tent", 0.9)) for seed in range(2)]  # fmt: skip
    folder = write(tmp_path / "demo", made)
    given = current(read_rows(folder))
    heat, runs = plots.heatmap(given, "h", "t"), plots.strips(given, "s", "t")
    assert heat is not None
    assert "Highest mean test AUC: d: dann 0.705" in heat.svg
    for picture in (heat, runs):
        assert picture is not None
        assert "† is transductive: it adapts to the test images themselves" in picture.caption
    alone = plots.heatmap(given[given["strategy"] == "tent"], "h", "t")
    assert alone is not None
    assert "Highest mean test AUC: ." in alone.svg
    fair = plots.heatmap(given[given["strategy"] != "tent"], "h", "t")
    assert fair is not None
    assert "†" not in fair.caption
    assert "tent (transductive)" in terminal(given)
    assert "| tent (transductive) | not ranked" in summary(*gather([folder]), None)
    html = render([folder], tmp_path / "page.html").read_text(encoding="utf-8")
    cells = html.partition('id="results"')[2]
    assert '<th scope="row">tent <small class="tag">transductive</small></th>' in cells
    assert '<th scope="row">dann</th>' in cells


def test_nothing_to_draw_is_none(tmp_path: Path) -> None:
    given = current(read_rows(write(tmp_path / "demo", [row("d", "b", "s", 0, 0.8, status="failed", test_auc=None)])))
    assert plots.heatmap(given, "h", "t") is None
    assert plots.strips(given, "s", "t") is None
    assert plots.cost(leaderboard(given, ["strategy", "backbone"]), "c", "t") is None


def test_the_cost_of_all_pairs_with_the_same_blocks_is_drawn_and_others_are_counted(tmp_path: Path) -> None:
    """Pairs that have results at other sizes as well do not take the others from the figure."""
    given = current(read_rows(write(tmp_path / "run", uneven())))
    board = leaderboard(given, ["strategy", "backbone"])
    assert (len(board.ranked), board.blocks_used) == (21, 2), "all pairs at 28 px with 10 images a class"
    picture = plots.cost(board, "c", "Cost")
    assert picture is not None
    assert "where all have results (10 images a class at 28 px), n = 21 pairs" in picture.caption
    assert "Not drawn" not in picture.caption
    rare = given[given["strategy"] == "extra0"].assign(strategy="rare", per_class=pd.NA)
    drawn = plots.cost(leaderboard(pd.concat([given, rare]), ["strategy", "backbone"]), "c", "Cost")
    assert drawn is not None
    assert "Not drawn, and so not among them: 1 pair that cannot be compared there." in drawn.caption


def test_pareto_front() -> None:
    seconds, auc = np.array([1.0, 2.0, 2.0, 3.0, 4.0]), np.array([0.7, 0.8, 0.75, 0.8, 0.9])
    assert plots.pareto(seconds, auc).tolist() == [True, True, False, False, True]


@pytest.mark.usefixtures("no_figures")
def test_what_limits_the_figures_is_said(tmp_path: Path) -> None:
    given = rows()
    given[0] |= {"noncommercial": True, "git_dirty": True, "notes": "resumed; kept"}
    old = given[1] | {"fingerprint": "older", "finished_utc": "2024-12-31T00:00:00Z"}
    folder = write(tmp_path / "demo", [*given, old])
    (folder / "cells" / "torn-s9.json").write_text('{"dataset":')
    (folder / "run.json").write_text((folder / "run.json").read_text().replace('"finished_utc"', '"unknown"'))
    text = Page(render([folder], tmp_path / "out.html").read_text(encoding="utf-8")).text
    for sentence in (
        "The run demo was still going",
        "densenet121 random started from random weights: nothing was transferred",
        "phantom-fundus: drawn by the computer",
        "3 runs failed.", "3 runs skipped.", "1 run diverged.",
        "breastmnist (78): choosing among trials there is mostly noise",
        "pneumoniamnist: 28-pixel images enlarged to 64 (bilinear)",
        "breastmnist: not for commercial use",
        "code that no commit records",
        "1 run of earlier versions of a cell not shown",
        "torn-s9.json cannot be read",
        "phantoms are drawn by medtransfer", "resumed",
    ):  # fmt: skip
        assert sentence in text, sentence


@pytest.mark.parametrize(
    ("tolerance", "says"),
    [
        (
            1.0,
            "on validation AUC, and among AUCs within one standard error of the highest on the lower validation loss;",
        ),
        (0, "Hyperparameters were chosen on validation AUC;"),
        ("much", "Hyperparameters were chosen on validation AUC;"),
    ],
)
def test_the_page_says_how_trials_were_chosen(tmp_path: Path, tolerance: object, says: str) -> None:
    folder = write(tmp_path / "demo", rows(1))
    run = {"name": "demo", "matrix": {"protocol": {"tolerance": tolerance}}}
    (folder / "run.json").write_text(json.dumps(run))
    assert says in Page(render([folder], tmp_path / "out.html").read_text(encoding="utf-8")).text


def test_a_note_of_a_dataset_is_told_once(tmp_path: Path) -> None:
    folder = write(tmp_path / "demo", [one | {"notes": "split as given"} for one in rows()])
    run = json.loads((folder / "run.json").read_text())
    (folder / "run.json").write_text(json.dumps(run | {"notes": ["breastmnist: split as given"]}))
    text = Page(render([folder], tmp_path / "out.html").read_text(encoding="utf-8")).text
    assert text.count("split as given") == 1


def test_only_what_has_a_result_is_counted_at_the_top(tmp_path: Path) -> None:
    made = [row("d", b, s, 0, 0.8, status="ok" if b == "b" else "skipped", test_auc=0.8 if b == "b" else None,
                fingerprint=b + s) for b in ("b", "convnext") for s in ("scratch", "l2_sp")]  # fmt: skip
    page = render([write(tmp_path / "run", made)], tmp_path / "out.html").read_text(encoding="utf-8")
    assert "<dt>backbones</dt><dd>1 of 2</dd>" in page
    assert "<dt>strategies</dt><dd>2</dd>" in page
    assert "2 runs skipped.</b> The strategy or the network does not apply there" in page


def test_a_caption_lies_on_its_own_ground_and_not_on_the_shade_of_what_scrolls() -> None:
    css = (Path(plots.__file__).parents[1] / "templates" / "report.css").read_text()
    assert re.search(r"\ncaption \{[^}]*background: var\(--paper\)", css)


def test_skipped_and_failed_runs_are_listed_with_reasons(html: str) -> None:
    text = re.sub(r"\s+", " ", Page(html).text)
    for reason in ('the hub cannot be reached; use weights = "file:..."', "the loss was not finite in epoch 2",
                   "a probe of random features is not asked for"):  # fmt: skip
        assert reason in text
    assert "74 of 81" in text


def test_the_share_of_time_that_networks_computed_is_told(html: str) -> None:
    text = re.sub(r"\s+", " ", Page(html).text)
    assert "Networks computed for 95% of that" in text
    assert "was shown 682 training images a second" in text


def test_provenance_and_datasets_are_there(html: str) -> None:
    text = Page(html).text
    for fact in ("medtransfer run quick.toml", "torch 2.14.0", "0123abc", "src-linear_probe", "w-mobilenetv2_035",
                 "d-breastmnist", "CC BY 4.0", "Al-Dhabyani", "546", "channels_last"):  # fmt: skip
        assert fact in text, fact


@pytest.mark.parametrize("kept", [0, 1])
@pytest.mark.usefixtures("no_figures")
def test_an_empty_or_tiny_run_makes_a_page(tmp_path: Path, kept: int) -> None:
    bare = {"dataset": "d", "backbone": "b", "strategy": "s", "size": 28, "fraction": 0.1, "seed": 0, "status": "ok",
            "test_auc": 0.8, "fingerprint": "f"}  # fmt: skip
    folder = write(tmp_path / "demo", [bare][:kept])
    (folder / "run.json").unlink()
    page = Page(render([folder], tmp_path / "out.html").read_text(encoding="utf-8"))
    assert ("nothing to compare" if kept else "no run has a result") in page.text
    assert "nan" not in page.text.lower().split()


@pytest.mark.usefixtures("no_figures")
def test_folders_are_merged(tmp_path: Path) -> None:
    given = rows()
    parts = [write(tmp_path / "one", given[:40]), write(tmp_path / "two", given[30:])]
    text = Page(render(parts, tmp_path / "out.html").read_text(encoding="utf-8")).text
    assert "74 of 81" in text
    assert "one, two" in text


@pytest.mark.usefixtures("no_figures")
def test_a_strategy_that_saw_the_test_domain_is_marked(tmp_path: Path) -> None:
    made = [row("a->b", "net", name, seed, 0.8 + seed / 100, fingerprint=name, transductive=name == "coral")
            for name in ("scratch", "coral") for seed in range(2)]  # fmt: skip
    html = render([write(tmp_path / "demo", made)], tmp_path / "report.html").read_text(encoding="utf-8")
    marked = re.findall(r'<th scope="row">(\w+) <small class="tag">(\w+)</small>', html)
    assert set(marked) == {("coral", "transductive")}


@pytest.mark.usefixtures("no_figures")
def test_several_amounts_of_data_are_kept_apart(tmp_path: Path) -> None:
    given = [
        one | {"per_class": n, "fingerprint": f"{one['fingerprint']}-{n}"} for n in (10, 50) for one in rows()[:27]
    ]
    page = made(tmp_path, given)
    assert "10 training images a class" in page.text
    amounts = [attrs["value"] for attrs in page.all("input") if attrs["name"] == "amount"]
    assert amounts == ["10 a class", "50 a class"]


def test_terminal_summary_ranks_and_shows_coverage(tmp_path: Path) -> None:
    console = Console(width=100)
    with console.capture() as capture:
        console.print(terminal_summary(current(read_rows(write(tmp_path / "demo", rows())))))
    lines = [line for line in capture.get().splitlines() if "_" in line or "scratch" in line]
    assert [re.search(r"\w+", line)[0] for line in lines] == ["full_finetune", "linear_probe", "scratch"]
    assert "24 of 27" in lines[0]
    stands = (
        "stands on 7 of 9 blocks with results: 3 datasets (breastmnist, phantom-fundus, pneumoniamnist), 3 backbones, "
        "all images at 64 px"
    )
    assert stands in " ".join(capture.get().split())
    assert f"This {stands}" in summary(*gather([tmp_path / "demo"]), None)
    assert re.search(r"0\.\d{3}–0\.\d{3}", lines[0])


def terminal(*given: Any, **more: Any) -> str:
    console = Console(width=100)
    with console.capture() as capture:
        console.print(terminal_summary(*given, **more))
    return " ".join(capture.get().split())


def test_the_terminal_says_why_nothing_is_ranked(tmp_path: Path) -> None:
    apart = [row("d1", "b", "scratch", 0, 0.7), row("d2", "b", "full_finetune", 0, 0.8)]
    said = terminal(current(read_rows(write(tmp_path / "apart", apart))))
    assert "no ranking: no block" in said
    assert "Run all of them on the same datasets" in said
    assert "no ranking" not in terminal(current(read_rows(write(tmp_path / "one", apart[:1]))))


def test_the_terminal_and_the_summary_say_which_strategies_were_not_run_alike(tmp_path: Path) -> None:
    made = [row("d", "b", "scratch", 0, 0.7, epochs=1), row("d", "b", "full_finetune", 0, 0.8, epochs=12)]
    folder = write(tmp_path / "mixed", made)
    said = "not run alike: The protocol of strategies differs on d: scratch (1 epoch); full_finetune (12 epochs)."
    assert said in terminal(current(read_rows(folder)))
    assert "**Not run alike.** The protocol of strategies" in summary(*gather([folder]), None)
    assert "not run alike" not in terminal(current(read_rows(write(tmp_path / "alike", made[:1]))))
    edited = [made[0], row("d", "b", "full_finetune", 0, 0.8, epochs=1, data_hash="edited")]
    assert "not run alike: Images, labels or splits of d" in terminal(
        current(read_rows(write(tmp_path / "edited", edited)))
    )


@pytest.mark.usefixtures("no_figures")
def test_a_name_mistyped_once_is_in_no_leaderboard_but_in_the_coverage(tmp_path: Path) -> None:
    lost = {"status": "failed", "test_auc": None, "reason": "raised"}
    given = [*rows(), row("breastmnist", "b", "mistyped", 0, 0.5, **lost)]
    folder = write(tmp_path / "run", given)
    strategies = ["scratch", "linear_probe", "full_finetune"]

    def asked(*names: str) -> dict[str, Any]:
        run = json.loads((folder / "run.json").read_text()) | {"matrix": {"strategies": [*strategies, *names]}}
        (folder / "run.json").write_text(json.dumps(run))
        return run

    current_rows = current(read_rows(folder))
    last = asked()
    assert "mistyped" not in terminal(current_rows, runs=[last])
    html = render([folder], tmp_path / "page.html").read_text(encoding="utf-8")
    board = html.partition('id="leaderboard"')[2].partition("</section>")[0]
    carried = json.loads(html.partition('id="rows">')[2].partition("</script>")[0])
    assert "mistyped" not in board
    assert carried["labels"]["strategy"] == sorted(strategies)
    assert "mistyped" in html.partition('id="trust"')[2]
    assert "mistyped" in terminal(current_rows, runs=[asked("mistyped")]), "it was asked for, and failed"
    assert "mistyped" in terminal(current_rows), "who asked for what is not known"


@pytest.mark.usefixtures("no_figures")
def test_a_page_of_several_folders_is_named_after_all_and_its_tables_after_theirs(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    for name, dataset in (("a", "breastmnist"), ("b", "pneumoniamnist")):
        write(tmp_path / "results" / name, [one for one in rows() if one["dataset"] == dataset])
    done = CliRunner().invoke(app, ["report", "results/a", "results/b"])
    assert done.exit_code == 0, done.output
    assert [path.name for path in (tmp_path / "reports").glob("*.html")] == ["a+b.html"]
    assert "Strategies, results/a" in done.output
    assert "Strategies, results/b" in done.output


@pytest.mark.parametrize("words", [["report", "run", "--out", "out.pdf"], ["compare", "run", "run", "--html", "out"]])
def test_a_page_under_another_ending_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, words: list[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    write(tmp_path / "run", rows())
    done = CliRunner().invoke(app, words)
    assert done.exit_code == 2
    assert "ends in .html" in done.output
    assert not list(tmp_path.glob("out*"))
