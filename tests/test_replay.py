"""Which strategies' steps a GPU may record, and what a recorded step reads."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from bench import registry
from bench.adaptation import Adaptation, second_images
from bench.check import new_run, phantom_task
from bench.finetune import FineTune, ProbedFineTune, plain, steady
from bench.replay import Replay
from bench.train import train
from tests.small import CHECKOUT

WAITING = {"bss", "self_training", "trivial_augment"}
"""What these do in a step cannot be recorded: they ask the GPU for values, or draw images in the step itself."""


def test_the_steps_of_all_strategies_but_three_may_be_recorded() -> None:
    gradient = {n: one for n, one in registry.strategies(CHECKOUT).items() if isinstance(one, FineTune)}
    assert {name for name, one in gradient.items() if not steady(one)} == WAITING


def test_a_class_that_adds_to_a_step_has_to_say_that_it_may_be_recorded() -> None:
    class Slow(FineTune):
        lr = (1e-6, 1e-5, 1e-4)

        def finish(self, *_: Any) -> Any: ...

    class Counts(Slow):
        def loss(self, *_: Any) -> Any: ...

    class Declared(Slow):
        steady = True

        def loss(self, *_: Any) -> Any: ...

    class OnTop(Declared):
        def helper(self) -> Any: ...

    class Inserted(FineTune):
        def build(self, *_: Any) -> Any: ...

    class OtherGap(Adaptation):
        def gap(self, *_: Any) -> Any: ...

    class Probed(ProbedFineTune): ...

    told = {kind.__name__: steady(kind()) for kind in (Slow, Counts, Declared, OnTop, Inserted, OtherGap, Probed)}
    assert told == {
        "Slow": True, "Counts": False, "Declared": True, "OnTop": False, "Inserted": False, "OtherGap": False,
        "Probed": True,
    }  # fmt: skip


def test_val_is_predicted_by_a_recording_only_where_the_network_itself_predicts_it() -> None:
    def found(name: str) -> FineTune:
        strategy = registry.load_strategy(name, CHECKOUT)
        assert isinstance(strategy, FineTune)
        return strategy

    told = {name: plain(found(name)) for name in ("full_finetune", "lp_ft", "ema", "dsbn", "bss")}
    assert told == {"full_finetune": True, "lp_ft": True, "ema": False, "dsbn": False, "bss": False}


def test_the_mark_is_no_other_strategy(tmp_path: Path) -> None:
    folder = tmp_path / "strategies"
    folder.mkdir()
    text = (CHECKOUT / "strategies" / "l2_sp.py").read_text()
    assert "    steady = True\n" in text
    hashes = []
    for one in (text, text.replace("    steady = True\n", ""), text.replace("BETA = 0.01", "BETA = 0.02")):
        (folder / "mine.py").write_text(one.replace('name = "l2_sp"', 'name = "mine"'))
        hashes.append(registry.source_hash("mine", tmp_path))
    assert hashes[0] == hashes[1] != hashes[2]


def test_on_a_cpu_a_function_is_called_each_time() -> None:
    called = []

    def compute(values: Tensor) -> Tensor:
        called.append(len(values))
        return values + 1

    replay = Replay(compute, torch.device("cpu"))
    assert [replay(torch.full((2,), float(n))).tolist() for n in range(4)] == [[n + 1.0] * 2 for n in range(4)]
    assert called == [2] * 4


def test_a_step_takes_the_second_images_that_were_drawn_for_it_whole_or_in_parts() -> None:
    task, run = phantom_task("multi-class"), new_run()
    assert task.second is not None
    drawn, taken = second_images(task, run), second_images(task, run)
    first, following = taken.take(6), taken.take(5)
    drawn.draw(6)
    place = drawn.drawn
    assert torch.equal(torch.cat([drawn.take(4), drawn.take(2)]), first)
    assert torch.equal(drawn.take(6), first), "a step that did not fit takes its images once more"
    drawn.draw(5)
    assert torch.equal(drawn.take(5), following)
    drawn.draw(6)
    assert drawn.drawn is place, "a recorded step reads them where they were"


def test_training_sees_second_images_of_an_order_that_its_seed_decides(monkeypatch: pytest.MonkeyPatch) -> None:
    task = phantom_task("multi-class")
    strategy = registry.load_strategy("coral", CHECKOUT)
    assert isinstance(strategy, Adaptation)
    seen: list[Tensor] = []
    for _ in range(2):
        run = new_run()
        net = strategy.build(task, strategy.defaults(), run)
        second, take = net.memo["second"], net.memo["second"].take
        monkeypatch.setattr(second, "take", lambda count, take=take: seen.append(take(count)) or seen[-1])
        train(net, strategy, task, strategy.defaults(), run)
    half = len(seen) // 2
    assert half == 2 * 2  # steps of two epochs
    assert all(map(torch.equal, seen[:half], seen[half:]))
    again = second_images(task, new_run())
    assert torch.equal(torch.cat(seen[:half]), again.take(sum(map(len, seen[:half]))))
