"""Arbitrary input gives a result or a named error in one line, and nothing else. `tox -e fuzz` tries many more."""

from __future__ import annotations

import io
import json
import os
import tempfile
import zipfile
from collections.abc import Callable, Iterator
from functools import lru_cache
from pathlib import Path
from typing import Any
from unittest import mock

import numpy as np
import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as stn
from safetensors.torch import save

from bench import config, store
from bench.config import Matrix
from bench.contract import Backbone
from bench.decode import decode, is_gray
from bench.errors import UNPRINTABLE, DataError, MedtransferError, UsageError, WeightsError
from bench.report import audits
from bench.report.frames import compact, current, read_rows, read_trials
from bench.report.page import gather
from bench.trial import Trial
from bench.weights_origin import read_state
from tests.fake_results import row
from tests.small import opened, picture
from tests.test_config import MATRIX
from tests.test_own_images import dicom

examples = settings(
    max_examples=settings.default.max_examples * 3 // 10,  # 30, or what `--hypothesis-profile=fuzz` says
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow, HealthCheck.data_too_large],
)


@pytest.fixture(scope="module", autouse=True)
def _own_cache() -> Iterator[None]:
    with tempfile.TemporaryDirectory() as folder, mock.patch.dict(os.environ, {"XDG_CACHE_HOME": folder}):
        yield


def named(action: Callable[[], object], *kinds: type[MedtransferError]) -> object:
    """What the action gives, or None after a named error of these kinds, which is one line."""
    try:
        return action()
    except kinds as error:
        said = str(error)
    assert said
    assert not UNPRINTABLE.search(said)
    return None


# --- bytes that were something once

Harm = list[tuple[float, str, bytes]]
harms = st.lists(
    st.tuples(st.floats(0, 1, exclude_max=True), st.sampled_from(["set", "cut", "put", "end"]), st.binary(min_size=1)),
    min_size=1,
    max_size=6,
)


def harmed(data: bytes, harm: Harm) -> bytes:
    """At a place in the data bytes are replaced, removed or put in, or all that follows is lost."""
    for place, what, other in harm:
        at = int(place * len(data))
        rest = {"set": other + data[at + len(other) :], "cut": data[at + len(other) :], "put": other + data[at:]}
        data = data[:at] + rest.get(what, b"")
    return data


@lru_cache
def whole_npz(packed: bool) -> bytes:
    draw, buffer = np.random.default_rng(0), io.BytesIO()
    arrays = {f"{split}_images": draw.integers(0, 256, (8, 6, 6), dtype=np.uint8) for split in ("train", "val", "test")}
    arrays |= {f"{split}_labels": np.arange(8) % 2 for split in ("train", "val", "test")}
    (np.savez_compressed if packed else np.savez)(buffer, **arrays, class_names=np.array(["a", "b"]))
    return buffer.getvalue()


def read_npz(path: Path) -> None:
    dataset = opened(f"npz:{path}")
    for split in ("train", "val", "test"):
        assert len(dataset.load(split, 8)) == 8


@examples
@given(harm=harms, packed=st.booleans())
def test_npz_files_that_were_harmed(tmp_path: Path, harm: Harm, packed: bool) -> None:
    path = tmp_path / "x.npz"
    path.write_bytes(harmed(whole_npz(packed), harm))
    named(lambda: read_npz(path), DataError)


@examples
@given(harm=harms, name=st.sampled_from(["train_images", "train_labels", "class_names"]))
def test_npz_files_with_harmed_members_and_right_checksums(tmp_path: Path, harm: Harm, name: str) -> None:
    path = tmp_path / "x.npz"
    with zipfile.ZipFile(io.BytesIO(whole_npz(False))) as whole, zipfile.ZipFile(path, "w") as archive:
        for member in whole.namelist():
            data = whole.read(member)
            # Most of it in the header, the part that says something.
            archive.writestr(member, harmed(data[:128], harm) + data[128:] if member == f"{name}.npy" else data)
    named(lambda: read_npz(path), DataError)


ARRAYS = stn.arrays(
    st.one_of(
        stn.integer_dtypes(), stn.unsigned_integer_dtypes(), stn.boolean_dtypes(), stn.floating_dtypes(),
        stn.unicode_string_dtypes(), stn.byte_string_dtypes(), stn.complex_number_dtypes(), stn.datetime64_dtypes(),
    ),
    stn.array_shapes(min_dims=0, max_dims=4, min_side=0, max_side=4),
)  # fmt: skip


@examples
@given(
    given_arrays=st.dictionaries(
        st.sampled_from(
            [f"{split}_{what}" for split in ("train", "val", "test") for what in ("images", "labels", "ids")]
            + ["class_names", "kind"]
        ),
        ARRAYS,
        max_size=4,
    )
)
def test_npz_files_of_any_arrays(tmp_path: Path, given_arrays: dict[str, np.ndarray]) -> None:
    with np.load(io.BytesIO(whole_npz(False))) as whole:
        np.savez(tmp_path / "x.npz", **{**whole, **given_arrays})
    named(lambda: opened(f"npz:{tmp_path / 'x.npz'}"), DataError)


@lru_cache
def whole_image(name: str) -> bytes:
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder, name)
        if path.suffix == ".dcm":
            dicom(path, np.arange(64).reshape(8, 8), WindowCenter="3", WindowWidth="40")
        else:
            picture(path, (16, 12) if "gray" in name else (16, 12, 3))
        return path.read_bytes()


@examples
@given(harm=harms, name=st.sampled_from(["gray.png", "a.png", "a.jpg", "gray.tif", "a.tif", "a.dcm"]))
def test_images_that_were_harmed(tmp_path: Path, harm: Harm, name: str) -> None:
    path = tmp_path / name
    path.write_bytes(harmed(whole_image(name), harm))
    named(lambda: is_gray(path), DataError)
    image = named(lambda: decode(path, 8, gray=True), DataError)
    assert image is None or image.shape == (8, 8)  # type: ignore[attr-defined]


@lru_cache
def whole_weights(name: str) -> bytes:
    state, buffer = {"a.weight": torch.ones(3, 2), "b": torch.zeros(4)}, io.BytesIO()
    torch.save(state, buffer)
    return save(state) if name.endswith("safetensors") else buffer.getvalue()


@examples
@given(harm=harms, name=st.sampled_from(["x.safetensors", "x.pth"]))
def test_weights_that_were_harmed(tmp_path: Path, harm: Harm, name: str) -> None:
    path = tmp_path / name
    path.write_bytes(harmed(whole_weights(name), harm))
    state = named(lambda: read_state(path), WeightsError)
    assert state is None or all(isinstance(value, torch.Tensor) for value in state.values())  # type: ignore[attr-defined]


# --- tables

CELL = st.one_of(
    st.sampled_from(["a.png", "b.png", "./a.png", "../x.png", "train", "test", "0", "1", "x", "y", "x|y", ""]),
    st.text(max_size=8),
)
COLUMN = st.one_of(
    st.sampled_from(["path", "label", "labels", "grade", "split", "group", "domain"]), st.text(max_size=5)
)


@examples
@given(
    header=st.lists(COLUMN, min_size=1, max_size=5), rows=st.lists(st.lists(CELL, max_size=5), max_size=6),
    raw=st.binary(max_size=12), at=st.floats(0, 1),
)  # fmt: skip
def test_tables_of_anything(folder: Path, header: list[str], rows: list[list[str]], raw: bytes, at: float) -> None:
    for name in ("a.png", "b.png"):
        if not (folder / name).exists():
            picture(folder / name)
    data = "\n".join(",".join(line) for line in [header, *rows]).encode(errors="surrogatepass")
    place = int(at * len(data))
    (folder / "t.csv").write_bytes(data[:place] + raw + data[place:])
    named(lambda: opened(f"csv:{folder / 't.csv'}"), DataError)


# --- matrix files

SCALAR = st.one_of(
    st.none(), st.booleans(), st.integers(), st.sampled_from([10**400, -(10**400), 2**63]), st.floats(),
    st.text(max_size=9), st.dates(), st.times(), st.datetimes(),
    st.sampled_from(["~nobody-at-all/x", "cuda:9", "file:~x", "npz:~nobody-at-all/x", "resnet18[:99999]", "\x1b"]),
)  # fmt: skip
VALUE = st.recursive(
    SCALAR, lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
    max_leaves=5,
)  # fmt: skip
NETWORK = st.dictionaries(st.sampled_from(sorted(config.BACKBONE)) | st.text(max_size=5), VALUE, max_size=4)


@examples
@given(
    run=st.dictionaries(
        st.sampled_from(sorted([*config.LISTS, *config.SCALARS])) | st.text(max_size=5), VALUE, max_size=4
    ),
    networks=st.lists(NETWORK | NETWORK.map(lambda table: {"model": "resnet18"} | table), max_size=2) | VALUE,
    fixed=st.dictionaries(st.sampled_from(["scratch", "x"]), VALUE, max_size=2) | VALUE,
    more=st.dictionaries(st.text(max_size=5), VALUE, max_size=1),
)  # fmt: skip
def test_matrix_files_of_any_values(run: dict[str, Any], networks: Any, fixed: Any, more: dict[str, Any]) -> None:
    usual = {"strategies": ["scratch"], "datasets": ["breastmnist"], "sizes": [28]}
    document = more | {"run": usual | run, "backbone": networks, "settings": fixed}
    with mock.patch.object(config, "read_toml", return_value=document):
        found = named(lambda: config.load("demo"), UsageError)
    assert found is None or isinstance(found, Matrix)
    if isinstance(found, Matrix):
        json.dumps([found.settings, [dict(b.kwargs) for b in found.backbones]], allow_nan=False)


@examples
@given(text=st.binary(max_size=60) | harms.map(lambda harm: harmed(MATRIX.encode(), harm)))
def test_matrix_files_of_any_text(tmp_path: Path, text: bytes) -> None:
    (tmp_path / "x.toml").write_bytes(text)
    found = named(lambda: config.load(str(tmp_path / "x.toml")), UsageError)
    assert found is None or isinstance(found, Matrix)


@examples
@given(spec=st.text(max_size=30))
def test_networks_of_any_text(spec: str) -> None:
    found = named(lambda: config.parse_backbone(spec), UsageError)
    assert found is None or isinstance(found, Backbone)


# --- results folders

TRIALS = [Trial(n, {"lr": 0.1}, {"lr": 0.1}, "complete", 0.5, 0.3, [0.5, None], [0.3, 0.2], 1.0, 10) for n in range(3)]


@examples
@given(harm=harms)
def test_trials_that_were_harmed(tmp_path_factory: pytest.TempPathFactory, harm: Harm) -> None:
    """What stands in whole lines before the damage is read, by the run or by the report."""
    folder = tmp_path_factory.mktemp("trials")
    store.record_trials(folder, "f", TRIALS)
    path = folder / "cells/f.trials.jsonl"
    whole = path.read_bytes()
    path.write_bytes(harmed(whole, harm))
    now = path.read_bytes()
    same = next((at for at, (one, other) in enumerate(zip(whole, now, strict=False)) if one != other), len(now))
    kept = whole[:same].count(b"\n")
    found = named(lambda: store.read_trials(folder, "f"), DataError)
    assert found is None or found[:kept] == TRIALS[:kept]  # type: ignore[index]
    shown = read_trials(folder)
    assert shown["number"].tolist()[:kept] == [trial.number for trial in TRIALS[:kept]]


@examples
@given(harm=harms, name=st.text(alphabet="abs-0123456789.jonfiled_é", max_size=20))
def test_a_harmed_row_takes_no_other_row_with_it(
    tmp_path_factory: pytest.TempPathFactory, harm: Harm, name: str
) -> None:
    folder = tmp_path_factory.mktemp("rows")
    good, bad = (row("d", "b", "s", seed, 0.8, fingerprint="f") for seed in range(2))
    store.publish(folder, good)
    store.publish(folder, bad)
    path = folder / "cells/f-s1.json"
    path.write_bytes(harmed(path.read_bytes(), harm))
    (folder / "cells" / f"{name}.json").write_bytes(b"{}")
    assert {("f", 0), ("f", 1)} <= store.finished(folder)
    named(lambda: store.read_row(folder, "f", 1), DataError)
    rows = read_rows(folder)
    assert (rows["seed"] == 0).sum() >= 1
    assert len(rows) == 2 or rows.attrs["warnings"]
    compact(folder)


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=6)
    | st.sampled_from([10**400, "\ud800", "/"]),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=4), inner, max_size=3),
    max_leaves=6,
)  # fmt: skip
KNOWN = ["matrix", "notes", "plan", "command", "name", "started_utc", "finished_utc"]
PARTS = ["backbones", "strategies", "datasets", "sizes", "amounts", "seeds", "only"]
MATRICES = st.dictionaries(st.sampled_from(PARTS), JSON)


@examples
@given(
    values=st.dictionaries(st.sampled_from([*row("d", "b", "s", 0, 0.5)]) | st.text(max_size=4), JSON, max_size=5),
    run=JSON | st.dictionaries(st.sampled_from(KNOWN), JSON | MATRICES, max_size=5),
    audit=st.dictionaries(st.text(max_size=3), JSON, max_size=2) | JSON,
    lines=st.lists(JSON | st.fixed_dictionaries({"number": JSON, "state": JSON, "curve": JSON}), max_size=3),
)  # fmt: skip
def test_results_of_any_json_are_read(
    tmp_path_factory: pytest.TempPathFactory, values: dict[str, Any], run: Any, audit: Any, lines: list[Any]
) -> None:
    folder = tmp_path_factory.mktemp("results")
    (folder / "cells").mkdir()
    (folder / "cells/f-s0.json").write_text(json.dumps(row("d", "b", "s", 0, 0.5, fingerprint="f")))
    (folder / "cells/g-s0.json").write_text(json.dumps(row("e", "b", "s", 0, 0.5, fingerprint="g") | values))
    (folder / "cells/f.trials.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    (folder / "run.json").write_text(json.dumps(run))
    (folder / "datasets.json").write_text(json.dumps(audit))
    evidence, _ = gather([folder])
    assert "f" in set(evidence.rows["fingerprint"])
    for text in (*evidence.rows["dataset"], json.dumps(evidence.runs[0], ensure_ascii=False, default=str)):
        text.encode()
    assert isinstance(audits.read(folder)[0], dict)
    current(read_rows(folder)).to_csv(io.StringIO())
