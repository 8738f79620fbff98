"""Ways of making an ensemble, and the single networks that they are measured against. Whatever is picked is picked by
val AUC, as a user would."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import numpy as np
import pandas as pd

from bench.report.comparable import comparable
from bench.report.frames import CELL, saw_test
from bench.report.members import Member, members

BLOCK = ["dataset", "size", "fraction", "per_class"]
"""What one way has one ensemble in."""
USED = [
    *(*CELL, "seed", "status", "kind", "fusion", "over", "members", "fingerprint", "val_auc", "test_auc", "n_val"),
    *("tune_seconds", "fit_seconds", "fuse_seconds", "predict_ms", "transductive"),
]
"""Columns that the comparison of ensembles takes: rows are cut into many small tables, which is slow for wide ones."""


@dataclass(frozen=True, eq=False)
class Way:
    """A fusion over members that differ in one thing, on the blocks that it is judged on."""

    fusion: str
    over: str
    chosen: tuple[pd.DataFrame, ...]
    """Of each block the rows of the ensemble with the highest mean val AUC, sorted by seed."""
    compared: bool
    """Whether its blocks are those of all other compared ways."""


def ways(made: pd.DataFrame) -> list[Way]:
    """All ways among rows of ensembles with a result that did not see the test images. `comparable` chooses those that
    are compared and their blocks; each of the others stands on its own. Where none in a block has a val AUC, the first
    by name counts."""
    made = made[~saw_test(made)]
    numbered = made.assign(
        _block=made.groupby(BLOCK, dropna=False).ngroup(),
        _cell=made.groupby(["fusion", "over", *CELL], dropna=False).ngroup(),
    )
    val = numbered.groupby("_cell")["val_auc"].agg(["mean", "count", "size"])
    known = val["mean"].where(val["count"] == val["size"])
    each = numbered.drop_duplicates("_cell").assign(_val=lambda rows: rows["_cell"].map(known))
    best = each.sort_values(["_val", "_cell"], ascending=[False, True]).drop_duplicates(["fusion", "over", "_block"])
    rows = dict(list(numbered[numbered["_cell"].isin(best["_cell"])].sort_values("seed").groupby("_cell")))
    found: dict[tuple[str, str], dict[int, pd.DataFrame]] = defaultdict(dict)
    for fusion, over, block, cell in zip(*(best[n] for n in ("fusion", "over", "_block", "_cell")), strict=True):
        found[fusion, over][block] = rows[cell]
    there = np.array([[at in chosen for at in range(numbered["_block"].nunique())] for chosen in found.values()])
    compared, complete = comparable(there) if found else ((), ())
    common = np.flatnonzero(complete).tolist()
    return [
        Way(*name, tuple(chosen[at] for at in (common if together else sorted(chosen))), bool(together))
        for (name, chosen), together in zip(found.items(), compared, strict=True)
    ]


def cells(rows: pd.DataFrame) -> list[pd.DataFrame]:
    """The rows of each cell, sorted by seed."""
    return [part.sort_values("seed") for _, part in rows.groupby(CELL, dropna=False)]


def best_member(ensemble: pd.DataFrame, networks: pd.DataFrame) -> pd.DataFrame | None:
    """The rows, one a row of the ensemble, of its member with the highest mean val AUC: among the networks with a
    result, or over seeds among their fits. None where no member has a val AUC."""
    listed = [one for text in ensemble["members"] for one in members(text)]
    own = networks[networks["fingerprint"].isin({one.fingerprint for one in listed})]
    if ensemble["over"].iloc[0] != "seeds":
        return _best(_of_seeds(own, ensemble["seed"].tolist()))
    fits = {(one.fingerprint, one.seed) for one in listed}
    there = zip(own["fingerprint"], own["seed"], strict=True)
    return _best(own.iloc[[at]] for at, fit in enumerate(there) if fit in fits)


def best_network(ensemble: pd.DataFrame, networks: pd.DataFrame) -> pd.DataFrame | None:
    """The rows of the network with the highest mean val AUC of all in the ensemble's block: of the ensemble's seeds, or
    of all of its own where the ensemble is of several. None where none has a val AUC."""
    return _best(networks_beside(ensemble, networks))


def networks_beside(ensemble: pd.DataFrame, networks: pd.DataFrame) -> list[pd.DataFrame]:
    """The rows of each network in the ensemble's block that did not see the test images: of the ensemble's seeds, or of
    all of its own where the ensemble is of several."""
    first = ensemble.iloc[0]
    same = np.logical_and.reduce(
        [
            ((networks[name] == first[name]) | (networks[name].isna() & pd.isna(first[name]))).fillna(False)
            for name in BLOCK
        ]
    )
    own = networks[same & ~saw_test(networks)]
    return cells(own) if first["over"] == "seeds" else _of_seeds(own, ensemble["seed"].tolist())


def used(ensemble: pd.DataFrame) -> list[list[Member]]:
    """Of each row the members with a weight above 0: an ensemble of one of them is that network."""
    return [[one for one in members(text) if one.weight > 0] for text in ensemble["members"]]


def _of_seeds(networks: pd.DataFrame, seeds: Sequence[int]) -> list[pd.DataFrame]:
    """Of each cell that has them all, the rows of these seeds."""
    parts = cells(networks[networks["seed"].isin(seeds)])
    return [part for part in parts if len(part) == len(seeds)]


def _best(parts: Iterable[pd.DataFrame]) -> pd.DataFrame | None:
    known = [part for part in parts if part["val_auc"].notna().all()]
    return max(known, key=_val_auc) if known else None


def _val_auc(rows: pd.DataFrame) -> float:
    """Their mean; less than any where one has none."""
    mean = float(rows["val_auc"].mean(skipna=False))
    return -np.inf if np.isnan(mean) else mean
