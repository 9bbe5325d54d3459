"""Widths of uniform trees, and even splits."""

from __future__ import annotations

import math
from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from hiersched.core.shape import (
    HostShape,
    Site,
    group_count,
    head_level,
    host_shapes,
    merged,
    part,
    part_of,
    upper_widths,
    widths_over,
)

fanouts = st.integers(2, 64)


@given(st.integers(1, 100_000), fanouts)
def test_widths_reach_all_units_in_the_fewest_levels_and_leave_no_chain(units, fanout):
    widths = widths_over(units, fanout)
    assert all(2 <= width <= fanout for width in widths)
    assert units <= math.prod(widths) <= max(1, 2 * units - 2)
    assert fanout ** len(widths) >= units
    assert not widths or fanout ** (len(widths) - 1) < units


@given(st.integers(1, 50_000), st.integers(0, 5_000), fanouts)
def test_more_units_never_need_fewer_nodes(units, more, fanout):
    fewer, many = (HostShape(widths_over(count, fanout), []).schedulers for count in (units, units + more))
    assert fewer <= many


@given(st.integers(0, 1000), st.integers(1, 1000), st.integers(1, 64))
def test_parts_are_even_adjoin_and_are_found_by_what_they_hold(first, size, parts):
    last = first + size
    edges = [part(first, last, parts, place) for place in range(parts)]
    assert (edges[0][0], edges[-1][1]) == (first, last)
    assert all(left[1] == right[0] for left, right in pairwise(edges))
    sizes = [end - start for start, end in edges]
    assert max(sizes) - min(sizes) <= 1
    for item in {first, last - 1, first + size // 3}:
        start, end = edges[part_of(first, last, parts, item)]
        assert start <= item < end


def groups_below(hosts: int, upper: tuple[int, ...]) -> int:
    """Nodes of more than one host between the root and the heads, by splitting."""
    parts = min(upper[0], hosts)
    sizes = [end - start for start, end in (part(0, hosts, parts, place) for place in range(parts))]
    return sum(1 + groups_below(size, upper[1:]) for size in sizes if size > 1)


@given(st.integers(1, 3000), fanouts | st.just(2))
def test_groups_are_counted_as_splitting_finds_them(hosts, fanout):
    upper = upper_widths(hosts, fanout)
    assert group_count(hosts, upper) == groups_below(hosts, upper)


def test_a_host_that_is_alone_in_its_group_hangs_one_level_higher():
    upper = upper_widths(3, 2)
    assert upper == (2, 2)
    assert [head_level(place, 3, upper) for place in range(3)] == [1, 2, 2]


def test_hosts_are_put_together_by_their_trees_not_their_slots():
    shapes = host_shapes([Site(30, 8, 2), Site(33, 4, 1), Site(70, 8, 5)], fanout=16, leaf_engines=35)
    assert shapes == [HostShape((), [Site(30, 8, 2), Site(33, 4, 1)]), HostShape((2,), [Site(70, 8, 5)])]
    assert [shape.schedulers for shape in shapes] == [1, 3]


@given(st.lists(st.tuples(st.integers(1, 500), st.integers(1, 64), st.integers(1, 50)), min_size=1, max_size=60))
def test_merging_keeps_the_largest_hosts_their_number_and_nearly_their_slots(sizes):
    sites = [Site(*size) for size in sorted({slots: (slots, cores, hosts) for slots, cores, hosts in sizes}.values())]
    few = merged(sites, 8)
    hosts = sum(site.hosts for site in sites)
    assert len(few) <= 8
    assert few[-1] == sites[-1]
    assert sum(site.hosts for site in few) == hosts
    slots = [sum(site.slots * site.hosts for site in some) for some in (sites, few)]
    assert slots[0] <= slots[1] < slots[0] + hosts


@pytest.mark.parametrize(("hosts", "widths"), [(1, (1,)), (2, (2,)), (64, (64,)), (65, (2, 33))])
def test_the_root_above_heads_has_at_least_one_child(hosts, widths):
    assert upper_widths(hosts, 64) == widths
