"""Calls for an engine of ipyparallel's, and its answers.

The function of an old client, and its arguments, are what such a client sends, and so are the buffers that come back:
they pass as they are. A call of ours is wrapped into one of `guest_side.run_call`.
"""

from __future__ import annotations

import pickle
import time
from collections.abc import Mapping, Sequence
from datetime import datetime
from typing import Any

from ipyparallel.serialize import pack_apply_message

from hiersched.compat.guest_side import arguments_of, outcome_in, run_call
from hiersched.compat.wire import Message
from hiersched.data.applied import APPLIED
from hiersched.data.outcomes import PackedOutcome, pack_outcome_buffers, pack_outcome_failure
from hiersched.data.pickles import Buffer
from hiersched.data.reports import pack_failure
from hiersched.errors import ProtocolError
from hiersched.protocol.framing import Frame
from hiersched.protocol.messages import CANCELLED, INTERRUPTED, RAISED, UNMET, Digest, TaskId

_RUN_CALL = pickle.dumps(run_call, 4)  # by its name
_CODES = {"UnmetDependency": UNMET, "KeyboardInterrupt": INTERRUPTED}
_NOT_INSTALLED = (
    "hiersched cannot be imported by this engine, which ipyparallel has started, and so it runs no calls of clients of "
    "hiersched's: install hiersched in the engines' environment"
)


def is_applied(function: Buffer) -> bool:
    """Whether a function is an old client's."""
    return bytes(function[:1]) == APPLIED


def pack_applied(function: Buffer, frames: Sequence[Frame]) -> list[Buffer]:
    """The buffers that ask for an old client's call."""
    return [memoryview(function)[1:], *frames]


def pack_own(
    function: Digest,
    frames: Sequence[Frame],
    blobs: Mapping[Digest, Buffer],
    results: Mapping[TaskId, Sequence[Buffer]],
) -> list[Buffer]:
    """The buffers that ask for a call of ours. blobs: the function's among them."""
    head, *buffers = arguments_of(function, frames, blobs, results)
    packed: list[Buffer] = pack_apply_message(None, [head, *(memoryview(buffer) for buffer in buffers)], {})
    packed[0] = _RUN_CALL
    return packed


def outcome_of(reply: Message, *, own: bool) -> PackedOutcome:
    """How a call ended. own: it was one of ours. Raises ProtocolError for what no engine says.

    Of a call that the engine has put aside the code is CANCELLED, and there are no frames.
    """
    started, ended = times_of(reply)
    status = reply.content.get("status")
    if status == "ok":
        buffers = [frame if type(frame) is bytes else frame.buffer for frame in reply.buffers]
        return outcome_in(buffers) if own else pack_outcome_buffers(buffers, started=started, ended=ended)
    if own and status == "error":
        return _not_run(reply.content, started, ended)
    return failed_outcome(reply.content, started, ended)


def failed_outcome(content: Mapping[str, Any], started: float, ended: float) -> PackedOutcome:
    """How a call or a cell ended that did not end well, from the content of the reply."""
    status = content.get("status")
    if status in ("aborted", "abort"):
        return PackedOutcome([], (), CANCELLED)
    if status != "error":
        raise ProtocolError(f"an engine's reply has the status {status!r}")
    ename, lines = str(content.get("ename")), content.get("traceback") or []
    failure = pack_failure(ename, str(content.get("evalue")), [str(line) for line in lines], b"")
    return pack_outcome_failure(failure, started=started, ended=ended, code=_CODES.get(ename, RAISED))


def _not_run(content: Mapping[str, Any], started: float, ended: float) -> PackedOutcome:
    """How a call of ours ended whose outcome the engine could not even make."""
    if content.get("ename") in ("ModuleNotFoundError", "ImportError"):
        evalue = f"{_NOT_INSTALLED} ({content.get('evalue')})"
        content = {**content, "ename": "ImportError", "evalue": evalue, "traceback": [f"ImportError: {evalue}"]}
    return failed_outcome(content, started, ended)


def times_of(reply: Message) -> tuple[float, float]:
    """When what is answered was started, and when it ended, by the engine's clock: seconds since the epoch."""
    ended = _seconds(reply.header.get("date"))
    return min(_seconds(reply.metadata.get("started")), ended), ended


def _seconds(date: Any) -> float:
    try:
        return datetime.fromisoformat(date).timestamp()
    except (TypeError, ValueError):
        return time.time()
