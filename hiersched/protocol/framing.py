"""Messages and their payload frames <-> parts on the wire.

    part 0: b"HS", one byte of protocol version
            u16 count of inlined frames, u32 bytes of the message, u32 size of each inlined frame; little-endian
            the message as msgpack, the inlined frames
    part 1..: the other frames, one each

Every part costs a few microseconds on each side of a hop, so the first frames ride in part 0 while they are small.
Frames are opaque. Whatever comes from the network passes `decode` first: it checks magic, version, sizes and types, and
that the frames are exactly those the message announces. Everything wrong ends in ProtocolError or VersionMismatch.
"""

from __future__ import annotations

import struct
from collections.abc import Callable, Iterator, Sequence
from typing import Any, TypeAlias

import msgspec

from hiersched.errors import ProtocolError, VersionMismatch
from hiersched.limits import (
    FRAMES_INLINED_MAX,
    FRAMES_MAX,
    HEADER_BYTES_MAX,
    INLINE_BYTES_MAX,
    INLINED_FRAME_BYTES_MAX,
    PAYLOAD_BYTES_PER_MESSAGE_MAX,
    TASKS_PER_MESSAGE_MAX,
)
from hiersched.protocol import messages as m

PROTOCOL_VERSION = 4
MAGIC = b"HS"
_PREFIX = MAGIC + bytes([PROTOCOL_VERSION])
_LEAD = struct.Struct("<3sHI")  # prefix, inlined frames, bytes of the message
_LEAD_ONE = struct.Struct("<3sHII")  # and the size of the only inlined frame

Frame: TypeAlias = Any  # bytes, memoryview or a transport's own frame object: never looked into

_encode = msgspec.msgpack.Encoder().encode
_decode: Callable[[memoryview], m.Message] = msgspec.msgpack.Decoder(m.Message).decode


def encode(message: m.Message, frames: Sequence[Frame] = ()) -> list[Frame]:
    """The parts that carry `message` and its payload frames."""
    body = _encode(message)
    inlined = 0
    for frame in frames:
        if len(frame) > INLINED_FRAME_BYTES_MAX or inlined == FRAMES_INLINED_MAX:
            break
        inlined += 1
    if not inlined:
        return [_LEAD.pack(_PREFIX, 0, len(body)) + body, *frames]
    if inlined == 1:
        lead = _LEAD_ONE.pack(_PREFIX, 1, len(body), len(frames[0]))
        return [b"".join((lead, body, frames[0])), *frames[1:]]
    small = frames[:inlined]
    sizes = struct.pack(f"<{inlined}I", *[len(frame) for frame in small])
    return [b"".join((_LEAD.pack(_PREFIX, inlined, len(body)), sizes, body, *small)), *frames[inlined:]]


def decode(first: bytes, others: Sequence[Frame] = ()) -> tuple[m.Message, Sequence[Frame]]:
    """The message and its payload frames, from part 0 and the other parts.

    Raises VersionMismatch for another protocol version, ProtocolError for anything else that is not a message.
    """
    if first[:3] != _PREFIX or len(first) < _LEAD.size:
        _refuse_prefix(first)
    if len(first) > HEADER_BYTES_MAX:
        raise ProtocolError(f"a first part of {len(first)} bytes exceeds {HEADER_BYTES_MAX}")
    _, inlined, size = _LEAD.unpack_from(first)
    if inlined + len(others) > FRAMES_MAX:
        raise ProtocolError(f"a message of {inlined + len(others)} frames exceeds {FRAMES_MAX}")
    start = _LEAD.size + 4 * inlined
    end = start + size
    if end > len(first):
        raise ProtocolError(f"a part of {len(first)} bytes is shorter than the {end} that it announces")
    try:
        message = _decode(memoryview(first)[start:end])
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError, TypeError) as error:  # TypeError: a map as a key
        raise ProtocolError(f"not a message: {error}") from None
    frames = _inlined(first, inlined, end) if inlined or end != len(first) else []
    if others:
        frames.extend(others)
    frames_of = _FRAMES_OF.get(type(message))
    announced = 0 if frames_of is None else frames_of(message)
    if announced is not None and announced != len(frames):
        raise ProtocolError(f"{type(message).__name__} announces {announced} frames and came with {len(frames)}")
    return message, frames


def _inlined(first: bytes, count: int, start: int) -> list[Frame]:
    """The frames within part 0, which must end with the last of them."""
    if count == 1 and len(first) - start == int.from_bytes(first[_LEAD.size : _LEAD_ONE.size], "little"):
        return [first[start:]]
    frames: list[Frame] = []
    for size in struct.unpack_from(f"<{count}I", first, _LEAD.size) if count else ():
        frames.append(first[start : start + size])
        start += size
    if start != len(first):
        raise ProtocolError(f"a part of {len(first)} bytes holds frames that end at {start}")
    return frames


def _refuse_prefix(header: bytes) -> None:
    if header[:2] != MAGIC or len(header) < _LEAD.size:
        raise ProtocolError(f"not a hiersched message: it starts with {bytes(header[:8])!r}")
    raise VersionMismatch(
        f"the peer speaks protocol version {header[2]}, this side {PROTOCOL_VERSION}: "
        "install the same version of hiersched on both sides"
    )


# How many payload frames a message announces; None: any number. Kinds that are not listed carry none.


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
    return sum([chunk.frames for chunk in message.chunks]) + len(message.reports)


def _tasks_frames(message: m.Tasks) -> int | None:
    return sum([task.frames for task in message.tasks])


def _results_frames(message: m.Results) -> int | None:
    return sum([result.frames for result in message.results])


def _one_frame(message: m.Blob) -> int | None:
    return 1


def _outputs_frames(message: m.Outputs) -> int | None:
    return len(message.pieces)


_FRAMES_OF: dict[type, Callable[[Any], int | None]] = {
    m.Call: _call_frames,
    m.Reply: _reply_frames,
    m.Tasks: _tasks_frames,
    m.Results: _results_frames,
    m.Blob: _one_frame,
    m.Outputs: _outputs_frames,
}


def batches(items: Sequence[m.Task | m.Result]) -> Iterator[tuple[slice, slice]]:
    """(which items, which of all their frames) for each message that they fill, as much as one message may carry."""
    start = size = first_frame = frames = 0
    are_tasks = bool(items) and type(items[0]) is m.Task
    for place, item in enumerate(items):
        full = place - start == TASKS_PER_MESSAGE_MAX or frames + item.frames > FRAMES_MAX
        if full or (size + len(item.payload) > PAYLOAD_BYTES_PER_MESSAGE_MAX and place > start):
            yield slice(start, place), slice(first_frame, first_frame + frames)
            start, first_frame = place, first_frame + frames
            size = frames = 0
        size += len(item.payload)
        if are_tasks and (item.needs or item.given or item.terms is not None):  # type: ignore[union-attr]
            size += _bytes_named(item)  # type: ignore[arg-type]
        frames += item.frames
    if items:
        yield slice(start, len(items)), slice(first_frame, first_frame + frames)


def _bytes_named(task: m.Task) -> int:
    """About how many bytes a task's lists take: digests, other tasks, results that it is given."""
    size = 18 * len(task.needs) + sum([16 + len(payload) for _, payload in task.given])
    terms = task.terms
    if terms is not None:
        size += 9 * len(terms.inputs) + 16 * len(terms.known)
        size += sum([9 * len(asked.tasks) for asked in (terms.after, terms.follow) if asked is not None])
    return size


def inline(frames: Sequence[Frame]) -> tuple[bytes, Sequence[Frame]]:
    """(payload, the other frames): the first frame rides in a task or result as its payload, unless it is large."""
    first = frames[0]
    return (bytes(first), frames[1:]) if len(first) < INLINE_BYTES_MAX else (b"", frames)


def whole(payload: bytes, frames: Sequence[Frame]) -> Sequence[Frame]:
    """All frames, from what `inline` gave."""
    return [payload, *frames] if payload else frames


def split_frames(counts: Sequence[int], frames: Sequence[Frame]) -> list[Sequence[Frame]]:
    """`frames` cut into consecutive pieces of `counts` frames each."""
    pieces = []
    start = 0
    for count in counts:
        pieces.append(frames[start : start + count])
        start += count
    return pieces
