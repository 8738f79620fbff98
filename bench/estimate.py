"""How long a plan will take: from rows measured before, else from a short calibration on this device."""

from __future__ import annotations

import logging
import time
from collections import defaultdict
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace

import pandas as pd
import torch
from torch import Tensor
from torch.nn import functional

from bench import computing, device, places, registry, store
from bench.contract import SPLITS, Backbone, Dataset, Protocol
from bench.errors import DataError, MedtransferError, UsageError, brief, reading
from bench.plan import Cell, Plan
from bench.replay import Replay
from bench.run import Run
from bench.validation import validated

log = logging.getLogger(__name__)
CALIBRATION_BATCH = 16
MEASURED = ["status", "device", "backbone", "strategy", "size"]
COST = ["fit_seconds", "images_seen", "epochs", "n_train", "n_val", "n_test"]
"""Columns of earlier rows: what was run, and what it took."""
SECOND = 2
"""How much more a training image costs where one of the second domain goes with it."""
FORWARD_SHARE = 1 / 3
"""Forward alone, as a share of forward and backward: two of three passes are the gradients'."""


@dataclass(frozen=True)
class Pace:
    """What full fine-tuning takes."""

    image: float
    """Seconds of forward and backward for each image."""
    fit: float = 0.0
    """Seconds of a fit besides: on a GPU, until its steps are recorded."""


def estimate(plan: Plan, where: torch.device) -> dict[str, float]:
    """Seconds by fingerprint, for the cells of `plan.todo`. A cell that cannot run takes none, nor does one whose
    images cannot be counted; one whose time is not known has none. What that took of a GPU is given back: cells may run
    in other processes."""
    if plan.matrix.deterministic:
        device.make_deterministic(where)  # before the GPU is first used
    with threads(plan.matrix.jobs):
        try:
            return _estimate(plan, where)
        finally:
            device.release(where)


def _estimate(plan: Plan, where: torch.device) -> dict[str, float]:
    rates = _measured(plan, where)
    calibrated: dict[tuple[str, int], Pace | None] = {}
    counts: dict[tuple[str, int], tuple[int, int, int] | None] = {}
    names = {cell.strategy for cell in plan.cells}
    strategies = {name: registry.load_strategy(name, plan.workspace) for name in names}  # finding one reads all files
    seconds = {}
    for cell in plan.todo:
        if cell.skip or cell.error:
            seconds[cell.fingerprint] = 0.0
            continue
        if (cell.dataset, cell.size) not in counts:
            counts[cell.dataset, cell.size] = _counts(cell)
        if (counted := counts[cell.dataset, cell.size]) is None:
            seconds[cell.fingerprint] = 0.0
            continue
        images, val, test = counted
        trained = _amount(images, cell)
        fits = len(plan.missing(cell)) + _trials_left(plan, cell)
        shown = trained * cell.protocol.epochs * fits
        evaluated = fits * _evaluated(cell.protocol.epochs, trained, val, test)
        key = (cell.backbone.label, cell.strategy, cell.size)
        if key in rates:
            seconds[cell.fingerprint] = rates[key] * (shown + FORWARD_SHARE * evaluated)
            continue
        if key[::2] not in calibrated:
            log.info("measuring %s at %d px, for the estimate of time", *key[::2])
            calibrated[key[::2]] = _calibrated(cell, where)
        if (pace := calibrated[key[::2]]) is None:
            continue
        strategy = strategies[cell.strategy]
        if strategy.frozen:
            seconds[cell.fingerprint] = pace.image * FORWARD_SHARE * (trained + val + test)
        else:
            trained_on = shown * (SECOND if strategy.second_domain else 1)
            seconds[cell.fingerprint] = pace.image * (trained_on + FORWARD_SHARE * evaluated) + pace.fit * fits
    return seconds


def time_left(total: float, passed: float, elapsed: float, jobs: int) -> float:
    """Seconds left of a plan estimated at `total` seconds on one worker, of which cells of `passed` seconds took
    `elapsed`. The estimate counts as much as a tenth of the plan would: a first cell, with all that is read and built
    once, says little of the others."""
    belief = total / 10
    rate = (elapsed + belief / jobs) / (passed + belief)
    return max(total - passed, 0.0) * rate


def words(seconds: float) -> str:
    """A duration as people say it: 40 s, 12 min, 3.5 h, 2.1 days."""
    for unit, length in (("days", 86400), ("h", 3600), ("min", 60)):
        if seconds >= 1.5 * length:
            value = seconds / length
            return f"{value:.0f} {unit}" if value >= 10 or unit == "min" else f"{value:.1f} {unit}"
    return f"{seconds:.0f} s"


@contextmanager
def threads(jobs: int) -> Iterator[None]:
    """With as many threads as each of `jobs` workers gets: a calibration on all cores would promise what none does."""
    before = torch.get_num_threads()
    torch.set_num_threads(places.threads(jobs))
    try:
        yield
    finally:
        torch.set_num_threads(before)


def _measured(plan: Plan, where: torch.device) -> dict[tuple[str, str, int], float]:
    """Seconds for the forward and backward pass of an image, by backbone, strategy and size, of this device's rows in
    the results folder."""
    path = plan.matrix.results / "rows.parquet"
    if not path.is_file():
        return {}
    try:
        rows = pd.read_parquet(path)[[*MEASURED, *COST]]
    except (OSError, ValueError, KeyError) as error:  # pyarrow's are ValueErrors; an older file lacks columns
        log.warning("%s cannot be read (%s): the report will make it anew", path, brief(error))
        return {}
    rows = rows[(rows["status"] == "ok") & (rows["device"] == device.describe(where))]
    # Predictions that were made elsewhere have no cost.
    rows = rows.dropna(subset=COST)
    sums: dict[tuple[str, str, int], list[float]] = defaultdict(lambda: [0.0, 0.0])
    for row in rows.itertuples():
        total = sums[row.backbone, row.strategy, int(row.size)]
        # A cell's tuning stands on each of its seeds' rows; the fits alone are counted once each.
        total[0] += row.fit_seconds
        total[1] += row.images_seen + FORWARD_SHARE * _evaluated(row.epochs, row.n_train, row.n_val, row.n_test)
    return {key: spent / shown for key, (spent, shown) in sums.items() if shown}


def _evaluated(epochs: int, train: int, val: int, test: int) -> int:
    """Images that one fit predicts without learning from them."""
    return len(validated(epochs, max(train, 1), val)) * val + test


def _counts(cell: Cell) -> tuple[int, int, int] | None:
    """Images in train, val and test; None where they cannot be counted, which the cell itself may run into."""
    try:
        with reading(cell.dataset):
            dataset: Dataset = registry.open_dataset(
                cell.dataset, cell.data_root, cell.split_seed, cell.source_size, cell.workspace
            )
            train, val, test = (dataset.count(split) for split in SPLITS)
    except MedtransferError as error:
        log.warning("not in the estimate of time: %s", error)
        return None
    return train, val, test


def _trials_left(plan: Plan, cell: Cell) -> int:
    try:
        tried = len(store.read_trials(plan.matrix.results, cell.fingerprint))
    except DataError:
        return 0  # the cell itself will say what is wrong with its file
    return max(0, cell.protocol.trials - tried) if cell.protocol.trials > 1 else 0


def _amount(images: int, cell: Cell) -> int:
    if cell.amount.per_class is not None and cell.info is not None:
        return min(images, cell.amount.per_class * len(cell.info.classes))
    return max(1, round(images * cell.amount.fraction))


def _calibrated(cell: Cell, where: torch.device) -> Pace | None:
    """None where it cannot be measured. The cell is tried all the same: it may go on in smaller batches, or says itself
    what is wrong."""
    try:
        return calibrate(cell.backbone, cell.size, cell.protocol, where)
    except UsageError:
        raise
    except Exception as error:
        log.warning("%s at %d px: how long it takes is not known (%s)", cell.backbone.label, cell.size, brief(error))
        return None


def calibrate(backbone: Backbone, size: int, protocol: Protocol, where: torch.device) -> Pace:
    """On noise: the fastest of a few steps after a warm-up. A GPU is asked for the protocol's batches, replayed as in
    training (bench.replay)."""
    run = Run(replace(backbone, weights="random"), protocol, 0, size, where, computing.chosen(backbone, size, where))
    on_gpu = where.type == "cuda"
    count = protocol.batch_size if on_gpu else CALIBRATION_BATCH
    with device.own_stream(where):
        net = run.network(outputs=2, pretrained=False).train()
        images = torch.rand(count, 3, size, size, device=where)
        images = images.contiguous(memory_format=run.computing.layout)
        labels = torch.zeros(count, dtype=torch.int64, device=where)

        def step() -> Tensor:
            net.zero_grad(set_to_none=True)
            with run.autocast():
                loss = functional.cross_entropy(net(images).float(), labels)
            loss.backward()
            return loss.detach()

        replay, times = Replay(step, where), []
        warm, steps = (3, 5) if on_gpu else (1, 2)
        for _ in range(warm + steps):
            started = time.perf_counter()
            replay().item()  # waits for a GPU
            times.append(time.perf_counter() - started)
    fastest = min(times[warm:])
    # Calling and recording a step, for the two sizes of batches that a fit has. The first call sets libraries up.
    return Pace(fastest / count, 2 * (times[1] + times[2]) if on_gpu else 0.0)
