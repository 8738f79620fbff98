"""What validation found, in words: the regrets, and plainly whether advice is better than what it is compared with."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Sequence

import numpy as np
import pandas as pd
from rich.console import RenderableType
from rich.markup import escape
from rich.table import Table
from scipy.special import stdtr

from bench.advice.facts import Facts
from bench.advice.knowledge import ANCHOR, CONTROL, Knowledge
from bench.advice.validated import ADVICE, ALWAYS, CHEAP, FIXED, LIST, PROBE, Judged, judged
from bench.errors import UsageError
from bench.report.intervals import LEVEL, quantile
from bench.report.leaderboard import ROPE
from bench.report.significance import corrected
from bench.report.written import fixed, p_value, signed

MEANING = (
    f"{ADVICE}: of the highest expected AUC; list: of the short list the best on val; cheapest: the cheapest that is "
    f"expected to be practically as good as the first. {ALWAYS}, {ANCHOR}: always this, on the backbone whose probe is "
    f"the best on val. {FIXED}: the strategy and backbone that were best on the other datasets; in hindsight: on all, "
    "which nobody could choose."
)
JUDGED = {ADVICE: "The first of the list", LIST: "The list, of which val chooses,"}
RIVALS = {ALWAYS: f"always {CONTROL}", FIXED: "the best single fixed choice"}


def shown(found: Judged) -> Iterator[RenderableType]:
    """The table and the sentences that judge it."""
    datasets = found.regret.groupby(level="dataset", sort=False).mean()
    yield (
        f"Asked about {len(datasets)} datasets ({_named(found.tasks)}), each left out of the knowledge as a whole. "
        "Regret: test AUC below that of the best candidate."
    )
    if found.left_out:
        yield (
            f"What advice is worth elsewhere ({_named(found.left_out)}) is not known: not all was run there that these "
            "choices would take."
        )
    table = Table(caption_justify="left")
    for heading in ("choice", "regret", "95 % (datasets)", "worst task", "less advice's, 95 %"):
        table.add_column(heading, justify="left" if heading == "choice" else "right", overflow="fold")
    for way in found.regret.columns:
        mean, half = _mean(datasets[way])
        between = f"{fixed(max(mean - half, 0))}–{fixed(mean + half)}"
        beside = "" if way == ADVICE else _difference(*_mean(datasets[way] - datasets[ADVICE]))
        table.add_row(escape(way), fixed(mean), between, fixed(found.regret[way].max()), beside)
    yield table
    yield MEANING
    for name, row in datasets.iterrows():
        parts = (f"{way} {fixed(row[way])}" for way in (ADVICE, LIST, CHEAP, ALWAYS, FIXED, PROBE))
        yield escape(f"regret on {name}: {', '.join(parts)}")
    yield _cheapest(found)
    yield from _verdicts(datasets)
    comparisons = len(JUDGED) * len(RIVALS)
    yield f"Each p is corrected for these {comparisons} comparisons (Holm), each interval stands for itself."
    yield (
        f"{found.coverage:.0%} of the test AUCs lay in their 95 % intervals. All choices are judged by the same test "
        "images, whose noise is part of their regret."
    )


def briefly(knowledge: Knowledge, labels: Collection[str]) -> Iterator[str]:
    """The same in a few sentences where only the networks in `labels` can be run."""
    known = len(knowledge.labels)
    if not labels:
        yield f"None of these {known} networks can be loaded on this machine, so that nothing can be advised on it."
        return
    yield escape(
        f"Of these {known} networks only {' and '.join(labels)} can be loaded on this machine, and advice on it is of "
        "no others:"
    )
    try:
        found = judged(knowledge, labels)
    except UsageError as error:
        yield escape(str(error))
        return
    datasets, worst = found.regret.groupby(level="dataset", sort=False).mean(), found.regret.max()
    parts = (f"{way} {fixed(mean)} (worst task {fixed(worst[way])})" for way, mean in datasets.mean().items())
    yield (
        f"regret, below the best of them, over {len(datasets)} datasets ({_named(found.tasks)}): {', '.join(parts)}."
    )
    yield _cheapest(found)
    yield from _verdicts(datasets)


def _named(tasks: Sequence[Facts]) -> str:
    """Their number, sizes and amounts of data: what holds for few small images need not hold for others."""
    amounts: dict[int, set[int]] = {}
    for task in tasks:
        amounts.setdefault(task.size, set()).add(round(task.images / task.classes))
    sizes = (f"{size} px with {_several(sorted(found))} images a class" for size, found in sorted(amounts.items()))
    return f"{len(tasks)} task{'s' * (len(tasks) > 1)}: {'; '.join(sizes)}"


def _several(numbers: Sequence[int]) -> str:
    return " and ".join(map(str, numbers)) if len(numbers) < 3 else f"{numbers[0]} to {numbers[-1]}"


def _cheapest(found: Judged) -> str:
    """Whether it was what it was expected to be."""
    lost = found.regret[CHEAP] - found.regret[ADVICE]
    other = lost[lost != 0]
    if other.empty:
        return "No cheaper candidate was expected to be practically as good as the first."
    return (
        f"The cheapest that was expected to be practically as good as the first was so (at most {ROPE:g} AUC below it) "
        f"in {(other <= ROPE).sum()} of the {len(other)} tasks in which it was another."
    )


def _verdicts(datasets: pd.DataFrame) -> Iterator[str]:
    """Advice against its rivals, from regrets by dataset."""
    pairs = [(way, rival) for way in JUDGED for rival in RIVALS]
    gains = [datasets[rival] - datasets[way] for way, rival in pairs]
    for (way, rival), gain, p in zip(pairs, gains, corrected([_p(gain) for gain in gains]), strict=True):
        yield _verdict(JUDGED[way], RIVALS[rival], *_mean(gain), p)


def _verdict(its_name: str, rival: str, mean: float, half: float, p: float) -> str:
    """Plainly, whether advice is better: from its gain over a rival, the half width of the interval and the corrected
    p, which decides."""
    if np.isnan(mean):
        return f"{its_name} cannot be compared with {rival}: no task has it."
    difference = f"{_difference(mean, half)} AUC" + ("" if np.isnan(p) else f", p {p_value(p)}")
    if p < 1 - LEVEL:
        return f"{its_name} is {'better' if mean > 0 else 'WORSE'} than {rival}: {difference}."
    within = ", but practically as good" if abs(mean) + half <= ROPE else ""
    return f"{its_name} is NOT SHOWN to be better than {rival}{within}: {difference}."


def _p(gain: pd.Series) -> float:
    """Student's, two-sided, that a gain over datasets is none; NaN where fewer than two have it."""
    mean, half = _mean(gain)
    freedom = gain.count() - 1
    if not half > 0:  # all gains are equal, or there is one
        return np.nan if freedom < 1 else float(mean == 0)
    return float(2 * stdtr(freedom, -abs(mean) / (half / quantile(freedom))))


def _difference(mean: float, half: float) -> str:
    return signed(mean) + (f" ({signed(mean - half)} to {signed(mean + half)})" if np.isfinite(half) else "")


def _mean(values: pd.Series) -> tuple[float, float]:
    """Mean over datasets and the half width of Student's 95 % interval."""
    kept = values.dropna().to_numpy(dtype=float)
    if not len(kept):
        return np.nan, np.nan
    half = quantile(len(kept) - 1) * kept.std(ddof=1) / np.sqrt(len(kept)) if len(kept) > 1 else np.nan
    return float(kept.mean()), float(half)
