"""A detached session goes on without its client, and tells all of it again to the next one; within bounds."""

from __future__ import annotations

import pytest

from hiersched.core.effects import Send
from hiersched.core.membership import Neighbour
from hiersched.core.outbox import Outbox
from hiersched.core.sessions import Sessions, Store
from hiersched.limits import SESSION_ANSWERS_MAX, SESSIONS_DETACHED_MAX, TASKS_PER_MESSAGE_MAX
from hiersched.protocol import messages as m
from tests.core.transcript import answer, hello, joined, over_the_wire, ranks, result

LINK = b"client"


class Desk:
    """The sessions of a root, and what it tells its clients."""

    def __init__(self) -> None:
        self.outbox = Outbox()
        self.sessions = Sessions(self.outbox)

    def says(self) -> list[object]:
        """What was sent since the last look, as it arrives; (message, *frames) where there is a payload."""
        said = []
        for effect in self.outbox.take():
            assert isinstance(effect, Send)
            message, frames = over_the_wire(effect.message, effect.frames)
            said.append((message, *frames) if frames else message)
        return said


def client(link: bytes = LINK) -> Neighbour:
    """One that says hello."""
    return Neighbour(link, "client", "uuid", 0, 0, 1)


@pytest.fixture
def desk() -> Desk:
    """With one detached session, whose client is there."""
    desk = Desk()
    desk.sessions.enter(client(), detached=True)
    return desk


# --- who comes and goes -----------------------------------------------------------------------------------------------


def test_each_client_has_a_session_of_its_own():
    sessions = Sessions(Outbox())
    numbers = {sessions.enter(client(b"client-%d" % number), detached=False).number for number in range(3)}
    assert len(numbers) == 3


def test_no_session_has_the_number_of_a_former_one():
    sessions = Sessions(Outbox())
    first = sessions.enter(client(), detached=False)
    assert not sessions.leave(LINK, stays=True)
    assert sessions.enter(client(), detached=False).number != first.number


def test_a_detached_session_is_there_for_the_next_client_of_its_name(desk):
    desk.sessions.note_ids(LINK, 1 << m.SESSION_SHIFT | 41)
    desk.sessions.note_ids(LINK, 1 << m.SESSION_SHIFT | 7)
    assert desk.sessions.leave(LINK, stays=True)
    session = desk.sessions.enter(client(), detached=False)
    assert (session.number, session.next, session.away) == (1, 42, False)


def test_a_client_may_end_its_detached_session(desk):
    assert not desk.sessions.leave(LINK, stays=False)
    assert desk.sessions.enter(client(), detached=True).number == 2


def test_there_is_room_for_so_many_detached_sessions_and_no_more():
    sessions = Sessions(Outbox())
    for number in range(SESSIONS_DETACHED_MAX):
        sessions.enter(client(b"client-%d" % number), detached=True)
        sessions.leave(b"client-%d" % number, stays=True)
    refused = sessions.refusal(hello("client", detached=True), b"one more")
    assert refused.code == "CapacityError"
    assert sessions.refusal(hello("client"), b"one more") is None
    assert sessions.refusal(hello("client", detached=True), b"client-3") is None


# --- answers ----------------------------------------------------------------------------------------------------------


def test_what_a_client_is_answered_it_is_sent_and_the_next_one_again(desk):
    words, text = m.Outputs([m.Piece(9, ranks(0))]), b"hello"
    batch = m.Results([result(1, 0, frames=1), result(2, 0)])
    desk.sessions.send_outputs(LINK, words, [text])
    desk.sessions.send_reply(LINK, answer(9, 0), [b"nine"])
    desk.sessions.send_results(LINK, batch, [b"one"])
    assert desk.says() == [(words, text), (answer(9, 0), b"nine"), (batch, b"one")]
    desk.sessions.leave(LINK, stays=True)
    desk.sessions.enter(client(), detached=True)
    assert desk.sessions.send_again(LINK) == 2
    assert desk.says() == [(words, text), (batch, b"one"), (answer(9, 0), b"nine")]
    assert desk.sessions.answered(LINK) == [(9, 1), (1, None), (2, None)]


def test_what_comes_while_the_client_is_away_is_kept(desk):
    desk.sessions.leave(LINK, stays=True)
    desk.sessions.send_reply(LINK, answer(9, 0), [b"nine"])
    assert desk.says() == []
    desk.sessions.enter(client(), detached=True)
    assert desk.sessions.send_again(LINK) == 0
    assert desk.says() == [(answer(9, 0), b"nine")]


def test_parts_of_one_reply_are_all_kept(desk):
    desk.sessions.send_reply(LINK, joined(9, {0: 4, 1: 3}), [b"zeroone"])
    desk.sessions.send_reply(LINK, answer(9, 2), [b"two"])
    desk.says()
    desk.sessions.send_again(LINK)
    assert desk.says() == [(joined(9, {0: 4, 1: 3}), b"zeroone"), (answer(9, 2), b"two")]


def test_many_results_are_sent_again_in_messages_of_a_bounded_size(desk):
    for start in range(0, 2 * TASKS_PER_MESSAGE_MAX, TASKS_PER_MESSAGE_MAX):
        numbers = range(start, start + TASKS_PER_MESSAGE_MAX)
        desk.sessions.send_results(LINK, m.Results([result(number, 0) for number in numbers]), [])
    desk.sessions.send_results(LINK, m.Results([result(99_999, 0)]), [])
    desk.says()
    assert desk.sessions.send_again(LINK) == 2 * TASKS_PER_MESSAGE_MAX + 1
    assert [len(batch.results) for batch in desk.says()] == [TASKS_PER_MESSAGE_MAX, TASKS_PER_MESSAGE_MAX, 1]


def test_an_ordinary_session_keeps_nothing(desk):
    desk.sessions.enter(client(b"other"), detached=False)
    desk.sessions.send_reply(b"other", answer(9, 0), [b"nine"])
    assert len(desk.says()) == 1
    assert desk.sessions.send_again(b"other") == 0
    assert desk.says() == []


def test_nothing_is_sent_to_a_session_that_has_ended(desk):
    desk.sessions.leave(LINK, stays=False)
    desk.sessions.send_reply(LINK, answer(9, 0), [b"nine"])
    desk.sessions.send_results(LINK, m.Results([result(1, 0)]), [])
    desk.sessions.send_outputs(LINK, m.Outputs([]), [])
    assert desk.says() == []


# --- bounds -----------------------------------------------------------------------------------------------------------


def test_output_goes_first():
    store = Store(bytes_max=250)
    words = m.Outputs([m.Piece(9, ranks(0))])
    store.put_outputs(words, [bytes(100)])
    store.put(answer(8, 0), [bytes(100)])
    store.put(answer(9, 0), [bytes(100)])
    assert store.outputs() == []
    assert [reply for reply, _ in store.replies()] == [answer(8, 0), answer(9, 0)]


def test_then_the_oldest_answers_shrink_to_notes():
    store = Store(bytes_max=250)
    store.put(joined(8, {0: 60, 1: 40}), [bytes(100)])
    store.put(m.Result(1, 3, 5, 0, bytes(100), 0), ())
    store.put(answer(9, 0), [bytes(100)])
    store.put(answer(10, 0), [bytes(100)])
    (note, nothing), *others = store.replies()
    assert (note.chunks, note.losses[0].ranks, note.losses[0].code, nothing) == ([], ranks(0, 1), m.ANSWER_LOST, ())
    assert [reply for reply, _ in others] == [answer(9, 0), answer(10, 0)]
    ((lost, _),) = store.results()
    assert (lost.id, lost.rank, lost.code, lost.frames) == (1, 3, m.ANSWER_LOST, 0)


def test_the_newest_answer_stays_however_large_it_is():
    store = Store(bytes_max=10)
    store.put(answer(8, 0), [bytes(100)])
    store.put(answer(9, 0), [bytes(100)])
    assert [frames for _, frames in store.replies()] == [(), [bytes(100)]]


def test_of_very_many_answers_and_pieces_the_oldest_are_forgotten():
    store = Store(bytes_max=10)
    for number in range(SESSION_ANSWERS_MAX + 5):
        store.put(m.Result(number, 0, 1, 0, b"", 0), ())
        store.put_outputs(m.Outputs([]), ())
    assert [kept.id for kept, _ in store.results()] == list(range(5, SESSION_ANSWERS_MAX + 5))
    assert len(store.outputs()) == SESSION_ANSWERS_MAX
