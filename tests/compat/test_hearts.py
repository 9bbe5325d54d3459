"""An engine lives as long as it returns pings; it is lost when it has missed too many in a row."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from hiersched.compat.hearts import Hearts


def test_the_first_pong_is_told_apart_from_later_ones():
    hearts = Hearts(2)
    hearts.add(b"one")
    hearts.beat()
    assert hearts.on_pong(b"one")
    assert not hearts.on_pong(b"one")


def test_whoever_is_not_listened_to_says_nothing():
    hearts = Hearts(2)
    assert not hearts.on_pong(b"stranger")
    assert b"stranger" not in hearts
    hearts.add(b"one")
    hearts.on_pong(b"one")
    hearts.remove(b"one")
    assert [hearts.beat() for _ in range(10)] == [[]] * 10


def test_an_engine_that_has_not_come_up_yet_is_not_lost():
    hearts = Hearts(1)
    hearts.add(b"one")
    assert [hearts.beat() for _ in range(10)] == [[]] * 10


@given(st.integers(1, 8))
def test_an_engine_that_misses_more_than_it_may_is_lost(missed_max):
    hearts = Hearts(missed_max)
    hearts.add(b"one")
    hearts.on_pong(b"one")
    assert [hearts.beat() for _ in range(missed_max + 1)] == [[]] * (missed_max + 1)  # the last has not come back yet
    assert hearts.beat() == [b"one"]


@given(st.integers(0, 4), st.lists(st.booleans(), max_size=40))
def test_one_that_answers_now_and_then_is_never_lost(missed_max, answers):
    hearts = Hearts(missed_max)
    hearts.add(b"one")
    hearts.on_pong(b"one")
    silent = 0
    for answered in answers:
        if silent == missed_max or answered:
            hearts.on_pong(b"one")
            silent = 0
        else:
            silent += 1
        assert hearts.beat() == []
