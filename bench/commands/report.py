"""report and compare: the commands that read what runs wrote."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console

from bench.commands.app import Debug, app, guarded
from bench.errors import Regression, UsageError


@app.command()
def report(
    results: Annotated[list[Path], typer.Argument(help="Folders that runs wrote, such as results/demo.")],
    out: Annotated[
        Path | None, typer.Option("--out", help="The page [reports/NAME.html; of several, reports/A+B.html].")
    ] = None,
    debug: Debug = False,
) -> None:
    """Write the report of one or more results folders: an HTML page, and beside it tables (CSV) and a summary
    (Markdown)."""

    def action() -> bool:
        # A merged page is not that of its first folder, which it must not overwrite.
        name = "+".join(folder.resolve().name for folder in results)
        write_report(results, _page("--out", out) or Path("reports") / f"{name}.html", Console())
        return True

    guarded(action, debug)


@app.command()
def compare(
    a: Annotated[Path, typer.Argument(metavar="A", help="The results folder that B is compared with.")],
    b: Annotated[Path, typer.Argument(metavar="B", help="The results folder that may have improved or regressed.")],
    html: Annotated[Path | None, typer.Option("--html", help="Write the comparison as a page, too.")] = None,
    fail_under: Annotated[
        float | None,
        typer.Option(
            "--fail-under",
            metavar="X",
            help="Exit with 3 where the 95 % interval of the mean difference in test AUC, or of a cell's, lies "
            "entirely below -X, or where a run with a result in A failed in B.",
        ),
    ] = None,
    debug: Debug = False,
) -> None:
    """Compare two results folders, paired by cell and seed: what improved, what regressed, what is in one only."""

    def action() -> bool:
        from bench.report import compare_shown
        from bench.report.compare import breaches, compare

        if fail_under is not None and not 0 <= fail_under < 1:
            raise UsageError(f"--fail-under {fail_under:g}: must be a loss of test AUC from 0 to 1, such as 0.01.")
        _page("--html", html)
        console, found = Console(), compare(a, b)
        for sentence in compare_shown.sentences(found):
            console.print(sentence, soft_wrap=True, highlight=False, markup=False)
        if differing := compare_shown.terminal(found):
            console.print(differing)
        if html:
            page = compare_shown.page(found, html)
            console.print(f"page: {page}", soft_wrap=True, highlight=False, markup=False)
        if fail_under is not None and (said := breaches(found, fail_under)):
            raise Regression(f"--fail-under {fail_under:g}: " + "; ".join(said))
        return True

    guarded(action, debug)


def write_report(results: list[Path], out: Path, console: Console) -> None:
    from bench.report import news
    from bench.report.exports import export
    from bench.report.frames import compact
    from bench.report.page import gather, write
    from bench.report.terminal import terminal_summary

    tables = [compact(folder) for folder in results]
    evidence, unreadable = gather(results)
    for folder, rows, run in zip(results, tables, evidence.runs, strict=True):
        title = f"Strategies, {folder}" if len(results) > 1 else "Strategies"
        console.print(terminal_summary(rows, [folder], [run], title))
    news.remember(evidence)
    found = news.news(evidence)
    for sentence in news.sentences(found) if found else []:
        console.print(sentence, soft_wrap=True, highlight=False, markup=False)
    page = write(evidence, unreadable, out)  # first: it comes upon predictions that cannot be read
    names = ", ".join(path.name for path in export(evidence, unreadable, found, out))
    console.print(f"report: {page}, beside it {names}", soft_wrap=True, highlight=False, markup=False)


def _page(option: str, path: Path | None) -> Path | None:
    """The path, if any. Raises UsageError where its ending is that of another kind of file."""
    if path is not None and path.suffix.lower() != ".html":
        raise UsageError(f"{option} {path}: a page is HTML. Give it a name that ends in .html.")
    return path
