"""Names are set and read in the engine's namespace; a chunk of a map keeps its good results beside its failures."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest

from hiersched.data import namespace
from hiersched.data.namespace import bind, map_chunk, mapper, pull, push
from hiersched.data.outcomes import unpack_outcome


@pytest.fixture
def names() -> Iterator[dict[str, Any]]:
    before = namespace.user_namespace
    bound: dict[str, Any] = {}
    bind(bound)
    yield bound
    bind(before)


def test_push_sets_names_in_the_bound_namespace(names):
    push(a=1, function=2, names=3)
    assert (names["a"], names["function"], names["names"]) == (1, 2, 3)


def test_push_of_a_dotted_or_subscripted_name_changes_what_is_there(names):
    class Box:
        pass

    names["box"], names["items"] = Box(), [0, 0]
    push(**{"box.width": 4, "items[1]": 5})
    assert names["box"].width == 4
    assert names["items"] == [0, 5]


def test_pull_gives_a_name_an_expression_or_several(names):
    names["a"] = 5
    assert pull("a") == 5
    assert pull("a + 1") == 6
    assert pull(["a", "a * 2"]) == [5, 10]


def test_pull_of_an_undefined_name_says_which(names):
    with pytest.raises(NameError, match="'nowhere' is not defined"):
        pull("nowhere")


def test_a_chunk_maps_one_column():
    assert map_chunk(abs, [-1, 2, -3]) == ([1, 2, 3], [])


def test_a_chunk_maps_columns_side_by_side():
    assert mapper(pow)((2, 3), (5, 2)) == ([32, 9], [])


def test_an_item_that_raises_costs_no_other():
    def halves(x: int) -> int:
        if x % 2:
            raise ValueError(f"{x} is odd")
        return x // 2

    results, failures = map_chunk(halves, range(5))
    assert results == [0, None, 1, None, 2]
    assert [position for position, _ in failures] == [1, 3]
    error = unpack_outcome(failures[1][1]).error
    assert (error.ename, error.evalue) == ("ValueError", "3 is odd")
    assert "halves" in "".join(error.traceback)
    assert "map_chunk" not in "".join(error.traceback)


def test_a_function_that_raises_stop_iteration_does_not_end_the_chunk():
    """As `list(map(f, items))` would, silently."""

    def stops(x: int) -> int:
        if x == 1:
            raise StopIteration
        return x

    results, failures = map_chunk(stops, range(3))
    assert results == [0, None, 2]
    assert unpack_outcome(failures[0][1]).error.ename == "StopIteration"


def test_an_interrupt_ends_the_chunk():
    def interrupted(x: int) -> None:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        map_chunk(interrupted, range(3))
