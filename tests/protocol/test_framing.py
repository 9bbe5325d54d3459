"""A message survives the wire, and nothing that comes off the wire does harm."""

from __future__ import annotations

import itertools
import struct
import tracemalloc

import pytest
from hypothesis import assume, example, given
from hypothesis import strategies as st

from hiersched.errors import PeerError, ProtocolError, VersionMismatch
from hiersched.limits import (
    ENGINES_MAX,
    FRAMES_INLINED_MAX,
    FRAMES_MAX,
    HEADER_BYTES_MAX,
    INLINED_FRAME_BYTES_MAX,
    KIB,
    PAYLOAD_BYTES_PER_MESSAGE_MAX,
    TASKS_PER_MESSAGE_MAX,
)
from hiersched.protocol import messages as m
from hiersched.protocol.framing import MAGIC, PROTOCOL_VERSION, Frame, batches, decode, encode, split_frames
from tests.protocol import arbitrary

LEAD_BYTES = 9
NO_RANKS = b"\x92\x00\xc4\x00"  # (0, b"") as msgpack
DIGEST = bytes(range(16))
SHARED_CALL = m.Call(1, (0, b"\x0f"), m.CALL_LANE, DIGEST, [], [])  # may bring any number of frames

every_kind = pytest.mark.parametrize("kind", arbitrary.KINDS, ids=lambda kind: kind.__name__)


def first_part(body: bytes, inlined: int = 0, *, body_bytes: int | None = None) -> bytes:
    """A part 0 whose lead says whatever a test wants it to say."""
    size = len(body) if body_bytes is None else body_bytes
    return MAGIC + struct.pack("<BHI", PROTOCOL_VERSION, inlined, size) + body


def received(parts: list[Frame]) -> tuple[m.Message, list[Frame]]:
    """What `decode` gives."""
    message, frames = decode(parts[0], parts[1:])
    return message, list(frames)


def survives(first: bytes, *others: bytes) -> bool:
    """Whether `decode` takes this for a message. Any exception but those it may raise fails the test."""
    try:
        decode(first, others)
    except (ProtocolError, VersionMismatch):
        return False
    return True


def frames_of(message: m.Message) -> list[Frame]:
    """As many frames as `message` announces, all different."""
    return [b"frame %d" % number for number in range(arbitrary.announced_frames(message))]


# --- what we send arrives ---------------------------------------------------------------------------------------------


@every_kind
@given(data=st.data())
def test_a_message_arrives_as_it_was_sent(kind, data):
    message = data.draw(arbitrary.of_kind(kind))
    assert received(encode(message, frames_of(message))) == (message, frames_of(message))


frame_sizes = st.sampled_from([0, 1, 100, INLINED_FRAME_BYTES_MAX, INLINED_FRAME_BYTES_MAX + 1])


@given(st.lists(frame_sizes, max_size=6))
def test_frames_of_any_size_arrive_in_their_order(sizes):
    frames = [bytes([number]) * size for number, size in enumerate(sizes)]
    parts = encode(SHARED_CALL, frames)
    assert received(parts) == (SHARED_CALL, frames)
    small = next((place for place, size in enumerate(sizes) if size > INLINED_FRAME_BYTES_MAX), len(sizes))
    assert len(parts) == 1 + len(sizes) - small


@pytest.mark.parametrize("count", [FRAMES_INLINED_MAX, FRAMES_INLINED_MAX + 1, FRAMES_MAX])
def test_many_frames_arrive(count):
    frames = [b"%d" % number for number in range(count)]
    assert received(encode(SHARED_CALL, frames)) == (SHARED_CALL, frames)


def test_a_large_frame_is_not_copied():
    large = bytes(INLINED_FRAME_BYTES_MAX + 1)
    assert encode(SHARED_CALL, [large])[1] is large


def test_a_message_is_small():
    task = m.Task((3 << m.SESSION_SHIFT) + 70_000, DIGEST, [], b"payload", 0)
    assert len(encode(m.Beat())[0]) == LEAD_BYTES + 2
    assert len(encode(m.Tasks([task]))[0]) < len(b"payload") + 50


@given(st.lists(st.integers(0, 5), max_size=8))
def test_frames_are_cut_where_the_counts_say(counts):
    frames = [b"%d" % place for place in range(sum(counts))]
    pieces = split_frames(counts, frames)
    assert [len(piece) for piece in pieces] == counts
    assert [frame for piece in pieces for frame in piece] == frames


sizes_and_frames = st.tuples(st.sampled_from([0, 10, PAYLOAD_BYTES_PER_MESSAGE_MAX // 3]), st.integers(0, 3))


@given(st.lists(sizes_and_frames, max_size=12))
def test_a_batch_is_cut_into_messages_that_may_be_sent_with_each_task_beside_its_frames(items):
    payloads = {size: bytes(size) for size, _ in items}
    tasks = [m.Task(number, DIGEST, [], payloads[size], frames) for number, (size, frames) in enumerate(items)]
    frames = [b"%d" % task.id for task in tasks for _ in range(task.frames)]
    cuts = [(tasks[these], frames[theirs]) for these, theirs in batches(tasks)]
    assert [task for some, _ in cuts for task in some] == tasks
    for some, theirs in cuts:
        assert some
        assert theirs == [b"%d" % task.id for task in some for _ in range(task.frames)]
        assert sum(len(task.payload) for task in some) <= PAYLOAD_BYTES_PER_MESSAGE_MAX
    for (some, _), (others, _) in itertools.pairwise(cuts):
        assert sum(len(task.payload) for task in [*some, others[0]]) > PAYLOAD_BYTES_PER_MESSAGE_MAX


def test_a_batch_is_cut_by_number_by_frames_and_around_what_is_large():
    def cut(*items: m.Task) -> list[int]:
        return [these.stop - these.start for these, _ in batches(items)]

    small, large, wide = (
        m.Task(1, DIGEST, [], bytes(size), frames) for size, frames in ((1, 0), (2**23, 0), (1, FRAMES_MAX // 2))
    )
    assert cut() == []
    assert cut(*[small] * (2 * TASKS_PER_MESSAGE_MAX + 1)) == [TASKS_PER_MESSAGE_MAX, TASKS_PER_MESSAGE_MAX, 1]
    assert cut(large, large, small, small, large) == [1, 1, 2, 1]
    assert cut(small, wide, wide, wide) == [3, 1]
    given = m.Task(1, DIGEST, [], b"", 0, None, [(2, bytes(PAYLOAD_BYTES_PER_MESSAGE_MAX * 2 // 5))])
    needy = m.Task(1, DIGEST, [DIGEST] * (PAYLOAD_BYTES_PER_MESSAGE_MAX // 20), b"", 0)
    asking = m.Task(1, DIGEST, [], b"", 0, m.Terms(inputs=[3] * (PAYLOAD_BYTES_PER_MESSAGE_MAX // 10)))
    for much in (given, needy, asking):
        assert max(cut(*[much] * 7)) <= 3


# --- what is not ours is refused --------------------------------------------------------------------------------------


@given(st.binary(max_size=200), st.lists(st.binary(max_size=3), max_size=3))
def test_arbitrary_bytes_are_refused(first, others):
    assert not survives(first, *others)


@given(st.binary(max_size=200), st.integers(0, 2**16 - 1), st.integers(0, 2**32 - 1))
def test_an_arbitrary_lead_is_refused_or_of_a_message(body, inlined, body_bytes):
    survives(first_part(body, inlined, body_bytes=body_bytes))


@given(st.binary(max_size=200), st.lists(st.binary(max_size=3), max_size=3))
@example(b"\x94\x02\x01" + NO_RANKS + b"\x81\xa1a\x81\x80\x01", [])  # facts with a map as the key of a map
@example(b"\x94\x02\x01" + NO_RANKS + b"\x81\xa1\xff\x01", [])  # facts with a key that is not UTF-8
@example(b"\x94\x02\x01" + NO_RANKS + b"\x81\xa1a\xd7\xff" + b"\xff" * 8, [])  # facts with a time out of bounds
def test_arbitrary_bytes_behind_our_lead_are_refused_or_a_message(body, others):
    survives(first_part(body), *others)


@given(arbitrary.messages(), st.data())
def test_a_truncated_message_is_refused(message, data):
    first, *others = encode(message, frames_of(message))
    cut = data.draw(st.integers(0, len(first) - 1))
    assert not survives(first[:cut], *others)


@given(arbitrary.messages(), st.binary(min_size=1, max_size=20))
def test_a_message_with_more_bytes_behind_it_is_refused(message, more):
    first, *others = encode(message, frames_of(message))
    assert not survives(first + more, *others)


@given(arbitrary.messages(), st.data())
def test_a_mutated_message_is_refused_or_another_message(message, data):
    first, *others = encode(message, frames_of(message))
    changed = bytearray(first)
    for _ in range(data.draw(st.integers(1, 4))):
        start = data.draw(st.integers(0, len(changed)))
        end = data.draw(st.integers(start, min(start + 3, len(changed))))
        changed[start:end] = data.draw(st.binary(max_size=3))
    survives(bytes(changed), *others)


@given(arbitrary.messages(), st.integers(0, 255).filter(lambda version: version != PROTOCOL_VERSION))
def test_another_version_is_told_apart_from_garbage(message, version):
    first, *others = encode(message, frames_of(message))
    with pytest.raises(VersionMismatch, match=f"version {version}, this side {PROTOCOL_VERSION}: install the same"):
        decode(MAGIC + bytes([version]) + first[3:], others)


@given(arbitrary.messages(), st.integers(0, 8))
def test_a_message_with_another_number_of_frames_than_it_announces_is_refused(message, count):
    announced = arbitrary.announced_frames(message)
    assume(count != announced and not (isinstance(message, m.Call) and not message.parts))
    first, *others = encode(message, [b"frame"] * count)
    with pytest.raises(ProtocolError, match=f"announces {announced} frames and came with {count}"):
        decode(first, others)


# --- no lie about a size costs memory or a wrong answer ---------------------------------------------------------------


@pytest.mark.parametrize(
    "body",
    [
        pytest.param(b"\xdd\xff\xff\xff\xff\x09", id="fields"),
        pytest.param(b"\x92\x09\xdd\xff\xff\xff\xff", id="tasks"),
        pytest.param(b"\x92\x0b\xdd\xff\xff\xff\xff\x01", id="task ids"),
        pytest.param(b"\x92\x0d\xdd\xff\xff\xff\xff", id="digests"),
        pytest.param(b"\x92\x0c\xc6\xff\xff\xff\xff", id="bytes of a digest"),
        pytest.param(b"\x94\x06\x92\x00\xc6\xff\xff\xff\xff", id="bytes of a rank set"),
        pytest.param(b"\x92\x11\xdb\xff\xff\xff\xff", id="characters of a reason"),
        pytest.param(b"\x94\x02\x01" + NO_RANKS + b"\xdf\xff\xff\xff\xff", id="facts"),
        pytest.param(b"\x94\x02\x01" + NO_RANKS + b"\x81\xa1a\xdd\xff\xff\xff\xff", id="items of a fact"),
        pytest.param(b"\x94\x02\x01" + NO_RANKS + b"\x81\xa1a" + b"\x91" * 10_000, id="depth of a fact"),
        pytest.param(b"\x91" * 10_000, id="depth of a message"),
    ],
)
def test_a_size_that_is_a_lie_costs_no_memory(body):
    assert peak_bytes_of(first_part(body)) < 512 * KIB


@pytest.mark.parametrize(
    ("inlined", "body_bytes"), [(0, 2**32 - 1), (2**16 - 1, 2), (1, 2), (1, 0), (FRAMES_INLINED_MAX, 2)]
)
def test_a_lead_that_is_a_lie_costs_no_memory(inlined, body_bytes):
    beat = b"\x91\x05"
    assert peak_bytes_of(first_part(beat, inlined, body_bytes=body_bytes)) < 512 * KIB
    sizes = struct.pack("<I", 2**32 - 1) * inlined
    assert peak_bytes_of(first_part(sizes + beat, inlined, body_bytes=body_bytes)) < 16 * 512 * KIB


def peak_bytes_of(first: bytes) -> int:
    """The memory that it takes to refuse this."""
    tracemalloc.start()
    try:
        assert not survives(first)
        return tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()


def test_a_first_part_above_its_bound_is_refused_before_it_is_decoded():
    first, *_ = encode(m.Stop("x" * HEADER_BYTES_MAX))
    with pytest.raises(ProtocolError, match=f"exceeds {HEADER_BYTES_MAX}"):
        decode(first)


def test_a_message_of_too_many_frames_is_refused():
    first, *others = encode(SHARED_CALL, [b""] * (FRAMES_MAX + 1))
    with pytest.raises(ProtocolError, match=f"{FRAMES_MAX + 1} frames exceeds {FRAMES_MAX}"):
        decode(first, others)


def out_of_bounds() -> list[m.Message]:
    """Messages that our own code would never make: each breaks one bound of its type."""
    offset_max = ENGINES_MAX // 8
    return [
        m.Tasks([m.Task(1, DIGEST, [], b"", -1)]),
        m.Tasks([m.Task(1, DIGEST, [], b"", FRAMES_MAX + 1)]),
        m.Tasks([m.Task(1, DIGEST[:15], [], b"", 0)]),
        m.Results([m.Result(1, -1, 0, 0, b"", 0)]),
        m.Results([m.Result(1, ENGINES_MAX + 1, 0, 0, b"", 0)]),
        m.Reply(1, [m.Chunk((0, b"\x01"), [-1], 1)], []),
        m.Reply(1, [m.Chunk((offset_max + 1, b"\x01"), [], 1)], []),
        m.Reply(1, [m.Chunk((2**62, b"\x01"), [], 1)], []),
        m.Members((-1, b"\x01"), (0, b""), ""),
        m.Members((0, bytes(offset_max + 2)), (0, b""), ""),
        m.Hello("c", "k", "engine", "u", 1, "h", 0, ENGINES_MAX + 1),
        m.Hello("c", "k", "impostor", "u", 1, "h", 0, 1),
        m.Blob(DIGEST + b"\0"),
    ]


@pytest.mark.parametrize("message", out_of_bounds(), ids=repr)
@pytest.mark.parametrize("frames", [0, 1])
def test_a_field_out_of_its_bounds_is_refused(message, frames):
    with pytest.raises(ProtocolError, match="not a message"):
        decode(*encode(message, [b""] * frames))


@pytest.mark.parametrize(
    "chunk",
    [
        pytest.param(m.Chunk((0, b"\x03"), [], 1), id="two ranks without sizes"),
        pytest.param(m.Chunk((0, b"\x03"), [5], 1), id="fewer sizes than ranks"),
        pytest.param(m.Chunk((0, b"\x01"), [5, 5], 1), id="more sizes than ranks"),
        pytest.param(m.Chunk((0, b"\x03"), [5, 5], 2), id="joined answers in two frames"),
        pytest.param(m.Chunk((0, b""), [], 1), id="nobody's answer"),
    ],
)
def test_answers_that_do_not_fit_their_ranks_are_refused(chunk):
    with pytest.raises(ProtocolError, match="a chunk of"):
        decode(*encode(m.Reply(1, [chunk], []), [b""] * chunk.frames))


def test_whoever_handles_peer_errors_handles_every_refusal():
    assert issubclass(ProtocolError, PeerError)
    assert issubclass(VersionMismatch, PeerError)
