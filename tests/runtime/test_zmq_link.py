"""Links over real sockets: what is sent arrives, what is no message is blamed on its sender, nobody is waited for."""

from __future__ import annotations

import os
import socket
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import zmq

from hiersched.errors import ProtocolError, VersionMismatch
from hiersched.limits import HEADER_BYTES_MAX, INLINE_BYTES_MAX
from hiersched.protocol import messages as m
from hiersched.protocol.framing import encode
from hiersched.runtime.zmq_link import Gone, Port, Unreachable, Uplink, context
from tests.patience import DEADLINE_S, until


class Ends:
    """A port and what is connected to it, closed with the test."""

    def __init__(self, directory: Path) -> None:
        self.context = context()
        self.port = Port(self.context, f"ipc://{directory}/port")
        self._opened: list[Uplink | zmq.Socket[bytes]] = []

    def uplink(self, name: bytes) -> Uplink:
        link = Uplink(self.context, self.port.address, name)
        self._opened.append(link)
        return link

    def stranger(self, name: bytes) -> zmq.Socket[bytes]:
        """A peer that sends what it likes."""
        socket = self.context.socket(zmq.DEALER)
        socket.setsockopt(zmq.IDENTITY, name)
        socket.linger = 0
        socket.connect(self.port.address)
        self._opened.append(socket)
        return socket

    def close(self) -> None:
        for opened in self._opened:
            opened.close()
        self.port.close()
        self.context.term()


@pytest.fixture
def ends(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Ends]:
    monkeypatch.chdir(tmp_path)  # the path of a socket must be short
    ends = Ends(Path("."))
    yield ends
    ends.close()


def received(end: Port | Uplink) -> tuple[bytes, m.Message, list[bytes]]:
    assert end.wait(DEADLINE_S), "nothing came"
    link, message, frames = end.receive()
    return link, message, [bytes(memoryview(frame)) for frame in frames]


def refused(port: Port) -> ProtocolError | VersionMismatch:
    assert port.wait(DEADLINE_S), "nothing came"
    with pytest.raises((ProtocolError, VersionMismatch)) as caught:
        port.receive_nowait()
    return caught.value


# --- messages ---------------------------------------------------------------------------------------------------------


def test_messages_go_both_ways_in_order(ends: Ends) -> None:
    below = ends.uplink(b"below")
    for number in range(100):
        below.send(m.Beat() if number % 2 else m.Bye(str(number)))
    for number in range(100):
        link, message, frames = received(ends.port)
        assert (link, frames) == (b"below", [])
        assert message == (m.Beat() if number % 2 else m.Bye(str(number)))
    ends.port.send(b"below", m.Stop("done"))
    assert received(below) == (b"", m.Stop("done"), [])
    assert below.receive_nowait() is None
    assert ends.port.receive_nowait() is None


@pytest.mark.parametrize("size", [0, 1, 1000, INLINE_BYTES_MAX - 1, INLINE_BYTES_MAX, 3_000_000])
def test_payload_of_any_size_arrives_whole(ends: Ends, size: int) -> None:
    below = ends.uplink(b"below")
    payload = [os.urandom(size), b"", os.urandom(size // 2)]
    call = m.Call(1, (0, b"\x01"), m.CALL_LANE, bytes(16), [], [])
    below.send(call, payload)
    link, message, frames = received(ends.port)
    assert (link, message, frames) == (b"below", call, payload)
    ends.port.send(b"below", call, payload)
    assert received(below)[2] == payload


def test_what_was_received_can_be_sent_on(ends: Ends) -> None:
    below, other = ends.uplink(b"below"), ends.uplink(b"other")
    other.send(m.Beat())
    received(ends.port)
    payload = np.arange(100_000).tobytes()
    below.send(m.Blob(bytes(16)), [payload])
    assert ends.port.wait(DEADLINE_S)
    _, blob, frames = ends.port.receive()
    for _ in range(3):
        ends.port.send(b"other", blob, frames)
    for _ in range(3):
        assert received(other)[2] == [payload]


def test_what_is_sent_is_what_it_was_at_that_moment(ends: Ends) -> None:
    below = ends.uplink(b"below")
    array = np.zeros(4_000_000)
    below.send(m.Blob(bytes(16)), [memoryview(array).cast("B")])
    array += 1
    _, _, (frame,) = received(ends.port)
    assert not np.frombuffer(frame).any()


def test_one_message_for_many_neighbours_is_the_same_for_all(ends: Ends) -> None:
    links = [ends.uplink(b"engine-%d" % rank) for rank in range(5)]
    for link in links:
        link.send(m.Beat())
    names = {received(ends.port)[0] for _ in links}
    assert names == {b"engine-%d" % rank for rank in range(5)}
    for message, frames in ((m.Stop("a"), []), (m.Blob(bytes(16)), [b"x"]), (m.Blob(bytes(16)), [b"y"])):
        for name in sorted(names):
            ends.port.send(name, message, frames)
        for link in links:
            assert received(link)[1:] == (message, frames)


def test_readable_tells_whether_messages_wait(ends: Ends) -> None:
    below = ends.uplink(b"below")
    assert not ends.port.readable()
    assert not ends.port.wait(0.0)
    below.send(m.Beat())
    assert ends.port.wait(DEADLINE_S)
    assert ends.port.readable()
    received(ends.port)
    assert not ends.port.readable()


# --- what is no message -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("parts", "error"),
    [
        ([b"garbage"], ProtocolError),
        ([b""], ProtocolError),
        ([b"", b"", b""], ProtocolError),
        ([bytes(HEADER_BYTES_MAX + 1)], ProtocolError),
        ([b"HS\xff" + bytes(20)], VersionMismatch),
        ([b"".join(encode(m.Beat())), b"a frame too many"], ProtocolError),
    ],
)
def test_what_is_no_message_is_blamed_on_its_sender(ends: Ends, parts: list[bytes], error: type[Exception]) -> None:
    ends.stranger(b"stranger").send_multipart(parts)
    found = refused(ends.port)
    assert type(found) is error
    assert found.link == b"stranger"  # type: ignore[union-attr]


def test_good_messages_between_bad_ones_arrive(ends: Ends) -> None:
    stranger = ends.stranger(b"stranger")
    for _ in range(10):
        stranger.send_multipart([b"bad", b"more", b"of it"])
        stranger.send_multipart(encode(m.Beat()))
    for _ in range(10):
        refused(ends.port)
        assert received(ends.port)[:2] == (b"stranger", m.Beat())


# --- neighbours that are not there ------------------------------------------------------------------------------------


def gone(port: Port, link: bytes) -> bool:
    try:
        port.send(link, m.Beat())
    except Gone:
        return True
    return False


def test_whoever_never_came_is_unreachable(ends: Ends) -> None:
    with pytest.raises(Unreachable):
        ends.port.send(b"nobody", m.Beat())
    with pytest.raises(Unreachable):
        ends.port.send(b"nobody", m.Blob(bytes(16)), [bytes(1_000_000)])


def test_whoever_has_gone_is_unreachable(ends: Ends) -> None:
    below = ends.uplink(b"below")
    below.send(m.Beat())
    received(ends.port)
    below.close()
    until(lambda: gone(ends.port, b"below"), "the port notices")


def test_whoever_does_not_read_is_not_waited_for(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("hiersched.runtime.zmq_link.LINK_MESSAGES_MAX", 10)
    ends = Ends(Path("."))
    below = ends.uplink(b"below")
    below.send(m.Beat())
    received(ends.port)
    blob = bytes(1_000_000)
    with pytest.raises(Unreachable, match="its queue is full"):
        for _ in range(1_000):
            ends.port.send(b"below", m.Blob(bytes(16)), [blob])
    ends.close()


def test_whoever_comes_back_takes_its_name_over(ends: Ends) -> None:
    ends.uplink(b"same").send(m.Bye("first"))
    received(ends.port)
    second = ends.uplink(b"same")
    second.send(m.Bye("second"))
    assert received(ends.port)[1] == m.Bye("second")
    ends.port.send(b"same", m.Stop("now"))
    assert received(second)[1] == m.Stop("now")


# --- climbing ---------------------------------------------------------------------------------------------------------


class Tree:
    """Ports at 'root', 'middle' and 'leaf', and an uplink to the leaf."""

    def __init__(self) -> None:
        self.context = context()
        self.ports = {name: Port(self.context, f"ipc://{name}") for name in ("root", "middle", "leaf")}
        self.below = Uplink(self.context, "ipc://leaf", b"below", ancestors=["ipc://middle", "ipc://root"])

    def kill(self, name: str) -> None:
        """Close a port and leave its socket file behind, as one that is killed does."""
        self.ports.pop(name).close()
        with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as stale:
            stale.bind(name)

    def close(self) -> None:
        for opened in (self.below, *self.ports.values()):
            opened.close()
        self.context.term()


@pytest.fixture
def tree(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Tree]:
    monkeypatch.chdir(tmp_path)
    tree = Tree()
    yield tree
    tree.close()


def test_an_orphan_climbs_from_one_living_ancestor_to_the_next(tree: Tree) -> None:
    for killed, next_one in (("leaf", "middle"), ("middle", "root")):
        assert tree.below.parent_lives()
        tree.kill(killed)
        assert not tree.below.parent_lives()
        assert tree.below.climb()
        tree.below.send(m.Bye(killed))
        assert received(tree.ports[next_one]) == (b"below", m.Bye(killed), [])
        tree.ports[next_one].send(b"below", m.Stop(killed))
        assert received(tree.below) == (b"", m.Stop(killed), [])
    tree.kill("root")
    assert not tree.below.climb()


@pytest.mark.parametrize("left", ["a file", "nothing"])
def test_an_orphan_passes_over_ancestors_that_are_gone(tree: Tree, left: str) -> None:
    for name in ("leaf", "middle"):
        tree.kill(name)
        if left == "nothing":
            os.unlink(name)
    assert tree.below.climb()
    assert tree.below.address == "ipc://root"


def test_what_was_not_read_of_the_old_parent_never_happened(tree: Tree) -> None:
    tree.below.send(m.Beat())
    received(tree.ports["leaf"])
    tree.ports["leaf"].send(b"below", m.Stop("unread"))
    assert tree.below.wait(DEADLINE_S)
    tree.kill("leaf")
    assert tree.below.climb()
    assert tree.below.receive_nowait() is None
    tree.below.send(m.Beat())
    received(tree.ports["middle"])
    tree.ports["middle"].send(b"below", m.Stop("now"))
    assert received(tree.below)[1] == m.Stop("now")


def test_an_ancestor_with_more_callers_than_it_can_take_lives(tree: Tree) -> None:
    tree.kill("leaf")
    tree.kill("middle")
    os.unlink("middle")
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as busy:
        busy.bind("middle")
        busy.listen(0)
        with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as caller:
            caller.connect("middle")
            assert tree.below.climb()
    assert tree.below.address == "ipc://middle"


# --- addresses --------------------------------------------------------------------------------------------------------


def test_the_socket_file_goes_with_the_port(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    own = context()
    port = Port(own, "ipc://here")
    assert Path("here").is_socket()
    port.close()
    own.term()
    assert not Path("here").exists()


def test_nothing_speaks_tcp_without_keys() -> None:
    own = context()
    try:
        with pytest.raises(ValueError, match="a tcp port needs keys"):
            Port(own, "tcp://127.0.0.1:*")
        with pytest.raises(ValueError, match="a tcp link needs keys"):
            Uplink(own, "tcp://127.0.0.1:1", b"name")
    finally:
        own.destroy(0)
