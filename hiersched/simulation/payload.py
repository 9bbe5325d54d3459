"""What simulated calls carry: how long to run, what to say meanwhile and what to answer, packed as bytes.

An answer repeats which request it belongs to, where it ran and the token it was sent with, so a client can tell that
each engine got its own share and that each answer stands in its own place. Blobs and large answers are `Bulk`: they
have a length, which is all that a scheduler looks at, and take no memory.
"""

from __future__ import annotations

from collections.abc import Sequence
from struct import Struct
from typing import NamedTuple

import msgspec

from hiersched.limits import COALESCE_BYTES_MAX
from hiersched.protocol.framing import Frame
from hiersched.protocol.messages import Digest, Ranks, TaskId

NOWHERE: Ranks = (0, b"")
_ANSWER = Struct("<qqq?")
_PIECE = Struct("<qqq")
_EQUAL = -1  # in the place of a rank, where all engines say the same


class Bulk:
    """A frame of `size` bytes that are not there. content: the few that matter."""

    __slots__ = ("_size", "content")

    def __init__(self, size: int, content: bytes = b"") -> None:
        self._size = size
        self.content = content

    def __len__(self) -> int:
        return self._size


class Argument(msgspec.Struct, array_like=True, frozen=True, gc=False, omit_defaults=True):
    """What an engine is to do.

    run_s: for how long, on an engine of normal speed. token: to be repeated. answer_bytes: of the answer, at least.
    raises, unmet: ranks on which it fails, and which do not suit it (a task only). pieces: of output while it runs.
    report: beside the answer of a call. own: pieces and report are the engine's own; else they are equal on all.
    inputs: tasks whose results it takes.
    """

    run_s: float
    token: int = 0
    answer_bytes: int = 0
    raises: Ranks = NOWHERE
    unmet: Ranks = NOWHERE
    pieces: int = 0
    report: bool = False
    own: bool = False
    inputs: tuple[TaskId, ...] = ()


class Answer(NamedTuple):
    """What an engine answers. request: id of the call or task. rank: of the engine. token: of the argument.

    failed: it raised, or was interrupted.
    """

    request: int
    rank: int
    token: int
    failed: bool = False


class Said(NamedTuple):
    """A piece of output, or a report (place 0). place: 1 for the first piece. rank: -1 if all engines say the same."""

    request: int
    rank: int
    place: int


_encode = msgspec.msgpack.Encoder().encode
_decode = msgspec.msgpack.Decoder(Argument).decode


def pack_argument(argument: Argument) -> bytes:
    """An argument as its payload frame."""
    return _encode(argument)


def unpack_argument(frame: Frame) -> Argument:
    """The argument in a payload frame."""
    return _decode(frame)


def pack_answer(answer: Answer, size: int) -> Frame:
    """An answer of `size` bytes or the few that it needs. A scheduler may join small frames, so those are real."""
    content = _ANSWER.pack(*answer)
    if size > COALESCE_BYTES_MAX:
        return Bulk(size, content)
    return content.ljust(size, b"\0")


def unpack_answer(frame: Frame) -> Answer:
    """The answer in a frame, or in its part of a joined one."""
    return Answer(*_ANSWER.unpack_from(frame.content if type(frame) is Bulk else frame))


def pack_said(request: TaskId, place: int, *, rank: int, own: bool) -> bytes:
    """A piece of output of the engine `rank`, or its report."""
    return _PIECE.pack(request, rank if own else _EQUAL, place)


def unpack_said(frame: Frame) -> Said:
    """What `pack_said` packed."""
    return Said(*_PIECE.unpack(frame))


def digest_of(number: int) -> Digest:
    """The digest of the blob with this number, which must be positive."""
    return number.to_bytes(16, "big")


def frame_bytes(frames: Sequence[Frame]) -> int:
    """The length of all frames together."""
    return sum([len(frame) for frame in frames])
