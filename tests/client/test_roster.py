"""Which engines there are: by the root's news, and by answers that come before it."""

from __future__ import annotations

import time

import pytest

from hiersched.client.roster import Roster
from hiersched.kernels import bitset
from hiersched.protocol.messages import Members


def news(joined: int = 0, left: int = 0, reason: str = "") -> Members:
    return Members(bitset.to_wire(joined), bitset.to_wire(left), reason)


@pytest.fixture
def roster() -> Roster:
    roster = Roster()
    roster.begin(0b1111)
    return roster


def test_engines_come_and_go(roster):
    roster.on_members(news(joined=0b110000, left=0b0010))
    assert roster.ids() == [0, 2, 3, 4, 5]
    assert len(roster) == 5
    assert roster.failed_starts == {}


def test_one_that_was_never_there_has_failed_to_start(roster):
    roster.on_members(news(left=0b10000, reason="it ran out of memory"))
    assert roster.failed_starts == {4: "it ran out of memory"}


def test_one_that_an_answer_tells_is_gone_is_gone_and_has_not_failed_to_start(roster):
    roster.forget(0b0100, asked_s=time.time())
    assert roster.ids() == [0, 1, 3]
    roster.on_members(news(left=0b0100, reason="killed"))
    assert roster.ids() == [0, 1, 3]
    assert roster.failed_starts == {}


def test_one_that_has_come_since_the_call_was_made_is_another_one(roster):
    asked_s = time.time() - 1.0
    roster.on_members(news(joined=0b0010, left=0b0010))
    roster.forget(0b0110, asked_s)
    assert roster.ids() == [0, 1, 3]


def test_one_that_was_replaced_has_arrived(roster):
    before = roster.arrivals([1, 2])
    roster.on_members(news(joined=0b0010, left=0b0010))
    assert roster.arrivals([1, 2]) == before + 1
    assert roster.ids() == [0, 1, 2, 3]
