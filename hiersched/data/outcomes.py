"""What an engine answers to a call, and how it travels back.

    frame 0: the head: msgpack, with a small value's pickle inside
    frame 1..: a large value's pickle, and the large buffers that left it
    then, or beside it: its reports, a frame each

What is the engine's own (times, value) is in the head; an error and what was printed are reports, for equal engines
have them in common. A client reads the head at once and the value when it is asked for. Tracebacks are formatted on the
engine; lines of source that only the client has (a notebook's cells) are filled in there.
"""

from __future__ import annotations

import os
import pickle
import sys
from collections.abc import Iterable, Sequence
from typing import Any, Literal

import msgspec

from hiersched.data.culprits import explain
from hiersched.data.outputs import MimeBundle, Output, displayed, printed_text
from hiersched.data.pickles import PROTOCOL, Buffer, Pickled, dump, dump_whole, load
from hiersched.data.reports import Failure, Report, pack_failure, pack_printed, read_report, remote_error
from hiersched.data.tracebacks import format_traceback
from hiersched.errors import HierschedError, PackError, ProtocolError, RemoteError, UnmetDependency
from hiersched.limits import FRAME_BYTES_MAX, INLINE_BYTES_MAX, RESULT_GIVEN_BYTES_MAX
from hiersched.protocol.messages import INTERRUPTED, RAISED, UNMET

_PLAIN_INTERRUPT = dump_whole(KeyboardInterrupt())  # hundreds of engines may have it to say at once


class _Head(msgspec.Struct, array_like=True, frozen=True, gc=False):
    """body: the value's pickle; empty for None, which most calls return; None if it is frame 1 or there is no value.

    frames: how many follow that are the outcome's own. reports: how many go with it.
    """

    started: float
    ended: float
    pid: int
    body: bytes | None
    cuts: Sequence[int] = ()
    frames: int = 0
    failed: bool = False
    reports: int = 0
    bare: bool = False


_encode = msgspec.msgpack.Encoder().encode
_decode = msgspec.msgpack.Decoder(_Head).decode
_decode_buffers = msgspec.msgpack.Decoder(list[bytes]).decode
_NOTHING = _Head(0.0, 0.0, 0, b"")


class PackedOutcome(msgspec.Struct, gc=False):
    """An outcome as it leaves its engine.

    frames: its own; those after the first alias the value's memory: they must be sent or copied before code that may
    change it runs. reports: what equal engines may have in common, a frame each. code: 0, or what the user's code
    raised: UNMET for an UnmetDependency, INTERRUPTED for a KeyboardInterrupt, RAISED for anything else.
    """

    frames: list[Buffer]
    reports: Sequence[bytes] = ()
    code: int = 0

    @property
    def whole(self) -> list[Buffer]:
        """All frames, as `unpack_outcome` takes them."""
        return [*self.frames, *self.reports]


class Outcome:
    """How a call ended on one engine.

    ok: whether it returned. error: a RemoteError if it did not, another TaskError or PeerError if nothing came back.
    engine_id: the engine's rank, -1 while unknown. started, ended: seconds since the epoch by the engine's clock, None
    if nothing came back. pid: the engine's process.
    """

    __slots__ = (
        "_awaited",
        "_bare",
        "_cuts",
        "_frames",
        "_in_head",
        "_is_read",
        "_pieces",
        "_printed",
        "_value",
        "ended",
        "engine_id",
        "error",
        "ok",
        "pid",
        "started",
    )

    started: float | None
    ended: float | None
    error: HierschedError | None

    def __init__(self, head: _Head, frames: Sequence[Buffer] = ()) -> None:
        """frames: the value's pickle, then what left it; none if the value is None or there is no value."""
        self.engine_id = -1
        self.started, self.ended, self.pid = head.started, head.ended, head.pid
        self.ok = not head.failed
        self.error = None
        self._awaited = head.reports
        self._cuts, self._frames = head.cuts, frames
        self._bare, self._in_head = head.bare, head.body is not None
        self._value: Any = None
        self._is_read = False
        self._pieces: Sequence[Output] = ()  # those that went ahead, while the code ran
        self._printed: Sequence[Output] = ()

    @property
    def value(self) -> Any:
        """What the call returned, rebuilt when first asked for. Its arrays are writable.

        Raises the `error` if it did not return; UnpackError if the value cannot be rebuilt here.
        """
        if self.error is not None:
            raise self.error
        if self._bare:
            return self.buffers
        if not self._is_read and self._frames:
            body, *large = self._frames
            cut = len(self._cuts)
            self._value = load(Pickled(body, self._cuts, [*large[:cut], *map(_writable, large[cut:])]))
            self._is_read = True
            if large or len(body) > RESULT_GIVEN_BYTES_MAX:  # a small one may yet be given to another task
                self._frames = ()
        return self._value

    @property
    def buffers(self) -> list[Buffer]:
        """The buffers of a call that gives these in the place of a value.

        Raises the `error` if it did not return, ProtocolError if it gave a value, or what is there are no buffers.
        """
        if self.error is not None:
            raise self.error
        if not self._bare:
            raise ProtocolError("the call gave a value where buffers were asked for")
        if not self._in_head:
            return list(self._frames)
        try:
            return list(_decode_buffers(self._frames[0]))
        except (msgspec.MsgspecError, IndexError) as error:
            raise ProtocolError(f"not the buffers of an outcome: {error}") from error

    def own_frames(self) -> list[Buffer]:
        """Its frames without reports, as `unpack_outcome` takes them, for a task that takes the value.

        A large value that was read is packed anew, as it is now. Raises the `error` if the call did not return,
        PackError if the value cannot be packed here.
        """
        if self.error is not None:
            raise self.error
        started, ended = self.started or 0.0, self.ended or 0.0
        if not self._is_read or self._frames:
            body, *large = self._frames or (b"",)
            return _framed(Pickled(body, self._cuts, large), started, ended, pid=self.pid)
        packed = pack_outcome_value(self._value, started=started, ended=ended)
        return unpack_outcome(packed.whole).own_frames() if packed.code else packed.frames

    # --- what was reported beside it ----------------------------------------------------------------------------------

    def take(self, report: Report) -> None:
        """Take in a report that names this outcome's engine."""
        self._awaited -= 1
        if isinstance(report, Failure):
            self.ok, self.error = False, remote_error(report)
        else:
            self._printed = report.outputs

    def take_output(self, outputs: Sequence[Output]) -> None:
        """Take in the next piece of output that went ahead, before or after the reports."""
        self._pieces = [*self._pieces, *outputs] if self._pieces else outputs

    @property
    def complete(self) -> bool:
        """Whether all reports that belong to it are here. Raises ProtocolError if it failed and none says how."""
        if not self.ok and self.error is None:
            raise ProtocolError("a call failed, and the report of its error did not come with the answer")
        return self._awaited <= 0

    @property
    def all_outputs(self) -> list[Output]:
        """What was printed and displayed, in order."""
        return [*self._pieces, *self._printed]

    @property
    def stdout(self) -> str:
        """What was printed to stdout."""
        return self._text("stdout")

    @property
    def stderr(self) -> str:
        """What was printed to stderr."""
        return self._text("stderr")

    @property
    def outputs(self) -> list[MimeBundle]:
        """What was displayed, as a notebook would show it in the end: Jupyter's dicts with output_type, data, ..."""
        return displayed(self.all_outputs) if self._pieces or self._printed else []

    def _text(self, stream: Literal["stdout", "stderr"]) -> str:
        return printed_text(self.all_outputs, stream) if self._pieces or self._printed else ""


def pack_outcome_value(
    value: Any, *, started: float, ended: float, printed: Sequence[msgspec.Raw] = (), plain: bool = False
) -> PackedOutcome:
    """The outcome of a call that returned `value`; of one that failed if `value` cannot travel: PackError says why.

    printed: what it printed and displayed, each as `outputs.pack_output` gives it. plain: `value` has nothing of the
    user's in it.
    """
    reports = [pack_printed(printed)] if printed else ()
    if value is None:
        return PackedOutcome([_encode(_Head(started, ended, os.getpid(), b"", (), 0, False, len(reports)))], reports)
    try:
        pickled = Pickled(pickle.dumps(value, PROTOCOL)) if plain else dump(value)
        for buffer in pickled.large:
            if len(buffer) > FRAME_BYTES_MAX:
                raise PackError(
                    f"it has a buffer of {len(buffer)} bytes, and {FRAME_BYTES_MAX} are the most that travel"
                )
    except Exception as error:
        refusal = _refusal(value, error)
        lines = [f"{type(refusal).__name__}: {refusal}"]
        return pack_outcome_error(refusal, started=started, ended=ended, printed=printed, traceback_lines=lines)
    return PackedOutcome(_framed(pickled, started, ended, pid=os.getpid(), reports=len(reports)), reports)


def pack_outcome_buffers(
    buffers: Sequence[Buffer], *, started: float, ended: float, printed: Sequence[msgspec.Raw] = ()
) -> PackedOutcome:
    """The outcome of a call that gives buffers in the place of a value; of one that failed if one is too large."""
    flat = [buffer if type(buffer) is bytes else pickle.PickleBuffer(buffer).raw() for buffer in buffers]
    sizes = [len(buffer) for buffer in flat]
    if max(sizes, default=0) > FRAME_BYTES_MAX:
        refusal = PackError(
            f"the result has a buffer of {max(sizes)} bytes, and {FRAME_BYTES_MAX} are the most that travel"
        )
        lines = [f"PackError: {refusal}"]
        return pack_outcome_error(refusal, started=started, ended=ended, printed=printed, traceback_lines=lines)
    reports = [pack_printed(printed)] if printed else ()
    apart = sum(sizes) >= INLINE_BYTES_MAX
    body = None if apart else _encode([bytes(buffer) for buffer in flat])
    rest = flat if apart else []
    head = _Head(started, ended, os.getpid(), body, (), len(rest), False, len(reports), True)
    return PackedOutcome([_encode(head), *rest], reports)


def _framed(pickled: Pickled, started: float, ended: float, *, pid: int, reports: int = 0) -> list[Buffer]:
    """The frames of a value."""
    apart = len(pickled.body) >= INLINE_BYTES_MAX
    body = None if apart else bytes(pickled.body)
    rest = [pickled.body, *pickled.large] if apart else pickled.large
    return [_encode(_Head(started, ended, pid, body, pickled.cuts, len(rest), False, reports)), *rest]


def pack_outcome_error(
    exception: BaseException,
    *,
    started: float,
    ended: float,
    printed: Sequence[msgspec.Raw] = (),
    traceback_lines: Iterable[str] | None = None,
) -> PackedOutcome:
    """The outcome of a call that raised `exception`. traceback_lines: its traceback, if it is formatted already."""
    lines = format_traceback(exception) if traceback_lines is None else list(traceback_lines)
    reports = [pack_failure(type(exception).__name__, _text_of(exception), lines, _pickled(exception))]
    if printed:
        reports.append(pack_printed(printed))
    head = _Head(started, ended, os.getpid(), None, (), 0, True, len(reports))
    return PackedOutcome([_encode(head)], reports, code_of(exception))


def pack_outcome_failure(failure: bytes, *, started: float, ended: float, code: int = RAISED) -> PackedOutcome:
    """The outcome of a call that failed in a process that has no more to say about it than that.

    failure: as `reports.pack_failure` gives it.
    """
    return PackedOutcome([_encode(_Head(started, ended, 0, None, (), 0, True, 1))], [failure], code)


def code_of(exception: BaseException) -> int:
    """RAISED, UNMET or INTERRUPTED. UnmetDependency is ours or ipyparallel's."""
    if isinstance(exception, UnmetDependency):
        return UNMET
    if isinstance(exception, KeyboardInterrupt):
        return INTERRUPTED
    theirs = sys.modules.get("ipyparallel.error")
    return UNMET if theirs is not None and isinstance(exception, theirs.UnmetDependency) else RAISED


def unpack_outcome(frames: Sequence[Buffer]) -> Outcome:
    """The outcome in `frames`, with its reports where they follow. Raises ProtocolError if the frames hold none."""
    try:
        head = _decode(frames[0])
    except (msgspec.MsgspecError, UnicodeDecodeError, IndexError) as error:
        raise ProtocolError(f"the frames are not those of an outcome: {error}") from error
    if len(frames) == 1 and not head.frames and (head.body is not None or head.failed):
        return Outcome(head, (head.body,) if head.body else ())
    own = 1 + head.frames
    if len(frames) not in (own, own + head.reports) or (head.body is None and own == 1 and not head.failed):
        raise ProtocolError(f"an outcome of {own} frames and {head.reports} reports came in {len(frames)} frames")
    outcome = Outcome(head, [head.body, *frames[1:own]] if head.body else frames[1:own])
    for report in frames[own:]:
        outcome.take(read_report(report))
    return outcome


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


def _refusal(value: Any, error: Exception) -> Exception:
    """What its caller reads about a result that cannot travel."""
    if isinstance(error, MemoryError):
        return MemoryError("the result does not fit into the engine's memory a second time, as packing it takes")
    if isinstance(error, PackError):
        return PackError(f"the result cannot travel: {error}")
    return explain("the result", value, error)


def _text_of(exception: BaseException) -> str:
    try:
        return str(exception)
    except Exception as error:  # the exception is the user's: it may fail at anything
        return f"<its text cannot be had: {type(error).__name__}>"


def _pickled(exception: BaseException) -> bytes:
    """The exception as bytes; none if it cannot be pickled, or is large."""
    if type(exception) is KeyboardInterrupt and not exception.args and not exception.__dict__:
        return _PLAIN_INTERRUPT
    try:
        data = dump_whole(exception)
    except Exception:  # its text and traceback travel in any case
        return b""
    return data if len(data) < INLINE_BYTES_MAX else b""


def _writable(buffer: Buffer) -> Buffer:
    return bytearray(buffer) if memoryview(buffer).readonly else buffer
