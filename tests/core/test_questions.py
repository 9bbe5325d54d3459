"""Why a task or call has not ended: answered where it is."""

from __future__ import annotations

from hiersched.core.effects import PARENT, Close
from hiersched.limits import INQUIRIES_OPEN_MAX
from hiersched.protocol import messages as m
from tests.core.transcript import call, engine_child, ranks, task


def test_nothing_is_known_of_a_task_that_is_not_open(root):
    client = root.client()
    root.hears(client, m.Why(7, 99))
    (because,) = root.says(client)
    assert (because.request, because.state, because.ranks) == (7, "unknown", ranks())


def test_a_call_waits_for_those_that_have_not_answered(root):
    (engine, _), client = root.engines(0, 1), root.client()
    root.hears(client, call(8, 0, 1))
    root.hears(client, m.Why(7, 8))
    (because,) = root.says(client)
    assert (because.state, because.ranks) == ("sent", ranks(0, 1))
    assert because.text == "no answer yet from engines 0-1"
    root.says(engine), root.says(b"engine-1")


def test_a_call_may_wait_for_an_engine_whose_scheduler_was_lost(root):
    low, client = root.scheduler(0, 2), root.client()
    root.hears(client, call(8, 0))
    root.says(low)
    root.loses(low, engine_child(0), engine_child(1))
    root.hears(client, m.Why(7, 8))
    (because,) = root.says(client)
    assert "the scheduler of 0 was lost" in because.text
    assert root.does() == [Close(low)]


def test_a_task_waits_for_an_engine_that_is_free(root):
    (engine,), client = root.engines(0), root.client()
    root.hears(client, m.Tasks([task(1), task(2)]))
    root.drains()
    root.hears(client, m.Why(7, 2))
    root.hears(client, m.Why(8, 1))
    waiting, sent = root.says(client)
    assert (waiting.state, waiting.ranks) == ("waiting", ranks(0))
    assert (sent.state, sent.ranks) == ("sent", ranks(0))
    assert len(root.says(engine)) == 1


def test_the_scheduler_that_has_a_task_is_asked_and_its_answer_passed_on(root):
    low, high, client = root.scheduler(0, 2), root.scheduler(2, 4), root.client()
    root.hears(client, m.Tasks([task(1)]))
    root.drains()
    assert len(root.says(low)) == 1
    root.hears(client, m.Why(7, 1))
    assert root.says(low) == [m.Why(7, 1)]
    root.hears(high, m.Because(7, "running", "says who", ranks(3)))
    assert root.says(client) == []
    root.hears(low, m.Because(7, "sent", "it was sent to engine 1", ranks(1)))
    root.hears(low, m.Because(7, "sent", "it was sent to engine 1", ranks(1)))
    assert root.says(client) == [m.Because(7, "sent", "it was sent to engine 1", ranks(1))]


def test_a_scheduler_answers_its_parent(leaf):
    (engine,) = leaf.engines(4)
    leaf.hears(PARENT, m.Tasks([task(1)]))
    leaf.drains()
    leaf.says(PARENT)
    leaf.hears(PARENT, m.Why(7, 1))
    (because,) = leaf.says(PARENT)
    assert (because.state, because.ranks) == ("sent", ranks(4))
    assert len(leaf.says(engine)) == 1


def asked(root) -> tuple[bytes, bytes]:
    """(client, the child scheduler that has task 1 and has been asked about it)."""
    low, client = root.scheduler(0, 2), root.client()
    root.hears(client, m.Tasks([task(1)]))
    root.drains()
    root.hears(client, m.Why(7, 1))
    assert len(root.says(low)) == 2
    return client, low


def test_what_the_lost_scheduler_would_have_said_is_not_waited_for(root):
    client, low = asked(root)
    root.loses(low, engine_child(0), engine_child(1))
    (because,) = root.says(client)
    assert (because.request, because.state) == (7, "unknown")
    assert "ask again" in because.text
    root.hears(client, m.Why(8, 1))
    (because,) = root.says(client)
    assert (because.state, because.ranks) == ("waiting", ranks())
    assert root.does() == [Close(low)]


def test_a_client_that_has_gone_hears_no_answer(root):
    client, low = asked(root)
    root.hears(client, m.Bye("done"))
    root.hears(low, m.Because(7, "sent", "", ranks(1)))
    assert [type(word) for word in root.says(low)] == [m.Cancel]
    assert root.does() == [Close(client)]


def test_so_many_questions_are_passed_on_and_no_more(root):
    client, low = asked(root)
    for request in range(100, 100 + INQUIRIES_OPEN_MAX):
        root.hears(client, m.Why(request, 1))
    assert len(root.says(low)) == INQUIRIES_OPEN_MAX - 1
    (because,) = root.says(client)
    assert (because.request, because.state) == (99 + INQUIRIES_OPEN_MAX, "unknown")
    assert "ask again later" in because.text
