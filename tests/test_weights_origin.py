"""Weights are found, hashed and read safely, or missed with an error that says what to do."""

from __future__ import annotations

import hashlib
import http.server
import os
import re
import threading
import time
import zipfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import huggingface_hub
import pytest
import timm
import torch
from safetensors.torch import save, save_file

from bench import hub, weights_origin
from bench.backbones import build_features, feature_width
from bench.contract import Backbone
from bench.errors import UsageError, WeightsError
from bench.hub import Fetched
from bench.weights_origin import read_state, resolve

TAGGED = "test_resnet.r160_in1k"
COMMIT = "0123456789abcdef0123456789abcdef01234567"


@contextmanager
def stand_in(weights: bytes, delay: float = 0.0, asked: list[str] | None = None) -> Iterator[str]:
    """The little of the hub's interface that fetching a file needs: one repository with model.safetensors. What it is
    asked for is added to `asked`."""

    class Handler(http.server.BaseHTTPRequestHandler):
        def do_HEAD(self) -> None:
            if asked is not None:
                asked.append(self.path)
            time.sleep(delay)
            known = self.path == f"/timm/{TAGGED}/resolve/main/model.safetensors"
            self.send_response(200 if known else 404)
            self.send_header("X-Repo-Commit", COMMIT)
            if known:
                self.send_header("ETag", f'"{hashlib.sha256(weights).hexdigest()}"')
            else:
                self.send_header("X-Error-Code", "RepoNotFound")
            self.send_header("Content-Length", str(len(weights) if known else 0))
            self.end_headers()

        def do_GET(self) -> None:
            self.do_HEAD()
            self.wfile.write(weights)

        def log_message(self, *_: object) -> None:
            pass

    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    try:
        yield f"http://127.0.0.1:{server.server_port}"
    finally:
        server.shutdown()
        server.server_close()


@pytest.fixture
def no_downloads_yet(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Empty caches, and no host known to be out of reach."""
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_CACHE", str(tmp_path / "hub"))
    monkeypatch.setattr(hub, "_out_of_reach", {})
    monkeypatch.setenv("TORCH_HOME", str(tmp_path / "torch"))
    monkeypatch.setenv("no_proxy", "*")


def use(endpoint: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """What HF_ENDPOINT does, which the hub's client reads when it is imported."""
    template = endpoint + "/{repo_id}/resolve/{revision}/{filename}"
    monkeypatch.setattr(huggingface_hub.constants, "ENDPOINT", endpoint)
    monkeypatch.setattr(huggingface_hub.constants, "HUGGINGFACE_CO_URL_TEMPLATE", template)


@pytest.mark.usefixtures("no_downloads_yet")
def test_the_hub_then_its_cache_without_a_network(monkeypatch: pytest.MonkeyPatch) -> None:
    network = timm.create_model("test_resnet")
    weights = save(network.state_dict())
    with stand_in(weights) as endpoint:
        use(endpoint, monkeypatch)
        online = resolve(Backbone(TAGGED))
        with pytest.raises(WeightsError, match=r"does not give out timm/resnet10t\.c3_in1k"):
            resolve(Backbone("resnet10t.c3_in1k"))
    assert online.hash == hashlib.sha256(weights).hexdigest()
    assert online.origin == f"hub:timm/{TAGGED}@{COMMIT}"
    # From here on the server is gone.
    assert resolve(Backbone(TAGGED)) == online
    whole = build_features(Backbone(TAGGED), 0).state_dict()
    assert all(torch.equal(value, network.state_dict()[name]) for name, value in whole.items())
    part = build_features(Backbone(TAGGED, cut=2), 0).state_dict()
    assert all(torch.equal(value, whole[name]) for name, value in part.items())
    with pytest.raises(WeightsError, match="cannot be reached"):
        resolve(Backbone("resnet10t.c3_in1k"))


@pytest.mark.usefixtures("no_downloads_yet")
def test_hub_weights_of_another_network_are_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    with stand_in(save(timm.create_model("test_vit").state_dict())) as endpoint:
        use(endpoint, monkeypatch)
        with pytest.raises(WeightsError, match=f"hub:timm/{TAGGED}.* does not load"):
            build_features(Backbone(TAGGED), 0)


@pytest.mark.usefixtures("no_downloads_yet")
def test_a_hub_that_does_not_answer_is_asked_once(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(hub, "HUB_TIMEOUT", 0.5)
    asked: list[str] = []
    start = time.monotonic()
    with stand_in(b"", delay=20, asked=asked) as endpoint:
        use(endpoint, monkeypatch)
        for model in (TAGGED, "resnet10t.c3_in1k", TAGGED):
            with pytest.raises(WeightsError) as caught:
                resolve(Backbone(model))
            message = str(caught.value)
            assert message.startswith(f"{model}: {endpoint} cannot be reached (")
            assert 'weights = "file:PATH"' in message
            assert len(message.splitlines()) == 1
    # The client may ask for other things of its own accord, once in a process.
    assert len([path for path in asked if "/resolve/" in path]) == 1
    assert time.monotonic() - start < 20, "the answer is not waited for"


@pytest.mark.usefixtures("no_downloads_yet")
def test_a_hub_that_is_turned_off(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_OFFLINE", True)
    with pytest.raises(WeightsError, match=r"cannot be reached \(OfflineModeIsEnabled"):
        resolve(Backbone(TAGGED))


@pytest.mark.usefixtures("no_downloads_yet")
def test_weights_that_are_nowhere() -> None:
    nowhere = timm.models.PretrainedCfg(url="http://127.0.0.1:9/net-12345678.pth")
    with pytest.raises(WeightsError, match=r"127\.0\.0\.1:9 cannot be reached .*file:PATH"):
        hub.fetch("net", nowhere)
    assert list(hub._out_of_reach) == ["127.0.0.1:9"]
    with pytest.raises(WeightsError, match="no published weights"):
        hub.fetch("net", timm.models.PretrainedCfg())


@pytest.mark.usefixtures("no_downloads_yet")
def test_weights_from_a_url_are_cached(tmp_path: Path) -> None:
    content = b"weights of a network"
    name = f"net-{hashlib.sha256(content).hexdigest()[:8]}.pth"
    (tmp_path / "served").mkdir()
    (tmp_path / "served" / name).write_bytes(content)

    class Quiet(http.server.SimpleHTTPRequestHandler):
        def __init__(self, *args: object) -> None:
            super().__init__(*args, directory=str(tmp_path / "served"))

        def log_message(self, *_: object) -> None:
            pass

    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Quiet)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    config = timm.models.PretrainedCfg(url=f"http://127.0.0.1:{server.server_port}/{name}")
    path, origin, custom = hub.fetch("net", config)
    server.shutdown()
    server.server_close()
    assert path.read_bytes() == content
    assert origin == config.url
    assert not custom
    assert hub.fetch("net", config).path == path, "the server is gone, the cache is not"


def test_random_weights_have_no_file() -> None:
    assert resolve(Backbone("resnet18", "random")) == weights_origin.Weights("random", "random", None)


def test_a_files_hash_follows_its_content(tmp_path: Path) -> None:
    path = tmp_path / "net.safetensors"
    hashes = []
    for value in (0.0, 1.0):
        save_file({"weight": torch.full((3,), value)}, path)
        os.utime(path, ns=(1, int(value) + 1))
        found = resolve(Backbone("resnet18", f"file:{path}"))
        assert found.path == path
        assert found.hash == hashlib.sha256(path.read_bytes()).hexdigest()
        hashes.append(found.hash)
    assert hashes[0] != hashes[1]


@pytest.mark.parametrize(
    ("written", "reason"),
    [
        ("{}/weights/resnet18.safetensor", r'no such file in .*weights\. Did you mean "resnet18\.safetensors"\?'),
        ("{}/wieghts/deep/resnet18.safetensors", r"no such folder; the nearest above it is"),
        ("{}/weights", r"weights: a folder, not a file\. Valid: resnet18\.safetensors"),
        ("{}/weights/notes.txt", r"Valid endings: \.safetensors, \.pth, \.pt"),
        ("{}/empty/x.pth", r"no such file in .*empty, nor any other weights file\. Correct the path\.$"),
    ],
)
def test_a_file_that_is_not_there(tmp_path: Path, written: str, reason: str) -> None:
    (tmp_path / "weights").mkdir()
    (tmp_path / "empty").mkdir()
    (tmp_path / "weights" / "resnet18.safetensors").touch()
    (tmp_path / "weights" / "notes.txt").touch()
    written = written.format(tmp_path)
    with pytest.raises(WeightsError, match=reason) as caught:
        resolve(Backbone("resnet18", f"file:{written}"))
    assert f"file:{written}" in str(caught.value)


@pytest.mark.parametrize(
    ("backbone", "reason"),
    [
        (Backbone("resnet_18"), r'no network of this name\. Did you mean "resnet18"\?'),
        (Backbone("resnet18.a1_ink1"), r'no weights tagged "a1_ink1"\. Did you mean "a1_in1k"\?'),
        (Backbone("resnet18.nope", "random"), r'no weights tagged "nope"'),
        (Backbone("zzzzzzzzzzzzzzzz"), r"no network of this name\.$"),
    ],
)
def test_unknown_networks_name_the_nearest(backbone: Backbone, reason: str) -> None:
    with pytest.raises(UsageError, match=reason):
        resolve(backbone)


class Stranger:
    """Anything but a tensor."""


def test_a_pickle_that_could_run_code_is_refused(tmp_path: Path) -> None:
    torch.save({"weight": Stranger()}, tmp_path / "net.pth")
    with pytest.raises(WeightsError, match=r"net\.pth: refused.*Save the state dict alone"):
        read_state(tmp_path / "net.pth")


def test_no_pickle_reaches_timm(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Of the hub neither: older versions of timm read it as torch.load does by default."""
    torch.save({"weight": Stranger()}, tmp_path / "net.bin")
    found = Fetched(tmp_path / "net.bin", "hub:somewhere@abc", custom=False)
    monkeypatch.setattr("bench.weights_origin.fetch", lambda model, config: found)
    monkeypatch.setattr("timm.create_model", None)
    with pytest.raises(WeightsError, match=r"net\.bin: refused.*Save the state dict alone"):
        build_features(Backbone("resnet18.a1_in1k"), 0)


@pytest.mark.parametrize(
    ("value", "says"),
    [
        (torch.zeros(3).to_sparse(), "not a plain tensor"),
        (torch.zeros(3, dtype=torch.complex64), "not a plain tensor"),
        (torch.zeros(3, device="meta"), "not a plain tensor"),
        (torch.zeros(1).expand(10**6, 10**6), "conv1.0.weight [1000000, 1000000] in the file"),  # 4 TB of one value
    ],
)
def test_tensors_that_are_more_or_less_than_values_are_refused(tmp_path: Path, value: torch.Tensor, says: str) -> None:
    torch.save({"conv1.0.weight": value}, tmp_path / "net.pth")
    with pytest.raises(WeightsError, match=re.escape(says)):
        build_features(Backbone("test_resnet", f"file:{tmp_path}/net.pth"), 0)


@pytest.mark.parametrize(("name", "kind"), [("net.safetensors", "safetensors"), ("net.pt", "PyTorch")])
def test_a_file_that_is_cut_short_or_something_else_is_refused_before_it_is_loaded(
    tmp_path: Path, name: str, kind: str
) -> None:
    path, net = tmp_path / name, Backbone("test_resnet", f"file:{tmp_path}/{name}")
    state = {"conv1.0.weight": torch.zeros(9)}
    save_file(state, path) if kind == "safetensors" else torch.save(state, path)
    whole = path.read_bytes()
    assert resolve(net).path == path
    for content in (whole[:-30], whole[:20], b"", b"some notes, which are no weights\n"):
        path.write_bytes(content)
        with pytest.raises(WeightsError, match=rf"{name}: cut short, or not a {kind} file"):
            resolve(net)


@pytest.mark.parametrize("state", [[1], torch.zeros(1), {0: torch.zeros(1)}, {"model": None}, {"state_dict": "x"}])
def test_what_is_no_state_dict_is_refused(tmp_path: Path, state: object) -> None:
    torch.save(state, tmp_path / "net.pth")
    with pytest.raises(WeightsError, match="not a state dict"):
        read_state(tmp_path / "net.pth")


def test_a_compressed_file_is_refused_before_it_is_unpacked(tmp_path: Path) -> None:
    torch.save({"weight": torch.zeros(100_000)}, tmp_path / "plain.pth")
    with (
        zipfile.ZipFile(tmp_path / "plain.pth") as plain,
        zipfile.ZipFile(tmp_path / "net.pth", "w", zipfile.ZIP_DEFLATED) as packed,
    ):
        for name in plain.namelist():
            packed.writestr(name, plain.read(name))
    assert read_state(tmp_path / "plain.pth")["weight"].numel() == 100_000
    with pytest.raises(WeightsError, match="is compressed"):
        read_state(tmp_path / "net.pth")


def test_a_name_that_no_file_can_have(tmp_path: Path) -> None:
    with pytest.raises(WeightsError, match="cannot be read"):
        resolve(Backbone("resnet18", f"file:{tmp_path}/{'x' * 300}.pth"))


@pytest.mark.parametrize("name", ["net.safetensors", "net.pth"])
def test_damaged_files_are_named(tmp_path: Path, name: str) -> None:
    path = tmp_path / name
    if name.endswith("pth"):
        torch.save({"weight": torch.zeros(1000)}, path)
    else:
        save_file({"weight": torch.zeros(1000)}, path)
    path.write_bytes(path.read_bytes()[:-2000])
    with pytest.raises(WeightsError, match=name):
        read_state(path)


def test_a_file_without_a_state_dict_is_refused(tmp_path: Path) -> None:
    torch.save({"epoch": 3, "weight": torch.zeros(1)}, tmp_path / "net.pth")
    with pytest.raises(WeightsError, match='"epoch" is not a plain tensor'):
        read_state(tmp_path / "net.pth")
    torch.save({}, tmp_path / "empty.pth")
    with pytest.raises(WeightsError, match="it is empty"):
        read_state(tmp_path / "empty.pth")


def test_a_checkpoint_of_a_training_script_is_unwrapped(tmp_path: Path) -> None:
    torch.save({"epoch": 3, "state_dict": {"module.weight": torch.ones(2)}}, tmp_path / "net.pth")
    state = read_state(tmp_path / "net.pth")
    assert list(state) == ["weight"]
    assert torch.equal(state["weight"], torch.ones(2))


def test_bundled_weights_are_checked(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    content = save({"weight": torch.zeros(2)})
    digest = hashlib.sha256(content).hexdigest()
    files = {"file": "tiny.safetensors", "sha256": digest, "head": "tiny.head.safetensors", "head_sha256": digest}
    entry = weights_origin.Bundled(
        **files, model="resnet18", mean=(0.5,) * 3, std=(0.5,) * 3, kwargs={"drop_rate": 0.1}
    )
    monkeypatch.setattr(weights_origin, "FOLDER", tmp_path)
    monkeypatch.setitem(weights_origin.BUNDLED, "tiny", entry)
    backbone = Backbone("resnet18", "bundled:tiny")
    with pytest.raises(WeightsError, match="missing or damaged"):
        resolve(backbone)
    (tmp_path / "tiny.safetensors").write_bytes(content)
    assert resolve(backbone).hash == entry.sha256
    assert weights_origin.timm_arguments(backbone) == ("resnet18", {"drop_rate": 0.1})
    (tmp_path / "tiny.safetensors").write_bytes(content + b" ")
    with pytest.raises(WeightsError, match="missing or damaged"):
        resolve(backbone)
    with pytest.raises(WeightsError, match="is for resnet18, not resnet34"):
        resolve(Backbone("resnet34", "bundled:tiny"))
    with pytest.raises(WeightsError, match='Did you mean "tiny"'):
        resolve(Backbone("resnet18", "bundled:tin"))


def test_every_bundled_file_is_there_with_its_card() -> None:
    card = (weights_origin.FOLDER / "README.md").read_text(encoding="utf-8")
    files = {file for bundled in weights_origin.BUNDLED.values() for file in (bundled.file, bundled.head)}
    assert {path.name for path in weights_origin.FOLDER.glob("*.safetensors")} == files
    assert sum((weights_origin.FOLDER / file).stat().st_size for file in files) <= 4_000_000
    for name in weights_origin.BUNDLED:
        backbone = Backbone(f"bundled:{name}", f"bundled:{name}")
        assert resolve(backbone).path
        assert name in card
        head = weights_origin.source_head(backbone)
        assert head is not None
        assert head["weight"].shape == (100, feature_width(build_features(backbone, 0)))
