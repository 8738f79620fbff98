"""Label-free scores against literal computations, and what each way of choosing takes."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch

from bench import rules
from bench.check import phantom_task
from bench.errors import UsageError
from bench.images import predict
from bench.label_free import judge_on, label_free
from bench.prediction import Prediction, for_labelled, for_second
from bench.selection import SELECTIONS, chosen
from bench.trial import Trial
from bench.tune import ranked


def literal(logits: np.ndarray) -> tuple[float, float, float]:
    """Entropy, information and soft neighbourhood density, image by image."""
    probs = np.exp(logits) / np.exp(logits).sum(1, keepdims=True)

    def entropy(p):
        return -sum(x * math.log(x) for x in p if x > 0)

    mean = np.mean([entropy(p) for p in probs])
    density = []
    for i, p in enumerate(probs):
        similar = [p @ q / np.linalg.norm(p) / np.linalg.norm(q) / 0.05 for j, q in enumerate(probs) if j != i]
        weights = np.exp(np.array(similar) - max(similar))
        density.append(entropy(weights / weights.sum()))
    return mean, entropy(probs.mean(0)) - mean, float(np.mean(density))


def test_label_free_scores_equal_a_literal_computation() -> None:
    logits = torch.randn(40, 4, generator=torch.Generator().manual_seed(0)) * 3
    found = label_free(logits, "multi-class")
    assert [found[k] for k in ("entropy", "information", "snd")] == pytest.approx(literal(logits.double().numpy()))


def test_a_multi_label_task_is_so_many_binary_ones() -> None:
    logits = torch.randn(30, 3, generator=torch.Generator().manual_seed(1))
    found = label_free(logits, "multi-label")
    each = [label_free(torch.stack([torch.zeros(30), logits[:, k]], 1), "binary") for k in range(3)]
    for name in ("entropy", "information"):
        assert found[name] == pytest.approx(np.mean([e[name] for e in each]))


def test_a_collapse_to_one_class_pleases_entropy_but_not_information() -> None:
    collapsed = torch.tensor([[9.0, 0.0, 0.0]]).repeat(30, 1)
    sure = 9 * torch.eye(3).repeat(10, 1)
    both = [label_free(logits, "multi-class") for logits in (collapsed, sure)]
    assert both[0]["entropy"] == pytest.approx(both[1]["entropy"])
    assert both[0]["information"] == pytest.approx(0, abs=1e-9)
    assert both[1]["information"] > 1


def test_too_few_images_have_no_neighbourhood() -> None:
    assert math.isnan(label_free(torch.zeros(2, 2), "binary")["snd"])


def test_each_selection_takes_its_own_best_and_never_an_incomplete_trial() -> None:
    trials = [
        {"state": "complete", "val_auc": 0.9, "entropy": 0.5, "information": 0.1, "snd": 1.0, "target_val_auc": 0.6},
        {"state": "complete", "val_auc": 0.8, "entropy": 0.1, "information": 0.2, "snd": 1.0, "target_val_auc": 0.9},
        {"state": "complete", "val_auc": None, "entropy": None, "information": 0.3, "snd": 3.0, "target_val_auc": 0.7},
        {"state": "diverged", "val_auc": 1.0, "entropy": 0.0, "information": 9.0, "snd": 9.0, "target_val_auc": 1.0},
    ]
    picks = {name: trials.index(chosen(trials, name)) for name in SELECTIONS}
    assert picks == {"source_val": 0, "entropy": 1, "information": 2, "snd": 2, "oracle": 1}
    with pytest.raises(ValueError, match="no trial is complete"):
        chosen(trials[3:], "oracle")


def test_the_report_takes_the_trial_that_the_tuner_takes() -> None:
    trials = [
        {"state": "complete", "val_auc": 0.94, "val_loss": 0.6, "val_margin": 0.03},
        {"state": "complete", "val_auc": 0.92, "val_loss": 0.3, "val_margin": 0.05},
        {"state": "complete", "val_auc": 0.90, "val_loss": 0.1, "val_margin": 0.05},
    ]
    facts = {"params": {}, "hparams": {}, "curve": [], "losses": [], "seconds": 0.0, "images_seen": 0}
    margins = {trial["val_auc"]: trial["val_margin"] for trial in trials}
    tuned = ranked([Trial(number=n, **facts, **t) for n, t in enumerate(trials)], margins.__getitem__)[0]
    assert chosen(trials, "source_val") is trials[tuned.number] is trials[1]


def test_nothing_is_chosen_by_the_targets_test() -> None:
    assert "target_test_auc" not in {selection.column for selection in SELECTIONS.values()}


def test_a_matrix_file_may_not_select_by_the_oracle() -> None:
    assert rules.checked(rules.LIMITS["selection"], "snd", "selection") == "snd"
    with pytest.raises(UsageError, match=r'"oracle".*"source_val" or "entropy" or "information" or "snd"'):
        rules.checked(rules.LIMITS["selection"], "oracle", "selection")


def test_a_prediction_uses_the_branch_of_the_domain_that_images_are_of() -> None:
    ours, theirs = (lambda images: images + 1), (lambda images: images - 1)
    both = Prediction(ours, other=theirs)
    zero = torch.zeros(1)
    assert for_labelled(both, shift=False)(zero) == 1
    assert for_second(both, shift=False)(zero) == -1
    assert for_labelled(both, shift=True)(zero) == -1
    assert for_second(both, shift=True)(zero) == 1
    assert for_labelled(ours, shift=True)(zero) == 1


def test_a_predictor_that_wants_a_whole_split_gets_it_whole() -> None:
    val = phantom_task("binary", images=50).val
    sizes = []

    def counting(images: torch.Tensor) -> torch.Tensor:
        sizes.append(len(images))
        return torch.zeros(len(images), 2)

    predict(Prediction(counting, whole=True), val, batch_size=16)
    assert sizes == [50]
    predict(counting, val, batch_size=16)
    assert sizes == [50, 16, 16, 16, 2]


def test_the_judge_scores_the_target_and_uses_its_labels_for_the_oracle_alone() -> None:
    val = phantom_task("binary", images=40).val
    logits = torch.stack([torch.zeros(40), val.labels.float()], 1)
    found = judge_on(val, "binary")([lambda images: logits])[0]
    assert found["target_val_auc"] == 1
    assert found | {"target_val_auc": 0} == label_free(logits, "binary") | {"target_val_auc": 0}
