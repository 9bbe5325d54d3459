"""What a scheduler does when neighbours start, stop, fall silent, bring news, or say what is not theirs to say."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from hiersched.core.effects import PARENT, ChildFailed, Climb, Close, Dropped, Exit, LinkDown, Spawn, Started, Woke
from hiersched.core.topology import Child
from hiersched.limits import BEAT_PERIOD_S, LOST_AFTER_S
from hiersched.protocol import messages as m
from tests.core.transcript import (
    FUNCTION,
    Transcript,
    answer,
    call,
    engine_child,
    hello,
    joined,
    loss,
    ranks,
    result,
    task,
)
from tests.protocol import arbitrary

DIGEST = b"D" * 16


# --- start and stop ---------------------------------------------------------------------------------------------------


def test_a_scheduler_starts_its_children(root):
    root.happens(Started())
    (spawn,) = root.does()
    assert [(child.kind, child.first) for child in spawn.children] == [("engine", rank) for rank in range(8)]
    assert isinstance(spawn, Spawn)
    assert root.wake_s == BEAT_PERIOD_S


def test_the_word_to_stop_goes_down_and_clients_are_told(root):
    low, (engine,) = root.scheduler(0, 4), root.engines(7)
    first, second = root.client(b"first"), root.client(b"second")
    root.hears(first, m.Stop("enough"))
    assert root.says(low) == root.says(engine) == [m.Stop("enough")]
    assert root.says(first) == root.says(second) == [m.Bye("enough")]
    assert root.does() == [Exit("enough")]


def test_a_scheduler_stops_when_its_parent_says_so(leaf):
    (engine,) = leaf.engines(4)
    leaf.says(PARENT)
    leaf.hears(PARENT, m.Stop("enough"))
    assert leaf.says(engine) == [m.Stop("enough")]
    assert leaf.does() == [Exit("enough")]


def test_a_scheduler_whose_parent_is_lost_climbs(leaf):
    leaf.happens(LinkDown(PARENT, "killed"))
    assert leaf.does() == [Climb("killed")]
    assert [type(word) for word in leaf.says(PARENT)] == [m.Hello, m.Members]


def test_a_scheduler_that_its_parent_refuses_ends_and_says_why(leaf):
    leaf.hears(PARENT, m.Refused("PlanError", "ranks 4..7 are taken"))
    assert leaf.does() == [Exit("the parent refused this scheduler: ranks 4..7 are taken")]


# --- silence ----------------------------------------------------------------------------------------------------------


def test_where_processes_are_watched_nobody_beats_and_silence_means_nothing(root):
    low = root.scheduler(0, 4)
    root.now_s = 1000.0
    root.happens(Woke())
    assert root.wake_s == 1000.0 + BEAT_PERIOD_S
    assert root.says(low) == []


def test_schedulers_beat_to_each_other_where_nobody_watches():
    middle = Transcript(0, 8, level=1, watched=False)
    low, (engine,) = middle.scheduler(0, 4), middle.engines(7)
    middle.says(PARENT)
    middle.happens(Woke())
    assert middle.says(low) == middle.says(PARENT) == [m.Beat()]
    assert middle.says(engine) == []


def test_who_has_climbed_does_not_miss_the_beats_of_its_former_parent():
    leaf = Transcript(4, 8, level=1, watched=False)
    leaf.happens(Started())
    leaf.now_s = LOST_AFTER_S + 0.1
    leaf.does(), leaf.climbs()
    leaf.happens(Woke())
    assert leaf.does() == []


def test_a_scheduler_that_misses_its_beats_is_lost_and_an_engine_never_is():
    root = Transcript(0, 8, watched=False)
    root.happens(Started())
    silent, beating, (engine,) = root.scheduler(0, 2), root.scheduler(2, 4), root.engines(7)
    client = root.client()
    root.hears(client, call(1, 0, 7), b"shared")
    root.does(), root.passes(LOST_AFTER_S)
    root.hears(beating, m.Beat())
    assert (root.says(client), root.does()) == ([], [])
    root.passes(BEAT_PERIOD_S)
    assert root.does() == [Close(silent)]
    assert root.says(client) == [m.Members(ranks(), ranks(0, 1), "it missed its beats")]
    root.hears(engine, answer(1, 7), b"seven")
    assert root.says(client) == [(joined(1, {7: 5}, loss(m.ENGINE_LOST, "it missed its beats", 0)), b"seven")]


def test_a_scheduler_that_hears_nothing_from_its_parent_ends():
    leaf = Transcript(4, 8, level=1, watched=False)
    leaf.happens(Started())
    leaf.now_s = LOST_AFTER_S + 0.1
    leaf.does()
    leaf.happens(Woke())
    assert Exit("the parent missed its beats") in leaf.does()


# --- news of engines --------------------------------------------------------------------------------------------------


def test_news_from_below_is_gathered_and_passed_on(root):
    low, high = root.scheduler(0, 4), root.scheduler(4, 8)
    client = root.client()
    root.hears(low, m.Members(ranks(), ranks(1, 2), "killed"))
    root.hears(high, m.Members(ranks(), ranks(5), "killed too"))
    root.drains()
    assert root.says(client) == [m.Members(ranks(), ranks(1, 2, 5), "killed too")]


def test_a_child_that_never_came_has_left(root):
    client = root.client()
    root.happens(ChildFailed(Child("engine", 3, 4, "here", 1), "no memory"))
    root.drains()
    assert root.says(client) == [m.Members(ranks(), ranks(3), "no memory")]


def test_engines_that_never_came_are_reported_up_to_the_clients(root):
    low = root.scheduler(0, 4)
    client = root.client()
    root.hears(low, m.Bye("done"))
    root.does()
    root.drains()
    root.says(client)
    root.hears(b"again", hello("scheduler", 0, 4))
    root.hears(b"again", m.Members(ranks(0, 1), ranks(2, 3), "no memory"))
    root.drains()
    assert root.says(client) == [m.Members(ranks(0, 1), ranks(2, 3), "no memory")]
    assert len(root.says(b"again")) == 1


def test_a_child_brings_no_news_of_engines_that_are_not_its_own(root):
    low, high = root.scheduler(0, 4), root.scheduler(4, 8)
    client = root.client()
    root.hears(low, m.Members(ranks(5, 9), ranks(6), "it dreamt"))
    root.drains()
    assert root.says(client) == []
    root.hears(client, call(1, 6, 9), b"shared")
    assert root.says(high) == [(call(1, 6), b"shared")]


def test_an_engine_that_left_and_came_back_at_once_is_there(root):
    low = root.scheduler(0, 4)
    client = root.client()
    root.hears(low, m.Members(ranks(2), ranks(2), "killed, started again"))
    root.drains()
    assert root.says(client) == [m.Members(ranks(2), ranks(2), "killed, started again")]
    root.hears(client, call(1, 2), b"shared")
    assert root.says(low) == [(call(1, 2), b"shared")]


def test_a_neighbour_that_is_not_known_can_go(root):
    root.happens(LinkDown(b"stranger", "killed"))
    root.drains()


# --- what is not theirs to say ----------------------------------------------------------------------------------------

FROM_ABOVE = [
    call(1, 0),
    m.Tasks([task(1)]),
    m.Cancel([1]),
    m.Missing([DIGEST]),
    m.Survey(1),
    m.Order(1, ranks(0), "stop"),
    m.Grow(1, 1),
    m.Why(1, 1),
    m.Ack(1, []),
    m.Stop("enough"),
    m.Welcome(1, ranks(), {}),
    m.Refused("PlanError", "taken"),
]
FROM_BELOW = [
    answer(1, 0, frames=0),
    m.Results([result(1, 0)]),
    m.Members(ranks(1), ranks(), ""),
    m.Want([DIGEST]),
    m.Census(1, []),
    m.Executed(1, ranks(0)),
    m.Because(1, "sent", "", ranks(0)),
    m.Outputs([]),
]


def name_of(message: m.Message) -> str:
    return type(message).__name__


@pytest.mark.parametrize("message", [*FROM_ABOVE, hello("engine", 1, 2)], ids=name_of)
def test_a_child_does_not_command(root, message):
    (engine,) = root.engines(0)
    client = root.client()
    root.hears(engine, message)
    root.drains()
    assert root.says(engine) == []
    assert root.counts(client, "malformed") == 1


@pytest.mark.parametrize(
    "message",
    [m.Members(ranks(), ranks(0), "it says"), m.Census(1, []), m.Executed(1, ranks()), m.Because(1, "", "", ranks())],
    ids=name_of,
)
def test_an_engine_does_not_speak_for_a_subtree(root, message):
    (engine,) = root.engines(0)
    client = root.client()
    root.hears(engine, message)
    root.drains()
    assert root.says(client) == []
    assert root.counts(client, "malformed") == 1


@pytest.mark.parametrize(
    "message",
    [*FROM_BELOW, hello("engine", 1, 2), m.Refused("PlanError", "taken"), m.Welcome(1, ranks(), {}), m.Ack(1, [])],
    ids=name_of,
)
def test_a_client_does_not_speak_for_a_child_or_a_parent(root, message):
    root.engines(0)
    client = root.client()
    root.hears(client, message)
    root.drains()
    assert root.does() == []
    assert root.counts(client, "malformed") == 1


@pytest.mark.parametrize("message", [*FROM_BELOW, hello("scheduler", 4, 8)], ids=name_of)
def test_a_parent_does_not_speak_for_a_child(leaf, message):
    leaf.hears(PARENT, message)
    leaf.drains()
    assert leaf.counts(PARENT, "malformed") == 1


def test_what_was_no_message_is_counted_by_kind(root):
    client = root.client()
    for kind in ("malformed", "version", "malformed"):
        root.happens(Dropped(kind))
    assert (root.counts(client, "malformed"), root.counts(client, "version")) == (2, 1)


speakers = st.sampled_from(
    [b"engine-0", b"engine-1", b"scheduler-1-2-4", b"engine-4", b"client", b"other", b"stranger"]
)


@given(st.lists(st.tuples(speakers, arbitrary.messages()), max_size=12))
def test_nothing_that_anybody_says_breaks_a_scheduler(talk):
    root = Transcript(0, 8)
    (engine, _), _, lost = root.engines(0, 1), root.scheduler(2, 4), root.scheduler(4, 6)
    root.loses(lost, engine_child(4), engine_child(5))
    root.client(b"client")
    root.client(b"other")
    root.hears(b"client", call(1, 0, 1, 2, needs=[FUNCTION]), b"shared")
    root.hears(b"client", m.Tasks([task(number) for number in range(5)]))
    root.drains()
    for speaker, message in talk:
        root.hears(speaker, message, *[b"frame"] * arbitrary.announced_frames(message))
        root.drains()
    root.happens(LinkDown(engine, "killed"))
    root.loses(b"scheduler-1-2-4", engine_child(2))
    root.happens(Woke())
