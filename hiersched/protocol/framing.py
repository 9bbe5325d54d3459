"""Message <-> frames.

    frame 0: b"HS", one byte of protocol version, the message as msgpack
    frame 1..: payload, opaque

Whatever comes from the network passes `decode` first: it checks magic, version, sizes and types, and that the payload
frames are exactly those the header announces. Everything wrong ends in ProtocolError or VersionMismatch, nothing else.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, TypeAlias

import msgspec

from hiersched.errors import ProtocolError, VersionMismatch
from hiersched.limits import FRAMES_MAX, HEADER_BYTES_MAX
from hiersched.protocol import messages as m

PROTOCOL_VERSION = 1
MAGIC = b"HS"
_PREFIX = MAGIC + bytes([PROTOCOL_VERSION])
_PREFIX_BYTES = len(_PREFIX)

Frame: TypeAlias = Any  # bytes, memoryview or a transport's own frame object: never looked into

_encode = msgspec.msgpack.Encoder().encode
_decode: Callable[[memoryview], m.Message] = msgspec.msgpack.Decoder(m.Message).decode


def encode(message: m.Message) -> bytes:
    """The header frame of `message`. Payload frames follow it unchanged."""
    return _PREFIX + _encode(message)


def decode(header: bytes, payload_frames: int = 0) -> m.Message:
    """The message in `header`, which must announce exactly `payload_frames` frames.

    Raises VersionMismatch for another protocol version, ProtocolError for anything else that is not a message.
    """
    if header[:_PREFIX_BYTES] != _PREFIX:
        _refuse_prefix(header)
    if len(header) > HEADER_BYTES_MAX:
        raise ProtocolError(f"a header of {len(header)} bytes exceeds {HEADER_BYTES_MAX}")
    if payload_frames > FRAMES_MAX:
        raise ProtocolError(f"a message of {payload_frames} frames exceeds {FRAMES_MAX}")
    try:
        message = _decode(memoryview(header)[_PREFIX_BYTES:])
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError, TypeError) as error:  # TypeError: a map as a key
        raise ProtocolError(f"not a message: {error}") from None
    announced = _FRAMES_OF.get(type(message), _no_frames)(message)
    if announced is not None and announced != payload_frames:
        raise ProtocolError(f"{type(message).__name__} announces {announced} frames and came with {payload_frames}")
    return message


def _refuse_prefix(header: bytes) -> None:
    if header[:2] != MAGIC or len(header) < _PREFIX_BYTES:
        raise ProtocolError(f"not a hiersched message: it starts with {bytes(header[:8])!r}")
    raise VersionMismatch(
        f"the peer speaks protocol version {header[2]}, this side {PROTOCOL_VERSION}: "
        "install the same version of hiersched on both sides"
    )


# How many payload frames each kind of message announces; None: any number.


def _no_frames(message: m.Message) -> int | None:
    return 0


def _call_frames(message: m.Call) -> int | None:
    return sum([part.frames for part in message.parts]) if message.parts else None


def _reply_frames(message: m.Reply) -> int | None:
    for chunk in message.chunks:
        ranks = int.from_bytes(chunk.ranks[1], "little").bit_count()
        whole = chunk.frames == 1 and len(chunk.sizes) == ranks if chunk.sizes else ranks == 1
        if not whole:
            raise ProtocolError(
                f"a chunk of {ranks} ranks came with {len(chunk.sizes)} sizes and {chunk.frames} frames"
            )
    return sum([chunk.frames for chunk in message.chunks])


def _tasks_frames(message: m.Tasks) -> int | None:
    return sum([task.frames for task in message.tasks])


def _results_frames(message: m.Results) -> int | None:
    return sum([result.frames for result in message.results])


def _one_frame(message: m.Blob) -> int | None:
    return 1


_FRAMES_OF: dict[type, Callable[[Any], int | None]] = {
    m.Call: _call_frames,
    m.Reply: _reply_frames,
    m.Tasks: _tasks_frames,
    m.Results: _results_frames,
    m.Blob: _one_frame,
}


def split_frames(counts: Sequence[int], frames: Sequence[Frame]) -> list[Sequence[Frame]]:
    """`frames` cut into consecutive pieces of `counts` frames each."""
    pieces = []
    start = 0
    for count in counts:
        pieces.append(frames[start : start + count])
        start += count
    return pieces
