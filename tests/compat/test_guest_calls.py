"""Calls as an engine of ipyparallel's is asked for them, and its replies as outcomes."""

from __future__ import annotations

import pickle
from datetime import UTC, datetime
from typing import Any

import pytest
import zmq
from ipyparallel.serialize import unpack_apply_message

from hiersched.compat import guest_calls
from hiersched.compat.guest_side import run_call
from hiersched.data.outcomes import unpack_outcome
from hiersched.errors import ProtocolError, RemoteError
from hiersched.limits import INLINE_BYTES_MAX
from hiersched.protocol.messages import CANCELLED, INTERRUPTED, RAISED, UNMET
from tests.compat.guest_stage import message

ERROR = {"status": "error", "ename": "ValueError", "evalue": "no", "traceback": ["line 1", "line 2"]}


def reply(content: dict[str, Any], *buffers: Any, **metadata: Any) -> Any:
    return message("apply_reply", content, "request", *buffers, **metadata)


def test_an_old_clients_function_is_known_by_its_first_byte():
    assert guest_calls.is_applied(b"pickle")
    assert guest_calls.is_applied(memoryview(b"pickle"))
    assert not guest_calls.is_applied(b"namespace")
    assert not guest_calls.is_applied(b"")
    assert guest_calls.pack_applied(b"pcanned", [b"a", b"b"]) == [b"canned", b"a", b"b"]


@pytest.mark.parametrize("size", [0, 1, INLINE_BYTES_MAX])
def test_a_call_of_ours_is_a_function_by_name_and_buffers_as_they_are(size: int):
    blob, result = b"x" * size, [b"head", b"y" * size]
    buffers = guest_calls.pack_own(b"f" * 16, [b"frame"], {b"f" * 16: blob}, {7: result})
    assert pickle.loads(buffers[0]) is run_call
    _, (head, *arguments), keywords = unpack_apply_message([bytes(buffer) for buffer in buffers], {}, copy=False)
    assert type(head) is bytes
    assert [bytes(argument) for argument in arguments] == [b"frame", blob, *result]
    assert keywords == {}


def test_large_buffers_come_back_without_being_copied():
    frame = zmq.Frame(b"z" * INLINE_BYTES_MAX)
    packed = guest_calls.outcome_of(reply({"status": "ok"}, b"head", frame), own=False)
    assert unpack_outcome(packed.whole).buffers == [b"head", frame.bytes]


@pytest.mark.parametrize(
    ("ename", "code"), [("ValueError", RAISED), ("UnmetDependency", UNMET), ("KeyboardInterrupt", INTERRUPTED)]
)
def test_what_was_raised_is_told_by_its_name(ename: str, code: int):
    packed = guest_calls.outcome_of(reply({**ERROR, "ename": ename}), own=False)
    assert packed.code == code
    error = unpack_outcome(packed.whole).error
    assert isinstance(error, RemoteError)
    assert (error.ename, error.evalue) == (ename, "no")


def test_what_an_engine_put_aside_has_no_outcome():
    for status in ("aborted", "abort"):
        packed = guest_calls.outcome_of(reply({"status": status}), own=True)
        assert (packed.code, packed.frames) == (CANCELLED, [])


def test_other_replies_are_none():
    for content in ({}, {"status": 1}, {"status": "fine"}):
        with pytest.raises(ProtocolError, match="status"):
            guest_calls.outcome_of(reply(content), own=False)


def test_times_are_the_engines_own_where_it_tells_them():
    def seconds(date: str) -> float:
        return datetime.fromisoformat(date).replace(tzinfo=UTC).timestamp()

    ended = seconds("2026-01-02T00:00:01")
    assert guest_calls.times_of(reply({}, started="2026-01-02T00:00:00+00:00")) == (ended - 1, ended)
    assert guest_calls.times_of(reply({}, started="2027-01-02T00:00:00+00:00")) == (ended, ended)
    assert guest_calls.times_of(reply({}, started="yesterday")) == (ended, ended)
    assert guest_calls.times_of(reply({})) == (ended, ended)
