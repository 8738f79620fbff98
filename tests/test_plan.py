"""Fingerprints: a cell is new when anything that determines its result is, and only then."""

from __future__ import annotations

import re
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from rich.console import Console

from bench import store
from bench.config import Amount
from bench.contract import Backbone, Protocol
from bench.describe import describe
from bench.errors import UsageError
from bench.plan import make_plan
from tests.small import CHECKOUT, NET, matrix
from tests.test_bad_input import arrays

STRATEGY = '''
from bench.finetune import FineTune

class Mine(FineTune):
    """Mine."""
    name = "mine"
    family = "fine-tuning"
'''


def prints(tmp_path: Path, workspace: Path = CHECKOUT, **changes: object) -> dict[str, str]:
    return {cell.label: cell.fingerprint for cell in make_plan(matrix(tmp_path, **changes), workspace).cells}


def test_a_matrix_becomes_its_product(tmp_path: Path) -> None:
    amounts = (Amount(), Amount(per_class=10))
    plan = make_plan(matrix(tmp_path, sizes=(32, 48), amounts=amounts), CHECKOUT)
    assert len(plan.cells) == 3 * 2 * 2
    assert len({cell.fingerprint for cell in plan.cells}) == 12
    assert plan.missing(plan.cells[0]) == [0, 1]


@pytest.mark.parametrize(
    "changes",
    [
        {"protocol": Protocol(epochs=3, trials=3, batch_size=64)},
        {"sizes": (33,)},
        {"amounts": (Amount(fraction=0.5),)},
        {"split_seed": 1},
        {"backbones": (replace(NET, kwargs={"drop_rate": 0.1}),)},
        {"datasets": ("phantom-organ-a",)},
        {"settings": {name: {"lr": 0.5} for name in ("scratch", "linear_probe", "full_finetune")}},
    ],
)
def test_what_changes_a_result_changes_the_fingerprint(tmp_path: Path, changes: dict[str, object]) -> None:
    assert not set(prints(tmp_path).values()) & set(prints(tmp_path, **changes).values())


@pytest.mark.parametrize("changes", [{"seeds": 5}, {"jobs": 2}])
def test_what_does_not_change_a_result_does_not(tmp_path: Path, changes: dict[str, object]) -> None:
    assert set(prints(tmp_path).values()) == set(prints(tmp_path, **changes).values())


def test_cells_that_a_row_tells_apart_have_fingerprints_of_their_own(tmp_path: Path) -> None:
    """Training from scratch is the same beside either file of weights for one network, but two rows."""
    twice = tuple(replace(NET, name=name) for name in ("one", "other"))
    cells = make_plan(matrix(tmp_path, backbones=twice), CHECKOUT).cells
    assert len({cell.fingerprint for cell in cells}) == len(cells) == 6


def test_an_edited_strategy_reruns_its_own_cells_only(tmp_path: Path) -> None:
    workspace = tmp_path / "workspace"
    (workspace / "strategies").mkdir(parents=True)
    file = workspace / "strategies/mine.py"
    file.write_text(STRATEGY)
    before = prints(tmp_path, workspace, strategies=("scratch", "mine"))
    file.write_text(STRATEGY + "# edited\n")
    after = prints(tmp_path, workspace, strategies=("scratch", "mine"))
    changed = [label for label in before if before[label] != after[label]]
    assert len(changed) == 1
    assert changed[0].endswith("mine")


def test_missing_weights_fail_their_own_cells_only_and_scratch_needs_none(tmp_path: Path) -> None:
    absent = Backbone("test_resnet", weights=f"file:{tmp_path}/nowhere.safetensors", name="absent")
    plan = make_plan(matrix(tmp_path, backbones=(NET, absent)), CHECKOUT)
    failed = {cell.label.split(" · ", 1)[1] for cell in plan.errors}
    assert failed == {"absent · linear_probe", "absent · full_finetune"}
    assert "nowhere.safetensors" in plan.errors[0].error


def test_unreadable_data_fails_its_own_cells_only(tmp_path: Path) -> None:
    (tmp_path / "torn.npz").write_bytes(b"PK")
    plan = make_plan(matrix(tmp_path, datasets=(f"npz:{tmp_path}/torn.npz", "phantom-organ-a")), CHECKOUT)
    assert len(plan.errors) == 3
    assert all("torn.npz" in cell.error for cell in plan.errors)


def test_more_images_of_a_class_than_there_are_is_said(tmp_path: Path) -> None:
    images = np.zeros((40, 12, 12), dtype=np.uint8)
    parts = {f"{split}_{what}": part for split in ("train", "val", "test")
             for what, part in (("images", images), ("labels", np.arange(40) % 10 // 9))}  # fmt: skip
    np.savez(tmp_path / "own.npz", **parts)
    own = f"npz:{tmp_path}/own.npz"
    plan = make_plan(matrix(tmp_path, datasets=(own,), amounts=(Amount(per_class=9),)), CHECKOUT)
    assert f'{own}: "1" has 4 training images: 9 a class is all of them' in plan.notes
    plan = make_plan(matrix(tmp_path, datasets=(own,), amounts=(Amount(), Amount(fraction=0.04))), CHECKOUT)
    assert f'{own}: fraction 0.04 leaves 1 of 36 training images of "0"' in plan.notes
    plan = make_plan(matrix(tmp_path, datasets=(own,), amounts=(Amount(fraction=0.25),)), CHECKOUT)
    assert f'{own}: fraction 0.25 leaves 1 of 4 training images of "1"' in plan.notes
    plan = make_plan(matrix(tmp_path, datasets=(own,), amounts=(Amount(fraction=0.5),)), CHECKOUT)
    assert not [note for note in plan.notes if "leaves 1" in note]


def test_random_weights_are_said_aloud(tmp_path: Path) -> None:
    plan = make_plan(matrix(tmp_path), CHECKOUT)
    assert any("RANDOM WEIGHTS" in note for note in plan.notes)
    assert all("random weights" in cell.notes for cell in plan.cells if cell.strategy != "scratch")


def test_only_chooses_cells_and_brackets_are_plain(tmp_path: Path) -> None:
    cut = replace(NET, cut=2)
    chosen = make_plan(
        matrix(tmp_path, backbones=(NET, cut), only=(("backbone", "*[:2]*"), ("strategy", "*probe"))), CHECKOUT
    )
    assert [cell.strategy for cell in chosen.cells] == ["linear_probe"]
    assert chosen.cells[0].backbone == cut
    either = (("strategy", "linear_probe"), ("backbone", "*[:2]*"), ("strategy", "scratch"))
    of_one = make_plan(matrix(tmp_path, backbones=(NET, cut), only=either), CHECKOUT).cells
    assert [(cell.strategy, cell.backbone) for cell in of_one] == [("scratch", cut), ("linear_probe", cut)]
    with pytest.raises(UsageError, match=r"--only dataset=nothing: .* Valid for dataset: phantom-radiograph\."):
        make_plan(matrix(tmp_path, only=(("dataset", "nothing"),)), CHECKOUT)


def test_only_compares_amounts_as_numbers_and_takes_no_number_of_images_for_a_fraction(tmp_path: Path) -> None:
    amounts = (Amount(), Amount(0.2), Amount(per_class=10))

    def chosen(*only: tuple[str, str]) -> list[Amount]:
        facts = matrix(tmp_path, strategies=("scratch",), amounts=amounts, only=only)
        return [cell.amount for cell in make_plan(facts, CHECKOUT).cells]

    assert chosen(("fraction", "1")) == [Amount()]
    assert chosen(("fraction", ".2")) == chosen(("fraction", "0.20")) == [Amount(0.2)]
    assert chosen(("fraction", "*")) == [Amount(), Amount(0.2)]
    assert chosen(("per_class", "1*")) == [Amount(per_class=10)]
    with pytest.raises(UsageError, match=r"Valid for fraction: 1, 0\.2\. Valid for per_class: 10\."):
        chosen(("fraction", "0.2"), ("per_class", "10"))


def test_the_plan_counts_what_only_chose_and_notes_name_their_datasets(tmp_path: Path) -> None:
    names = [f"npz:{tmp_path}/{name}.npz" for name in ("one", "two")]
    for name in names:
        np.savez(name.removeprefix("npz:"), **arrays())
    plan = make_plan(matrix(tmp_path, datasets=("phantom-fundus", *names), only=(("dataset", "npz:*"),)), CHECKOUT)
    assert f"{names[0]}, {names[1]}: split as given" in plan.notes
    assert "split as given" not in plan.notes
    console = Console(width=200)
    with console.capture() as capture:
        describe(plan, console)
    assert capture.get().startswith("6 cells: 3 strategies x 1 backbone x 2 datasets x 1 size x 1 amount of data;")


def test_done_rows_are_not_planned_again(tmp_path: Path) -> None:
    cell = make_plan(matrix(tmp_path), CHECKOUT).cells[0]
    store.publish(tmp_path, {"fingerprint": cell.fingerprint, "seed": 0, "status": "ok"})
    store.publish(tmp_path, {"fingerprint": cell.fingerprint, "seed": 1, "status": "failed"})
    assert make_plan(matrix(tmp_path), CHECKOUT).missing(cell) == [1]


@pytest.mark.parametrize("content", [b"", b'{"status": "ok", "lr": 0.0'])
def test_a_row_that_was_cut_off_is_run_again(tmp_path: Path, content: bytes) -> None:
    cell = make_plan(matrix(tmp_path), CHECKOUT).cells[0]
    for seed in range(2):
        store.publish(tmp_path, {"fingerprint": cell.fingerprint, "seed": seed, "status": "ok"})
    (tmp_path / "cells" / f"{cell.fingerprint}-s0.json").write_bytes(content)
    assert make_plan(matrix(tmp_path), CHECKOUT).missing(cell) == [0]


def test_a_network_that_cannot_take_so_small_an_image_is_skipped_with_the_reason(tmp_path: Path) -> None:
    deep = Backbone("densenet121", weights="random")
    plan = make_plan(matrix(tmp_path, backbones=(deep,), sizes=(16,), strategies=("scratch",)), CHECKOUT)
    [cell] = plan.skips
    assert "densenet121 random cannot take images of 16 px" in cell.skip


def test_a_network_of_one_size_is_no_fault_of_the_strategies(tmp_path: Path) -> None:
    transformer = Backbone("vit_tiny_patch16_224", weights="random")
    plan = make_plan(matrix(tmp_path, backbones=(transformer,), sizes=(32,)), CHECKOUT)
    [reason] = {cell.skip for cell in plan.cells}
    said = r"\S+ random cannot take images of 32 px \(.*[^.]\): medtransfer is for convolutional networks, .*"
    assert re.fullmatch(said, reason)


def test_a_setting_of_no_hyperparameter_is_an_error_with_the_nearest_one(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match=r'settings\.linear_probe.*"weight_deca".*weight_decay'):
        make_plan(matrix(tmp_path, settings={"linear_probe": {"weight_deca": 0.1}}), CHECKOUT)
