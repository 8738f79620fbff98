"""The training loop: schedules, freezing, selection of the best epoch, divergence."""

from __future__ import annotations

import math
from dataclasses import replace

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from bench.best import Best, margin_of
from bench.check import BACKBONE, new_run, phantom_task, state_digest
from bench.contract import Protocol
from bench.errors import Diverged
from bench.finetune import FineTune, Group
from bench.images import predict
from bench.run import seeded
from bench.train import lr_factor, val_scores
from bench.validation import quarter, validated

FAST = Protocol(epochs=3, batch_size=16)


class Whole(FineTune):
    name = "whole"


def test_schedules() -> None:
    cosine = Protocol(warmup=0.1)
    assert lr_factor(0.05, cosine) == pytest.approx(0.5)
    assert lr_factor(0.1, cosine) == pytest.approx(1.0)
    assert lr_factor(0.55, cosine) == pytest.approx(0.5)
    assert lr_factor(1.0, cosine) == pytest.approx(0.0, abs=1e-12)
    step = Protocol(warmup=0.0, schedule="step")
    assert [lr_factor(p, step) for p in (0.0, 0.49, 0.5, 0.74, 0.75, 0.99)] == [1, 1, 0.1, 0.1, 0.01, 0.01]


def test_frozen_stages_keep_their_hash_statistics_included() -> None:
    class HeadOnly(FineTune):
        name = "head_only"

        def param_groups(self, net, task, hparams, run, epoch):
            return [Group(list(net.head.parameters()))]

    kept = {}

    class Watching(HeadOnly):
        def build(self, task, hparams, run):
            net = super().build(task, hparams, run)
            kept["before"], kept["net"] = state_digest(net.features), net
            kept["head"] = state_digest(net.head)
            return net

    task = phantom_task("multi-class")
    Watching().fit(task, {"lr": 0.01}, new_run(protocol=FAST))
    assert state_digest(kept["net"].features) == kept["before"]
    assert state_digest(kept["net"].head) != kept["head"]


def test_whole_network_trains_and_its_statistics_move() -> None:
    kept = {}

    class Watching(Whole):
        def finish(self, net, task, hparams, run):
            kept["net"] = net
            return super().finish(net, task, hparams, run)

    task, run = phantom_task("binary"), new_run(protocol=FAST)
    before = run.network(task.outputs).state_dict()
    Watching().fit(task, {"lr": 0.01}, run)
    after = kept["net"].state_dict()
    unmoved = [name for name in before if torch.equal(before[name], after[name])]
    assert unmoved == []
    assert run.meter.images_seen == 3 * len(task.train)
    assert run.meter.params_trained == run.meter.params_total == sum(p.numel() for p in kept["net"].parameters())


def test_the_network_of_the_best_epoch_is_returned() -> None:
    task = phantom_task("multi-class")
    seen = []
    run = new_run(protocol=Protocol(epochs=6, batch_size=8)).fresh(1, lambda epoch, auc, loss: seen.append((auc, loss)))
    with seeded(1, run.device):
        predictor = Whole().fit(task, {"lr": 0.03}, run)
    auc, loss = val_scores(predict(predictor, task.val), task.val, task)
    best = Best(margin_of(task, run.protocol))
    taken = [score for score in seen if best.takes(*score)]
    assert (auc, loss) == pytest.approx(taken[-1])
    assert run.meter.curve == [auc for auc, _ in seen]


@given(epochs=st.integers(1, 60), train=st.integers(1, 300), val=st.integers(1, 300))
def test_val_is_predicted_no_more_often_than_training_is_worth(epochs: int, train: int, val: int) -> None:
    asked = validated(epochs, train, val)
    assert {0, quarter(epochs), epochs - 1} <= asked <= set(range(epochs))
    assert (len(asked) - 3) * val <= epochs * train
    if train >= val:
        assert asked == set(range(epochs))


def test_a_fit_on_few_images_is_validated_seldom_and_keeps_the_best_of_those_epochs() -> None:
    class Counting(Whole):
        def predictor(self, net, task, run):
            asked.append(run.meter.images_seen // len(task.train))
            return super().predictor(net, task, run)

    asked: list[int] = []
    task = phantom_task("binary", images=6)
    task = replace(task, val=phantom_task("binary", images=30).train)
    run = new_run(protocol=Protocol(epochs=12, batch_size=6))
    predictor = Counting().fit(task, {"lr": 0.01}, run)
    assert asked[:-1] == [1, 3, 5, 10, 12]  # the last is the one that is returned
    assert len(run.meter.curve) == 12
    assert run.meter.curve[5:9] == [run.meter.curve[4]] * 4
    assert val_scores(predict(predictor, task.val), task.val, task)[0] in run.meter.curve


class Still(FineTune):
    """Nothing moves, so no epoch after the first is better."""

    name = "still"
    backbone_scale = 0.0

    def param_groups(self, net, task, hparams, run, epoch):
        return [Group(list(net.head.parameters()), 0.0, 0.0)]


def test_patience_ends_a_fit_that_no_longer_gets_better() -> None:
    run = new_run(protocol=Protocol(epochs=9, batch_size=16, patience=2))
    Still().fit(phantom_task("binary"), {"lr": 0.01}, run)
    assert len(run.meter.curve) == 3


def test_patience_does_not_end_a_fit_for_one_look_at_a_large_val() -> None:
    task = phantom_task("binary", images=6)
    task = replace(task, val=phantom_task("binary", images=72).train)
    run = new_run(protocol=Protocol(epochs=50, batch_size=16, patience=10))
    assert sorted(validated(50, 6, 72))[:4] == [0, 11, 12, 23]
    Still().fit(task, {"lr": 0.01}, run)
    assert len(run.meter.curve) == 13


def test_a_non_finite_loss_is_a_divergence_with_its_epoch_and_rate() -> None:
    class Bad(FineTune):
        name = "bad"

        def loss(self, net, images, labels, task, hparams, run):
            return net(images).sum() * math.nan

    with pytest.raises(Diverged, match=r"epoch 1 at lr 0\.01"):
        Bad().fit(phantom_task("binary"), {"lr": 0.01}, new_run(protocol=FAST))


def test_groups_that_join_later_keep_the_moments_of_those_that_were_there() -> None:
    class HeadFirst(FineTune):
        name = "head_first"

        def param_groups(self, net, task, hparams, run, epoch):
            head = Group(list(net.head.parameters()))
            return [head] if epoch == 0 else [head, Group(list(net.features.parameters()), 0.1)]

    digests = []

    class Watching(HeadFirst):
        def loss(self, net, images, labels, task, hparams, run):
            digests.append(state_digest(net.features))
            return super().loss(net, images, labels, task, hparams, run)

    run = new_run(protocol=Protocol(epochs=2, batch_size=64))
    Watching().fit(phantom_task("binary"), {"lr": 0.01}, run)
    assert digests[0] == digests[1]  # frozen in the first epoch, statistics too
    assert run.meter.params_trained == run.meter.params_total


def test_dropout_and_shuffling_come_from_the_seed_alone() -> None:
    task = phantom_task("ordinal")

    def logits(seed: int) -> torch.Tensor:
        run = new_run(seed, BACKBONE, FAST)
        with seeded(seed, run.device):
            return predict(Whole().fit(task, {"lr": 0.01}, run), task.val)

    before = torch.random.get_rng_state()
    first = logits(1)
    assert torch.equal(before, torch.random.get_rng_state())
    torch.rand(5)
    assert torch.equal(first, logits(1))
    assert not torch.equal(first, logits(2))
