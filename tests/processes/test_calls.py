"""Calls on chosen engines, through a flat and a deep tree."""

from __future__ import annotations

import os

import numpy as np
import pytest

from hiersched.client.client import Client
from hiersched.errors import CompositeError, RemoteError
from tests.patience import DEADLINE_S
from tests.processes import errands
from tests.processes.conftest import in_a_notebook, pids_of


def test_a_call_runs_once_on_each_engine(rc: Client) -> None:
    pids = rc[:].apply_sync(os.getpid)
    assert len(set(pids)) == len(pids) == len(rc.ids)
    assert [rc[rank].apply_sync(os.getpid) for rank in rc.ids] == pids


def test_results_come_in_the_order_of_the_targets(rc: Client) -> None:
    pids = pids_of(rc)
    assert rc[::-1].apply_sync(os.getpid) == [pids[rank] for rank in sorted(pids, reverse=True)]
    assert rc[[3, 1]].apply_sync(os.getpid) == [pids[3], pids[1]]
    assert rc[1::2].apply_async(os.getpid).get_dict(DEADLINE_S) == {r: pids[r] for r in rc.ids[1::2]}


def test_arguments_and_keywords_arrive(rc: Client) -> None:
    assert rc[0].apply_sync(divmod, 17, 5) == (3, 2)
    assert rc[-1].apply_sync(sorted, [3, 1, 2], reverse=True) == [3, 2, 1]


def test_large_arrays_go_in_and_come_out(rc: Client) -> None:
    array = np.arange(250_000.0)  # 2 MB
    assert rc[:].apply_sync(errands.total, array) == [array.sum()] * len(rc)
    for back in rc[:].apply_sync(np.multiply, array, 2):
        np.testing.assert_array_equal(back, array * 2)
        back[0] = 1.0  # it is the client's own


def test_names_are_pushed_and_pulled(rc: Client) -> None:
    everywhere = rc[:]
    everywhere.push({"a": 7, "b": [1, 2]}, block=True)
    assert everywhere["a"] == [7] * len(rc)
    assert rc[2].pull(["a", "b"], block=True) == [7, [1, 2]]
    everywhere["a"] = 8
    assert rc[1]["a"] == 8
    with pytest.raises(RemoteError, match="NameError"):
        rc[0].pull("never_defined", block=True)


def test_cells_run_in_the_namespace_that_names_are_pulled_from(rc: Client) -> None:
    rc[:].execute("import os; me = os.getpid()", block=True)
    assert rc[:]["me"] == rc[:].apply_sync(os.getpid)


def test_what_is_scattered_is_gathered(rc: Client) -> None:
    items = list(range(3 * len(rc) + 1))
    rc[:].scatter("share", items, block=True)
    assert [len(share) for share in rc[:]["share"]] == [4] + [3] * (len(rc) - 1)
    assert rc[:].gather("share", block=True) == items


def test_shares_follow_the_order_of_the_targets(rc: Client) -> None:
    backwards = rc[::-1]
    backwards.scatter("share", list(rc.ids), flatten=True, block=True)
    assert rc[:]["share"] == list(reversed(rc.ids))
    assert backwards.gather("share", block=True) is not None
    array = np.arange(400_000.0)
    rc[[3, 1]].scatter("piece", array, block=True)
    np.testing.assert_array_equal(rc[3]["piece"], array[:200_000])
    np.testing.assert_array_equal(rc[[3, 1]].gather("piece", block=True), array)


def test_a_map_keeps_the_order_of_its_items(rc: Client) -> None:
    items = range(101)
    assert rc[:].map_sync(errands.square, items) == [item * item for item in items]
    assert list(rc[[2, 0]].map_async(errands.square, items)) == [item * item for item in items]


def test_an_error_on_one_engine_leaves_the_results_of_the_others(rc: Client) -> None:
    rc[:].scatter("number", list(rc.ids), flatten=True, block=True)
    result = rc[:].apply_async(in_a_notebook("def reciprocal(): return 1 / number"))
    with pytest.raises(CompositeError, match="failed on 1 of") as caught:
        result.get(DEADLINE_S)
    assert list(caught.value.errors) == [0]
    assert caught.value.errors[0].ename == "ZeroDivisionError"
    assert caught.value.results == [None, *(1 / rank for rank in rc.ids[1:])]


def test_a_result_can_be_read_piece_by_piece(rc: Client) -> None:
    result = rc[:].apply_async(os.getpid)
    assert list(result) == rc[:].apply_sync(os.getpid)
    assert result.engine_id == rc.ids
    assert all(part.started <= part.completed for part in result.metadata)


def test_calls_to_one_engine_run_in_the_order_they_were_made(rc: Client) -> None:
    one = rc[1]
    one.push({"trace": []}, block=True)
    calls = [one.execute(f"trace.append({number})") for number in range(50)]
    assert one["trace"] == list(range(50))
    assert all(call.ready() for call in calls)
