"""What the rows were made from: licences, copies across splits, hashes, versions and devices."""

from __future__ import annotations

from collections.abc import Iterable

import pandas as pd
from markupsafe import Markup

from bench.report.budgets import unequal
from bench.report.section import Evidence
from bench.report.tables import integrity


def audit(evidence: Evidence) -> Markup:
    """One line a question, with what the rows answer."""
    rows = evidence.rows
    pretrained = rows[rows["pretrained"].fillna(False)]
    libraries = "sets of versions: small differences may come from them."
    found = [
        ("Licences", _licences(rows)),
        ("Copies across splits", _copies(evidence)),
        ("Images", _one_each(rows, ["dataset", "size"], "data_hash", "dataset and size", "images or splits")),
        ("Weights", _one_each(pretrained, ["backbone"], "weights_hash", "backbone", "weights")),
        ("Strategies", _one_each(rows, ["strategy"], "source_hash", "strategy", "source code")),
        ("Protocol", unequal(rows) or ("The same for strategies that are compared." if len(rows) else "")),
        ("Harness", _one_all(rows["engine"], "One engine.", "engines: their rows are no fair comparison.")),
        ("Libraries", _one_all(rows["versions"], "One set of versions.", libraries)),
        ("Device", _one_all(rows["device"], "One device.", "devices: times cannot be compared.")),
        ("Code", _code(rows)),
    ]  # fmt: skip
    items = Markup("\n").join(Markup("<dt>{}</dt><dd>{}</dd>").format(what, said) for what, said in found if said)
    return Markup('<dl class="facts-list">\n{}\n</dl>').format(items)


def _licences(rows: pd.DataFrame) -> str:
    restricted = rows.loc[rows["noncommercial"].fillna(False), "dataset"].unique()
    unknown = rows.loc[rows["licence"].fillna("unknown") == "unknown", "dataset"].unique()
    said = [f"Not for commercial use: {some(restricted)}."] if len(restricted) else []
    said += [f"Not known, so ask before passing images or models on: {some(unknown)}."] if len(unknown) else []
    return " ".join(said) or "Known for every dataset; none forbids commercial use."


def _copies(evidence: Evidence) -> str:
    audited = integrity(evidence.folders)
    said = []
    for entry in audited:
        # A target's train is seen without labels: its copies in test give no answer away.
        into_test = [
            o
            for o in entry["overlaps"]
            if "test" in (sides := (o["first"], o["second"]))
            and "target train" not in sides
            and (o["exact"] or o["near"])
        ]
        for overlap in into_test:
            exact, near = overlap["exact"], overlap["near"]
            pair = f"{overlap['first']}–{overlap['second']}"
            said.append(
                f"{entry['dataset'] if 'dataset' in entry else entry['name']} {pair}: {exact} exact, {near} near"
            )
    unaudited = sorted(set(evidence.rows["dataset"]) - {entry.get("dataset", entry["name"]) for entry in audited})
    text = f"In test: {'; '.join(dict.fromkeys(said))}. They make a test score too good." if said else ""
    text = text or ("None found in test." if audited else "")
    return f"{text} Not looked for in {some(unaudited)}.".strip() if unaudited else text


def _one_each(rows: pd.DataFrame, keys: list[str], column: str, each: str, what: str) -> str:
    counts = rows.groupby(keys)[column].nunique()
    unknown = int(rows[column].isna().sum())
    several = [" at ".join([str(k[0]), *(f"{v} px" for v in k[1:])]) if isinstance(k, tuple) else str(k)
               for k in counts.index[counts > 1]]  # fmt: skip
    said = f"More than one hash, so rows come from different {what}: {some(several)}." if several else ""
    said = said or (f"One hash for each {each}." if len(rows) > unknown else "")
    return f"{said} No hash in {runs(unknown)}.".strip() if unknown else said


def _one_all(values: pd.Series, one: str, several: str) -> str:
    number = values.nunique()
    return "" if number == 0 else one if number == 1 else f"{number} {several}"


def _code(rows: pd.DataFrame) -> str:
    commits, dirty = rows["git_commit"].nunique(), int(rows["git_dirty"].fillna(False).sum())
    said = "" if commits == 0 else "One commit." if commits == 1 else f"{commits} commits."
    return f"{said} {runs(dirty)} from code that no commit records.".strip() if dirty else said


def some(names: Iterable[str], most: int = 6) -> str:
    found = sorted({str(name) for name in names})
    return ", ".join(found[:most]) + (f" and {len(found) - most} more" if len(found) > most else "")


def runs(number: int) -> str:
    return f"{number:,} run{'' if number == 1 else 's'}"
