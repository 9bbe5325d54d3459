"""The results of a map as they come: in part, in any order, with the errors of items in their places."""

from __future__ import annotations

import concurrent.futures
import time

import pytest

from hiersched.client.results import AsyncResult
from hiersched.errors import CompositeError, QuorumNotReached, RemoteError, TaskCancelled, UserError


def fails_on_three(number: int) -> int:
    if number == 3:
        raise ValueError("three")
    return number * 10


def test_results_come_in_any_order(session, view):
    session.pick = lambda jobs: len(jobs) - 1
    result = view.map_async(abs, range(0, -8, -1))
    assert list(result.as_completed()) == [(6, 6), (7, 7), (4, 4), (5, 5), (2, 2), (3, 3), (0, 0), (1, 1)]


def test_results_of_a_balanced_map_come_in_any_order_and_errors_are_given(session, balanced):
    result = balanced.map_async(fails_on_three, range(6), chunksize=1)
    given = dict(result.as_completed(return_exceptions=True))
    assert given.pop(3).ename == "ValueError"
    assert given == {0: 0, 1: 10, 2: 20, 4: 40, 5: 50}


def test_a_map_that_is_late_says_so(session, view):
    session.hold(2)
    parts = view.map_async(abs, range(8)).as_completed(timeout=0.01)
    assert [next(parts) for _ in range(6)]
    with pytest.raises(TimeoutError, match="no answer from engines 2"):
        next(parts)


def test_what_is_back_can_be_had_while_the_rest_runs(session, view):
    session.hold(1)
    result = view.map_async(fails_on_three, range(8))
    session.run_all()
    assert result.results_so_far() == {0: 0, 1: 10, 4: 40, 5: 50, 6: 60, 7: 70}
    assert result.progress == 6


def test_most_items_are_a_quorum(session, view):
    session.hold(1)
    result = view.map_async(fails_on_three, range(8))
    quorum = result.quorum(0.75)
    assert set(quorum.results) == {0, 1, 4, 5, 6, 7}
    assert quorum.stragglers == [2, 3]
    with pytest.raises(QuorumNotReached, match="stragglers: 2-3"):
        result.quorum(1.0, timeout=0.01)
    session.release()
    assert set(result.quorum(1.0).errors) == {3}


def test_the_first_error_ends_a_wait(session, view):
    session.hold(0, 2, 3)
    result = view.map_async(fails_on_three, range(8))
    ended, others = result.wait(return_when=concurrent.futures.FIRST_EXCEPTION)
    assert (len(ended), len(others)) == (1, 3)
    with pytest.raises(CompositeError, match="failed for 1 of 8 items") as caught:
        result.get(return_when=concurrent.futures.FIRST_EXCEPTION)
    assert caught.value.results == [None, None, 20, None, None, None, None, None]
    assert str(caught.value).splitlines()[1] == "[item 3] ValueError: three"
    with pytest.raises(TimeoutError):
        result.get(0)


def test_a_map_can_be_split_into_its_chunks(session, balanced):
    result = balanced.map_async(fails_on_three, range(5), chunksize=1)
    parts = result.split()
    result.wait()
    assert {type(part) for part in parts} == {AsyncResult}
    assert [part.get() for part in (parts[0], parts[4])] == [[[0]], [[40]]]
    with pytest.raises(RemoteError, match="three"):
        parts[3].get()


def test_a_map_is_no_argument_of_a_task(balanced):
    with pytest.raises(UserError, match="is not the result of one task"):
        balanced.apply_async(abs, balanced.map_async(abs, range(3)))


def test_a_map_is_sent_when_all_items_are_on_their_way(session, balanced):
    session.hold(0, 1, 2, 3)
    result = balanced.map_async(abs, range(100), max_outstanding=4, chunksize=1)
    assert not result.sent
    with pytest.raises(TimeoutError, match=r"not all items were sent within 0\.01 s"):
        result.wait_for_send(0.01)
    session.release()
    result.wait_for_send()
    assert result.sent


def test_waiting_for_some_ends_when_the_map_does(session, balanced):
    result = balanced.map_async(abs, range(3), chunksize=1)
    assert not result._wait_until(lambda: False, None)
    assert result.done()


def test_a_deadline_holds_for_all_that_comes(session, balanced):
    session.hold(0, 1, 2, 3)
    result = balanced.map_async(abs, range(3), chunksize=1)
    begin_s = time.monotonic()
    with pytest.raises(TimeoutError):
        list(result.as_completed(timeout=0.01))
    assert time.monotonic() - begin_s < 10


def test_of_a_map_that_was_stopped_what_had_come_can_be_had(session, balanced):
    result = balanced.map_async(abs, [-1, -2, -3], chunksize=1)
    session.step()
    result.cancel()
    with pytest.raises(TaskCancelled):
        result.get()
    first, *others = result.get(return_exceptions=True)
    assert first == 1
    assert [type(error) for error in others] == [TaskCancelled] * 2
