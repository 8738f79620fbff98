"""How far advice would have been right: each dataset of the knowledge in turn is asked about as if it were new.

All tasks of a dataset, its sizes and amounts, leave the knowledge together, and advice sees of them what it sees of a
user's images: the facts, with the val AUC of linear probes. Its choice is then looked up in the rows that were left
out. The dataset is the unit: tasks of one are averaged, intervals are over datasets.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np
import pandas as pd

from bench.advice.facts import Facts
from bench.advice.knowledge import ANCHOR, CONTROL, FEWEST, Knowledge
from bench.advice.predicted import Prediction, predict
from bench.advice.shortlist import shortlist
from bench.errors import UsageError
from bench.report.same_images import KIN

ADVICE, LIST, CHEAP = "advice, first", "advice, list", "advice, cheapest"
ALWAYS, FIXED, PROBE, HINDSIGHT = CONTROL, "fixed", ANCHOR, "fixed, in hindsight"


@dataclass(frozen=True, eq=False)
class Judged:
    """Regret of ways to choose."""

    regret: pd.DataFrame
    """A line a task, indexed by dataset, a column a way to choose: test AUC below that of the best candidate."""
    coverage: float
    """Share of all candidates' test AUCs that lay in their 95 % intervals."""
    tasks: Sequence[Facts]
    """Of the lines."""
    left_out: Sequence[Facts]
    """Tasks in which not all was run that the ways would choose, so that they cannot be compared there."""


def judged(knowledge: Knowledge, labels: Collection[str] | None = None) -> Judged:
    """Of every dataset of the knowledge, for somebody who can run all of its networks, or those in `labels` alone: what
    is learned is learned from all, but advice and what it is compared with choose among these. Raises UsageError where
    too few datasets are left without one, or nothing can be compared."""
    labels = knowledge.labels if labels is None else labels
    families = _families(knowledge.datasets)
    if len(families) <= FEWEST:
        kin = f" (of {len(knowledge.datasets)}, some are of the same patients)" * (
            len(families) < len(knowledge.datasets)
        )
        raise UsageError(
            f"--validate needs {FEWEST + 1} datasets, one to ask about and {FEWEST} to learn from; the reference has "
            f"{len(families)}{kin}. Give more folders with --reference."
        )
    lines: list[dict[str, object]] = []
    covered, compared, left_out = [], [], []
    hindsight = _usual(knowledge, labels)
    for family, datasets in families.items():
        seen = knowledge.without(datasets)
        usual, seconds = _usual(seen, labels), seen.cells.groupby(["strategy", "backbone"])["seconds"].median()
        whole = {at: _on(task, labels) for at, task in enumerate(knowledge.tasks) if task.dataset in datasets}
        asked = {at: target for at, target in whole.items() if target.probe}
        for (at, target), prediction in zip(asked.items(), predict(seen, list(asked.values())), strict=True):
            costs = seconds.reindex(list(prediction.candidates)).to_numpy(dtype=float)
            cells = knowledge.cells[knowledge.cells["task"] == at].set_index(["strategy", "backbone"])
            truth = cells.reindex(list(prediction.candidates))
            auc = truth["auc"].to_numpy(dtype=float)
            chosen = _choices(prediction, costs, truth["val_auc"].to_numpy(dtype=float), target.probe, usual, hindsight)
            regret = {way: np.nan if place is None else np.nanmax(auc) - auc[place] for way, place in chosen.items()}
            if not np.isfinite(list(regret.values())).all():
                left_out.append(target)
                continue
            low, high = prediction.interval
            known = ~np.isnan(auc)
            covered.append(np.mean((low <= auc)[known] & (auc <= high)[known]))
            lines.append({"dataset": family, **regret})
            compared.append(target)
    if not lines:
        raise UsageError(
            f"--validate: in none of the reference's {len(knowledge.tasks)} tasks was all run that is to be compared: "
            f"what is advised, {ALWAYS}, {PROBE} and one fixed choice. Give more folders with --reference."
        )
    return Judged(pd.DataFrame(lines).set_index("dataset"), float(np.mean(covered)), compared, left_out)


def _on(task: Facts, labels: Collection[str]) -> Facts:
    """As it is known where only these networks can be run."""
    return replace(task, probe={label: auc for label, auc in task.probe.items() if label in labels})


def _families(datasets: Sequence[str]) -> dict[str, set[str]]:
    """Datasets that are left out together, for the training patients are the same."""
    found: dict[str, set[str]] = {}
    for name in datasets:
        found.setdefault(KIN.get(name, name), set()).add(name)
    return found


def _choices(
    prediction: Prediction, costs: np.ndarray, val: np.ndarray, probe: Mapping[str, float], usual: pd.Series,
    hindsight: pd.Series,
) -> dict[str, int | None]:  # fmt: skip
    """Way to choose -> position among the candidates; None where there is none. `val` [C] is NaN for candidates that
    were not run: a list with one of these chooses it, so that it counts as not known."""
    listed = shortlist(prediction, np.nan_to_num(costs))
    assert listed is not None  # there is no budget
    places = {pair: at for at, pair in enumerate(prediction.candidates)}

    def of(strategy: str) -> int | None:
        found = [pair for pair in places if pair[0] == strategy]
        return places[max(found, key=lambda pair: probe[pair[1]])] if found else None

    def highest(scores: pd.Series) -> int | None:
        return places.get(scores.idxmax()) if len(scores) else None

    return {
        ADVICE: listed.first,
        LIST: max(listed.cells, key=lambda at: (np.isnan(val[at]), np.nan_to_num(val[at]))),
        CHEAP: listed.cheapest,
        ALWAYS: of(CONTROL),
        FIXED: highest(usual),
        PROBE: of(ANCHOR),
        HINDSIGHT: highest(hindsight),
    }


def _usual(knowledge: Knowledge, labels: Collection[str]) -> pd.Series:
    """(strategy, backbone in `labels`) -> what it adds to a task's test AUC, datasets counting alike, by least squares
    on an effect of every task and one of every candidate: not all candidates were run in all tasks, and the mean of a
    task in which only probes were run is no measure of fine-tuning. Of those that were run on every dataset, since one
    that was run on an easy task alone says nothing."""
    cells = knowledge.cells.assign(dataset=[knowledge.tasks[at].dataset for at in knowledge.cells["task"]])
    pairs = cells["strategy"].str.cat(cells["backbone"], sep="\n")
    effects = pd.concat([pd.get_dummies(pairs), pd.get_dummies(cells["task"], prefix="task")], axis=1)
    weight = np.sqrt(1 / cells.groupby("dataset")["auc"].transform("size").to_numpy(dtype=float))[:, None]
    found = np.linalg.lstsq(effects.to_numpy(dtype=float) * weight, cells["auc"].to_numpy()[:, None] * weight)[0][:, 0]
    added = pd.Series(found, effects.columns)
    grouped = cells.groupby(["strategy", "backbone"])["dataset"].nunique()
    everywhere = grouped.index[(grouped == len(knowledge.datasets)) & grouped.index.isin(labels, level="backbone")]
    return pd.Series({pair: added["\n".join(pair)] for pair in everywhere}, dtype=float)
