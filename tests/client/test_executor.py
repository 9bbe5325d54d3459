"""The executor behaves as those of the standard library do."""

from __future__ import annotations

import concurrent.futures
from concurrent.futures import CancelledError

import pytest

from hiersched.client.balanced_view import LoadBalancedView
from hiersched.client.direct_view import DirectView
from hiersched.client.executor import ViewExecutor
from hiersched.client.lazy_map import MapIterator
from hiersched.errors import PackError, RemoteError, TaskCancelled
from tests.client.fake_session import FakeClient, ThreadedSession
from tests.client.test_balanced_view import once
from tests.client.test_direct_view import notebook_function


@pytest.fixture
def executor(balanced):
    return ViewExecutor(balanced)


def test_a_future_gives_the_result(executor):
    future = executor.submit(pow, 2, exp=5)
    assert not future.done()
    assert future.result() == 32
    assert future.done()
    assert future.exception() is None
    assert repr(future) == "<CallFuture: finished>"


class Unrepeatable(Exception):
    """An exception that its own arguments cannot make again."""

    def __init__(self, first: int, second: int) -> None:
        super().__init__(f"{first} and {second}")


def fail_unrepeatably() -> None:
    raise Unrepeatable(1, 2)


def test_a_future_gives_the_error_with_the_remote_traceback_as_its_cause(executor):
    future = executor.submit(divmod, 1, 0)
    with pytest.raises(ZeroDivisionError) as caught:
        future.result()
    assert isinstance(caught.value.__cause__, RemoteError)
    assert caught.value.__cause__.ename == "ZeroDivisionError"
    assert future.exception() is caught.value


def test_an_error_that_cannot_be_rebuilt_is_told_as_a_remote_one(executor):
    with pytest.raises(RemoteError, match="Unrepeatable: 1 and 2"):
        executor.submit(fail_unrepeatably).result()


def test_functions_bring_their_globals(executor):
    add = notebook_function("offset = 7\ndef add(x): return x + offset", "add")
    assert executor.submit(add, 1).result() == 8
    assert list(executor.map(add, range(3))) == [7, 8, 9]


def test_what_cannot_be_pickled_is_refused_at_the_call(executor):
    with pytest.raises(PackError):
        executor.submit(abs, (x for x in ()))


def test_a_late_result_raises_timeout_error(session, executor):
    session.hold(0, 1, 2, 3)
    future = executor.submit(abs, -3)
    with pytest.raises(concurrent.futures.TimeoutError):
        future.result(timeout=0.1)
    with pytest.raises(TimeoutError):
        future.exception(timeout=0.1)
    session.release()
    assert future.result(timeout=0.1) == 3


def test_a_waiting_call_can_be_cancelled_and_a_running_one_cannot(session, executor):
    running, waiting = executor.submit(abs, -1), executor.submit(abs, -2)
    session.start()
    session.hold(0, 1, 2, 3)
    assert waiting.cancel() is True
    assert running.cancel() is False
    assert running.running()
    assert repr(running) == "<CallFuture: running>"
    with pytest.raises(CancelledError):
        waiting.result()
    with pytest.raises(CancelledError):
        waiting.exception()
    session.release()
    assert running.result() == 1
    assert running.cancel() is False
    assert repr(waiting) == "<CallFuture: cancelled>"


def test_cancelled_futures_count_as_done_for_those_who_wait(session, executor):
    session.hold(0, 1, 2, 3)
    futures = [executor.submit(abs, -1), executor.submit(abs, -2)]
    futures[0].cancel()
    done, waiting = concurrent.futures.wait(futures, timeout=0)
    assert (done, waiting) == ({futures[0]}, {futures[1]})


def test_waiting_for_the_first_error_ends_with_it():
    with ThreadedSession(engines=2) as session:
        executor = ViewExecutor(LoadBalancedView(FakeClient(session)))
        session.hold(1)  # where the first goes
        futures = [executor.submit(abs, -1), executor.submit(divmod, 1, 0)]
        done, _ = concurrent.futures.wait(futures, timeout=30, return_when=concurrent.futures.FIRST_EXCEPTION)
        failed = [future for future in done if future.exception() is not None]
        with session._changed:
            session.release()
            session._changed.notify_all()
        executor.shutdown()
    assert [type(future.exception()) for future in failed] == [ZeroDivisionError]


def test_callbacks_get_the_future(session, executor):
    told: list[object] = []
    future = executor.submit(abs, -3)
    future.add_done_callback(told.append)
    session.run_all()
    assert told == [future]


def test_map_gives_results_in_order(session, executor):
    session.pick = lambda jobs: len(jobs) - 1
    assert list(executor.map(pow, range(10), [2] * 10)) == [x * x for x in range(10)]
    assert list(executor.map(abs, range(10), chunksize=3)) == list(range(10))


def test_map_starts_before_results_are_asked_for(session, executor):
    executor.map(abs, range(3))
    assert len(session.jobs) == 3


def test_map_raises_the_error_of_an_item(executor):
    results = executor.map(divmod, [4, 4], [2, 0])
    assert next(results) == (2, 0)
    with pytest.raises(ZeroDivisionError):
        next(results)


def test_map_raises_timeout_error(session, executor):
    session.hold(0, 1, 2, 3)
    results = executor.map(abs, range(3), timeout=0)
    with pytest.raises(TimeoutError, match="0 of 3 items done"):
        next(results)


def test_a_closed_map_withdraws_what_has_not_started(session, executor):
    session.item_s = 1.0
    results = executor.map(abs, range(100))
    next(results)
    results.close()
    assert session.jobs == []


def test_after_shutdown_nothing_is_taken(session, executor):
    future = executor.submit(abs, -3)
    executor.shutdown()
    assert future.done()
    with pytest.raises(RuntimeError, match="after shutdown"):
        executor.submit(abs, -3)
    with pytest.raises(RuntimeError, match="after shutdown"):
        executor.map(abs, [1])


def test_shutdown_waits_for_maps(session, executor):
    results = executor.map(abs, range(100))
    executor.shutdown()
    assert session.jobs == []
    assert list(results) == list(range(100))


def test_shutdown_need_not_wait(session, executor):
    future = executor.submit(abs, -3)
    executor.shutdown(wait=False)
    assert not future.done()
    assert future.result() == 3


def test_shutdown_may_cancel(session, executor):
    future = executor.submit(abs, -3)
    executor.map(abs, range(100))
    executor.shutdown(cancel_futures=True)
    assert future.cancelled()
    assert session.jobs == []


def test_leaving_the_executor_waits(balanced):
    with ViewExecutor(balanced) as executor:
        future = executor.submit(abs, -3)
    assert future.done()


def test_ended_calls_are_forgotten(session, executor):
    futures = [executor.submit(abs, -3) for _ in range(5)]
    session.run_all()
    assert all(future.done() for future in futures)
    assert not executor._open


def test_calls_go_out_on_the_terms_of_the_view(session, balanced):
    balanced.set_flags(targets=[1, 2], priority=5)
    executor = balanced.executor
    executor.submit(abs, -3)
    list(executor.map(abs, range(3)))
    assert {terms.priority for terms in session.terms} == {5}
    assert executor.view is balanced
    assert executor._max_workers == 2


def test_a_map_with_retries_tries_its_items_again(tmp_path, balanced):
    balanced.retries = 1
    marks = [str(tmp_path / name) for name in "abc"]
    assert list(balanced.executor.map(once, marks)) == marks


def test_a_view_keeps_its_executor_until_it_is_shut_down(balanced, view):
    for some in (balanced, view):
        executor = some.executor
        assert some.executor is executor
        with some.temp_flags(block=True):
            assert some.executor is executor
        executor.shutdown()
        assert some.executor is not executor


def test_the_executor_of_a_direct_view_runs_each_call_on_one_of_its_engines(session, client):
    view = DirectView(client, [1, 3])
    futures = [view.executor.submit(abs, -number) for number in range(6)]
    assert [future.result() for future in futures] == list(range(6))
    assert {future._pending.targets[0] for future in futures} == {1, 3}
    view.targets = 2
    assert view.executor.view.targets == [2]


def test_it_says_whose_engines_it_uses(executor):
    assert repr(executor) == "<ViewExecutor on <LoadBalancedView of 4 engines>>"
    executor.shutdown()
    assert repr(executor).endswith(">: closed>")


def test_a_map_can_be_cancelled_as_ipyparallels_can(session, executor):
    results = executor.map(abs, range(100), chunksize=1)
    assert isinstance(results, MapIterator)
    results.cancel()
    with pytest.raises(TaskCancelled):
        list(results)
