"""Clients come, leave their sessions to others, join them again, let the cluster grow, and go."""

from __future__ import annotations

import msgspec
import pytest

from hiersched.core.effects import DOORBELL, Close, Signal
from hiersched.limits import CONNECT_TIMEOUT_S, TASKS_IN_FLIGHT_PER_CLIENT_MAX
from hiersched.protocol import messages as m
from tests.core.transcript import FUNCTION, KEY, Transcript, answer, call, hello, joined, outputs, ranks, result, task

SESSION = 1 << m.SESSION_SHIFT


def comes(root: Transcript, link: bytes = b"client", *, detached: bool = True) -> m.Welcome:
    """A client says hello. How it is welcomed."""
    return root.comes(link, hello("client", detached=detached))


@pytest.fixture
def engine(root) -> bytes:
    """The only engine of the root."""
    (engine,) = root.engines(0)
    return engine


# --- sessions ---------------------------------------------------------------------------------------------------------


def test_a_new_client_is_told_about_the_cluster(root, engine):
    welcome = comes(root)
    assert (welcome.session, welcome.members) == (1, ranks(0))
    assert welcome.facts["tasks_in_flight_max"] == TASKS_IN_FLIGHT_PER_CLIENT_MAX
    assert (welcome.facts["next"], welcome.facts["open"]) == (1, [])


def test_work_goes_on_while_a_detached_client_is_away_and_the_next_one_hears_all_of_it(root, engine):
    comes(root)
    root.hears(b"client", call(SESSION + 1, 0))
    root.hears(b"client", m.Tasks([task(SESSION + 2)]))
    root.drains()
    assert len(root.says(engine)) == 2
    root.loses(b"client", reason="its process ended")
    assert root.does() == [Close(b"client")]
    assert root.says(engine) == []
    words, text = outputs(SESSION + 1, b"working", 0)
    root.hears(engine, words, text)
    root.hears(engine, answer(SESSION + 1, 0), b"zero")
    root.hears(engine, m.Results([result(SESSION + 2, 0)]))
    root.drains()
    welcome = comes(root)
    assert (welcome.session, welcome.facts["next"]) == (1, 3)
    assert sorted(welcome.facts["open"]) == [[SESSION + 1, [0, b"\x01"]], [SESSION + 2, None]]
    assert root.says(b"client") == [
        (words, text),
        m.Results([result(SESSION + 2, 0)]),
        (answer(SESSION + 1, 0), b"zero"),
    ]


def test_what_is_open_when_a_session_is_joined_again_is_answered_then(root):
    first, _ = root.engines(0, 1)
    comes(root)
    root.hears(b"client", call(SESSION + 1, 0, 1))
    root.hears(b"client", m.Tasks([task(SESSION + 2), task(SESSION + 3), task(SESSION + 4)]))
    root.drains()
    root.hears(b"client", m.Bye("done", stays=True))
    root.hears(first, answer(SESSION + 1, 0), b"zero")
    root.passes(1.0)
    welcome = comes(root)
    assert sorted(welcome.facts["open"]) == [
        [SESSION + 1, [0, b"\x03"]],
        [SESSION + 2, None],
        [SESSION + 3, None],
        [SESSION + 4, None],
    ]
    assert root.says(b"client") == [(joined(SESSION + 1, {0: 4}), b"zero")]
    root.hears(b"engine-1", answer(SESSION + 1, 1), b"one")
    assert root.says(b"client") == [(answer(SESSION + 1, 1), b"one")]
    assert root.does() == [Close(b"client")]
    root.says(first), root.says(b"engine-1")


def test_a_task_whose_result_is_about_to_be_passed_on_is_open_to_the_client_that_joins(root, engine):
    comes(root)
    root.hears(b"client", m.Tasks([task(SESSION + 1)]))
    root.drains()
    root.hears(b"client", m.Bye("done", stays=True))
    root.hears(engine, m.Results([result(SESSION + 1, 0)]))
    assert comes(root).facts["open"] == [[SESSION + 1, None]]
    root.drains()
    assert root.says(b"client") == [m.Results([result(SESSION + 1, 0)])]
    assert root.does() == [Close(b"client")]
    root.says(engine)


def test_what_ended_while_the_client_was_away_is_known_to_tasks_that_come_after_it(root, engine):
    comes(root)
    root.hears(b"client", m.Tasks([task(SESSION + 1)]))
    root.drains()
    root.hears(b"client", m.Bye("done", stays=True))
    root.hears(engine, m.Results([result(SESSION + 1, 0)]))
    root.drains()
    comes(root)
    assert root.says(b"client") == [m.Results([result(SESSION + 1, 0)])]
    after = m.Terms(after=m.Dependency([SESSION + 1]))
    root.hears(b"client", m.Tasks([m.Task(SESSION + 2, b"F" * 16, [], b"", 0, after)]))
    root.drains()
    assert [batch.tasks[0].id for batch in root.says(engine)] == [SESSION + 1, SESSION + 2]
    assert root.does() == [Close(b"client")]


def test_a_client_that_comes_again_before_it_is_known_to_be_gone_has_its_session(root, engine):
    assert comes(root).session == 1
    root.hears(b"client", call(SESSION + 1, 0))
    assert comes(root).session == 1
    root.hears(engine, answer(SESSION + 1, 0), b"zero")
    assert root.says(b"client") == [(answer(SESSION + 1, 0), b"zero")]
    root.says(engine)


def asks_to_join(root: Transcript, session: str, *, key: str = KEY) -> m.Message:
    """A client that is about to join a session says so. How it is answered."""
    introduction = msgspec.structs.replace(hello("client", key=key), uuid=session, joins=True)
    root.hears(b"asker", introduction)
    (answer,) = root.says(b"asker")
    return answer


def test_who_is_in_a_session_that_another_joins_is_told(root, engine):
    comes(root)
    assert asks_to_join(root, "client") == m.Bye("the session can be joined")
    assert [word.code for word in root.says(b"client")] == ["SessionTaken"]
    assert root.does() == [Close(b"client"), Close(b"asker")]
    assert comes(root).session == 1


def test_a_session_that_was_left_can_be_joined_at_once_by_one(root):
    comes(root)
    root.loses(b"client")
    assert asks_to_join(root, "client") == m.Bye("the session can be joined")
    assert asks_to_join(root, "client").code == "SessionTaken"
    root.passes(CONNECT_TIMEOUT_S)  # the first never came
    assert asks_to_join(root, "client") == m.Bye("the session can be joined")
    comes(root)
    assert asks_to_join(root, "client") == m.Bye("the session can be joined")
    assert [word.text for word in root.says(b"client")] == ["another client has joined this session, process 1 on here"]
    assert root.does().count(Close(b"client")) == 2


def test_what_a_client_says_that_had_to_leave_its_session_is_nobodys(root, engine):
    comes(root)
    asks_to_join(root, "client")
    root.does(), root.says(b"client")
    root.hears(b"client", call(SESSION + 1, 0))
    assert root.says(b"client") == root.does() == root.says(engine) == []


def test_a_session_that_does_not_outlive_its_client_cannot_be_joined(root):
    comes(root, detached=False)
    comes(root, b"other")
    refused = asks_to_join(root, "client")
    assert (refused.code, refused.text) == (
        "UnknownSession",
        "there is no session 'client' that outlives its client; those that do: other",
    )
    assert root.does() == [Close(b"asker")]
    assert root.says(b"client") == []


def test_the_sessions_that_can_be_joined_are_named_within_reason(root):
    assert asks_to_join(root, "typo").text.endswith("those that do: there are none")
    for number in range(10):
        comes(root, b"session-%d" % number)
    assert asks_to_join(root, "typo").text.endswith("session-8, session-9, and 2 others")
    assert root.does() == [Close(b"asker")] * 2


def test_who_has_not_the_key_sends_nobody_out_of_a_session(root):
    comes(root)
    assert asks_to_join(root, "client", key="guess").code == "NotAuthorised"
    assert root.does() == [Close(b"asker")]
    assert root.says(b"client") == []


def test_an_ordinary_client_that_comes_again_begins_anew(root, engine):
    assert comes(root, detached=False).session == 1
    root.hears(b"client", call(SESSION + 1, 0))
    assert comes(root, detached=False).session == 2
    assert root.says(engine)[-1] == m.Cancel([SESSION + 1], running=True)
    assert root.does() == [Signal([engine], DOORBELL)]
    root.hears(engine, answer(SESSION + 1, 0), b"zero")
    assert root.says(b"client") == []


def test_a_client_with_the_wrong_key_that_takes_a_name_over_gets_no_session(root, engine):
    comes(root)
    root.hears(b"client", hello("client", key="guess"))
    assert [word.code for word in root.says(b"client")] == ["NotAuthorised"]
    assert root.does() == [Close(b"client")]
    assert comes(root).session == 1


def test_a_client_does_not_become_an_engine(root):
    comes(root)
    root.hears(b"client", hello("engine", 0, 1))
    assert root.counts(b"client", "malformed") == 1


def test_the_tasks_of_an_ordinary_client_are_withdrawn_when_it_goes(root, engine):
    comes(root, detached=False)
    root.hears(b"client", m.Tasks([task(SESSION + 1), task(SESSION + 2)]))
    root.drains()
    assert len(root.says(engine)) == 1
    root.loses(b"client")
    assert root.says(engine) == [m.Cancel([SESSION + 1], running=True)]
    assert root.does() == [Signal([engine], DOORBELL), Close(b"client")]


def test_a_client_that_is_away_is_not_asked_for_what_the_tasks_of_its_session_need(root, engine):
    comes(root)
    first, second = task(SESSION + 1), m.Task(SESSION + 2, FUNCTION, [], b"", 0, m.Terms(inputs=[SESSION + 1]))
    root.hears(b"client", m.Tasks([first, second]))
    root.drains()
    assert root.says(engine) == [m.Tasks([first])]
    root.loses(b"client")
    root.hears(engine, m.Results([result(SESSION + 1, 0, frames=1)]), b"large")
    root.drains()
    ((sent,),) = [word.tasks for word in root.says(engine)]
    root.hears(engine, m.Want(sent.needs))
    assert root.says(engine) == [m.Missing([m.result_digest(SESSION + 1)])]
    assert root.does() == [Close(b"client")]


def test_a_detached_session_that_its_client_ends_is_over(root, engine):
    comes(root)
    root.hears(b"client", m.Tasks([task(SESSION + 1)]))
    root.drains()
    root.hears(b"client", m.Bye("done", stays=False))
    assert [type(word) for word in root.says(engine)] == [m.Tasks, m.Cancel]
    assert comes(root).session == 2
    assert len(root.does()) == 2


def test_another_notebook_hears_only_what_is_its_own(root, engine):
    comes(root)
    assert comes(root, b"other").session == 2
    root.hears(b"client", call(SESSION + 1, 0))
    root.hears(engine, answer(SESSION + 1, 0), b"zero")
    assert root.says(b"other") == []
    assert len(root.says(b"client")) == len(root.says(engine)) == 1


# --- cancel -----------------------------------------------------------------------------------------------------------


def test_many_calls_are_cancelled_with_one_word_to_each_child(root):
    low, (engine,) = root.scheduler(4, 8), root.engines(0)
    client = root.client()
    for request in range(20):
        root.hears(client, call(request, 0, 4))
    root.says(low), root.says(engine)
    root.hears(client, m.Cancel(list(range(20)), running=True))
    assert root.says(low) == root.says(engine) == [m.Cancel(list(range(20)), running=True)]
    assert root.does() == [Signal([engine], DOORBELL)]


def test_nobody_cancels_what_another_has_asked_for(root, engine):
    first, second = root.client(b"first"), root.client(b"second")
    root.hears(first, call(1, 0))
    root.says(engine)
    root.hears(second, m.Cancel([1]))
    assert root.says(engine) == []
    assert root.does() == []


# --- growth -----------------------------------------------------------------------------------------------------------


def test_a_cluster_grows_and_its_new_engines_are_let_in(root):
    client = root.client()
    root.hears(client, m.Grow(7, 2))
    assert root.says(client) == [m.Executed(7, ranks(8, 9))]
    (spawn,) = root.does()
    assert [(child.first, child.last) for child in spawn.children] == [(8, 9), (9, 10)]
    root.engines(8, 9)
    assert root.says(client) == [m.Members(ranks(8, 9), ranks(), "")]
    root.hears(client, m.Grow(8, 1))
    assert root.says(client) == [m.Executed(8, ranks(10))]
    assert len(root.does()) == 1


def test_a_cluster_that_cannot_grow_says_so(root):
    client = root.client()
    root.hears(client, m.Grow(7, 1_000_000))
    assert root.says(client) == [m.Executed(7, ranks())]
    root.hears(b"engine-8", hello("engine", 8, 9))
    assert [word.code for word in root.says(b"engine-8")] == ["PlanError"]
    assert root.does() == [Close(b"engine-8")]


def test_a_gathered_reply_is_one_for_a_detached_client_too(root):
    engines = root.engines(0, 1)
    comes(root)
    root.hears(b"client", call(SESSION + 1, 0, 1))
    for rank, engine in enumerate(engines):
        root.hears(engine, answer(SESSION + 1, rank), b"x")
        assert len(root.says(engine)) == 1
    assert root.says(b"client") == [(joined(SESSION + 1, {0: 1, 1: 1}), b"xx")]
