"""Pretraining: what it writes loads strictly, it learns, and an interruption changes nothing."""

from __future__ import annotations

import io
import json
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors.torch import load_file
from typer.testing import CliRunner

from bench import cli
from bench.backbones import build_features
from bench.contract import Backbone
from bench.errors import DataError, UsageError
from bench.natural import load_natural
from bench.pretrain import pretrain
from bench.recipe import Recipe, load_recipe
from tests.small import picture

COLOURS = np.array([[200, 40, 40], [40, 200, 40], [40, 40, 200]], dtype=np.uint8)


def encoded(path: Path, train: int = 60, val: int = 15, form: str = "png") -> Path:
    """Noisy images of three colours, which are the classes, as an .npz of encoded files."""
    draw, arrays = np.random.default_rng(0), {"class_names": np.array(["red", "green", "blue"])}
    for split, count in (("train", train), ("val", val)):
        labels = np.arange(count) % 3
        files = []
        for label in labels:
            noise = draw.integers(-40, 40, (24, 24, 3))
            buffer = io.BytesIO()
            Image.fromarray((COLOURS[label] + noise).clip(0, 255).astype(np.uint8)).save(buffer, form)
            files.append(buffer.getvalue())
        arrays[f"{split}_{form}_bytes"] = np.frombuffer(b"".join(files), dtype=np.uint8)
        arrays[f"{split}_offsets"] = np.cumsum([0, *map(len, files)])
        arrays[f"{split}_labels"] = labels
    np.savez(path, **arrays)
    return path


@pytest.fixture
def recipe(tmp_path: Path, own_cache: None) -> Recipe:
    return Recipe(
        images=f"npz:{encoded(tmp_path / 'natural.npz')}",
        backbones=(Backbone("test_resnet", "random", name="small"),),
        teachers=(Backbone("resnet10t", "random", cut=1),),
        epochs=4,
        size=20,
        batch_size=16,
        teacher_size=24,
        jitter=0.1,
        device="cpu",
        out=str(tmp_path / "out"),
    )


def test_it_learns_and_what_it_writes_loads_strictly(recipe: Recipe) -> None:
    pretrain(recipe, lambda text: None)
    out = Path(recipe.out)
    network = build_features(Backbone("test_resnet", f"file:{out / 'small.safetensors'}"), 0)
    head = load_file(out / "small.head.safetensors")
    assert {value.dtype for value in load_file(out / "small.safetensors").values()} == {torch.float16}
    facts = json.loads((out / "small.json").read_text())
    assert facts["val_accuracy"] > 0.9
    # The accuracy in the facts is that of the files.
    natural = load_natural(recipe.images, 24)
    images = torch.from_numpy(natural.images["val"]).permute(0, 3, 1, 2).float() / 255
    mean, std = torch.tensor([0.485, 0.456, 0.406])[:, None, None], torch.tensor([0.229, 0.224, 0.225])[:, None, None]
    with torch.inference_mode():
        features = network.eval()((images - mean) / std)
    named = (features @ head["weight"].float().T + head["bias"].float()).argmax(1)
    assert float((named == torch.from_numpy(natural.labels["val"])).float().mean()) == facts["val_accuracy"]
    losses = [json.loads(line)["teacher_loss"] for line in (out / "small.log.jsonl").read_text().splitlines()]
    assert len(losses) == recipe.epochs
    assert losses[-1] < losses[0]


def test_an_interrupted_pretraining_equals_an_uninterrupted_one(recipe: Recipe, tmp_path: Path) -> None:
    pretrain(recipe, lambda text: None)
    broken = Recipe(**{**vars(recipe), "out": str(tmp_path / "broken")})

    def interrupt(text: str) -> None:
        if "epoch 2 of" in text:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        pretrain(broken, interrupt)
    said: list[str] = []
    pretrain(broken, said.append)
    assert any("going on after epoch 2" in text for text in said)
    assert not any(text.startswith("teacher") for text in said)  # its features were kept
    for file in ("small.safetensors", "small.head.safetensors"):
        assert (Path(recipe.out) / file).read_bytes() == (Path(broken.out) / file).read_bytes()


def test_a_finished_network_is_not_trained_again_and_another_recipe_does_not_go_on_from_a_checkpoint(
    recipe: Recipe,
) -> None:
    def interrupt(text: str) -> None:
        if "epoch 1 of" in text:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        pretrain(recipe, interrupt)
    said: list[str] = []
    pretrain(Recipe(**{**vars(recipe), "lr": 1e-4, "epochs": 1}), said.append)
    assert not any("going on" in text for text in said)
    said.clear()
    pretrain(recipe, said.append)
    assert len(said) == 1
    assert "finished" in said[0]


def test_natural_images_come_from_a_folder_too(tmp_path: Path, own_cache: None) -> None:
    for label in ("cat", "dog"):
        for index in range(10):
            picture(tmp_path / "photos" / label / f"{index}.png", (12, 12, 3))
    natural = load_natural(f"folder:{tmp_path / 'photos'}", 16)
    assert natural.classes == ("cat", "dog")
    assert natural.images["train"].shape[1:] == (16, 16, 3)
    assert len(natural.images["train"]) + len(natural.images["val"]) < 20  # the others are a test split, not used


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"train_offsets": np.array([0, 5])}, "do not divide"),
        ({"train_png_bytes": np.zeros(100_000, dtype=np.uint8)}, "image 0 of train cannot be read"),
        ({"class_names": np.array(["red"])}, "1 names for 3 classes"),
    ],
)
def test_a_damaged_file_of_encoded_images_is_an_error(
    tmp_path: Path, change: dict[str, np.ndarray], message: str
) -> None:
    path = encoded(tmp_path / "natural.npz")
    np.savez(path, **{**np.load(path), **change})
    with pytest.raises(DataError, match=message):
        load_natural(f"npz:{path}", 24)


def test_gray_images_are_refused(tmp_path: Path) -> None:
    labels = np.arange(6) % 2
    arrays = {f"{split}_images": np.zeros((6, 8, 8), dtype=np.uint8) for split in ("train", "val", "test")}
    np.savez(tmp_path / "gray.npz", **arrays, **{f"{split}_labels": labels for split in ("train", "val", "test")})
    with pytest.raises(DataError, match="in colour"):
        load_natural(f"npz:{tmp_path / 'gray.npz'}", 8)


def test_the_recipe_of_the_bundled_weights_is_valid() -> None:
    path = Path(cli.__file__).parent / "weights" / "recipe.toml"
    recipe = load_recipe(path, {"epochs": 3, "images": None})
    assert recipe.epochs == 3
    assert [backbone.name for backbone in recipe.backbones] == ["resnet", "mobilenet", "convnext"]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("[pretrain]\nimages = 'npz:x'\nepoch = 3", 'unknown key "epoch". Did you mean "epochs"'),
        ("[pretrain]\nimages = 'npz:x'", r"no \[\[backbone\]\]"),
        ("[[backbone]]\nmodel = 'a'\nname = 'b'\nweights = 'random'", "no images"),
        ("[pretrain]\nimages = 'npz:x'\n[[backbone]]\nmodel = 'a'\nweights = 'random'", "needs a name"),
    ],
)
def test_a_wrong_recipe_says_what_is_wrong(tmp_path: Path, text: str, message: str) -> None:
    (tmp_path / "r.toml").write_text(text)
    with pytest.raises(UsageError, match=message):
        load_recipe(tmp_path / "r.toml", {})


def test_the_command_pretrains(tmp_path: Path, recipe: Recipe) -> None:
    (tmp_path / "r.toml").write_text(
        f'[pretrain]\nimages = "{recipe.images}"\nsize = 20\n'
        '[[backbone]]\nmodel = "test_resnet"\nname = "one"\nweights = "random"\n'
    )
    words = ["pretrain", str(tmp_path / "r.toml"), "--epochs", "1", "--out", str(tmp_path / "o"), "--device", "cpu"]
    result = CliRunner().invoke(cli.app, words)
    assert result.exit_code == 0, result.output
    assert "epoch 1 of 1" in result.stdout
    assert (tmp_path / "o" / "one.safetensors").exists()
    missing = CliRunner().invoke(cli.app, ["pretrain", str(tmp_path / "none.toml")])
    assert missing.exit_code == 2
    assert "none.toml" in missing.stderr
