"""Guests ask for ranks: what the leaf for guests says, and what the root says to it."""

from __future__ import annotations

from collections.abc import Iterator

import msgspec
import pytest

from hiersched.core.effects import PARENT, Close, Link, LinkDown, Signal, Spawn, Started, WakeAt, link_of
from hiersched.core.enrolment import is_for_guests
from hiersched.core.place import Place
from hiersched.core.scheduler import SchedulerCore
from hiersched.core.topology import Child
from hiersched.limits import CHILDREN_MAX, ENGINES_MAX, STOP_TIMEOUT_S
from hiersched.protocol import messages as m
from tests.core.transcript import (
    CLUSTER,
    FACTS,
    KEY,
    Transcript,
    answer,
    call,
    engine_child,
    hello,
    loss,
    planned,
    ranks,
)

LEAF = Child("scheduler", m.NO_RANK, m.NO_RANK, "here", 1)
TREE = 8  # engines of the plan


def scheduler(place: Place) -> Iterator[Transcript]:
    """A scheduler of a cluster of 8 engines and guests."""
    made = Transcript(0, TREE)
    made.core = SchedulerCore(place, planned(TREE), FACTS)
    yield made
    assert made.unseen() == {}


@pytest.fixture
def root() -> Iterator[Transcript]:
    """The root."""
    yield from scheduler(Place(CLUSTER, KEY, 0, 0, TREE, guests=True))


@pytest.fixture
def leaf() -> Iterator[Transcript]:
    """The leaf for guests."""
    yield from scheduler(Place(CLUSTER, KEY, 1, m.NO_RANK, m.NO_RANK))


def leaf_comes(root: Transcript) -> Link:
    link = link_of(LEAF)
    root.comes(link, hello("scheduler", m.NO_RANK, m.NO_RANK))
    return link


def given(root: Transcript, link: Link, wanted: int = -1) -> int:
    """The rank that the root gives to a guest."""
    root.hears(link, m.Enrol("guest-1", wanted))
    (enrolled,) = root.says(link)
    assert enrolled.guest == "guest-1"
    return enrolled.rank


def guest_comes(leaf: Transcript, name: bytes, rank: int) -> None:
    """A guest with a new rank."""
    leaf.hears(name, m.Enrol(name.decode()))
    assert leaf.says(PARENT) == [m.Enrol(name.decode())]
    leaf.hears(PARENT, m.Enrolled(name.decode(), rank))
    assert leaf.says(name) == [m.Enrolled(name.decode(), rank)]
    leaf.comes(name, hello("engine", rank, rank + 1))
    leaf.drains()
    (news,) = leaf.says(PARENT)
    assert news.joined == ranks(rank)


# --- the root ---------------------------------------------------------------------------------------------------------


def test_the_root_starts_the_leaf_beside_the_children_of_its_plan(root: Transcript):
    root.happens(Started())
    planned, leaf = [effect.children for effect in root.does() if isinstance(effect, Spawn)]
    assert len(planned) == TREE
    assert leaf == [LEAF]
    assert is_for_guests(LEAF)
    assert not any(map(is_for_guests, planned))


def test_ranks_are_new_unless_a_free_one_is_wanted(root: Transcript):
    link = leaf_comes(root)
    assert given(root, link) == 8
    assert given(root, link, wanted=12) == 12
    assert given(root, link, wanted=10) == 10  # was passed over
    assert given(root, link, wanted=10) == 13
    assert given(root, link, wanted=3) == 14  # is the plan's, whether or not its engine is there
    assert root.core.place.last == 15


def test_engines_that_are_added_come_after_all_guests(root: Transcript):
    link = leaf_comes(root)
    assert given(root, link, wanted=11) == 11
    client = root.client()
    root.hears(client, m.Grow(1, 2))
    assert root.says(client) == [m.Executed(1, ranks(12, 13))]
    assert [effect.children[0].first for effect in root.does()] == [12]
    assert given(root, link, wanted=12) == 14


def test_above_the_highest_rank_there_is_none(root: Transcript):
    link = leaf_comes(root)
    assert given(root, link, wanted=ENGINES_MAX - 1) == ENGINES_MAX - 1
    assert given(root, link) == m.NO_RANK


def test_only_the_leaf_for_guests_may_ask(root: Transcript):
    link = root.scheduler(4, 8)
    root.says(link)
    root.hears(link, m.Enrol("guest", -1))
    assert root.core.outbox.counts["malformed"] == 1


def test_a_cluster_without_guests_has_no_leaf_for_them(root: Transcript):
    root.core.place = msgspec.structs.replace(root.core.place, guests=False)
    link = link_of(LEAF)
    root.hears(link, hello("scheduler", m.NO_RANK, m.NO_RANK))
    (refused,) = root.says(link)
    assert refused.code == "PlanError"
    assert root.does() == [Close(link)]


def test_nobody_else_may_come_with_the_rank_of_a_guest(root: Transcript):
    link = leaf_comes(root)
    rank = given(root, link)
    impostor = link_of(engine_child(rank))
    root.hears(impostor, hello("engine", rank, rank + 1))
    (refused,) = root.says(impostor)
    assert refused.code == "PlanError"
    assert root.does() == [Close(impostor)]


def test_there_is_one_leaf_for_guests(root: Transcript):
    leaf_comes(root)
    root.hears(b"another", hello("scheduler", m.NO_RANK, m.NO_RANK))
    (refused,) = root.says(b"another")
    assert refused.code == "PlanError"
    assert root.does() == [Close(b"another")]


def test_a_call_is_split_between_the_leaf_and_those_around_its_ranks(root: Transcript):
    link, engines = leaf_comes(root), root.engines(0, 1)
    rank = given(root, link)
    root.hears(link, m.Members(ranks(rank), ranks(), ""))
    root.drains()
    client = root.client()
    parts = [m.Part(1, []) for _ in range(2)]
    root.hears(client, call(1, 1, rank, parts=parts), b"for 1", b"for the guest")
    root.hears(client, m.Blob(b"F" * 16), b"function")
    assert root.says(engines[1])[-1] == (call(1, 1, parts=parts[:1]), b"for 1")
    assert (call(1, rank, parts=parts[:1]), b"for the guest") in root.says(link)
    root.loses(link, reason="its scheduler was lost")
    root.hears(engines[1], answer(1, 1), b"done")
    replies = root.says(client)
    assert any(loss(m.ENGINE_LOST, "its scheduler was lost", rank) in reply[0].losses for reply in replies if reply[0])
    root.does()


# --- the leaf ---------------------------------------------------------------------------------------------------------


def test_the_leaf_starts_nobody(leaf: Transcript):
    leaf.happens(Started())
    assert all(isinstance(effect, WakeAt) for effect in leaf.does())


def test_a_guest_is_an_engine_once_it_has_a_rank(leaf: Transcript):
    guest_comes(leaf, b"guest-1", 8)
    leaf.hears(PARENT, m.Blob(b"F" * 16), b"function")
    leaf.hears(PARENT, call(1, 8), b"arguments")
    assert leaf.says(b"guest-1")[-1] == (call(1, 8), b"arguments")
    leaf.hears(b"guest-1", answer(1, 8), b"value")
    assert leaf.says(PARENT) == [(answer(1, 8), b"value")]


def test_no_guest_may_come_with_another_rank_than_its_own(leaf: Transcript):
    guest_comes(leaf, b"guest-1", 8)
    leaf.hears(b"guest-2", hello("engine", 8, 9))
    (refused,) = leaf.says(b"guest-2")
    assert refused.code == "PlanError"
    assert leaf.does() == [Close(b"guest-2")]


def test_the_rank_of_a_guest_that_left_is_given_to_who_wants_it_without_asking_the_root(leaf: Transcript):
    guest_comes(leaf, b"guest-1", 8)
    leaf.loses(b"guest-1")
    leaf.drains()
    assert leaf.says(PARENT)[0].left == ranks(8)
    assert leaf.does() == [Close(b"guest-1")]
    leaf.hears(b"guest-2", m.Enrol("guest-2", 8))
    assert leaf.says(b"guest-2") == [m.Enrolled("guest-2", 8)]
    leaf.hears(b"guest-3", m.Enrol("guest-3", 8))  # too late: it is about to come
    assert leaf.says(PARENT) == [m.Enrol("guest-3", 8)]


def test_a_guest_that_leaves_before_its_hello_leaves_its_rank(leaf: Transcript):
    leaf.hears(b"guest-1", m.Enrol("guest-1"))
    assert leaf.says(PARENT) == [m.Enrol("guest-1")]
    leaf.happens(LinkDown(b"guest-1", "it gave up"))
    assert leaf.does() == [Close(b"guest-1")]
    leaf.hears(PARENT, m.Enrolled("guest-1", 8))
    leaf.drains()
    leaf.hears(b"guest-2", m.Enrol("guest-2", 8))
    assert leaf.says(b"guest-2") == [m.Enrolled("guest-2", 8)]


def test_where_there_is_no_room_a_guest_is_told_so(leaf: Transcript):
    leaf.hears(b"guest-1", m.Enrol("guest-1"))
    leaf.says(PARENT)
    leaf.hears(PARENT, m.Enrolled("guest-1", m.NO_RANK))
    assert leaf.says(b"guest-1") == [m.Enrolled("guest-1", m.NO_RANK)]
    assert leaf.does() == [Close(b"guest-1")]
    for number in range(CHILDREN_MAX):
        leaf.hears(b"guest-%d" % number, m.Enrol(f"guest-{number}"))
    assert len(leaf.says(PARENT)) == CHILDREN_MAX
    leaf.hears(b"one-more", m.Enrol("one-more"))
    assert leaf.says(b"one-more") == [m.Enrolled("one-more", m.NO_RANK)]
    assert leaf.does() == [Close(b"one-more")]


def test_who_asks_twice_or_for_somebody_else_is_not_heard(leaf: Transcript):
    leaf.hears(b"guest-1", m.Enrol("guest-1"))
    leaf.hears(b"guest-1", m.Enrol("guest-1"))
    leaf.hears(b"guest-2", m.Enrol("guest-3"))
    assert leaf.says(PARENT) == [m.Enrol("guest-1")]
    assert leaf.core.outbox.counts["malformed"] == 2


def test_guests_are_signalled_and_stopped_but_not_started_again(leaf: Transcript):
    guest_comes(leaf, b"guest-1", 8)
    leaf.hears(PARENT, m.Order(1, ranks(8), "signal", 2))
    assert (leaf.says(PARENT), leaf.does()) == ([m.Executed(1, ranks(8))], [Signal([b"guest-1"], 2)])
    leaf.hears(PARENT, m.Order(2, ranks(8), "restart"))
    assert (leaf.says(PARENT), leaf.does()) == ([m.Executed(2, ranks())], [])
    leaf.hears(PARENT, m.Order(3, ranks(8), "stop"))
    assert (leaf.says(PARENT), leaf.does()) == ([m.Executed(3, ranks(8))], [Signal([b"guest-1"], 15)])
    leaf.passes(STOP_TIMEOUT_S)
    assert leaf.does() == [Signal([b"guest-1"], 9)]
