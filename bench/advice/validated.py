"""How far advice would have been right: each dataset of the knowledge in turn is asked about as if it were new.

All tasks of a dataset, its sizes and amounts, leave the knowledge together, and advice sees of them what it sees of a
user's images: the facts, with the val AUC of linear probes. Its choice is then looked up in the rows that were left
out. The dataset is the unit: tasks of one are averaged, intervals are over datasets.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np
import pandas as pd
from rich.console import RenderableType
from rich.markup import escape
from rich.table import Table
from scipy.special import stdtr

from bench.advice.facts import Facts
from bench.advice.knowledge import ANCHOR, CONTROL, FEWEST, Knowledge
from bench.advice.predicted import Prediction, predict
from bench.advice.shortlist import shortlist
from bench.errors import UsageError
from bench.report.intervals import LEVEL, quantile
from bench.report.leaderboard import ROPE
from bench.report.significance import corrected
from bench.report.written import fixed, p_value, signed

ADVICE, LIST, CHEAP = "advice, first", "advice, list", "advice, cheapest"
ALWAYS, FIXED, PROBE, HINDSIGHT = CONTROL, "fixed", ANCHOR, "fixed, in hindsight"
MEANING = (
    f"{ADVICE}: of the highest expected AUC; list: of the short list the best on val; cheapest: the cheapest that is "
    f"expected to be practically as good as the first. {ALWAYS}, {ANCHOR}: always this, on the backbone whose probe is "
    f"the best on val. {FIXED}: the strategy and backbone that were best on the other datasets; in hindsight: on all, "
    "which nobody could choose."
)
JUDGED = {ADVICE: "The first of the list", LIST: "The list, of which val chooses,"}
KIN = dict.fromkeys(("organamnist", "organcmnist", "organsmnist"), "organ{a,c,s}mnist")
"""Dataset -> its family: see _families."""
RIVALS = {ALWAYS: f"always {CONTROL}", FIXED: "the best single fixed choice"}


@dataclass(frozen=True, eq=False)
class Judged:
    """Regret of ways to choose."""

    regret: pd.DataFrame
    """A line a task, indexed by dataset, a column a way to choose: test AUC below that of the best candidate."""
    coverage: float
    """Share of all candidates' test AUCs that lay in their 95 % intervals."""
    tasks: Sequence[Facts]
    """Of the lines."""
    left_out: Sequence[Facts]
    """Tasks in which not all was run that the ways would choose, so that they cannot be compared there."""


def judged(knowledge: Knowledge, labels: Collection[str] | None = None) -> Judged:
    """Of every dataset of the knowledge, for somebody who can run all of its networks, or those in `labels` alone: what
    is learned is learned from all, but advice and what it is compared with choose among these. Raises UsageError where
    too few datasets are left without one, or nothing can be compared."""
    labels = knowledge.labels if labels is None else labels
    families = _families(knowledge.datasets)
    if len(families) <= FEWEST:
        kin = f" (of {len(knowledge.datasets)}, some are of the same patients)" * (
            len(families) < len(knowledge.datasets)
        )
        raise UsageError(
            f"--validate needs {FEWEST + 1} datasets, one to ask about and {FEWEST} to learn from; the reference has "
            f"{len(families)}{kin}. Give more folders with --reference."
        )
    lines: list[dict[str, object]] = []
    covered, compared, left_out = [], [], []
    hindsight = _usual(knowledge, labels)
    for family, datasets in families.items():
        seen = knowledge.without(datasets)
        usual, seconds = _usual(seen, labels), seen.cells.groupby(["strategy", "backbone"])["seconds"].median()
        whole = {at: _on(task, labels) for at, task in enumerate(knowledge.tasks) if task.dataset in datasets}
        asked = {at: target for at, target in whole.items() if target.probe}
        for (at, target), prediction in zip(asked.items(), predict(seen, list(asked.values())), strict=True):
            costs = seconds.reindex(list(prediction.candidates)).to_numpy(dtype=float)
            cells = knowledge.cells[knowledge.cells["task"] == at].set_index(["strategy", "backbone"])
            truth = cells.reindex(list(prediction.candidates))
            auc = truth["auc"].to_numpy(dtype=float)
            chosen = _choices(prediction, costs, truth["val_auc"].to_numpy(dtype=float), target.probe, usual, hindsight)
            regret = {way: np.nan if place is None else np.nanmax(auc) - auc[place] for way, place in chosen.items()}
            if not np.isfinite(list(regret.values())).all():
                left_out.append(target)
                continue
            low, high = prediction.interval
            known = ~np.isnan(auc)
            covered.append(np.mean((low <= auc)[known] & (auc <= high)[known]))
            lines.append({"dataset": family, **regret})
            compared.append(target)
    if not lines:
        raise UsageError(
            f"--validate: in none of the reference's {len(knowledge.tasks)} tasks was all run that is to be compared: "
            f"what is advised, {ALWAYS}, {PROBE} and one fixed choice. Give more folders with --reference."
        )
    return Judged(pd.DataFrame(lines).set_index("dataset"), float(np.mean(covered)), compared, left_out)


def _on(task: Facts, labels: Collection[str]) -> Facts:
    """As it is known where only these networks can be run."""
    return replace(task, probe={label: auc for label, auc in task.probe.items() if label in labels})


def _families(datasets: Sequence[str]) -> dict[str, set[str]]:
    """Datasets that are left out together, for the training patients are the same."""
    found: dict[str, set[str]] = {}
    for name in datasets:
        found.setdefault(KIN.get(name, name), set()).add(name)
    return found


def _choices(
    prediction: Prediction, costs: np.ndarray, val: np.ndarray, probe: Mapping[str, float], usual: pd.Series,
    hindsight: pd.Series,
) -> dict[str, int | None]:  # fmt: skip
    """Way to choose -> position among the candidates; None where there is none. `val` [C] is NaN for candidates that
    were not run: a list with one of these chooses it, so that it counts as not known."""
    listed = shortlist(prediction, np.nan_to_num(costs))
    assert listed is not None  # there is no budget
    places = {pair: at for at, pair in enumerate(prediction.candidates)}

    def of(strategy: str) -> int | None:
        found = [pair for pair in places if pair[0] == strategy]
        return places[max(found, key=lambda pair: probe[pair[1]])] if found else None

    def highest(scores: pd.Series) -> int | None:
        return places.get(scores.idxmax()) if len(scores) else None

    return {
        ADVICE: listed.first,
        LIST: max(listed.cells, key=lambda at: (np.isnan(val[at]), np.nan_to_num(val[at]))),
        CHEAP: listed.cheapest,
        ALWAYS: of(CONTROL),
        FIXED: highest(usual),
        PROBE: of(ANCHOR),
        HINDSIGHT: highest(hindsight),
    }


def _usual(knowledge: Knowledge, labels: Collection[str]) -> pd.Series:
    """(strategy, backbone in `labels`) -> what it adds to a task's test AUC, datasets counting alike, by least squares
    on an effect of every task and one of every candidate: not all candidates were run in all tasks, and the mean of a
    task in which only probes were run is no measure of fine-tuning. Of those that were run on every dataset, since one
    that was run on an easy task alone says nothing."""
    cells = knowledge.cells.assign(dataset=[knowledge.tasks[at].dataset for at in knowledge.cells["task"]])
    pairs = cells["strategy"].str.cat(cells["backbone"], sep="\n")
    effects = pd.concat([pd.get_dummies(pairs), pd.get_dummies(cells["task"], prefix="task")], axis=1)
    weight = np.sqrt(1 / cells.groupby("dataset")["auc"].transform("size").to_numpy(dtype=float))[:, None]
    found = np.linalg.lstsq(effects.to_numpy(dtype=float) * weight, cells["auc"].to_numpy()[:, None] * weight)[0][:, 0]
    added = pd.Series(found, effects.columns)
    grouped = cells.groupby(["strategy", "backbone"])["dataset"].nunique()
    everywhere = grouped.index[(grouped == len(knowledge.datasets)) & grouped.index.isin(labels, level="backbone")]
    return pd.Series({pair: added["\n".join(pair)] for pair in everywhere}, dtype=float)


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
