"""Cells on a Ray cluster: the same rows, and a node that is lost costs only what it was doing."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.cheap import published, run
from tests.kills import assert_whole, worker_numbers
from tests.test_runner import rows

CELLS = 8


@pytest.fixture
def cluster() -> Iterator[Any]:
    """Two nodes of one CPU each, besides a head that runs nothing."""
    from ray.cluster_utils import Cluster

    made = Cluster(initialize_head=True, head_node_args={"num_cpus": 0, "include_dashboard": False})
    yield made
    made.shutdown()


def test_a_cluster_on_this_machine_gives_the_rows_of_this_process(undisturbed: Path, tmp_path: Path) -> None:
    assert run(tmp_path, CELLS, executor="ray", jobs=2).ok == 2 * CELLS
    assert rows(tmp_path) == rows(undisturbed)
    assert len(worker_numbers(tmp_path)) == 2


def test_a_node_that_is_lost_costs_only_what_it_was_doing(undisturbed: Path, tmp_path: Path, cluster: Any) -> None:
    nodes = [cluster.add_node(num_cpus=1) for _ in range(2)]
    lost = threading.Event()

    def lose() -> None:
        while len(worker_numbers(tmp_path)) < 2:  # until both nodes work
            time.sleep(0.05)
        cluster.remove_node(nodes[0], allow_graceful=False)
        lost.set()

    losing = threading.Thread(target=lose)
    losing.start()
    outcome = run(tmp_path, CELLS, executor="ray", address=cluster.address, jobs=2)
    losing.join()
    assert lost.is_set()
    assert (outcome.ok, outcome.failed) == (2 * CELLS, 0)
    assert rows(tmp_path) == rows(undisturbed)
    assert set(published(tmp_path).values()) == {1}
    assert_whole(tmp_path)
