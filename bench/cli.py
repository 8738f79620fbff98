"""The command line: reads options, calls the parts, turns what they raise into a line and an exit code.

Exit codes: 0 all ok, 1 some cells failed, 2 wrong usage, 3 `compare --fail-under` found a regression, 130 interrupted.
"""

from __future__ import annotations

import errno
import inspect
import logging
import shlex
import signal
import sys
import traceback
from collections.abc import Callable, Iterable, Sequence
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.console import Console

from bench.errors import MedtransferError, Regression, UsageError, printable

if TYPE_CHECKING:
    from bench.config import Matrix
    from bench.plan import Plan

# torch and timm take seconds to import: every command imports what it needs, so that --help is instant.
app = typer.Typer(no_args_is_help=True, add_completion=False, pretty_exceptions_enable=False, rich_markup_mode=None)
new = typer.Typer(no_args_is_help=True, rich_markup_mode=None)
app.add_typer(new, name="new", help="Write a small plug-in that works, to start from.")

# Key of the matrix file -> flag, type and help. Lists may be given several times.
SELECTORS: dict[str, tuple[str, Any, str]] = {
    "backbones": (
        "--backbone",
        list[str],
        "Its name in the matrix, MODEL, MODEL[:CUT], MODEL@file:PATH or MODEL@random; MODEL may be bundled:NAME.",
    ),
    "strategies": ("--strategy", list[str], "A strategy (`medtransfer list strategies`)."),
    "datasets": ("--dataset", list[str], "Its name, npz:PATH, folder:PATH, csv:PATH, or 'SOURCE->TARGET'."),
    "sizes": ("--size", list[int], "Side of the images in pixels."),
    "fractions": ("--fraction", list[float], "Share of the training images of each class."),
    "per_class": ("--per-class", list[int], "Number of training images of each class."),
    "seeds": ("--seeds", int, "Fits per cell."),
    "trials": ("--trials", int, "Sets of hyperparameters tried per cell."),
    "epochs": ("--epochs", int, "Epochs per fit."),
    "data_root": ("--data-root", str, "Folder of the MedMNIST files."),
    "natural": ("--natural", str, "Natural images of a second domain: skimage, cifar10, folder:PATH or npz:PATH."),
    "results": ("--results", str, "Folder that this run writes to."),
    "device": ("--device", str, "auto, cpu, cuda[:N] or mps."),
    "jobs": ("--jobs", int, "Cells run at the same time."),
    "executor": ("--executor", str, "local (processes on this machine) or ray."),
    "address": ("--address", str, "Of a Ray cluster; auto: the one of this machine; local: a new one here [local]."),
    "shard": ("--shard", str, "i/n: run the i-th of n parts of the cells, beside the others on a shared folder."),
    "time_limit": ("--time-limit", float, "Minutes after which a cell is given up."),
    "deterministic": ("--deterministic", bool, "Give the same bits again on a GPU, too (slower)."),
    "only": (
        "--only",
        list[str],
        "Only cells with KEY=PATTERN: dataset, backbone, strategy, size, fraction, per_class.",
    ),
}
_METAVAR = {list[str]: "NAME", str: "TEXT", list[int]: "N", int: "N", list[float]: "SHARE", float: "MIN", bool: None}
Debug = Annotated[bool, typer.Option("--debug", help="Show the traceback of an error.")]


class Listing(StrEnum):
    """What `medtransfer list` can show."""

    strategies = "strategies"
    datasets = "datasets"
    backbones = "backbones"
    presets = "presets"


DISK = (errno.ENOSPC, errno.EDQUOT, errno.EROFS, errno.EACCES, errno.EPERM)
"""Errors of the system that are no fault of the program."""
MATRIX = "A matrix file (TOML) or preset: demo, quick, standard, full, medmnist-v2."


def _guarded(action: Callable[[], bool], debug: bool = False) -> None:
    """Run a command; False is exit code 1."""
    logging.basicConfig(format="%(message)s", level=logging.WARNING)
    logging.getLogger("bench").setLevel(logging.INFO)
    try:
        code = 0 if action() else 1
    except KeyboardInterrupt:
        before = signal.signal(signal.SIGINT, signal.SIG_IGN)  # a second Ctrl-C shall not tear the line
        typer.echo(
            f"\ninterrupted. What is finished is kept; to go on, run the same command:\n  {_command_line()}", err=True
        )
        signal.signal(signal.SIGINT, before)
        code = 130
    except Exception as error:
        code = 2 if isinstance(error, UsageError) else 3 if isinstance(error, Regression) else 1
        if debug:
            traceback.print_exc()
        if isinstance(error, MedtransferError):
            typer.echo(f"error: {error}", err=True)
        elif isinstance(error, OSError) and error.errno in DISK:
            where = printable(str(error.filename or "the disk"))
            typer.echo(f"error: {where}: {error.strerror}. Free disk space, or check who may write there.", err=True)
        else:
            said = f"{type(error).__name__}: {printable(str(error))}"
            typer.echo(f"error: {said} ({_kept(error)})", err=True)
    raise typer.Exit(code)


def _kept(error: Exception) -> str:
    from bench.crash import crash_report

    try:
        return f"to report it, paste {crash_report(error, _command_line())}"
    except OSError:
        return "run again with --debug for the traceback"


def _command_line() -> str:
    return shlex.join(["medtransfer", *sys.argv[1:]])


def _matrix_command(name: str, keys: Iterable[str] = SELECTORS, **flags: str) -> Callable[[Callable[..., bool]], None]:
    """Registers action(matrix, debug, **flags) as a command with the selectors `keys` and flags (name -> help)."""
    parameters: dict[str, tuple[Any, Any]] = {
        "source": (Annotated[str, typer.Argument(metavar="MATRIX", help=MATRIX)], "demo")
    }
    for key in keys:
        option, kind, text = SELECTORS[key]
        parameters[key] = (Annotated[kind | None, typer.Option(option, metavar=_METAVAR[kind], help=text)], None)
    for key, text in flags.items():
        parameters[key] = (Annotated[bool, typer.Option("--" + key.replace("_", "-"), help=text)], False)
    parameters["debug"] = (Debug, False)

    def register(action: Callable[..., bool]) -> None:
        def command(**given: Any) -> None:
            def load_and_act() -> bool:
                from bench.config import load

                matrix = load(given["source"], {key: given[key] for key in keys})
                return action(matrix, given["debug"], **{key: given[key] for key in flags})

            _guarded(load_and_act, given["debug"])

        # typer reads a function's signature; this one is made from the table above.
        command.__annotations__ = {key: annotation for key, (annotation, _) in parameters.items()}
        command.__signature__ = inspect.Signature(  # type: ignore[attr-defined]
            [
                inspect.Parameter(key, inspect.Parameter.KEYWORD_ONLY, default=default, annotation=annotation)
                for key, (annotation, default) in parameters.items()
            ]
        )
        app.command(name, help=action.__doc__)(command)

    return register


@_matrix_command("run", dry_run="Show what would be run, and stop.")
def _run(matrix: Matrix, debug: bool, dry_run: bool) -> bool:
    """Run a matrix (default: demo) and report. Writes tables and an HTML page; a rerun runs only what is missing."""
    plan, console, seconds = _planned(matrix)
    if dry_run:
        return True
    page = Path("reports") / f"{matrix.results.name}.html"
    if not plan.todo and not plan.unfused and page.exists() and (matrix.results / "rows.csv").exists():
        console.print(f"nothing to do. tables: {matrix.results}, report: {page}", soft_wrap=True, highlight=False)
        return True
    from bench.executors import execute

    outcome = execute(plan, console, _command_line(), seconds, debug)
    if outcome.left:
        then = f"Then: medtransfer report {matrix.results}"
        text = f"shard {matrix.shard} is done; {outcome.left} rows are left to other shards. {then}"
        console.print(text, soft_wrap=True, highlight=False, markup=False)
        return not outcome.failed
    _report([matrix.results], page, console)
    return not outcome.failed


@_matrix_command("plan")
def _plan(matrix: Matrix, debug: bool) -> bool:
    """Show what a run would do and how long it would take; run nothing. The same as run --dry-run."""
    _planned(matrix)
    return True


@_matrix_command("fetch", ("backbones", "datasets", "sizes", "data_root", "natural"))
def _fetch(matrix: Matrix, debug: bool) -> bool:
    """Download datasets and weights of a matrix for use offline."""
    from bench.fetch import fetch

    return fetch(matrix, Path.cwd(), Console())


@app.command()
def report(
    results: Annotated[list[Path], typer.Argument(help="Folders that runs wrote, such as results/demo.")],
    out: Annotated[Path | None, typer.Option("--out", help="The page [reports/NAME.html].")] = None,
    debug: Debug = False,
) -> None:
    """Write the report of one or more results folders: an HTML page, and beside it tables (CSV) and a summary
    (Markdown)."""

    def action() -> bool:
        _report(results, out or Path("reports") / f"{results[0].name}.html", Console())
        return True

    _guarded(action, debug)


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

    _guarded(action, debug)


@app.command()
def advise(
    data: Annotated[str, typer.Option("--data", help="Your images: PATH.npz, a folder, or a dataset's name.")] = "",
    budget: Annotated[str, typer.Option("--budget", help="Time that the matrix may take: 90s, 10min, 2h.")] = "",
    modality: Annotated[str, typer.Option("--modality", help="ultrasound, x-ray, ..., where data do not say.")] = "",
    reference: Annotated[
        list[Path] | None, typer.Option("--reference", help="Results folders to learn from [the reference study].")
    ] = None,
    leave_out: Annotated[
        list[str] | None, typer.Option("--leave-out", metavar="NAME", help="A dataset not to learn from.")
    ] = None,
    validate: Annotated[
        bool, typer.Option("--validate", help="Say how far advice was right on each dataset of the reference.")
    ] = False,
    data_root: Annotated[Path, typer.Option("--data-root", help="Folder of the MedMNIST files.")] = Path(
        "data/medmnist"
    ),
    device: Annotated[str, typer.Option("--device", help=SELECTORS["device"][2])] = "auto",
    out: Annotated[Path, typer.Option("--out", help="The matrix file that is written.")] = Path("advice.toml"),
    debug: Debug = False,
) -> None:
    """Say which strategies and backbones are worth running on your images, and write a matrix file of them."""

    def action() -> bool:
        from bench.advice.command import Asked, said

        asked = Asked(data, tuple(reference or ()), tuple(leave_out or ()), modality, budget, data_root, device, out)
        console = Console()
        for item in said(asked, validate, Path.cwd()):
            console.print(item, soft_wrap=isinstance(item, str), highlight=False)
        return True

    _guarded(action, debug)


@app.command("import")
def import_(
    files: Annotated[
        list[Path],
        typer.Argument(help="As medmnist's Evaluator writes them: breastmnist_test_..@0.csv, .._val_..@0.csv."),
    ],
    name: Annotated[str, typer.Option("--name", help="What the rows are called, in the place of a backbone.")],
    results: Annotated[Path, typer.Option("--results", help="The results folder that they are added to.")],
    dataset: Annotated[str, typer.Option("--dataset", help="Where the files' names do not say it.")] = "",
    size: Annotated[int, typer.Option("--size", help="Pixels of the cells to compare with [as the name says].")] = 0,
    data_root: Annotated[Path, typer.Option("--data-root", help="Folder of the MedMNIST files.")] = Path(
        "data/medmnist"
    ),
    debug: Debug = False,
) -> None:
    """Add predictions made elsewhere to a results folder, to compare with and to be members of ensembles."""

    def action() -> bool:
        from bench.imported import import_predictions

        for row in import_predictions(files, name, results, data_root, Path.cwd(), dataset, size):
            val = f", val AUC {row['val_auc']:.3f}" if "val_auc" in row else ", no val predictions"
            typer.echo(
                f"{row['dataset']} {row['size']} px · {name} · seed {row['seed']}: test AUC {row['test_auc']:.3f}{val}"
            )
        typer.echo(f"next: medtransfer report {results}, or a run of its matrix with an ensemble over all")
        return True

    _guarded(action, debug)


@app.command()
def pretrain(
    recipe: Annotated[Path, typer.Argument(help="A recipe file (TOML), such as bench/weights/recipe.toml.")],
    images: Annotated[str | None, typer.Option("--images", help="npz:PATH or folder:PATH.")] = None,
    epochs: Annotated[int | None, typer.Option("--epochs", help="Epochs for each network.")] = None,
    device: Annotated[str | None, typer.Option("--device", help=SELECTORS["device"][2])] = None,
    out: Annotated[str | None, typer.Option("--out", help="Folder for weights and logs [weights].")] = None,
    debug: Debug = False,
) -> None:
    """Pretrain networks on natural images, as the bundled weights were made. Goes on where it was interrupted."""

    def action() -> bool:
        from rich.progress import track

        from bench.pretrain import pretrain
        from bench.recipe import load_recipe

        console = Console()
        given = {"images": images, "epochs": epochs, "device": device, "out": out}

        def say(text: str) -> None:
            console.print(text, highlight=False, markup=False, soft_wrap=True)

        def watch(steps: Sequence[Any], text: str) -> Iterable[Any]:
            return track(steps, text, console=console, transient=True, disable=not console.is_terminal)

        pretrain(load_recipe(recipe, given), say, watch)
        return True

    _guarded(action, debug)


@app.command("list")
def list_(
    what: Annotated[Listing | None, typer.Argument(help="Default: strategies, datasets and presets.")] = None,
    names: Annotated[
        list[str] | None, typer.Argument(help="Only these; a pattern such as 'resnet*' for backbones.")
    ] = None,
    data_root: Annotated[Path, typer.Option("--data-root", help="Folder of the MedMNIST files.")] = Path(
        "data/medmnist"
    ),
    debug: Debug = False,
) -> None:
    """Show strategies, datasets, backbones, presets.

    `list datasets` reads the images that are on this machine: hash, licence, classes, duplicates across splits."""

    def action() -> bool:
        from bench import listing

        console = Console()
        _warn_of_broken(console)
        for kind in [what.value] if what else ["strategies", "presets", "datasets"]:
            for item in getattr(listing, kind)(names or [], data_root):
                console.print(item, soft_wrap=isinstance(item, str))
            console.print()
        return True

    _guarded(action, debug)


@app.command()
def check(
    file: Annotated[Path, typer.Argument(help="A strategy's file, such as strategies/mine.py.")], debug: Debug = False
) -> None:
    """Run the contract suite on one strategy."""

    def action() -> bool:
        from bench.check import check_strategy

        return check_strategy(file, Console())

    _guarded(action, debug)


@new.command()
def strategy(name: Annotated[str, typer.Argument(help="Its name, such as head_first.")], debug: Debug = False) -> None:
    """Write strategies/NAME.py, a strategy of ten lines that passes `medtransfer check`."""

    def action() -> bool:
        from bench.scaffold import new_strategy

        path = new_strategy(name, Path.cwd()).relative_to(Path.cwd())
        typer.echo(f"{path} is written. Next:\n  medtransfer check {path}\n  medtransfer run --strategy {name}")
        return True

    _guarded(action, debug)


def _planned(matrix: Matrix) -> tuple[Plan, Console, dict[str, float]]:
    from bench.describe import describe
    from bench.plan import make_plan

    console = Console()
    _warn_of_broken(console)
    plan = make_plan(matrix, Path.cwd())
    return plan, console, describe(plan, console)


def _report(results: list[Path], out: Path, console: Console) -> None:
    from bench.report import news
    from bench.report.exports import export
    from bench.report.frames import compact
    from bench.report.page import gather, write
    from bench.report.terminal import terminal_summary

    for folder in results:
        console.print(terminal_summary(compact(folder), [folder]))
    evidence, unreadable = gather(results)
    news.remember(evidence)
    found = news.news(evidence)
    for sentence in news.sentences(found) if found else []:
        console.print(sentence, soft_wrap=True, highlight=False, markup=False)
    beside = export(evidence, unreadable, found, out)
    tables = ", ".join(path.name for path in beside)
    console.print(
        f"report: {write(evidence, unreadable, out)}, beside it {tables}", soft_wrap=True, highlight=False, markup=False
    )


def _warn_of_broken(console: Console) -> None:
    from bench.registry import broken

    for path, why in broken(Path.cwd()).items():
        console.print(f"warning: {path} is left out: {why}", style="yellow", markup=False, soft_wrap=True)


def main() -> None:
    """The command `medtransfer`."""
    app(prog_name="medtransfer")
