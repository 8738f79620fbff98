"""The comparison of an uneven study is the largest that it allows, and no cheap sweep takes it away."""

from __future__ import annotations

import numpy as np
import pytest

from bench.report.comparable import comparable

PROBES = ("knn", "linear", "mlp", "svm")
CORE = ("scratch", *PROBES, *(f"c{n}" for n in range(8)))
EXTRA = tuple(f"x{n}" for n in range(26))
ALL, TWO = range(6), range(2)
SETS = 3

Part = tuple[tuple[str, ...], range, str]
"""Strategies, networks, and size and amount of data."""

GROWN: list[Part] = [
    (CORE, ALL, "28 px, 10"),
    (EXTRA, TWO, "28 px, 10"),
    (PROBES, ALL, "28 px, all"),
    (CORE, TWO, "64 px, 10"),
    (CORE, TWO, "28 px, 50"),
]


def chosen(parts: list[Part], control: str | None = "scratch") -> tuple[set[str], int]:
    """The strategies that are compared, and on how many blocks."""
    found = {(name, (d, net, at)) for names, nets, at in parts for name in names for net in nets for d in range(SETS)}
    names, blocks = (sorted({pair[n] for pair in found}) for n in (0, 1))
    there = np.array([[(name, block) in found for block in blocks] for name in names])
    entries, used = comparable(there, [names.index(control)] if control in names else [])
    assert there[np.ix_(entries, used)].all()
    return {name for name, at in zip(names, entries, strict=True) if at}, int(used.sum())


def test_many_strategies_on_two_networks_do_not_take_the_others_from_those_on_all() -> None:
    assert chosen(GROWN) == (set(CORE), 30)
    assert chosen([GROWN[0], (EXTRA, range(1), "28 px, 10")]) == (set(CORE), 18)
    assert chosen([*GROWN, *((PROBES, ALL, f"sweep {n}") for n in range(20))]) == (set(CORE), 30)


def test_without_a_control_every_two_are_compared() -> None:
    assert chosen(GROWN, None) == ({*CORE, *EXTRA}, 6)


@pytest.mark.parametrize("control", ["scratch", None])
@pytest.mark.parametrize(
    "sweep",
    [
        (PROBES, ALL, 1),
        (PROBES, ALL, 9),
        (("linear",), ALL, 40),
        (("linear", "knn"), range(10), 9),
        (("scratch", "linear"), ALL, 9),
    ],
)
def test_a_sweep_of_few_strategies_changes_nothing(sweep: tuple[tuple[str, ...], range, int], control: str) -> None:
    names, nets, times = sweep
    assert chosen([(CORE, ALL, "10"), *((names, nets, f"more {n}") for n in range(times))], control) == (set(CORE), 18)


def test_networks_are_compared_over_what_all_have_though_two_have_far_more() -> None:
    """As entries: six networks in 51 blocks, two of them in 312 more."""
    there = np.zeros((6, 363), dtype=bool)
    there[:, :51] = there[:2] = True
    entries, used = comparable(there)
    assert (entries.sum(), used.sum()) == (6, 51)


def test_a_control_with_few_results_costs_the_others_nothing() -> None:
    others = CORE[1:]
    assert chosen([(others, ALL, "10"), (("scratch",), range(1), "10")]) == (set(others), 18)


def test_a_second_control_counts_where_the_first_has_few_results() -> None:
    there = np.zeros((6, 10), dtype=bool)
    there[:3] = True  # of these 1 is the second control
    there[3:, :4] = True
    there[5] = np.arange(10) == 9  # the first
    entries, used = comparable(there, [5, 1])
    assert (np.flatnonzero(entries).tolist(), used.sum()) == ([0, 1, 2], 10)


@pytest.mark.parametrize(("blocks", "kept"), [(9, True), (6, True), (5, True), (4, False), (1, False)])
def test_an_entry_that_lacks_up_to_half_of_the_blocks_is_compared_on_the_others(blocks: int, kept: bool) -> None:
    there = np.ones((5, 10), dtype=bool)
    there[4] = np.arange(10) < blocks
    entries, used = comparable(there, [0])
    assert (bool(entries[4]), used.sum()) == (kept, blocks if kept else 10)


def test_entries_that_lack_different_blocks_cost_no_more_than_half_together() -> None:
    there = np.ones((8, 12), dtype=bool)
    for entry in range(4, 8):
        there[entry, 3 * (entry - 4) : 3 * (entry - 3)] = False
    entries, used = comparable(there, [0])
    assert (entries.sum(), used.sum()) == (6, 6)


def test_whoever_has_all_of_the_blocks_is_compared_and_all_blocks_are_taken() -> None:
    rng = np.random.default_rng(0)
    for _ in range(200):
        there = rng.random((rng.integers(2, 9), rng.integers(1, 12))) < rng.uniform(0.3, 1)
        entries, used = comparable(there, [0])
        if used.any():
            assert (there[:, used].all(axis=1) == entries).all()
            assert (there[entries].all(axis=0) == used).all()


def test_a_single_entry_stands_alone_and_of_several_apart_none_is_compared() -> None:
    there = np.zeros((3, 4), dtype=bool)
    assert [found.tolist() for found in comparable(there)] == [[False] * 3, [False] * 4]
    there[1, :2] = True
    assert [found.tolist() for found in comparable(there, [0])] == [[False, True, False], [True, True, False, False]]
    there[2, 3] = True
    assert [found.any() for found in comparable(there, [0])] == [False, False]


def test_an_entry_alone_on_many_blocks_does_not_hide_that_others_share_some() -> None:
    there = np.zeros((3, 20), dtype=bool)
    there[0, 2:] = there[1:, :2] = True
    entries, used = comparable(there)
    assert (np.flatnonzero(entries).tolist(), used.sum()) == ([1, 2], 2)
