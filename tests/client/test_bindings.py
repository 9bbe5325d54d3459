"""What the client tells the root about what a task waits for."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import pytest

from hiersched.client.call_future import CallFuture
from hiersched.client.names import name_of
from hiersched.client.session import Session
from hiersched.data.outcomes import unpack_outcome
from hiersched.data.serialize import Packer, unpack_result
from hiersched.errors import DependencyError, RemoteError, UnknownTask, UserError
from hiersched.protocol import messages as m
from tests.client.fake_root import FakeRoot, packed, session_with
from tests.patience import DEADLINE_S, until

LARGE = np.arange(100_000)


@pytest.fixture
def session(root: FakeRoot) -> Iterator[Session]:
    with session_with(root) as session:
        yield session


def sent_task(root: FakeRoot) -> m.Task:
    """The next task that the root hears of."""
    until(lambda: any(type(message) is m.Tasks for message, _ in list(root.link.sent)), "a task is out")
    return root.heard_task()


def submit(session: Session, root: FakeRoot, *args: object, terms: m.Terms | None = None) -> tuple[CallFuture, m.Task]:
    """A future of a task, and the task as it was sent."""
    pending = session.task(Packer().pack_call(divmod, args), terms=terms)
    return CallFuture(session, pending), sent_task(root)


def ended(session: Session, root: FakeRoot, value: object, *, rank: int = 2) -> CallFuture:
    """A task that has succeeded."""
    future, task = submit(session, root)
    root.end_task(task.id, value, rank=rank)
    assert session.wait(future.requests(), DEADLINE_S)
    return future


def failed(session: Session, root: FakeRoot, error: Exception) -> CallFuture:
    """A task that has raised."""
    future, task = submit(session, root)
    root.fail_task(task.id, error, rank=2)
    assert session.wait(future.requests(), DEADLINE_S)
    return future


# --- results as arguments ---------------------------------------------------------------------------------------------


def test_a_task_waits_for_the_result_that_it_takes(session, root):
    first, _ = submit(session, root)
    _, task = submit(session, root, first, 7)
    assert task.terms == m.Terms(inputs=[first.requests()[0].id])
    assert (task.needs, task.given) == ([], [])


def test_a_small_result_at_hand_rides_along_and_nothing_is_waited_for(session, root):
    first = ended(session, root, 17)
    _, task = submit(session, root, [first], 7)
    ((source, frame),) = task.given
    assert source == first.requests()[0].id
    assert unpack_outcome([frame]).value == 17
    assert (task.terms, task.needs) == (None, [])


def test_a_small_result_is_given_as_it_came_whatever_became_of_it_here(session, root):
    first = ended(session, root, [1, 2])
    first.result().append(3)
    _, task = submit(session, root, first, 7)
    assert unpack_outcome([task.given[0][1]]).value == [1, 2]


def test_a_large_result_is_named_and_where_it_lives_is_the_hint(session, root):
    first = ended(session, root, LARGE)
    digest = m.result_digest(first.requests()[0].id)
    _, task = submit(session, root, first, 7)
    assert (task.needs, task.given) == ([digest], [])
    assert task.terms == m.Terms(hint=2)


def test_the_client_has_a_result_in_case_all_engines_that_had_it_are_gone(session, root):
    first = ended(session, root, LARGE)
    digest = m.result_digest(first.requests()[0].id)
    second, task = submit(session, root, first, 7)
    del first
    root.say(m.Want([digest]))
    session.wait(second.requests(), 0.01)
    _, (blob,) = root.heard(m.Blob)
    assert (unpack_outcome(unpack_result(blob)).value == LARGE).all()
    root.end_task(task.id)
    session.wait(second.requests(), DEADLINE_S)
    root.say(m.Want([digest]))
    session.wait_for(lambda: not root.silent, DEADLINE_S)
    assert root.heard(m.Missing)[0].digests == [digest]  # nobody needs it any more


def test_what_ends_before_a_task_is_sent_is_told_with_it():
    root = FakeRoot(tasks_in_flight_max=1)
    with session_with(root) as session:
        first = CallFuture(session, session.task(packed()))
        second = CallFuture(session, session.task(Packer().pack_call(divmod, (first, 7))))
        root.end_task(sent_task(root).id, 17)
        session.wait(first.requests(), DEADLINE_S)
        task = sent_task(root)
        assert task.id == second.requests()[0].id
        assert [source for source, _ in task.given] == [first.requests()[0].id]
        assert task.terms is None


def test_a_failed_input_is_reported_and_its_error_is_the_cause(session, root):
    first = failed(session, root, ZeroDivisionError("of the input"))
    source = first.requests()[0].id
    second, task = submit(session, root, first, 7)
    assert task.terms == m.Terms(inputs=[source], known=[(source, False, 2)])
    root.lose_task(task.id, m.DEPENDENCY, "task 1 raised an error")
    with pytest.raises(DependencyError, match="task 1 raised an error") as caught:
        second.result(DEADLINE_S)
    assert isinstance(caught.value.__cause__, ZeroDivisionError)
    assert isinstance(caught.value.__cause__.__cause__, RemoteError)


def test_several_results_are_no_argument(session, root):
    both = CallFuture(session, session.call((0, 1), packed()))
    with pytest.raises(UserError, match="is not the result of one task"):
        submit(session, root, both)


def test_a_call_on_an_engine_that_has_not_ended_is_no_argument(session, root):
    call = CallFuture(session, session.call((1,), packed()))
    with pytest.raises(UserError, match=r"is a call on engines \[1\] that has not ended"):
        session.task(Packer().pack_call(divmod, (call, 7)))
    root.answer(call.requests()[0].id, {1: 17})
    session.wait(call.requests(), DEADLINE_S)
    root.forget()
    _, task = submit(session, root, call, 7)
    assert unpack_outcome([task.given[0][1]]).value == 17


def test_a_call_on_engines_takes_results_that_are_there(session, root):
    small, large = ended(session, root, 17), ended(session, root, LARGE)
    root.forget()
    session.call((0,), Packer().pack_call(divmod, (small, large)))
    blobs = {message.digest: frames[0] for message, frames in root.link.sent if type(message) is m.Blob}
    digests = [m.result_digest(future.requests()[0].id) for future in (small, large)]
    assert set(root.heard_call().needs) == set(digests)
    assert unpack_outcome(unpack_result(blobs[digests[0]])).value == 17
    assert (unpack_outcome(unpack_result(blobs[digests[1]])).value == LARGE).all()


def test_a_call_on_engines_does_not_wait_for_results(session, root):
    open_task, _ = submit(session, root)
    bad = failed(session, root, ValueError("of the input"))
    call = Packer().pack_call(divmod, (open_task, 7))
    with pytest.raises(UserError, match="not there yet"):
        session.call((0,), call)
    with pytest.raises(UserError, match="not there yet"):
        session.call_each((0,), [call])
    with pytest.raises(RemoteError, match="of the input"):
        session.call((0,), Packer().pack_call(divmod, (bad, 7)))


# --- after and follow -------------------------------------------------------------------------------------------------


def terms_after(session: Session, *named: object, **conditions: bool) -> m.Terms:
    dependency, known = session.dependency(list(named), **conditions)
    return m.Terms(after=dependency, known=known)


def test_a_task_may_wait_for_others(session, root):
    first, _ = submit(session, root)
    name = name_of(first.requests()[0].id)
    for named in (first, name, first.requests()[0].id, f"{name}:3"):
        _, task = submit(session, root, terms=terms_after(session, named))
        assert task.terms.after.tasks == [first.requests()[0].id]
        assert task.terms.known == []


def test_a_dependency_that_is_met_costs_nothing(session, root):
    first = ended(session, root, 17)
    second, _ = submit(session, root)
    _, task = submit(session, root, terms=terms_after(session, first))
    assert task.terms is None
    _, task = submit(session, root, terms=terms_after(session, first, second))
    assert task.terms.after.tasks == [second.requests()[0].id]
    _, task = submit(session, root, terms=terms_after(session, first, second, all=False))
    assert task.terms is None


def test_a_dependency_on_failure_is_met_by_failure(session, root):
    bad = failed(session, root, ValueError("bad"))
    source = bad.requests()[0].id
    _, task = submit(session, root, terms=terms_after(session, bad, success=False, failure=True))
    assert task.terms is None
    _, task = submit(session, root, terms=terms_after(session, bad))
    assert (task.terms.after.tasks, task.terms.known) == ([source], [(source, False, 2)])


def test_who_follows_is_told_where_the_others_ran(session, root):
    first = ended(session, root, 17, rank=3)
    dependency, known = session.dependency(first)
    _, task = submit(session, root, terms=m.Terms(follow=dependency, known=known))
    source = first.requests()[0].id
    assert (task.terms.follow.tasks, task.terms.known) == ([source], [(source, True, 3)])


@pytest.mark.parametrize("named", ["nonsense", "12", "7-1:x", 99, "7-99", "3-1"])
def test_a_dependency_on_what_never_was_is_refused(session, named):
    with pytest.raises(UnknownTask):
        session.dependency(named)


def test_a_dependency_is_named_by_results_or_ids(session):
    with pytest.raises(TypeError, match="a task is named by its AsyncResult or id"):
        session.dependency([3.5])


def test_a_dependency_has_a_bound(session, root, monkeypatch):
    monkeypatch.setattr("hiersched.client.bindings.DEPENDENCIES_MAX", 1)
    first, second = submit(session, root)[0], submit(session, root)[0]
    with pytest.raises(UserError, match="can wait for 1 others, not for 2"):
        session.dependency([first, second])
