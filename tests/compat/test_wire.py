"""What is written here is read by ipyparallel's clients, and the other way round; what is wrong is refused."""

from __future__ import annotations

import pickle
from collections.abc import Callable
from typing import Any

import pytest
import zmq
from hypothesis import given
from hypothesis import strategies as st
from jupyter_client.session import Session

from hiersched.compat import wire as wire_module
from hiersched.compat.wire import DELIMITER, NO_PARENT, Wire, date_text
from hiersched.errors import ProtocolError, UserError

KEY = b"a secret"
PLAIN = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-(2**53), 2**53)
    | st.floats(allow_nan=False, allow_infinity=False)
    | st.text(),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=8), inner, max_size=4),
    max_leaves=12,
)
CONTENTS = st.dictionaries(st.text(max_size=8), PLAIN, max_size=4)
BUFFERS = st.lists(st.binary(max_size=40), max_size=3)


def theirs(**options: Any) -> Session:
    """The code of a real client."""
    return Session(**{"key": KEY, **options})


def asked(session: Session, content: Any = None, **rest: Any) -> list[bytes]:
    """The frames of a request, as a client sends them: its path, and all parts."""
    message = session.msg("apply_request", content=content or {}, metadata=rest.get("metadata"))
    return [*session.serialize(message, ident=[b"client", b"engine"]), *rest.get("buffers", ())]


def read(session: Session, frames: list[Any]) -> tuple[list[bytes], dict[str, Any]]:
    """The path and the message, as a client reads it."""
    path, parts = session.feed_identities([bytes(frame) for frame in frames])
    return path, session.deserialize(parts)


# --- both ways --------------------------------------------------------------------------------------------------------


@given(CONTENTS, CONTENTS, BUFFERS)
def test_what_a_client_writes_is_read(content, metadata, buffers):
    session = theirs()
    message = Wire(KEY).unpack(asked(session, content, metadata=metadata, buffers=buffers))
    assert (message.content, message.metadata, message.buffers) == (content, metadata, buffers)
    assert (message.idents, message.parent) == ([b"client", b"engine"], {})
    assert (message.msg_type, message.session) == ("apply_request", session.session)
    assert message.msg_id.startswith(session.session)


@given(CONTENTS, CONTENTS, BUFFERS)
def test_a_client_reads_what_is_written(content, metadata, buffers):
    session, wire = theirs(), Wire(KEY)
    request = wire.unpack(asked(session))
    frames = wire.pack(
        "apply_reply", content, parent=request.header_raw, metadata=metadata, idents=[b"client"], buffers=buffers
    )
    path, answer = read(session, frames)
    assert path == [b"client"]
    assert (answer["content"], answer["metadata"], answer["buffers"]) == (content, metadata, buffers)
    assert answer["parent_header"]["msg_id"] == request.msg_id
    assert (answer["msg_type"], answer["header"]["session"]) == ("apply_reply", wire.session)


@given(CONTENTS, BUFFERS)
def test_what_is_written_here_is_read_here(content, buffers):
    message = Wire(KEY).unpack(Wire(KEY).pack("kind", content, idents=[b"a"], buffers=buffers))
    assert (message.idents, message.msg_type, message.content, message.buffers) == ([b"a"], "kind", content, buffers)


def test_the_header_of_a_request_comes_back_as_it_was():
    wire = Wire(KEY)
    odd = b'{ "msg_id":"1",  "msg_type":"x", "date":"2020-01-01T00:00:00Z", "more":[1e400] }'
    parts = [odd, b"{}", b"{}", b"{}"]
    request = wire.unpack([DELIMITER, wire._sign(parts), *parts])
    assert request.header_raw == odd
    assert wire.pack("reply", {}, parent=request.header_raw)[3] == odd


def test_every_message_has_an_id_of_its_own():
    first, second = Wire(KEY), Wire(KEY)
    ids = [wire.header("x")["msg_id"] for wire in (first, first, second)]
    assert len(set(ids)) == 3


def test_moments_have_a_zone():
    assert date_text(0.5) == "1970-01-01T00:00:00.500000+00:00"
    assert date_text().endswith("+00:00")


def test_large_frames_are_not_looked_into():
    buffer = zmq.Frame(bytes(100_000))
    message = Wire(KEY).unpack([*asked(theirs()), buffer])
    assert message.buffers[0] is buffer


@pytest.mark.parametrize("packer", ["json", "pickle"])
def test_clients_may_write_otherwise(packer):
    session, wire = theirs(packer=packer, unpacker=packer), Wire(KEY, pack=packer, unpack=packer)
    request = wire.unpack(asked(session, {"a": [1, 2]}))
    assert request.content == {"a": [1, 2]}
    path, answer = read(session, wire.pack("reply", {"b": 1}, parent=request.header_raw, idents=[b"c"]))
    assert (path, answer["content"], answer["parent_header"]["msg_id"]) == ([b"c"], {"b": 1}, request.msg_id)
    _, news = read(session, wire.pack("news", {"b": 2}))
    assert (news["content"], news["parent_header"]) == ({"b": 2}, {})


def test_a_cluster_may_be_signed_otherwise_or_not_at_all():
    session = theirs(signature_scheme="hmac-md5")
    assert Wire(KEY, signature_scheme="hmac-md5").unpack(asked(session)).msg_type == "apply_request"
    unsigned, wire = theirs(key=b""), Wire(b"")
    frames = asked(unsigned)
    assert wire.unpack(frames).idents == wire.unpack(frames).idents  # there is nothing to know them by
    assert read(unsigned, wire.pack("reply", {"a": 1}))[1]["content"] == {"a": 1}


@pytest.mark.parametrize(
    "options", [{"signature_scheme": "rsa-sha256"}, {"signature_scheme": "hmac-nothing"}, {"pack": "no.such.packer"}]
)
def test_what_is_asked_for_and_not_there_is_told(options):
    with pytest.raises(UserError):
        Wire(KEY, **options)


# --- what a format does not hold --------------------------------------------------------------------------------------


def test_contents_may_hold_what_json_does_not():
    session, wire = theirs(), Wire(KEY)
    deep: list[Any] = []
    for _ in range(10_000):
        deep = [deep]
    odd = {
        "text": "a\ud800b",
        "nan": float("nan"),
        "huge": 10**400,
        "of": Exception("x"),
        "set": {1},
        5: "key",
        "d": deep,
    }
    content = read(session, wire.pack("stream", odd))[1]["content"]
    assert content["text"] == "a\\ud800b"
    assert content["nan"] is None
    assert (content["huge"], content["5"]) == (str(10**400), "key")
    assert (content["of"], content["set"]) == ("Exception('x')", "{1}")


def test_clients_may_write_what_json_does_not_hold():
    wire = Wire(KEY)
    parts = [b'{"msg_id": "1", "msg_type": "x"}', b"{}", b'{"timeout": NaN, "far": Infinity}', b'{"text": "\\ud800"}']
    message = wire.unpack([DELIMITER, wire._sign(parts), *parts])
    assert message.metadata["timeout"] != message.metadata["timeout"]
    assert message.metadata["far"] == float("inf")
    assert message.content == {"text": "\ud800"}
    assert wire.unpack(asked(theirs(), {"path": "a\udcff"})).content == {"path": "a\ufffd"}


# --- what is refused --------------------------------------------------------------------------------------------------


def refused(wire: Wire, frames: list[Any]) -> ProtocolError:
    with pytest.raises(ProtocolError) as told:
        wire.unpack(frames)
    return told.value


def test_another_key_is_refused_and_the_sender_is_known():
    error = refused(Wire(b"another"), asked(theirs()))
    assert "signature is wrong" in str(error)
    assert error.idents == [b"client", b"engine"]  # type: ignore[attr-defined]


@given(st.data())
def test_a_byte_that_changed_on_the_way_is_noticed(data):
    frames = asked(theirs(), {"a": 1})
    place = data.draw(st.integers(3, len(frames) - 1))  # behind the delimiter
    at = data.draw(st.integers(0, len(frames[place]) - 1))
    changed = bytearray(frames[place])
    changed[at] ^= data.draw(st.integers(1, 255))
    frames[place] = bytes(changed)
    refused(Wire(KEY), frames)


def test_a_message_that_was_read_is_not_read_again():
    wire, frames = Wire(KEY), asked(theirs())
    wire.unpack(frames)
    assert "sent twice" in str(refused(wire, frames))
    assert wire.unpack(asked(theirs())).msg_type == "apply_request"


def test_only_so_many_signatures_are_remembered(monkeypatch):
    monkeypatch.setattr(wire_module, "OLD_SIGNATURES_MAX", 3)
    wire = Wire(KEY)
    for _ in range(10):
        wire.unpack(asked(theirs()))
    assert len(wire._seen) == 3


@given(st.lists(st.binary(max_size=20), max_size=8))
def test_noise_is_refused(frames):
    for wire in (Wire(KEY), Wire(b"")):
        error = refused(wire, frames)
        assert isinstance(error.idents, list)  # type: ignore[attr-defined]
        refused(wire, [b"path", DELIMITER, b"signature", *frames])


@given(
    st.lists(
        st.binary(max_size=20) | st.sampled_from([b"[]", b"1", b"null", b'"x"', b"{}", b'{"msg_id":1}']),
        min_size=4,
        max_size=5,
    )
)
def test_noise_with_a_good_signature_is_refused(parts):
    wire = Wire(KEY)
    refused(wire, [DELIMITER, wire._sign(parts[:4]), *parts])


def test_what_is_cut_off_is_refused():
    frames = asked(theirs())
    for end in range(len(frames)):
        refused(Wire(KEY), frames[:end])
    refused(Wire(b""), frames[:2] + frames[3:])


def test_a_tower_of_brackets_is_refused():
    wire = Wire(KEY)
    parts = [b'{"msg_id": "1", "msg_type": "x"}', b"{}", b"{}", b'{"a":' + b"[" * 200_000]
    refused(wire, [DELIMITER, wire._sign(parts), *parts])


class Trap:
    """What must never be unpickled."""

    sprung = False

    def __reduce__(self) -> tuple[Callable[[], None], tuple[()]]:
        return Trap.spring, ()

    @staticmethod
    def spring() -> None:
        Trap.sprung = True


@pytest.mark.parametrize("packer", ["json", "pickle"])
def test_nothing_is_unpickled_that_has_a_wrong_signature_or_is_not_to_be(packer):
    trap = pickle.dumps(Trap())
    wire = Wire(KEY, pack=packer, unpack=packer)
    refused(wire, [DELIMITER, b"0" * 64, trap, trap, trap, trap])
    parts = [wire.encode({"msg_id": "1", "msg_type": "x"}), NO_PARENT, wire.encode({}), wire.encode({})]
    assert wire.unpack([DELIMITER, wire._sign(parts), *parts, trap]).buffers == [trap]
    if packer == "json":
        refused(wire, [DELIMITER, wire._sign([trap] * 4), *[trap] * 4])
    assert not Trap.sprung
