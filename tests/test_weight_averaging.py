"""Averaged weights are what their papers say: the right mean of the right weights, under statistics of their own."""

from __future__ import annotations

import copy
import json
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from rich.console import Console
from torch import nn
from torch.optim.swa_utils import update_bn

from bench import registry, store
from bench.averaging import interpolate, mean, reestimate_norms, snapshot
from bench.check import BACKBONE, new_run, phantom_task
from bench.contract import Backbone, Protocol
from bench.errors import Diverged
from bench.executors import execute
from bench.finetune import Group
from bench.images import predict
from bench.plan import make_plan
from bench.probe import probe_head
from bench.run import seeded
from bench.train import rank, train, val_scores
from tests.small import CHECKOUT, matrix

TASK = phantom_task("multi-class", images=24)
FAST = Protocol(epochs=2, trials=2, batch_size=8)
LAYERNORM = Backbone("test_convnext", weights="random")


def cls(name: str) -> type:
    return type(registry.load_strategy(name, CHECKOUT))


def watched(name: str, **members: object):
    """The strategy, keeping the network that it returns in the dict given back beside it."""
    kept: dict[str, nn.Module] = {}

    class Watched(cls(name)):
        def finish(self, net, task, hparams, run):
            predictor = super().finish(net, task, hparams, run)
            kept["net"] = net
            return predictor

    for key, value in members.items():
        setattr(Watched, key, value)
    return Watched(), kept


def fitted(name: str, hparams=None, task=TASK, protocol=FAST, trials=(), backbone=BACKBONE, seed=0, **members: object):
    """(state of the network returned, its logits on val, run)."""
    strategy, kept = watched(name, **members)
    run = replace(new_run(seed, backbone, protocol), trials=tuple(trials))
    with seeded(seed, run.device):
        predictor = strategy.fit(task, hparams or strategy.defaults(), run)
    return snapshot(kept["net"]), predict(predictor, task.val), run


def same(first, second) -> bool:
    return first.keys() == second.keys() and all(torch.equal(first[name], second[name]) for name in first)


def parameters(state):
    return {n: t for n, t in state.items() if t.is_floating_point() and "running" not in n}


def score(logits: torch.Tensor) -> tuple[float, float]:
    return rank(*val_scores(logits, TASK.val, TASK))


def batches(task, run):
    """The training images as `reestimate_norms` documents: shuffled by the seed, in nearly equal batches."""
    order = torch.randperm(len(task.train), generator=torch.Generator().manual_seed(run.seed))
    size = run.protocol.batch_size
    return [run.prepare(task.train.batch(i)[0]) for i in order.tensor_split(-(-len(order) // size))]


# --- arithmetic


def test_interpolation_gives_its_ends_exactly_and_the_line_between() -> None:
    draw = torch.Generator().manual_seed(0)
    ends = [{"w": torch.randn(99, generator=draw) * 10.0**k, "n": torch.tensor(k)} for k in (-3, 4)]
    assert same(interpolate(*ends, 0.0), ends[0])
    assert same(interpolate(*ends, 1.0), ends[1])
    between = interpolate(*ends, 0.3)
    torch.testing.assert_close(between["w"], 0.7 * ends[0]["w"] + 0.3 * ends[1]["w"])
    between["n"] += 5
    assert ends[0]["n"] == -3  # tensors of its own, counters too


def test_the_mean_is_the_arithmetic_one_and_of_equals_each_of_them() -> None:
    draw = torch.Generator().manual_seed(0)
    states = [{"w": torch.randn(99, generator=draw)} for _ in range(7)]
    torch.testing.assert_close(mean(states)["w"], torch.stack([s["w"] for s in states]).mean(0))
    assert same(mean(states[:1] * 7), states[0])


# --- BatchNorm


def test_statistics_are_those_of_the_activations_of_all_training_images() -> None:
    """Two layers by hand: the second's input has gone through the first in train mode, and through no dropout."""
    draw = torch.Generator().manual_seed(0)
    net = nn.Sequential(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4), nn.Dropout(0.9), nn.Conv2d(4, 5, 3), nn.BatchNorm2d(5))
    for parameter in net.parameters():
        parameter.data = torch.randn(parameter.shape, generator=draw)
    run = new_run(protocol=Protocol(batch_size=10))
    net[1].running_mean.fill_(7.0)
    reestimate_norms(net, TASK, run)

    inputs, ways = batches(TASK, run), {1: [], 4: []}
    for images in inputs:
        first = net[0](images)
        ways[1].append(first)
        # BatchNorm in train mode, written out: the batch's own mean and biased variance.
        centre, spread = first.mean((0, 2, 3), keepdim=True), first.var((0, 2, 3), correction=0, keepdim=True)
        normal = (first - centre) / (spread + net[1].eps).sqrt()
        ways[4].append(net[3](normal * net[1].weight[:, None, None] + net[1].bias[:, None, None]))
    assert [len(images) for images in inputs] == [8, 8, 8]
    for layer, activations in ways.items():
        means = torch.stack([a.mean((0, 2, 3)) for a in activations]).mean(0)
        variances = torch.stack([a.var((0, 2, 3)) for a in activations]).mean(0)
        torch.testing.assert_close(net[layer].running_mean, means, rtol=1e-4, atol=1e-4)
        torch.testing.assert_close(net[layer].running_var, variances, rtol=1e-4, atol=1e-4)
        torch.testing.assert_close(means, torch.cat(activations).mean((0, 2, 3)), rtol=1e-4, atol=1e-4)
    assert net[1].momentum == 0.1
    assert not any(module.training for module in net.modules())


def test_in_one_batch_the_statistics_are_plain_mean_and_variance() -> None:
    net = nn.Sequential(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4))
    run = new_run(protocol=Protocol(batch_size=64))
    reestimate_norms(net, TASK, run)
    activations = net[0](run.prepare(TASK.train.pixels))
    torch.testing.assert_close(net[1].running_mean, activations.mean((0, 2, 3)))
    torch.testing.assert_close(net[1].running_var, activations.var((0, 2, 3)))


@pytest.mark.parametrize("backbone", [BACKBONE, Backbone("mobilenetv2_035", "random", cut=2)], ids=lambda b: b.model)
def test_statistics_are_update_bns(backbone: Backbone) -> None:
    run = new_run(backbone=backbone, protocol=FAST)
    net = run.network(TASK.outputs).requires_grad_(False)  # as training leaves it
    theirs = copy.deepcopy(net)
    update_bn(batches(TASK, run), theirs)
    before = parameters(snapshot(net))
    reestimate_norms(net, TASK, run)
    assert same(snapshot(net), snapshot(theirs))
    assert same(parameters(snapshot(net)), before)


def test_without_batchnorm_nothing_happens() -> None:
    net = new_run(backbone=LAYERNORM).network(TASK.outputs)
    before = snapshot(net)
    reestimate_norms(net, TASK, new_run(backbone=LAYERNORM))
    assert same(snapshot(net), before)


# --- WiSE-FT


def test_wise_ft_at_its_ends_is_the_probe_and_the_fine_tuned_network() -> None:
    probe, logits, run = fitted("wise_ft", shares=(0.0,))
    again = new_run(0, protocol=FAST)  # of two epochs the probe has one
    weight, bias = probe_head(TASK, again.lasting(1))
    torch.testing.assert_close(logits, again.features(TASK.val) @ weight.T + bias, rtol=1e-4, atol=1e-4)
    assert run.meter.images_seen == 2 * len(TASK.train)
    assert len(run.meter.curve) == 1

    _, logits, run = fitted("wise_ft", shares=(1.0,))
    net = again.network(TASK.outputs)
    net.load_state_dict(probe)
    with seeded(0, run.device):
        train(net, cls("wise_ft")(), TASK, {"lr": 1e-3}, again.lasting(1))
    assert torch.equal(logits, predict(run.predictor(net.eval()), TASK.val))


def test_wise_ft_takes_the_share_that_is_best_on_val() -> None:
    shares = (0.0, 0.4, 0.8, 1.0)
    alone = [fitted("wise_ft", {"lr": 1e-2}, shares=(a,))[:2] for a in shares]
    _, logits, _ = fitted("wise_ft", {"lr": 1e-2}, shares=shares)
    scores = [score(found) for _, found in alone]
    assert len(set(scores)) == len(shares)
    assert torch.equal(logits, alone[scores.index(max(scores))][1])
    # A mix in between: its weights are on the line, and its statistics its own.
    (first, _), (inner, _), _, (last, _) = alone
    expected = {n: 0.6 * first[n] + 0.4 * last[n] for n in parameters(first)}
    torch.testing.assert_close(parameters(inner), expected)
    run = new_run(0, protocol=FAST)
    net = run.network(TASK.outputs)
    net.load_state_dict(inner)
    reestimate_norms(net, TASK, run)
    assert same(snapshot(net), inner)
    assert cls("wise_ft").shares == tuple(round(0.1 * i, 1) for i in range(11))


# --- SWA


def test_swas_rate_is_constant_in_the_last_quarter() -> None:
    strategy, protocol = cls("swa")(), Protocol(warmup=0.1)
    tail = {strategy.lr_factor(0.75 + i / 400, protocol) for i in range(100)}
    assert tail == {0.2}
    assert strategy.lr_factor(0.075, protocol) == pytest.approx(1.0)
    before = [strategy.lr_factor(0.075 + i / 1000, protocol) for i in range(676)]
    assert before == sorted(before, reverse=True)
    assert before[-1] == pytest.approx(0.2, abs=1e-4)
    assert strategy.lr_factor(0.0, protocol) == 0.01


@pytest.mark.parametrize(("epochs", "averaged"), [(1, 1), (2, 1), (8, 3)])
def test_swas_weights_are_the_mean_of_its_last_epochs(epochs: int, averaged: int) -> None:
    ends = []

    def stepped(self, net, hparams, step):
        cls("swa").stepped(self, net, hparams, step)
        if step.done % 3 == 0:  # 24 images in batches of 8
            ends.append(snapshot(net))

    state, _, run = fitted("swa", {"lr": 1e-2}, protocol=Protocol(epochs=epochs, batch_size=8), stepped=stepped)
    assert len(ends) == epochs
    for name, value in parameters(state).items():
        last = torch.stack([end[name].double() for end in ends[-averaged:]])
        torch.testing.assert_close(value, last.mean(0).float(), rtol=1e-5, atol=1e-6)
        assert averaged == 1 or not torch.equal(last[0], last[-1])
    net = run.network(TASK.outputs)
    net.load_state_dict(state)
    reestimate_norms(net, TASK, run)
    assert same(snapshot(net), state)
    assert run.meter.images_seen == epochs * len(TASK.train)


def test_swa_ended_by_patience_before_its_last_quarter_returns_the_best_epoch() -> None:
    def param_groups(self, net, task, hparams, run, epoch):
        return [Group(list(net.parameters()), 0.0, 0.0)]  # nothing moves, so no epoch after the first is better

    protocol = Protocol(epochs=9, batch_size=8, patience=2)
    state, _, run = fitted("swa", protocol=protocol, backbone=LAYERNORM, param_groups=param_groups)
    assert len(run.meter.curve) == 3
    assert same(state, snapshot(run.network(TASK.outputs)))


# --- EMA


def test_ema_is_the_recurrence_and_what_is_validated() -> None:
    seen, shown = [], []

    def build(self, task, hparams, run):
        net = cls("ema").build(self, task, hparams, run)
        seen.append(snapshot(net))
        return net

    def stepped(self, net, hparams, step):
        cls("ema").stepped(self, net, hparams, step)
        seen.append(snapshot(net))

    def candidate(self, net, task, run):
        averaged = cls("ema").candidate(self, net, task, run)
        shown.append((len(seen), snapshot(averaged), snapshot(net)))
        return averaged

    hparams = {"lr": 1e-2, "decay": 0.4}
    watching = {"build": build, "stepped": stepped, "candidate": candidate}
    state, logits, run = fitted("ema", hparams, protocol=Protocol(epochs=3, batch_size=8), **watching)
    assert [steps for steps, _, _ in shown] == [4, 7, 10]
    assert any(same(state, averaged) for _, averaged, _ in shown)
    assert not any(same(state, raw) for _, _, raw in shown)
    assert score(logits)[0] == max(run.meter.curve)
    assert any("running_var" in name for name in state)
    for name in (n for n, tensor in state.items() if tensor.is_floating_point()):
        average = seen[0][name].double()
        for t, now in enumerate(seen[1:], 1):
            decay = min(0.4, (1 + t) / (10 + t))  # the ramp ends at the seventh step
            average = decay * average + (1 - decay) * now[name].double()
            for steps, averaged, _ in shown:
                if steps == t + 1:
                    torch.testing.assert_close(averaged[name], average.float(), rtol=1e-5, atol=1e-6)


# --- soups

RECIPES = [{"lr": 3e-3}, {"lr": 1e-3}, {"lr": 3e-2}]


@pytest.fixture(scope="module")
def alone():
    """(state, logits, run) of a soup of each recipe alone: a fine-tuning with it."""
    return [fitted("soup_uniform", recipe, trials=[recipe]) for recipe in RECIPES]


def test_a_uniform_soup_is_the_mean_of_its_ingredients(alone) -> None:
    state, _, run = fitted("soup_uniform", trials=RECIPES)
    for name, value in parameters(state).items():
        torch.testing.assert_close(value, torch.stack([s[name] for s, _, _ in alone]).mean(0), rtol=1e-5, atol=1e-6)
    net = run.network(TASK.outputs)
    net.load_state_dict(state)
    reestimate_norms(net, TASK, run)
    assert same(snapshot(net), state)
    assert run.meter.images_seen == (1 + 3 * 1) * len(TASK.train)  # of two epochs one is the probe's, which all share


@pytest.mark.parametrize("name", ["soup_uniform", "soup_greedy"])
def test_a_soup_of_equals_is_each_of_them(name: str, alone) -> None:
    state, _, _ = fitted(name, trials=RECIPES[:1] * 3)
    assert same(parameters(state), parameters(alone[0][0]))
    one, logits, _ = fitted(name, trials=RECIPES[:1])
    assert same(one, alone[0][0])  # one alone keeps its statistics
    assert torch.equal(logits, alone[0][1])


def test_without_batchnorm_a_soup_of_equals_gives_their_logits() -> None:
    one, two = (fitted("soup_greedy", trials=RECIPES[:1] * count, backbone=LAYERNORM)[1] for count in (1, 2))
    assert torch.equal(one, two)


def test_a_greedy_soup_follows_the_papers_recipe_and_is_no_worse_than_its_best_ingredient(alone) -> None:
    state, logits, run = fitted("soup_greedy", trials=RECIPES)
    order = sorted(range(3), key=lambda i: score(alone[i][1]), reverse=True)
    assert score(logits) >= score(alone[order[0]][1])

    kept, best = [], (-float("inf"), -float("inf"))
    net = run.network(TASK.outputs)
    for i in order:
        tasted = [*kept, alone[i][0]]
        net.load_state_dict(mean(tasted))
        if len(tasted) > 1:
            reestimate_norms(net, TASK, run)
        if (now := score(predict(run.predictor(net.eval()), TASK.val))) >= best:
            kept, best, expected = tasted, now, snapshot(net)
    assert same(state, expected)
    assert run.meter.images_seen == 4 * len(TASK.train)


def test_what_a_soup_is_made_of() -> None:
    seen = []

    def lr_of(self, net, images, labels, task, hparams, run):
        seen.append(hparams["lr"])
        return cls("soup_uniform").loss(self, net, images, labels, task, hparams, run)

    def rates(**changes: object) -> list[float]:
        seen.clear()
        fitted("soup_uniform", {"lr": 3e-3}, loss=lr_of, **changes)
        return list(dict.fromkeys(seen))

    assert rates() == [3e-3]  # while tuning
    assert rates(trials=RECIPES) == [recipe["lr"] for recipe in RECIPES]
    assert rates(protocol=Protocol(epochs=1, trials=1, batch_size=8)) == pytest.approx([1e-3, 3e-3, 9e-3])


def test_an_ingredient_that_diverges_is_left_out(alone) -> None:
    def loss(self, net, images, labels, task, hparams, run):
        found = cls("soup_uniform").loss(self, net, images, labels, task, hparams, run)
        return found * float("nan") if hparams["lr"] > 0.5 else found

    state, _, _ = fitted("soup_uniform", trials=[{"lr": 1.0}, RECIPES[0]], loss=loss)
    assert same(state, alone[0][0])
    with pytest.raises(Diverged, match="all 1 ingredients"):
        fitted("soup_uniform", trials=[{"lr": 1.0}], loss=loss)


# --- the trials of a cell

LOGGING = '''
import json

import torch

from bench.contract import Strategy
from bench.tune import SEED


class Logging(Strategy):
    """Writes down what it is given; the default, tried first, is the worst on val."""

    name = "logging"
    family = "fine-tuning"

    def space(self, trial):
        return {"lr": trial.suggest_float("lr", 1e-4, 1e-1, log=True)}

    def defaults(self):
        return {"lr": 1e-2}

    def fit(self, task, hparams, run):
        with open("LOG", "a") as file:
            file.write(json.dumps([run.seed == SEED, hparams, run.trials]) + "\\n")
        sign = -1.0 if hparams["lr"] == 1e-2 else 1.0

        def predict(images):
            light = sign * images.float().mean((1, 2, 3))
            return torch.stack([-light, light], 1) * RIGHT

        return predict
'''


def test_the_runner_hands_the_trials_to_the_final_fit_best_first(tmp_path: Path) -> None:
    def logged(right: str) -> list:
        folder = tmp_path / right
        (folder / "strategies").mkdir(parents=True)
        source = LOGGING.replace("LOG", str(folder / "log")).replace("RIGHT", right)
        (folder / "strategies/logging.py").write_text(source)
        wanted = matrix(folder, strategies=("logging",), seeds=1, protocol=Protocol(epochs=1, trials=2, batch_size=64))
        plan = make_plan(wanted, folder)
        assert execute(plan, Console(quiet=True), "test", {}).ok == 1
        [cell] = plan.cells
        trials = store.read_trials(folder, cell.fingerprint)
        calls = [json.loads(line) for line in (folder / "log").read_text().splitlines()]
        return [calls, sorted(trials, key=lambda t: t.val_loss)]  # their AUCs are within the margin

    for right in ("1.0", "-1.0"):  # in one of the two the second trial is the better
        calls, ranked = logged(right)
        assert [(tuning, trials) for tuning, _, trials in calls[:2]] == [(True, []), (True, [])]
        assert calls[2:] == [[False, ranked[0].hparams, [t.hparams for t in ranked]]]
        assert ranked[0].val_loss < ranked[1].val_loss


def test_a_soup_fitted_anew_from_the_trials_file_is_the_same_bit_for_bit(tmp_path: Path) -> None:
    def row() -> tuple[Path, dict]:
        wanted = matrix(tmp_path, strategies=("soup_greedy",), seeds=1, protocol=Protocol(epochs=2, trials=2))
        assert execute(make_plan(wanted, CHECKOUT), Console(quiet=True), "test", {}).ok == 1
        [path] = (tmp_path / "cells").glob("*-s0.json")
        found = json.loads(path.read_text())
        return path, {k: v for k, v in found.items() if k.startswith(("test_", "val_", "images", "hparams", "curve"))}

    path, first = row()
    assert first["images_seen"] == (1 + 2) * json.loads(path.read_text())["n_train"]
    path.unlink()
    assert row()[1] == first
