"""A scheduler whose parent is lost goes on under another one, with all that it holds."""

from __future__ import annotations

from hiersched.core.effects import PARENT
from hiersched.limits import PARTIAL_REPLY_S
from hiersched.protocol import messages as m
from tests.core.transcript import answer, call, engine_child, hello, joined, ranks, result, task
from tests.hellos import held


def test_a_scheduler_climbs_with_all_it_holds(leaf):
    leaf.welcomed(keep=True)
    engine, _ = leaf.engines(4, 5)
    leaf.hears(PARENT, call(8, 4))
    leaf.hears(PARENT, m.Tasks([task(1)]))
    leaf.drains()
    leaf.hears(engine, m.Want([b"D" * 16]))
    leaf.says(PARENT), leaf.says(engine), leaf.says(b"engine-5")
    introduction = leaf.climbs()
    assert (introduction.role, introduction.first, introduction.last, introduction.pid) == ("scheduler", 4, 8, 1)
    assert introduction.uuid == "scheduler-1-4-8"
    assert sorted(held(introduction)) == [1, 8]
    assert introduction.shares == [(8, ranks(4))]
    assert leaf.says(PARENT) == [m.Members(ranks(4, 5), ranks(6, 7), "it left meanwhile"), m.Want([b"D" * 16])]


def test_news_that_the_former_parent_was_not_told_is_in_what_the_new_one_is(leaf):
    leaf.hears(b"engine-4", hello("engine", 4, 5))
    assert len(leaf.says(b"engine-4")) == 1
    leaf.climbs()
    leaf.drains()
    assert leaf.says(PARENT) == [m.Members(ranks(4), ranks(5, 6, 7), "it left meanwhile")]


def test_what_is_owed_to_the_former_parent_goes_to_the_new_one(leaf):
    leaf.welcomed(keep=True)
    (engine,) = leaf.engines(4)
    leaf.hears(PARENT, call(8, 4))
    leaf.says(engine), leaf.says(PARENT)
    leaf.climbs()
    leaf.hears(engine, answer(8, 4), b"four")
    assert leaf.says(PARENT)[-1] == (answer(8, 4), b"four")


def test_what_has_been_answered_and_the_root_may_not_have_is_held_as_well(leaf):
    leaf.welcomed(keep=True)
    first, second = leaf.engines(4, 5)
    leaf.hears(PARENT, call(7, 4))
    leaf.hears(PARENT, call(8, 4, 5))
    leaf.hears(first, answer(7, 4), b"four")
    leaf.hears(first, answer(8, 4), b"four")
    leaf.passes(PARTIAL_REPLY_S)
    leaf.says(PARENT), leaf.says(first), leaf.says(second)
    introduction = leaf.climbs()
    assert sorted(held(introduction)) == [7, 8]
    assert sorted(introduction.shares) == [(7, ranks(4)), (8, ranks(4, 5))]
    assert leaf.says(PARENT)[1:] == [(answer(7, 4), b"four"), (joined(8, {4: 4}), b"four")]


def test_a_scheduler_that_waits_for_orphans_holds_what_they_may(leaf):
    leaf.welcomed(keep=True)
    low = leaf.scheduler(4, 6)
    leaf.hears(PARENT, call(8, 4, 5))
    leaf.hears(PARENT, m.Tasks([task(1), task(2)]))
    leaf.drains()
    leaf.loses(low, engine_child(4), engine_child(5))
    leaf.does(), leaf.says(low), leaf.says(PARENT)
    assert sorted(held(leaf.climbs())) == [1, 2, 8]
    assert leaf.says(PARENT) == [m.Members(ranks(4, 5), ranks(6, 7), "it left meanwhile")]


def test_a_scheduler_may_climb_again_before_it_is_welcomed(leaf):
    leaf.welcomed(keep=True)
    (engine,) = leaf.engines(4)
    leaf.hears(PARENT, m.Tasks([task(1), task(2)]))
    leaf.drains()
    leaf.hears(engine, m.Results([result(1, 4)]))
    leaf.drains()
    leaf.says(PARENT), leaf.says(engine)
    for _ in range(2):
        assert sorted(held(leaf.climbs())) == [1, 2]
        assert leaf.says(PARENT)[1:] == [m.Results([result(1, 4)])]
    leaf.welcomed(keep=False)
    leaf.hears(PARENT, m.Ack(1, []))
    assert leaf.says(engine) == [m.Ack(1, [])]
    assert leaf.core.receipts.leftovers() == 0


def test_the_new_parent_does_not_hear_what_the_former_one_had_asked(leaf):
    low = leaf.scheduler(4, 6)
    leaf.hears(PARENT, m.Survey(1))
    leaf.hears(PARENT, m.Order(2, ranks(4), "stop"))
    leaf.says(low), leaf.says(PARENT)
    leaf.climbs()
    leaf.says(PARENT)
    leaf.hears(low, m.Census(1, []))
    leaf.hears(low, m.Executed(2, ranks(4)))
    assert leaf.says(PARENT) == []
