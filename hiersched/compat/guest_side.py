"""What runs in an engine of ipyparallel's, to run a call of ours there.

The engine is asked to apply `run_call`, which it imports; so this package must be installed where it runs. From there
on it is as in an engine of ours: the same unpacking, in the user namespace of the engine's shell, and the same outcome.
All travels in buffers, as they are: the engine hands them on without looking into them, and so does the leaf.
"""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from functools import cache
from typing import Any

import msgspec
from ipyparallel.serialize import PrePickled
from IPython.core.getipython import get_ipython

from hiersched.data import namespace
from hiersched.data.outcomes import PackedOutcome, pack_outcome_error, pack_outcome_value
from hiersched.data.pickles import Buffer
from hiersched.data.serialize import Unpacker
from hiersched.errors import ProtocolError
from hiersched.protocol.messages import Digest, TaskId


class _Head(msgspec.Struct, array_like=True, frozen=True):
    """What the buffers are: so many frames of the call, these blobs, and results of these tasks with so many frames."""

    function: Digest
    frames: int
    blobs: list[Digest]
    results: list[tuple[TaskId, int]]


class _Tail(msgspec.Struct, array_like=True, frozen=True):
    """What the buffers of the answer are: so many frames of the outcome, then its reports. code: PackedOutcome's."""

    frames: int
    code: int


_encode = msgspec.msgpack.Encoder().encode
_decode_head = msgspec.msgpack.Decoder(_Head).decode
_decode_tail = msgspec.msgpack.Decoder(_Tail).decode


# --- at the leaf ------------------------------------------------------------------------------------------------------


def arguments_of(
    function: Digest,
    frames: Sequence[Buffer],
    blobs: Mapping[Digest, Buffer],
    results: Mapping[TaskId, Sequence[Buffer]],
) -> list[Buffer]:
    """What `run_call` takes. The parameters are those of `Unpacker.function` and `Unpacker.arguments`."""
    sizes = [(task, len(outcome)) for task, outcome in results.items()]
    head = _encode(_Head(function, len(frames), list(blobs), sizes))
    return [head, *frames, *blobs.values(), *(frame for outcome in results.values() for frame in outcome)]


def outcome_in(buffers: Sequence[Buffer]) -> PackedOutcome:
    """The outcome that `run_call` gave. Raises ProtocolError if it is none."""
    try:
        tail = _decode_tail(buffers[0])
    except (msgspec.MsgspecError, IndexError) as error:
        raise ProtocolError(f"these are not the buffers of an outcome: {error}") from error
    if not 1 <= tail.frames < len(buffers):
        raise ProtocolError(f"an outcome of {tail.frames} frames came in {len(buffers)} buffers")
    reports = [bytes(report) for report in buffers[1 + tail.frames :]]
    return PackedOutcome(list(buffers[1 : 1 + tail.frames]), reports, tail.code)


# --- in the engine ----------------------------------------------------------------------------------------------------


class _Given(PrePickled):  # type: ignore[misc]
    """Buffers that ipyparallel sends as they are."""

    def __init__(self, buffers: list[Buffer]) -> None:
        self.buffers = buffers


def run_call(head: bytes, *buffers: memoryview) -> _Given:
    """Run a call of ours; never raises for the user's code."""
    asked = _decode_head(head)
    left = iter(buffers)
    frames = [next(left) for _ in range(asked.frames)]
    blobs = {digest: next(left) for digest in asked.blobs}
    results = {task: [next(left) for _ in range(count)] for task, count in asked.results}
    packed = _outcome(asked.function, frames, blobs, results)
    own = [frame if type(frame) is bytes else bytes(frame) for frame in packed.frames]  # as they are now
    return _Given([_encode(_Tail(len(own), packed.code)), *own, *packed.reports])


def _outcome(
    function: Digest,
    frames: Sequence[Buffer],
    blobs: Mapping[Digest, Buffer],
    results: Mapping[TaskId, Sequence[Buffer]],
) -> PackedOutcome:
    started = time.time()
    try:
        unpacker = _unpacker()
        call = unpacker.function(function, blobs.get(function))
        args, kwargs = unpacker.arguments(frames, blobs, results)
        return pack_outcome_value(call(*args, **kwargs), started=started, ended=time.time())
    except BaseException as error:
        return _failed(error, started)


def _failed(error: BaseException, started: float) -> PackedOutcome:
    ended = time.time()
    try:
        return pack_outcome_error(error, started=started, ended=ended)
    except Exception as second:  # the exception is the user's: it may fail at anything
        lines = [f"{type(error).__name__}: it cannot be shown: {type(second).__name__}"]
        return pack_outcome_error(error, started=started, ended=ended, traceback_lines=lines)


@cache
def _unpacker() -> Unpacker:
    """This engine's, in the namespace of its shell."""
    shell = get_ipython()
    assert shell is not None, "an engine of ipyparallel's has a shell"
    user_namespace: dict[str, Any] = shell.user_ns
    namespace.bind(user_namespace)
    return Unpacker(user_namespace)
