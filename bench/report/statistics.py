"""The section of the page on how sure the ranking is: tests, intervals and what this run could not have seen."""

from __future__ import annotations

from collections.abc import Iterable

import numpy as np
from markupsafe import Markup

from bench.report import bayes, power, significance, stats
from bench.report.leaderboard import ROPE, Leaderboard
from bench.report.markup import paragraphs, table
from bench.report.matrix import Matrix
from bench.report.paired import Paired, paired
from bench.report.section import Evidence, Section
from bench.report.significance import TooFew
from bench.report.written import MISSING, fixed, signed

EFFECTS = (0.005, 0.01, 0.02, 0.05)
"""Differences of mean test AUC that a reader may want to tell apart."""


def section(evidence: Evidence) -> Section | None:
    """None where fewer than two strategies are ranked."""
    board = evidence.board
    matrix = board.matrix
    if matrix is None or len(matrix.labels) < 2:
        return None
    body = Markup("\n").join(
        [
            paragraphs([_SPEAKS], soft=True),
            Markup("<h3>Against the control</h3>"), *_control(board, matrix),
            Markup("<h3>All strategies across datasets</h3>"), *_ranks(matrix),
            Markup("<h3>Runs</h3>"), _improvement(matrix),
            Markup("<h3>On the same test images</h3>"), *_paired(evidence, board),
            Markup("<h3>What this run could have told apart</h3>"), *_power(matrix),
        ]
    )  # fmt: skip
    return Section("statistics", "How sure the ranking is", body)


_SPEAKS = (
    "Many things vary. Intervals over seeds say what other seeds would have given on these datasets and images with "
    "the hyperparameters that were chosen; a claim that two strategies differ must also survive other test images; "
    "only the tests across datasets speak of other datasets, and they need many. All seeds of a cell share its tuning "
    "and, where not all are used, one draw of training images: what others would have given is in no interval."
)


def _control(board: Leaderboard, matrix: Matrix) -> Iterable[Markup]:
    if board.control is None:
        return [paragraphs(["None of the strategies that serve as a control is ranked."])]
    tests = significance.against_control(board)
    means = matrix.dataset_means
    control = matrix.labels.index(board.control)
    posterior = {
        name: bayes.signed_rank(means[at] - means[control], ROPE)
        for at, name in enumerate(matrix.labels)
        if at != control
    }
    lines = []
    for row in board.ranked.itertuples():
        if row.label == board.control:
            continue
        shares = posterior[row.label]
        chances = [MISSING] * 3 if isinstance(shares, TooFew) else [fixed(s, 2) for s in _three(shares)]
        p = MISSING if isinstance(tests, TooFew) else _p(tests[row.label])
        intervals = (_between(row.gain_lo, row.gain_hi), _around(row.gain, row.gain_margin))
        lines.append((row.label, signed(row.gain), *intervals, p, *chances))
    columns = [
        "Strategy", "Gain", "95 % over seeds", "95 % over seeds and test images", "Wilcoxon–Holm p", "P(loss)",
        "P(equivalent)", "P(gain)",
    ]  # fmt: skip
    caption = (
        f"Gain over {board.control}, in mean test AUC over {_count(len(matrix.datasets), 'dataset')}. "
        f"Probabilities are of the Bayesian signed-rank test: that on a further dataset of this kind a loss, a "
        f"difference within ±{ROPE:g} or a gain is the likeliest. The p-value is corrected for the number of lines."
    )
    refused = [text for text in (tests, next(iter(posterior.values()))) if isinstance(text, TooFew)]
    return [table(caption, columns, lines, columns[1:]), paragraphs(refused, soft=True)]


def _three(shares: bayes.Shares) -> tuple[float, float, float]:
    return shares.left, shares.rope, shares.right


def _ranks(matrix: Matrix) -> Iterable[Markup]:
    found = significance.critical_difference(matrix.labels, matrix.dataset_means.T)
    if isinstance(found, TooFew):
        return [paragraphs([found])]
    test = found.friedman
    groups = "; ".join(f"{found.labels[a]} to {found.labels[b]}" for a, b in found.groups) or "none"
    return [
        paragraphs(
            [
                f"Friedman's test that all {test.entries} strategies are alike over {test.datasets} datasets gives p "
                f"{_p(test.p_chi2, True)} (chi-squared {test.chi2:.2f}); Iman and Davenport's F gives p "
                f"{_p(test.p, True)}.",
                f"Nemenyi's critical difference at the .05 level is {found.difference:.2f} mean ranks. Not told apart: "
                f"{groups}.",
            ]
        )
    ]


def _improvement(matrix: Matrix) -> Markup:
    """Of runs, not of means: how often one run beats another, and how many reach an AUC."""
    first = matrix.labels[0]
    levels = np.unique(np.nanquantile(matrix.scores, [0.25, 0.5, 0.75]).round(2))
    levels = levels[levels < np.nanmax(matrix.scores)]  # no run is above the others
    shares = stats.performance_profile(matrix.scores, levels, matrix.weights)
    higher = [stats.probability_of_improvement(matrix.scores[0], other, matrix.weights) for other in matrix.scores]
    lines = [
        (name, fixed(higher[at], 2) if at else MISSING, *(fixed(share, 2) for share in shares[at]))
        for at, name in enumerate(matrix.labels)
    ]
    columns = ["Strategy", f"P({first} scores higher)", *(f"Share above {fixed(level, 2)}" for level in levels)]
    caption = (
        f"Single runs. Chance that a run of {first} scores higher than one of the strategy on the same dataset, "
        "backbone and amount of data (.50 is no difference), and the share of runs with a test AUC above a level: the "
        "quartiles of all runs. No intervals: for shares of so few runs none of known coverage exists."
    )
    return table(caption, columns, lines, columns[1:])


def rivals(board: Leaderboard) -> list[str]:
    """Whom the first is tested against on the same images: the control, the second, and the cheapest within the region
    of practical equivalence. Few, and picked by rule, for every further test makes the correction dearer."""
    ranked = board.ranked
    first, others = ranked.iloc[0], ranked.iloc[1:]
    near = others[(others["behind"] <= ROPE) & (others["seconds"] < first["seconds"])]
    cheap = [near.loc[near["seconds"].idxmin(), "label"]] if len(near) else []
    control = [board.control] if board.control and board.control != first["label"] else []
    return list(dict.fromkeys([*control, others["label"].iloc[0], *cheap]))


def _paired(evidence: Evidence, board: Leaderboard) -> Iterable[Markup]:
    first = board.ranked["label"].iloc[0]
    found = [one for other in rivals(board) for one in paired(board, first, other, evidence.folders, evidence.damaged)]
    tests = [one for one in found if isinstance(one, Paired)]
    p = significance.corrected([one.p for one in tests])
    accuracy = significance.corrected([one.p_accuracy for one in tests])
    columns = [
        "Against", "Dataset", "Test images", "AUC difference", "95 %", "p",
        "p, images only", "Accuracy difference", "McNemar p",
    ]  # fmt: skip
    lines = [
        (
            one.other, one.dataset, f"{one.images:,}", signed(one.auc), _around(one.auc, float(one.both.half_width)),
            _p(p[at]), _p(one.p_images), signed(one.accuracy), _p(accuracy[at]),
        )
        for at, one in enumerate(tests)
    ]  # fmt: skip
    caption = (
        f"{first} less others on the same test images. AUCs are averaged over the runs, not their predictions: "
        "DeLong's variance of that mean and the variance between seeds add up in the interval and in p. p and "
        "McNemar's p are corrected over the lines (Holm); McNemar's and the p of images only say nothing of other "
        "seeds. This can tell more apart than the leaderboard, which has no predictions and takes the images' errors "
        "of two strategies as independent."
    )
    return [
        table(caption, columns, lines, columns[2:]) if lines else Markup(""),
        paragraphs(dict.fromkeys(text for text in found if isinstance(text, TooFew)), soft=True),
    ]


def _power(matrix: Matrix) -> Iterable[Markup]:
    if matrix.seeds < 2:
        return [
            paragraphs(["With one seed the noise between seeds is not known, so neither is what could be told apart."])
        ]
    seeds, images = power.pair_noise(matrix)
    both = seeds + images
    if not both.variance > 0 or np.isnan(both.variance):
        return [paragraphs(["The rows do not tell the noise of seeds and test images, so it cannot be said."])]
    smallest = power.smallest_effect(both)
    wanted = f"{100 * power.WANTED:.0f} %"
    said = (
        f"Two strategies with the mean noise of this run are told apart with a power of {wanted} where their mean test "
        f"AUCs truly differ by {fixed(smallest)} or more. The standard error of such a difference is "
        f"{fixed(np.sqrt(seeds.variance), 4)} from seeds and {fixed(np.sqrt(images.variance), 4)} from test images."
    )
    lines = [
        (
            fixed(effect),
            f"{100 * power.power(effect, both):.0f} %",
            str(power.seeds_needed(effect, matrix)),
            str(power.datasets_needed(effect, matrix)),
        )
        for effect in EFFECTS
    ]
    caption = (
        f"What it would take. Power of this run for a true difference, and what would give {wanted}: more seeds a cell "
        "on these datasets, or more datasets like these with these seeds. The images' errors of two strategies count "
        "as independent, as in the leaderboard; being of the same images, they are not: their true error is smaller "
        "beside a margin that stays as wide, so the power is at least this where it is above 50 %, and at most this "
        "where it is below."
    )
    columns = ["Difference", "Power", "Seeds a cell", "Datasets"]
    return [paragraphs([said]), table(caption, columns, lines, ["Difference", "Power"])]


def _between(low: float, high: float) -> str:
    return MISSING if np.isnan(low) or np.isnan(high) else f"{signed(low)} to {signed(high)}"


def _around(centre: float, half: float) -> str:
    return _between(centre - half, centre + half)


def _p(value: float, sentence: bool = False) -> str:
    """In a table "0.013"; in a sentence "= .013"."""
    if np.isnan(value):
        return MISSING
    if value < 0.001:
        return "< .001"
    return f"{'= ' if sentence else ''}{value:.3f}"


def _count(number: int, noun: str) -> str:
    return f"{number} {noun}{'' if number == 1 else 's'}"
