"""A future among the arguments of a call travels as the id of its task, and is the task's value where the call runs."""

from __future__ import annotations

import threading
from typing import Any

import numpy as np
import pytest

from hiersched.data.outcomes import PackedOutcome, pack_outcome_error, pack_outcome_value
from hiersched.data.outputs import Text, pack_output
from hiersched.data.serialize import Packer, Ticket, Unpacker, pack_result, result_of, unpack_result
from hiersched.errors import PackError, ProtocolError, RemoteError, UnpackError, UserError
from hiersched.limits import INLINE_BYTES_MAX
from hiersched.protocol.messages import result_digest, task_of


class Future:
    """Stands for the result of a task. It holds a lock, so nothing else of it can be pickled."""

    def __init__(self, task: int, frames: Any = None, small: bytes | None = None) -> None:
        self.lock = threading.Lock()
        self.ticket: Ticket = (task, frames, small)

    def __hiersched_result__(self) -> Ticket:
        return self.ticket


class Foreign(Future):
    """Stands for a task of another cluster."""

    def __hiersched_result__(self) -> Ticket:
        raise UserError("a future of another cluster cannot be an argument")


def outcome(value: Any) -> PackedOutcome:
    return pack_outcome_value(value, started=0.0, ended=0.0)


def echo(*args: Any, **kwargs: Any) -> Any:
    return args, kwargs


def arguments(packed: Any, results: Any) -> Any:
    return Unpacker({}).arguments(packed.frames, packed.blobs, results)


def test_a_call_without_futures_has_no_inputs() -> None:
    for args in ((), (1, "a"), ([1, 2], {"a": np.zeros(3)}), (np.zeros(INLINE_BYTES_MAX),)):
        packed = Packer().pack_call(echo, args)
        assert (list(packed.inputs), packed.given) == ([], [])


def test_futures_are_found_however_deep() -> None:
    packed = Packer().pack_call(echo, (Future(1), [{"deep": (Future(2), 3)}]), {"key": Future(1)})
    assert packed.inputs == [1, 2]
    assert list(packed.blobs) == [packed.function]
    results = {1: outcome("one").frames, 2: outcome([2]).frames}
    assert arguments(packed, results) == (("one", [{"deep": ([2], 3)}]), {"key": "one"})


def test_what_the_client_has_at_hand_goes_along() -> None:
    small, large = outcome("small"), outcome(np.arange(INLINE_BYTES_MAX))
    futures = Future(1, small.frames, small.frames[0]), Future(2, large.frames), Future(3)  # type: ignore[arg-type]
    packed = Packer().pack_call(echo, futures)
    assert packed.inputs == [1, 2, 3]
    assert packed.given == [(1, small.frames[0])]
    frames = unpack_result(packed.blobs[result_digest(2)])
    assert frames == [bytes(frame) for frame in large.frames]


def test_each_call_has_a_copy_of_its_own() -> None:
    packed = Packer().pack_call(echo, (Future(1), Future(1)))
    results = {1: [bytes(frame) for frame in outcome(np.zeros(INLINE_BYTES_MAX)).frames]}
    (first, second), _ = arguments(packed, results)
    (third, _), _ = arguments(packed, results)
    first[0] = 1.0
    assert second[0] == third[0] == 0.0
    assert first.flags.writeable


def test_the_result_of_a_task_that_printed_is_its_value() -> None:
    printed = [pack_output(Text("stdout", "words"))]
    whole = pack_outcome_value(7, started=0.0, ended=0.0, printed=printed).whole
    assert arguments(Packer().pack_call(echo, (Future(1),)), {1: whole}) == ((7,), {})


def test_a_task_that_failed_gives_its_error() -> None:
    whole = pack_outcome_error(ValueError("x"), started=0.0, ended=0.0).whole
    with pytest.raises(RemoteError, match="ValueError: x"):
        arguments(Packer().pack_call(echo, (Future(1),)), {1: whole})


@pytest.mark.parametrize("results", [None, {}, {2: [b""]}])
def test_a_result_that_is_not_there_is_named(results: Any) -> None:
    with pytest.raises(UnpackError, match="result of task 1 is not here"):
        arguments(Packer().pack_call(echo, (Future(1),)), results)


def test_what_a_future_says_about_itself_is_what_the_caller_reads() -> None:
    with pytest.raises(UserError, match="another cluster"):
        Packer().pack_call(echo, (1, [Foreign(1)]))


def test_a_future_is_not_blamed_for_its_neighbour() -> None:
    with pytest.raises(PackError, match=r"argument 2 of echo: \[1\] is a <_thread.lock>"):
        Packer().pack_call(echo, (Future(1), [Future(2), threading.Lock()]))


def test_a_future_in_a_function_is_named() -> None:
    future = Future(1)
    with pytest.raises(PackError, match="closure variable 'future'"):
        Packer().pack_call(lambda: future)


def test_a_future_that_is_returned_does_not_travel() -> None:
    assert outcome([Future(1)]).code != 0


def test_results_are_named_by_their_task() -> None:
    assert task_of(result_digest(5 << 40 | 3)) == 5 << 40 | 3
    assert task_of(b"d" * 16) is None


def test_a_result_as_one_blob() -> None:
    frames = [b"head", memoryview(b"body")]
    assert unpack_result(pack_result(frames)) == [b"head", b"body"]
    with pytest.raises(ProtocolError):
        unpack_result(b"nonsense")


def test_outside_of_a_call_there_are_no_results() -> None:
    with pytest.raises(UnpackError):
        result_of(1)
