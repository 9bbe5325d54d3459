"""Load-balanced work: the tree picks the engine."""

from __future__ import annotations

import collections
import time
from concurrent.futures import as_completed

import numpy as np
import pytest

from hiersched.client.client import Client
from hiersched.client.cluster import Cluster
from hiersched.client.joblib_backend import register_joblib
from hiersched.errors import RemoteError, TaskCancelled
from tests.patience import DEADLINE_S
from tests.processes import errands
from tests.processes.conftest import Gate, in_a_notebook, pids_of


def test_tasks_use_every_engine_at_once(rc: Client, gate: Gate) -> None:
    pids = {*pids_of(rc).values()}
    balanced = rc.load_balanced_view()
    tasks = [balanced.apply_async(errands.hold, str(gate), number) for number in range(len(rc))]
    gate.wait_for(len(rc))
    assert gate.come() == pids
    gate.open()
    assert [task.get(DEADLINE_S) for task in tasks] == list(range(len(rc)))


def test_many_short_tasks_end_each_with_its_own_result(rc: Client) -> None:
    balanced = rc.load_balanced_view()
    tasks = [balanced.apply_async(errands.square, number) for number in range(2_000)]
    assert [task.get(DEADLINE_S) for task in tasks] == [number * number for number in range(2_000)]
    assert {task.engine_id for task in tasks} <= set(rc.ids)


def test_a_map_adapts_its_chunks_and_keeps_the_order(rc: Client) -> None:
    items = range(20_000)
    result = rc.load_balanced_view().map_async(errands.square, items)
    assert result.get(DEADLINE_S) == [item * item for item in items]
    assert rc.load_balanced_view().map_sync(errands.square, items, chunksize=999) == [item * item for item in items]
    unordered = rc.load_balanced_view().map_async(errands.square, range(100), ordered=False)
    assert collections.Counter(unordered) == collections.Counter(item * item for item in range(100))


def test_a_lazy_map_reads_its_input_as_results_are_taken(rc: Client) -> None:
    def endless() -> collections.abc.Iterator[int]:
        number = 0
        while True:
            yield number
            number += 1

    results = rc.load_balanced_view().imap(errands.square, endless())
    assert [next(results) for _ in range(500)] == [number * number for number in range(500)]
    results.cancel()  # type: ignore[attr-defined]


def test_an_item_that_fails_leaves_the_others(rc: Client) -> None:
    result = rc.load_balanced_view().map_async(errands.reciprocal, [1, 2, 0, 4], return_exceptions=True)
    one, half, error, quarter = result.get(DEADLINE_S)
    assert (one, half, quarter) == (1, 0.5, 0.25)
    assert isinstance(error, RemoteError)
    assert error.ename == "ZeroDivisionError"
    with pytest.raises(RemoteError, match="ZeroDivisionError"):
        rc.load_balanced_view().apply_sync(errands.reciprocal, 0)


def test_large_arguments_and_results_of_tasks(rc: Client) -> None:
    array = np.arange(250_000.0)
    balanced = rc.load_balanced_view()
    tasks = [balanced.apply_async(np.multiply, array, factor) for factor in range(8)]
    for factor, task in enumerate(tasks):
        np.testing.assert_array_equal(task.get(DEADLINE_S), array * factor)


def test_a_task_that_waits_can_be_cancelled(rc: Client, gate: Gate) -> None:
    balanced = rc.load_balanced_view()
    hold = in_a_notebook(  # never seen before, so taken to be long, and not sent ahead to busy engines
        "def hold(*arguments):\n    from tests.processes import errands\n    return errands.hold(*arguments)"
    )
    running = [balanced.apply_async(hold, str(gate), "ran") for _ in rc.ids]
    gate.wait_for(len(rc))
    waiting = [balanced.apply_async(hold, str(gate)) for _ in range(20)]
    assert all(task.cancel() for task in waiting)
    gate.open()
    assert [task.get(DEADLINE_S) for task in running] == ["ran"] * len(rc)
    for task in waiting:
        with pytest.raises(TaskCancelled):
            task.get(DEADLINE_S)
    assert len(gate.come()) == len(rc)


def test_a_short_task_does_not_wait_for_a_long_one(gate: Gate) -> None:
    with Cluster(1) as rc:
        balanced = rc.load_balanced_view()
        for task in [balanced.apply_async(errands.square, number) for number in range(200)]:
            task.get(DEADLINE_S)  # by now it is known to be short
        with_others = [balanced.apply_async(errands.square, number) for number in range(50)]
        balanced.apply_async(errands.hold, str(gate))
        assert [task.get(DEADLINE_S) for task in with_others] == [number * number for number in range(50)]
        assert not (gate.directory / "go").exists()
        gate.open()


def test_the_executor_brings_functions_by_value(rc: Client) -> None:
    rc[:].push({"offset": 1000}, block=True)
    add = in_a_notebook("offset = 7\ndef add(number): return number + offset")
    with rc.executor() as executor:
        futures = [executor.submit(add, number) for number in range(100)]
        assert sorted(future.result() for future in as_completed(futures, DEADLINE_S)) == list(range(7, 107))
        assert list(executor.map(add, range(100))) == list(range(7, 107))
        with pytest.raises(ZeroDivisionError):
            executor.submit(errands.reciprocal, 0).result(DEADLINE_S)


def test_a_grid_search_runs_through_joblib() -> None:
    joblib = pytest.importorskip("joblib")
    model_selection = pytest.importorskip("sklearn.model_selection")
    from sklearn.datasets import load_iris
    from sklearn.svm import SVC

    features, labels = load_iris(return_X_y=True)
    search = model_selection.GridSearchCV(SVC(), {"C": [0.1, 1, 10], "gamma": [0.01, 0.1]}, cv=3)
    with Cluster(2, preload=["sklearn.model_selection", "sklearn.svm"]) as rc:
        register_joblib(rc)
        with joblib.parallel_config(backend="hiersched"):
            search.fit(features, labels)
        assert rc.status()["levels"][0]["tasks"] > 0
    found = search.best_params_, search.best_score_
    with joblib.parallel_config(backend="sequential"):
        search.fit(features, labels)
    assert found == (search.best_params_, search.best_score_)


def test_counters_of_all_levels_are_at_hand(rc: Client) -> None:
    before = rc.status()["levels"]
    rc.load_balanced_view().map_sync(errands.square, range(1000))
    rc[:].apply_sync(time.time)
    after = rc.status()["levels"]
    assert [level["level"] for level in after] == list(range(rc.plan.depth))
    assert sum(level["schedulers"] for level in after) == rc.plan.schedulers
    assert after[-1]["engines"] == len(rc) == rc.status()["engines"]
    for level, earlier in zip(after, before, strict=True):
        assert level["messages_in"] > earlier["messages_in"]
        assert level["tasks"] > earlier["tasks"]
        assert level["requests"] > earlier["requests"]
