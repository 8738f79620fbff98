"""One self-contained HTML page of one or several results folders."""

from __future__ import annotations

import base64
import json
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import jinja2
import pandas as pd
from markupsafe import Markup

from bench.cache import whole_file
from bench.report import plots, tables, words
from bench.report.frames import current, ok, read_rows, read_trials
from bench.report.leaderboard import Leaderboard, leaderboard
from bench.store import strip_path

Runs = list[dict[str, Any]]


def render(folders: list[Path], out: Path) -> Path:
    """Write the report of `folders` to the file `out`, all of it or nothing, and return it.

    Folders are merged: of a cell that is in several, the version that finished last is shown. Two renders of the same
    rows differ in the line that gives the date only. Raises UsageError where a folder holds no results.
    """
    row_parts, trial_parts = [read_rows(folder) for folder in folders], [read_trials(folder) for folder in folders]
    unreadable = [text for part in (*row_parts, *trial_parts) for text in part.attrs["warnings"]]
    rows = current(pd.concat([_without_attrs(part) for part in row_parts], ignore_index=True))
    trials = pd.concat([_without_attrs(part) for part in trial_parts], ignore_index=True)
    trials = trials.drop_duplicates(["fingerprint", "number"], keep="last")
    runs = [_run(folder, unreadable) for folder in folders]
    context = _context(rows, trials, runs, unreadable)
    context |= {"integrity": tables.integrity(folders), "examples": _examples(rows, folders)}
    now = datetime.now(UTC).strftime("%Y-%m-%d %H:%M UTC")
    html = _environment().get_template("report.html.j2").render(**context, rendered=now)
    out.parent.mkdir(parents=True, exist_ok=True)
    with whole_file(out) as path:
        path.write_text(html, encoding="utf-8")
    return out


def _context(rows: pd.DataFrame, trials: pd.DataFrame, runs: Runs, unreadable: list[str]) -> dict[str, Any]:
    board = leaderboard(rows, "strategy")
    both = leaderboard(rows, ["strategy", "backbone"])
    settings = [(_setting(key), part) for key, part in rows.groupby(["size", "fraction", "per_class"], dropna=False)]
    boards = [("Strategies", board)]
    if rows["backbone"].nunique() > 1:
        boards += [("Backbones", leaderboard(rows, "backbone")), ("Strategy and backbone", both)]
    if len(settings) > 1:
        boards += [(f"Strategies at {name}", leaderboard(part, "strategy")) for name, part in settings]
    heatmaps = [plots.heatmap(part, f"heat{n}", f"Mean test AUC, {name}") for n, (name, part) in enumerate(settings)]
    strips = [plots.strips(part, f"strip{n}", f"Every run, {name}") for n, (name, part) in enumerate(settings)]
    unfinished = [run["name"] for run in runs if run["started_utc"] and not run["finished_utc"]]
    return {
        "title": ", ".join(run["name"] for run in runs),
        "runs": runs,
        "rows": rows,
        "n_ok": len(ok(rows)),
        "settings": [name for name, _ in settings],
        "answer": words.answer(board, rows),
        "cautions": words.cautions(rows, rows.attrs["stale"], unreadable, unfinished),
        "notes": _notes(rows, runs),
        "boards": boards,
        "board": board,
        "heatmaps": [picture for picture in heatmaps if picture],
        "strips": [picture for picture in strips if picture],
        "cost": plots.cost(both, "cost", "Seconds against mean test AUC"),
        "costs": tables.costs(board.used, trials),
        "results": tables.results(rows),
        "problems": tables.problems(rows),
        "datasets": tables.datasets(rows),
        "provenance": tables.provenance(rows),
    }


def _run(folder: Path, unreadable: list[str]) -> dict[str, Any]:
    """run.json, with a name whatever it holds; a broken one is warned of."""
    path, found = folder / "run.json", {}
    if path.exists():
        try:
            found = json.loads(path.read_bytes())
        except (ValueError, OSError) as error:
            unreadable.append(f"{path.name} of {folder.name} cannot be read: {error}")
    run = found if isinstance(found, dict) else {}
    facts = {name: run.get(name) for name in ("command", "started_utc", "finished_utc", "matrix", "plan", "notes")}
    return {**facts, "name": str(run.get("name") or folder.resolve().name)}


def _notes(rows: pd.DataFrame, runs: Runs) -> list[tuple[str, int]]:
    """(note, number of runs it was recorded with; 0 for a note of the whole run)."""
    whole = [note for run in runs for note in run.get("notes") or [] if isinstance(note, str)]
    counts = rows["notes"].dropna().str.split("; ").explode().str.strip().value_counts().sort_index()
    single = [(str(note), int(n)) for note, n in counts.items() if note and note not in whole]
    return [*((note, 0) for note in dict.fromkeys(whole)), *single]


def _examples(rows: pd.DataFrame, folders: list[Path]) -> list[tuple[str, str, str]]:
    """(strategy, dataset, data URI) of the pictures of augmented images. Those of datasets without a known licence,
    such as a user's own, stay out: pages are passed on, and they may show patients."""
    public = rows[rows["licence"].notna() & (rows["licence"] != "unknown")]
    found = []
    for dataset, strategy in public.groupby(["dataset", "strategy"]).groups:
        paths = [path for folder in folders if (path := strip_path(folder, dataset, strategy)).is_file()]
        if paths:
            picture = base64.b64encode(paths[-1].read_bytes()).decode()
            found.append((strategy, dataset, f"data:image/jpeg;base64,{picture}"))
    return found


def _setting(key: tuple[Any, ...]) -> str:
    size, fraction, per_class = key
    if not pd.isna(per_class):
        return f"{size} px, {per_class} training images a class"
    return f"{size} px, {'all' if fraction == 1 else f'{fraction * 100:g} % of'} training images"


def _without_attrs(frame: pd.DataFrame) -> pd.DataFrame:
    # pandas would compare and merge them; their contents are gathered by hand.
    frame.attrs = {}
    return frame


def _environment() -> jinja2.Environment:
    loader = jinja2.PackageLoader("bench.report", "templates")
    environment = jinja2.Environment(
        loader=loader, autoescape=True, undefined=jinja2.StrictUndefined, trim_blocks=True, lstrip_blocks=True
    )
    environment.filters |= {"seconds": seconds, "count": _count, "fixed": fixed, "signed": _signed}
    environment.filters |= {"json": _json, "raw": _raw}
    environment.globals["bar"] = _bar
    environment.globals["inline"] = lambda name: Markup((loader.get_source(environment, name))[0])
    return environment


MISSING = "–"


def fixed(value: Any, digits: int = 3) -> str:
    return MISSING if pd.isna(value) else f"{value:z.{digits}f}"  # z: no minus before a zero


def _signed(value: Any) -> str:
    return MISSING if pd.isna(value) else f"{value:+z.3f}".replace("-", "−")


def _raw(value: Any) -> str:
    """What a column is sorted by; empty for a missing value, which is sorted last."""
    return "" if pd.isna(value) else f"{value:.10g}" if isinstance(value, int | float) else str(value)


def seconds(value: Any) -> str:
    if pd.isna(value):
        return MISSING
    for limit, divisor, unit in ((120, 1, "s"), (7200, 60, "min"), (172_800, 3600, "h")):
        if value < limit:
            return f"{value / divisor:.3g} {unit}"
    return f"{value / 86_400:.3g} d"


def _count(value: Any) -> str:
    if pd.isna(value):
        return MISSING
    for divisor, unit in ((1e9, "G"), (1e6, "M"), (1e3, "k")):
        if value >= divisor:
            return f"{value / divisor:.3g} {unit}"
    return f"{value:.3g}"


def _json(value: Any) -> str:
    return json.dumps(value, indent=2, ensure_ascii=False, default=str)


def _bar(board: Leaderboard, row: Any) -> str:
    """CSS positions in per cent of an AUC and its interval, on a scale shared by the board's entries."""
    ranked = board.ranked
    low, high = ranked[["auc", "auc_lo"]].min(axis=None), ranked[["auc", "auc_hi"]].max(axis=None)
    width = max(high - low, 1e-9)

    def at(value: float) -> str:
        return f"{4 + 92 * (value - low) / width:.2f}%"

    ends = (row.auc, row.auc) if pd.isna(row.auc_lo) else (row.auc_lo, row.auc_hi)
    return f"--mid:{at(row.auc)};--lo:{at(ends[0])};--hi:{at(ends[1])}"
