"""A load-balanced map feeds itself, keeps few chunks out, and loses nothing whatever fails."""

from __future__ import annotations

import random
import threading
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from hiersched.client.balanced_view import LoadBalancedView
from hiersched.errors import CompositeError, EngineLost, PackError, RemoteError, TaskCancelled
from hiersched.limits import MAP_CHUNKS_OUTSTANDING_MAX, MAP_CHUNKS_PER_ENGINE_MAX
from tests.client.fake_session import FakeClient, FakeSession, ThreadedSession


def odd_fails(x: int) -> int:
    if x % 2:
        raise ValueError(f"{x} is odd")
    return x


def test_results_come_in_the_order_of_the_items(balanced):
    assert balanced.map_sync(abs, range(-20, 20)) == [abs(x) for x in range(-20, 20)]


@settings(max_examples=30, deadline=None)
@given(
    items=st.integers(0, 300),
    engines=st.integers(1, 5),
    seed=st.integers(0, 99),
    chunksize=st.none() | st.integers(1, 50),
)
def test_no_order_of_completion_changes_the_result(items, engines, seed, chunksize):
    session = FakeSession(engines, item_s=1e-4)
    rng = random.Random(seed)
    session.pick = lambda jobs: rng.randrange(len(jobs))
    view = LoadBalancedView(FakeClient(session))
    assert view.map_sync(abs, range(-items, 0), chunksize=chunksize) == list(range(items, 0, -1))
    assert sorted(view.map_async(abs, range(items), ordered=False)) == list(range(items))


def test_a_map_over_several_sequences_ends_with_the_shortest(balanced):
    assert balanced.map_sync(pow, [2, 3, 4], (n for n in (1, 2))) == [2, 9]
    assert balanced.map_sync(abs, []) == []


def test_rows_of_an_array_are_its_items(balanced):
    assert balanced.map_sync(np.sum, np.ones((5, 3))) == [3.0] * 5


def test_few_chunks_are_out_at_a_time(session, balanced):
    result = balanced.map_async(abs, range(1_000))
    out_max = 0
    while session.jobs:
        out_max = max(out_max, len(session.jobs))
        session.step()
    assert out_max == 4 * MAP_CHUNKS_PER_ENGINE_MAX
    assert result.ready()


def test_a_hundred_thousand_no_ops_travel_in_a_few_dozen_chunks(session, balanced):
    session.item_s = 1e-7
    assert balanced.map_sync(abs, range(100_000)) == list(range(100_000))
    assert len(session.sent) < 48
    assert len({call.function for call in session.sent}) == 1


def test_long_items_travel_alone(session, balanced):
    session.item_s = 1.0
    assert len(balanced.map_sync(abs, range(30))) == 30
    assert len(session.sent) == 30


def test_a_chunk_size_of_ones_own_is_kept_and_bounded(session, balanced):
    result = balanced.map_async(abs, range(10), chunksize=4)
    assert len(session.jobs) == 3
    assert result.get() == list(range(10))
    balanced.map_async(abs, range(3 * MAP_CHUNKS_OUTSTANDING_MAX), chunksize=1)
    assert len(session.jobs) == MAP_CHUNKS_OUTSTANDING_MAX


def test_a_large_closure_is_packed_once(session, balanced, monkeypatch):
    table = np.arange(100_000)
    packed: list[Any] = []
    pack = session.packer.pack_function
    monkeypatch.setattr(session.packer, "pack_function", lambda f, **kw: packed.append(f) or pack(f, **kw))
    assert balanced.map_sync(lambda x: int(table[x]), range(50)) == list(range(50))
    assert sum(getattr(function, "__name__", "") == "run_chunk" for function in packed) == 1


def test_the_map_goes_on_when_nobody_waits(session, balanced):
    result = balanced.map_async(abs, range(100))
    session.run_all()
    assert result.ready()
    assert session.waits == 0
    assert result.get() == list(range(100))


# --- errors -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("chunksize", [None, 3])
def test_failed_items_are_told_apart_from_good_ones(balanced, chunksize):
    result = balanced.map_async(odd_fails, range(7), chunksize=chunksize)
    with pytest.raises(CompositeError, match="odd_fails failed for 3 of 7 items") as caught:
        result.get()
    assert caught.value.results == [0, None, 2, None, 4, None, 6]
    assert {position: error.evalue for position, error in caught.value.errors.items()} == {
        1: "1 is odd",
        3: "3 is odd",
        5: "5 is odd",
    }
    assert not result.successful()
    assert isinstance(result.exception(), CompositeError)
    assert [getattr(item, "ename", item) for item in result.get(return_exceptions=True)] == [
        *(0, "ValueError", 2, "ValueError", 4, "ValueError", 6)
    ]


def test_errors_of_items_can_be_results(balanced):
    results = balanced.map_sync(odd_fails, range(3), return_exceptions=True)
    assert (results[0], results[1].ename, results[2]) == (0, "ValueError", 2)
    listed = list(balanced.map_async(odd_fails, range(3), return_exceptions=True))
    assert listed[1].engine_id in range(4)


def test_iterating_raises_the_error_of_an_item_in_its_turn(balanced):
    results = iter(balanced.map_async(odd_fails, range(4)))
    assert next(results) == 0
    with pytest.raises(RemoteError, match="1 is odd"):
        next(results)


def test_an_engine_that_dies_fails_the_items_it_held(session, balanced):
    session.hold(2)
    result = balanced.map_async(abs, range(-12, 0), chunksize=3)
    session.run_all()
    assert result.progress == 9
    session.lose(2)
    with pytest.raises(CompositeError, match="failed for 3 of 12 items") as caught:
        result.get()
    assert {type(error) for error in caught.value.errors.values()} == {EngineLost}
    assert sum(value is None for value in caught.value.results) == 3


def test_a_first_chunk_that_cannot_be_packed_is_refused_at_the_call(session, balanced):
    with pytest.raises(PackError, match="generator"):
        balanced.map_async(abs, [(x for x in ())])
    with pytest.raises(PackError, match="not callable"):
        balanced.map_async(3, [1])
    with pytest.raises(PackError, match="generator"):
        balanced.map_async(abs, [1, 2, (x for x in ())])
    assert session.jobs == []


def test_a_later_chunk_that_cannot_be_packed_ends_the_map_for_who_reads_it(session, balanced):
    session.item_s = 1.0
    result = balanced.map_async(abs, [*range(20), (x for x in ())])
    session.run_all()
    assert result.ready()
    with pytest.raises(PackError, match="generator"):
        result.get()
    assert not result.successful()
    taken = []
    with pytest.raises(PackError):
        for value in result:
            taken.append(value)
    assert taken == list(range(20))


def test_a_timeout_says_how_far_the_map_is(session, balanced):
    session.hold(0)
    result = balanced.map_async(abs, range(8), chunksize=1)
    with pytest.raises(TimeoutError, match=r"map of abs: 6 of 8 items done, 2 chunks out within 0.5 s"):
        result.get(timeout=0.5)
    assert result.progress == 6
    assert repr(result) == "<AsyncMapResult abs: pending, 6 of 8 items done, 2 chunks out>"
    session.release()
    assert result.get() == list(range(8))
    assert repr(result) == "<AsyncMapResult abs: 8 items finished>"


# --- cancelling, iterating, facts -------------------------------------------------------------------------------------


def test_a_cancelled_map_sends_no_more(session, balanced):
    told: list[object] = []
    result = balanced.map_async(abs, range(100))
    result.add_done_callback(told.append)
    session.step()
    assert result.cancel() is True
    assert session.jobs == []
    assert result.cancelled()
    assert told == [result]
    with pytest.raises(TaskCancelled, match="map of abs was cancelled with 1 of 100 items done"):
        result.get()
    assert repr(result).startswith("<AsyncMapResult abs: ended early")


def test_a_finished_map_is_not_cancelled(session, balanced):
    result = balanced.map_async(abs, range(10))
    session.run_all()
    assert result.cancel() is False
    assert result.get() == list(range(10))


def test_unordered_results_come_as_they_are_back(session, balanced):
    session.hold(0, 1, 2)
    results = iter(balanced.map_async(abs, range(4), chunksize=1, ordered=False))
    first = next(results)
    session.release()
    rest = list(results)
    assert sorted([first, *rest]) == [0, 1, 2, 3]
    assert first == 2  # the only one sent to engine 3


def test_ordered_results_are_given_before_the_map_has_ended(session, balanced):
    session.item_s = 1.0
    results = iter(balanced.map_async(abs, range(100)))
    assert [next(results) for _ in range(3)] == [0, 1, 2]
    assert len(session.sent) < 20
    assert list(results) == list(range(3, 100))


def test_metadata_has_an_entry_for_each_chunk(session, balanced):
    result = balanced.map_async(abs, range(10), chunksize=5)
    result.wait()
    assert len(result.metadata) == 2
    assert set(result.status) == {"ok"}
    assert len(result.engine_id) == 2
    assert result.serial_time == 0.0
    with pytest.raises(ValueError, match="several results"):
        result.get_dict()


def test_a_map_is_a_future(session, balanced):
    told: list[object] = []
    result = balanced.map_async(abs, range(30))
    result.add_done_callback(told.append)
    session.run_all()
    assert told == [result]
    assert result.result() == list(range(30))
    assert result[3:5] == [3, 4]


# --- threads ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("seed", range(3))
def test_chunks_are_fed_by_whichever_thread_learns_of_an_end(seed):
    """Several maps on one session whose own thread completes chunks while the users' threads wait and feed."""
    rng = random.Random(seed)
    results: dict[int, list[int]] = {}
    with ThreadedSession(engines=3) as session:
        session.pick = lambda jobs: rng.randrange(len(jobs))
        view = LoadBalancedView(FakeClient(session))

        def consume(worker: int) -> None:
            mapped = view.map_async(abs, range(300), chunksize=worker + 1, ordered=bool(worker % 2))
            results[worker] = sorted(mapped) if worker < 2 else mapped.get()

        threads = [threading.Thread(target=consume, args=(worker,)) for worker in range(4)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join(timeout=60)
    assert results == {worker: list(range(300)) for worker in range(4)}
