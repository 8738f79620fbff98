"""Every ensemble with its gain and its members, as a table."""

from __future__ import annotations

from collections import defaultdict

import numpy as np
import pandas as pd
from markupsafe import Markup

from bench.report.adaptation import network
from bench.report.frames import TAG, saw_test
from bench.report.gains import Gain, Read, gain
from bench.report.markup import table
from bench.report.members import Member, members
from bench.report.ways import best_member, cells
from bench.report.written import MISSING, fixed, signed

MOST = 20
"""Ensembles of a dataset that are listed, those of the highest test AUC."""
NAMED = 8
"""Members of an ensemble that are named, those of the largest weight."""


def listing(made: pd.DataFrame, networks: pd.DataFrame, read: Read) -> Markup:
    """Of ensembles and networks with a result, those of each dataset with the highest test AUC."""
    every = sorted(cells(made), key=lambda part: (part["dataset"].iloc[0], -part["test_auc"].mean()))
    tagged = networks.assign(strategy=networks["strategy"] + np.where(saw_test(networks), TAG, ""))
    names = tagged.drop_duplicates("fingerprint").set_index("fingerprint")[["backbone", "strategy"]]
    lines, listed = [], defaultdict[str, int](int)
    for part in every:
        first = part.iloc[0]
        listed[first["dataset"]] += 1
        if listed[first["dataset"]] > MOST:
            continue
        single = best_member(part, networks)
        gained = gain([(part, single)], read) if single is not None else None
        name = first["strategy"] + TAG * bool(saw_test(part).any())
        line = (first["dataset"], network(first), name, len(members(first["members"])))
        differs = (signed(gained.auc), interval(gained)) if gained else (MISSING, MISSING)
        weights = Markup('<div class="long">{}</div>').format(_weights(part, names))
        lines.append((*line, fixed(part["test_auc"].mean()), *differs, weights))
    heads = ["Dataset", "Network", "Ensemble", "Members", "Test AUC", "Gain", "95 %", "Weights"]
    rest = f" Of each dataset the {MOST} with the highest AUC are listed." if max(listed.values()) > MOST else ""
    caption = (
        "Every ensemble. Means over seeds, the highest test AUC of each dataset first. Gain: over the member with the "
        f"highest mean val AUC. Weights are means over seeds, the largest first.{rest}"
    )
    return table(caption, heads, lines, heads[3:7])


def _weights(rows: pd.DataFrame, names: pd.DataFrame) -> str:
    """The members with their mean weights, largest first."""
    over, total = rows["over"].iloc[0], defaultdict[str, float](float)
    for text in rows["members"]:
        for one in members(text):
            total[_name(one, over, names)] += one.weight / len(rows)
    order = sorted(total.items(), key=lambda item: (-round(item[1], 6), item[0]))
    used = [(name, weight) for name, weight in order if weight > 0]
    shown = used[:NAMED]
    left_out = [f"{len(used) - NAMED} more"] if len(used) > NAMED else []
    left_out += [f"{len(order) - len(used)} of weight 0"] if len(order) > len(used) else []
    if len(used) > 1 and np.ptp([weight for _, weight in used]) < 1e-6:
        return ", ".join([f"{fixed(used[0][1], 2)} each: {shown[0][0]}", *(name for name, _ in shown[1:]), *left_out])
    return ", ".join([*(f"{name} {fixed(weight, 2)}" for name, weight in shown), *left_out])


def _name(one: Member, over: str, names: pd.DataFrame) -> str:
    """What tells a member from the others of its ensemble."""
    backbone, strategy = names.loc[one.fingerprint]
    told = {
        "backbones": backbone,
        "strategies": strategy,
        "seeds": f"seed {one.seed}",
        "views": f"view {one.view}" if one.view != "0" else "the image itself",
    }
    return str(told.get(over, f"{backbone} · {strategy}"))


def interval(gained: Gain) -> str:
    """For a table, where the interval is over seeds and test images unless it says otherwise."""
    low, high = gained.interval
    only = {"seeds": ", seeds only", "test images": ", images only"}.get(gained.over, "")
    return MISSING if np.isnan(low) else f"{signed(low)} to {signed(high)}{only}"
