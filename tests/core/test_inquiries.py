"""What a scheduler says about itself and its engines when it is asked."""

from __future__ import annotations

from hiersched.core.effects import PARENT
from hiersched.protocol import messages as m
from tests.core.transcript import answer, call, ranks, result, task


def test_the_queue_of_an_engine_is_what_was_sent_to_it_and_not_answered(leaf):
    first, second = leaf.engines(4, 5)
    leaf.hears(PARENT, call(1, 4, 5))
    leaf.hears(PARENT, call(2, 4))
    leaf.hears(PARENT, m.Tasks([task(3)]))
    leaf.drains()
    leaf.hears(second, answer(1, 5), b"five")
    leaf.says(PARENT), leaf.says(first), leaf.says(second)
    leaf.hears(PARENT, m.Survey(7, ranks(4, 5, 6)))
    (census,) = leaf.says(PARENT)
    assert census.queues == [m.Queue(4, 2, 1, 0), m.Queue(5, 0, 0, 1)]


def test_what_an_engine_has_answered_is_counted_call_by_call_and_task_by_task(root):
    (engine,), client = root.engines(0), root.client()
    root.hears(client, call(1, 0))
    root.hears(client, m.Tasks([task(2), task(3)]))
    root.hears(engine, answer(1, 0), b"zero")
    for number in (2, 3):
        root.drains()
        root.hears(engine, m.Results([result(number, 0)]))
    root.drains()
    root.says(engine), root.says(client)
    root.hears(client, m.Survey(7, ranks(0)))
    (census,) = root.says(client)
    assert census.queues == [m.Queue(0, 0, 0, 3)]


def test_the_queues_of_the_whole_tree_come_with_its_counters(root):
    low, (engine,), client = root.scheduler(0, 4), root.engines(7), root.client()
    root.hears(client, call(1, 7))
    root.hears(client, m.Survey(7, ranks(1, 7)))
    assert root.says(low) == [m.Survey(7, ranks(1, 7))]
    root.hears(low, m.Census(7, [(1, 1, {"late": 1}, {"late": 1})], [m.Queue(1, 5, 0, 9)]))
    (census,) = root.says(client)
    assert census.queues == [m.Queue(7, 1, 0, 0), m.Queue(1, 5, 0, 9)]
    assert [row[:2] for row in census.levels] == [(0, 1), (1, 1)]
    assert len(root.says(engine)) == 1


def test_nobody_asked_for_queues(root):
    root.engines(0)
    client = root.client()
    root.hears(client, m.Survey(7))
    (census,) = root.says(client)
    assert census.queues == []
    ((level, schedulers, totals, maxima),) = census.levels
    assert (level, schedulers, totals["engines"], totals["requests_open"]) == (0, 1, 1, 0)
    assert totals == maxima
