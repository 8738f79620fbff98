"""What earlier runs found: tasks, and the test AUC and cost of every strategy and backbone on them."""

from __future__ import annotations

import contextlib
import json
import math
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import pandas as pd

from bench.advice.facts import UNTRUSTED, Facts, imbalance
from bench.config import PROTOCOL, backbone_of
from bench.contract import Backbone, Protocol
from bench.errors import UsageError, nearest
from bench.report.frames import apart, current, ok, read_rows
from bench.report.protocols import recipe
from bench.report.same_images import judged_on
from bench.rules import LIMITS

TASK = ["dataset", "size", "fraction", "per_class"]
ANCHOR = "linear_probe"
"""The strategy whose val AUC says how hard a task is: the user's images are measured by the same."""
CONTROL = "full_finetune"
SAME_IMAGES = 0.5
"""Correlation of two networks' errors that the same test images cause: see bench.report.intervals.margin."""
FEWEST = 2
"""Datasets without which there is nothing to learn of a further one."""


@dataclass(frozen=True, eq=False)
class Knowledge:
    """The reference study as a table of tasks x (strategy, backbone)."""

    tasks: tuple[Facts, ...]
    cells: pd.DataFrame
    """Columns: `task` (position in `tasks`), `strategy`, `backbone`, `auc` (mean test AUC over the seeds), `val_auc`,
    `variance` (of the log odds of `auc`, of other seeds and, beyond what all share, other test images), `seconds`
    (tuning and one fit). Sorted by these."""
    backbones: Mapping[str, Backbone]
    """By label; without those of which the folders do not say what they are."""
    weights: Mapping[str, str]
    """Label of a backbone -> hash of its weights."""
    protocols: tuple[Protocol, ...]
    """That most rows of each task were made with."""
    notes: tuple[str, ...] = ()
    """What was left out, and why."""

    @property
    def candidates(self) -> list[tuple[str, str]]:
        """Every (strategy, backbone) that was ever run, in order."""
        return sorted(set(zip(self.cells["strategy"], self.cells["backbone"], strict=True)))

    @property
    def labels(self) -> list[str]:
        """Of every backbone that was ever run."""
        return sorted(set(self.cells["backbone"]))

    @property
    def sizes(self) -> dict[int, set[str]]:
        """Size -> labels of the backbones that were run at it."""
        found: dict[int, set[str]] = {}
        for task in self.tasks:
            found.setdefault(task.size, set()).update(task.probe)
        return found

    @property
    def datasets(self) -> tuple[str, ...]:
        return tuple(dict.fromkeys(task.dataset for task in self.tasks))

    def tasks_of(self, strategy: str, backbone: str) -> list[Facts]:
        """In which the two were run."""
        pair = (self.cells["strategy"] == strategy) & (self.cells["backbone"] == backbone)
        return [self.tasks[at] for at in sorted(set(self.cells.loc[pair, "task"]))]

    def protocol(self, images: int, classes: int) -> Protocol:
        """That of the task with the most similar number of images a class: few images are given more epochs."""

        def apart(at: int) -> float:
            return abs(math.log(self.tasks[at].images / self.tasks[at].classes) - math.log(max(images, 1) / classes))

        return self.protocols[min(range(len(self.tasks)), key=apart)]

    def without(self, datasets: Collection[str]) -> Knowledge:
        """As if these datasets had never been run, at any size or amount."""
        kept = [at for at, task in enumerate(self.tasks) if task.dataset not in datasets]
        places = {at: place for place, at in enumerate(kept)}
        cells = self.cells[self.cells["task"].isin(kept)]
        cells = cells.assign(task=cells["task"].map(places)).reset_index(drop=True)
        protocols = tuple(self.protocols[at] for at in kept)
        return replace(self, tasks=tuple(self.tasks[at] for at in kept), protocols=protocols, cells=cells)


def read(folders: Sequence[Path], leave_out: Collection[str] = ()) -> Knowledge:
    """The knowledge in results folders, less the datasets in `leave_out` and those of the same patients. Ensembles,
    shifts, imported predictions and strategies that adapt to test images are no part of it. Raises UsageError where too
    little is left."""
    rows = pd.concat([read_rows(folder) for folder in folders], ignore_index=True)
    runs = [_json(folder / "run.json") for folder in folders]
    audits = {name: found for folder in folders for name, found in _json(folder / "datasets.json").items()}
    if unknown := [name for name in leave_out if name not in set(rows["dataset"])]:
        raise UsageError(f"--leave-out {unknown[0]}: not in the reference.{nearest(unknown[0], set(rows['dataset']))}")

    gone = rows["dataset"].map(judged_on).isin(list(map(judged_on, leave_out)))
    rows = rows[~gone & rows["target"].isna() & (rows["size"] > 0)]
    networks = ok(current(_one_budget(_asked_for(apart(rows)[0]))))
    usable = networks[~networks["transductive"].fillna(False).astype(bool)]
    notes = []
    if len(budgets := usable[["epochs", "trials"]].drop_duplicates()) > 1:
        told = " and ".join(f"{one.epochs} epochs, {one.trials} trials" for one in budgets.itertuples())
        notes.append(f"tasks of the reference had different budgets ({told}), and are taken as alike")
    tasks: list[Facts] = []
    protocols = []
    cells = []
    for key, part in usable.groupby(TASK, dropna=False):
        anchors = part[part["strategy"] == ANCHOR].groupby("backbone")["val_auc"].mean().dropna()
        if anchors.empty:
            notes.append(f"{key[0]} {key[1]} px is left out: it has no {ANCHOR}")
            continue
        tasks.append(_facts(part, anchors.to_dict(), audits))
        protocol, guess = _protocol(part, runs)
        protocols.append(protocol)
        notes += [guess] if guess and guess not in notes else []
        table = _cells(part[part["backbone"].isin(anchors.index)])
        cells.append(table.assign(task=len(tasks) - 1))
    if len({task.dataset for task in tasks}) < FEWEST:
        named = ", ".join(map(str, folders))
        raise UsageError(
            f"{named}: results of fewer than {FEWEST} datasets with {ANCHOR} are left to learn from. "
            "Give more folders with --reference, or leave fewer datasets out."
        )
    known = {backbone.label: backbone for run in runs for backbone in _backbones(run)}
    for label, origin in usable[["backbone", "weights"]].drop_duplicates().itertuples(index=False):
        if label not in known and origin in ("bundled", "hub") and not ({" ", "["} & set(label)):
            known[label] = Backbone(label, label if origin == "bundled" else "hub")
    return Knowledge(
        tasks=tuple(tasks),
        cells=pd.concat(cells, ignore_index=True).sort_values(["task", "strategy", "backbone"], ignore_index=True),
        backbones=known,
        weights=usable[usable["weights_hash"] != "random"].groupby("backbone")["weights_hash"].last().to_dict(),
        protocols=tuple(protocols),
        notes=tuple(notes),
    )


def _asked_for(rows: pd.DataFrame) -> pd.DataFrame:
    """Without the versions of cells that their folder has superseded: they are in no report, and have no vote on the
    budget either."""
    old = rows.get("superseded", pd.Series(False, rows.index)).fillna(False).astype(bool)
    return rows[~old]


def _one_budget(rows: pd.DataFrame) -> pd.DataFrame:
    """Of each task the rows of the epochs and trials that most of its rows have: gains within a task are compared."""
    budget = rows["epochs"].astype("string") + "/" + rows["trials"].astype("string")
    most = budget.groupby([rows[name].astype("string").fillna("") for name in TASK]).transform(
        lambda b: b.mode().iloc[0] if b.notna().any() else pd.NA
    )
    return rows[(budget == most).fillna(False)]


def _facts(part: pd.DataFrame, anchors: Mapping[str, float], audits: Mapping[str, Any]) -> Facts:
    first = part.iloc[0]
    recalls = json.loads(first["test_recall"]) if isinstance(first["test_recall"], str) else []
    classes = max(len(recalls), 2)
    counts = _counts(audits.get(f"{first['dataset']} {first['size']} px"))
    if not pd.isna(first["per_class"]):
        counts = [min(count, int(first["per_class"])) for count in counts]
    return Facts(
        dataset=str(first["dataset"]), size=int(first["size"]), images=_whole(first["n_train"]),
        val_images=_whole(first["n_val"]), classes=classes, kind=str(first["kind"]),
        modality="unknown" if pd.isna(first["modality"]) else str(first["modality"]),
        imbalance=imbalance(counts), probe=anchors,
    )  # fmt: skip


def _cells(part: pd.DataFrame) -> pd.DataFrame:
    """A line a strategy and backbone."""
    groups = part.groupby(["strategy", "backbone"])
    table = pd.DataFrame(
        {
            "auc": groups["test_auc"].mean(),
            "val_auc": groups["val_auc"].mean(),
            "seeds": groups.size(),
            "between": groups["test_auc"].var(),
            "error": (groups["test_auc_hi"].mean() - groups["test_auc_lo"].mean()) / (2 * 1.96),
            "seconds": groups["tune_seconds"].mean() + groups["fit_seconds"].mean(),
        }
    ).reset_index()
    between = table["between"].fillna(table["between"].mean()).fillna(0.0) / table["seeds"]
    images = (1 - SAME_IMAGES) * table["error"].fillna(0.0) ** 2
    kept = table["auc"].clip(UNTRUSTED, 1 - UNTRUSTED)
    table["variance"] = (between + images) / (kept * (1 - kept)) ** 2
    return table.drop(columns=["seeds", "between", "error"])


def _protocol(rows: pd.DataFrame, runs: Sequence[Mapping[str, Any]]) -> tuple[Protocol, str]:
    """The rows' epochs and trials, which are one budget; the rest as told for these and this amount of data. Where
    that is not told: as for the same trials at least (a study's epochs differ with the amount), else the default, and
    then a note that it is a guess."""
    first = rows.iloc[0]
    epochs, trials = int(first["epochs"]), int(first["trials"])
    amount = (float(first["fraction"]), None if pd.isna(first["per_class"]) else int(first["per_class"]))
    alike = [one for run in runs for one in _told(run) if one[1].get("trials") == trials]
    exact = [told for amounts, told in alike if told.get("epochs") == epochs and amount in (amounts or [amount])]
    told = next(iter(exact or [told for _, told in alike]), {})
    known = {name: value for name, value in told.items() if _may_be(name, value)}
    guess = f"no run.json says what {epochs} epochs and {trials} trials were run with, so batch size and the like"
    return Protocol(**known | {"epochs": epochs, "trials": trials}), "" if exact else f"{guess} are a guess"


def _told(run: Mapping[str, Any]) -> Iterator[tuple[list[tuple[Any, Any]], Mapping[str, Any]]]:
    """Amounts of data (none where it does not say) and the protocol that they were run with: of the last command, and
    of all that a published folder lists as `protocols`, since run.json itself holds no others."""
    listed = run.get("protocols")
    for one in [run.get("matrix"), *(listed if isinstance(listed, list) else [])]:
        amounts = one.get("amounts") if isinstance(one, dict) else None
        known = [a for a in amounts if isinstance(a, dict)] if isinstance(amounts, list) else []
        yield [(a.get("fraction"), a.get("per_class")) for a in known], recipe({"matrix": one})


def _may_be(name: str, value: Any) -> bool:
    """Whether a matrix file could say this of the protocol: run.json may be somebody else's."""
    if name not in PROTOCOL or type(value) is not type(PROTOCOL[name]):
        return False
    return name not in LIMITS or LIMITS[name].holds(value)


def _backbones(run: Mapping[str, Any]) -> Iterator[Backbone]:
    """Of a run's matrix; checked as a matrix file's are, since they will be loaded and the folder may be somebody
    else's."""
    matrix = run.get("matrix")
    listed = matrix.get("backbones") if isinstance(matrix, dict) else None
    for table in listed if isinstance(listed, list) else []:
        with contextlib.suppress(UsageError, AttributeError):  # AttributeError: it is no table
            yield backbone_of({name: value for name, value in table.items() if value not in (None, "", {})}, None)


def _counts(audit: Any) -> list[int]:
    """Training images of each class or label, where datasets.json says so."""
    try:
        table = audit["class_counts"]["train"]
        return [int(count) for name, count in table.items() if name != "no label"]
    except (KeyError, TypeError, ValueError, AttributeError):
        return []


def _json(path: Path) -> dict[str, Any]:
    """What a folder says of itself beside its rows; nothing where it does not, since the rows can do without."""
    try:
        found = json.loads(path.read_bytes())
    except (OSError, ValueError, RecursionError):
        return {}
    return found if isinstance(found, dict) else {}


def _whole(value: Any) -> int:
    return 1 if pd.isna(value) else max(int(value), 1)
