"""What is new since the last report of the same folders, and what moved.

`shown.json` in the first of the folders remembers what the last report showed and what the one before it did. It is
replaced only when the cells or their versions are others: the same rows make the same page, however often they are
rendered.
"""

from __future__ import annotations

import json
import os
from collections import Counter
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pandas as pd
from markupsafe import Markup

from bench.errors import UsageError
from bench.report.frames import CELL, ok
from bench.report.markup import folded, paragraphs, table
from bench.report.planned import keys
from bench.report.section import Evidence, Section
from bench.report.tables import amount
from bench.report.written import fixed
from bench.store import write

MEMORY = "shown.json"
LINES = 200
"""Cells listed at most; all are in the tables."""

State = dict[str, Any]
"""What a report showed. `cells`: JSON list of the values of CELL -> [fingerprint, runs with a result, their mean test
AUC]. `places`: strategy -> its place in the leaderboard, 1 for the first, null where it is not ranked."""


@dataclass(frozen=True, eq=False)
class News:
    """What differs from the last report."""

    cells: pd.DataFrame
    """Columns: those of CELL, `change` (a key of _WORDS), `before` and `now` (mean test AUC)."""
    places: tuple[tuple[str, int | None, int | None], ...]
    """(strategy, place before, place now) of those whose place differs; None: not there, or not ranked."""


def remember(evidence: Evidence) -> None:
    """Keep what is shown now, for the next report. Raises UsageError where the memory cannot be read."""
    memory, state = _read(evidence), _state(evidence)
    shown = memory.get(_key(evidence), {}).get("shown")
    if shown is None or shown["cells"] != state["cells"]:
        memory[_key(evidence)] = {"shown": state, "before": shown}
        write(evidence.folders[0] / MEMORY, json.dumps(memory, indent=1, ensure_ascii=False).encode())


def news(evidence: Evidence) -> News | None:
    """None on the first report, or where nothing differs. Raises UsageError where the memory cannot be read."""
    state, entry = _state(evidence), _read(evidence).get(_key(evidence))
    if entry is None:
        return None
    before = entry["before"] if entry["shown"]["cells"] == state["cells"] else entry["shown"]
    if before is None or before["cells"] == state["cells"]:
        return None
    changes = []
    for key in sorted({*before["cells"], *state["cells"]}):
        then, now = before["cells"].get(key), state["cells"].get(key)
        if then is None or now is None or then[:2] != now[:2]:
            changes.append([*json.loads(key), _change(then, now), then and then[2], now and now[2]])
    cells = pd.DataFrame(changes, columns=[*CELL, "change", "before", "now"])
    order = sorted({*before["places"], *state["places"]}, key=lambda name: (state["places"].get(name) or 1e9, name))
    places = [(name, before["places"].get(name), state["places"].get(name)) for name in order]
    return News(cells, tuple(place for place in places if place[1] != place[2]))


def sentences(found: News) -> list[str]:
    """The news in words."""
    counts = found.cells.groupby("change", sort=False)["strategy"].agg(lambda names: Counter(sorted(names)))
    said = []
    for change, text in _WORDS.items():
        if change in counts:
            by_strategy = counts[change]
            names = ", ".join(f"{name} ({n})" for name, n in by_strategy.most_common(6))
            more = f" and {len(by_strategy) - 6} more strategies" if len(by_strategy) > 6 else ""
            said.append(f"{_cells(by_strategy.total())} {text}: {names}{more}.")
    if found.places:
        moves = [f"{name} {_place(then)} → {_place(now)}" for name, then, now in found.places[:6]]
        more = f" and {len(found.places) - 6} more" if len(found.places) > 6 else ""
        said.append(f"Places in the leaderboard that differ: {', '.join(moves)}{more}.")
    return said


def section(evidence: Evidence) -> Section | None:
    """The news as a part of the page."""
    found = news(evidence)
    if found is None:
        return None
    warning = (
        "A place depends on who else is compared and on which blocks are complete, so it can differ without any result "
        "of that strategy having changed; whether two places are told apart stands in the leaderboard."
    )
    body = paragraphs(sentences(found)) + paragraphs([warning] if found.places else [], soft=True)
    return Section("news", "New since the last report", body + _listed(found.cells))


def _listed(cells: pd.DataFrame) -> Markup:
    rest = f" The first {LINES} of {len(cells):,} are listed." if len(cells) > LINES else ""
    columns = ["Change", "Strategy", "Dataset", "Backbone", "Pixels", "Training images", "AUC before", "AUC now"]
    lines = [
        (
            c.change,
            c.strategy,
            c.dataset,
            c.backbone,
            c.size,
            amount(c.fraction, c.per_class),
            fixed(c.before),
            fixed(c.now),
        )
        for c in cells.head(LINES).itertuples()
    ]
    caption = f"Cells that differ from the last report. Test AUC is the mean over a cell's runs.{rest}"
    return folded(f"{_cells(len(cells))} in detail", table(caption, columns, lines, columns[4:]))


_WORDS = {
    "new": "not in the last report",
    "rerun": "rerun in another version",
    "more runs": "with more runs than before",
    "fewer runs": "with fewer runs than before",
    "gone": "no longer there",
}


def _change(then: list[Any] | None, now: list[Any] | None) -> str:
    if then is None:
        return "new"
    if now is None:
        return "gone"
    if then[0] != now[0]:
        return "rerun"
    return "more runs" if now[1] > then[1] else "fewer runs"


def _state(evidence: Evidence) -> State:
    rows = evidence.rows.assign(_key=[json.dumps(key, ensure_ascii=False) for key in keys(evidence.rows)])
    results = ok(rows).groupby("_key")["test_auc"].agg(["size", "mean"])
    fingerprints = rows.drop_duplicates("_key").set_index("_key")["fingerprint"]
    cells = {}
    for key, fingerprint in fingerprints.items():
        runs, mean = results.loc[key] if key in results.index else (0, None)
        cells[key] = [None if pd.isna(fingerprint) else fingerprint, int(runs), mean]
    table = evidence.board.table
    places = {str(row.strategy): at + 1 if row.ranked else None for at, row in enumerate(table.itertuples())}
    return {"cells": cells, "places": places}


def _read(evidence: Evidence) -> dict[str, Any]:
    path = evidence.folders[0] / MEMORY
    if not path.is_file():
        return {}
    try:
        memory = json.loads(path.read_bytes())
        for entry in memory.values():
            for state in (entry["shown"], entry["before"] or entry["shown"]):
                dict(state["cells"]), dict(state["places"])
    except (ValueError, OSError, TypeError, KeyError, AttributeError) as error:
        fix = "Delete it; the next report then marks nothing as new."
        raise UsageError(f"{path}: what the last report showed cannot be read ({error}). {fix}") from None
    return memory


def _key(evidence: Evidence) -> str:
    """Which folders were shown together: where the others lie, seen from the first."""
    first, *others = (Path(folder).resolve() for folder in evidence.folders)
    return " + ".join([".", *sorted(os.path.relpath(other, first) for other in others)])


def _cells(number: int) -> str:
    return f"{number:,} cell{'' if number == 1 else 's'}"


def _place(place: int | None) -> str:
    return "none" if place is None else str(place)
