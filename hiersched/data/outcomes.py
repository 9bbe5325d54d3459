"""What an engine answers to a call, and how it travels back.

    frame 0: the head: msgpack, with a small value's pickle inside
    frame 1..: a large value's pickle, and the large buffers that left it

A client reads the head at once and the value when it is asked for. Tracebacks are formatted on the engine; lines of
source that only the client has (a notebook's cells) are filled in there.
"""

from __future__ import annotations

import linecache
import os
import re
import traceback
from collections.abc import Iterable, Sequence
from typing import Any, TypeAlias

import msgspec
from msgspec.structs import astuple, replace

from hiersched.data.culprits import explain
from hiersched.data.pickles import Buffer, Pickled, dump, dump_whole, load
from hiersched.errors import HierschedError, PackError, ProtocolError, RemoteError
from hiersched.limits import INLINE_BYTES_MAX

MimeBundle: TypeAlias = dict[str, Any]

_OURS = os.path.dirname(os.path.dirname(os.path.abspath(__file__))) + os.sep  # where the files of hiersched lie
_FRAME_WITHOUT_SOURCE = re.compile(r'[ |+]*File "(?P<file>.+)", line (?P<line>\d+), in .+')
_INTEGER_MAX = 2**63  # magnitude that msgpack holds


class _Failure(msgspec.Struct, array_like=True, frozen=True, gc=False):
    ename: str
    evalue: str
    traceback: list[str]
    pickled: bytes = b""


class _Head(msgspec.Struct, array_like=True, frozen=True, gc=False):
    """body: the value's pickle; empty for None, which most calls return; None if it is frame 1 or there is no value."""

    started: float
    ended: float
    pid: int
    body: bytes | None
    cuts: Sequence[int] = ()
    failure: _Failure | None = None
    stdout: str = ""
    stderr: str = ""
    outputs: Sequence[MimeBundle] = ()


_encode = msgspec.msgpack.Encoder(enc_hook=repr).encode  # repr: outputs are for people to look at
_decode = msgspec.msgpack.Decoder(_Head).decode
_NOTHING = _Head(0.0, 0.0, 0, b"")


class Outcome:
    """How a call ended on one engine.

    ok: whether it returned. error: a RemoteError if it did not, another TaskError or PeerError if nothing came back.
    engine_id: the engine's rank, -1 while unknown. started, ended: seconds since the epoch by the engine's clock, None
    if nothing came back. pid: the engine's process. stdout, stderr: what it printed. outputs: mime bundles displayed.
    """

    __slots__ = (
        "_cuts",
        "_frames",
        "_value",
        "ended",
        "engine_id",
        "error",
        "ok",
        "outputs",
        "pid",
        "started",
        "stderr",
        "stdout",
    )

    started: float | None
    ended: float | None
    error: HierschedError | None

    def __init__(self, head: _Head, frames: Sequence[Buffer] = ()) -> None:
        """frames: the value's pickle, then what left it; none if the value is None or there is no value."""
        self.engine_id = -1
        self.started, self.ended, self.pid = head.started, head.ended, head.pid
        self.stdout, self.stderr, self.outputs = head.stdout, head.stderr, head.outputs
        self.ok = head.failure is None
        self.error = None if head.failure is None else _remote_error(head.failure)
        self._cuts, self._frames = head.cuts, frames
        self._value: Any = None

    @property
    def value(self) -> Any:
        """What the call returned, rebuilt when first asked for. Its arrays are writable.

        Raises the `error` if it did not return; UnpackError if the value cannot be rebuilt here.
        """
        if self.error is not None:
            raise self.error
        if self._frames:
            body, *large = self._frames
            cut = len(self._cuts)
            self._value = load(Pickled(body, self._cuts, [*large[:cut], *map(_writable, large[cut:])]))
            self._frames = ()
        return self._value


def pack_outcome_value(
    value: Any,
    *,
    started: float,
    ended: float,
    stdout: str = "",
    stderr: str = "",
    outputs: Sequence[MimeBundle] = (),
) -> list[Buffer]:
    """The frames of a call that returned `value`; of one that failed with PackError if `value` cannot be pickled.

    Frames after the first alias the value's memory: they must be sent or copied before code that may change it runs.
    """
    pid = os.getpid()
    if value is None:
        return [_encode_head(_Head(started, ended, pid, b"", (), None, stdout, stderr, outputs))]
    try:
        pickled = dump(value)
    except Exception as error:
        refusal = explain("the result", value, error)
        lines = [f"{PackError.__name__}: {refusal}"]
        return pack_outcome_error(
            refusal, started=started, ended=ended, stdout=stdout, stderr=stderr, outputs=outputs, traceback_lines=lines
        )
    apart = len(pickled.body) >= INLINE_BYTES_MAX
    body = None if apart else bytes(pickled.body)
    head = _encode_head(_Head(started, ended, pid, body, pickled.cuts, None, stdout, stderr, outputs))
    return [head, pickled.body, *pickled.large] if apart else [head, *pickled.large]


def pack_outcome_error(
    exception: BaseException,
    *,
    started: float,
    ended: float,
    stdout: str = "",
    stderr: str = "",
    outputs: Sequence[MimeBundle] = (),
    traceback_lines: Iterable[str] | None = None,
) -> list[Buffer]:
    """The frames of a call that raised `exception`. traceback_lines: its traceback, if it is formatted already."""
    lines = format_traceback(exception) if traceback_lines is None else list(traceback_lines)
    failure = _Failure(type(exception).__name__, _text_of(exception), lines, _pickled(exception))
    return [_encode_head(_Head(started, ended, os.getpid(), None, (), failure, stdout, stderr, outputs))]


def unpack_outcome(frames: Sequence[Buffer]) -> Outcome:
    """The outcome in `frames`. Raises ProtocolError if they hold none."""
    try:
        head = _decode(frames[0])
    except (msgspec.MsgspecError, UnicodeDecodeError, IndexError) as error:
        raise ProtocolError(f"the frames are not those of an outcome: {error}") from error
    if head.body:
        return Outcome(head, [head.body, *frames[1:]])
    if head.body is None and head.failure is None and len(frames) == 1:
        raise ProtocolError("the frames of an outcome are incomplete: its value is missing")
    return Outcome(head, frames[1:])


def lost_outcome(error: HierschedError) -> Outcome:
    """The outcome of a call that no engine answered."""
    outcome = Outcome(_NOTHING)
    outcome.ok, outcome.error = False, error
    outcome.started = outcome.ended = None
    return outcome


def original_of(error: BaseException) -> BaseException:
    """The exception that user code raised on an engine, with the RemoteError as its cause; `error` itself if it is no
    RemoteError, or its exception cannot be rebuilt here.
    """
    if not isinstance(error, RemoteError) or not error.pickled:
        return error
    try:
        original = load(Pickled(error.pickled))
    except Exception:  # an exception's own constructor may refuse: what happened is told by the RemoteError
        return error
    if not isinstance(original, BaseException):
        return error
    original.__cause__ = error
    return original


def format_traceback(exception: BaseException) -> list[str]:
    """The lines of a traceback that starts at the user's code, without line ends."""
    whole = traceback.TracebackException.from_exception(exception, compact=True)
    pending: list[traceback.TracebackException | None] = [whole]
    while pending:
        part = pending.pop()
        if part is None:
            continue
        while len(part.stack) > 1 and part.stack[0].filename.startswith(_OURS):
            del part.stack[0]
        pending += [part.__cause__, part.__context__, *(part.exceptions or ())]
    return [entry.rstrip("\n") for entry in whole.format()]


def _text_of(exception: BaseException) -> str:
    try:
        return str(exception)
    except Exception as error:  # the exception is the user's: it may fail at anything
        return f"<its text cannot be had: {type(error).__name__}>"


def _pickled(exception: BaseException) -> bytes:
    """The exception as bytes; none if it cannot be pickled, or is large."""
    try:
        data = dump_whole(exception)
    except Exception:  # its text and traceback travel in any case
        return b""
    return data if len(data) < INLINE_BYTES_MAX else b""


def _remote_error(failure: _Failure) -> RemoteError:
    error = RemoteError(failure.ename, failure.evalue, [_with_source(entry) for entry in failure.traceback])
    error.pickled = failure.pickled
    return error


def _with_source(entry: str) -> str:
    """A traceback's entry, with its line of source if the engine did not have it and this process does."""
    place = _FRAME_WITHOUT_SOURCE.fullmatch(entry)
    source = linecache.getline(place["file"], int(place["line"])).strip() if place else ""
    return f"{entry}\n    {source}" if source else entry


def _writable(buffer: Buffer) -> Buffer:
    return bytearray(buffer) if memoryview(buffer).readonly else buffer


def _encode_head(head: _Head) -> bytes:
    try:
        return _encode(head)
    except (UnicodeEncodeError, OverflowError):
        failure = None if head.failure is None else _Failure(*_cleaned(astuple(head.failure)))
        texts = _cleaned([head.stdout, head.stderr, head.outputs])
        return _encode(replace(head, failure=failure, stdout=texts[0], stderr=texts[1], outputs=texts[2]))


def _cleaned(item: Any) -> Any:
    """The same with texts that UTF-8 holds (printed text may have lone surrogates) and integers that msgpack holds."""
    if isinstance(item, str):
        return item.encode("utf-8", "backslashreplace").decode()
    if isinstance(item, dict):
        return {_cleaned(key): _cleaned(value) for key, value in item.items()}
    if isinstance(item, (list, tuple)):
        return [_cleaned(value) for value in item]
    return str(item) if isinstance(item, int) and abs(item) >= _INTEGER_MAX else item
