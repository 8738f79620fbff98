"""The command line: what is printed where, and the exit codes that scripts rely on."""

from __future__ import annotations

import itertools
import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from typer.testing import CliRunner

import bench
from bench import cli, imagefiles
from bench.commands.selectors import SELECTORS
from bench.config import flag
from bench.errors import DataError
from bench.registry import names_in
from tests.small import picture

ROOT = Path(__file__).resolve().parents[1]


@pytest.fixture
def workspace(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    return tmp_path


def invoke(*words: str) -> tuple[int, str, str]:
    result = CliRunner().invoke(cli.app, words)
    return result.exit_code, result.stdout, result.stderr


def test_help_does_not_wait_for_torch() -> None:
    code = "import sys, bench.cli; sys.exit('torch' in sys.modules or 'timm' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], cwd=ROOT, check=False).returncode == 0


def test_flags_in_messages_are_the_flags_there_are() -> None:
    for key, (option, *_) in SELECTORS.items():
        assert option == ("--backbone" if key == "backbones" else flag(key))


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (("run", "demoo"), 'Did you mean "demo"'),
        (("plan", "demo", "--epochs", "0"), "--epochs = 0"),
        (("run", "demo", "--only", "x=y"), "--only"),
        (("plan", "demo", "--strategy", "linear_prob"), 'Did you mean "linear_probe"'),
        (("plan", "demo", "--dataset", "BreastMNIST"), 'Did you mean "breastmnist"'),
        (("plan", "demo", "--dataset", "/tmp"), 'write "folder:/tmp"'),
        (("plan", "demo", "--strategy", "scratch,linear_probe"), "Give --strategy once for each"),
        (("plan", "demo", "--shard", "0/2"), "with i from 1 to n"),
        (("pretrain", "nothere.toml"), "nothere.toml: cannot be read: No such file or directory. Check the path."),
        (("list", "dataset"), 'Did you mean "datasets"'),
        (("list", "strategies", "scrach"), 'Did you mean "scratch"'),
        (("list", "datasets", "brestmnist"), 'Did you mean "breastmnist"'),
        (("new", "strategy", "3x"), "letters, digits and underscores"),
        (("new", "strategy", "scratch"), "Choose another name"),
        (("check", "nothing.py"), "nothing.py"),
        (("check", "scrach"), 'Did you mean "scratch"'),
        (("report", "nothing"), "nothing"),
    ],
)
def test_wrong_usage_is_one_line_and_exit_code_2(workspace: Path, words: tuple[str, ...], message: str) -> None:
    code, _, err = invoke(*words)
    assert code == 2
    assert err.startswith("error: ")
    assert message in err
    assert len(err.strip().splitlines()) == 1
    assert not list(workspace.iterdir())


def test_check_takes_a_name_for_its_file(workspace: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    checked: list[Path] = []
    monkeypatch.setattr("bench.check.check_strategy", lambda path, console: checked.append(path) or True)
    assert invoke("new", "strategy", "mine")[0] == invoke("check", "mine")[0] == 0
    assert [path.relative_to(workspace) for path in checked] == [Path("strategies/mine.py")]


@pytest.mark.parametrize(
    ("error", "code", "text"),
    [
        (DataError("x.npz: damaged. Download it again."), 1, "error: x.npz: damaged. Download it again."),
        (ZeroDivisionError("oops"), 1, "error: ZeroDivisionError: oops (to report it, paste "),
        (OSError(28, "No space left on device", "rows.csv"), 1, "error: rows.csv: No space left on device. Free disk"),
        (KeyboardInterrupt(), 130, "run the same command"),
    ],
)
def test_what_a_part_raises_becomes_a_line_and_an_exit_code(
    monkeypatch: pytest.MonkeyPatch, error: BaseException, code: int, text: str
) -> None:
    def fails(*args: object) -> None:
        raise error

    monkeypatch.setattr("bench.config.load", fails)
    got, _, err = invoke("plan")
    assert got == code
    assert text in err
    assert "Traceback" not in err


def test_an_unexpected_error_leaves_a_report_that_can_be_pasted(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("bench.config.load", lambda *args: [][3])
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    monkeypatch.setenv("HOME", str(ROOT))
    _, _, err = invoke("plan")
    [report] = tmp_path.iterdir()
    assert str(report) in err
    text = report.read_text()
    for needed in (
        "medtransfer 0",
        "torch ",
        "## command\nmedtransfer",
        "IndexError: list index out of range",
        "app.py",
    ):
        assert needed in text
    assert str(ROOT) not in text
    assert "~/bench/commands/app.py" in text


def test_where_no_report_can_be_written_the_error_still_is_one_line(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("bench.config.load", lambda *args: [][3])
    monkeypatch.setattr("tempfile.tempdir", "/nowhere")
    code, _, err = invoke("plan")
    assert code == 1
    assert err == "error: IndexError: list index out of range (run again with --debug for the traceback)\n"


def test_debug_shows_the_traceback(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("bench.config.load", lambda *args: 1 / 0)
    code, _, err = invoke("plan", "--debug")
    assert code == 1
    assert "Traceback" in err


def test_a_broken_plugin_is_a_warning_and_the_others_are_listed(workspace: Path) -> None:
    (workspace / "strategies").mkdir()
    (workspace / "strategies/bad.py").write_text("import nothing_of_this_name\n")
    code, out, _ = invoke("list", "strategies", "*probe")
    assert code == 0
    assert "bad.py is left out: line 1: ModuleNotFoundError" in out
    assert "linear_probe" in out


def test_a_new_strategy_is_found_at_once_and_never_overwritten(workspace: Path) -> None:
    assert invoke("new", "strategy", "mine")[0] == 0
    path = workspace / "strategies/mine.py"
    assert set(names_in(path)) == {"mine"}
    assert "mine" in invoke("list", "strategies", "mine")[1]
    before = path.read_text()
    assert invoke("new", "strategy", "mine")[0] == 2
    assert path.read_text() == before


def test_a_file_for_a_results_folder_is_one_line(workspace: Path) -> None:
    (workspace / "some.npz").touch()
    code, _, err = invoke("plan", "demo", "--results", "some.npz")
    assert code == 1
    assert err == "error: some.npz: a file, not a results folder. Name another folder with --results.\n"


def test_a_bad_dataset_does_not_end_the_listing_of_others(
    workspace: Path, monkeypatch: pytest.MonkeyPatch, own_cache: None
) -> None:
    (workspace / "bad.npz").write_bytes(b"no archive")
    cut = picture(workspace / "mine/a/0.png", (200, 200))
    cut.write_bytes(cut.read_bytes()[:2000])
    for label, index in itertools.product("ab", range(1, 12)):
        picture(workspace / "mine" / label / f"{index}.png")
    decoded = []
    original = imagefiles.filled
    monkeypatch.setattr(imagefiles, "filled", lambda *given: decoded.append(given[3]) or original(*given))
    code, out, err = invoke("list", "datasets", "npz:bad.npz", "folder:mine", "phantom-radiograph")
    assert code == 1
    assert out.count("cannot be read") == 2
    assert "train 400: clear" in out
    assert "error: npz:bad.npz, folder:mine: cannot be read" in err
    assert set(decoded) == {"folder:mine at 28 px"}  # not at each size again


def test_the_version_is_told(workspace: Path) -> None:
    assert invoke("--version")[:2] == (0, f"medtransfer {bench.__version__}\n")


def test_listing_datasets_downloads_nothing(workspace: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def reached(*args: object, **kwargs: object) -> None:
        raise AssertionError("the network was asked")

    monkeypatch.setattr("urllib.request.urlopen", reached)
    code, out, _ = invoke("list", "datasets", "dermamnist")
    assert code == 0
    assert "NON-COMMERCIAL" in out
    assert "not here" in out


def test_fetch_goes_on_after_a_failure_and_says_so(workspace: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (workspace / "torn.npz").write_bytes(b"PK")
    (workspace / "m.toml").write_text(
        '[run]\nstrategies = ["scratch"]\ndatasets = ["npz:torn.npz", "phantom-radiograph"]\nsizes = [28]\n'
        '[[backbone]]\nmodel = "test_resnet"\nweights = "random"\n'
    )
    code, out, _ = invoke("fetch", "m.toml")
    assert code == 1
    assert "npz:torn.npz at 28 px: failed" in out
    assert "phantom-radiograph at 28 px: here" in out


@pytest.mark.parametrize("name", ["csv:lables.csv", "folder:imagse", "npz:mien.npz", "phantom-organ-a->csv:lables.csv"])
def test_a_mistyped_path_leaves_the_results_as_they_were(workspace: Path, name: str) -> None:
    code, _, err = invoke("run", "demo", "--dataset", name, "--results", "results/mine")
    assert code == 2
    path = name.rpartition(":")[2]
    assert f"{path}: no such {'folder' if name.startswith('folder') else 'file'}. Check the path" in err
    assert not (workspace / "results").exists()


def test_a_small_matrix_from_start_to_report_and_again(workspace: Path) -> None:
    words = ["run", "demo", "--dataset", "phantom-radiograph", "--size", "16", "--per-class", "4", "--epochs", "1"]
    words += ["--trials", "1", "--seeds", "1", "--backbone", "test_resnet@random", "--results", "results/small"]
    words += ["--strategy", "scratch", "--strategy", "linear_probe"]
    code, out, err = invoke(*words)
    assert code == 0, out + err
    rows = workspace / "results/small/rows.csv"
    assert len(rows.read_text().splitlines()) == 3
    assert "RANDOM WEIGHTS" in out
    assert (workspace / "reports/small.html").is_file()

    cells = {path: path.stat().st_mtime_ns for path in (workspace / "results/small/cells").iterdir()}
    code, out, _ = invoke(*words)
    assert code == 0
    assert {path: path.stat().st_mtime_ns for path in (workspace / "results/small/cells").iterdir()} == cells

    # What is changed and changed back is shown again, though the other version finished last.
    before = rows.read_text()
    assert invoke(*words, "--epochs", "2")[0] == 0
    assert rows.read_text() != before
    code, out, _ = invoke(*words)
    assert (code, rows.read_text()) == (0, before)
    assert "nothing to do" in invoke(*words)[1]


SMALL = ["run", "demo", "--dataset", "phantom-radiograph", "--size", "16", "--per-class", "4", "--epochs", "1"]
SMALL += ["--trials", "1", "--seeds", "1", "--backbone", "test_resnet@random", "--results", "results/small"]
SMALL += ["--strategy", "linear_probe", "--strategy", "knn_probe"]


def strategies_shown(folder: Path) -> tuple[set[str], bool]:
    """Those of the table and whether the page takes its run for ended."""
    table = (folder / "results/small/rows.csv").read_text()
    page = (folder / "reports/small.html").read_text()
    shown = {name for name in ("linear_probe", "knn_probe") if name in table}
    assert shown == {name for name in ("linear_probe", "knn_probe") if name in page}
    return shown, "was still going" not in page


@pytest.mark.parametrize("end", ["bench.executors.fuse_missing", "bench.commands.report.write_report"])
def test_a_command_that_was_killed_after_its_last_row_is_reported_by_the_next(
    workspace: Path, monkeypatch: pytest.MonkeyPatch, end: str
) -> None:
    def killed(*args: object) -> None:
        raise KeyboardInterrupt

    assert invoke(*SMALL[:-2])[0] == 0
    with monkeypatch.context() as patched:
        patched.setattr(end, killed)
        assert invoke(*SMALL)[0] == 130
    assert len(list((workspace / "results/small/cells").glob("*-s0.json"))) == 2
    if end == "bench.executors.fuse_missing":
        assert invoke("report", "results/small")[0] == 0
        assert strategies_shown(workspace) == ({"linear_probe", "knn_probe"}, False)
    else:
        assert strategies_shown(workspace) == ({"linear_probe"}, True)
    code, out, _ = invoke(*SMALL)
    assert (code, "nothing to do" in out) == (0, False)
    assert strategies_shown(workspace) == ({"linear_probe", "knn_probe"}, True)
    assert "nothing to do" in invoke(*SMALL)[1]


def test_after_a_part_of_the_cells_the_whole_is_reported_again(workspace: Path) -> None:
    assert invoke(*SMALL)[0] == 0
    run = workspace / "results/small/run.json"
    whole = json.loads(run.read_text())["matrix"]
    assert invoke(*SMALL, "--only", "strategy=knn_probe")[0] == 0
    assert json.loads(run.read_text())["matrix"] != whole
    code, out, _ = invoke(*SMALL)
    assert (code, "nothing to do" in out) == (0, False)
    assert json.loads(run.read_text())["matrix"] == whole
    run.write_text("[")
    assert "nothing to do" not in invoke(*SMALL)[1]
    assert "nothing to do" in invoke(*SMALL)[1]


def test_a_failed_cell_is_exit_code_1_and_the_others_are_run(workspace: Path) -> None:
    words = ["run", "demo", "--dataset", "phantom-radiograph", "--size", "16", "--per-class", "4", "--epochs", "1"]
    words += ["--trials", "1", "--seeds", "1", "--results", "results/small", "--strategy", "linear_probe"]
    code, out, _ = invoke(*words, "--backbone", "test_resnet@file:none.pth", "--backbone", "test_resnet2@random")
    assert code == 2, out
    code, out, _ = invoke(*words, "--backbone", "test_resnet@file:none.pth", "--backbone", "test_efficientnet@random")
    assert code == 1
    plan, _, end = out.partition("report: ")
    assert "none.pth" in plan
    assert "1 seed, 1 trial, 1 epoch each" in plan
    said = [line for line in end.splitlines() if line.startswith("failed: ")]
    assert len(said) == 1
    assert "none.pth" in said[0]
    log = workspace / said[0].partition("Log: ")[2]
    assert '"failed"' in log.read_text()
    assert len((workspace / "results/small/rows.csv").read_text().splitlines()) == 3


DIVERGES = '''
import torch
from bench.finetune import FineTune

class Diverges(FineTune):
    """NaN."""
    name = "diverges"
    def fit(self, task, hparams, run):
        return lambda images: torch.full((len(images), task.outputs), float("nan"))
'''


def test_a_diverged_cell_is_exit_code_1_though_it_is_not_run_again(workspace: Path) -> None:
    (workspace / "strategies").mkdir()
    (workspace / "strategies/diverges.py").write_text(DIVERGES)
    words = ["run", "demo", "--dataset", "phantom-radiograph", "--size", "16", "--per-class", "4", "--epochs", "1"]
    words += ["--trials", "1", "--seeds", "1", "--backbone", "test_resnet@random", "--results", "results/small"]
    words += ["--strategy", "diverges"]
    assert invoke(*words)[0] == 1
    code, out, _ = invoke(*words)
    assert "nothing to do" in out
    assert code == 1
    more = [*words, "--strategy", "linear_probe"]
    assert [invoke(*more)[0] for _ in range(2)] == [1, 1]
    assert invoke(*words[:-1], "linear_probe")[0] == 0


def test_ctrl_c_is_exit_code_130_with_the_command_to_go_on(workspace: Path) -> None:
    words = ["run", "demo", "--dataset", "phantom-radiograph", "--size", "32", "--epochs", "500", "--trials", "1"]
    words += ["--seeds", "1", "--backbone", "test_resnet@random", "--strategy", "scratch", "--results", "results/long"]
    environment = os.environ | {"PYTHONPATH": str(ROOT), "PYTHONUNBUFFERED": "1"}
    command = [sys.executable, "-m", "bench", *words]
    process = subprocess.Popen(command, env=environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    while process.poll() is None and not (workspace / "results/long/run.json").exists():
        time.sleep(0.05)
    process.send_signal(signal.SIGINT)
    _, err = process.communicate(timeout=60)
    assert process.returncode == 130, err
    assert "run the same command" in err
    assert "Traceback" not in err
    assert not list((workspace / "results/long").glob("cells/*-s*"))
