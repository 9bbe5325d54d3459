"""Rank sets behave as Python's sets do."""

from __future__ import annotations

import itertools

import pytest
from hypothesis import given
from hypothesis import strategies as st

from hiersched.kernels import bitset

anywhere = st.integers(0, 4096)
rank_sets = st.sets(anywhere, max_size=40)
rank_ranges = st.tuples(anywhere, st.integers(0, 600)).map(lambda range_: set(range(range_[0], sum(range_))))
all_sets = rank_sets | rank_ranges | st.builds(set.union, rank_sets, rank_ranges)


@given(all_sets)
def test_a_set_gives_back_its_ranks_in_ascending_order(ranks):
    bits = bitset.of_ranks(ranks)
    assert bitset.ranks_of(bits) == sorted(ranks)
    assert bits.bit_count() == len(ranks)


@given(st.lists(anywhere, max_size=60), st.randoms(use_true_random=False))
def test_order_and_repetition_of_ranks_mean_nothing(ranks, random):
    repeated = ranks * 2
    random.shuffle(repeated)
    assert bitset.of_ranks(iter(repeated)) == bitset.of_ranks(ranks)


@given(all_sets, all_sets)
def test_union_intersection_and_difference_are_those_of_sets(a, b):
    a_bits, b_bits = bitset.of_ranks(a), bitset.of_ranks(b)
    assert bitset.ranks_of(a_bits | b_bits) == sorted(a | b)
    assert bitset.ranks_of(a_bits & b_bits) == sorted(a & b)
    assert bitset.ranks_of(a_bits & ~b_bits) == sorted(a - b)
    assert bitset.ranks_of(a_bits ^ b_bits) == sorted(a ^ b)


@given(anywhere, anywhere)
def test_a_range_holds_its_first_rank_and_not_its_last(first, last):
    assert bitset.ranks_of(bitset.of_range(first, last)) == list(range(first, last))


@given(all_sets)
def test_the_first_rank_is_the_lowest(ranks):
    assert bitset.first_of(bitset.of_ranks(ranks)) == min(ranks, default=-1)


@given(all_sets)
def test_a_set_survives_the_wire_in_as_few_bytes_as_its_span_needs(ranks):
    bits = bitset.of_ranks(ranks)
    offset, body = bitset.to_wire(bits)
    assert bitset.from_wire((offset, body)) == bits
    assert len(body) == (max(ranks) // 8 - min(ranks) // 8 + 1 if ranks else 0)


@given(all_sets, st.integers(0, 4096))
def test_knowing_a_rank_that_none_is_below_changes_nothing_on_the_wire(ranks, least):
    bits = bitset.of_ranks(rank for rank in ranks if rank >= least)
    assert bitset.to_wire(bits, least) == bitset.to_wire(bits)


@given(st.integers(0, 500), st.binary(max_size=64))
def test_whatever_the_wire_brings_is_a_set_with_one_shortest_form(offset, body):
    bits = bitset.from_wire((offset, body))
    shortest = bitset.to_wire(bits)
    assert bitset.from_wire(shortest) == bits
    assert len(shortest[1]) <= len(body)


def test_one_rank_costs_one_byte_wherever_it_is():
    assert bitset.to_wire(1 << 999_999) == (124_999, b"\x80")


@given(all_sets)
def test_runs_are_ascending_and_never_touch(ranks):
    runs = bitset.runs_of(bitset.of_ranks(ranks))
    assert [rank for first, last in runs for rank in range(first, last)] == sorted(ranks)
    assert all(last < first for (_, last), (first, _) in itertools.pairwise(runs))


@pytest.mark.parametrize(
    ("ranks", "text"),
    [(set(), ""), ({7}, "7"), ({7, 8}, "7-8"), ({*range(63), 64}, "0-62,64"), ({1, 3, 5}, "1,3,5")],
)
def test_people_read_runs(ranks, text):
    assert bitset.text_of(bitset.of_ranks(ranks)) == text


@pytest.mark.parametrize("ranks", [[-1], [-1, *range(20)]])
def test_a_negative_rank_is_no_rank(ranks):
    with pytest.raises(ValueError, match="negative"):
        bitset.of_ranks(ranks)
