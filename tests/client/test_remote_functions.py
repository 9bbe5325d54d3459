"""Decorated functions run on the engines of their view."""

from __future__ import annotations

from functools import partial
from operator import itemgetter

import numpy as np
import pytest

from hiersched.client.direct_view import DirectView
from hiersched.client.views import name_of, parallel, remote
from hiersched.errors import RemoteError


def test_a_remote_function_runs_on_every_engine(view):
    @view.remote(block=True)
    def double(x: int) -> int:
        """Twice."""
        return 2 * x

    assert double(3) == [6] * 4
    assert (double.__name__, double.__doc__) == ("double", "RemoteFunction wrapping:\nTwice.")
    assert "double" in repr(double)


def test_a_remote_function_blocks_as_its_view_does(client):
    view = DirectView(client, 0)
    double = remote(view)(lambda x: 2 * x)
    assert double(3).get() == 6
    view.block = True
    assert double(3) == 6


@pytest.mark.parametrize("dist", ["b", "r"])
def test_a_parallel_function_gets_shares_of_arrays(session, view, dist):
    @view.parallel(dist=dist, block=True)
    def product(a: np.ndarray, b: np.ndarray) -> np.ndarray:
        return a * b

    a, b = np.arange(10.0), np.arange(10.0, 20.0)
    np.testing.assert_array_equal(product(a, b), a * b)
    assert len(session.sent) == 4


def test_a_parallel_function_maps_items(balanced):
    square = parallel(balanced, block=True)(lambda x: x * x)
    assert square.map(range(5)) == [0, 1, 4, 9, 16]


def test_a_parallel_function_on_a_balanced_view_cuts_by_chunksize(session, balanced):
    total = balanced.parallel(block=False, chunksize=4)(lambda share: [sum(share)])
    assert total(range(10)).get() == [6, 15, 24]


def test_the_result_of_a_parallel_function_gives_items(view):
    doubled = view.parallel()(lambda share: [2 * x for x in share])([1, 2, 3, 4, 5])
    assert list(doubled) == [2, 4, 6, 8, 10]
    assert len(doubled) == 4
    total = view.parallel()(sum)([1, 2, 3, 4, 5])
    assert list(total) == total.get() == [3, 3, 4, 5]


def test_flags_of_a_function_hold_for_its_calls_alone(session, client, balanced):
    double = remote(balanced, block=True, priority=3, label="twice")(lambda x: 2 * x)
    assert double(3) == 6
    assert (session.terms[-1].priority, balanced.priority) == (3, 0)
    squares = parallel(balanced, block=True, retries=2)(lambda xs: [x * x for x in xs])
    assert squares([1, 2]) == [1, 4]
    assert session.terms[-1].retries == 2
    with pytest.raises(KeyError, match="'colour' is no flag"):
        remote(balanced, colour="red")(abs)(3)


def test_a_parallel_function_may_give_errors_in_the_places_of_results(balanced):
    results = parallel(balanced, block=True, return_exceptions=True)(lambda x: 1 / x).map([1, 0, 2])
    assert (results[0], type(results[1]), results[2]) == (1, RemoteError, 0.5)


def test_a_chunksize_is_of_no_use_on_a_direct_view(view):
    with pytest.warns(UserWarning, match="no use"):
        assert view.parallel(block=True, chunksize=2)(list)([1, 2, 3]) == [1, 2, 3]


def test_a_parallel_function_over_nothing_gives_nothing(view, balanced):
    for some in (view, balanced):
        assert some.parallel(block=True)(list)([]) == []


def test_a_parallel_function_wants_equal_lengths(view):
    with pytest.raises(ValueError, match="same length"):
        view.parallel()(pow)([1, 2], [1])


def test_functions_are_named_in_messages():
    assert name_of(partial(divmod, 3)) == "divmod"
    assert name_of(abs) == "abs"
    assert name_of(itemgetter(1)) == "itemgetter"
