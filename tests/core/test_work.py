"""Load-balanced tasks wait for credit, go down in batches, and every one of them ends with exactly one result."""

from __future__ import annotations

import pytest

from hiersched.core.effects import DOORBELL, PARENT, Close, Drained, LinkDown, Received, Signal
from hiersched.limits import (
    CLIENTS_MAX,
    INLINE_BYTES_MAX,
    TASKS_IN_FLIGHT_PER_CLIENT_MAX,
    TASKS_PER_MESSAGE_MAX,
    WINDOW_TASKS_MAX,
)
from hiersched.protocol import messages as m
from tests.core.transcript import FUNCTION, Transcript, ended, ranks, result, task

SHORT_US = 1


@pytest.fixture
def busy(root):
    """A root with two engines, each with one of the tasks 0 and 1 of a client; tasks 2 and 3 wait."""
    root.engines(0, 1)
    client = root.client()
    root.hears(client, m.Tasks([task(number) for number in range(4)]))
    root.drains()
    assert root.says(b"engine-0") == [m.Tasks([task(0)])]
    assert root.says(b"engine-1") == [m.Tasks([task(1)])]
    return root


def taught(root: Transcript, engine: bytes) -> bytes:
    """A client after whose first task the root knows that its function is short."""
    client = root.client()
    root.hears(client, m.Tasks([task(0)]))
    root.drains()
    root.hears(engine, m.Results([result(0, 0, duration_us=SHORT_US)]))
    root.drains()
    assert len(root.says(engine)) == len(root.says(client)) == 1
    return client


# --- handing out ------------------------------------------------------------------------------------------------------


def test_tasks_of_unknown_length_go_to_idle_engines_one_by_one(busy):
    busy.drains()
    busy.hears(b"engine-1", m.Results([result(1, 1)]))
    busy.drains()
    assert busy.says(b"engine-1") == [m.Tasks([task(2)])]
    assert busy.says(b"client") == [m.Results([result(1, 1)])]


def test_what_arrives_together_leaves_together(root):
    (engine,) = root.engines(0)
    client = taught(root, engine)
    root.hears(client, m.Tasks([task(1), task(2, frames=2)]), b"second", b"and third frame")
    root.hears(client, m.Tasks([task(3, frames=1)]), b"another")
    assert root.says(engine) == []
    root.drains()
    ((batch, *frames),) = root.says(engine)
    assert [sent.id for sent in batch.tasks] == [1, 2, 3]
    assert frames == [b"second", b"and third frame", b"another"]


def test_short_tasks_are_sent_ahead_but_not_without_bound(root):
    (engine,) = root.engines(0)
    client = taught(root, engine)
    root.hears(client, m.Tasks([task(number) for number in range(1, 2 * WINDOW_TASKS_MAX)]))
    root.drains()
    (batch,) = root.says(engine)
    assert len(batch.tasks) == WINDOW_TASKS_MAX
    root.drains()
    assert root.says(engine) == []


def test_a_scheduler_gets_as_many_long_tasks_as_it_has_engines(root):
    low, (engine,) = root.scheduler(0, 4), root.engines(7)
    client = root.client()
    root.hears(client, m.Tasks([task(number) for number in range(9)]))
    root.drains()
    assert [len(batch.tasks) for batch in root.says(low)] == [4]
    assert [len(batch.tasks) for batch in root.says(engine)] == [1]


def test_no_message_carries_more_tasks_than_one_may(root):
    wide = root.scheduler(0, 8)
    client = root.client()
    root.hears(client, m.Tasks([task(0)]))
    root.drains()
    root.hears(wide, m.Results([result(0, 0, duration_us=SHORT_US)]))
    root.hears(client, m.Tasks([task(number) for number in range(1, 3 * TASKS_PER_MESSAGE_MAX)]))
    root.drains()
    first, *rest = root.says(wide)
    assert len(first.tasks) == 1
    assert [len(batch.tasks) for batch in rest] == [TASKS_PER_MESSAGE_MAX] * 2 + [TASKS_PER_MESSAGE_MAX - 1]
    assert root.says(client) == [m.Results([result(0, 0, duration_us=SHORT_US)])]


def test_a_task_sent_twice_is_run_once(root):
    (engine,) = root.engines(0)
    client = root.client()
    root.hears(client, m.Tasks([task(1), task(1)]))
    root.hears(client, m.Tasks([task(1)]))
    root.drains()
    assert root.says(engine) == [m.Tasks([task(1)])]
    assert root.counts(client, "tasks_waiting") == 0


# --- results ----------------------------------------------------------------------------------------------------------


def test_results_that_come_together_are_passed_on_together_with_their_frames(busy):
    busy.hears(b"engine-1", m.Results([result(1, 1, frames=2)]), b"one", b"and more")
    busy.hears(b"engine-0", m.Results([result(0, 0, frames=1)]), b"zero")
    assert busy.says(b"client") == []
    busy.drains()
    words = (m.Results([result(1, 1, frames=2), result(0, 0, frames=1)]), b"one", b"and more", b"zero")
    assert busy.says(b"client") == [words]
    assert len(busy.says(b"engine-0")) == len(busy.says(b"engine-1")) == 1


def test_each_client_gets_the_results_of_its_own_tasks(root):
    (engine,) = root.engines(0)
    first = taught(root, engine)
    second = root.client(b"second")
    root.hears(first, m.Tasks([task(1)]))
    root.hears(second, m.Tasks([task(2)]))
    root.drains()
    (batch,) = root.says(engine)
    assert [sent.id for sent in batch.tasks] == [1, 2]
    root.hears(engine, m.Results([result(2, 0, frames=1), result(1, 0, frames=1)]), b"two", b"one")
    root.drains()
    assert root.says(first) == [(m.Results([result(1, 0, frames=1)]), b"one")]
    assert root.says(second) == [(m.Results([result(2, 0, frames=1)]), b"two")]


def test_a_result_of_a_task_that_an_engine_does_not_hold_is_late(busy):
    busy.hears(b"engine-0", m.Results([result(1, 0), result(3, 0), result(99, 0), result(0, 0)]))
    busy.drains()
    assert busy.says(b"client") == [m.Results([result(0, 0)])]
    assert busy.says(b"engine-0") == [m.Tasks([task(2)])]
    assert busy.counts(b"client", "late") == 3


def test_the_parent_gets_the_results_of_its_tasks(leaf):
    (engine,) = leaf.engines(5)
    leaf.says(PARENT)
    leaf.hears(PARENT, m.Tasks([task(1)]))
    leaf.drains()
    assert leaf.says(engine) == [m.Tasks([task(1)])]
    leaf.hears(engine, m.Results([result(1, 5)]))
    leaf.drains()
    assert leaf.says(PARENT) == [m.Results([result(1, 5)])]


# --- who cannot run them ----------------------------------------------------------------------------------------------


def test_a_lost_engine_ends_its_task_and_the_waiting_ones_go_to_others(busy):
    busy.happens(LinkDown(b"engine-1", "killed by signal 9"))
    busy.hears(b"engine-0", m.Results([result(0, 0)]))
    busy.drains()
    assert busy.does() == [Close(b"engine-1")]
    assert busy.says(b"engine-0") == [m.Tasks([task(2)])]
    assert busy.says(b"client") == [
        m.Results([ended(1, m.ENGINE_LOST, "killed by signal 9", rank=1), result(0, 0)]),
        m.Members(ranks(), ranks(1), "killed by signal 9"),
    ]


def test_without_any_engine_tasks_are_given_back_at_once(leaf):
    leaf.hears(PARENT, m.Tasks([task(1), task(2)]))
    leaf.drains()
    assert leaf.says(PARENT) == [m.Results([ended(number, m.ENGINE_UNKNOWN, "no engine is left") for number in (1, 2)])]


def test_when_the_last_engine_dies_what_waited_is_given_back_and_what_ran_is_lost(leaf):
    (engine,) = leaf.engines(4)
    leaf.hears(PARENT, m.Tasks([task(1), task(2)]))
    leaf.drains()
    assert leaf.says(engine) == [m.Tasks([task(1)])]
    leaf.happens(LinkDown(engine, "killed"))
    leaf.drains()
    assert leaf.does() == [Close(engine)]
    assert leaf.says(PARENT) == [
        m.Members(ranks(4), ranks(), ""),
        m.Results([ended(1, m.ENGINE_LOST, "killed", rank=4), ended(2, m.ENGINE_UNKNOWN, "no engine is left")]),
        m.Members(ranks(), ranks(4), "killed"),
    ]


def test_what_a_scheduler_gives_back_runs_elsewhere_first(root):
    low = root.scheduler(0, 1)
    (engine,) = root.engines(7)
    client = root.client()
    root.hears(client, m.Tasks([task(number) for number in range(4)]))
    root.drains()
    assert root.says(low) == [m.Tasks([task(0)])]
    assert root.says(engine) == [m.Tasks([task(1)])]
    root.hears(low, m.Results([ended(0, m.ENGINE_UNKNOWN, "no engine is left")]))
    root.hears(low, m.Members(ranks(), ranks(0), "killed"))
    root.hears(engine, m.Results([result(1, 7)]))
    root.drains()
    assert root.says(low) == []
    assert root.says(engine) == [m.Tasks([task(0)])]
    assert root.says(client) == [m.Results([result(1, 7)]), m.Members(ranks(), ranks(0), "killed")]


# --- cancel -----------------------------------------------------------------------------------------------------------


def test_a_task_that_waits_is_withdrawn_and_one_that_has_gone_is_followed(busy):
    busy.hears(b"client", m.Cancel([1, 2, 99]))
    assert busy.says(b"engine-1") == [m.Cancel([1])]
    assert busy.does() == [Signal([b"engine-1"], DOORBELL)]
    busy.hears(b"engine-0", m.Results([result(0, 0)]))
    busy.drains()
    assert busy.says(b"engine-0") == [m.Tasks([task(3)])]
    assert busy.says(b"client") == [m.Results([ended(2, m.CANCELLED, "cancelled before it started"), result(0, 0)])]


def test_nobody_cancels_the_tasks_of_others(busy):
    other = busy.client(b"other")
    busy.hears(other, m.Cancel([0, 1, 2, 3]))
    busy.drains()
    assert busy.counts(other, "tasks_waiting") == 2


def test_a_withdrawn_task_is_not_counted_as_waiting(busy):
    busy.hears(b"client", m.Cancel([2, 3]))
    assert busy.counts(b"client", "tasks_waiting") == 0
    assert busy.counts(b"client", "tasks_in_flight") == 2
    busy.drains()
    assert len(busy.says(b"client")) == 1


def test_the_tasks_of_a_client_that_has_gone_are_dropped(busy):
    busy.hears(b"client", m.Bye("done"))
    assert busy.does() == [Signal([b"engine-0", b"engine-1"], DOORBELL), Close(b"client")]
    assert busy.says(b"engine-0") == [m.Cancel([0], running=True)]
    assert busy.says(b"engine-1") == [m.Cancel([1], running=True)]
    busy.hears(b"engine-0", m.Results([result(0, 0)]))
    busy.happens(LinkDown(b"engine-1", "killed"))
    busy.drains()
    assert busy.does() == [Close(b"engine-1")]
    assert busy.says(b"engine-0") == []
    assert busy.says(b"client") == []


# --- bounds -----------------------------------------------------------------------------------------------------------


def test_a_scheduler_holds_so_many_tasks_and_no_more(root):
    client = root.client()
    root.happens(Received(client, m.Tasks([task(1)] * (TASKS_IN_FLIGHT_PER_CLIENT_MAX * CLIENTS_MAX + 1))))
    results = [result for effect in root.core.handle(Drained(), 0.0) for result in effect.message.results]
    assert len(results) > TASKS_IN_FLIGHT_PER_CLIENT_MAX * CLIENTS_MAX
    assert {result.code for result in results} == {m.REFUSED}


def test_tasks_with_much_in_them_leave_in_messages_that_the_receiver_takes(root):
    (engine,) = root.engines(0)
    client = taught(root, engine)
    large = [m.Task(number, FUNCTION, [], bytes(INLINE_BYTES_MAX), 0) for number in range(1, 401)]
    root.hears(client, m.Tasks(large[:200]))
    root.hears(client, m.Tasks(large[200:]))
    root.drains()
    assert [sent for batch in root.says(engine) for sent in batch.tasks] == large


def test_results_with_much_in_them_leave_in_messages_that_the_receiver_takes(root):
    (engine,) = root.engines(0)
    client = taught(root, engine)
    root.hears(client, m.Tasks([task(number) for number in range(1, 401)]))
    root.drains()
    assert len(root.says(engine)) == 1
    large = [m.Result(number, 0, SHORT_US, 0, bytes(INLINE_BYTES_MAX), 0) for number in range(1, 401)]
    root.hears(engine, m.Results(large[:200]))
    root.hears(engine, m.Results(large[200:]))
    root.drains()
    assert [passed for batch in root.says(client) for passed in batch.results] == large
