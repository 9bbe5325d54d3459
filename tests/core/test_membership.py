"""Who is there: children, their engines, clients, and whether they live."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from hiersched.core.membership import Membership, Neighbour
from hiersched.kernels import bitset
from hiersched.limits import LOST_AFTER_S
from hiersched.protocol.messages import NO_RANK
from tests.core.neighbours import engine, scheduler


@pytest.fixture
def membership() -> Membership:
    return Membership()


def ranks_of(bits: int) -> set[int]:
    return set(bitset.ranks_of(bits))


def test_an_engine_brings_itself_and_a_scheduler_what_it_reports(membership):
    engine(membership, 9)
    child = scheduler(membership, 0, 4, set())
    assert ranks_of(membership.members) == {9}
    assert membership.change(child, 0b0101, 0) == (0b0101, 0)
    assert ranks_of(membership.members) == {0, 2, 9}
    assert child.width == 2


def test_a_child_takes_its_engines_with_it(membership):
    engine(membership, 9)
    child = scheduler(membership, 0, 4, {1, 2})
    assert membership.remove_child(child.link) is child
    assert ranks_of(membership.members) == {9}
    assert membership.remove_child(child.link) is None


def test_only_what_was_not_known_is_news(membership):
    child = scheduler(membership, 0, 8, {1, 2})
    assert membership.change(child, bitset.of_ranks([2, 3]), bitset.of_ranks([1, 7])) == (1 << 3, 1 << 1)
    assert ranks_of(child.members) == {2, 3}


def test_a_child_has_no_engines_out_of_its_range(membership):
    child = scheduler(membership, 4, 8, {5})
    assert membership.change(child, bitset.of_ranks([0, 6, 8]), bitset.of_ranks([9])) == (1 << 6, 0)
    assert ranks_of(membership.members) == {5, 6}


def test_an_engine_that_left_and_came_back_is_both_news(membership):
    child = scheduler(membership, 0, 4)
    assert membership.change(child, 1 << 2, 1 << 2) == (1 << 2, 1 << 2)
    assert ranks_of(child.members) == ranks_of(membership.members) == {0, 1, 2, 3}


news = st.tuples(st.integers(0, 2), *[st.sets(st.integers(0, 14)).map(bitset.of_ranks)] * 2)


@given(st.lists(news))
def test_all_members_are_those_of_the_children(pieces):
    membership = Membership()
    children = [scheduler(membership, first, first + 4) for first in (0, 4, 8)]
    for place, joined, left in pieces:
        before = children[place].members
        news_joined, news_left = membership.change(children[place], joined, left)
        assert children[place].members == before & ~news_left | news_joined
        assert children[place].width == children[place].members.bit_count()
    assert membership.members == children[0].members | children[1].members | children[2].members


def test_ranges_that_touch_do_not_overlap(membership):
    child = scheduler(membership, 4, 8)
    assert membership.has_range(0, 4) is None
    assert membership.has_range(8, 9) is None
    assert membership.has_range(7, 8) is child
    assert membership.has_range(0, 16) is child


def test_those_of_an_orphan_had_never_left(membership):
    lost = scheduler(membership, 0, 4, {0, 1})
    membership.remove_child(lost.link)
    membership.members |= 0b01
    orphan = Neighbour(b"engine-0", "engine", "uuid", 0, 1, 1)
    assert membership.add_child(orphan) == 0
    assert ranks_of(membership.members) == {0}


def test_a_scheduler_answers_for_its_range_and_an_engine_for_itself(membership):
    assert ranks_of(scheduler(membership, 4, 8, {5}).reach) == {4, 5, 6, 7}
    assert ranks_of(engine(membership, 9).reach) == {9}


def test_a_scheduler_is_silent_after_its_beats_are_missed_and_an_engine_never(membership):
    silent, beating = scheduler(membership, 0, 4), scheduler(membership, 4, 8)
    engine(membership, 9)
    beating.heard_s = 1.0
    assert membership.silent(LOST_AFTER_S) == []
    assert membership.silent(LOST_AFTER_S + 0.5) == [silent]


def test_the_parent_is_lost_after_its_beats_are_missed(membership):
    membership.heard_parent(100.0)
    assert not membership.parent_is_lost(100.0 + LOST_AFTER_S)
    assert membership.parent_is_lost(100.5 + LOST_AFTER_S)


def test_the_ranks_of_the_leaf_for_guests_lie_anywhere():
    membership = Membership()
    ordinary, leaf = scheduler(membership, 0, 4), scheduler(membership, NO_RANK, NO_RANK, set())
    leaf.range = bitset.of_ranks([6, 9])
    assert membership.change(leaf, bitset.of_ranks([5, 6, 9]), 0) == (bitset.of_ranks([6, 9]), 0)
    assert [rank for rank in range(-1, 12) if leaf.covers(rank)] == [6, 9]
    assert [rank for rank in range(-1, 12) if ordinary.covers(rank)] == [0, 1, 2, 3]
    assert (ordinary.least, leaf.least) == (0, 0)
    assert membership.has_range(9, 10) is leaf
    assert membership.has_range(7, 9) is None
    assert membership.has_range(NO_RANK, NO_RANK) is leaf
