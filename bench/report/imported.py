"""The section of the page on predictions made elsewhere: how they stand to the best network of this run."""

from __future__ import annotations

from collections.abc import Iterable

import pandas as pd

from bench.report.ensembles_listed import interval
from bench.report.frames import ok
from bench.report.gains import Read, gain, reader
from bench.report.markup import table
from bench.report.plots.canvas import count
from bench.report.section import Evidence, Section
from bench.report.ways import best_network, cells
from bench.report.written import MISSING, fixed, signed

CAPTION = (
    "Predictions made elsewhere, on the same test images. Means over seeds. Difference: less the network of this run "
    "with the highest mean val AUC on the same dataset, size and all training images; its 95 % interval is over what "
    "it names beside test images. How they were trained and chosen is not known here, nor what they cost: they are in "
    "no ranking."
)


def section(evidence: Evidence) -> Section | None:
    """None where nothing was imported."""
    if evidence.imported.empty:
        return None
    theirs = ok(evidence.imported)
    heads = ["Name", "Dataset", "Pixels", "Seeds", "Test AUC", "Difference", "95 %", "Compared with"]
    lines = list(_lines(theirs, ok(evidence.rows), reader(evidence.folders, evidence.damaged)))
    return Section("imported", "Made elsewhere", table(CAPTION, heads, lines, heads[2:7]))


def sentences(theirs: pd.DataFrame, networks: pd.DataFrame, read: Read) -> list[str]:
    """What was imported and how it stands to the best of the `networks` with a result, one a name and dataset."""
    said = []
    for name, dataset, pixels, seeds, auc, difference, between, rival in _lines(ok(theirs), networks, read):
        against = f", {difference} ({between}) from {rival}" if rival != MISSING else ""
        said.append(f"{name}, {dataset}, {pixels} px, {count(seeds, 'seed')}: test AUC {auc}{against}")
    return said


def _lines(
    theirs: pd.DataFrame, networks: pd.DataFrame, read: Read
) -> Iterable[tuple[str, str, int, int, str, str, str, str]]:
    for part in cells(theirs):
        first = part.iloc[0]
        rival = best_network(part.assign(over="seeds"), networks)  # of all its seeds: theirs may be others
        gained = gain([(part, rival)], read) if rival is not None else None
        differs = (signed(gained.auc), interval(gained)) if gained else (MISSING, MISSING)
        name = f"{rival['strategy'].iloc[0]}, {rival['backbone'].iloc[0]}" if rival is not None else MISSING
        place = (first["backbone"], first["dataset"], first["size"], len(part))
        yield (*place, fixed(part["test_auc"].mean()), *differs, name)
