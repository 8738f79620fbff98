"""Nothing that is read is run, leads out of its folder, fills the machine, or reaches a page as anything but text."""

from __future__ import annotations

import ast
import io
import json
import os
import re
import struct
import tracemalloc
import zipfile
import zlib
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from rich.console import Console

from bench import npzfile, store
from bench.decode import decode, is_gray
from bench.errors import DataError, UsageError
from bench.natural_reference import open_natural
from bench.recipe import load_recipe
from bench.report import mistakes, predictions
from bench.report.compare import compare
from bench.report.compare_shown import page as compare_page
from bench.report.frames import compact, current, read_rows
from bench.report.news import remember
from bench.report.page import gather, render
from bench.report.terminal import terminal_summary
from tests.fake_results import Row, audited, row, write
from tests.small import CHECKOUT, picture
from tests.test_own_images import dicom
from tests.test_report import Page

pytestmark = pytest.mark.usefixtures("own_cache")

# --- nothing is run


class Trap:
    """Makes the file when it is unpickled."""

    def __init__(self, file: Path) -> None:
        self.file = file

    def __reduce__(self) -> tuple[object, ...]:
        return (Path.touch, (self.file,))


RUNS = {"eval", "exec", "compile", "__import__", "os.system", "os.popen", "runpy.run_path"}
ALLOWED = {
    ("registry.py", "exec"), ("registry.py", "compile"),  # plug-ins, which the user chooses to run
    ("medmnist.py", "runpy.run_path"),  # a file of the package medmnist
    ("device.py", "ctypes"),  # mallopt of the C library itself, given numbers of our own
}  # fmt: skip
TOLD = {
    "np.load": ("allow_pickle", False), "npy.read_array": ("allow_pickle", False),
    "torch.load": ("weights_only", True), "timm.models.load_state_dict": ("weights_only", True),
}  # fmt: skip
"""What these must be told, since they may unpickle otherwise."""
MODULES = {"pickle", "marshal", "shelve", "yaml", "xml", "lxml", "joblib", "dill", "cloudpickle", "ctypes"}


def sources() -> list[Path]:
    return sorted(path for room in ("bench", "strategies", "datasets") for path in (CHECKOUT / room).rglob("*.py"))


def test_no_source_reads_in_a_way_that_could_run_what_it_reads() -> None:
    found = []
    for path in sources():
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.Import | ast.ImportFrom):
                names = [alias.name for alias in node.names] if isinstance(node, ast.Import) else [node.module or ""]
                found += [(path.name, name) for name in names if name.partition(".")[0] in MODULES]
            if isinstance(node, ast.Call):
                found += [(path.name, called) for called in _suspicious(node)]
    assert set(found) <= ALLOWED


def _suspicious(node: ast.Call) -> list[str]:
    """The call's name, where it could run what it is given."""
    name = ast.unparse(node.func)
    told = {word.arg: getattr(word.value, "value", None) for word in node.keywords}
    unsafe = name in RUNS or told.get("shell") or (name in TOLD and told.get(TOLD[name][0]) is not TOLD[name][1])
    return [name] if unsafe else []


def test_a_program_that_is_called_an_image_is_not_run(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Pillow hands PostScript to Ghostscript, whatever the file is called, unless it is kept from it."""
    for name in ("gs", "gswin64c"):
        (tmp_path / name).write_text(f"#!/bin/sh\ntouch {tmp_path}/sprung\n")
        (tmp_path / name).chmod(0o755)
    monkeypatch.setenv("PATH", str(tmp_path), prepend=os.pathsep)
    Image.new("RGB", (12, 12)).save(folder / "scan.eps")
    program = (folder / "scan.eps").rename(folder / "scan.png")
    for read in (is_gray, lambda path: decode(path, 8, gray=False)):
        with pytest.raises(DataError, match=r"scan\.png: not a readable image"):
            read(program)
    assert not (tmp_path / "sprung").exists()


def test_predictions_of_a_results_folder_are_never_unpickled(tmp_path: Path) -> None:
    made = [row("d", "b", "s", 0, 0.8, fingerprint="f")]
    folder = write(tmp_path / "run", made)
    traps = np.array([Trap(tmp_path / "sprung")], dtype=object)
    np.savez(folder / "cells/f-s0.npz", test_logits=traps, test_labels=traps, test_ids=traps)
    problems: list[str] = []
    assert predictions.read(current(read_rows(folder)), [folder], problems) is None
    assert "never unpickled" in problems[0]
    assert not (tmp_path / "sprung").exists()


# --- nothing fills the machine


def member(path: Path, name: str, data: bytes, method: int = zipfile.ZIP_DEFLATED) -> Path:
    with zipfile.ZipFile(path, "w", method) as archive:
        archive.writestr(f"{name}.npy", data)
    return path


def npy(array: np.ndarray) -> bytes:
    buffer = io.BytesIO()
    np.save(buffer, array)
    return buffer.getvalue()


def test_an_array_that_would_become_far_too_large_is_refused_before_it_is_unpacked(tmp_path: Path) -> None:
    path = member(tmp_path / "bomb.npz", "train_images", npy(np.zeros((4, 1024, 1024), dtype=np.uint8)))
    assert npzfile.array(path, "train_images").nbytes == 4 << 20  # below LARGE it cannot do harm
    with pytest.raises(DataError, match=r"bomb\.npz: train_images would become \d+ times as large"):
        npzfile.array(path, "train_images", large=1 << 20)
    assert [file.name for file in tmp_path.glob("*.np*")] == ["bomb.npz"]


def test_no_more_is_unpacked_than_a_file_says_that_there_is(tmp_path: Path) -> None:
    """The archive's own sizes are a lie here: 64 MB come out of what is said to be 1000 bytes."""
    honest = npy(np.zeros(1000, dtype=np.uint8))
    path = member(tmp_path / "lie.npz", "train_images", honest[:-1000] + bytes(64 << 20))
    data = bytearray(path.read_bytes())
    entry = data.index(b"PK\x01\x02")
    struct.pack_into("<I", data, entry + 16, zlib.crc32(honest))
    struct.pack_into("<I", data, entry + 24, len(honest))
    path.write_bytes(data)
    tracemalloc.start()
    try:
        assert not npzfile.array(path, "train_images").any()
        assert tracemalloc.get_traced_memory()[1] < 8 << 20
    finally:
        tracemalloc.stop()


@pytest.mark.parametrize("method", [zipfile.ZIP_BZIP2, zipfile.ZIP_LZMA])
def test_packings_that_cannot_be_unpacked_in_part_are_refused(tmp_path: Path, method: int) -> None:
    path = member(tmp_path / "x.npz", "train_images", npy(np.zeros(10, dtype=np.uint8)), method)
    with pytest.raises(DataError, match="packed in a way that numpy does not read"):
        npzfile.array(path, "train_images")


def test_a_disk_is_not_filled_up(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    draw = np.random.default_rng(0).integers(0, 256, 1000, dtype=np.uint8)
    np.savez(tmp_path / "x.npz", train_images=draw)
    monkeypatch.setattr("shutil.disk_usage", lambda folder: os.terminal_size((0, 0)) and Usage())
    with pytest.raises(DataError, match="No space left on device"):
        npzfile.array(tmp_path / "x.npz", "train_images", large=100)
    assert [file.name for file in tmp_path.glob("*.np*")] == ["x.npz"]


class Usage:
    """A disk with 100 bytes left."""

    free = 100


def test_a_header_that_asks_for_too_much_is_refused(folder: Path) -> None:
    """A PNG of 40 bytes that claims to be 60,000 pixels wide and high; a DICOM that does; a deflated one."""
    size = struct.pack(">IIBBBBB", 60_000, 60_000, 8, 0, 0, 0, 0)
    chunk = struct.pack(">I", 13) + b"IHDR" + size + struct.pack(">I", zlib.crc32(b"IHDR" + size))
    (folder / "x.png").write_bytes(b"\x89PNG\r\n\x1a\n" + chunk + b"\x00\x00\x00\x00IDAT\x35\xaf\x06\x1e")
    with pytest.raises(DataError, match=r"x\.png: has more than \d+ pixels. Make it smaller"):
        decode(folder / "x.png", 8, gray=True)
    path = dicom(folder / "x.dcm", np.arange(64).reshape(8, 8))
    data = path.read_bytes()
    for tag in (b"\x28\x00\x10\x00US\x02\x00", b"\x28\x00\x11\x00US\x02\x00"):  # rows, columns
        at = data.index(tag) + len(tag)
        data = data[:at] + struct.pack("<H", 60_000) + data[at + 2 :]
    path.write_bytes(data)
    with pytest.raises(DataError, match=r"x\.dcm: 60000 x 60000 px, more than 11585 a side"):
        decode(path, 8, gray=True)
    path.write_bytes(data.replace(b"1.2.840.10008.1.2.1\x00", b"1.2.840.10008.1.2.1.99").replace(
        b"UI\x14\x001.2.840.10008.1.2.1.99", b"UI\x16\x001.2.840.10008.1.2.1.99"))  # fmt: skip
    with pytest.raises(DataError, match="a deflated DICOM file, which is not read"):
        is_gray(path)


# --- nothing leads out of its folder


def test_links_out_of_a_folder_of_natural_images_are_refused(folder: Path) -> None:
    picture(folder / "a.png")
    (folder / "b.png").symlink_to(picture(folder.parent / "outside.png"))
    with pytest.raises(DataError, match=r"b\.png: leads out of"):
        open_natural(f"folder:{folder}", Path())


@pytest.mark.parametrize("name", ["../x", "/x", "..", ".x", "a/b", "a\\\\b", "x" * 200])
def test_a_networks_name_in_a_recipe_is_a_files_name(tmp_path: Path, name: str) -> None:
    path = tmp_path / "recipe.toml"
    text = '[pretrain]\nimages = "npz:x"\n[[backbone]]\nmodel = "resnet18"\nweights = "random"\n'
    path.write_text(f'{text}name = "{name}"')
    with pytest.raises(UsageError, match="becomes the name of files"):
        load_recipe(path, {})
    path.write_text(f'{text}name = "my_net-2.1+x"')
    assert load_recipe(path, {}).backbones[0].name == "my_net-2.1+x"


@pytest.mark.parametrize("name", ["../../x", "/etc/x", "npz:../../a b.npz", "超" * 200, "\x00", "..", "a" * 300])
def test_pictures_of_any_dataset_stay_in_the_results_folder(tmp_path: Path, name: str) -> None:
    path = store.strip_path(tmp_path, name, "mixup")
    assert path.parent == tmp_path / "examples"
    assert "/" not in path.name
    store.write(path, b"it can be written")


def test_a_row_cannot_name_a_file_outside_of_its_folder(tmp_path: Path) -> None:
    outside = write(tmp_path / "outside", [])
    np.savez(outside / "cells/f-s0.npz", test_logits=np.zeros((2, 2), np.float32), test_labels=np.zeros(2, np.int64),
             test_ids=np.array(["a", "b"]))  # fmt: skip
    folder = write(tmp_path / "run", [])
    made = row("d", "b", "s", 0, 0.8, fingerprint="../../outside/cells/f")
    (folder / "cells/x-s0.json").write_text(json.dumps(made))
    found = read_rows(folder)
    assert found["fingerprint"].isna().all()
    assert "fingerprint is '../../outside/cells/f', not the name of a file" in found.attrs["warnings"][0]


@pytest.mark.parametrize("name", ["folder:/", "npz:/x.npz", "csv:t.csv", "breastmnist->folder:/"])
def test_a_page_shows_no_images_of_a_folder_that_only_the_rows_name(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    folder = write(tmp_path / "run", [row(name, "b", "s", 0, 0.8, fingerprint="f", licence="CC0")])
    labels = np.arange(4) % 2
    np.savez(folder / "cells/f-s0.npz", test_logits=np.eye(2, dtype=np.float32)[1 - labels], test_labels=labels,
             test_ids=labels.astype(str))  # fmt: skip
    [cell] = predictions.best_cells(current(read_rows(folder)), ["dataset"])
    found = predictions.read(cell, [folder], [])
    assert found is not None
    monkeypatch.setattr(mistakes.registry, "open_dataset", None)
    with pytest.raises(DataError, match="somebody's own files"):
        mistakes.grid(found, [{"matrix": {"data_root": "/"}}])


# --- the page is inert

HOSTILE = (
    "<script>alert(1)</script></script><svg/onload=alert(1)>{{ 7*7 }}{% x %}javascript:alert(1)",
    "\"><img src=x onerror=alert(1)>' onmouseover='alert(1) ]]> --> <!-- <link rel=stylesheet href=//evil.example>",
    "</style><style>@import url(//evil.example)<base href=https://evil.example> &lt;script&gt; 超é\r\n=1+1 $x_1$",
    "\u202eevil\x1b[2J\x00\ud800",
)
LISTS = {"curve", "disc_acc", "test_recall"}


def hostile_rows() -> list[Row]:
    made = []
    for n, evil in enumerate(HOSTILE):
        texts = {name: evil for name, value in row("d", "b", "s", 0, 0.8).items() if isinstance(value, str)}
        texts = {name: text for name, text in texts.items() if name not in ("status", "kind", *LISTS)}
        for seed in range(2):
            known: dict[str, Any] = {"fingerprint": f"f{n}", "strategy": ("scratch", evil)[n % 2], evil: evil}
            made.append(row("d", "b", "s", seed, 0.7 + 0.01 * n + 0.001 * seed) | texts | known)
    made.append(made[0] | {"status": "failed", "reason": " ".join(HOSTILE), "fingerprint": "g", "dataset": "lost"})
    made.append(
        made[1] | {"status": HOSTILE[1], "kind": HOSTILE[2], "fingerprint": "h", "dataset": "odd", "curve": "x"}
    )
    return made


def hostile_folder(folder: Path) -> Path:
    """Hostile text wherever a results folder has text: rows, trials, run.json, datasets.json, predictions."""
    write(folder, hostile_rows())
    every = {evil: list(HOSTILE) for evil in HOSTILE}
    matrix = {
        "backbones": [{"model": evil, "weights": evil, "name": evil} for evil in HOSTILE], "strategies": list(HOSTILE),
        "datasets": list(HOSTILE), "sizes": [64], "amounts": [{"fraction": 1.0, "per_class": None}], "seeds": 2,
    }  # fmt: skip
    run = {"name": HOSTILE[0], "command": HOSTILE[1], "started_utc": HOSTILE[2], "finished_utc": HOSTILE[3]}
    run |= {"notes": list(HOSTILE), "plan": every, "matrix": matrix | every}
    (folder / "run.json").write_text(json.dumps(run))
    overlaps = [{"first": evil, "second": "test", "exact": 1, "near": 1} for evil in HOSTILE]
    entries = {
        evil: audited(evil, sampled=evil, licence=evil, kind=evil, overlaps=overlaps, class_counts={"train": {evil: 1}})
        for evil in HOSTILE
    }
    (folder / "datasets.json").write_text(json.dumps(entries))
    for n, evil in enumerate(HOSTILE):
        line = {"number": 9, "hparams": {evil: evil, "lr": evil}, "state": "complete", "val_auc": 0.8, evil: every}
        with (folder / f"cells/f{n}.trials.jsonl").open("a") as file:
            file.write(json.dumps(line) + "\n")
        labels = np.arange(8) % 2
        np.savez(folder / f"cells/f{n}-s0.npz", test_logits=np.eye(2, dtype=np.float32)[labels], test_labels=labels,
                 test_ids=np.array([f"{evil.encode(errors='replace').decode()}{i}" for i in labels]))  # fmt: skip
    return folder


def assert_inert(html: str, scripts: int) -> Page:
    html.encode("utf-8")
    assert not re.search("[\x00-\x08\x0b-\x1f\u202e]", html)
    page = Page(html)
    assert len(page.all("script")) == scripts
    assert not {"link", "base", "iframe", "object", "embed", "form-action", "video", "audio"} & {
        t for t, _ in page.tags
    }
    for tag, attrs in page.tags:
        assert not [name for name in attrs if name.startswith("on")], (tag, attrs)
        assert (attrs.get("src") or "data:image/").startswith("data:image/"), (tag, attrs)
        for name in ("href", "xlink:href", "action", "formaction", "srcset", "ping", "poster"):
            assert (attrs.get(name) or "#").startswith("#"), (tag, attrs)
        assert "url(" not in (attrs.get("style") or "").replace("url(#", "")
    styles = "".join(re.findall(r"<style>(.*?)</style>", html, flags=re.DOTALL))
    assert len(page.all("style")) == 1
    assert "evil" not in styles
    assert "@import" not in styles
    return page


def test_a_page_of_hostile_results_is_inert(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    folder = hostile_folder(tmp_path / "run")
    remember(gather([folder])[0])
    more = row("new", HOSTILE[0], HOSTILE[1], 0, 0.9, fingerprint="new")
    (folder / "cells/new-s0.json").write_text(json.dumps(more))
    page = assert_inert(render([folder], tmp_path / "page.html").read_bytes().decode("utf-8"), scripts=2)
    assert page.text.count("<script>alert(1)</script>") > 10
    assert page.text.count("{{ 7*7 }}{% x %}") > 5
    assert "\\u202eevil\\x1b[2J\\x00\\ud800" in page.text
    compact(folder)
    Console(width=200, force_terminal=False).print(terminal_summary(current(read_rows(folder))))
    shown = capsys.readouterr().out
    assert "evil" in shown
    assert not re.search("[\x00-\x09\x0b-\x1f\u202e]", shown)


def test_a_comparison_of_hostile_results_is_inert(tmp_path: Path) -> None:
    one = hostile_folder(tmp_path / "<b>{{ 7*7 }}")
    other = write(tmp_path / "b", [dict(r) | {"test_auc": 0.5} if r["test_auc"] else r for r in hostile_rows()])
    assert_inert(compare_page(compare(one, other), tmp_path / "c.html").read_text(encoding="utf-8"), scripts=0)


def test_torch_reads_tensors_only() -> None:
    """What `weights_only` promises is what is relied upon."""
    buffer = io.BytesIO()
    torch.save({"x": Trap(Path("never"))}, buffer)
    buffer.seek(0)
    with pytest.raises(Exception, match="weights_only"):
        torch.load(buffer, weights_only=True)
    assert not Path("never").exists()
