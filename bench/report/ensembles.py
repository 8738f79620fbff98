"""The section of the page on ensembles: what they gain over the best of their members, and what that costs."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from typing import Any

import numpy as np
import pandas as pd
from markupsafe import Markup

from bench.report import diversity
from bench.report.ensembles_listed import interval, listing
from bench.report.frames import ok, saw_test
from bench.report.gains import Gain, Read, gain, reader, shares
from bench.report.markup import folded, paragraphs, table
from bench.report.plots.canvas import count as counted
from bench.report.plots.canvas import listed
from bench.report.same_images import judged_on
from bench.report.section import Evidence, Section
from bench.report.trust import reasons
from bench.report.ways import USED, Way, best_member, best_network, cells, networks_beside, used, ways
from bench.report.written import MISSING, count, fixed, seconds, signed

Cost = Callable[[pd.DataFrame], pd.Series]
"""The rows of a cell -> a value each."""


def section(evidence: Evidence) -> Section | None:
    """None where there are no ensembles."""
    every = evidence.ensembles
    if every.empty:
        return None
    made, networks = ok(every)[USED], ok(evidence.singles)[USED]
    read = reader(evidence.folders, evidence.damaged)
    parts = [paragraphs(headline(networks, made, read))]
    if len(made):
        parts += [
            *_kinds(made, networks, read),
            folded(f"All {counted(len(cells(made)), 'ensemble')}", listing(made, networks, read)),
            *diversity.parts(made, networks, read),
        ]
    parts += _lost(every)
    return Section("ensembles", "Ensembles", Markup("\n").join(parts))


def headline(networks: pd.DataFrame, made: pd.DataFrame, read: Read) -> list[str]:
    """What the best kind of ensemble gains over the best single network, and at what cost; a few sentences. Rows are
    those with a result."""
    networks, made = networks[USED], made[USED]
    found = _best_first(ways(made))
    if not found and len(made):
        return ["Every ensemble has a transductive member, which saw the test images, so none is compared."]
    if not found:
        return ["No ensemble has a result."]
    if not found[0].compared:
        return ["No dataset has all kinds of ensembles, so each kind stands on its own and none is called best."]
    best, n = found[0], sum(way.compared for way in found)
    name, on = f"{best.fusion} over {best.over}", counted(_datasets(best.chosen), "dataset")
    said = [f"{name} has a mean test AUC of {fixed(_auc(best.chosen))} on {on}."]
    if n > 1:
        among = f"has the highest mean test AUC of {n} kinds of ensembles, {fixed(_auc(best.chosen))} on {on}"
        said = [f"{name} {among}, which flatters it: the best of {n} is picked on these very test images."]
    fused = [own for part in best.chosen for own in used(part)]
    alone = sum(len(own) == 1 for own in fused)
    if alone == len(fused):
        return [*said, "One member has all the weight: it is that network and no ensemble, so there is no gain."]
    if alone:
        said.append(f"In {alone} of {counted(len(fused), 'row')} one member has all the weight, so it is that network.")
    singles = [best_network(part, networks) for part in best.chosen]
    known = [single for single in singles if single is not None]
    if len(known) < len(singles):
        said.append("What it gains cannot be told: there is no single network with a val AUC beside each.")
        return [*said, *_as_high(best, networks)]
    gained = gain(list(zip(best.chosen, known, strict=True)), read)
    times = _mean(best.chosen, _prediction(networks)), _mean(known, _milliseconds)
    cost = f", at {times[0] / times[1]:.3g} times its time of prediction" if all(time > 0 for time in times) else ""
    differs = f"{signed(gained.auc)} ({_interval(gained)})"
    said.append(f"From the single network with the highest val AUC it differs by {differs}{cost}.")
    if not gained.told_apart:
        said.append("So the two are not told apart: no gain is shown.")
    return [*said, *_as_high(best, networks)]


def _as_high(best: Way, networks: pd.DataFrame) -> Iterable[str]:
    """The single network of the run with the highest mean test AUC, where that is not below the ensemble's."""
    beside = [
        {(part["backbone"].iloc[0], part["strategy"].iloc[0]): part for part in networks_beside(ensemble, networks)}
        for ensemble in best.chosen
    ]
    everywhere = sorted(set.intersection(*map(set, beside)))
    aucs = [_auc([parts[network] for parts in beside]) for network in everywhere]
    if aucs and max(aucs) >= _auc(best.chosen) - 1e-9:
        backbone, strategy = everywhere[int(np.argmax(aucs))]
        yield f"A single network of this run scores as high on test: {strategy}, {backbone} ({fixed(max(aucs))})."


def _rivals(found: Sequence[Way], read: Read) -> Iterable[str]:
    """From which other kinds the first one is not told apart."""
    first, *others = [way for way in found if way.compared]
    level = [
        f"{way.fusion} over {way.over}"
        for way in others
        if not gain(list(zip(first.chosen, way.chosen, strict=True)), read).told_apart
    ]
    if level:
        yield f"It is not told apart from {listed(level, 3)}."


def _kinds(made: pd.DataFrame, networks: pd.DataFrame, read: Read) -> Iterable[Markup]:
    found = _best_first(ways(made))
    if not found:
        return
    lines, apart, prediction = [], [], _prediction(networks)
    for way in found:
        singles = [best_member(part, networks) for part in way.chosen]
        known = [single for single in singles if single is not None]
        gained = None
        if len(known) == len(singles):
            gained = gain(list(zip(way.chosen, known, strict=True)), read)
            apart.append(gained.told_apart)
        lines.append((_auc(way.chosen), way.compared, _line(way, known if gained else [], gained, prediction)))
    if found[0].compared:
        singles = [best_network(part, networks) for part in found[0].chosen]
        known = [single for single in singles if single is not None]
        if len(known) == len(singles):
            lines.append((_auc(known), True, _single(known)))
    lines.sort(key=lambda line: (not line[1], -line[0]))
    heads = ["Ensemble", "Test AUC", "Gain", "95 %", "Val − test", "Member's", "Tune + fit", "Fuse", "ms an image"]
    datasets = {_datasets(way.chosen) for way in found}
    if len(datasets) > 1:
        heads.insert(1, "Datasets")
    else:
        lines = [(auc, compared, (line[0], *line[2:])) for auc, compared, line in lines]
    if found[0].compared:
        yield paragraphs(_rivals(found, read))
    if apart and not any(apart):
        yield paragraphs(["No kind of ensemble is told apart from its best member."])
    yield table(_caption(found, made), heads, [line for _, _, line in lines], heads[1:])


def _caption(found: Sequence[Way], made: pd.DataFrame) -> str:
    alone = [way for way in found if not way.compared]
    seen = len(cells(made[saw_test(made)]))
    val = made.groupby("dataset")["n_val"].max().dropna()
    sizes = listed([f"{n:,} ({dataset})" for dataset, n in val.items()])
    images = f"Val has {sizes} images. " if sizes else ""
    return (
        "Kinds of ensembles. Means over the datasets that have all kinds; where one has several of a kind (of other "
        "strategies, say), that with the highest val AUC counts. Gain: over its member with the highest mean val AUC, "
        "which a user would have taken without it; its interval adds the variance of the differences between equal "
        "seeds to DeLong's of the test images (images only: one run, as an ensemble over seeds is; seeds only: "
        "predictions are missing). Val − test: AUC on val less that on test, of the ensemble and of that member. Where "
        "the ensemble's is the larger, it may have fitted the val images: weighted, greedy and stacking take their "
        f"weights from them (stacking's val AUC is cross-fitted, so honest). {images}Tune + fit is what all members "
        "cost; where they are there, fusing is all. The time of prediction is that of members with a weight above 0."
        + (f" {counted(len(alone), 'kind')} that most of these datasets lack stand on their own." if alone else "")
        + (f" {counted(seen, 'ensemble')} with a transductive member are in none of this." if seen else "")
    )


def _line(way: Way, singles: Sequence[pd.DataFrame], gained: Gain | None, prediction: Cost) -> tuple[Any, ...]:
    return (
        f"{way.fusion} over {way.over}", _datasets(way.chosen), fixed(_auc(way.chosen)),
        signed(gained.auc) if gained else MISSING, interval(gained) if gained else MISSING,
        signed(_mean(way.chosen, _optimism)), signed(_mean(singles, _optimism)) if singles else MISSING,
        seconds(_mean(way.chosen, _training)), seconds(_mean(way.chosen, lambda rows: rows["fuse_seconds"])),
        count(_mean(way.chosen, prediction)),
    )  # fmt: skip


def _single(singles: Sequence[pd.DataFrame]) -> tuple[Any, ...]:
    return (
        "best single network", _datasets(singles), fixed(_auc(singles)), MISSING, MISSING,
        signed(_mean(singles, _optimism)), MISSING,
        seconds(_mean(singles, _training)), MISSING, count(_mean(singles, _milliseconds)),
    )  # fmt: skip


def _lost(every: pd.DataFrame) -> Iterable[Markup]:
    undefined = int(((every["status"] == "ok") & every["test_auc"].isna()).sum())
    if undefined:
        yield paragraphs(
            [f"{counted(undefined, 'ensemble')} without a test AUC: a class is absent from the test split."]
        )
    if lost := reasons(every):
        heads = ["Status", "Reason", "Rows", "Ensembles", "Datasets"]
        yield table("Why ensembles have no result.", heads, lost, ["Rows"])


def _best_first(found: Iterable[Way]) -> list[Way]:
    return sorted(found, key=lambda way: (not way.compared, -_auc(way.chosen), way.fusion, way.over))


def _interval(gained: Gain) -> str:
    low, high = gained.interval
    return "no interval" if np.isnan(low) else f"95 % interval over {gained.over} {signed(low)} to {signed(high)}"


def _mean(parts: Sequence[pd.DataFrame], of: Cost) -> float:
    return float(shares(parts) @ [float(of(part).astype(float).mean(skipna=False)) for part in parts])


def _auc(parts: Sequence[pd.DataFrame]) -> float:
    return _mean(parts, lambda rows: rows["test_auc"])


def _optimism(rows: pd.DataFrame) -> pd.Series:
    return rows["val_auc"] - rows["test_auc"]


def _training(rows: pd.DataFrame) -> pd.Series:
    return rows["tune_seconds"] + rows["fit_seconds"]


def _milliseconds(rows: pd.DataFrame) -> pd.Series:
    return rows["predict_ms"]


def _prediction(networks: pd.DataFrame) -> Cost:
    """What an image takes in the members that have a weight: the others need not run. NaN where one's is not known."""
    keys = zip(networks["fingerprint"], networks["seed"], strict=True)
    known = dict(zip(keys, networks["predict_ms"].astype(float), strict=True))

    def cost(ensemble: pd.DataFrame) -> pd.Series:
        return pd.Series([sum(known.get((m.fingerprint, m.seed), np.nan) for m in own) for own in used(ensemble)])

    return cost


def _datasets(parts: Sequence[pd.DataFrame]) -> int:
    """Those that are tested on the same images or patients are one."""
    return len({judged_on(part["dataset"].iloc[0]) for part in parts})
