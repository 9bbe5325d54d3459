"""Results and metadata of a client's calls, looked up by id."""

from __future__ import annotations

import pytest

from hiersched.client.client import Client
from hiersched.client.results import AsyncHubResult, AsyncResult
from hiersched.data.namespace import map_chunk
from hiersched.errors import RemoteError, ResultDropped, UnknownTask, UserError
from tests.client.fake_root import FakeRoot, packed, session_with
from tests.patience import DEADLINE_S


@pytest.fixture
def call(rc: Client) -> AsyncResult:
    """On engines 0 and 2."""
    return AsyncResult(rc.session, rc.session.call((0, 2), packed()), name="abs")


@pytest.fixture
def task(rc: Client) -> AsyncResult:
    return AsyncResult(rc.session, rc.session.task(packed()), name="abs", single=True)


def id_of(result: AsyncResult) -> int:
    return result.requests()[0].id


def test_results_are_there_as_parts_end(rc, root, call, task):
    first, second = call.msg_ids
    assert dict(rc.results) == {}
    root.answer(id_of(call), {2: "two"})
    rc.session.wait_for_parts(call.requests(), lambda: call.progress == 1, DEADLINE_S)
    assert dict(rc.results) == {second: "two"}
    assert first not in rc.results
    with pytest.raises(UnknownTask, match="has not ended"):
        rc.results[first]
    root.answer(id_of(call), {0: "zero"})
    root.end_task(id_of(task), "task")
    assert rc.wait(timeout=DEADLINE_S)
    assert dict(rc.results) == {first: "zero", second: "two", task.msg_ids[0]: "task"}
    assert rc.results[first.partition(":")[0]] == ["zero", "two"]
    assert repr(rc.results) == "<ResultsById of 3 calls and parts of calls>"


def test_errors_are_in_the_places_of_results(rc, root, task):
    root.fail_task(id_of(task), ValueError("no"))
    assert rc.wait(timeout=DEADLINE_S)
    assert isinstance(rc.results[task.msg_ids[0]], RemoteError)


def test_the_chunk_of_a_map_gives_its_items(rc, root, task):
    other = AsyncResult(rc.session, rc.session.task(packed()), name="abs", single=True)
    root.end_task(id_of(task), map_chunk(abs, [-1, -2]))
    root.end_task(id_of(other), map_chunk(abs, [-1, "x"]))
    assert rc.wait(timeout=DEADLINE_S)
    assert rc.get_result(task.msg_ids).get() == [[1, 2]]
    assert rc.results[task.msg_ids[0]] == [1, 2]
    assert isinstance(rc.results[other.msg_ids[0]], RemoteError)


def test_metadata_is_there_from_the_beginning(rc, root, call, task):
    assert list(rc.metadata) == [*call.msg_ids, *task.msg_ids]
    assert rc.metadata[task.msg_ids[0]].status is None
    root.end_task(id_of(task), rank=3)
    assert task.wait(DEADLINE_S)
    assert rc.metadata[task.msg_ids[0]].engine_id == 3


def test_what_is_not_there_is_a_key_that_is_missing(rc, root, task):
    (name,) = task.msg_ids
    root.end_task(id_of(task))
    assert task.wait(DEADLINE_S)
    assert name in rc.results
    for missing in ("nonsense", 0, None, f"{name}9"):
        assert missing not in rc.results
        with pytest.raises(KeyError):
            rc.metadata[missing]


def test_a_result_that_nobody_holds_is_gone(rc, root):
    pending = rc.session.task(packed())
    name = AsyncResult(rc.session, pending, name="abs", single=True).msg_ids[0]
    root.end_task(pending.id)
    assert rc.session.wait((pending,), DEADLINE_S)
    del pending
    assert list(rc.results) == []
    with pytest.raises(ResultDropped):
        rc.results[name]


def test_the_call_of_another_client_of_this_process_is_found(rc, root, call):
    with session_with(FakeRoot(session=8)) as session:
        other = Client.__new__(Client)
        other.session, other.cluster = session, None
        found = other.get_result(call.msg_ids, owner=False)
        assert type(found) is AsyncHubResult
        assert not found.owner
        assert type(other.get_result(call.msg_ids)) is AsyncResult
        assert not found.done()
        root.answer(id_of(call), {0: "zero", 2: "two"})
        assert found.get(DEADLINE_S) == ["zero", "two"]
        mine = AsyncResult(session, session.task(packed()), name="abs")
        with pytest.raises(UserError, match="several clients"):
            other.get_result([call, mine])


def test_the_call_of_a_client_that_has_left_is_not_found(rc):
    with session_with(FakeRoot(session=8)) as session:
        gone = AsyncResult(session, session.task(packed()), name="abs")
    with pytest.raises(UnknownTask, match="is a call of session 8"):
        rc.get_result(gone.msg_ids[0])
