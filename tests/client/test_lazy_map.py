"""A lazy map reads its input only as far as its results are asked for."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import count, islice

import pytest

from hiersched.errors import PackError, RemoteError
from hiersched.limits import MAP_CHUNKS_PER_ENGINE_MAX


def odd_fails(x: int) -> int:
    if x % 2:
        raise ValueError(f"{x} is odd")
    return x


class Tap:
    """Counts from zero and remembers how far."""

    def __init__(self, end: int | None = None) -> None:
        self.read = 0
        self._end = end

    def __iter__(self) -> Iterator[int]:
        while self.read != self._end:
            self.read += 1
            yield self.read - 1


def test_an_endless_input_gives_results(balanced):
    assert list(islice(balanced.imap(abs, count(-2)), 6)) == [2, 1, 0, 1, 2, 3]


def test_work_starts_before_results_are_asked_for(session, balanced):
    balanced.imap(abs, count())
    assert len(session.jobs) == 4 * MAP_CHUNKS_PER_ENGINE_MAX


def test_the_input_is_read_as_results_are_taken(session, balanced):
    session.item_s = 1.0
    tap = Tap()
    results = balanced.imap(abs, tap)
    assert tap.read == 8
    next(results)
    assert tap.read == 9


def test_long_chunks_still_bound_what_is_read(session, balanced):
    session.item_s = 1e-5
    tap = Tap()
    results = balanced.imap(abs, tap)
    list(islice(results, 5_000))
    chunk = 1_500  # of 15 ms
    assert tap.read <= 5_000 + chunk + 8 * chunk


def test_items_out_can_be_bounded(session, balanced):
    tap = Tap()
    results = balanced.imap(abs, tap, max_outstanding=3)
    assert tap.read == 3
    assert list(islice(results, 10)) == list(range(10))
    assert tap.read <= 10 + 3


def test_results_may_be_taken_as_they_come(session, balanced):
    session.hold(0, 1, 2)
    results = balanced.imap(abs, Tap(4), ordered=False, max_outstanding=4)
    assert next(results) == 2  # the only one sent to engine 3
    session.release()
    assert sorted(results) == [0, 1, 3]


def test_several_inputs_end_with_the_shortest(balanced):
    assert list(balanced.imap(pow, count(1), [2, 3])) == [1, 8]
    assert list(balanced.imap(abs, [])) == []


def test_an_error_takes_the_place_of_its_item_and_iterating_goes_on(balanced):
    results = balanced.imap(odd_fails, range(4))
    assert next(results) == 0
    with pytest.raises(RemoteError, match="1 is odd"):
        next(results)
    assert next(results) == 2


def test_errors_can_be_results(balanced):
    results = list(balanced.imap(odd_fails, range(3), return_exceptions=True))
    assert (results[0], results[1].ename, results[2]) == (0, "ValueError", 2)


def test_an_error_of_the_input_comes_behind_what_it_gave(balanced):
    def input_of_two() -> Iterator[int]:
        yield 1
        yield 2
        raise OSError("the disk is gone")

    results = balanced.imap(abs, input_of_two())
    assert [next(results), next(results)] == [1, 2]
    with pytest.raises(OSError, match="the disk is gone"):
        next(results)
    with pytest.raises(StopIteration):
        next(results)


def test_an_item_that_cannot_be_packed_comes_behind_those_before_it(balanced):
    results = balanced.imap(abs, [1, (x for x in ()), 3])
    assert next(results) == 1
    with pytest.raises(PackError):
        next(results)


def test_a_first_item_that_cannot_be_packed_is_refused_at_the_call(balanced):
    with pytest.raises(PackError):
        balanced.imap(abs, [(x for x in ())])


def test_a_cancelled_map_reads_no_more(session, balanced):
    tap = Tap()
    results = balanced.imap(abs, tap)
    next(results)
    read = tap.read
    results.cancel()
    assert session.jobs == []
    assert len(list(results)) <= read
    assert tap.read == read


def test_a_map_without_input_is_refused(balanced):
    with pytest.raises(TypeError):
        balanced.imap(abs)


@pytest.mark.parametrize("bound", [-1, "many", 2.5, None])
def test_a_bound_that_is_none_is_refused(balanced, bound):
    with pytest.raises(ValueError, match="max_outstanding is a number of items, 'auto' or 0 for no bound, not"):
        balanced.imap(abs, [-1], max_outstanding=bound)


def test_a_map_says_how_far_it_is(balanced):
    results = balanced.imap(abs, range(4))
    next(results)
    assert repr(results).startswith("<LazyMap: 1 results taken of ")
    assert list(results) == [1, 2, 3]
    assert repr(results) == "<LazyMap: 4 results taken of 4 items sent>"
