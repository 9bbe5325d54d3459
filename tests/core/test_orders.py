"""Orders about processes go down to whoever started them, and come back with the engines they were carried out for."""

from __future__ import annotations

import pytest

from hiersched.core.effects import DOORBELL, PARENT, Close, Signal
from hiersched.limits import INQUIRIES_OPEN_MAX, STOP_TIMEOUT_S
from hiersched.protocol import messages as m
from tests.core.transcript import engine_child, ranks

SIGINT, SIGKILL, SIGTERM = 2, 9, 15


def test_a_signal_goes_to_the_engines_that_are_asked_for(leaf):
    leaf.engines(4, 5, 6)
    leaf.says(PARENT)
    leaf.hears(PARENT, m.Order(7, ranks(4, 6), "signal", SIGINT))
    assert leaf.does() == [Signal([b"engine-4", b"engine-6"], SIGINT)]
    assert leaf.says(PARENT) == [m.Executed(7, ranks(4, 6))]


def test_an_order_is_split_over_the_schedulers_and_answered_when_all_of_them_have_done_their_part(root):
    low, high, (engine,) = root.scheduler(0, 2), root.scheduler(2, 4), root.engines(7)
    client = root.client()
    root.hears(client, m.Order(7, ranks(1, 2, 3, 7), "signal", SIGINT))
    assert root.says(low) == [m.Order(7, ranks(1), "signal", SIGINT)]
    assert root.says(high) == [m.Order(7, ranks(2, 3), "signal", SIGINT)]
    assert root.does() == [Signal([engine], SIGINT)]
    root.hears(high, m.Executed(7, ranks(2)))
    assert root.says(client) == []
    root.hears(low, m.Executed(7, ranks(1)))
    assert root.says(client) == [m.Executed(7, ranks(1, 2, 7))]
    root.hears(low, m.Executed(7, ranks(0)))
    assert root.says(client) == []


def test_nobody_waits_for_what_a_lost_scheduler_would_have_done(root):
    low, client = root.scheduler(0, 2), root.client()
    root.hears(client, m.Order(7, ranks(0), "stop"))
    assert len(root.says(low)) == 1
    root.loses(low, engine_child(0), engine_child(1))
    assert root.says(client) == [m.Executed(7, ranks())]
    assert root.does() == [Close(low)]


def test_engines_that_are_not_there_go_without_an_answer(root):
    client = root.client()
    root.hears(client, m.Order(7, ranks(5), "stop"))
    assert root.says(client) == [m.Executed(7, ranks())]


def test_a_child_does_not_answer_for_another(root):
    low, high, client = root.scheduler(0, 2), root.scheduler(2, 4), root.client()
    root.hears(client, m.Order(7, ranks(0), "stop"))
    root.hears(high, m.Executed(7, ranks(0)))
    assert (len(root.says(low)), root.says(client)) == (1, [])


def test_a_client_that_has_gone_is_told_nothing(root):
    low, client = root.scheduler(0, 2), root.client()
    root.hears(client, m.Order(7, ranks(0), "stop"))
    root.hears(client, m.Bye("done"))
    root.hears(low, m.Executed(7, ranks(0)))
    assert (len(root.says(low)), root.does()) == (1, [Close(client)])


def test_so_many_orders_are_open_and_no_more(root):
    low, client = root.scheduler(0, 2), root.client()
    for request in range(INQUIRIES_OPEN_MAX):
        root.hears(client, m.Order(request, ranks(0), "signal", SIGINT))
    assert (len(root.says(low)), root.says(client)) == (INQUIRIES_OPEN_MAX, [])
    root.hears(client, m.Order(INQUIRIES_OPEN_MAX, ranks(0), "signal", SIGINT))
    assert root.says(client) == [m.Executed(INQUIRIES_OPEN_MAX, ranks())]
    root.hears(low, m.Executed(3, ranks(0)))
    root.hears(client, m.Order(3, ranks(0), "signal", SIGINT))
    assert (len(root.says(low)), root.says(client)) == (1, [m.Executed(3, ranks(0))])


def test_an_order_of_an_id_that_is_in_use_is_not_carried_out(root):
    low, client, other = root.scheduler(0, 2), root.client(), root.client(b"other")
    root.hears(client, m.Order(7, ranks(0), "stop"))
    root.hears(other, m.Order(7, ranks(1), "stop"))
    assert root.says(other) == [m.Executed(7, ranks())]
    assert root.says(low) == [m.Order(7, ranks(0), "stop")]


def test_the_doorbell_is_not_the_users_to_ring(leaf):
    leaf.engines(4)
    leaf.says(PARENT)
    leaf.hears(PARENT, m.Order(7, ranks(4), "signal", DOORBELL))
    assert leaf.does() == []
    assert leaf.says(PARENT) == [m.Executed(7, ranks(4))]


@pytest.mark.parametrize("verb", ["stop", "restart"])
def test_an_engine_that_does_not_stop_when_told_is_made_to(leaf, verb):
    (engine,) = leaf.engines(4)
    leaf.says(PARENT)
    leaf.hears(PARENT, m.Order(7, ranks(4), verb))
    assert leaf.does() == [Signal([engine], SIGTERM)]
    leaf.passes(STOP_TIMEOUT_S - 0.1)
    assert leaf.does() == []
    leaf.passes(0.2)
    assert leaf.does() == [Signal([engine], SIGKILL)]
    leaf.passes(2 * STOP_TIMEOUT_S)
    assert leaf.does() == []
    assert leaf.says(PARENT) == [m.Executed(7, ranks(4))]
