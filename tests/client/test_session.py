"""What a session sends, and what becomes of what comes."""

from __future__ import annotations

import os
import signal
import threading
from collections.abc import Iterator

import pytest

from hiersched.client.metadata import describe_part
from hiersched.client.pending import Pending
from hiersched.client.pump import Pump
from hiersched.client.session import Session
from hiersched.errors import (
    AnswerLost,
    CapacityError,
    ClusterLost,
    ConnectionFileError,
    DependencyTimeout,
    EngineLost,
    NotAuthorised,
    ResultDropped,
    SessionTaken,
    TaskCancelled,
    TaskInterrupted,
    UnknownEngine,
    UnknownTask,
)
from hiersched.kernels import bitset
from hiersched.limits import RESULTS_UNSEEN_MAX
from hiersched.protocol import messages as m
from tests.client.fake_root import SESSION, FakeRoot, packed, session_with
from tests.patience import DEADLINE_S, until


@pytest.fixture
def session(root: FakeRoot) -> Iterator[Session]:
    with session_with(root) as session:
        yield session


def id_of(number: int) -> int:
    return SESSION << m.SESSION_SHIFT | number


# --- calls and tasks --------------------------------------------------------------------------------------------------


def test_a_call_goes_out_and_its_answer_comes_back(session, root):
    pending = session.call((0, 2), packed(abs, -3))
    call = root.heard_call()
    assert bitset.ranks_of(bitset.from_wire(call.targets)) == [0, 2]
    root.answer(pending.id, {0: 3, 2: 3})
    assert session.wait((pending,), DEADLINE_S)
    assert [outcome.value for outcome in pending.outcomes] == [3, 3]
    assert not session._requests


def test_a_task_goes_out_and_its_result_comes_back(session, root):
    pending = session.task(packed(abs, -3))
    assert root.heard_task().id == pending.id
    root.end_task(pending.id, 3, rank=2)
    assert session.wait((pending,), DEADLINE_S)
    assert (pending.outcomes[0].value, pending.targets) == (3, (2,))


def test_what_is_blob_is_sent_once(session, root):
    call = packed(abs, bytes(100_000))
    session.call((0,), call)
    session.call((1,), call)
    kinds = [type(message) for message, _ in root.link.sent]
    assert kinds == [m.Blob, m.Blob, m.Call, m.Call]


def test_what_the_root_lacks_is_sent_again_while_it_may_be_needed(session, root):
    pending = session.call((0,), packed(abs, -3))
    blob, frames = root.heard(m.Blob)
    root.forget()
    root.say(m.Want([blob.digest, bytes(16)]))
    root.answer(pending.id, {0: 3})
    session.wait((pending,), DEADLINE_S)
    assert root.heard(m.Blob) == (blob, frames)
    assert root.heard(m.Missing)[0].digests == [bytes(16)]


def test_an_answer_that_comes_twice_counts_once(session, root):
    pending = session.call((0, 1), packed(abs, -3))
    root.answer(pending.id, {0: "first"})
    root.answer(pending.id, {0: "again", 1: "second"})
    root.answer(pending.id, {0: "late", 1: "late"})
    session.wait((pending,), DEADLINE_S)
    assert [outcome.value for outcome in pending.outcomes] == ["first", "second"]


def test_an_answer_that_is_none_is_an_error_of_the_call(session, root):
    pending = session.task(packed())
    root.say(m.Results([m.Result(pending.id, 0, 0, 0, b"no outcome", 0)]))
    session.wait((pending,), DEADLINE_S)
    assert "not those of an outcome" in str(pending.outcomes[0].error)


@pytest.mark.parametrize(
    ("code", "kind"),
    [
        (m.ENGINE_LOST, EngineLost),
        (m.ENGINE_UNKNOWN, UnknownEngine),
        (m.CANCELLED, TaskCancelled),
        (m.INTERRUPTED, TaskInterrupted),
        (m.REFUSED, CapacityError),
        (m.TIMED_OUT, DependencyTimeout),
        (m.ANSWER_LOST, AnswerLost),
    ],
)
def test_a_code_is_an_exception(session, root, code, kind):
    task, call = session.task(packed()), session.call((1,), packed())
    root.lose_task(task.id, code, rank=1)
    root.lose(call.id, [1], code)
    session.wait((task, call), DEADLINE_S)
    for pending in (task, call):
        assert type(pending.outcomes[0].error) is kind
        assert "of the root" in str(pending.outcomes[0].error)
        assert pending.cancelled == issubclass(kind, TaskCancelled)


def test_a_call_is_cancelled_only_if_all_of_it_is(session, root):
    pending = session.call((0, 1), packed())
    root.lose(pending.id, [1], m.CANCELLED)
    root.answer(pending.id, {0: None})
    session.wait((pending,), DEADLINE_S)
    assert pending.failed
    assert not pending.cancelled


def test_an_engine_that_an_answer_tells_is_gone_is_gone(session, root):
    pending = session.call((1,), packed())
    root.lose(pending.id, [1], m.ENGINE_LOST)
    session.wait((pending,), DEADLINE_S)
    assert session.engine_ids() == [0, 2, 3]


# --- what waits here --------------------------------------------------------------------------------------------------


def tasks_out(root: FakeRoot) -> list[int]:
    """The tasks that were sent and not looked at yet."""
    return [task.id for message, _ in list(root.link.sent) if type(message) is m.Tasks for task in message.tasks]


def test_no_more_tasks_are_out_than_the_root_takes():
    root = FakeRoot(tasks_in_flight_max=2)
    with session_with(root) as session:
        tasks = [session.task(packed()) for _ in range(3)]
        until(lambda: len(tasks_out(root)) > 1, "two tasks are out")
        assert tasks_out(root) == [tasks[0].id, tasks[1].id]
        assert session.why(tasks[2].id).state == "held"
        root.forget()
        root.end_task(tasks[0].id)
        session.wait((tasks[0],), DEADLINE_S)
        until(lambda: tasks_out(root) == [tasks[2].id], "the third is out")


def test_each_batch_tells_how_many_results_have_come(session, root):
    first = session.task(packed())
    root.end_task(first.id)
    session.wait((first,), DEADLINE_S)
    root.forget()
    session.task(packed())
    until(lambda: tasks_out(root), "the task is out")
    assert root.heard(m.Tasks)[0].seen == 1


def test_when_nothing_goes_out_for_long_the_root_is_told_as_well(session, root):
    tasks = [session.task(packed()) for _ in range(RESULTS_UNSEEN_MAX)]
    until(lambda: len(tasks_out(root)) == RESULTS_UNSEEN_MAX, "all are out")
    root.forget()
    for task in tasks:
        root.end_task(task.id)
    session.wait(tasks, DEADLINE_S)
    batch, _ = root.heard(m.Tasks)
    assert (batch.tasks, batch.seen) == ([], RESULTS_UNSEEN_MAX)


def test_a_cell_that_is_not_silent_is_known_by_its_code(session):
    shown = session.execute((0, 1), "1 + 1", silent=False)
    assert [describe_part(shown, place)["execute_input"] for place in range(2)] == ["1 + 1"] * 2
    assert describe_part(session.execute((0,), "1 + 1"), 0)["execute_input"] is None


def test_a_task_that_was_not_sent_is_withdrawn_here():
    root = FakeRoot(tasks_in_flight_max=0)
    with session_with(root) as session:
        task = session.task(packed())
        session.cancel((task,))
        assert task.done
        assert task.cancelled
        assert root.silent


def test_a_task_that_was_withdrawn_unsent_can_be_made_again():
    root = FakeRoot(tasks_in_flight_max=0)
    with session_with(root) as session:
        task = session.task(packed())
        session.cancel((task,))
        assert not session.resubmit(task).done


def test_what_was_sent_is_withdrawn_where_it_is(session, root):
    task, call = session.task(packed()), session.call((0, 1), packed())
    until(lambda: tasks_out(root), "both are out")
    root.forget()
    session.cancel((task, call))
    session.cancel((task,), running=True)
    assert root.heard(m.Cancel)[0] == m.Cancel([task.id, call.id])
    assert root.heard(m.Cancel)[0] == m.Cancel([task.id], running=True)


# --- waiting ----------------------------------------------------------------------------------------------------------


def test_a_wait_ends_when_its_time_is_over(session, root):
    pending = session.call((0,), packed())
    assert not session.wait((pending,), 0.01)
    assert not session.wait_any((pending,), 0.01)
    assert not session.wait_for_parts((pending,), lambda: False, 0.01)


def test_parts_can_be_waited_for(session, root):
    pending = session.call((0, 1, 2), packed())
    root.answer(pending.id, {2: 9})
    assert session.wait_for_parts((pending,), lambda: pending.outcomes[2] is not None, DEADLINE_S)
    assert not pending.done
    assert pending.missing() == [0, 1]


def in_another_thread(story):
    thread = threading.Thread(target=story)
    thread.start()
    return thread


def test_a_thread_that_does_not_receive_is_woken_by_the_one_that_does(session, root):
    slow, quick = session.call((0,), packed()), session.call((0, 1), packed())
    receiver = in_another_thread(lambda: session.wait((slow,), DEADLINE_S))
    until(lambda: not session._pump._turn.acquire(blocking=False) or session._pump._turn.release(), "it receives")
    root.answer(quick.id, {1: 1})
    assert session.wait_for_parts((quick,), lambda: quick.outcomes[1] is not None, DEADLINE_S)
    assert quick.listeners == ()
    assert not session.wait((quick,), 0.01)
    assert quick._callbacks == []
    root.answer(quick.id, {0: 0})
    assert session.wait_any((quick, slow), DEADLINE_S)
    root.answer(slow.id, {0: 0})
    assert session.wait((slow,), DEADLINE_S)
    receiver.join(DEADLINE_S)


def test_results_come_in_while_nobody_waits(session, root):
    done = threading.Event()
    pending = session.task(packed())
    pending.add_done_callback(lambda _: done.set())
    root.end_task(pending.id)
    assert done.wait(DEADLINE_S)


# --- output -----------------------------------------------------------------------------------------------------------


class Notes:
    """A listener that writes down what it is told."""

    def __init__(self) -> None:
        self.told: list[object] = []

    def on_output(self, pending, ranks, outputs) -> None:
        self.told.append((ranks, "".join(output.text for output in outputs)))

    def on_parts(self, pending) -> None:
        self.told.append(pending.missing())


def test_output_is_told_to_who_listens_and_ends_up_in_the_outcome(session, root):
    pending = session.call((0, 1), packed())
    root.print_text(pending.id, [0, 1], "one ")
    session.wait((pending,), 0.01)
    notes = Notes()
    so_far = session.listen(pending, notes)
    assert [[output.text for output in part] for part in so_far] == [["one "], ["one "]]
    root.print_text(pending.id, [1], "two ")
    root.answer(pending.id, {0: None, 1: None}, printed="three")
    session.wait((pending,), DEADLINE_S)
    assert notes.told == [([1], "two "), ([0, 1], "three"), []]
    assert [outcome.stdout for outcome in pending.outcomes] == ["one three", "one two three"]


def test_a_tasks_output_is_told_as_well(session, root):
    pending = session.task(packed())
    notes = Notes()
    session.listen(pending, notes)
    root.print_text(pending.id, [3], "one ")
    root.end_task(pending.id, rank=3, printed="two")
    session.wait((pending,), DEADLINE_S)
    assert notes.told == [([3], "one "), ([3], "two"), []]
    assert pending.outcomes[0].stdout == "one two"


def test_output_of_what_nobody_knows_is_dropped(session, root):
    root.print_text(id_of(99), [0], "who?")
    pending = session.call((0,), packed())
    root.answer(pending.id, {0: None})
    assert session.wait((pending,), DEADLINE_S)


# --- what is remembered -----------------------------------------------------------------------------------------------


def test_a_request_is_found_while_it_is_open_or_held(session, root):
    pending = session.task(packed())
    assert session.find(pending.id) is pending
    root.end_task(pending.id)
    session.wait((pending,), DEADLINE_S)
    assert session.find(pending.id) is pending
    assert session.history() == [pending.id]


def test_a_result_that_nobody_holds_is_gone(session, root):
    request = session.task(packed()).id
    root.end_task(request, rank=3)
    session.wait_all(DEADLINE_S)
    until(lambda: request not in session._requests, "it has ended")
    with pytest.raises(ResultDropped, match="succeeded on engine 3, and its result is gone"):
        session.find(request)
    assert session.why(request).text.endswith("has succeeded on engine 3")


@pytest.mark.parametrize(
    ("request_id", "reason"), [(id_of(99), "there is no call"), (1 << m.SESSION_SHIFT | 1, "of session 1")]
)
def test_what_never_was_is_unknown(session, request_id, reason):
    for ask in (session.find, session.why, session.dependency):
        with pytest.raises(UnknownTask, match=reason):
            ask(request_id)


# --- questions --------------------------------------------------------------------------------------------------------


def answering(session, root, ask, kind, answer):
    """What `ask` gives when the root answers the question of this kind."""
    given = []
    thread = in_another_thread(lambda: given.append(ask()))
    until(lambda: not root.silent, "the question is out")
    question, _ = root.heard(kind)
    root.say(answer(question.request))
    thread.join(DEADLINE_S)
    return question, given[0]


def test_an_order_says_for_whom_it_was_carried_out(session, root):
    executed = lambda request: m.Executed(request, bitset.to_wire(0b100))  # noqa: E731
    order, done = answering(session, root, lambda: session.order((0, 2), "signal", 2), m.Order, executed)
    assert (order.verb, order.number, bitset.from_wire(order.targets), done) == ("signal", 2, 0b101, [2])
    grow, ranks = answering(session, root, lambda: session.grow(1), m.Grow, executed)
    assert (grow.engines, ranks) == (1, [2])


def test_queues_are_asked_for(session, root):
    levels = [(0, 1, {"tasks_waiting": 3}, {}), (1, 2, {"tasks_waiting": 4}, {})]
    queues = [m.Queue(2, 0, 1, 5), m.Queue(0, 1, 0, 9)]
    census = lambda request: m.Census(request, levels, queues)  # noqa: E731
    survey, given = answering(session, root, lambda: session.queues((0, 2)), m.Survey, census)
    assert bitset.from_wire(survey.targets) == 0b101
    assert ([queue.rank for queue in given.engines], given.unassigned) == ([0, 2], 7)


def test_the_root_explains_why_a_task_has_not_ended(session, root):
    task = session.task(packed())
    root.heard_task()
    because = lambda request: m.Because(request, "running", "it runs", bitset.to_wire(0b10))  # noqa: E731
    why, given = answering(session, root, lambda: session.why(task.id), m.Why, because)
    assert why.task == task.id
    assert (given.state, given.engines, str(given)) == ("running", (1,), "running: it runs")


# --- beginning and end ------------------------------------------------------------------------------------------------


def test_what_is_open_when_the_session_ends_ends_with_it(root):
    with session_with(root) as session:
        task, call = session.task(packed()), session.call((0, 1), packed())
        root.answer(call.id, {0: "kept"})
        session.wait_for_parts((call,), lambda: call.outcomes[0] is not None, DEADLINE_S)
        root.say(m.Bye("it was asked to"))
        session.wait((task, call), DEADLINE_S)
        assert call.outcomes[0].value == "kept"
        for outcome in (task.outcomes[0], call.outcomes[1]):
            assert isinstance(outcome.error, ClusterLost)
        with pytest.raises(ClusterLost, match="it was asked to"):
            session.task(packed())
        with pytest.raises(ClusterLost, match="it was asked to"):
            session.order((0,), "stop")


def test_a_client_that_is_not_let_in_is_told_why(root):
    root.knock = lambda *, detached: root.say(m.Refused("NotAuthorised", "the key is wrong"))
    with pytest.raises(NotAuthorised, match="the key is wrong"), session_with(root):
        pytest.fail("it was let in")


def test_a_root_that_does_not_answer_is_not_waited_for(root, monkeypatch):
    root.knock = lambda *, detached: None
    connection = type("Connection", (), {"cluster": "fake"})()
    with pytest.raises(ConnectionFileError, match=r"did not answer within 0\.01 s"):
        Session(connection, opens=root.open, timeout_s=0.01)


def test_an_ordinary_session_ends_with_its_client(root):
    with session_with(root) as session:
        assert root.hello == (session.id, False)
    assert root.heard(m.Bye)[0].stays is False


def test_a_detached_session_goes_on_without(root):
    with session_with(root, detached=True) as session:
        assert root.hello == (session.id, True)
        pending = session.task(packed())
        session.close()
        assert "join it again with session=" in str(pending.outcomes[0].error)
    *_, (bye, _) = root.link.sent
    assert bye.stays is True


def test_what_was_held_back_is_sent_when_a_detached_session_is_left():
    root = FakeRoot(tasks_in_flight_max=1)
    with session_with(root, detached=True) as session:
        tasks = [session.task(packed()) for _ in range(5)]
        session.close()
        assert tasks_out(root) == [task.id for task in tasks]
        assert type(root.link.sent[-1][0]) is m.Bye


def test_a_task_is_sent_even_if_another_thread_is_using_the_link(session, root):
    with session._lock:
        task = session.task(packed())
        assert tasks_out(root) == []
    until(lambda: tasks_out(root) == [task.id], "it is out")


def test_a_session_that_another_client_joins_ends_here(root):
    with session_with(root, detached=True) as session:
        pending = session.call((0,), packed())
        root.say(m.Refused("SessionTaken", "another client has joined this session"))
        assert session.wait((pending,), DEADLINE_S)
        assert type(pending.outcomes[0].error) is SessionTaken
        with pytest.raises(SessionTaken, match="another client has joined"):
            session.call((0,), packed())
    assert m.Bye not in [type(message) for message, _ in root.link.sent]  # the session is another client's


def test_a_session_that_is_joined_gives_the_answers_that_come_again():
    root = FakeRoot(next=5, open=[[id_of(2), bitset.to_wire(0b101)], [id_of(3), None], [id_of(4), None]])
    with session_with(root, name="left behind") as session:
        assert root.hello == ("left behind", True)
        root.answer(id_of(2), {0: "zero", 2: "two"})
        root.end_task(id_of(3), "three")
        call, task, open_task = (session.find(id_of(number)) for number in (2, 3, 4))
        assert session.wait((call, task), DEADLINE_S)
        assert [outcome.value for outcome in call.outcomes] == ["zero", "two"]
        assert [pending.id for pending in session.open_requests()] == [open_task.id]
        assert session.task(packed()).id == id_of(5)
        with pytest.raises(UnknownTask, match="before this client joined"):
            session.find(id_of(1))
        del call, task
        session.forget_requests()
        with pytest.raises(ResultDropped):
            session.find(id_of(3))


# --- interrupts -------------------------------------------------------------------------------------------------------


@pytest.fixture
def python_handles_interrupts() -> Iterator[None]:
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    signal.signal(signal.SIGINT, before)


@pytest.mark.usefixtures("python_handles_interrupts")
def test_an_interrupt_ends_a_wait_and_loses_nothing(session, root):
    pending = session.call((0,), packed())
    threading.Timer(0.02, os.kill, [os.getpid(), signal.SIGINT]).start()
    with pytest.raises(KeyboardInterrupt):
        session.wait((pending,), DEADLINE_S)
    root.answer(pending.id, {0: 17})
    assert session.wait((pending,), DEADLINE_S)
    assert pending.outcomes[0].value == 17


@pytest.mark.usefixtures("python_handles_interrupts")
def test_an_interrupt_in_the_middle_of_a_message_waits_for_its_end(session, root, monkeypatch):
    send = root.link.send

    def send_struck(message, frames=()):
        os.kill(os.getpid(), signal.SIGINT)
        send(message, frames)

    monkeypatch.setattr(root.link, "send", send_struck)
    with pytest.raises(KeyboardInterrupt):
        session.call((0,), packed())
    kinds = [type(message) for message, _ in root.link.sent]
    assert kinds == [m.Blob, m.Call]
    assert len(session.open_requests()) == 1


def test_a_callback_that_is_interrupted_keeps_no_other_from_being_told(root, monkeypatch):
    monkeypatch.setattr(Pump, "start", lambda pump: None)  # this thread alone receives
    told: list[Pending] = []

    def interrupted(pending: Pending) -> None:
        told.append(pending)
        raise KeyboardInterrupt

    with session_with(root) as session:
        first, second = session.task(packed()), session.task(packed())
        first.add_done_callback(interrupted)
        first.add_done_callback(told.append)
        second.add_done_callback(told.append)
        root.end_task(first.id)
        root.end_task(second.id)
        with pytest.raises(KeyboardInterrupt):
            session.wait((first, second), DEADLINE_S)
        assert session.wait((first, second), DEADLINE_S)
        assert told == [first, first, second]


def test_a_callback_that_fails_is_reported_and_keeps_no_other_from_being_told(session, root, monkeypatch):
    reported, told = [], threading.Event()
    monkeypatch.setattr(threading, "excepthook", lambda args: reported.append(args.exc_value))
    first, second = session.task(packed()), session.task(packed())
    first.add_done_callback(lambda pending: 1 / 0)
    second.add_done_callback(lambda pending: told.set())
    root.end_task(first.id)
    root.end_task(second.id)
    assert told.wait(DEADLINE_S)
    assert isinstance(reported[0], ZeroDivisionError)
