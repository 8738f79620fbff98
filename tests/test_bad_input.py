"""What is wrong with one dataset, network or strategy is a line that names it, and the other cells are run."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from rich.console import Console
from safetensors.torch import save_file
from typer.testing import CliRunner

from bench import cli, npzfile, registry
from bench.contract import Backbone, Protocol
from bench.decode import decode
from bench.describe import describe
from bench.errors import UNPRINTABLE, DataError, UsageError
from bench.estimate import estimate
from bench.executors import execute
from bench.plan import make_plan
from tests.small import NET, matrix, opened, picture

pytestmark = pytest.mark.usefixtures("own_cache")
ONCE = Protocol(epochs=1, trials=1, batch_size=16)
LINE = re.compile(r".{20,600}")
"""One line, that is: a dot is no line end."""


def run(results: Path, workspace: Path, **changes: object) -> dict[tuple[str, str, str], dict[str, Any]]:
    """(dataset, backbone, strategy) -> row, of a run of one seed."""
    facts: dict[str, object] = {"seeds": 1, "protocol": ONCE, "sizes": (16,), "strategies": ("linear_probe",)}
    execute(make_plan(matrix(results, **facts | changes), workspace), Console(quiet=True), "test", {})
    rows = [json.loads(path.read_text()) for path in (results / "cells").glob("*-s*.json")]
    return {(row["dataset"], row["backbone"], row["strategy"]): row for row in rows}


def arrays(**changes: np.ndarray) -> dict[str, np.ndarray]:
    """The contents of a small .npz that is in order."""
    draw = np.random.default_rng(0)
    made: dict[str, np.ndarray] = {}
    for split, count in (("train", 24), ("val", 8), ("test", 8)):
        made[f"{split}_images"] = draw.integers(0, 256, (count, 12, 12), dtype=np.uint8)
        made[f"{split}_labels"] = np.arange(count) % 2
    return {key: value for key, value in (made | changes).items() if value is not None}


def saved(path: Path, **changes: np.ndarray) -> str:
    np.savez(path, **arrays(**changes))
    return f"npz:{path}"


# --- one bad thing among good ones


def test_a_bad_dataset_network_and_strategy_leave_the_others_their_results(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    saved(tmp_path / "good.npz")
    saved(tmp_path / "bad.npz", train_labels=np.full(24, -1))
    (tmp_path / "torn.npz").write_bytes((tmp_path / "good.npz").read_bytes()[:900])
    torch.save({"conv1.0.weight": torch.zeros(1)}, tmp_path / "bad.pth")
    (tmp_path / "strategies").mkdir()
    (tmp_path / "strategies/raising.py").write_text(
        "from bench.finetune import FineTune\n\n\nclass Raising(FineTune):\n"
        '    """Raises."""\n\n    name = "raising"\n    family = "fine-tuning"\n\n'
        '    def build(self, task, hparams, run):\n        raise RuntimeError("on\\npurpose")\n'
    )
    (tmp_path / "mixed.toml").write_text(
        '[run]\nstrategies = ["linear_probe", "raising"]\nsizes = [16]\nseeds = 1\ntrials = 1\nepochs = 1\n'
        'datasets = ["npz:good.npz", "npz:bad.npz", "npz:torn.npz"]\ndevice = "cpu"\n'
        '[[backbone]]\nmodel = "test_resnet"\nweights = "random"\n'
        '[[backbone]]\nmodel = "test_resnet"\nweights = "file:bad.pth"\n'
    )
    monkeypatch.setattr("bench.commands.report.write_report", lambda *_: None)
    result = CliRunner().invoke(cli.app, ["run", "mixed.toml"])
    assert result.exit_code == 1, result.output
    rows = [json.loads(path.read_text()) for path in (tmp_path / "results/mixed/cells").glob("*-s*.json")]
    assert len(rows) == 12
    good = [row for row in rows if row["status"] == "ok"]
    assert [(row["dataset"], row["backbone"], row["strategy"]) for row in good] == [
        ("npz:good.npz", "test_resnet random", "linear_probe")
    ]
    reasons = {row["reason"] for row in rows if row["status"] == "failed"}
    assert all(map(LINE.fullmatch, reasons))
    for part in ("bad.npz: train_labels has the negative value -1", "torn.npz: damaged",
                 "file:bad.pth: does not fit test_resnet", "RuntimeError: on purpose (raising.py:11)"):  # fmt: skip
        assert [reason for reason in reasons if part in reason], (part, reasons)


PLUGINS = '''
import numpy as np
import torch
from bench.finetune import FineTune

class Pixels(FineTune):
    """Changes the images."""
    name = "pixels"
    family = "fine-tuning"
    def fit(self, task, hparams, run):
        task.train.pixels.fill_(7)
        return super().fit(task, hparams, run)

class Labels(FineTune):
    """Changes the labels, at the end."""
    name = "labels"
    family = "fine-tuning"
    def finish(self, net, task, hparams, run):
        task.val.labels.zero_()
        return super().finish(net, task, hparams, run)

class Numpy(FineTune):
    """Changes the images behind torch's back, after its last use of them."""
    name = "numpy"
    family = "fine-tuning"
    def finish(self, net, task, hparams, run):
        task.train.pixels.numpy()[:] = 0
        return super().finish(net, task, hparams, run)

class Shared(FineTune):
    """Changes the shared backbone."""
    name = "shared"
    family = "fine-tuning"
    def fit(self, task, hparams, run):
        run.frozen().train()(torch.rand(4, 3, 16, 16))
        run.features(task.train)
        return super().fit(task, hparams, run)

class Cached(FineTune):
    """Changes the shared features."""
    name = "cached"
    family = "fine-tuning"
    def fit(self, task, hparams, run):
        run.features(task.train).zero_()
        return super().fit(task, hparams, run)

class Table(FineTune):
    """Changes a table among its hyperparameters."""
    name = "table"
    family = "fine-tuning"
    def defaults(self):
        return super().defaults() | {"policy": {}}
    def fit(self, task, hparams, run):
        hparams["policy"]["rotate"] = 90
        return super().fit(task, hparams, run)

class Nothing(FineTune):
    """Gives nothing back."""
    name = "nothing"
    family = "fine-tuning"
    def fit(self, task, hparams, run):
        return None

class Array(FineTune):
    """Predicts NumPy arrays."""
    name = "array"
    family = "fine-tuning"
    def fit(self, task, hparams, run):
        return lambda images: np.zeros((len(images), 2))

class Defaults(FineTune):
    """Has no defaults."""
    name = "undecided"
    family = "fine-tuning"
    def defaults(self):
        raise KeyError("lr")
'''


def test_a_strategy_cannot_spoil_the_cells_after_it(tmp_path: Path) -> None:
    (tmp_path / "strategies").mkdir()
    (tmp_path / "strategies/harmful.py").write_text(PLUGINS)
    name = saved(tmp_path / "own.npz")
    tuned = Protocol(epochs=1, trials=2, batch_size=16)
    clean = run(tmp_path / "clean", tmp_path, datasets=(name,), protocol=tuned)
    harmful = ("pixels", "labels", "numpy", "shared", "cached", "table", "nothing", "array", "undecided")
    settings = {"table": {"policy": {"rotate": 5}}, "undecided": {"lr": 0.1}}
    rows = run(tmp_path / "r", tmp_path, datasets=(name,), strategies=(*harmful, "linear_probe"), protocol=tuned,
               settings=settings)  # fmt: skip
    told = {strategy: (row["status"], row["reason"]) for (_, _, strategy), row in rows.items()}
    for strategy, what in (("pixels", "the images"), ("labels", "the images"), ("shared", "the shared backbone")):
        assert told[strategy][0] == "failed", told[strategy]
        assert f"the strategy changed {what} in place" in told[strategy][1]
    assert "NoneType, not a predictor" in told["nothing"][1]
    assert "ndarray, not a tensor" in told["array"][1]
    assert "KeyError: 'lr' (harmful.py:" in told["undecided"][1]
    assert told["table"] == ("ok", "")
    assert settings["table"] == {"policy": {"rotate": 5}}
    # The same scores as where nobody was before it.
    key = (name, NET.label, "linear_probe")
    same = ("val_auc", "test_auc", "test_nll", "hparams")
    assert [rows[key][column] for column in same] == [clean[key][column] for column in same]


def test_an_untuned_strategy_has_to_give_a_predictor_too(tmp_path: Path) -> None:
    (tmp_path / "strategies").mkdir()
    (tmp_path / "strategies/harmful.py").write_text(PLUGINS)
    name, untuned = saved(tmp_path / "own.npz"), Protocol(epochs=1, trials=1, batch_size=16)
    rows = run(tmp_path / "r", tmp_path, datasets=(name,), strategies=("nothing", "linear_probe"), protocol=untuned)
    assert rows[name, NET.label, "nothing"]["status"] == "failed"
    assert "NoneType, not a predictor" in rows[name, NET.label, "nothing"]["reason"]
    assert rows[name, NET.label, "linear_probe"]["status"] == "ok"


def test_a_dataset_plugin_may_raise_anything(tmp_path: Path) -> None:
    (tmp_path / "datasets").mkdir()
    text = "PREFIX = 'odd:'\ndef open_dataset(name, root, seed, source_size):\n    {}\n"
    for body, says in (
        ("return 1 / 0", r"odd:x: .*odd\.py gave up: line 3: ZeroDivisionError.*Correct it"),
        ("open('/nowhere/at/all')", "odd:x: No such file or directory. Check the path"),
        ("return None", "gave NoneType, not a bench.contract.Dataset"),
    ):
        (tmp_path / "datasets/odd.py").write_text(text.format(body))
        [error] = {cell.error for cell in make_plan(matrix(tmp_path, datasets=("odd:x",)), tmp_path).cells}
        assert re.search(says, error), error
    (tmp_path / "datasets/leaving.py").write_text("import sys\nsys.exit(3)\n")
    assert "SystemExit" in registry.broken(tmp_path)[tmp_path / "datasets/leaving.py"]


TOY = """
import numpy as np
from bench.contract import Dataset, Info, Split
PREFIX = "toy:"
class Toy(Dataset):
    info = Info("toy:", "binary", ("a", "b"), 1)
    def content_hash(self, size): return "0"
    def load(self, split, size):
        if split in {splits}: raise {error}
        return Split(np.zeros((8, 12, 12), dtype=np.uint8), np.arange(8) % 2, np.array([f"{{split}}{{i}}" for i in range(8)]))
def open_dataset(name, root, seed, source_size): return Toy()
"""  # noqa: E501


@pytest.mark.parametrize("error", ["RuntimeError('on purpose')", "SystemExit(3)"])
@pytest.mark.parametrize("splits", [("train", "val", "test"), ("test",)])
def test_a_dataset_plugin_may_raise_in_load(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, splits: tuple[str, ...], error: str
) -> None:
    (tmp_path / "datasets").mkdir()
    (tmp_path / "datasets/toys.py").write_text(TOY.format(splits=splits, error=error))
    good = saved(tmp_path / "good.npz")
    changes = {"datasets": ("toy:", good), "strategies": ("linear_probe",), "sizes": (16,), "protocol": ONCE}
    plan = make_plan(matrix(tmp_path / "r", **changes, seeds=1), tmp_path)
    describe(plan, Console(quiet=True))
    execute(plan, Console(quiet=True), "test", {})
    rows = {
        (row := json.loads(path.read_text()))["dataset"]: row["status"]
        for path in (tmp_path / "r/cells").glob("*-s0*json")
    }
    assert rows == {"toy:": "failed", good: "ok"}
    told = [text for text in caplog.messages if text.startswith(("not in the estimate", "not audited"))]
    assert len(told) == 2
    assert all(f"toy:: cannot be read ({error.partition('(')[0]}" in text for text in told)
    assert all("toys.py:9" in text for text in told)
    assert [key.partition(" ")[0] for key in json.loads((tmp_path / "r/datasets.json").read_text())] == [good]


def test_one_damaged_image_fails_its_own_cells_only(folder: Path, tmp_path: Path) -> None:
    for label in ("a", "b"):
        for index in range(12):
            picture(folder / label / f"{index}.png")
    cut = picture(folder / "a/cut.png", (200, 200))
    cut.write_bytes(cut.read_bytes()[:2000])
    own, good = f"folder:{folder}", saved(tmp_path / "good.npz")
    plan = make_plan(matrix(tmp_path / "r", datasets=(own, good), strategies=("scratch",)), tmp_path)
    assert all(plan.missing(cell) for cell in plan.todo)
    assert all(estimate(plan, torch.device("cpu")).values())
    rows = run(tmp_path / "r", tmp_path, datasets=(own, good))
    assert {key[0]: row["status"] for key, row in rows.items()} == {own: "failed", good: "ok"}


def test_weights_that_are_not_numbers_fail_their_own_cells(tmp_path: Path) -> None:
    import timm

    state = timm.create_model("test_resnet", num_classes=0).state_dict()
    first = next(iter(state))
    save_file(state | {first: torch.full_like(state[first], float("nan"))}, tmp_path / "nan.safetensors")
    bad = Backbone("test_resnet", weights=f"file:{tmp_path}/nan.safetensors", name="bad")
    rows = run(tmp_path / "r", tmp_path, backbones=(bad, NET))
    assert {label: row["status"] for (_, label, _), row in rows.items()} == {"bad": "failed", NET.label: "ok"}
    [reason] = [row["reason"] for row in rows.values() if row["status"] == "failed"]
    assert f"{first} holds NaN or infinite values. Use another file." in reason


# --- npz


@pytest.mark.parametrize(
    ("changes", "says"),
    [
        ({"train_images": np.zeros((24, 12, 12), dtype=np.float32)}, "dtype float32, expected uint8"),
        ({"train_images": np.zeros((24, 12, 13), dtype=np.uint8)}, "expected square images"),
        ({"train_images": np.array(7)}, "dtype int64, expected uint8"),
        ({"val_images": np.zeros((0, 12, 12), dtype=np.uint8), "val_labels": np.zeros(0, dtype=int)}, "no image in it"),
        ({"test_images": np.zeros((8, 11, 11), dtype=np.uint8)}, "images differ in shape between splits"),
        ({"val_images": None}, "it has val_labels but no val_images"),
        ({"train_labels": np.array(["a"] * 24)}, "expected integers"),
        ({"train_labels": np.full(24, 10**6)}, "largest label is 1000000"),
        ({"train_labels": np.zeros(24, dtype=int)}, "val_labels has the class 1, train none above 0"),
        ({"class_names": np.array(["a", "a"])}, 'two classes have the name "a"'),
        ({"class_names": np.array([b"a", b"\xff"])}, "class_names is not text"),
        ({"class_names": np.array(["a", "b\x1b[2J"])}, r'class "b\\x1b\[2J" has characters'),
        ({"class_names": np.array(["a", "b\ud800"])}, r'class "b\\ud800" has characters'),
        ({"kind": np.zeros(0)}, 'kind is ""'),
        ({"class_names": np.zeros(2 << 20, dtype="S4")}, r"class_names has shape \(2097152,\) of \|S4, too much"),
        ({"test_ids": np.array([f"i\n{n}" for n in range(8)])}, r'id "i\\n0" has characters'),
        ({"test_ids": np.array(["i"] * 8)}, "ids are not unique"),
    ],
)
def test_each_npz_mistake_is_one_line(tmp_path: Path, changes: dict[str, np.ndarray | None], says: str) -> None:
    with pytest.raises(DataError, match=says) as caught:
        opened(saved(tmp_path / "own.npz", **changes))
    assert LINE.fullmatch(str(caught.value))
    assert "own.npz" in str(caught.value)


@pytest.mark.parametrize("prefix", ["npz", "csv"])
def test_a_folder_for_a_file_is_told_how_to_be_read(tmp_path: Path, prefix: str) -> None:
    with pytest.raises(DataError, match=f"a folder, expected .* write folder:{tmp_path}"):
        opened(f"{prefix}:{tmp_path}")


def test_one_image_and_one_class(tmp_path: Path) -> None:
    one = {"train_images": np.zeros((1, 12, 12), dtype=np.uint8), "train_labels": np.ones(1, dtype=int)}
    none = {"val_images": None, "val_labels": None}
    with pytest.raises(DataError, match="train is too small to take val from it"):
        opened(saved(tmp_path / "one.npz", **one, **none))  # type: ignore[arg-type]
    alike = {f"{split}_labels": np.zeros(count, dtype=int) for split, count in (("train", 24), ("val", 8), ("test", 8))}
    with pytest.raises(DataError, match="has one class"):
        opened(saved(tmp_path / "alike.npz", **alike))


def test_images_that_are_too_large_are_refused_by_their_declared_size(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(npzfile, "PIXELS", 100)
    with pytest.raises(DataError, match=r"12 px a side, more than 10\. Make them smaller"):
        opened(saved(tmp_path / "own.npz"))
    monkeypatch.setattr("bench.decode.PIXELS", 100)
    for name, shape in (("large", (12, 12)), ("long", (1, 12))):
        with pytest.raises(DataError, match=rf"{name}\.png: 12 x \d+ px, more than 10 a side. Make it smaller"):
            decode(picture(tmp_path / f"{name}.png", shape), 8, gray=True)


# --- names of files and classes


@pytest.mark.parametrize(
    "name",
    [
        "<img src=x onerror=alert(1)>.png", "=cmd|'calc'!A1.png", "שלום.png", "x" * 251 + ".png", "a'b\";$(id)`.png",
        "{{7*7}} $x_1$ &amp;.png",
    ],
)  # fmt: skip
def test_odd_names_are_names(folder: Path, name: str) -> None:
    for label in ("a", "b"):
        for index in range(20):
            picture(folder / label / f"{index}.png")
    picture(folder / "a" / name)
    dataset = opened(f"folder:{folder}")
    ids = [one for split in ("train", "val", "test") for one in dataset.load(split, 8).ids.tolist()]
    assert f"a/{name}" in ids


@pytest.mark.parametrize("name", [b"a\nb.png", b"a\x1b[2Jb.png", b"a\xffb.png", "a\u202eb.png".encode()])
@pytest.mark.parametrize("where", ["file", "class"])
def test_names_that_could_break_a_line_are_refused_in_one_line(folder: Path, name: bytes, where: str) -> None:
    for label in ("a", "b"):
        for index in range(20):
            picture(folder / label / f"{index}.png")
    if where == "file":
        target = bytes(folder) + b"/a/" + name
    else:
        target = bytes(folder) + b"/" + name.removesuffix(b".png") + b"/x.png"
        Path(target.decode(errors="surrogateescape")).parent.mkdir()
    with open(target, "wb") as file:
        Image.new("L", (12, 12)).save(file, "PNG")
    with pytest.raises(DataError, match="has characters in its name that are not UTF-8 text") as caught:
        opened(f"folder:{folder}")
    assert LINE.fullmatch(str(caught.value))
    assert not UNPRINTABLE.search(str(caught.value))


# --- tables


def table(folder: Path, text: str) -> str:
    (folder / "t.csv").write_bytes(text.encode(errors="surrogateescape"))
    return f"csv:{folder / 't.csv'}"


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("path,label,path \na.png,x,b.png\n", 'has the column "path" 2 times'),
        ("path,label\na.png\n", "row 2 has 1 values, expected 2"),
        ("path,label\na.png,x\nb.png,y,z\n", "row 3 has 3 values, expected 2"),
        ('path,label\n"a.png,x\nb.png,y\n', "not a readable UTF-8 CSV"),
        ("path,label\na.png,x\n./a.png,y\n", r"a\.png and \./a\.png are the same file"),
        ("path,label\na.png,x\nlink.png,y\n", r"a\.png and link\.png are the same file"),
        ("path,label\na\x00b.png,x\n", r'file "a\\x00b\.png" has characters'),
        (f"path,label\n{'x' * 300}.png,x\n", "File name too long"),
        ("path,label\n/etc/hostname,x\n", "leads out of"),
        ("path,label\n../mine/../outside.png,x\n", "leads out of"),
        ("path,label\na.png,x\x1b\nb.png,y\n", r'class "x\\x1b" has characters'),
        ("", "It needs path"),
        ("\udcff\udcfe\x00", "not UTF-8 text"),
    ],
)
def test_each_table_mistake_is_one_line(folder: Path, text: str, says: str) -> None:
    for name in ("a.png", "b.png", "../outside.png"):
        picture(folder / name)
    (folder / "link.png").symlink_to("a.png")
    with pytest.raises(DataError, match=says) as caught:
        opened(table(folder, text))
    assert LINE.fullmatch(str(caught.value))


def test_commas_at_the_ends_of_lines_are_a_spreadsheets(folder: Path) -> None:
    files = [picture(folder / f"{n}.png").name for n in range(30)]
    lines = [f"{file},{'xy'[n % 2]},," for n, file in enumerate(files)]
    assert opened(table(folder, "\n".join(["path,label,,", *lines]))).info.classes == ("x", "y")


# --- matrix files that only a plan can judge


@pytest.mark.parametrize(
    ("settings", "says"),
    [
        ({"lr": {"low": -1.0, "high": 1.0}}, r"\[settings.full_finetune\] lr: cannot be tuned in this range"),
        ({"lr": {"low": 0.0, "high": 1.0}}, r"cannot be tuned in this range.*Correct low and high"),
        ({"lr": "fast"}, 'lr = "fast": must be a number'),
    ],
)
def test_ranges_are_tried_before_anything_is_run(tmp_path: Path, settings: dict[str, Any], says: str) -> None:
    with pytest.raises(UsageError, match=says):
        make_plan(matrix(tmp_path, strategies=("full_finetune",), settings={"full_finetune": settings}), tmp_path)
