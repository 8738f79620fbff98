"""The rows that the page carries, so that its leaderboard can be filtered and computed again by its script."""

from __future__ import annotations

from typing import Any

import numpy as np
import pandas as pd
from numpy.polynomial import Chebyshev
from scipy.special import stdtrit

from bench.report import stats
from bench.report.comparable import MIN_SHARE
from bench.report.frames import saw_test
from bench.report.leaderboard import CONTROLS, NO_RIVAL, ROPE
from bench.report.matrix import Z
from bench.report.same_images import judged_on
from bench.report.tables import amount

FACETS = ("dataset", "backbone", "size", "amount", "kind")
"""What a reader can filter by."""


def embedded(rows: pd.DataFrame) -> dict[str, Any]:
    """JSON values: current rows, seeds of a cell in order, one list a column.

    `labels` holds the values of each of `strategy` and FACETS in the order in which the leaderboard sorts them, and the
    column of that name holds positions in it. `amount` is how much of the training images was used: fraction and images
    a class together. A row without a result has a null `auc`. `error` is the standard error of the test AUC that the
    test images cause. `testedOn`: of each dataset a number that datasets with the same test images have alike; `tags`
    are of strategies that are not ranked.
    """
    keys = {"amount": ["fraction", "per_class"]}
    labels, columns = {}, {}
    for name in ("strategy", *FACETS):
        groups = rows.groupby(keys.get(name, name), dropna=False)
        columns[name] = groups.ngroup().astype(int).tolist()
        found = rows.assign(_code=columns[name]).drop_duplicates("_code").sort_values("_code")
        values = [amount(*pair) for pair in zip(found["fraction"], found["per_class"], strict=True)]
        labels[name] = (
            values if name == "amount" else found[name].astype(object).where(found[name].notna(), "unknown").tolist()
        )
    result = (rows["status"] == "ok").fillna(False)
    columns |= {
        "auc": _numbers(rows["test_auc"].where(result)),
        "error": _numbers((rows["test_auc_hi"] - rows["test_auc_lo"]) / (2 * Z)),
        "seconds": _numbers(rows["tune_seconds"] + rows["fit_seconds"]),
        "params": _numbers(rows["params_trained"]),
    }
    return {
        "labels": labels,
        "columns": columns,
        "tags": _tags(rows),
        "noRival": NO_RIVAL,
        "testedOn": pd.factorize(pd.Series(map(judged_on, labels["dataset"])))[0].tolist(),
        "controls": CONTROLS,
        "minShare": MIN_SHARE,
        "draws": stats.DRAWS,
        "rope": ROPE,
        "t975": _T975,
    }


def _tags(rows: pd.DataFrame) -> dict[str, str]:
    """Strategy -> what its name is marked with: that it saw the images of the test's domain, without labels."""
    return {str(name): "transductive" for name in sorted(rows.loc[saw_test(rows), "strategy"].unique())}


_T975 = Chebyshev.interpolate(
    lambda x: np.log(stdtrit(1 / np.maximum(x, 1e-9), 0.975)), 12, domain=[0, 1]
).coef.tolist()
"""Chebyshev series on [0, 1] of the logarithm of Student's t .975 quantile in 1 / degrees of freedom; good to 2e-9."""


def _numbers(values: pd.Series) -> list[float | int | None]:
    """Whole numbers without a point, missing ones as None."""
    return [None if pd.isna(v) else int(v) if v == int(v) else float(v) for v in values]
