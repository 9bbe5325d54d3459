"""What is split comes back as it was, whatever it is and however it was dealt."""

from __future__ import annotations

from itertools import count, repeat

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from hiersched.client.partition import Blocks, RoundRobin, columns, distribution


@given(items=st.lists(st.integers()), parts=st.integers(1, 9), key=st.sampled_from("br"))
def test_joining_undoes_splitting(items, parts, key):
    way = distribution(key)
    shares = way.split(items, parts)
    assert len(shares) == parts
    assert max(map(len, shares)) - min(map(len, shares)) <= 1
    assert way.join(shares) == items


@given(rows=st.integers(0, 12), parts=st.integers(1, 5), key=st.sampled_from("br"))
def test_arrays_come_back_as_arrays_of_the_same_type(rows, parts, key):
    array = np.arange(rows * 3, dtype=np.int16).reshape(rows, 3)
    way = distribution(key)
    joined = way.join(way.split(array, parts))
    assert joined.dtype == np.int16
    np.testing.assert_array_equal(joined, array)


def test_blocks_are_contiguous_and_the_first_are_longer():
    assert Blocks().split(range(7), 3) == [range(3), range(3, 5), range(5, 7)]


def test_round_robin_deals_items_out():
    assert RoundRobin().split("abcde", 2) == ["ace", "bd"]


def test_what_cannot_be_sliced_is_split_as_a_list():
    assert Blocks().split({"a": 1, "b": 2, "c": 3}, 2) == [["a", "b"], ["c"]]
    assert Blocks().split(iter("abc"), 2) == [["a", "b"], ["c"]]


def test_shares_that_are_single_items_are_joined_as_items():
    assert Blocks().join([[1, 2], 3, 4]) == [1, 2, 3, 4]
    assert Blocks().join(["ab", "cd"]) == ["ab", "cd"]


def test_an_unknown_way_is_refused_by_name():
    with pytest.raises(ValueError, match="'b', 'r', not 'x'"):
        distribution("x")


def test_columns_end_with_the_shortest_sequence():
    assert columns(([1, 2, 3], "ab")) == ([[1, 2], "ab"], 2)


def test_an_endless_iterator_may_stand_beside_a_sized_sequence():
    assert columns((range(3), repeat(7), count(1))) == ([range(3), [7, 7, 7], [1, 2, 3]], 3)


def test_an_iterator_may_be_shorter_than_the_sized_sequence_beside_it():
    assert columns((range(5), iter("ab"))) == ([range(2), ["a", "b"]], 2)


def test_iterators_alone_are_read_to_the_end_of_the_shortest():
    assert columns((iter("abc"), count())) == ([["a", "b", "c"], [0, 1, 2]], 3)


def test_nothing_to_map_gives_empty_columns():
    assert columns((iter(()), [])) == ([[], []], 0)
    assert columns((iter(()),)) == ([[]], 0)


def test_a_map_without_sequences_is_refused():
    with pytest.raises(TypeError, match="at least one sequence"):
        columns(())
