"""A made-up reference study whose truth is known: the best strategy depends on the amount of data."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
from scipy.special import expit

from bench.weights_origin import BUNDLED
from tests.fake_results import Row, hash_text, row

DATASETS = {"a": 1.2, "b": 1.8, "c": 2.4, "d": 1.5}
"""Log odds of the AUC that a probe reaches with 30 images a class."""
BACKBONES = {"bundled:resnet": 0.2, "bundled:mobilenet": -0.2}
AMOUNTS = (10, 30, 300)
GAINS = {"linear_probe": (0.0, 0.0), "full_finetune": (0.0, 0.9), "bitfit": (0.4, -0.5), "knn_probe": (-0.5, 0.0)}
"""Strategy -> gain over the probe at 30 images a class, and for ten times as many."""
SECONDS = {"linear_probe": 2.0, "full_finetune": 40.0, "bitfit": 30.0, "knn_probe": 1.0}


def truth(strategy: str, per_class: int) -> float:
    gain, slope = GAINS[strategy]
    return gain + slope * float(np.log10(per_class / 30))


def rows(seeds: int = 2) -> list[Row]:
    draw = np.random.default_rng(0)
    made = []
    for dataset, level in DATASETS.items():
        for per_class in AMOUNTS:
            base = level + 0.4 * np.log10(per_class / 30)
            for backbone, plus in BACKBONES.items():
                for strategy in GAINS:
                    for seed in range(seeds):
                        odds = base + plus + truth(strategy, per_class)
                        test, val = expit(odds + draw.normal(0, 0.03, 2))
                        name, cell = backbone.partition(":")[2], f"{dataset}{per_class}{backbone}{strategy}"
                        made.append(
                            row(
                                dataset, backbone, strategy, seed, float(test), val_auc=float(val), per_class=per_class,
                                size=32, weights="bundled", weights_hash=BUNDLED[name].sha256, n_train=2 * per_class,
                                n_val=200, tune_seconds=0.0, fit_seconds=SECONDS[strategy] * per_class / 30, epochs=2,
                                trials=1, modality="x-ray", fingerprint=f"{hash_text(cell):x}"[-20:],
                                test_auc_lo=float(test) - 0.02, test_auc_hi=float(test) + 0.02,
                            )
                        )  # fmt: skip
    return made


def reference(folder: Path, change: Callable[[Row], Row] = lambda one: one) -> Path:
    """A results folder of these rows alone."""
    (folder / "cells").mkdir(parents=True)
    for one in map(change, rows()):
        (folder / "cells" / f"{one['fingerprint']}-s{one['seed']}.json").write_text(json.dumps(one))
    return folder
