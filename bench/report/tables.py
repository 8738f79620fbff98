"""The report's tables that are not rankings: results by cell, costs, datasets and provenance."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pandas as pd

from bench.report import audits
from bench.report.frames import CELL, ok


def results(rows: pd.DataFrame) -> dict[str, pd.DataFrame]:
    """Dataset -> one line a cell that has a result, best first: means over its seeds, and their lowest and highest
    AUC."""
    runs_any = rows.groupby(CELL, dropna=False).size().rename("runs_any")
    cells = ok(rows).groupby(CELL, dropna=False).agg(
        runs=("seed", "size"),
        auc=("test_auc", "mean"), auc_min=("test_auc", "min"), auc_max=("test_auc", "max"),
        auc_lo=("test_auc_lo", "mean"), auc_hi=("test_auc_hi", "mean"),
        test_acc=("test_acc", "mean"), val_auc=("val_auc", "mean"),
        lr=("lr", "first"), tune_seconds=("tune_seconds", "first"), fit_seconds=("fit_seconds", "mean"),
    )  # fmt: skip
    cells = cells.join(runs_any).reset_index()
    cells["amount"] = [amount(f, p) for f, p in zip(cells["fraction"], cells["per_class"], strict=True)]
    cells = cells.sort_values(["dataset", "auc"], ascending=[True, False], kind="stable")
    return {str(name): part for name, part in cells.groupby("dataset")}


def costs(used: pd.DataFrame, trials: pd.DataFrame) -> pd.DataFrame:
    """Per strategy, means over the runs that the leaderboard stands on, and what became of their tuning trials, where
    these are at hand."""
    names = [
        *("tune_seconds", "fit_seconds", "predict_ms", "images_seen", "tune_images_seen", "peak_memory_mb"),
        *("params_total", "params_trained", "flops_per_image", "energy_joules"),
    ]
    table = used[["strategy", *names]].astype(dict.fromkeys(names, "float64")).groupby("strategy").mean()
    owner = used.drop_duplicates("fingerprint").set_index("fingerprint")["strategy"]
    states = trials.assign(strategy=trials["fingerprint"].map(owner)).dropna(subset=["strategy"])
    for state in ("complete", "pruned", "diverged") if len(states) else ():
        counts = states[states["state"] == state].groupby("strategy").size()
        table[state] = counts.reindex(table.index, fill_value=0).astype(int)
    return table.sort_values("fit_seconds", kind="stable").reset_index()


def spent(rows: pd.DataFrame) -> dict[str, float]:
    """What cells took: `seconds`, the `share` of them in which networks computed, and the training images a second of
    the median fit (`rate`, NaN where it is not known). Empty where no row says."""
    known = rows.dropna(subset=["cell_seconds", "network_seconds"])
    total = float(known["cell_seconds"].sum())
    if total <= 0:
        return {}
    fits = known[known["fit_seconds"] > 0]
    rate = (fits["images_seen"] / fits["fit_seconds"]).astype("float64").median()
    return {"seconds": total, "share": float(known["network_seconds"].sum()) / total, "rate": float(rate)}


def datasets(rows: pd.DataFrame) -> pd.DataFrame:
    """One line for each dataset, size and amount of training data; what is not known is a dash."""
    facts = [
        *("kind", "modality", "source_size", "resize", "n_train", "n_val", "n_test"),
        *("licence", "noncommercial", "data_hash", "citation"),
    ]
    table = rows.groupby(["dataset", "size", "fraction", "per_class"], dropna=False)[facts].first().reset_index()
    table["amount"] = [amount(f, p) for f, p in zip(table["fraction"], table["per_class"], strict=True)]
    return table.astype(object).where(table.notna(), "–")


def integrity(folders: Sequence[Path]) -> list[dict[str, Any]]:
    """What was found in each dataset (`datasets.json` of each folder): images a split, counts a class, duplicates.
    Images that were read at one size for several are listed once."""
    found: dict[str, dict[str, Any]] = {}
    for folder in folders:
        found |= audits.read(folder)[0]
    for entry in found.values():
        first, *others = entry["class_counts"].values()
        entry["classes"] = [(name, [count, *(other[name] for other in others)]) for name, count in first.items()]
    listed: dict[str, dict[str, Any]] = {}
    for key in sorted(found):
        listed.setdefault(json.dumps(found[key] | {"size": None}), found[key])
    return list(listed.values())


def provenance(rows: pd.DataFrame) -> list[tuple[str, list[tuple[str, int]]]]:
    """(what, [(value, number of runs)]) for everything that a reader needs to make the rows again."""
    versions = rows["versions"].map(_versions, na_action="ignore")
    commit = rows["git_commit"] + rows["git_dirty"].map({True: " with uncommitted changes"}).fillna("")
    facts = {
        "Versions": versions, "Device": rows["device"], "Precision": rows["precision"],
        "Memory format": rows["memory_format"], "Threads": rows["threads"], "Engine": rows["engine"], "Code": commit,
        "Source of strategies": rows["strategy"] + ": " + rows["source_hash"],
        "Images": rows["dataset"] + ": " + rows["data_hash"],
        "Weights": rows["backbone"] + " (" + rows["weights"].fillna("unknown") + "): " + rows["weights_hash"],
    }  # fmt: skip
    counted = [(what, values.dropna().astype(str).value_counts().sort_index()) for what, values in facts.items()]
    return [(what, [(str(value), int(n)) for value, n in counts.items()]) for what, counts in counted if len(counts)]


def amount(fraction: float, per_class: object) -> str:
    """How much of the training split is used, in words."""
    if not pd.isna(per_class):
        return f"{per_class} a class"
    return "all" if fraction == 1 else f"{fraction * 100:g} %"


def _versions(text: str) -> str:
    try:
        versions = json.loads(text)
    except ValueError:
        return text
    if not isinstance(versions, dict):
        return text
    return ", ".join(f"{name} {version}" for name, version in sorted(versions.items()))
