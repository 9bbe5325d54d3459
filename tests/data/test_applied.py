"""Calls that ipyparallel's clients have packed run with ipyparallel's own rules, and nobody copies what is large."""

from __future__ import annotations

from pickle import UnpicklingError
from typing import Any

import ipyparallel
import numpy as np
import pytest
from ipyparallel.serialize import deserialize_object, pack_apply_message

from hiersched.data.applied import APPLIED, Applied, pack_applied
from hiersched.data.outcomes import Outcome, pack_outcome_buffers, pack_outcome_value, unpack_outcome
from hiersched.data.serialize import Unpacker, digest_of
from hiersched.errors import ProtocolError, RemoteError
from hiersched.limits import INLINE_BYTES_MAX
from tests.data.places import notebook


def called(namespace: dict[str, Any], function: Any, *args: Any, **kwargs: Any) -> Any:
    """What a function that an old client has packed returns where these are the user's names."""
    canned, *frames = [bytes(buffer) for buffer in pack_apply_message(function, args, kwargs)]
    unpacker, blob = Unpacker(namespace), APPLIED + canned
    applied = unpacker.function(digest_of(blob), blob)
    assert type(applied) is Applied
    bound, given, named = applied.bind(frames, namespace)
    return bound(*given, **named)


def carried(value: Any, **rest: Any) -> Outcome:
    """The outcome of such a call, at the door."""
    packed = pack_outcome_buffers(pack_applied(value), started=1.0, ended=2.0, **rest)
    return unpack_outcome([bytes(frame) for frame in packed.whole])


def values(outcome: Outcome) -> list[Any]:
    """What the client makes of it."""
    found, left = [], outcome.buffers
    while left:
        value, left = deserialize_object(left)
        found.append(value)
    return found


def test_its_globals_are_the_users_names() -> None:
    cells = notebook("def f(x, more=1):\n    global seen\n    seen = x\n    return x + y + more")
    engine = {"y": 100}
    assert called(engine, cells["f"], 10, more=1_000) == 1_110
    assert engine["seen"] == 10


def test_references_are_to_the_users_names() -> None:
    assert called({"data": [1, 2]}, sum, ipyparallel.Reference("data")) == 3
    with pytest.raises(NameError):
        called({}, sum, ipyparallel.Reference("nothing"))


def test_every_call_has_a_function_of_its_own() -> None:
    cells = notebook("def f(seen=[]):\n    seen.append(1)\n    return len(seen)")
    canned, *frames = pack_apply_message(cells["f"], (), {})
    blob = APPLIED + canned
    unpacker = Unpacker({})
    for _ in range(2):
        function, _, _ = unpacker.function(digest_of(blob), blob).bind(frames, {})
        assert function() == 1


def test_large_arguments_are_not_copied() -> None:
    data = np.arange(100_000.0)
    canned, *frames = pack_apply_message(np.sum, (data,), {})
    _, (arrived,), _ = Applied(APPLIED + canned).bind(frames, {})
    assert any(np.shares_memory(arrived, np.frombuffer(frame, np.uint8)) for frame in frames if len(frame) > 1_000)


@pytest.mark.parametrize("frames", [[], [b"nonsense"], [b"nonsense", b"more"]])
def test_frames_that_are_no_call_raise_when_they_are_bound(frames: list[bytes]) -> None:
    canned = pack_apply_message(len, (), {})[0]
    with pytest.raises((AssertionError, UnpicklingError)):  # ipyparallel's: the caller reports it
        Applied(APPLIED + canned).bind(frames, {})


# --- what comes back --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "value",
    [None, 5, "text", [1, {"a": (2,)}], b"x" * 10, {"k": [b"y" * 5_000]}, list(range(100)), range(3)],
)
def test_small_values_ride_in_the_head(value: Any) -> None:
    outcome = carried(value)
    assert (values(outcome), outcome.ok, outcome.started, outcome.ended) == ([value], True, 1.0, 2.0)
    assert outcome.value == outcome.buffers


@pytest.mark.parametrize(
    "array",
    [
        np.arange(INLINE_BYTES_MAX, dtype=np.float64),
        np.ones((300, 400)),
        np.asfortranarray(np.arange(90_000.0).reshape(300, 300)),
        np.arange(200_000)[::2],
        np.zeros((0, 5)),
        np.zeros(0),
        np.float64(3),
        np.array(7),
        np.arange(20_000.0).view([("a", "f8"), ("b", "f8")]),
        np.array([{"an": "object"}], dtype=object),
        np.zeros((50, 2, 1_000), dtype=np.int8),
    ],
    ids=lambda array: f"{array.dtype}{array.shape}",
)
def test_arrays_come_back_as_they_are(array: Any) -> None:
    (arrived,) = values(carried(array))
    np.testing.assert_array_equal(arrived, array)
    assert arrived.dtype == array.dtype
    first, second = values(carried([array, array]))[0]
    np.testing.assert_array_equal(first, array)
    np.testing.assert_array_equal(second, array)


def test_a_large_array_is_not_copied_on_its_way_out() -> None:
    data = np.arange(100_000.0)
    packed = pack_outcome_buffers(pack_applied(data), started=1.0, ended=2.0)
    assert len(packed.frames) == 3
    assert any(np.shares_memory(data, np.frombuffer(frame, np.uint8)) for frame in packed.frames)


def test_frames_are_bytes_long_as_they_say() -> None:
    wide = memoryview(np.ones((2, 100_000)))  # of two rows
    packed = pack_outcome_buffers([b"head", wide], started=1.0, ended=2.0)
    assert [len(frame) for frame in packed.frames[1:]] == [4, 1_600_000]
    narrow = memoryview(np.ones((2, 10)))
    outcome = unpack_outcome(pack_outcome_buffers([narrow], started=1.0, ended=2.0).whole)
    assert [len(buffer) for buffer in outcome.buffers] == [160]


def test_what_cannot_be_packed_raises() -> None:
    with pytest.raises(AttributeError, match="pickle"):
        pack_applied(iter(lambda: 1, 2))


def test_a_buffer_that_is_too_large_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("hiersched.data.outcomes.FRAME_BYTES_MAX", 1_000_000)
    outcome = carried(np.zeros(200_000))
    assert isinstance(outcome.error, RemoteError)
    assert (outcome.error.ename, outcome.ok) == ("PackError", False)
    assert "1600000 bytes" in outcome.error.evalue
    with pytest.raises(RemoteError):
        _ = outcome.buffers


def test_no_buffers_are_no_buffers() -> None:
    assert unpack_outcome(pack_outcome_buffers([], started=1.0, ended=2.0).whole).buffers == []


def test_a_value_is_no_buffers() -> None:
    for value in (None, 5, np.zeros(100_000)):
        outcome = unpack_outcome(pack_outcome_value(value, started=1.0, ended=2.0).whole)
        with pytest.raises(ProtocolError, match="value"):
            _ = outcome.buffers
