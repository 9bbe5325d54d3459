"""An engine has one rank here and one uuid there, and its successor has the rank and another uuid."""

from __future__ import annotations

import pytest

from hiersched.compat.roster import Roster
from hiersched.kernels import bitset
from hiersched.protocol.messages import Members


def news(joined: tuple[int, ...] = (), left: tuple[int, ...] = ()) -> Members:
    return Members(bitset.to_wire(bitset.of_ranks(joined)), bitset.to_wire(bitset.of_ranks(left)), "")


def begun(*ranks: int) -> Roster:
    roster = Roster()
    roster.begin(bitset.of_ranks(ranks))
    return roster


def test_those_that_are_there_have_both_names() -> None:
    roster = begun(3, 0, 1)
    assert (roster.ranks(), len(roster)) == ([0, 1, 3], 3)
    assert 3 in roster
    assert 2 not in roster
    assert [roster.rank_of(roster.uuid_of(rank)) for rank in (0, 1, 3)] == [0, 1, 3]


def test_who_is_not_there_has_none() -> None:
    roster = begun(0)
    assert roster.rank_of("nobody") is None
    with pytest.raises(KeyError):
        roster.uuid_of(1)


def test_a_successor_is_not_taken_for_who_was_there_before() -> None:
    roster = begun(0, 1)
    before = roster.uuid_of(1)
    left, came = roster.on_members(news(joined=(1, 2), left=(1,)))
    assert left == [(1, before)]
    assert came == [(1, roster.uuid_of(1)), (2, roster.uuid_of(2))]
    assert roster.uuid_of(1) != before
    assert roster.rank_of(before) is None


def test_news_of_what_is_known_change_nothing() -> None:
    roster = begun(0)
    name = roster.uuid_of(0)
    assert roster.on_members(news(joined=(0,), left=(5,))) == ([], [])
    assert roster.uuid_of(0) == name


def test_two_doors_never_give_the_same_name() -> None:
    assert begun(0).uuid_of(0) != begun(0).uuid_of(0)
