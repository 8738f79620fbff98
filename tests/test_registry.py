"""Plug-ins: found by their path, broken ones named, clashes refused."""

from __future__ import annotations

import hashlib
from pathlib import Path

import pytest

from bench import registry
from bench.errors import UsageError

STRATEGY = '''
from bench.contract import Strategy

class {cls}(Strategy):
    """A test."""
    name = "{name}"
    family = "baseline"
    def space(self, trial): return {{"lr": 1.0}}
    def defaults(self): return {{"lr": 1.0}}
    def fit(self, task, hparams, run): return {value}
'''


def write(workspace: Path, file: str, text: str) -> Path:
    path = workspace / file
    path.parent.mkdir(exist_ok=True)
    path.write_text(text)
    return path


def strategy(name: str, value: str = "None") -> str:
    return STRATEGY.format(cls=name.title().replace("_", ""), name=name, value=value)


def test_a_file_in_the_workspace_is_the_whole_installation(tmp_path: Path) -> None:
    path = write(tmp_path, "strategies/mine.py", strategy("mine", "42"))
    assert registry.load_strategy("mine", tmp_path).fit(None, {}, None) == 42
    assert set(registry.strategies(tmp_path)) == {*registry.strategies(tmp_path / "elsewhere"), "mine"}
    assert registry.source_hash("mine", tmp_path) == hashlib.sha256(path.read_bytes()).hexdigest()


def test_an_edit_is_seen_even_within_the_same_second(tmp_path: Path) -> None:
    write(tmp_path, "strategies/mine.py", strategy("mine", "1"))
    before = registry.source_hash("mine", tmp_path)
    assert registry.load_strategy("mine", tmp_path).fit(None, {}, None) == 1
    write(tmp_path, "strategies/mine.py", strategy("mine", "2"))
    assert registry.load_strategy("mine", tmp_path).fit(None, {}, None) == 2
    assert registry.source_hash("mine", tmp_path) != before


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("x = \n", "line 1: invalid syntax"),
        ("import bench\nbench.nothing\n", "line 2: AttributeError"),
        ("import no_such_library\n", "no_such_library"),
        ("x = 1\n", "no subclass of bench.contract.Strategy"),
        (strategy("bad").replace('    name = "bad"\n', ""), "class Bad has no name"),
        (strategy("bad").replace('    family = "baseline"\n', ""), "class Bad has no family"),
        (strategy("bad").replace("def fit(", "def fit_it("), "fit"),
    ],
)
def test_a_broken_file_is_named_and_the_others_go_on(tmp_path: Path, text: str, reason: str) -> None:
    write(tmp_path, "strategies/good.py", strategy("good"))
    path = write(tmp_path, "strategies/bad.py", text)
    assert "good" in registry.strategies(tmp_path)
    assert reason in registry.broken(tmp_path)[path]
    with pytest.raises(UsageError, match=r"strategy bad cannot be loaded: .*bad\.py"):
        registry.load_strategy("bad", tmp_path)


def test_of_two_files_with_one_name_the_second_is_left_out_and_asking_for_it_names_both(tmp_path: Path) -> None:
    write(tmp_path, "strategies/first.py", strategy("same"))
    second = write(tmp_path, "strategies/second.py", strategy("same"))
    assert "scratch" in registry.strategies(tmp_path)
    assert "first.py" in registry.broken(tmp_path)[second]
    with pytest.raises(UsageError, match=r'"same".*first\.py.*second\.py'):
        registry.load_strategy("same", tmp_path)


def test_a_workspace_edits_a_copy_of_a_built_in_file(tmp_path: Path) -> None:
    copy = write(tmp_path, "strategies/scratch.py", strategy("scratch", '"edited"'))
    assert registry.load_strategy("scratch", tmp_path).fit(None, {}, None) == "edited"
    assert registry.source("scratch", tmp_path) == copy


def test_a_built_in_name_cannot_be_taken_by_another_file(tmp_path: Path) -> None:
    other = write(tmp_path, "strategies/other.py", strategy("scratch"))
    assert registry.load_strategy("linear_probe", tmp_path)
    assert type(registry.strategies(tmp_path)["scratch"]).__name__ == "Scratch"
    assert list(registry.broken(tmp_path)) == [other]
    with pytest.raises(UsageError, match=r'"scratch".*scratch\.py.*other\.py'):
        registry.load_strategy("scratch", tmp_path)


def test_private_files_and_imported_classes_are_not_plugins(tmp_path: Path) -> None:
    write(tmp_path, "strategies/_private.py", strategy("private"))
    write(tmp_path, "strategies/mine.py", "from bench.finetune import FineTune\n" + strategy("mine"))
    assert set(registry.strategies(tmp_path)) - set(registry.strategies(tmp_path / "none")) == {"mine"}


def test_unknown_names_are_answered_with_the_nearest(tmp_path: Path) -> None:
    write(tmp_path, "strategies/prompted.py", strategy("prompted"))
    with pytest.raises(UsageError, match='Did you mean "prompted"'):
        registry.load_strategy("promptd", tmp_path)


DATASET = """
import numpy as np
from bench.contract import Dataset, Info, Split
PREFIX = "{prefix}"
def names(): return {names}
class D(Dataset):
    def __init__(self, *args): self.args = args
    def load(self, split, size): raise NotImplementedError
    def content_hash(self, size): return ""
def open_dataset(name, root, seed, source_size): return D(name, root, seed, source_size)
"""


def test_a_dataset_is_opened_by_name_or_prefix(tmp_path: Path) -> None:
    write(tmp_path, "datasets/toys.py", DATASET.format(prefix="toy:", names=["blocks"]))
    for name in ("blocks", "toy:C:/a:b"):
        assert registry.open_dataset(name, tmp_path, 3, 64, tmp_path).args == (name, tmp_path, 3, 64)
    with pytest.raises(UsageError, match=r'No dataset "block".*Did you mean "blocks"'):
        registry.open_dataset("block", tmp_path, workspace=tmp_path)


def test_a_dataset_file_without_names_is_broken(tmp_path: Path) -> None:
    path = write(tmp_path, "datasets/toys.py", DATASET.format(prefix="", names=[]))
    assert "PREFIX" in registry.broken(tmp_path)[path]
