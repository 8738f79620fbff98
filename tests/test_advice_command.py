"""`medtransfer advise`, from images to a matrix file that runs."""

from __future__ import annotations

import io
import re
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from rich.console import Console
from typer.testing import CliRunner

from bench import registry
from bench.advice import costs
from bench.advice.answer import matrix_file, told
from bench.advice.command import Asked, advise, said
from bench.advice.predicted import Prediction
from bench.advice.shortlist import Shortlist
from bench.cli import app
from bench.config import Matrix, load
from bench.contract import Backbone, Protocol
from bench.errors import DataError, UsageError
from bench.estimate import Pace
from bench.plan import make_plan
from tests.fake_reference import BACKBONES, GAINS, reference
from tests.fake_results import Row
from tests.small import CHECKOUT


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return reference(tmp_path_factory.mktemp("advice") / "reference")


@pytest.fixture
def images(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Bright and dark squares; whoever asks for the test images fails."""
    draw = np.random.default_rng(0)
    arrays = {}
    for split, count in (("train", 40), ("val", 20), ("test", 10)):
        labels = np.arange(count) % 2
        arrays[f"{split}_labels"] = labels
        pixels = draw.normal(110 + 30 * labels[:, None, None], 40, (count, 28, 28))
        arrays[f"{split}_images"] = pixels.clip(0, 255).astype(np.uint8)
    np.savez(tmp_path / "my.npz", **arrays)
    opened = type(registry.open_dataset(f"npz:{tmp_path / 'my.npz'}", Path()))
    honest = opened.load

    def guarded(self: object, split: str, size: int) -> object:
        assert split != "test"
        return honest(self, split, size)  # type: ignore[arg-type]

    monkeypatch.setattr(opened, "load", guarded)
    monkeypatch.setattr(costs, "calibrate", lambda *_: Pace(1e-3))  # a busy machine shall not change what fits a budget
    monkeypatch.chdir(tmp_path)
    return tmp_path / "my.npz"


def text_of(asked: Asked) -> str:
    console = Console(file=io.StringIO(), width=200)
    for item in said(asked, False, CHECKOUT):
        console.print(item, soft_wrap=True)
    return console.file.getvalue()  # type: ignore[attr-defined]


def test_images_become_an_answer_and_a_matrix_that_plans_and_test_is_never_read(images: Path, folder: Path) -> None:
    text = text_of(Asked(str(images), (folder,), modality="x-ray", out=Path("list.toml")))
    assert "40 training images (20 to 20 a class; imbalance 0.00 of 1), 20 for validation, 2 classes, binary" in text
    assert "LogME" in text
    assert "list.toml runs this list, about" in text
    matrix = load("list.toml")
    plan = make_plan(matrix, CHECKOUT)
    assert 1 <= len(plan.cells) <= 6
    assert not plan.skips
    assert not plan.errors
    assert "bitfit" in matrix.strategies  # planted: the best with few images
    assert matrix.datasets == (f"npz:{images}",)
    assert (matrix.sizes, matrix.protocol.epochs, matrix.protocol.trials) == ((32,), 2, 1)
    assert matrix.results == Path("results/list")


def test_images_larger_than_any_size_that_is_known_are_said_to_be(images: Path, folder: Path) -> None:
    def notes() -> list[str]:
        found = advise(Asked(str(images), (folder,), device="cpu"), CHECKOUT)
        return [note for note in found.notes if "larger" in note]

    assert notes() == []
    arrays = dict(np.load(images))
    enlarged = {name: np.kron(value, np.ones((1, 2, 2), np.uint8)) for name, value in arrays.items() if value.ndim == 3}
    np.savez(images, **arrays | enlarged)
    assert notes() == [
        "the images are 56 px a side, but the reference knows 32 px only, so nothing is said of larger ones "
        "(medtransfer run --size tries them)"
    ]


def test_other_sizes_are_told_with_the_interval_of_their_lead(images: Path, tmp_path: Path) -> None:
    def sized(one: Row) -> Row:
        return one | ({"size": 48} if one["per_class"] == 30 else {})

    text = text_of(Asked(str(images), (reference(tmp_path / "sized", sized),), device="cpu"))
    assert re.search(
        r"the highest expected AUC is 0\.\d+ at 48 px, [+−]0\.\d+ \(−0\.\d+ to \+0\.\d+\) beside that at 32 px\.", text
    )
    assert load("advice.toml").sizes == (32,)


def test_the_cheapest_is_said_to_be_expected_and_how_likely_it_is(images: Path, folder: Path) -> None:
    found = advise(Asked(str(images), (folder,), device="cpu"), CHECKOUT)
    first = np.full(100, 0.9)
    for short, likely in ((60, "likelier than not (p = 0.60)"), (40, "NOT likelier than not (p = 0.40)")):
        # In `short` of 100 draws just within 0.01, in the others so that the mean is, too.
        other = np.where(np.arange(100) < short, 0.895 if short > 50 else 0.905, 0.885)
        drawn = Prediction((("good", "x"), ("cheap", "x")), np.stack([first, other], axis=1))
        changed = replace(found, prediction=drawn, costs=[100.0, 10.0], shortlist=Shortlist((0, 1), 1))
        text = " ".join(one for one in told(changed, Path("a.toml")) if isinstance(one, str))
        assert "The cheapest that is expected to be practically as good: cheap on x" in text
        assert f"that its AUC is, too, is {likely}." in text


def test_the_whole_matrix_fits_the_budget_or_nothing_is_advised(images: Path, folder: Path) -> None:
    # Two epochs and three fits of 40 + 20 / 3 images: full fine-tuning takes 0.28 s, the cheapest a fortieth.
    tight = advise(Asked(str(images), (folder,), device="cpu", budget="0.25s"), CHECKOUT)
    assert 0 < tight.seconds <= 0.25
    assert len(tight.prediction.candidates) == (len(GAINS) - 1) * len(BACKBONES)
    assert "2 of 8 candidates do not fit --budget: the cheapest takes 0 s" in tight.notes
    with pytest.raises(UsageError, match=r"nothing to advise: .* do not fit --budget: the cheapest takes .* more time"):
        advise(Asked(str(images), (folder,), device="cpu", budget="0.001s"), CHECKOUT)


def test_a_matrix_is_written_as_it_was(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    backbone = Backbone(
        "mobilenetv2_035", "file:a \"b\".pt", 3, kwargs={"pad_type": "same", "bn_eps": 1e-3}, mean=(0.5, 0.5, 0.5),
        name="mine é",
    )  # fmt: skip
    matrix = Matrix(
        backbones=(backbone, Backbone("bundled:resnet", "bundled:resnet")), strategies=("augment_domain", "scratch"),
        datasets=("folder:a\\b",), sizes=(64,), results=Path("results/advice"), seeds=2, data_root=Path("there"),
        protocol=Protocol(epochs=3, batch_size=16, prune=False), settings={"augment_domain": {"policy": "ct"}},
    )  # fmt: skip
    Path("advice.toml").write_text(matrix_file(matrix), encoding="utf-8")
    assert load("advice.toml") == matrix


def test_what_cannot_be_advised_on_is_a_clear_error(images: Path, folder: Path) -> None:
    for asked, said_so in (
        (Asked(str(images), (folder,), modality="xray"), '--modality xray: not known. Did you mean "x-ray"'),
        (Asked("phantom-organ-a->phantom-organ-b", (folder,)), "advice is for one domain"),
        (Asked("", (folder,)), "advise needs --data"),
        (Asked(str(images), (Path("nowhere"),)), 'No results in "nowhere"'),
    ):
        with pytest.raises(UsageError, match=said_so):
            list(said(asked, False, CHECKOUT))
    with pytest.raises(UsageError, match="no such file"):
        advise(Asked("none.npz", (folder,)), CHECKOUT)
    arrays = dict(np.load(images))
    np.savez("one.npz", **arrays | {"val_labels": arrays["val_labels"] * 0})
    with pytest.raises(DataError, match="val lacks images of a class"):
        advise(Asked("one.npz", (folder,)), CHECKOUT)


def test_the_command_line_validates_and_exits_as_elsewhere(folder: Path) -> None:
    done = CliRunner().invoke(app, ["advise", "--validate", "--reference", str(folder)])
    assert done.exit_code == 0
    assert "The first of the list is better than always full_finetune" in done.output
    assert "can be loaded on this machine" not in done.output
    done = CliRunner().invoke(app, ["advise", "--reference", str(folder)])
    assert done.exit_code == 2
    assert "advise needs --data" in done.output


def test_validation_is_told_for_the_networks_of_this_machine_too(tmp_path: Path) -> None:
    def elsewhere(one: Row) -> Row:
        return one | {"weights_hash": "other"} if one["backbone"] == "bundled:resnet" else one

    folder = reference(tmp_path / "r", elsewhere)
    text = " ".join(one for one in said(Asked(reference=(folder,)), True, CHECKOUT) if isinstance(one, str))
    assert "only bundled:mobilenet can be loaded on this machine" in text
    assert text.count("The first of the list is") == 4
