"""Run one cell, from seed to row: load, tune once, fit once a seed, evaluate once, publish."""

from __future__ import annotations

import json
import time
from collections.abc import Iterator, Sequence
from copy import deepcopy
from dataclasses import asdict, dataclass, replace
from typing import Any

import numpy as np
import torch

from bench import clock, computing, device, evaluate, examples, logs, provenance, registry, store
from bench.backbones import flops_of
from bench.best import margin_of
from bench.contract import Dataset, Hparams, Predictor, Strategy, Task
from bench.domains import between
from bench.errors import Diverged, UsageError
from bench.images import Images, predict_all, to_device
from bench.label_free import Judge, judge_on
from bench.labelled import load_split
from bench.parts import joined
from bench.plan import Cell
from bench.prediction import for_labelled
from bench.row import failure, identity, notes_on
from bench.run import Run, seeded
from bench.session import Session, load
from bench.trial import Trial
from bench.tta import viewers
from bench.tune import defaults, ranked, tune

TIMED_BATCH = 64


def fit_cell(cell: Cell, seeds: Sequence[int], session: Session, started: str) -> list[str]:
    """Run the cell for `seeds` and publish a row each as soon as it is there; gives their statuses. Raises whatever the
    strategy does."""
    begun, computed = time.perf_counter(), clock.network_seconds()
    strategy = registry.load_strategy(cell.strategy, cell.workspace)
    if registry.source_hash(cell.strategy, cell.workspace) != cell.hashes["source_hash"]:
        raise UsageError(f"{cell.strategy}: it has changed since this run was planned. Run the same command again.")
    dataset, task = load(cell, session)
    device.reset_peak_memory(session.device)
    run = Run(
        backbone=cell.backbone,
        protocol=cell.protocol,
        seed=0,
        size=cell.size,
        device=session.device,
        computing=computing.chosen(cell.backbone, cell.size, session.device),
        memory=session.memory,
    )
    judge = _judge(dataset, task, cell, session) if task.shift and cell.protocol.trials > 1 else None
    hparams, trials, tuning = _tuned(cell, strategy, task, run, session, len(seeds), judge)
    run = replace(run, trials=trials)
    examples.record(session.results, cell.dataset, strategy, task, defaults(strategy, cell.settings), run)
    shared: dict[str, Any] = (
        tuning
        | asdict(run.computing)
        | {
            "hparams": json.dumps(hparams),
            "lr": hparams.get("lr"),
            "flops_per_image": flops_of(cell.backbone, cell.size),
            "n_train": len(task.train),
            "n_val": len(task.val),
            "notes": "; ".join(cell.notes + notes_on(task, cell.amount.per_class)),
        }
    )
    on_source = None
    if dataset.source is not None:
        on_source = evaluate.test_aucs(dataset.source, cell.size, f"{cell.hashes['data_hash']}/source", session.device)
    statuses = []
    for fits in _fits(cell, strategy, hparams, task, run, seeds, session):
        views, modality = cell.protocol.views, task.info.modality
        shown = [viewers(fit.predictor, views, modality, run) for fit in fits if fit.predictor is not None]
        predictors = [one for viewing in shown for one in viewing]
        tested, logits = evaluate.test_logits(dataset, cell.size, cell.hashes["data_hash"], predictors, session.device)
        answers = iter(zip(shown, _in_parts(logits, views + 1), strict=True))
        for fit in fits:
            row = identity(cell, session.device, fit.seed, started) | shared | fit.columns
            predictions = None
            if fit.predictor is not None:
                try:
                    scores, predictions = _scores(task, *next(answers), tested)
                    row |= scores | between(task, fit.predictor, strategy, run) | {"status": "ok", "reason": ""}
                    if on_source is not None:
                        row["source_auc"] = on_source([for_labelled(fit.predictor, task.shift)])[0]
                except Diverged as error:
                    row |= failure(error)
            row["finished_utc"] = provenance.utc()
            ended, now = time.perf_counter(), clock.network_seconds()
            row["cell_seconds"] = ended - begun
            row["network_seconds"] = now - computed if clock.counts(session.device) else None
            begun, computed = ended, now
            logs.publish(session.results, row, predictions)
            statuses.append(row["status"])
    return statuses


def _judge(dataset: Dataset, task: Task, cell: Cell, session: Session) -> Judge:
    """A shift task's further scores of trials: on the target's val, its AUC on the target's test, and the margin that
    its choice by source val was made with."""
    assert dataset.target is not None
    key = f"{cell.hashes['data_hash']}/target"
    val = load_split(dataset.target, "val", cell.size)
    on_val = judge_on(to_device(val, f"{key}/val", session.device), dataset.info.kind)
    on_test = evaluate.test_aucs(dataset, cell.size, key, session.device)
    margin = margin_of(task, cell.protocol)

    def judge(predictors: Sequence[Predictor], aucs: Sequence[float]) -> list[dict[str, float]]:
        found = zip(on_val(predictors), on_test(predictors), aucs, strict=True)
        return [scores | {"target_test_auc": on_test, "val_margin": margin(auc)} for scores, on_test, auc in found]

    return judge


def _tuned(
    cell: Cell, strategy: Strategy, task: Task, run: Run, session: Session, seeds: int, judge: Judge | None
) -> tuple[Hparams, tuple[Hparams, ...], dict[str, Any]]:
    """The best hyperparameters of the cell, those of all complete trials (best first), and what finding them cost.
    `seeds` is the number of fits to come."""
    if cell.protocol.trials <= 1:
        return defaults(strategy, cell.settings), (), {"tune_seconds": 0.0, "tune_images_seen": 0}
    done = store.read_trials(session.results, cell.fingerprint)
    fits = cell.protocol.trials + seeds
    session.notify("tuning", len(done) / fits)

    def epoch_done(epoch: int, auc: float, loss: float) -> None:
        told = {"trial": len(done), "epoch": epoch, "val_auc": auc, "val_loss": loss}
        logs.add(session.results, cell.fingerprint, "epoch", **told)
        share = (len(done) + (epoch + 1) / run.protocol.epochs) / fits
        session.notify(f"tuning, trial {len(done) + 1} of {cell.protocol.trials}, {_progress(run, epoch, auc)}", share)

    def record(new: Sequence[Trial]) -> None:
        store.record_trials(session.results, cell.fingerprint, new)
        for trial in new:
            told = {key: getattr(trial, key) for key in ("number", "hparams", "state", "val_auc", "seconds")}
            logs.add(session.results, cell.fingerprint, "trial", **told)
        done.extend(new)

    reporting = run.fresh(run.seed, epoch_done)
    margin = margin_of(task, run.protocol)
    trials = tune(strategy, cell.settings, task, reporting, cell.fingerprint, tuple(done), record, judge)
    cost = {"tune_seconds": sum(t.seconds for t in trials), "tune_images_seen": sum(t.images_seen for t in trials)}
    if not (complete := tuple(dict(t.hparams) for t in ranked(trials, margin, run.protocol.selection))):
        raise Diverged(f"all {len(trials)} trials diverged; give {cell.strategy} a lower learning rate in [settings]")
    return dict(complete[0]), complete, cost


@dataclass(frozen=True)
class Fit:
    """A final fit, not yet evaluated."""

    seed: int
    predictor: Predictor | None
    """None where it diverged."""
    columns: dict[str, Any]
    """What it cost, its learning curve, and where it diverged status and reason."""


def _fits(
    cell: Cell, strategy: Strategy, hparams: Hparams, task: Task, run: Run, seeds: Sequence[int], session: Session
) -> Iterator[list[Fit]]:
    """The final fits with the best hyperparameters: one after the other, or all at once where the strategy can. Then
    always those of all seeds, of which some may be there already: last bits depend on how many are trained together."""
    groups = [list(range(cell.seeds))] if strategy.fit_many is not None else [[seed] for seed in seeds]
    before = run.protocol.trials if run.protocol.trials > 1 else 0
    for number, group in enumerate(groups):
        text, share = f"fitting seed {', '.join(map(str, group))}", (before + number) / (before + len(groups))
        session.notify(text, share)

        def epoch_done(epoch: int, auc: float, loss: float, text: str = text, share: float = share) -> None:
            told = {"fit": text, "epoch": epoch, "val_auc": auc, "val_loss": loss}
            logs.add(session.results, cell.fingerprint, "epoch", **told)
            within = (epoch + 1) / run.protocol.epochs / (before + len(groups))
            session.notify(f"{text}, {_progress(run, epoch, auc)}", share + within)

        own = run.fresh(group[0], epoch_done)
        started, energy = time.perf_counter(), device.energy_joules(run.device)
        predictors: Sequence[Predictor | None]
        lost: dict[str, Any] = {}
        with seeded(group[0], run.device):
            try:
                if strategy.fit_many is not None:
                    predictors = strategy.fit_many(task, [deepcopy(hparams) for _ in group], group, own)
                else:
                    predictors = [strategy.fit(task, deepcopy(hparams), own)]
                if any(predictor is None for predictor in predictors):  # which below means that it diverged
                    raise TypeError("the strategy gave NoneType, not a predictor: images -> logits")
            except Diverged as error:
                predictors, lost = [None] * len(group), failure(error)
        spent, after = time.perf_counter() - started, device.energy_joules(run.device)
        columns = lost | {
            "fit_seconds": spent / len(group),
            "energy_joules": None if energy is None or after is None else (after - energy) / len(group),
            "images_seen": own.meter.images_seen,
            "micro_batch": own.meter.micro_batch,
            "params_total": own.meter.params_total,
            "params_trained": own.meter.params_trained,
            "curve": json.dumps(own.meter.curve),
            "disc_acc": json.dumps(own.meter.disc_acc) if own.meter.disc_acc else None,
            "peak_memory_mb": device.peak_memory_mb(run.device),
        }
        yield [Fit(seed, one, columns) for seed, one in zip(group, predictors, strict=True) if seed in seeds]


def _scores(
    task: Task, viewing: Sequence[Predictor], on_test: Sequence[torch.Tensor], tested: Images
) -> tuple[dict[str, Any], dict[str, Any]]:
    """A row's scores and its predictions, by the predictor itself, the first of `viewing`; the others are its views of
    the images, whose predictions are kept. Raises Diverged."""
    kind = task.info.kind
    on_val = predict_all([for_labelled(one, task.shift) for one in viewing], task.val)
    tests = [evaluate.checked(logits, len(tested), task.outputs, "test") for logits in on_test]
    vals = [evaluate.checked(logits, len(task.val), task.outputs, "val") for logits in on_val]
    labels = {"val": task.val.labels.cpu().numpy(), "test": tested.labels.cpu().numpy()}
    columns = evaluate.test_columns(tests[0], labels["test"], kind) | evaluate.val_columns(vals[0], labels["val"], kind)
    columns |= {"predict_ms": _predict_ms(viewing[0], task), "views": len(viewing) - 1}
    predictions = {"val_logits": vals[0], "val_labels": labels["val"], "val_ids": task.val.ids}
    predictions |= {"test_logits": tests[0], "test_labels": labels["test"], "test_ids": tested.ids}
    if len(viewing) > 1:
        predictions |= {"val_views": np.stack(vals[1:]), "test_views": np.stack(tests[1:])}
    return columns, predictions


def _in_parts(logits: Sequence[torch.Tensor], size: int) -> list[Sequence[torch.Tensor]]:
    return [logits[start : start + size] for start in range(0, len(logits), size)]


def _predict_ms(predictor: Predictor, task: Task) -> float:
    """Milliseconds an image, in a batch, after a warm-up."""
    pixels, _ = task.val.batch(torch.arange(min(TIMED_BATCH, len(task.val)), device=task.val.device))
    with torch.inference_mode():
        joined(predictor, pixels).cpu()
        started = time.perf_counter()
        joined(predictor, pixels.clone()).cpu()
    return (time.perf_counter() - started) * 1000 / len(pixels)


def _progress(run: Run, epoch: int, auc: float) -> str:
    return f"epoch {epoch + 1} of {run.protocol.epochs}, val AUC {auc:.3f}"
