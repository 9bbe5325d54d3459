"""A scheduler that is lost leaves its children to whoever had started it: what they hold goes on, and nothing twice."""

from __future__ import annotations

import pytest

from hiersched.core.effects import DOORBELL, ChildFailed, Close, LinkDown, Signal, link_of
from hiersched.limits import CHILDREN_MAX, LINK_MESSAGES_MAX
from hiersched.protocol import messages as m
from tests.core.transcript import (
    Transcript,
    answer,
    call,
    ended,
    engine_child,
    hello,
    joined,
    loss,
    ranks,
    result,
    scheduler_child,
    task,
)

CANCELLED = "cancelled before it started"


@pytest.fixture
def low(root) -> bytes:
    """A child scheduler of the root, of engines 0 and 1, who are its children. A client has asked for nothing yet."""
    low = root.scheduler(0, 2)
    root.client()
    return low


def loses(root: Transcript, low: bytes, *living: int) -> None:
    """The scheduler of engines 0 and 1 is killed, and these of them live."""
    root.loses(low, *(engine_child(rank) for rank in living))
    assert root.does() == [Close(low)]
    root.drains()


# --- calls ------------------------------------------------------------------------------------------------------------


def test_nobody_has_left_when_only_a_scheduler_is_lost(root, low):
    loses(root, low, 0, 1)
    assert root.says(b"client") == []
    for rank in (0, 1):
        root.adopted(engine_child(rank))
    root.drains()
    assert root.says(b"client") == []
    assert root.counts(b"client", "adoptions") == 1


def test_what_an_orphan_holds_is_waited_for_and_the_rest_is_sent_again(root, low):
    root.hears(b"client", call(8, 0, 1), b"eight")
    root.hears(b"client", call(9, 0, 1), b"nine")
    root.says(low)
    loses(root, low, 0, 1)
    first, second = root.adopted(engine_child(0), 8, 9), root.adopted(engine_child(1), 8)
    assert root.says(first) == []
    assert root.says(second) == [(call(9, 1), b"nine")]
    root.hears(first, answer(8, 0), b"zero")
    root.hears(second, answer(8, 1), b"one")
    assert root.says(b"client") == [(joined(8, {0: 4, 1: 3}), b"zeroone")]


def test_each_orphan_is_sent_its_own_part_again(root, low):
    parts = [m.Part(1, []), m.Part(2, [])]
    root.hears(b"client", call(8, 0, 1, parts=parts), b"for 0", b"for 1", b"and more")
    root.says(low)
    loses(root, low, 0, 1)
    assert root.says(root.adopted(engine_child(1))) == [(call(8, 1, parts=parts[1:]), b"for 1", b"and more")]


def test_a_call_that_comes_while_an_orphan_is_awaited_waits_for_it(root, low):
    loses(root, low, 0, 1)
    root.hears(b"client", call(8, 0), b"eight")
    root.hears(b"client", call(9, 0), b"nine")
    assert root.says(b"client") == []
    engine = root.adopted(engine_child(0))
    assert root.says(engine) == [(call(8, 0), b"eight"), (call(9, 0), b"nine")]
    root.hears(b"client", call(10, 0), b"ten")
    assert root.says(engine) == [(call(10, 0), b"ten")]


def test_what_is_sent_again_by_an_orphan_and_was_here_already_is_dropped(root, low):
    root.hears(b"client", call(8, 0, 7))
    root.says(low)
    (other,) = root.engines(7)
    root.says(b"client")
    root.hears(b"client", call(9, 0, 7))
    root.says(other)
    root.hears(low, answer(9, 0), b"zero")
    root.says(low)
    loses(root, low, 0, 1)
    engine = root.adopted(engine_child(0), 8, 9)
    root.hears(engine, answer(9, 0), b"zero")
    root.hears(other, answer(9, 7), b"seven")
    assert root.says(b"client")[-1] == (joined(9, {0: 4, 7: 5}), b"zeroseven")
    assert root.counts(b"client", "late") == 1


def test_an_engine_that_ends_together_with_its_scheduler_is_lost_at_once(root, low):
    root.hears(b"client", call(8, 0, 1))
    root.says(low)
    root.loses(low, engine_child(0))
    engine = root.adopted(engine_child(0), 8)
    root.hears(engine, answer(8, 0), b"zero")
    assert root.says(b"client") == [(joined(8, {0: 4}, loss(m.ENGINE_LOST, "killed", 1)), b"zero")]
    root.drains()
    assert root.says(b"client") == [m.Members(ranks(), ranks(1), "killed")]
    assert root.does() == [Close(low)]


def test_an_orphan_that_ends_before_it_has_come_is_lost(root, low):
    root.hears(b"client", call(8, 0))
    root.says(low)
    loses(root, low, 0, 1)
    root.loses(b"engine-0", reason="killed too")
    assert root.says(b"client") == [joined(8, {}, loss(m.ENGINE_LOST, "killed too", 0))]
    root.adopted(engine_child(1))
    root.drains()
    assert root.says(b"client") == [m.Members(ranks(), ranks(0), "killed")]


# --- cancel, clients that go ------------------------------------------------------------------------------------------


def test_what_is_cancelled_while_its_engine_is_an_orphan_is_cancelled_when_it_comes(root, low):
    for request in (8, 9):
        root.hears(b"client", call(request, 0))
    root.says(low)
    loses(root, low, 0, 1)
    root.hears(b"client", m.Cancel([8, 9], running=True))
    assert root.says(b"client") == []
    engine = root.adopted(engine_child(0), 8)
    assert root.says(engine) == [m.Cancel([8], running=True)]
    assert root.does() == [Signal([engine], DOORBELL)]
    assert root.says(b"client") == [joined(9, {}, loss(m.CANCELLED, CANCELLED, 0))]


def test_nothing_is_sent_again_for_a_client_that_has_gone_meanwhile(root, low):
    root.hears(b"client", call(8, 0))
    root.hears(b"client", m.Tasks([task(1), task(2)]))
    root.drains()
    root.says(low)
    loses(root, low, 0, 1)
    root.loses(b"client", reason="its process ended")
    assert root.does() == [Close(b"client")]
    first, second = root.adopted(engine_child(0), 1), root.adopted(engine_child(1))
    root.drains()
    assert root.says(second) == []
    assert root.says(first) == [m.Cancel([1], running=True)]
    assert root.does() == [Signal([first], DOORBELL)]


# --- tasks ------------------------------------------------------------------------------------------------------------


@pytest.fixture
def working(root, low) -> bytes:
    """The scheduler has tasks 1 and 2."""
    root.hears(b"client", m.Tasks([task(1), task(2)]))
    root.drains()
    assert root.says(low) == [m.Tasks([task(1), task(2)])]
    return low


def test_a_task_that_an_orphan_holds_goes_on_there_and_one_that_nobody_holds_goes_elsewhere(root, working):
    loses(root, working, 0, 1)
    first = root.adopted(engine_child(0), 1)
    root.drains()
    assert root.says(first) == []
    second = root.adopted(engine_child(1))
    root.drains()
    assert root.says(second) == [m.Tasks([task(2)])]
    root.hears(first, m.Results([result(1, 0)]))
    root.hears(second, m.Results([result(2, 1)]))
    root.drains()
    assert root.says(b"client") == [m.Results([result(1, 0), result(2, 1)])]


def test_what_may_have_run_in_an_engine_that_was_lost_as_well_does_not_run_again(root, working):
    loses(root, working, 0)
    first = root.adopted(engine_child(0), 1)
    root.drains()
    assert root.says(b"client") == [
        m.Results([ended(2, m.ENGINE_LOST, "killed")]),
        m.Members(ranks(), ranks(1), "killed"),
    ]
    assert root.says(first) == []


def test_word_of_a_lost_engine_is_held_back_until_what_it_owed_is_settled(root, working):
    loses(root, working, 0)
    assert root.says(b"client") == []
    root.hears(b"other", hello("client"))
    (welcome,) = root.says(b"other")
    assert welcome.members == ranks(0)
    root.adopted(engine_child(0), 1)
    root.drains()
    assert [type(word) for word in root.says(b"client")] == [m.Results, m.Members]
    assert [type(word) for word in root.says(b"other")] == [m.Members]


def test_results_that_an_orphan_had_sent_to_the_lost_scheduler_arrive(root, working):
    loses(root, working, 0, 1)
    first = root.adopted(engine_child(0), 1)
    root.hears(first, m.Results([result(1, 0)]))
    root.drains()
    assert root.says(b"client") == [m.Results([result(1, 0)])]
    root.adopted(engine_child(1))
    root.drains()
    root.says(first), root.says(b"engine-1")


# --- an orphan may be quicker than the word of its scheduler's end ----------------------------------------------------


def test_an_orphan_that_comes_early_waits_with_all_it_says(root, working):
    root.hears(b"engine-0", hello("engine", 0, 1, holds=[1]))
    root.hears(b"engine-0", m.Results([result(1, 0)]))
    root.drains()
    assert root.says(b"engine-0") == root.says(b"client") == []
    loses(root, working, 0, 1)
    assert [type(word) for word in root.says(b"engine-0")] == [m.Welcome]
    assert root.says(b"client") == [m.Results([result(1, 0)])]
    root.adopted(engine_child(1), 2)


def test_one_that_came_early_and_has_ended_since_is_turned_away(root, working):
    root.hears(b"engine-0", hello("engine", 0, 1, holds=[1]))
    root.loses(working, engine_child(1))
    assert root.says(b"engine-0") == [m.Refused("PlanError", "it was given up together with its scheduler")]
    assert root.does() == [Close(working), Close(b"engine-0")]
    root.adopted(engine_child(1), 2)
    root.drains()
    assert [type(word) for word in root.says(b"client")] == [m.Results, m.Members]


def test_one_that_came_early_and_has_ended_is_turned_away_before_another_takes_its_name():
    root = Transcript(0, 8, restarts=True)
    root.core.births.adopt([scheduler_child(0, 2)])
    low = root.scheduler(0, 2)
    root.hears(b"engine-0", hello("engine", 0, 1))
    root.loses(low, engine_child(1))
    first, second, spawn = root.does()
    assert (first, second) == (Close(low), Close(b"engine-0"))
    assert [child.first for child in spawn.children] == [0]


def test_one_that_came_early_and_ends_is_forgotten(root, low):
    root.hears(b"engine-0", hello("engine", 0, 1))
    root.loses(b"engine-0")
    loses(root, low, 1)
    root.adopted(engine_child(1))
    assert root.says(b"engine-0") == []
    root.drains()
    root.says(b"client")


def test_who_has_the_wrong_key_does_not_wait_but_is_told(root, low):
    root.hears(b"engine-0", hello("engine", 0, 1, key="guess"))
    assert [word.code for word in root.says(b"engine-0")] == ["NotAuthorised"]
    assert root.does() == [Close(b"engine-0")]


def test_one_that_waits_does_not_say_without_end(root, low):
    root.hears(b"engine-0", hello("engine", 0, 1))
    for _ in range(LINK_MESSAGES_MAX):
        root.hears(b"engine-0", m.Beat())
    assert [word.code for word in root.says(b"engine-0")] == ["CapacityError"]
    assert root.does() == [Close(b"engine-0")]


def test_so_many_children_wait_and_no_more():
    root = Transcript(0, CHILDREN_MAX + 1)
    root.scheduler(0, CHILDREN_MAX + 1)
    for rank in range(CHILDREN_MAX - 1):
        root.hears(b"engine-%d" % rank, hello("engine", rank, rank + 1))
        assert root.says(b"engine-%d" % rank) == []
    root.hears(b"one more", hello("engine", CHILDREN_MAX, CHILDREN_MAX + 1))
    assert [word.code for word in root.says(b"one more")] == ["CapacityError"]


# --- schedulers below the lost one ------------------------------------------------------------------------------------


@pytest.fixture
def high(root) -> bytes:
    """A child scheduler of the root, of ranks 0 to 3, who are engines of two more schedulers."""
    high = root.scheduler(0, 4)
    root.client()
    return high


LEFT, RIGHT = scheduler_child(0, 2, level=2), scheduler_child(2, 4, level=2)


def test_a_scheduler_that_is_adopted_says_who_is_left_below_it(root, high):
    root.loses(high, LEFT, RIGHT)
    left = root.adopted(LEFT)
    root.hears(left, m.Members(ranks(0), ranks(1), "it left meanwhile"))
    root.adopted(RIGHT)
    root.drains()
    assert root.says(b"client") == [m.Members(ranks(), ranks(1), "it left meanwhile")]
    assert root.does() == [Close(high)]
    root.hears(b"client", call(8, 0, 1))
    assert root.says(left) == [call(8, 0)]


def test_an_engine_that_had_left_before_is_not_reported_again(root, high):
    root.hears(high, m.Members(ranks(), ranks(1), "killed"))
    root.drains()
    assert root.says(b"client") == [m.Members(ranks(), ranks(1), "killed")]
    root.loses(high, LEFT, RIGHT)
    left = root.adopted(LEFT)
    root.hears(left, m.Members(ranks(0), ranks(1), "it left meanwhile"))
    root.drains()
    assert root.says(b"client") == []
    assert root.does() == [Close(high)]


def test_an_orphan_that_is_lost_leaves_its_own_children(root, high):
    root.hears(b"client", call(8, 0, 1, 2, 3), b"eight")
    root.says(high)
    root.loses(high, LEFT, RIGHT)
    root.loses(b"scheduler-2-0-2", engine_child(0), engine_child(1))
    for rank in (0, 1):
        assert root.says(root.adopted(engine_child(rank))) == [(call(8, rank), b"eight")]
    right = root.adopted(RIGHT, 8)
    for link, rank in ((b"engine-0", 0), (b"engine-1", 1)):
        root.hears(link, answer(8, rank), b"x")
    root.hears(right, joined(8, {2: 1, 3: 1}), b"xx")
    assert len(root.says(b"client")) == 1
    assert root.does() == [Close(high)]


def test_an_orphan_of_an_orphan_that_comes_early_waits(root, high):
    root.hears(b"engine-0", hello("engine", 0, 1, holds=[8]))
    root.loses(high, LEFT, RIGHT)
    assert root.says(b"engine-0") == []
    root.loses(b"scheduler-2-0-2", engine_child(0), engine_child(1))
    assert [type(word) for word in root.says(b"engine-0")] == [m.Welcome]
    assert root.does() == [Close(high)]


def test_what_an_engine_below_an_orphan_had_answered_before_it_left_is_not_waited_for_when_that_is_lost(root, high):
    root.hears(b"client", call(8, 0))
    root.says(high)
    root.hears(high, m.Members(ranks(), ranks(0), "killed"))
    root.drains()
    root.says(b"client")
    root.loses(high, LEFT, RIGHT)
    assert root.says(b"client") == []  # the left one may have its answer
    root.loses(b"scheduler-2-0-2", engine_child(1))
    assert root.says(b"client") == [joined(8, {}, loss(m.ENGINE_LOST, "killed", 0))]
    assert root.does() == [Close(high)]


def test_nobody_waits_for_an_engine_that_was_gone_before_the_call_could_come_to_it(root, high):
    root.hears(b"client", call(8, 0, 1), b"eight")
    root.says(high)
    root.hears(high, m.Members(ranks(), ranks(1), "killed"))
    root.loses(high, LEFT, RIGHT)
    left = root.adopted(LEFT)
    assert root.says(left) == [(call(8, 0), b"eight")]
    root.hears(left, answer(8, 0), b"zero")
    assert root.says(b"client") == [(joined(8, {0: 4}, loss(m.ENGINE_UNKNOWN, "there is no such engine", 1)), b"zero")]
    assert root.does() == [Close(high)]


def test_nobody_waits_for_an_engine_that_the_lost_scheduler_knew_to_be_gone(root, high):
    root.hears(b"client", call(8, 0, 1), b"eight")
    root.says(high)
    root.loses(high, LEFT, RIGHT)
    left = root.adopted(LEFT, 8, shares={8: [0]})
    assert root.says(left) == []
    root.hears(left, answer(8, 0), b"zero")
    assert root.says(b"client") == [(joined(8, {0: 4}, loss(m.ENGINE_UNKNOWN, "there is no such engine", 1)), b"zero")]
    assert root.does() == [Close(high)]


def test_a_call_is_not_sent_again_to_an_engine_that_is_in_the_place_of_the_one_it_was_for(root, low):
    root.hears(b"client", call(8, 0))
    root.says(low)
    root.hears(low, m.Members(ranks(), ranks(0), "killed"))
    root.drains()
    root.loses(low, engine_child(0), engine_child(1))
    assert root.says(b"client") == [
        m.Members(ranks(), ranks(0), "killed"),
        joined(8, {}, loss(m.ENGINE_LOST, "killed", 0)),
    ]
    assert root.says(root.adopted(engine_child(0))) == []
    root.adopted(engine_child(1))
    root.drains()
    assert root.says(b"client") == [m.Members(ranks(0), ranks(), "")]
    assert root.does() == [Close(low)]


def test_children_of_a_scheduler_that_had_never_come_are_new_ones(root):
    client = root.client()
    root.loses(b"scheduler-1-0-4", engine_child(0), engine_child(1))
    root.adopted(engine_child(0))
    root.drains()
    assert root.says(client) == [m.Members(ranks(0), ranks(), "")]
    root.adopted(engine_child(1))
    root.drains()
    assert root.says(client) == [m.Members(ranks(1), ranks(), "")]
    root.hears(client, call(8, 0, 1))
    assert len(root.says(b"engine-0")) == len(root.says(b"engine-1")) == 1


def test_who_came_before_the_end_of_its_unknown_scheduler_was_known_stays(root):
    client = root.client()
    (first,) = root.engines(0)
    root.says(client)
    root.hears(client, call(8, 0))
    assert len(root.says(first)) == 1
    root.loses(b"scheduler-1-0-2", engine_child(0), engine_child(1))
    root.drains()
    assert root.says(client) == []
    root.hears(first, answer(8, 0), b"zero")
    assert root.says(client) == [(answer(8, 0), b"zero")]


# --- replacements -----------------------------------------------------------------------------------------------------


def test_an_engine_that_is_adopted_and_ends_is_replaced_by_whoever_adopted_it():
    root = Transcript(0, 8, restarts=True)
    low, client = root.scheduler(0, 2), root.client()
    root.loses(low, engine_child(0), engine_child(1))
    engine = root.adopted(engine_child(0))
    root.does()
    root.loses(engine)
    close, spawn = root.does()
    assert (close, spawn.children) == (Close(engine), [engine_child(0, 1)])
    root.hears(client, m.Tasks([m.Task(1, b"F" * 16, [], b"", 0, m.Terms(targets=ranks(0)))]))
    root.drains()
    assert root.says(client) == [m.Members(ranks(), ranks(0), "killed", ranks(0))]
    (another,) = root.engines(0, birth=1)
    assert [type(word) for word in root.says(another)] == [m.Tasks]


def test_that_an_engine_was_replaced_is_told_even_if_its_scheduler_died_before_it_could_tell(root):
    client, low = root.client(), root.scheduler(4, 6)
    assert root.says(client) == [m.Members(ranks(4, 5), ranks(), "")]
    root.loses(low, engine_child(4), engine_child(5, 7))
    for orphan in (engine_child(4), engine_child(5, 7)):
        root.adopted(orphan)
    root.drains()
    assert root.says(client) == [m.Members(ranks(5), ranks(5), "it was replaced", births=[(5, 7)])]
    assert root.does() == [Close(low)]


def test_that_engines_were_replaced_below_an_orphan_is_told_too(root):
    client, low = root.client(), root.scheduler(0, 4)
    assert len(root.says(client)) == 1
    below = scheduler_child(0, 4, 2)
    root.loses(low, below)
    orphan = root.adopted(below)
    root.hears(orphan, m.Members(ranks(0, 1, 2, 3), ranks(), "it left meanwhile", births=[(2, 7)]))
    root.drains()
    assert root.says(client) == [m.Members(ranks(2), ranks(2), "it was replaced", births=[(2, 7)])]
    assert root.does() == [Close(low)]


def test_an_engine_that_ends_together_with_its_scheduler_is_replaced():
    root = Transcript(0, 8, restarts=True)
    root.core.births.adopt([scheduler_child(0, 2)])
    low = root.scheduler(0, 2)
    root.loses(low, engine_child(0))
    close, spawn = root.does()
    assert (close, [(child.kind, child.first) for child in spawn.children]) == (Close(low), [("engine", 1)])


def test_who_was_expected_below_a_lost_scheduler_and_is_no_orphan_is_started_here():
    root = Transcript(0, 8, restarts=True)
    root.core.births.adopt([scheduler_child(0, 4)])
    high = root.scheduler(0, 4)
    root.hears(high, m.Members(ranks(), ranks(1, 2), "killed", ranks(1, 2)))
    below = scheduler_child(0, 2, 2)
    root.loses(high, below, engine_child(3))
    close, spawn = root.does()
    assert (close, [child.first for child in spawn.children]) == (Close(high), [2])
    root.loses(link_of(below), engine_child(0))
    (spawn,) = root.does()
    assert [child.first for child in spawn.children] == [1]


@pytest.mark.parametrize("word", [ChildFailed(engine_child(0), "no memory"), LinkDown(b"engine-0", "no memory")])
def test_a_child_that_never_came_and_is_replaced_is_reported_all_the_same(word):
    root = Transcript(0, 8, restarts=True)
    client = root.client()
    root.core.births.adopt([engine_child(0)])
    root.happens(word)
    root.drains()
    assert root.says(client) == [m.Members(ranks(), ranks(0), "no memory", ranks(0))]
    assert len(root.does()) == 1
