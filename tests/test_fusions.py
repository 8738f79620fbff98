"""What each fusion makes of its members' probabilities, against figures worked out by hand."""

from __future__ import annotations

from typing import get_args

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from bench import registry
from bench.check_fusion import drawn, examine_fusion
from bench.contract import Fused, Kind
from bench.metrics import auc
from tests.small import CHECKOUT

FUSIONS = registry.fusions(CHECKOUT)
KINDS = get_args(Kind)
VAL = np.array(  # three members, four images, class 1 last
    [
        [[0.9, 0.1], [0.6, 0.4], [0.3, 0.7], [0.2, 0.8]],
        [[0.8, 0.2], [0.3, 0.7], [0.4, 0.6], [0.1, 0.9]],
        [[0.2, 0.8], [0.7, 0.3], [0.6, 0.4], [0.9, 0.1]],
    ]
)
LABELS = np.array([0, 0, 1, 1])
NEW = np.array([[[0.5, 0.5], [0.1, 0.9]], [[0.2, 0.8], [0.7, 0.3]], [[0.9, 0.1], [0.6, 0.4]]])


def fitted(name: str, probs: np.ndarray = VAL, labels: np.ndarray = LABELS, kind: Kind = "binary") -> Fused:
    return FUSIONS[name].fit(probs, labels, kind)


def test_all_of_them_are_there() -> None:
    wanted = {"mean", "logits", "weighted", "ranks", "vote", "greedy", "stacking"}
    assert set(FUSIONS) == {f"ensemble_{name}" for name in wanted}


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("name", FUSIONS)
def test_fusions_keep_the_contract(name: str, kind: Kind) -> None:
    findings = list(examine_fusion(FUSIONS[name], kind))
    assert len(findings) >= 7
    assert [finding for finding in findings if finding[1]] == []


def test_mean_of_probabilities() -> None:
    assert fitted("ensemble_mean").combine(NEW)[:, 1] == pytest.approx([(0.5 + 0.8 + 0.1) / 3, (0.9 + 0.3 + 0.4) / 3])


def test_mean_of_logits_is_the_normalised_geometric_mean() -> None:
    for_one, against = (0.5 * 0.8 * 0.1) ** (1 / 3), (0.5 * 0.2 * 0.9) ** (1 / 3)
    assert fitted("ensemble_logits").combine(NEW)[0, 1] == pytest.approx(for_one / (for_one + against))


def test_mean_of_multi_label_logits_is_of_each_label_by_itself() -> None:
    probs = np.array([[[0.2, 0.9]], [[0.5, 0.9]]])
    odds = np.sqrt(0.2 / 0.8 * 1)
    found = FUSIONS["ensemble_logits"].fit(probs[:, :0], np.zeros((0, 2)), "multi-label").combine(probs)
    assert found[0] == pytest.approx([odds / (1 + odds), 0.9])


def test_val_weights_are_the_auc_above_chance() -> None:
    fused = fitted("ensemble_weighted")  # AUCs: 1, 3/4, 1/4
    assert fused.weights == pytest.approx([2 / 3, 1 / 3, 0])
    assert fused.combine(NEW)[0, 1] == pytest.approx(0.5 * 2 / 3 + 0.8 / 3)


def test_val_weights_are_equal_where_val_says_nothing() -> None:
    assert fitted("ensemble_weighted", labels=np.zeros(4, dtype=int)).weights == pytest.approx([1 / 3] * 3)


def test_ranks_are_places_among_the_val_scores() -> None:
    probs = np.array([[[0.9, 0.1], [0.5, 0.5], [0.1, 0.9]], [[0.99, 0.01], [0.98, 0.02], [0.97, 0.03]]])
    fused = FUSIONS["ensemble_ranks"].fit(probs, np.array([0, 1, 1]), "binary")
    new = np.array([[[0.5, 0.5]], [[0.975, 0.025]]])
    # The first is level with the second of three (place 1/2), the second between the second and the third (2/3).
    assert fused.combine(new)[0] == pytest.approx([5 / 12, 7 / 12], abs=1e-6)


def test_ranks_do_not_ask_how_a_member_is_calibrated() -> None:
    probs, labels = drawn("binary", 40, seed=3)
    shy = probs.copy()
    shy[0] = 0.5 + (probs[0] - 0.5) * 0.01
    found = [FUSIONS["ensemble_ranks"].fit(one, labels, "binary").combine(one) for one in (probs, shy)]
    assert auc(labels, found[0], "binary") == pytest.approx(auc(labels, found[1], "binary"))


def test_vote_counts_decisions() -> None:
    assert fitted("ensemble_vote").combine(NEW)[:, 1] == pytest.approx([1 / 3, 1 / 3])


def test_vote_on_labels_affirms_above_a_half() -> None:
    probs = np.array([[[0.6, 0.4]], [[0.9, 0.7]], [[0.2, 0.6]]])
    fused = FUSIONS["ensemble_vote"].fit(probs[:, :0], np.zeros((0, 2)), "multi-label")
    assert fused.combine(probs)[0] == pytest.approx([2 / 3, 2 / 3])


def test_greedy_stays_with_the_best_where_none_improves_it() -> None:
    assert fitted("ensemble_greedy").weights.tolist() == [1, 0, 0]  # AUC 1 already


def test_greedy_adds_what_improves_val() -> None:
    # Either alone misplaces one pair of four; their mean misplaces none. The third is worse and of no use.
    probs = np.array([[0.1, 0.7, 0.6, 0.9], [0.7, 0.1, 0.9, 0.6], [0.9, 0.8, 0.2, 0.1]])
    probs = np.stack([1 - probs, probs], axis=-1)
    assert [auc(LABELS, one, "binary") for one in probs] == pytest.approx([0.75, 0.75, 0])
    assert fitted("ensemble_greedy", probs).weights.tolist() == [0.5, 0.5, 0]


def test_stacking_trusts_the_member_that_knows() -> None:
    rng = np.random.default_rng(0)
    labels = np.arange(200) % 2
    knows = np.clip(0.5 + 0.3 * (2 * labels - 1) + rng.normal(0, 0.15, 200), 0.02, 0.98)
    guesses = rng.uniform(0.02, 0.98, 200)
    probs = np.stack([np.stack([1 - p, p], axis=1) for p in (knows, guesses)])
    fused = FUSIONS["ensemble_stacking"].fit(probs, labels, "binary")
    assert fused.weights[0] > 0.95


def test_stacking_says_of_val_what_it_did_not_see() -> None:
    """With members that know nothing, a fit's own images flatter it; the cross-fitted ones do not."""
    rng = np.random.default_rng(1)
    labels = np.arange(60) % 2
    seen, crossed = [], []
    for _ in range(20):
        noise = rng.uniform(0.02, 0.98, (6, 60))
        probs = np.stack([1 - noise, noise], axis=-1)
        fused = FUSIONS["ensemble_stacking"].fit(probs, labels, "binary")
        assert fused.val is not None
        seen.append(auc(labels, fused.combine(probs), "binary"))
        crossed.append(auc(labels, fused.val, "binary"))
    assert np.mean(seen) > 0.55
    assert np.mean(crossed) < 0.53


def test_stacking_on_few_images_is_refused() -> None:
    assert "9 images" in (FUSIONS["ensemble_stacking"].applies(np.arange(9) % 2, "binary") or "")


DRAWN = st.tuples(st.sampled_from(KINDS), st.integers(0, 10_000), st.integers(2, 6))


@settings(max_examples=25, deadline=None)
@given(case=DRAWN, name=st.sampled_from(sorted(FUSIONS)))
def test_the_order_of_members_changes_nothing(case: tuple[Kind, int, int], name: str) -> None:
    kind, seed, members = case
    probs, labels = drawn(kind, 30, seed, members)
    order = np.random.default_rng(seed).permutation(members)
    first = FUSIONS[name].fit(probs, labels, kind)
    second = FUSIONS[name].fit(probs[order], labels, kind)
    np.testing.assert_allclose(second.combine(probs[order]), first.combine(probs), atol=1e-3)
    np.testing.assert_allclose(second.weights, first.weights[order], atol=1e-3)
    assert first.weights.sum() == pytest.approx(1)
    assert first.weights.min() >= 0


@settings(max_examples=25, deadline=None)
@given(case=DRAWN, name=st.sampled_from(["mean", "logits", "weighted", "greedy"]))
def test_one_member_is_itself(case: tuple[Kind, int, int], name: str) -> None:
    kind, seed, _ = case
    probs, labels = drawn(kind, 30, seed, members=1)
    fused = FUSIONS[f"ensemble_{name}"].fit(probs, labels, kind)
    np.testing.assert_allclose(fused.combine(probs), probs[0], atol=1e-6)


@settings(max_examples=25, deadline=None)
@given(kind=st.sampled_from(["binary", "ordinal"]), seed=st.integers(0, 10_000))
def test_one_member_keeps_its_order_and_its_decisions(kind: Kind, seed: int) -> None:
    """What ranks, votes and a regression leave of a single member."""
    probs, labels = drawn(kind, 30, seed, members=1)
    ranked = FUSIONS["ensemble_ranks"].fit(probs, labels, kind).combine(probs)
    if kind == "binary":
        assert auc(labels, ranked, kind) == pytest.approx(auc(labels, probs[0], kind))
    voted = FUSIONS["ensemble_vote"].fit(probs, labels, kind).combine(probs)
    assert (voted.argmax(axis=1) == probs[0].argmax(axis=1)).all()


@settings(max_examples=40, deadline=None)
@given(case=DRAWN)
def test_greedy_is_never_worse_on_val_than_its_best_member(case: tuple[Kind, int, int]) -> None:
    kind, seed, members = case
    probs, labels = drawn(kind, 30, seed, members)
    fused = FUSIONS["ensemble_greedy"].fit(probs, labels, kind)
    best = max(auc(labels, one, kind) for one in probs)
    assert auc(labels, fused.combine(probs), kind) >= best - 1e-12
