"""Whom a scheduler lets in, and what it tells the others."""

from __future__ import annotations

import pytest

from hiersched import errors
from hiersched.core.effects import PARENT, Close
from hiersched.core.place import Place
from hiersched.kernels import bitset
from hiersched.limits import CHILDREN_MAX, CLIENTS_MAX
from hiersched.protocol import messages as m
from tests.core.transcript import Transcript, hello, ranks

STRANGER = b"stranger"
KEEP, NO_NEED = [m.Welcome(0, ranks(), {"keep": keep}) for keep in (True, False)]


def test_an_engine_is_welcomed_and_its_coming_is_news_to_the_clients(root):
    client = root.client()
    root.hears(b"engine-3", hello("engine", 3, 4))
    assert root.says(b"engine-3") == [NO_NEED]
    assert root.says(client) == []
    root.drains()
    assert root.says(client) == [m.Members(ranks(3), ranks(), "")]


def test_the_coming_of_many_is_one_piece_of_news_to_the_parent(leaf):
    leaf.engines(4, 5, 7)
    assert leaf.says(PARENT) == [m.Members(ranks(4, 5, 7), ranks(), "")]
    leaf.drains()
    assert leaf.says(PARENT) == []


def test_a_client_learns_who_is_there_and_how_the_tree_looks(root):
    root.engines(0, 1, 5)
    root.hears(b"client", hello("client"))
    (welcome,) = root.says(b"client")
    assert welcome.members == ranks(0, 1, 5)
    assert welcome.facts["plan"]["depth"] == 1


def test_a_client_hears_of_each_engine_once(root):
    root.hears(b"engine-0", hello("engine", 0, 1))
    root.hears(b"client", hello("client"))
    (welcome,) = root.says(b"client")
    root.drains()
    (news,) = root.says(b"client")
    assert (welcome.members, news.joined) == (ranks(), ranks(0))
    assert root.says(b"engine-0") == [NO_NEED]


def test_who_is_not_a_child_of_the_root_has_to_keep_its_answers(leaf):
    leaf.hears(b"engine-4", hello("engine", 4, 5))
    assert leaf.says(b"engine-4") == [KEEP]


def test_no_two_clients_have_the_same_session(root):
    sessions = set()
    for name in (b"first", b"second", b"first"):
        root.hears(name, hello("client"))
        (welcome,) = root.says(name)
        sessions.add(welcome.session)
        root.hears(name, m.Bye("done"))
        assert root.does() == [Close(name)]
    assert len(sessions) == 3


@pytest.mark.parametrize(
    ("peer", "code", "remedy"),
    [
        pytest.param(hello("engine", 0, 1, key="guess"), "NotAuthorised", "use the connection file", id="wrong key"),
        pytest.param(hello("client", key=""), "NotAuthorised", "use the connection file", id="client without key"),
        pytest.param(hello("client", cluster="old"), "ConnectionFileError", "stale", id="another cluster's client"),
        pytest.param(hello("engine", 8, 9), "PlanError", "8..8 do not belong", id="rank beyond the last"),
        pytest.param(hello("scheduler", 6, 9), "PlanError", "6..8 do not belong", id="range beyond the last"),
        pytest.param(hello("scheduler", 5, 5), "PlanError", "do not belong", id="no rank at all"),
        pytest.param(hello("scheduler", 5, 3), "PlanError", "do not belong", id="range turned round"),
        pytest.param(hello("engine", 2, 3), "PlanError", "2..2 are taken", id="rank already there"),
        pytest.param(hello("scheduler", 1, 4), "PlanError", "1..3 are taken", id="range with a rank already there"),
        pytest.param(hello("engine", 4, 6), "PlanError", "one rank", id="engine of two ranks"),
    ],
)
def test_a_peer_that_does_not_belong_here_is_told_why_and_stays_outside(root, peer, code, remedy):
    root.engines(2)
    root.hears(STRANGER, peer)
    (refused,) = root.says(STRANGER)
    assert refused.code == code
    assert remedy in refused.text
    assert issubclass(getattr(errors, code), errors.HierschedError)
    root.hears(STRANGER, m.Beat())
    assert [type(word) for word in root.says(STRANGER)] == [m.Refused]
    assert root.does() == [Close(STRANGER), Close(STRANGER)]


def test_clients_are_sent_to_the_root(leaf):
    leaf.hears(STRANGER, hello("client"))
    assert leaf.says(STRANGER) == [m.Refused("NotAuthorised", "clients connect to the root")]
    assert leaf.does() == [Close(STRANGER)]


def test_an_engine_of_another_leaf_is_not_let_in(leaf):
    leaf.hears(STRANGER, hello("engine", 0, 1))
    assert leaf.says(STRANGER) == [m.Refused("PlanError", "ranks 0..0 do not belong to this scheduler")]
    assert leaf.does() == [Close(STRANGER)]


def test_who_has_not_said_hello_is_not_listened_to(root):
    root.hears(STRANGER, m.Stop("just because"))
    assert root.says(STRANGER) == [m.Refused("NotAuthorised", "this link has not said hello; connect again")]
    assert root.does() == [Close(STRANGER)]


def test_the_root_has_no_parent_to_listen_to(root):
    root.hears(PARENT, m.Stop("says who"))
    assert [type(word) for word in root.says(PARENT)] == [m.Refused]
    assert root.does() == [Close(PARENT)]


def test_strangers_are_counted(root):
    client = root.client()
    root.hears(STRANGER, hello("engine", 0, 1, key="guess"))
    root.hears(STRANGER, m.Want([bytes(16)]))
    root.hears(STRANGER, hello("engine", 9, 10))
    assert (root.counts(client, "unauthorised"), root.counts(client, "refused")) == (2, 1)
    assert len(root.says(STRANGER)) == len(root.does()) == 3


def test_the_root_has_room_for_so_many_clients_and_no_more(root):
    for number in range(CLIENTS_MAX):
        root.client(b"client-%d" % number)
    root.hears(STRANGER, hello("client"))
    assert root.says(STRANGER) == [m.Refused("CapacityError", f"the root already has {CLIENTS_MAX} clients")]
    root.hears(b"client-7", m.Bye("done"))
    root.client(STRANGER)
    assert root.does() == [Close(STRANGER), Close(b"client-7")]


def test_a_scheduler_has_room_for_so_many_children_and_no_more():
    wide = Transcript(0, CHILDREN_MAX + 1)
    wide.engines(*range(CHILDREN_MAX))
    wide.hears(STRANGER, hello("engine", CHILDREN_MAX, CHILDREN_MAX + 1))
    assert [word.code for word in wide.says(STRANGER)] == ["CapacityError"]
    client = wide.client()
    assert wide.counts(client, "engines") == CHILDREN_MAX


def test_a_rank_is_free_again_when_its_engine_has_gone(root):
    (engine,) = root.engines(6)
    root.hears(engine, m.Bye("done"))
    assert root.does() == [Close(engine)]
    root.engines(6, birth=1)
    root.hears(b"client", hello("client"))
    (welcome,) = root.says(b"client")
    assert bitset.from_wire(welcome.members) == 1 << 6


def test_ranks_that_are_given_at_run_time_lie_outside_of_the_plan():
    leaf = Place("here", "key", 1, m.NO_RANK, m.NO_RANK)
    guest = m.Hello("here", "key", "engine", "uuid", 1, "host", 8, 9)
    assert leaf.is_for_guests
    assert not Place("here", "key", 0, 0, 4, guests=True).is_for_guests
    assert leaf.refusal(guest) is not None
    assert leaf.refusal(guest, enrolled=True) is None
    stranger = m.Hello("here", "guessed", "engine", "uuid", 1, "host", 8, 9)
    refused = leaf.refusal(stranger, enrolled=True)
    assert refused is not None
    assert refused.code == "NotAuthorised"
