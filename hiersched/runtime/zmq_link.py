"""Links over pyzmq: a `Port` has many neighbours below it, an `Uplink` has one above.

On one host links are ipc sockets in a directory that only its owner may enter. A tcp port always speaks CURVE: it lets
in only peers that hold the cluster's client key, and counts the others. Queues are bounded; a neighbour whose queue is
full counts as unreachable, because credit never lets it come to that while it reads.

zmq tells of new messages by an edge on its descriptor: after any use of a socket `readable` must be asked again before
sleeping on the descriptor.
"""

from __future__ import annotations

import contextlib
import os
import socket as plain_sockets
from collections.abc import Callable, Sequence
from typing import Any

import zmq
import zmq.backend

from hiersched.errors import ProtocolError, VersionMismatch
from hiersched.limits import FRAME_BYTES_MAX, INLINE_BYTES_MAX, LINK_MESSAGES_MAX
from hiersched.protocol.framing import Frame, decode, encode
from hiersched.protocol.messages import Message
from hiersched.runtime.keys import CurveKeys, Gate

Link = bytes

# Plain numbers: turning zmq's enumerations into them takes longer than what they are for.
_EVENTS, _POLLIN, _NOBLOCK, _SNDMORE = int(zmq.EVENTS), int(zmq.POLLIN), int(zmq.NOBLOCK), int(zmq.SNDMORE)


class Unreachable(Exception):
    """The neighbour does not read any more, or has gone."""


class Gone(Unreachable):
    """The neighbour has closed its connection."""


def context() -> zmq.Context[zmq.Socket[bytes]]:
    """A zmq context of this process with room for all the sockets it may need."""
    own: zmq.Context[zmq.Socket[bytes]] = zmq.Context()
    own.set(zmq.MAX_SOCKETS, 1024)
    return own


class _Socket:
    """What ports and uplinks share: receiving, framing, and counting what is not a message."""

    def __init__(self, socket: zmq.Socket[bytes], *, has_links: bool) -> None:
        self._has_links = has_links
        self._use(socket)

    def _use(self, socket: zmq.Socket[bytes]) -> None:
        """Send and receive over this socket, which is neither bound nor connected yet."""
        socket.linger = 0
        socket.set_hwm(LINK_MESSAGES_MAX)
        socket.setsockopt(zmq.MAXMSGSIZE, FRAME_BYTES_MAX)
        self.socket = socket
        base = zmq.backend.Socket  # the wrapper that pyzmq puts around it costs more than the socket
        self._get: Callable[[int], int] = base.get.__get__(socket)
        self._recv: Callable[..., Any] = base.recv.__get__(socket)
        self._send: Callable[..., Any] = base.send.__get__(socket)

    def fileno(self) -> int:
        """The descriptor to sleep on."""
        return int(self.socket.FD)

    def readable(self) -> bool:
        """Messages wait."""
        return self._get(_EVENTS) & _POLLIN != 0

    def wait(self, timeout_s: float) -> bool:
        """Sleep until a message waits; False if none came in time."""
        return bool(self.socket.poll(max(0, int(timeout_s * 1000)), zmq.POLLIN))

    def receive_nowait(self) -> tuple[Link, Message, Sequence[Frame]] | None:
        """(link, message, payload frames), or None if nothing waits.

        Raises ProtocolError or VersionMismatch, with the link in `.link`, for what is not a message of ours.
        """
        if self._get(_EVENTS) & _POLLIN:  # asking is cheaper than zmq's exception
            return self.receive()
        return None

    def receive(self) -> tuple[Link, Message, Sequence[Frame]]:
        """The next message; waits for it. Raises as `receive_nowait`."""
        receive = self._recv
        part = receive(0, False)
        link = b""
        if self._has_links:
            link = part.bytes
            if not part.more:
                raise _blame(ProtocolError("an empty message"), link)
            part = receive(0, False)
        first = part.bytes
        others: list[Frame] = []
        while part.more:
            part = receive(0, False)
            others.append(part if len(part) >= INLINE_BYTES_MAX else part.bytes)
        try:
            message, frames = decode(first, others)
        except (ProtocolError, VersionMismatch) as error:
            raise _blame(error, link) from None
        return link, message, frames

    def _send_parts(self, parts: list[Frame], flags: int) -> None:
        """Send the parts of one message. What came from another socket goes on without a copy."""
        send = self._send
        last = parts.pop()
        for part in parts:
            send(part, flags | _SNDMORE, type(part) is not zmq.Frame)
        send(last, flags, type(last) is not zmq.Frame)

    def close(self) -> None:
        """Close the socket; what is unsent is given its `linger`, none by default."""
        self.socket.close()


class Port(_Socket):
    """A socket that children and clients connect to. `address`: what to connect to."""

    def __init__(self, own: zmq.Context[zmq.Socket[bytes]], address: str, gate: Gate | None = None) -> None:
        socket = own.socket(zmq.ROUTER)
        super().__init__(socket, has_links=True)
        self._last: tuple[Message | None, Sequence[Frame], list[Frame]] = (None, (), [])
        socket.setsockopt(zmq.ROUTER_MANDATORY, 1)
        socket.setsockopt(zmq.ROUTER_HANDOVER, 1)  # a child that starts again takes its old name over
        socket.setsockopt(zmq.BACKLOG, 1024)
        if address.startswith("tcp://"):
            if gate is None:
                raise ValueError("a tcp port needs keys")
            gate.guard(socket)
        socket.bind(address)
        self.address = socket.getsockopt(zmq.LAST_ENDPOINT).rstrip(b"\0").decode()  # type: ignore[union-attr]

    def send(self, link: Link, message: Message, frames: Sequence[Frame] = ()) -> None:
        """Send without waiting. Raises Unreachable."""
        try:
            self._send_parts([link, *self._encoded(message, frames)], _NOBLOCK)
        except zmq.Again:
            raise Unreachable("its queue is full") from None
        except zmq.ZMQError as error:
            if error.errno == zmq.EHOSTUNREACH:
                raise Gone("it closed its connection") from None
            raise

    def _encoded(self, message: Message, frames: Sequence[Frame]) -> list[Frame]:
        """The parts of a message; one that goes to many neighbours in a row is encoded once."""
        if message is not self._last[0] or frames is not self._last[1]:
            self._last = (message, frames, encode(message, frames))
        return self._last[2]

    def close(self) -> None:
        """Close the socket and remove its file."""
        super().close()
        if self.address.startswith("ipc://"):
            with contextlib.suppress(FileNotFoundError):  # zmq removes it on a clean close
                os.unlink(self.address.removeprefix("ipc://"))


class Uplink(_Socket):
    """A connection to a parent. name: the link's name on the other side, unique there.

    address: of the parent. ancestors: the addresses of those above it on this host, the nearest first.
    """

    def __init__(
        self,
        own: zmq.Context[zmq.Socket[bytes]],
        address: str,
        name: Link,
        keys: CurveKeys | None = None,
        *,
        ancestors: Sequence[str] = (),
    ) -> None:
        if address.startswith("tcp://") and keys is None:
            raise ValueError("a tcp link needs keys")
        super().__init__(own.socket(zmq.DEALER), has_links=False)
        self._name = name
        self._keys = keys
        self._ancestors = list(ancestors)
        self._connect(address)

    def _connect(self, address: str) -> None:
        self.address = address
        self.socket.setsockopt(zmq.IDENTITY, self._name)
        if self._keys is not None and address.startswith("tcp://"):
            self._keys.enter(self.socket)
        self.socket.connect(address)

    def parent_lives(self) -> bool:
        """Whether somebody listens at the parent's address, which is on this host."""
        return _listens(self.address)

    def climb(self) -> bool:
        """Leave the parent for its nearest ancestor that lives; False if none does.

        What was not read has never happened then, and what was not sent yet is gone.
        """
        while self._ancestors:
            address = self._ancestors.pop(0)
            if _listens(address):
                own = self.socket.context
                self.socket.close()
                self._use(own.socket(zmq.DEALER))
                self._connect(address)
                return True
        return False

    def send(self, message: Message, frames: Sequence[Frame] = ()) -> None:
        """Send; waits only while the bounded queue is full."""
        self._send_parts(encode(message, frames), 0)


def _blame(error: ProtocolError | VersionMismatch, link: Link) -> ProtocolError | VersionMismatch:
    error.link = link  # type: ignore[union-attr]
    return error


def _listens(address: str) -> bool:
    """Whether a process listens at an ipc address. The socket that one leaves behind refuses at once."""
    with plain_sockets.socket(plain_sockets.AF_UNIX, plain_sockets.SOCK_STREAM) as probe:
        probe.setblocking(False)
        try:
            probe.connect(address.removeprefix("ipc://"))
        except (ConnectionRefusedError, FileNotFoundError):
            return False
        except BlockingIOError:  # more connections wait there than it has taken yet
            return True
    return True
