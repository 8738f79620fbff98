"""The page's figures, in groups, and how much of what there is they draw."""

from __future__ import annotations

from collections.abc import Iterable

import pandas as pd
from markupsafe import Markup

from bench.errors import MedtransferError
from bench.report import mistakes, predictions
from bench.report.frames import ok
from bench.report.leaderboard import leaderboard
from bench.report.markup import folded, paragraphs
from bench.report.plots import amounts, calibration, learning, overtuning, ranks, tuning
from bench.report.plots.canvas import SERIES, Picture
from bench.report.plots.choice import colours, leading, settings
from bench.report.plots.cost import cost
from bench.report.plots.scores import STRATEGIES, heatmap, strips
from bench.report.predictions import Predicted
from bench.report.section import Evidence, Section
from bench.report.significance import TooFew

SETTINGS = 6
"""Sizes and amounts of data that get a heatmap; the first two also get every run's dots."""
RATES, MOST_RATES = 8, 40
"""Strategies whose trials are drawn, those of the best rank first: at once, and in all."""
LOOKED_INTO = 3
"""Strategies whose predictions are read."""
DATASETS = 12
"""Datasets whose predictions are read."""


def sections(evidence: Evidence) -> list[Section]:
    """All groups that have something to show, in the page's order; none where no row has a result."""
    if ok(evidence.rows).empty:
        return []
    found = [_scores(evidence), _cost(evidence), _tuning(evidence), _learning(evidence), *_predictions(evidence)]
    return [section for section in found if section.body]


def _scores(evidence: Evidence) -> Section:
    parts = [(name, rows) for name, rows in settings(evidence.rows) if len(ok(rows))]
    shown = parts[:SETTINGS]
    heats = [heatmap(rows, f"heat{n}", f"Mean test AUC, {name}") for n, (name, rows) in enumerate(shown)]
    runs = [_runs(evidence, rows, f"strip{n}", f"Every run, {name}") for n, (name, rows) in enumerate(shown[:2])]
    body = figures([heats[0], runs[0]])
    more = figures([*heats[1:], *runs[1:]])
    if more:
        left_out = len(parts) - len(shown)
        summary = f"Other sizes and amounts of data: {len(shown) - 1}"
        body += folded(summary + (f" of {len(parts) - 1}, those with the most runs" if left_out else ""), more)
    diagram = ranks.differences(evidence.board, "ranks", "Which strategies are told apart over datasets")
    body += (
        paragraphs([f"No critical difference diagram. {diagram}"], soft=True)
        if isinstance(diagram, TooFew)
        else figures([diagram])
    )
    return Section("scores", "By dataset", body)


def _runs(evidence: Evidence, rows: pd.DataFrame, key: str, title: str) -> Picture | None:
    ranked = set(evidence.board.ranked["strategy"]) & set(ok(rows)["strategy"])
    return strips(rows, key, title, leading(evidence.board, STRATEGIES, ranked) if ranked else ())


def _cost(evidence: Evidence) -> Section:
    both = leaderboard(evidence.rows, ["strategy", "backbone"])
    hues = colours(leading(evidence.board, len(SERIES)))
    return Section("cost", "Cost against score", figures([cost(both, "cost", "Seconds against mean test AUC", hues)]))


def _tuning(evidence: Evidence) -> Section:
    name, rows = settings(evidence.rows)[0]
    hues = colours(leading(evidence.board, len(SERIES)))
    everywhere, here = tuning.of_cells(evidence.trials, evidence.rows), tuning.of_cells(evidence.trials, rows)
    tuned = tuning.with_rates(everywhere, evidence.board.table["strategy"].tolist())
    first, others = tuned[:RATES], tuned[RATES:MOST_RATES]
    body = figures([tuning.learning_rates(everywhere, first, "rates", "Learning rate")])
    if others:
        more = figures([tuning.learning_rates(everywhere, others, "rates-more", "Learning rate, other strategies")])
        body += folded(f"Learning rate: {len(others)} of {len(tuned) - len(first)} other strategies", more)
    body += figures(
        [
            tuning.worth_of_trials(here, hues, "trials", f"What more trials are worth, {name}"),
            overtuning.val_against_test(rows, evidence.trials, hues, "valtest", f"Val against test, {name}"),
        ]
    )
    return Section("tuning", "Tuning", _key(evidence, hues) + body if body else body)


def _learning(evidence: Evidence) -> Section:
    name, rows = settings(evidence.rows)[0]
    hues = colours(leading(evidence.board, len(SERIES)))
    size = rows["size"].iloc[0]
    of_size = evidence.rows[(evidence.rows["size"] == size).fillna(False)]
    own = colours(leading(evidence.board, len(SERIES), amounts.several(of_size)[0]), hues)
    body = figures(
        [
            learning.curves(rows, hues, "curves", f"Learning curves, {name}"),
            amounts.efficiency(of_size, own, "amounts", f"Test AUC by amount of training data, {size} px"),
        ]
    )
    return Section("learning", "Learning", _key(evidence, hues) + body if body else body)


def _predictions(evidence: Evidence) -> list[Section]:
    """How good the probabilities are, and the images that the best networks get wrong."""
    _, rows = settings(evidence.rows)[0]
    datasets = sorted(ok(rows)["dataset"].unique())[:DATASETS]
    rows = rows[rows["dataset"].isin(datasets)]
    chosen = leading(evidence.board, LOOKED_INTO)
    hues = colours(leading(evidence.board, len(SERIES)))
    cells = predictions.best_cells(rows[rows["strategy"].isin(chosen)], ["dataset", "strategy"])
    found, notes = _read(cells, evidence), list[str]()
    found.sort(key=lambda one: (one.dataset, chosen.index(one.strategy)))
    reliability = calibration.reliability(found, hues, "reliability", "Calibration")
    if found and reliability is None:
        few = f"no bin of probabilities has {calibration.FEWEST} predictions or more"
        notes.append(f"No calibration diagram: {few} in any dataset.")
    body = figures(
        [
            reliability,
            calibration.recall(found, hues, "recall", "Recall of each class"),
        ]
    )
    if not found:
        notes.append("The predictions are not at hand: no folder holds the .npz files of these rows.")
    best = _read(predictions.best_cells(rows, ["dataset"]), evidence)
    return [
        Section("predictions", "Predictions", body + paragraphs(notes, soft=True)),
        Section("mistakes", "The most confident mistakes", _mistakes(best, evidence)),
    ]


def _mistakes(best: Iterable[Predicted], evidence: Evidence) -> Markup:
    grids, missing = Markup(""), dict[str, list[str]]()
    for one in best:
        try:
            grids += mistakes.grid(one, evidence.runs)
        except MedtransferError as error:
            missing.setdefault(str(error), []).append(one.dataset)
    about = (
        "Of each dataset the cell with the highest mean val AUC, its first seed: the test images on which it was "
        f"surest and wrong, up to {mistakes.MOST}, with the probability of what it said. These are single images: "
        "there is no interval."
    )
    reasons = [f"{', '.join(datasets)}: images not shown; {why}" for why, datasets in missing.items()]
    return (paragraphs([about], soft=True) if grids else Markup("")) + grids + paragraphs(reasons, soft=True)


def _read(cells: Iterable[pd.DataFrame], evidence: Evidence) -> list[Predicted]:
    """The cells whose predictions are stored."""
    found = (predictions.read(cell, evidence.folders, evidence.damaged) for cell in cells)
    return [one for one in found if one]


def _key(evidence: Evidence, drawn: dict[str, str]) -> Markup:
    """Which strategies have a colour, where not all have one."""
    every = ok(evidence.rows)["strategy"].nunique()
    if len(drawn) >= every:
        return Markup("")
    control = f", with {evidence.board.control} as the control" if evidence.board.control in drawn else ""
    which = f"Of {every} strategies, the {len(drawn)} of the best mean rank are in colour{control}."
    return paragraphs([which], soft=True)


def figures(pictures: Iterable[Picture | None]) -> Markup:
    return Markup("\n").join(_figure(picture) for picture in pictures if picture)


def _figure(picture: Picture) -> Markup:
    return Markup(
        '<figure><div class="scroll" role="region" aria-label="{}" tabindex="0" style="--wide: {:.1f}rem">{}</div>'
        "<figcaption><b>{}</b>{}</figcaption></figure>"
    ).format(picture.title, picture.width * 7.1, picture.svg, picture.title, _together(picture.caption))


def _together(text: str) -> str:
    """Numbers and what they are of, on one line."""
    return text.replace(" %", "\u00a0%").replace("n = ", "n\u00a0=\u00a0")
