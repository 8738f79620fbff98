"""One self-contained HTML page of one or several results folders."""

from __future__ import annotations

import base64
import hashlib
import json
from pathlib import Path
from typing import Any

import jinja2
import pandas as pd
from markupsafe import Markup

from bench.cache import whole_file
from bench.errors import printable
from bench.report import (
    adaptation,
    audits,
    augmented,
    ensembles,
    figures,
    imported,
    literature,
    news,
    statistics,
    tables,
    trust,
    words,
    written,
)
from bench.report.embedded import FACETS, embedded
from bench.report.frames import apart, current, ok, read_rows, read_trials
from bench.report.leaderboard import Leaderboard, leaderboard
from bench.report.planned import without_leftovers
from bench.report.section import Evidence, Section
from bench.report.stands import lacking, stands_on

SCRIPTS = ("written.js", "comparable.js", "figures.js", "sort.js", "leaderboard.js")


def render(folders: list[Path], out: Path) -> Path:
    """Write the report of `folders` to the file `out`, all of it or nothing, and return it.

    Folders are merged: of a cell that is in several, the version that finished last is shown. Two renders of the same
    rows are the same page, byte for byte. Raises UsageError where a folder holds no results.
    """
    return write(*gather(folders), out)


def write(evidence: Evidence, unreadable: list[str], out: Path) -> Path:
    """Write the page of what `gather` gave to the file `out`, all of it or nothing, and return it."""
    environment = _environment()
    context = _context(evidence, unreadable)
    last = _last_finished(evidence)
    html = environment.get_template("report.html.j2").render(**context, **_inlined(environment), last_finished=last)
    out.parent.mkdir(parents=True, exist_ok=True)
    with whole_file(out) as path:
        path.write_text(html, encoding="utf-8")
    return out


def _last_finished(evidence: Evidence) -> str:
    """When the newest row was, "" where no row says: not when the page was made, which would be another page."""
    times = pd.to_datetime(evidence.rows["finished_utc"], utc=True, format="ISO8601", errors="coerce").dropna()
    return str(times.max().strftime("%Y-%m-%d %H:%M UTC")) if len(times) else ""


def gather(folders: list[Path]) -> tuple[Evidence, list[str]]:
    """What the report of `folders` is made from, and a sentence for each thing in them that cannot be read."""
    row_parts, trial_parts = [read_rows(folder) for folder in folders], [read_trials(folder) for folder in folders]
    unreadable = [text for part in (*row_parts, *trial_parts) for text in part.attrs["warnings"]]
    rows, made, theirs = apart(current(pd.concat([_without_attrs(part) for part in row_parts], ignore_index=True)))
    trials = pd.concat([_without_attrs(part) for part in trial_parts], ignore_index=True)
    trials = trials.drop_duplicates(["fingerprint", "number"], keep="last")
    runs = tuple(_run(folder, unreadable) for folder in folders)
    unreadable += [text for folder in folders for text in audits.read(folder)[1]]
    board = leaderboard(without_leftovers(rows, runs), "strategy")
    return Evidence(rows, trials, tuple(folders), runs, board, made, theirs), unreadable


def _sections(evidence: Evidence) -> list[Section]:
    """The parts of the page between the leaderboard and the appendix, in order."""
    found = [
        statistics.section(evidence),
        ensembles.section(evidence),
        imported.section(evidence),
        adaptation.section(evidence),
        *figures.sections(evidence),
        augmented.section(evidence),
        literature.section(evidence),
        news.section(evidence),
        trust.section(evidence),
    ]
    return [section for section in found if section]


def _context(evidence: Evidence, unreadable: list[str]) -> dict[str, Any]:
    rows, board, runs = evidence.rows, evidence.board, evidence.runs
    unfinished = [run["name"] for run in runs if run["started_utc"] and not run["finished_utc"]]
    sections = _sections(evidence)
    lost = [*unreadable, *dict.fromkeys(evidence.damaged)]  # which the sections have come upon by now
    audited = tables.integrity(evidence.folders)
    carried = embedded(without_leftovers(rows, runs))  # as the leaderboard, which its script computes again
    return {
        "title": ", ".join(run["name"] for run in runs),
        "contents": [
            ("leaderboard", "Leaderboard"),
            *((section.key, section.title) for section in sections if section.key != "trust"),
            *(
                ("run", "What happened"),
                ("trust", "How far to trust this"),
                ("results", "Every cell"),
                ("costs", "Costs"),
            ),
            *(("datasets", "Datasets"), ("provenance", "Provenance"), ("reading", "How to read this")),
        ],
        "runs": runs,
        "rows": rows,
        "with_result": ok(rows),
        "settings": [_setting(*key) for key in rows.groupby(["size", "fraction", "per_class"], dropna=False).groups],
        "answer": words.answer(board, rows),
        "cautions": words.cautions(rows, rows.attrs["stale"], lost, unfinished, audited),
        "notes": _notes(rows, runs),
        "board": board,
        "stands": _stands(board, rows),
        "tags": carried["tags"],
        "facets": [
            (name, _FACETS[name], carried["labels"][name]) for name in FACETS if len(carried["labels"][name]) > 1
        ],
        "embedded": carried,
        "sections": sections,
        "results": tables.results(rows),
        "spent": tables.spent(rows),
        "costs": tables.costs(board.used, evidence.trials),
        "datasets": tables.datasets(rows),
        "integrity": audited,
        "chosen_by": _chosen_by(runs),
        "provenance": tables.provenance(rows),
    }


_FACETS = {"dataset": "Dataset", "backbone": "Backbone", "size": "Pixels", "amount": "Training images", "kind": "Task"}


def _run(folder: Path, unreadable: list[str]) -> dict[str, Any]:
    """run.json, with a name whatever it holds; a broken one is warned of."""
    path, found = folder / "run.json", {}
    if path.exists():
        try:
            found = json.loads(path.read_bytes())
        except (ValueError, OSError, RecursionError) as error:
            unreadable.append(printable(f"{path.name} of {folder.name} cannot be read: {error}"))
    run = audits.cleaned(found) if isinstance(found, dict) else {}
    facts: dict[str, Any] = {}
    for name, kind in _FACTS.items():
        facts[name] = run.get(name)
        if not isinstance(facts[name], kind | None):
            facts[name] = None
            unreadable.append(f"{path.name} of {folder.name}: its {name} cannot be read")
    return {**facts, "name": printable(str(run.get("name") or folder.resolve().name))}


_FACTS = {"command": str, "started_utc": str, "finished_utc": str, "matrix": dict, "plan": dict, "notes": list}
"""What a page shows of run.json, which may be somebody else's."""


def _notes(rows: pd.DataFrame, runs: tuple[dict[str, Any], ...]) -> list[tuple[str, int]]:
    """(note, number of runs it was recorded with; 0 for a note of the whole run)."""
    whole = [note for run in runs for note in run.get("notes") or [] if isinstance(note, str)]
    counts = rows["notes"].dropna().str.split("; ").explode().str.strip().value_counts().sort_index()
    # Those of the whole run name the dataset before.
    told = {note for one in whole for note in (one, one.partition(": ")[2])}
    single = [(str(note), int(n)) for note, n in counts.items() if note and note not in told]
    return [*((note, 0) for note in dict.fromkeys(whole)), *single]


def _chosen_by(runs: tuple[dict[str, Any], ...]) -> str:
    """How trials were chosen, by the tolerances that the runs say they had."""
    protocols = [matrix.get("protocol") for run in runs if isinstance(matrix := run.get("matrix"), dict)]
    told = [protocol.get("tolerance") for protocol in protocols if isinstance(protocol, dict)]
    found = sorted({one for one in told if isinstance(one, int | float) and one > 0})
    if not found:
        return "Hyperparameters were chosen on validation AUC"
    within = " or ".join("one standard error" if one == 1 else f"{one:g} standard errors" for one in found)
    return (
        f"Hyperparameters were chosen on validation AUC, and among AUCs within {within} of the highest "
        "on the lower validation loss"
    )


def _setting(size: int, fraction: float, per_class: int | None) -> str:
    if not pd.isna(per_class):
        return f"{size} px, {per_class} training images a class"
    return f"{size} px, {'all' if fraction == 1 else f'{fraction * 100:g} % of'} training images"


def _without_attrs(frame: pd.DataFrame) -> pd.DataFrame:
    # pandas would compare and merge them; their contents are gathered by hand.
    frame.attrs = {}
    return frame


def _environment() -> jinja2.Environment:
    environment = jinja2.Environment(
        loader=jinja2.PackageLoader("bench.report", "templates"),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters |= {"fixed": written.fixed, "signed": written.signed, "seconds": written.seconds}
    environment.filters |= {"chance": written.chance, "count": written.count, "raw": written.raw, "json": _json}
    environment.policies["json.dumps_kwargs"] = {"ensure_ascii": False, "separators": (",", ":"), "sort_keys": True}
    environment.globals |= {"bar": _bar, "scale": _scale}
    return environment


def _inlined(environment: jinja2.Environment) -> dict[str, Markup | str]:
    """The style, the script, and a policy by which a browser runs this script only and asks the network for nothing."""

    def source(name: str) -> str:
        assert environment.loader is not None
        return environment.loader.get_source(environment, name)[0]

    style, script = source("report.css"), "\n".join(source(name) for name in SCRIPTS)
    digest = base64.b64encode(hashlib.sha256(f"\n{script}\n".encode()).digest()).decode()
    policy = (
        f"default-src 'none'; script-src 'sha256-{digest}'; style-src 'unsafe-inline'; img-src data:; "
        "base-uri 'none'; form-action 'none'"
    )
    return {"style": Markup(style), "script": Markup(script), "policy": policy}


def _json(value: Any) -> str:
    return json.dumps(value, indent=2, ensure_ascii=False, default=str)


def _stands(board: Leaderboard, rows: pd.DataFrame) -> str:
    found = stands_on(board, rows)
    return f"Stands on {found}{lacking(board)}." if found else "Nothing is ranked."


def _scale(board: Leaderboard) -> tuple[float, float]:
    """Ends of the scale that the AUCs of a leaderboard and their intervals are drawn on."""
    ranked = board.ranked
    return ranked[["auc", "auc_lo"]].min(axis=None), ranked[["auc", "auc_hi"]].max(axis=None)


def _bar(board: Leaderboard, row: Any) -> str:
    """CSS positions in per cent of an AUC and its interval on that scale."""
    low, high = _scale(board)

    def at(value: float) -> str:
        return f"{4 + 92 * (value - low) / max(high - low, 1e-9):.2f}%"

    ends = (row.auc, row.auc) if pd.isna(row.auc_lo) else (row.auc_lo, row.auc_hi)
    return f"--mid:{at(row.auc)};--lo:{at(ends[0])};--hi:{at(ends[1])}"
