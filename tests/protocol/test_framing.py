"""A message survives the wire, and nothing that comes off the wire does harm."""

from __future__ import annotations

import tracemalloc

import pytest
from hypothesis import assume, example, given
from hypothesis import strategies as st

from hiersched.errors import PeerError, ProtocolError, VersionMismatch
from hiersched.limits import ENGINES_MAX, FRAMES_MAX, HEADER_BYTES_MAX, KIB
from hiersched.protocol import messages as m
from hiersched.protocol.framing import MAGIC, PROTOCOL_VERSION, decode, encode, split_frames
from tests.protocol import arbitrary

PREFIX = MAGIC + bytes([PROTOCOL_VERSION])
NO_RANKS = b"\x92\x00\xc4\x00"  # (0, b"") as msgpack
DIGEST = bytes(range(16))

every_kind = pytest.mark.parametrize("kind", arbitrary.KINDS, ids=lambda kind: kind.__name__)


def accepted(header: bytes, payload_frames: int = 0) -> m.Message | None:
    """What `decode` gives; None where it refuses as it may. Any other exception fails the test."""
    try:
        return decode(header, payload_frames)
    except (ProtocolError, VersionMismatch):
        return None


# --- what we send arrives ---------------------------------------------------------------------------------------------


@every_kind
@given(data=st.data())
def test_a_message_arrives_as_it_was_sent(kind, data):
    message = data.draw(arbitrary.of_kind(kind))
    assert decode(encode(message), arbitrary.announced_frames(message)) == message


@given(arbitrary.messages(), st.integers(0, FRAMES_MAX))
def test_a_message_with_another_number_of_frames_than_it_announces_is_refused(message, frames):
    announced = arbitrary.announced_frames(message)
    assume(frames != announced and not (isinstance(message, m.Call) and not message.parts))
    with pytest.raises(ProtocolError, match=f"announces {announced} frames and came with {frames}"):
        decode(encode(message), frames)


def test_a_call_that_all_targets_share_brings_any_number_of_frames():
    call = m.Call(1, (0, b"\x0f"), m.CALL_LANE, DIGEST, [], [])
    assert decode(encode(call), 0) == decode(encode(call), 5) == call


def test_a_message_is_small():
    task = m.Task((3 << m.SESSION_SHIFT) + 70_000, DIGEST, [], b"payload", 0)
    assert encode(m.Beat()) == PREFIX + b"\x91\x05"
    assert len(encode(m.Tasks([task]))) < len(b"payload") + 40


@given(st.lists(st.integers(0, 5), max_size=8))
def test_frames_are_cut_where_the_counts_say(counts):
    frames = [b"%d" % place for place in range(sum(counts))]
    pieces = split_frames(counts, frames)
    assert [len(piece) for piece in pieces] == counts
    assert [frame for piece in pieces for frame in piece] == frames


# --- what is not ours is refused --------------------------------------------------------------------------------------


@given(st.binary(max_size=200), st.integers(0, FRAMES_MAX + 1))
def test_arbitrary_bytes_are_refused(header, frames):
    assert accepted(header, frames) is None


@given(st.binary(max_size=200), st.integers(0, 3))
@example(b"\x94\x02\x01" + NO_RANKS + b"\x81\xa1a\x81\x80\x01", 0)  # facts with a map as the key of a map
@example(b"\x94\x02\x01" + NO_RANKS + b"\x81\xa1\xff\x01", 0)  # facts with a key that is not UTF-8
@example(b"\x94\x02\x01" + NO_RANKS + b"\x81\xa1a\xd7\xff" + b"\xff" * 8, 0)  # facts with a time out of bounds
def test_arbitrary_bytes_behind_our_prefix_are_refused_or_a_message(body, frames):
    accepted(PREFIX + body, frames)


@given(arbitrary.messages(), st.data())
def test_a_truncated_message_is_refused(message, data):
    header = encode(message)
    cut = data.draw(st.integers(0, len(header) - 1))
    with pytest.raises(ProtocolError):
        decode(header[:cut], arbitrary.announced_frames(message))


@given(arbitrary.messages(), st.binary(min_size=1, max_size=20))
def test_a_message_with_more_bytes_behind_it_is_refused(message, more):
    with pytest.raises(ProtocolError):
        decode(encode(message) + more, arbitrary.announced_frames(message))


@given(arbitrary.messages(), st.data())
def test_a_mutated_message_is_refused_or_another_message(message, data):
    header = bytearray(encode(message))
    for _ in range(data.draw(st.integers(1, 4))):
        start = data.draw(st.integers(0, len(header)))
        end = data.draw(st.integers(start, min(start + 3, len(header))))
        header[start:end] = data.draw(st.binary(max_size=3))
    accepted(bytes(header), arbitrary.announced_frames(message))


@given(arbitrary.messages(), st.integers(0, 255).filter(lambda version: version != PROTOCOL_VERSION))
def test_another_version_is_told_apart_from_garbage(message, version):
    header = MAGIC + bytes([version]) + encode(message)[len(PREFIX) :]
    with pytest.raises(VersionMismatch, match=f"version {version}, this side {PROTOCOL_VERSION}: install the same"):
        decode(header, arbitrary.announced_frames(message))


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
    tracemalloc.start()
    try:
        with pytest.raises(ProtocolError):
            decode(PREFIX + body)
        _, peak_bytes = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert peak_bytes < 512 * KIB


def test_a_header_above_its_bound_is_refused_before_it_is_decoded():
    header = encode(m.Stop("x" * HEADER_BYTES_MAX))
    with pytest.raises(ProtocolError, match=f"exceeds {HEADER_BYTES_MAX}"):
        decode(header)


def test_a_message_of_too_many_frames_is_refused():
    call = m.Call(1, (0, b"\x0f"), m.CALL_LANE, DIGEST, [], [])
    assert decode(encode(call), FRAMES_MAX) == call
    with pytest.raises(ProtocolError, match=f"{FRAMES_MAX + 1} frames exceeds {FRAMES_MAX}"):
        decode(encode(call), FRAMES_MAX + 1)


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
@pytest.mark.parametrize("frames", [-1, 0, 1])
def test_a_field_out_of_its_bounds_is_refused(message, frames):
    with pytest.raises(ProtocolError, match="not a message"):
        decode(encode(message), frames)


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
        decode(encode(m.Reply(1, [chunk], [])), chunk.frames)


def test_whoever_handles_peer_errors_handles_every_refusal():
    assert issubclass(ProtocolError, PeerError)
    assert issubclass(VersionMismatch, PeerError)
