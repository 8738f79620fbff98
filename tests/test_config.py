"""The matrix file: what is read, what the command line overrides, and that every mistake is named."""

from __future__ import annotations

from dataclasses import fields
from pathlib import Path

import pytest

from bench import config, registry
from bench.config import Amount, Matrix, load, parse_backbone, presets
from bench.contract import Backbone, Protocol
from bench.errors import UsageError
from bench.train import lr_factor
from tests.small import CHECKOUT

MATRIX = """
[run]
strategies = ["scratch", "linear_probe"]
datasets = ["breastmnist", "npz:~/mine.npz"]
sizes = [28, 64]
fractions = [1, 0.1]
per_class = [10]
seeds = 5
epochs = 3
optimizer = "sgd"
clip = 0
prune = false
data_root = "~/medmnist"
[settings.scratch]
lr = 1e-3
[[backbone]]
model = "mobilenetv2_035"
weights = "file:~/w.safetensors"
kwargs = { pad_type = "same", bn_eps = 1e-3 }
mean = [0.5, 0.5, 0.5]
std = [0.5, 0.5, 1]
[[backbone]]
model = "resnet18[:3]"
weights = "random"
[[backbone]]
model = "resnet18.a1_in1k"
stem = "cifar"
"""


@pytest.fixture
def matrix(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("HOME", "/home/me")
    path = tmp_path / "mine.toml"
    path.write_text(MATRIX)
    return path


def edited(path: Path, old: str, new: str) -> str:
    text = path.read_text()
    assert old in text
    path.write_text(text.replace(old, new, 1))
    return str(path)


def test_a_whole_matrix_file_is_read(matrix: Path) -> None:
    got = load(str(matrix))
    assert got == Matrix(
        backbones=(
            Backbone(
                "mobilenetv2_035",
                "file:/home/me/w.safetensors",
                kwargs={"pad_type": "same", "bn_eps": 1e-3},
                mean=(0.5, 0.5, 0.5),
                std=(0.5, 0.5, 1.0),
            ),
            Backbone("resnet18", "random", cut=3),
            Backbone("resnet18.a1_in1k", stem="cifar"),
        ),
        strategies=("scratch", "linear_probe"),
        datasets=("breastmnist", "npz:/home/me/mine.npz"),
        sizes=(28, 64),
        amounts=(Amount(1.0), Amount(0.1), Amount(per_class=10)),
        seeds=5,
        data_root=Path("/home/me/medmnist"),
        results=Path("results/mine"),
        protocol=Protocol(epochs=3, optimizer="sgd", clip=0.0, prune=False),
        settings={"scratch": {"lr": 1e-3}},
    )


@pytest.mark.parametrize("name", presets())
def test_presets_load_and_say_their_own_size(name: str) -> None:
    got = load(name)
    singles = [one for one in got.strategies if one not in registry.fusions(CHECKOUT)]
    cells = len(got.backbones) * len(singles) * len(got.datasets) * len(got.sizes) * len(got.amounts)
    assert f"= {cells} cells" in presets()[name].read_text()
    assert got.results == Path("results") / name


def test_all_preset_files_are_presets() -> None:
    assert set(config.PRESETS.glob("*.toml")) == set(presets().values())


def test_the_published_protocol_is_what_the_paper_says() -> None:
    got = load("medmnist-v2")
    assert (got.strategies, got.sizes, len(got.datasets)) == (("scratch",), (28,), 12)
    [backbone] = got.backbones
    assert (backbone.model, backbone.stem, backbone.weights) == ("resnet18", "cifar", "random")
    assert backbone.mean == backbone.std == (0.5, 0.5, 0.5)
    assert got.settings == {"scratch": {"lr": 1e-3}}
    wanted = Protocol(
        epochs=100, trials=1, batch_size=128, optimizer="adam", weight_decay=0.0, schedule="step", warmup=0.0, clip=0.0,
        tolerance=0.0,
    )  # fmt: skip
    assert got.protocol == wanted
    rates = [1e-3 * lr_factor(epoch / 100, got.protocol) for epoch in (0, 49, 50, 74, 75, 99)]
    assert rates == pytest.approx([1e-3, 1e-3, 1e-4, 1e-4, 1e-5, 1e-5])


def test_the_demo_needs_no_network() -> None:
    got = load("demo")
    assert all(name.startswith("phantom-") for name in got.datasets)
    assert all(b.weights == "random" or b.weights.startswith("bundled:") for b in got.backbones)


def test_every_key_has_a_rule_for_what_it_may_hold() -> None:
    assert set(config.BACKBONE) == {f.name for f in fields(Backbone)}
    assert {key for key, default in config.SCALARS.items() if isinstance(default, str | Path)} <= set(config.LIMITS)
    assert set(config.LIMITS) <= set(config.SCALARS)
    Protocol(**{key: config._checked_run(key, value, key) for key, value in config.PROTOCOL.items()})


def test_cut_may_be_written_both_ways_but_not_differently(matrix: Path) -> None:
    assert load(edited(matrix, '"resnet18[:3]"', '"resnet18[:3]"\ncut = 3')).backbones[1].cut == 3
    with pytest.raises(UsageError, match="contradicts cut = 4"):
        load(edited(matrix, "cut = 3", "cut = 4"))


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ("epochs = 3", "epoch = 3", 'unknown key "epoch". Did you mean "epochs"'),
        ("[settings.scratch]", "[setting.scratch]", 'unknown key "setting". Did you mean "settings"'),
        ('weights = "random"', 'weigths = "random"', 'unknown key "weigths". Did you mean "weights"'),
        ("epochs = 3", "epochs = 0", "epochs = 0: must be a whole number, at least 1"),
        ("epochs = 3", "epochs = 2.5", "epochs = 2.5: must be a whole number"),
        ("epochs = 3", "epochs = true", "epochs = true: must be a whole number"),
        ("clip = 0", "clip = nan", "clip = nan: must be a number, at least 0"),
        ("seeds = 5", "seeds = 0", "seeds = 0"),
        ("seeds = 5", "trials = 0", "trials = 0"),
        ("seeds = 5", "jobs = -1", "jobs = -1"),
        ("seeds = 5", 'device = "gpu"', 'device = "gpu": must be "auto", "cpu"'),
        ("seeds = 5", "warmup = 1.0", "at least 0 and below 1"),
        ("prune = false", "prune = 0", "prune = 0: must be true or false"),
        ('"sgd"', '"lion"', 'optimizer = "lion": must be "adamw" or "adam" or "sgd"'),
        ("[1, 0.1]", "[1, 0]", "fractions = 0.0: must be a number above 0, at most 1"),
        ("[1, 0.1]", "[1.5]", "fractions = 1.5"),
        ("[1, 0.1]", "0.5", "fractions = 0.5: must be a list"),
        ("[1, 0.1]", "[]", "at least one entry"),
        ("[28, 64]", "[28, 7]", "sizes = 7: must be a whole number, at least 8"),
        ("[28, 64]", "[28, 28]", "28 is there 2 times"),
        ("[10]", "[0]", "per_class = 0"),
        ('"scratch", ', '"scratch", 3, ', "strategies = 3: must be a non-empty string"),
        ('strategies = ["scratch", "linear_probe"]', "", "has no strategies"),
        ("[settings.scratch]", "[settings.scrath]", '"scrath" is not among strategies. Did you mean "scratch"'),
        ("lr = 1e-3", "lr = { low = 1, high = 0.1 }", "a range must be { low = .., high = .. }"),
        ("lr = 1e-3", "lr = { low = 1 }", "[settings.scratch] lr: a range must be"),
        ('"cifar"', '"imagenet"', 'stem = "imagenet": must be "" or "cifar"'),
        ("[0.5, 0.5, 0.5]", "[0.5]", "three numbers"),
        ("[0.5, 0.5, 1]", "[0.5, 0.5, 0]", "above 0"),
        ('"random"', '"imagenet"', 'weights = "imagenet": must be "hub", "random", "file:PATH"'),
        ('"random"', '"file:"', 'weights = "file:"'),
        ('"resnet18[:3]"', '"resnet18[3]"', "must be a timm name, or name[:K]"),
        ('"resnet18[:3]"', '"resnet18[:0]"', "cut = 0"),
        (
            'model = "resnet18[:3]"\nweights = "random"',
            'model = "resnet18.a1_in1k"\nstem = "cifar"',
            "Give one of them a name",
        ),
        ("[run]", "[run", "line 2"),
    ],
)
def test_every_mistake_is_named_with_the_file(matrix: Path, old: str, new: str, message: str) -> None:
    path = edited(matrix, old, new)
    with pytest.raises(UsageError) as error:
        load(path)
    assert message in str(error.value)
    assert "mine.toml" in str(error.value) or message == "Give one of them a name"


def test_the_command_line_overrides_lists_and_numbers(matrix: Path) -> None:
    got = load(str(matrix), {"strategies": ["mine"], "sizes": [128], "epochs": 9, "seeds": None, "datasets": []})
    assert got.strategies == ("mine",)
    assert got.sizes == (128,)
    assert got.protocol.epochs == 9
    assert got.seeds == 5
    assert got.datasets == load(str(matrix)).datasets
    assert got.settings == {"scratch": {"lr": 1e-3}}


def test_an_amount_on_the_command_line_replaces_both_kinds_of_amounts(matrix: Path) -> None:
    assert load(str(matrix), {"fractions": [0.5]}).amounts == (Amount(0.5),)
    assert load(str(matrix), {"per_class": [3]}).amounts == (Amount(per_class=3),)


def test_a_wrong_value_on_the_command_line_names_its_flag(matrix: Path) -> None:
    with pytest.raises(UsageError, match=r"--fraction = 2\.0"):
        load(str(matrix), {"fractions": [2.0]})


@pytest.mark.parametrize(
    ("spec", "expected"),
    [
        ("resnet18[:3] random", Backbone("resnet18", "random", cut=3)),
        ("resnet18", Backbone("resnet18", "random", cut=3)),
        ("densenet121", Backbone("densenet121")),
        ("densenet121[:2]", Backbone("densenet121", cut=2)),
        ("densenet121@random", Backbone("densenet121", "random")),
        ("densenet121@file:~/d.pth", Backbone("densenet121", "file:/home/me/d.pth")),
        ("bundled:small", Backbone("bundled:small", "bundled:small")),
        ("bundled:small[:2]", Backbone("bundled:small", "bundled:small", cut=2)),
        ("bundled:small@random", Backbone("bundled:small", "random")),
    ],
)
def test_a_backbone_is_selected_by_name_or_given_in_full(matrix: Path, spec: str, expected: Backbone) -> None:
    assert load(str(matrix), {"backbones": [spec]}).backbones == (expected,)


def test_a_weights_file_needs_its_network() -> None:
    with pytest.raises(UsageError, match=r"MODEL@file:w\.pth"):
        parse_backbone("file:w.pth")


def test_only_is_kept_for_the_plan_and_its_keys_are_checked(matrix: Path) -> None:
    assert load(str(matrix), {"only": ["dataset=breast*"]}).only == (("dataset", "breast*"),)
    with pytest.raises(UsageError, match='Did you mean "dataset"'):
        load(str(matrix), {"only": ["datset=breast*"]})
    with pytest.raises(UsageError, match="KEY=PATTERN"):
        load(str(matrix), {"only": ["dataset"]})


def test_a_missing_file_and_an_unknown_preset_are_told_apart(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="No matrix file"):
        load(str(tmp_path / "none.toml"))
    with pytest.raises(UsageError, match='Did you mean "quick"'):
        load("quik")


def test_two_weights_files_of_one_network_are_told_apart_by_name(matrix: Path) -> None:
    same = '[[backbone]]\nmodel = "resnet18"\nweights = "file:b.pth"\n'
    matrix.write_text(MATRIX + same + same.replace("b.pth", "c.pth"))
    with pytest.raises(UsageError, match="Give one of them a name"):
        load(str(matrix))
    matrix.write_text(MATRIX + same + same.replace("b.pth", "c.pth") + 'name = "resnet18 radimagenet"\n')
    assert [b.label for b in load(str(matrix)).backbones[-2:]] == ["resnet18", "resnet18 radimagenet"]
