"""Many calls, many threads, many clients at once."""

from __future__ import annotations

import asyncio
import os
import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor

import pytest

from hiersched.client.client import Client
from hiersched.errors import ClusterLost
from tests.patience import DEADLINE_S, until
from tests.processes import errands
from tests.processes.conftest import Gate


def in_threads(count: int, story: Callable[[int], object]) -> list[object]:
    """What `story` gave in each of so many threads at once."""
    with ThreadPoolExecutor(count) as threads:
        return list(threads.map(story, range(count), timeout=DEADLINE_S))


def test_a_hundred_calls_are_outstanding(rc: Client) -> None:
    calls = [rc[:].apply_async(divmod, number, 7) for number in range(100)]
    rc.wait(calls, DEADLINE_S)
    assert [call.get() for call in calls] == [[divmod(number, 7)] * len(rc) for number in range(100)]


def test_the_last_result_can_be_asked_for_first(rc: Client) -> None:
    calls = [rc[number % len(rc)].apply_async(abs, -number) for number in range(100)]
    assert [call.get(DEADLINE_S) for call in reversed(calls)] == list(reversed(range(100)))


def test_threads_share_a_client(rc: Client) -> None:
    everywhere, balanced = rc[:], rc.load_balanced_view()

    def story(thread: int) -> None:
        for number in range(60):
            assert rc[(thread + number) % len(rc)].apply_sync(divmod, number, 7) == divmod(number, 7)
            assert balanced.apply_sync(errands.square, number) == number * number
            if number % 10 == 0:
                assert everywhere.apply_sync(abs, -thread) == [thread] * len(rc)
                assert len(rc.ids) == len(rc)

    in_threads(6, story)


def test_one_thread_waits_for_what_another_submitted(rc: Client, gate: Gate) -> None:
    call = rc[:].apply_async(errands.hold, str(gate), "value")
    waiting = threading.Barrier(4)

    def story(thread: int) -> object:
        waiting.wait(DEADLINE_S)
        if thread == 0:
            gate.open()
        return call.get(DEADLINE_S)

    assert in_threads(4, story) == [["value"] * len(rc)] * 4


def test_results_arrive_while_nobody_waits(rc: Client) -> None:
    arrived = threading.Event()
    rc[0].apply_async(abs, -3).add_done_callback(lambda _: arrived.set())
    assert arrived.wait(DEADLINE_S)


def test_a_callback_may_call(rc: Client) -> None:
    second: list[object] = []
    done = threading.Event()

    def again(first: object) -> None:
        second.append(rc[0].apply_sync(abs, -5))
        done.set()

    rc[0].apply_async(abs, -3).add_done_callback(again)
    assert done.wait(DEADLINE_S)
    assert second == [5]


def test_a_callback_may_wait_for_a_result_that_came_with_its_own(rc: Client, gate: Gate) -> None:
    balanced = rc.load_balanced_view()
    rc[:].apply_async(errands.hold, str(gate))
    gate.wait_for(len(rc))
    calls = [balanced.apply_async(errands.square, number) for number in range(20)]
    seen = []
    for number, call in enumerate(calls):
        other = calls[-1 - number]
        call.add_done_callback(lambda _, other=other: seen.append(other.get(DEADLINE_S)))
    gate.open()
    rc.wait(calls, DEADLINE_S)
    until(lambda: len(seen) == 20, "every callback has ended")
    assert sorted(seen) == [number * number for number in range(20)]


def test_a_callback_may_close_the_client(rc: Client) -> None:
    closed = threading.Event()
    other = Client(cluster_id=rc.cluster_id)

    def close(_: object) -> None:
        other.close()
        closed.set()

    other[0].apply_async(abs, -3).add_done_callback(close)
    assert closed.wait(DEADLINE_S)
    with pytest.raises(ClusterLost):
        other[0].apply_sync(abs, -3)


def test_a_client_may_be_closed_while_threads_wait(rc: Client, gate: Gate) -> None:
    with Client(cluster_id=rc.cluster_id) as other:
        call = other[0].apply_async(errands.hold, str(gate))
        gate.wait_for(1)
        started = threading.Barrier(4)

        def story(thread: int) -> object:
            started.wait(DEADLINE_S)
            if thread == 0:
                other.close()
            return call.exception(DEADLINE_S)

        assert {type(error) for error in in_threads(4, story)} == {ClusterLost}
    gate.open()


def test_clients_work_side_by_side(rc: Client) -> None:
    def story(number: int) -> list[int]:
        with Client(cluster_id=rc.cluster_id) as client:
            assert client.load_balanced_view().map_sync(errands.square, range(50)) == [n * n for n in range(50)]
            pids: list[int] = client[:].apply_sync(os.getpid)
            return pids

    first, second, third = in_threads(3, story)
    assert first == second == third == rc[:].apply_sync(os.getpid)


def test_a_namespace_is_shared_by_all_clients(rc: Client) -> None:
    with Client(cluster_id=rc.cluster_id) as other:
        rc[:].push({"shared": 17}, block=True)
        assert other[:]["shared"] == [17] * len(rc)


def test_results_are_awaited(rc: Client) -> None:
    async def story() -> tuple[object, list[object]]:
        one = await rc[0].apply_async(abs, -3)
        many = await asyncio.gather(*(rc[:].apply_async(abs, -number) for number in range(20)))
        return one, many

    assert asyncio.run(story()) == (3, [[number] * len(rc) for number in range(20)])


def test_a_loop_goes_on_while_a_result_is_awaited(rc: Client, gate: Gate) -> None:
    async def story() -> object:
        call = rc[:].apply_async(errands.hold, str(gate), "value")
        while not gate.come():
            await asyncio.sleep(0)  # others run
        gate.open()
        return await call

    assert asyncio.run(asyncio.wait_for(story(), DEADLINE_S)) == ["value"] * len(rc)


def test_a_wait_that_ends_early_loses_nothing(rc: Client, gate: Gate) -> None:
    call = rc[:].apply_async(errands.hold, str(gate), "value")
    assert not call.wait(0.01)
    with pytest.raises(TimeoutError, match="no answer from engines"):
        call.get(0.01)
    assert not call.ready()
    gate.open()
    assert call.get(DEADLINE_S) == ["value"] * len(rc)
