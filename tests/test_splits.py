"""Splits keep groups whole and classes in proportion; training subsets nest."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from bench.errors import UsageError
from bench.splits import TRAIN_VAL, make_splits, one_left, too_few, training_subset


@settings(max_examples=60, deadline=None)
@given(st.integers(1, 150), st.integers(1, 6), st.integers(0, 5), st.booleans(), st.booleans(), st.data())
def test_splits_are_a_partition_and_no_group_is_torn(
    count: int, classes: int, seed: int, multi: bool, grouped: bool, data: st.DataObject
) -> None:
    rng = np.random.default_rng(data.draw(st.integers(0, 1000)))
    labels = rng.integers(0, 2, (count, classes)).astype(np.uint8) if multi else rng.integers(0, classes, count)
    groups = rng.integers(0, max(1, count // 3), count).astype(str) if grouped else None
    splits = make_splits(labels, seed, groups)
    assert np.sort(np.concatenate(list(splits.values()))).tolist() == list(range(count))
    if groups is not None:
        parts = [set(groups[rows]) for rows in splits.values()]
        assert len(set().union(*parts)) == sum(map(len, parts))


def test_classes_keep_their_shares() -> None:
    labels = np.repeat([0, 1, 2], [700, 200, 100])
    splits = make_splits(labels, seed=3)
    for name, share in (("train", 0.7), ("val", 0.1), ("test", 0.2)):
        np.testing.assert_allclose(np.bincount(labels[splits[name]]), share * np.array([700, 200, 100]), atol=1)


def test_shares_hold_for_multi_label_in_groups() -> None:
    rng = np.random.default_rng(0)
    groups = rng.integers(0, 400, 2000)
    labels = (rng.random((2000, 3)) < [0.4, 0.1, 0.03]).astype(np.uint8)
    splits = make_splits(labels, 0, groups)
    for name, share in (("train", 0.7), ("val", 0.1), ("test", 0.2)):
        np.testing.assert_allclose(labels[splits[name]].mean(0), labels.mean(0), rtol=0.35)
        assert len(splits[name]) == pytest.approx(share * 2000, abs=30)


def test_a_rare_class_reaches_every_split_where_it_can_and_else_train() -> None:
    labels = np.array([0] * 50 + [1] * 3 + [2])
    splits = make_splits(labels, seed=0)
    assert all(1 in labels[rows] for rows in splits.values())
    assert 2 in labels[splits["train"]]


def test_splits_follow_the_seed() -> None:
    labels = np.arange(100) % 4
    one, same, other = (make_splits(labels, seed)["test"].tolist() for seed in (1, 1, 2))
    assert one == same != other


def test_other_ratios_make_other_splits() -> None:
    splits = make_splits(np.zeros(100, dtype=np.int64), 0, ratios=TRAIN_VAL)
    assert {name: len(rows) for name, rows in splits.items()} == {"train": 90, "val": 10}


@settings(max_examples=60, deadline=None)
@given(st.integers(1, 200), st.integers(1, 5), st.integers(0, 9), st.booleans(), st.data())
def test_smaller_subsets_lie_in_larger_ones(
    count: int, classes: int, seed: int, multi: bool, data: st.DataObject
) -> None:
    rng = np.random.default_rng(seed)
    labels = rng.integers(0, 2, (count, classes)).astype(np.uint8) if multi else rng.integers(0, classes, count)
    small, large = sorted(data.draw(st.tuples(st.floats(0.001, 1), st.floats(0.001, 1))))
    few, many = sorted(data.draw(st.tuples(st.integers(1, 300), st.integers(1, 300))))
    for one, two in (
        (training_subset(labels, small, None, seed), training_subset(labels, large, None, seed)),
        (training_subset(labels, 1.0, few, seed), training_subset(labels, 1.0, many, seed)),
    ):
        assert set(one) <= set(two)
        assert (np.diff(one) > 0).all()
        assert one.dtype == np.int64


def test_subsets_count_per_class() -> None:
    labels = np.repeat([0, 1, 2], [100, 40, 3])
    assert np.bincount(labels[training_subset(labels, 0.1, None, 0)]).tolist() == [10, 4, 1]
    assert np.bincount(labels[training_subset(labels, 1.0, 10, 0)]).tolist() == [10, 10, 3]
    assert training_subset(labels, 1.0, None, 0).tolist() == list(range(143))


def test_a_class_with_fewer_images_than_asked_for_is_named() -> None:
    labels = np.repeat([0, 1, 2], [100, 40, 3])
    assert too_few(labels, ("a", "b", "c"), 3) == ""
    assert too_few(labels, ("a", "b", "c"), 10) == '"c" has 3 training images: 10 a class is all of them'
    columns = np.array([[1, 1], [1, 0], [0, 0]], dtype=np.uint8)
    assert too_few(columns, ("a", "b"), 2) == '"b" has 1 training images: 2 a class is all of them'


def test_a_fraction_that_leaves_one_image_of_a_class_or_label_names_it() -> None:
    labels = np.repeat([0, 1, 2], [100, 40, 1])
    assert one_left(labels, ("a", "b", "c"), 0.03, 0) == 'fraction 0.03 leaves 1 of 40 training images of "b"'
    assert one_left(labels, ("a", "b", "c"), 0.5, 0) == ""
    columns = np.zeros((200, 2), dtype=np.uint8)
    columns[:, 0], columns[:2, 1] = 1, 1
    seed = next(seed for seed in range(50) if (training_subset(columns, 0.5, None, seed) < 2).sum() == 1)
    assert one_left(columns, ("a", "b"), 0.5, seed) == 'fraction 0.5 leaves 1 of 2 training images of "b"'


def test_multi_label_subsets_have_each_label_and_none() -> None:
    labels = np.zeros((100, 3), dtype=np.uint8)
    labels[:30, 0], labels[20:40, 1], labels[40, 2] = 1, 1, 1
    chosen = labels[training_subset(labels, 1.0, 5, 0)]
    assert (chosen.sum(0) >= [5, 5, 1]).all()
    assert (~chosen.any(1)).sum() == 5
    assert len(chosen) <= 16


def test_a_fraction_of_a_multi_label_set_is_that_and_a_fair_sample() -> None:
    rng = np.random.default_rng(0)
    labels = (rng.random((2000, 4)) < [0.5, 0.3, 0.2, 0.1]).astype(np.uint8)
    labels[:, 3] = 0
    labels[7, 3] = 1
    chosen = labels[training_subset(labels, 0.1, None, 0)]
    assert 200 <= len(chosen) <= 201  # the last label's only image, if it was not drawn
    assert chosen[:, 3].sum() == 1
    assert chosen.sum(1).mean() == pytest.approx(labels.sum(1).mean(), abs=0.15)  # drawn label by label: 1.4 and not 1


def test_subsets_follow_the_seed() -> None:
    labels = np.zeros(50, dtype=np.int64)
    assert training_subset(labels, 0.2, None, 0).tolist() != training_subset(labels, 0.2, None, 1).tolist()


@pytest.mark.parametrize(("fraction", "per_class"), [(0.0, None), (1.5, None), (-1.0, None), (1.0, 0)])
def test_impossible_amounts_are_usage_errors(fraction: float, per_class: int | None) -> None:
    with pytest.raises(UsageError):
        training_subset(np.zeros(5, dtype=np.int64), fraction, per_class, 0)
