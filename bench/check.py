"""The contract suite: what every strategy must hold to, run on one plug-in file (`medtransfer check`) or on all (the
tests)."""

from __future__ import annotations

import hashlib
import inspect
import json
from collections.abc import Iterator
from dataclasses import replace
from functools import cache
from pathlib import Path

import numpy as np
import optuna
import torch
from rich.console import Console
from torch import Tensor, nn

from bench import registry
from bench.check_fusion import RUNS, examine_fusion
from bench.contract import KINDS, Backbone, Fusion, Hparams, Info, Predictor, Protocol, Split, Strategy, Task
from bench.errors import Spoiled, brief, place
from bench.finetune import FineTune, ProbedFineTune
from bench.images import predict, to_device
from bench.network import Network
from bench.prediction import for_labelled, for_second
from bench.run import Run, seeded
from bench.train import train

optuna.logging.set_verbosity(optuna.logging.WARNING)

PHANTOMS = {
    "binary": "phantom-radiograph",
    "multi-class": "phantom-histology",
    "multi-label": "phantom-chest",
    "ordinal": "phantom-fundus",
}
"""One phantom a kind of task."""
SHIFT = "phantom-organ-a->phantom-organ-b"
"""The task "shift": test is of another domain than train."""
SECOND = "phantom-histology"
"""Stands in for natural images: the second domain of tasks without a target."""
BACKBONE = Backbone("test_resnet", weights="random")
"""timm's own test network: BatchNorm, half a million parameters."""
SIZE = 32
IMAGES = 24
PROTOCOL = Protocol(epochs=2, trials=2, batch_size=12)


def check_strategy(path: Path, console: Console) -> bool:
    """Run the suite over the strategies of a file and print each finding; True where all hold. Raises UsageError."""
    good = True
    for name, strategy in registry.names_in(path).items():
        if isinstance(strategy, Fusion):
            told = [_told(console, f"{name} on {kind}", examine_fusion(strategy, kind)) for kind in KINDS]
            good = all(told) and good
            continue
        for kind in (*PHANTOMS, "shift"):
            task = phantom_task(kind)
            if reason := strategy.applies(task.info, BACKBONE):
                _say(console, f"{name} on {kind}: skipped: {reason}")
                continue
            good = _told(console, f"{name} on {kind}", examine(strategy, task)) and good
    return good


def _told(console: Console, what: str, findings: Iterator[tuple[str, str]]) -> bool:
    broken = {promise: wrong for promise, wrong in findings if wrong}
    for promise, wrong in broken.items():
        _say(console, f"{what}: BROKEN: {'it raises' if promise == RUNS else f'{promise}:'} {wrong}", "red")
    if not broken:
        _say(console, f"{what}: all promises hold", "green")
    return not broken


def phantom_task(kind: str, size: int = SIZE, images: int = IMAGES) -> Task:
    """A task of a few phantom images on the CPU, every class among them."""
    info, splits = _drawn(kind, size)
    parts = {}
    for name, split in splits.items():
        whole = to_device(split, f"check/{kind}/{name}", torch.device("cpu"))
        parts[name] = whole.take(np.arange(min(images, len(whole))))
    return Task(info, size, **parts)


@cache
def _drawn(kind: str, size: int) -> tuple[Info, dict[str, Split]]:
    """Drawn once for all strategies: drawing takes as long as a fit."""
    dataset = registry.open_dataset(SHIFT if kind == "shift" else PHANTOMS[kind], Path("."))
    second = (dataset.target or registry.open_dataset(SECOND, Path("."))).load("train", size)
    unknown = replace(second, labels=np.zeros(len(second), dtype=np.int64))
    splits = {"train": dataset.load("train", size), "val": dataset.load("val", size), "second": unknown}
    for split in splits.values():
        split.images.flags.writeable = False  # a strategy may change its images: to be copied for each
    return dataset.info, splits


def new_run(seed: int = 3, backbone: Backbone = BACKBONE, protocol: Protocol = PROTOCOL, size: int = SIZE) -> Run:
    """A run on the CPU that reports to nobody."""
    return Run(backbone, protocol, seed, size, torch.device("cpu"))


def examine(strategy: Strategy, task: Task, backbone: Backbone = BACKBONE) -> Iterator[tuple[str, str]]:
    """(promise, what is wrong or "") of each promise of the contract. Stops at the first exception of the strategy."""
    try:
        hparams = strategy.defaults()
        yield "hyperparameters are JSON, an lr a float", _hparams(strategy, hparams)
        before = _state(strategy)
        images = _pixels(task)
        run = new_run(backbone=backbone, size=task.size)
        shared = state_digest(run.frozen())
        predictor = _fitted(strategy, task, hparams, run)
        logits = predict(predictor, task.val)
        yield "the images are untouched", _same(images, _pixels(task), "pixels or labels")
        yield "logits are finite float [N, K]", _shape(logits, task)
        yield "a prediction does not depend on those before it", _anew(predictor, logits, task)
        if not strategy.transductive:
            yield "an image's logits do not depend on the others'", _alone(predictor, logits, task)
        yield (
            "the same seed gives the same logits",
            _equal(logits, _logits(strategy, task, hparams, new_run(backbone=backbone, size=task.size))),
        )
        yield (
            "the shared backbone is untouched",
            _same(shared, state_digest(run.frozen()), "weights or BatchNorm statistics"),
        )
        yield "the strategy keeps no state", _same(before, _state(strategy), "attributes")
        yield (
            "the meter is kept",
            "" if run.meter.images_seen and run.meter.params_trained else "images_seen or params_trained is 0",
        )
        if strategy.fit_many is not None:
            yield "fit_many gives what fit gives", _many(strategy, task, hparams, backbone)
        if isinstance(strategy, FineTune) and type(strategy).fit in (FineTune.fit, ProbedFineTune.fit):
            yield "what is frozen does not move", _frozen(strategy, task, hparams, backbone)
    except Spoiled as error:
        what = error.args[0]
        yield f"{what} {'are' if what.endswith('s') else 'is'} untouched", str(error)
    except Exception as error:  # whatever a plug-in raises is a finding
        yield RUNS, f"{brief(error)} ({place(error, inspect.getfile(type(strategy)))})"


def _say(console: Console, text: str, style: str = "") -> None:
    console.print(text, style=style, highlight=False, markup=False, soft_wrap=True)


def state_digest(module: nn.Module) -> str:
    """sha256 of all parameters and buffers, BatchNorm statistics included."""
    return _digest(list(module.state_dict().values()))


def never_trained(strategy: FineTune, net: Network, task: Task, hparams: Hparams, run: Run) -> dict[str, Tensor]:
    """Name -> tensor of what must not move: parameters in no group of any epoch, and the buffers of modules that have
    parameters none of which ever trains."""
    epochs = range(run.protocol.epochs)
    trained = {id(p) for e in epochs for g in strategy.param_groups(net, task, hparams, run, e) for p in g.params}
    still: dict[str, Tensor] = {name: p for name, p in net.named_parameters() if id(p) not in trained}
    for path, module in net.named_modules():
        own = list(module.parameters(recurse=False))
        if own and not any(id(p) in trained for p in own):
            still |= {f"{path}.{name}": buffer for name, buffer in module.named_buffers(recurse=False)}
    return still


def _hparams(strategy: Strategy, defaults: Hparams) -> str:
    study = optuna.create_study(sampler=optuna.samplers.RandomSampler(seed=0))
    study.enqueue_trial(defaults)
    for hparams in (defaults, strategy.space(study.ask()), strategy.space(study.ask())):
        if json.loads(json.dumps(hparams)) != hparams:
            return f"{hparams} does not survive JSON"
        if not isinstance(hparams.get("lr", 0.0), float):  # a strategy without gradients has none
            return f"lr is no float in {hparams}"
        if set(hparams) != set(defaults):
            return f"space gives {sorted(hparams)}, defaults {sorted(defaults)}"
    return ""


def _fitted(strategy: Strategy, task: Task, hparams: Hparams, run: Run) -> Predictor:
    with seeded(run.seed, run.device):
        return strategy.fit(task, dict(hparams), run)


def _logits(strategy: Strategy, task: Task, hparams: Hparams, run: Run) -> Tensor:
    return predict(_fitted(strategy, task, hparams, run), task.val)


def _shape(logits: Tensor, task: Task) -> str:
    wanted = (len(task.val), task.outputs)
    if tuple(logits.shape) != wanted:
        return f"shape {tuple(logits.shape)}, not {wanted}"
    return "" if torch.isfinite(logits).all() else "not finite"


def _anew(predictor: Predictor, logits: Tensor, task: Task) -> str:
    """Asked in between for other images, and for those of the other domain."""
    for domain in (for_labelled, for_second):
        predict(domain(predictor, task.shift), task.train)
    return _equal(logits, predict(predictor, task.val))


def _alone(predictor: Predictor, logits: Tensor, task: Task) -> str:
    """A quarter of the images by themselves: who looks at the others is transductive, and must say so."""
    few = task.val.take(np.arange(len(task.val) // 4))
    found, wanted = predict(predictor, few), logits[: len(few)]
    if torch.allclose(found, wanted, rtol=1e-3, atol=1e-4):
        return ""
    return f"they differ by up to {(found - wanted).abs().max():.2g}; where that is meant set transductive = True"


def _equal(first: Tensor, second: Tensor) -> str:
    return "" if torch.equal(first, second) else f"they differ by up to {(first - second).abs().max():.2g}"


def _many(strategy: Strategy, task: Task, hparams: Hparams, backbone: Backbone) -> str:
    assert strategy.fit_many is not None
    seeds = [3, 4]
    run = new_run(backbone=backbone, size=task.size)
    together = [predict(p, task.val) for p in strategy.fit_many(task, [hparams, hparams], seeds, run)]
    for seed, logits in zip(seeds, together, strict=True):
        alone = _logits(strategy, task, hparams, new_run(seed, backbone=backbone, size=task.size))
        if not torch.allclose(logits, alone, rtol=1e-4, atol=1e-4):
            return f"seed {seed}: they differ by up to {(logits - alone).abs().max():.2g}"
    return ""


def _frozen(strategy: FineTune, task: Task, hparams: Hparams, backbone: Backbone) -> str:
    run = new_run(backbone=backbone, size=task.size)
    net = strategy.build(task, hparams, run)
    still = never_trained(strategy, net, task, hparams, run)
    before = {name: _digest([tensor]) for name, tensor in still.items()}
    with seeded(run.seed, run.device):
        train(net, strategy, task, hparams, run)
    after = dict(net.state_dict())
    moved = [name for name, digest in before.items() if digest != _digest([after[name]])]
    return f"{len(moved)} tensors moved, such as {moved[0]}" if moved else ""


def _state(strategy: Strategy) -> str:
    return repr(sorted(vars(strategy).items()))


def _pixels(task: Task) -> str:
    return _digest([task.train.pixels, task.train.labels, task.val.pixels, task.val.labels])


def _same(before: str, after: str, what: str) -> str:
    return "" if before == after else f"{what} changed"


def _digest(tensors: list[Tensor | np.ndarray]) -> str:
    digest = hashlib.sha256()
    for tensor in tensors:
        digest.update(
            np.ascontiguousarray(tensor.detach().cpu().numpy() if isinstance(tensor, Tensor) else tensor).tobytes()
        )
    return digest.hexdigest()
