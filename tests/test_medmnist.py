"""MedMNIST: the real files, and stand-ins of the same format for other sets, sizes and downloads."""

from __future__ import annotations

import hashlib
import threading
from collections.abc import Iterator
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import pytest

from bench import registry
from bench.errors import DataError

NAMES = [
    "pathmnist",
    "chestmnist",
    "dermamnist",
    "octmnist",
    "pneumoniamnist",
    "retinamnist",
    "breastmnist",
    "bloodmnist",
    "tissuemnist",
    "organamnist",
    "organcmnist",
    "organsmnist",
]


@pytest.fixture(autouse=True)
def _own_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))


@pytest.fixture
def plugin() -> ModuleType:
    return registry.datasets()["breastmnist"]


@pytest.fixture
def root(tmp_path: Path) -> Path:
    folder = tmp_path / "medmnist"
    folder.mkdir()
    return folder


def stand_in(plugin: ModuleType, monkeypatch: pytest.MonkeyPatch, folder: Path, flag: str, side: int) -> Path:
    """A small file in the set's own format, whose MD5 takes the place of the official one."""
    record, rng = plugin._registry()[flag], np.random.default_rng(side)
    classes, arrays = len(record["label"]), {}
    for split, count in (("train", 40), ("val", 20), ("test", 30)):
        shape = (count, side, side) if record["n_channels"] == 1 else (count, side, side, 3)
        arrays[f"{split}_images"] = rng.integers(0, 256, shape, dtype=np.uint8)
        multi = "multi-label" in record["task"]
        arrays[f"{split}_labels"] = (
            rng.integers(0, 2, (count, classes)) if multi else np.arange(count)[:, None] % classes
        ).astype(np.uint8)
    path = folder / (f"{flag}.npz" if side == 28 else f"{flag}_{side}.npz")
    np.savez_compressed(path, **arrays)
    key = "MD5" if side == 28 else f"MD5_{side}"
    monkeypatch.setitem(record, key, hashlib.md5(path.read_bytes()).hexdigest())
    return path


@pytest.mark.parametrize(
    ("flag", "kind", "classes", "channels", "counts"),
    [
        ("breastmnist", "binary", 2, 1, (546, 78, 156)),
        ("pneumoniamnist", "binary", 2, 1, (4708, 524, 624)),
        ("retinamnist", "ordinal", 5, 3, (1080, 120, 400)),
    ],
)
def test_the_official_files_load(
    shared: Path, flag: str, kind: str, classes: int, channels: int, counts: tuple[int, ...]
) -> None:
    dataset = registry.open_dataset(flag, shared / "data" / "medmnist")
    assert (dataset.info.kind, len(dataset.info.classes), dataset.info.channels) == (kind, classes, channels)
    ids: list[str] = []
    for split, count in zip(("train", "val", "test"), counts, strict=True):
        loaded = dataset.load(split, 64)
        assert loaded.images.shape == ((count, 28, 28) if channels == 1 else (count, 28, 28, 3))
        assert loaded.labels.dtype == np.int64
        assert loaded.labels.shape == (count,)
        assert set(loaded.labels) == set(range(classes))
        ids += loaded.ids.tolist()
    assert len(set(ids)) == sum(counts)
    assert f"{flag}/train/17" in ids
    assert dataset.source_size(64) == 28
    assert "28 px images are enlarged" in dataset.notes[0]


@pytest.mark.parametrize("flag", NAMES)
def test_every_set_loads_in_its_own_kind(
    flag: str, plugin: ModuleType, root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    stand_in(plugin, monkeypatch, root, flag, 28)
    dataset = plugin.open_dataset(flag, root, 0, 0)
    split = dataset.load("train", 28)
    kind = {"chestmnist": "multi-label", "retinamnist": "ordinal", "breastmnist": "binary", "pneumoniamnist": "binary"}
    assert dataset.info.kind == kind.get(flag, "multi-class")
    assert split.images.ndim == (3 if dataset.info.channels == 1 else 4)
    multi = dataset.info.kind == "multi-label"
    assert split.labels.shape == ((40, len(dataset.info.classes)) if multi else (40,))
    assert split.labels.dtype == (np.uint8 if multi else np.int64)
    assert dataset.info.noncommercial == (flag == "dermamnist")
    assert dataset.info.licence.startswith("CC BY")
    assert dataset.info.modality != "unknown"
    assert len(dataset.notes) == (flag in {"pathmnist", "dermamnist"})  # whose splits are peculiar


def test_names_are_the_twelve_2d_sets(plugin: ModuleType) -> None:
    assert sorted(plugin.names()) == sorted(NAMES)


def test_the_native_file_is_taken_where_it_is(plugin: ModuleType, root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for side in (28, 64, 128):
        stand_in(plugin, monkeypatch, root, "breastmnist", side)
    dataset = plugin.open_dataset("breastmnist", root, 0, 0)
    sides = {size: dataset.load("val", size).images.shape[1] for size in (28, 32, 64, 100, 128)}
    assert sides == {28: 28, 32: 64, 64: 64, 100: 128, 128: 128}
    assert dataset.stored_size() == 128
    assert dataset.notes == ()
    assert dataset.load("val", 224).images.shape[1] == 28
    assert dataset.notes == (
        f"breastmnist at 224 px: breastmnist_224.npz is not in {root}, so 28 px images are enlarged",
    )
    assert len({dataset.content_hash(size) for size in (28, 64, 128)}) == 3
    assert dataset.content_hash(224) == dataset.content_hash(28)


def test_source_size_forces_a_file(plugin: ModuleType, root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for side in (28, 64):
        stand_in(plugin, monkeypatch, root, "breastmnist", side)
    dataset = plugin.open_dataset("breastmnist", root, 0, 28)
    assert dataset.load("test", 64).images.shape[1] == 28
    assert dataset.notes == ("breastmnist at 64 px: source_size is 28, so 28 px images are enlarged",)
    with pytest.raises(DataError, match="source_size = 50"):
        plugin.open_dataset("breastmnist", root, 0, 50)


@pytest.mark.parametrize("harm", ["truncated", "replaced"])
def test_a_wrong_file_is_refused_with_both_hashes(
    harm: str, plugin: ModuleType, root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = stand_in(plugin, monkeypatch, root, "breastmnist", 28)
    expected = hashlib.md5(path.read_bytes()).hexdigest()
    path.write_bytes(path.read_bytes()[:-100] if harm == "truncated" else b"something else")
    found = hashlib.md5(path.read_bytes()).hexdigest()
    with pytest.raises(DataError, match=r"breastmnist\.npz") as caught:
        plugin.open_dataset("breastmnist", root, 0, 0).load("train", 28)
    assert found in str(caught.value)
    assert expected in str(caught.value)


def test_the_verdict_on_a_large_file_is_remembered_until_it_changes(
    plugin: ModuleType, root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from bench import download

    path = stand_in(plugin, monkeypatch, root, "breastmnist", 28)
    hashed: list[Path] = []
    original = download._md5
    monkeypatch.setattr(download, "REMEMBER", 0)
    monkeypatch.setattr(download, "_md5", lambda file: hashed.append(file) or original(file))
    for _ in range(3):
        plugin.open_dataset("breastmnist", root, 0, 0).load("train", 28)
    assert len(hashed) == 1
    path.write_bytes(b"x" * path.stat().st_size)
    with pytest.raises(DataError, match="MD5"):
        plugin.open_dataset("breastmnist", root, 0, 0).load("train", 28)


class Handler(SimpleHTTPRequestHandler):
    """Serves a folder; a file called truncated.npz announces more bytes than it sends."""

    def log_message(self, *args: Any) -> None:
        pass

    def do_GET(self) -> None:
        if "truncated" in self.path:
            self.send_response(200)
            self.send_header("Content-Length", "100000")
            self.end_headers()
            self.wfile.write(b"PK" * 100)
        else:
            super().do_GET()


@pytest.fixture
def server(tmp_path: Path) -> Iterator[tuple[str, Path]]:
    folder = tmp_path / "served"
    folder.mkdir()
    with ThreadingHTTPServer(("127.0.0.1", 0), partial(Handler, directory=str(folder))) as running:
        threading.Thread(target=running.serve_forever, daemon=True).start()
        yield f"http://127.0.0.1:{running.server_port}", folder
        running.shutdown()


def test_a_missing_file_is_downloaded_whole(
    server: tuple[str, Path], plugin: ModuleType, root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    url, served = server
    path = stand_in(plugin, monkeypatch, served, "organcmnist", 64)
    monkeypatch.setitem(plugin._registry()["organcmnist"], "url_64", f"{url}/{path.name}")
    dataset = plugin.open_dataset("organcmnist", root / "not yet there", 0, 0)
    assert dataset.load("train", 64).images.shape == (40, 64, 64)
    assert [file.name for file in (root / "not yet there").iterdir()] == ["organcmnist_64.npz"]


@pytest.mark.parametrize(
    ("file", "says"),
    [("truncated.npz", "after 200 of 100000 bytes"), ("absent.npz", "404"), ("wrong.npz", "has MD5 .*, expected")],
)
def test_a_download_that_fails_leaves_nothing_and_says_what_to_do(
    file: str, says: str, server: tuple[str, Path], plugin: ModuleType, root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    url, served = server
    (served / "wrong.npz").write_bytes(b"not the set")
    monkeypatch.setitem(plugin._registry()["organcmnist"], "url", f"{url}/{file}")
    with pytest.raises(DataError, match=says) as caught:
        plugin.open_dataset("organcmnist", root, 0, 0).load("train", 28)
    monkeypatch.setattr("urllib.request.urlopen", None)  # one failure is enough for all cells
    with pytest.raises(DataError, match=says):
        plugin.open_dataset("organcmnist", root, 0, 0).load("test", 28)
    assert f"{url}/{file}" in str(caught.value)
    assert str(root) in str(caught.value)
    assert list(root.iterdir()) == []


def test_no_network_is_an_error_that_names_the_address(
    plugin: ModuleType, root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(plugin._registry()["organcmnist"], "url", "http://127.0.0.1:9/organcmnist.npz")
    with pytest.raises(DataError, match=r"127\.0\.0\.1:9.*cannot be downloaded.*run again"):
        plugin.open_dataset("organcmnist", root, 0, 0).load("train", 28)
