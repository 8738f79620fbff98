"""What every strategy and backbone would score on a task that was never run, and how sure that is.

One Gaussian model of the log odds of test AUC, over all cells of the reference study at once. The log odds of a cell
are the level of its task (what linear probes reach on val) plus effects of its strategy, its backbone, the two
together, and how these differ between datasets, tasks that are unlike, and backbones whose probe does well. Every
effect is drawn around 0 with a variance of its own, so a strategy that shone once on one dataset is believed little:
that is all the shrinkage there is, and what is left unknown stays in the covariance, between candidates too. It is
Gaussian process regression (Rasmussen & Williams 2006, chapter 2) whose kernel is a sum of "has the same .." terms: a
mixed model.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from scipy.linalg import cho_factor, cho_solve
from scipy.optimize import minimize
from scipy.special import expit, logit

from bench.advice.facts import UNTRUSTED, Facts, distance, log_odds
from bench.advice.knowledge import Knowledge

DRAWS = 4000
FITTED_ON = 600
"""Cells that the ten variances are fitted on, drawn at random where there are more."""
STANDS_ON = 4000
"""Cells that predictions stand on, likewise: the work grows with the cube of their number."""
OFFSET_SLOPE = 0.5
"""How much of a backbone's lead in the probe it is expected to keep, before anything is learned."""
BROAD = {"level": 0.25, "slope of level": 0.05, "slope of offset": 0.1}
"""Variances of what all cells share, large against what is plausible: the data decide."""
EXPECTED = {
    "strategy": 0.02, "backbone": 0.02, "pair": 0.01, "strategy in likes": 0.02, "strategy on dataset": 0.02,
    "strategy by offset": 0.05, "backbone on dataset": 0.02, "dataset": 0.05, "task": 0.02, "cell": 0.01,
}  # fmt: skip
"""Variances of the effects in the log odds of AUC, before anything is learned: .02 is an AUC of .87 instead of .85."""
DOUBT = 1.5
"""Standard deviation of the log of these variances: a factor of 4 either way is no surprise."""


@dataclass(frozen=True, eq=False)
class Prediction:
    """Of the candidates' test AUCs on one task, jointly."""

    candidates: tuple[tuple[str, str], ...]
    """(strategy, backbone)."""
    draws: np.ndarray
    """float64 [DRAWS, C]: test AUCs that are possible together."""

    @property
    def auc(self) -> np.ndarray:
        """Expected test AUC [C]."""
        return self.draws.mean(axis=0)

    @property
    def interval(self) -> np.ndarray:
        """Within which the test AUC lies with 95 % probability, [2, C]."""
        return np.quantile(self.draws, [0.025, 0.975], axis=0)

    def of(self, kept: Sequence[int]) -> Prediction:
        """Of some of the candidates: the probability of being best is always that of being best among those shown."""
        return Prediction(tuple(self.candidates[at] for at in kept), self.draws[:, list(kept)])

    def without(self, pairs: Collection[tuple[str, str]]) -> Prediction:
        """Of the others."""
        return self.of([at for at, pair in enumerate(self.candidates) if pair not in pairs])

    @property
    def best(self) -> np.ndarray:
        """Probability of having the highest test AUC [C]."""
        count = len(self.candidates)
        return np.bincount(self.draws.argmax(axis=1), minlength=count) / len(self.draws)

    def within(self, rope: float) -> np.ndarray:
        """Probability [C] of a test AUC at most `rope` below that of the candidate expected to be the best."""
        return (self.draws >= self.draws[:, [int(self.auc.argmax())]] - rope).mean(axis=0)


def predict(knowledge: Knowledge, targets: Sequence[Facts], seed: int = 0, together: bool = False) -> list[Prediction]:
    """Of each target, for every (strategy, backbone) of the knowledge whose backbone the target's `probe` has a score
    of. Takes seconds with thousands of cells; the same every time, and for a target whatever the others are, but for
    rounding in the fourth digit where they are drawn `together`: then a line of draws is possible in all of them, so
    that they can be compared (the errors of their probes count as independent)."""
    order = np.random.default_rng(seed).permutation(len(knowledge.cells))
    cells, tasks = knowledge.cells.iloc[np.sort(order[:STANDS_ON])], [*knowledge.tasks, *targets]
    asked = [[pair for pair in knowledge.candidates if pair[1] in target.probe] for target in targets]
    pairs = [*zip(cells["strategy"], cells["backbone"], strict=True), *(pair for each in asked for pair in each)]
    task = [*cells["task"], *(len(knowledge.tasks) + at for at, each in enumerate(asked) for _ in each)]
    table = _table(tasks, len(knowledge.tasks), task, pairs)
    known = table.part(np.arange(len(cells)))
    gains = logit(cells["auc"].clip(UNTRUSTED, 1 - UNTRUSTED).to_numpy()) - known.expected
    noise = cells["variance"].to_numpy(dtype=np.float64)

    chosen = np.sort(np.random.default_rng(seed).permutation(len(cells))[:FITTED_ON])
    variances = BROAD | _fitted(known.part(chosen), gains[chosen], noise[chosen])
    factor = cho_factor(_covariance(known, known, variances) + np.diag(noise), lower=True, overwrite_a=True)
    weighted = cho_solve(factor, gains)
    predictions: list[Prediction] = []
    for group in [asked] if together else [[candidates] for candidates in asked]:
        first = len(knowledge.tasks) + len(predictions)
        own = table.part(np.flatnonzero((first <= table.task) & (table.task < first + len(group))))
        across = _covariance(own, known, variances)
        covariance = _covariance(own, own, variances) - across @ cho_solve(factor, across.T)
        draws = expit(_drawn(own.expected + across @ weighted, covariance, seed))
        ends = np.cumsum([len(candidates) for candidates in group])[:-1]
        parts = np.split(draws, ends, axis=1)
        predictions += [Prediction(tuple(pairs), part) for pairs, part in zip(group, parts, strict=True)]
    return predictions


@dataclass(frozen=True, eq=False)
class _Table:
    """Cells as arrays [N]: what they are equal in, as codes, and where their task stands."""

    strategy: np.ndarray
    backbone: np.ndarray
    dataset: np.ndarray
    task: np.ndarray
    level: np.ndarray
    """Of the task: mean log odds of the probes on val, whichever backbones it has them of."""
    above: np.ndarray
    """`level` less that of the known tasks on average."""
    offset: np.ndarray
    """By how much the probe on the cell's backbone is above the level."""
    val_error: np.ndarray
    """Of `level`, which the val images cause."""
    likeness: np.ndarray
    """float64 [T, T] between tasks: 1 for the same facts, towards 0 for others."""

    @property
    def expected(self) -> np.ndarray:
        return self.level + OFFSET_SLOPE * self.offset

    def part(self, rows: np.ndarray) -> _Table:
        arrays = {name: value[rows] for name, value in vars(self).items() if name != "likeness"}
        return _Table(**arrays, likeness=self.likeness)


def _table(tasks: Sequence[Facts], known: int, task: Sequence[int], pairs: Sequence[tuple[str, str]]) -> _Table:
    """The first `known` tasks alone say what is usual: how backbones differ, and how high levels are."""
    probes = [{label: log_odds(auc) for label, auc in one.probe.items()} for one in tasks]
    leads: dict[str, list[float]] = {}
    for one, probe in zip(tasks[:known], probes, strict=False):
        for label, value in probe.items():
            leads.setdefault(label, []).append(value - one.level)
    usual = {label: float(np.mean(values)) for label, values in leads.items()}
    levels = np.array([np.mean([value - usual.get(label, 0.0) for label, value in p.items()]) for p in probes])
    where = np.asarray(task)
    own = np.array([probes[at][backbone] for at, (_, backbone) in zip(where, pairs, strict=True)])
    return _Table(
        strategy=_codes([strategy for strategy, _ in pairs]),
        backbone=_codes([backbone for _, backbone in pairs]),
        dataset=_codes([one.dataset for one in tasks])[where],
        task=where,
        level=levels[where],
        above=(levels - levels[:known].mean())[where],
        offset=own - levels[where],
        val_error=np.array([one.val_error for one in tasks])[where],
        likeness=np.exp([[-0.5 * distance(one, other) ** 2 for other in tasks] for one in tasks]),
    )


def _codes(values: Sequence[str]) -> np.ndarray:
    return np.unique(values, return_inverse=True)[1]


def _terms(one: _Table, other: _Table) -> Iterator[tuple[str, np.ndarray]]:
    """What two sets of cells [N] and [M] have in common, effect by effect: name, [N, M] for a variance of 1."""

    def same(name: str) -> np.ndarray:
        return getattr(one, name)[:, None] == getattr(other, name)

    strategy, backbone, dataset, task = map(same, ("strategy", "backbone", "dataset", "task"))
    offsets = np.outer(one.offset, other.offset)
    yield "level", np.ones(strategy.shape)
    yield "slope of level", np.outer(one.above, other.above)
    yield "slope of offset", offsets
    yield "strategy", strategy
    yield "backbone", backbone
    yield "pair", strategy & backbone
    yield "strategy in likes", strategy * one.likeness[np.ix_(one.task, other.task)]
    yield "strategy on dataset", strategy & dataset
    yield "strategy by offset", strategy * offsets
    yield "backbone on dataset", backbone & dataset
    yield "dataset", dataset
    yield "task", task
    yield "cell", task & strategy & backbone


def _val_noise(one: _Table, other: _Table) -> np.ndarray:
    """All cells of a task stand on the same measured level, and share its error."""
    return (one.task[:, None] == other.task) * np.outer(one.val_error, other.val_error)


def _covariance(one: _Table, other: _Table, variances: Mapping[str, float]) -> np.ndarray:
    total = _val_noise(one, other)
    for name, term in _terms(one, other):
        total += variances[name] * term
    return total


def _fitted(table: _Table, gains: np.ndarray, noise: np.ndarray) -> dict[str, float]:
    """The variances of EXPECTED's effects that make the gains [N] likeliest, given what is expected of them (maximum a
    posteriori, by the gradient of Rasmussen & Williams, equation 5.9)."""
    terms = {name: np.asarray(term, dtype=np.float64) for name, term in _terms(table, table)}
    fixed = _val_noise(table, table) + np.diag(noise) + sum(BROAD[name] * terms[name] for name in BROAD)
    names = list(EXPECTED)
    middle = np.log([EXPECTED[name] for name in names])

    def loss(logs: np.ndarray) -> tuple[float, np.ndarray]:
        parts = [np.exp(value) * terms[name] for value, name in zip(logs, names, strict=True)]
        factor = cho_factor(fixed + sum(parts), lower=True)
        inverse = cho_solve(factor, np.eye(len(gains)))
        weighted = inverse @ gains
        pulled = (logs - middle) / DOUBT**2
        value = gains @ weighted / 2 + np.log(np.diag(factor[0])).sum() + (logs - middle) @ pulled / 2
        slopes = [(np.sum(inverse * part) - weighted @ part @ weighted) / 2 for part in parts]
        return float(value), np.array(slopes) + pulled

    bounds = [(value - 4 * DOUBT, value + 3 * DOUBT) for value in middle]
    found = minimize(loss, middle, jac=True, method="L-BFGS-B", bounds=bounds, options={"maxiter": 40})
    return dict(zip(names, np.exp(found.x).tolist(), strict=True))


def _drawn(mean: np.ndarray, covariance: np.ndarray, seed: int) -> np.ndarray:
    """float64 [DRAWS, C]. By eigenvalues: rounding may leave a covariance a hair short of being one."""
    values, vectors = np.linalg.eigh((covariance + covariance.T) / 2)
    root = vectors * np.sqrt(np.clip(values, 0, None))
    return mean + np.random.default_rng(seed).standard_normal((DRAWS, len(mean))) @ root.T
