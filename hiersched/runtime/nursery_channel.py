"""What schedulers and the nursery of their host say to each other.

Each scheduler has a socket pair with the nursery. It keeps the bounds of what is sent, and refuses what is larger than
its buffer; so a message is cut into packets, whose first byte says whether more of it follows. Sending never waits
unless asked to: what does not fit into the buffer is kept by the sender until there is room.
"""

from __future__ import annotations

import select
import socket
from collections import deque
from collections.abc import Callable
from typing import Annotated

import msgspec

from hiersched.core.effects import Link
from hiersched.core.topology import Child, TreePlan
from hiersched.limits import KIB
from hiersched.protocol.messages import SIGNALS_MAX

_PACKET_BYTES_MAX = 64 * KIB
_MORE, _LAST = b"\1", b"\0"


class Birth(msgspec.Struct, array_like=True, tag=1):
    """Start these children; they connect to `address`. plan: of the tree they are in, if it is not the asker's."""

    children: list[Child]
    address: str
    plan: TreePlan | None = None


class End(msgspec.Struct, array_like=True, tag=2):
    """See to it that this child of the asker is gone, with all that it has started. Its end is told all the same."""

    link: Link


class Signal(msgspec.Struct, array_like=True, tag=3):
    """Send a signal to these children of the asker. number: 0 is the doorbell's."""

    links: list[Link]
    number: Annotated[int, msgspec.Meta(ge=0, le=SIGNALS_MAX)]


class Ended(msgspec.Struct, array_like=True, tag=4):
    """A child is no more. orphans: its children, which live, and have become those of whoever hears this."""

    child: Child
    reason: str
    orphans: list[Child] = []


class Orphaned(msgspec.Struct, array_like=True, tag=5):
    """The process that started the hearer is no more, or one further up that had taken its place."""

    reason: str


Word = Birth | End | Signal | Ended | Orphaned

_encode = msgspec.msgpack.Encoder().encode
_decode: Callable[[bytes], Word] = msgspec.msgpack.Decoder(Word).decode


class Closed(Exception):
    """The other end is closed: its process has ended."""


class Channel:
    """One end of a socket pair."""

    def __init__(self, end: socket.socket) -> None:
        end.setblocking(False)
        self._end = end
        self._unsent: deque[bytes] = deque()
        self._pieces: list[bytes] = []

    @staticmethod
    def pair() -> tuple[socket.socket, socket.socket]:
        """Two ends."""
        return socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)

    def fileno(self) -> int:
        """The descriptor to sleep on."""
        return self._end.fileno()

    def post(self, word: Word) -> bool:
        """Send as much as there is room for, and keep the rest. Whether nothing is left to send. Raises Closed."""
        data = _encode(word)
        last = (len(data) - 1) // _PACKET_BYTES_MAX
        for number in range(last + 1):
            piece = data[number * _PACKET_BYTES_MAX : (number + 1) * _PACKET_BYTES_MAX]
            self._unsent.append((_LAST if number == last else _MORE) + piece)
        return self.flush()

    def flush(self) -> bool:
        """Send what is left, as much as there is room for. Whether nothing is left now. Raises Closed."""
        while self._unsent:
            try:
                self._end.send(self._unsent[0])
            except BlockingIOError:
                return False
            except (BrokenPipeError, ConnectionResetError):
                raise Closed from None
            self._unsent.popleft()
        return True

    def send(self, word: Word) -> None:
        """Send; waits for room. Raises Closed."""
        sent = self.post(word)
        if not sent:
            room = select.poll()
            room.register(self._end, select.POLLOUT)
        while not sent:
            room.poll()
            sent = self.flush()

    def receive_nowait(self) -> Word | None:
        """The next message; None if it is not here yet. Raises Closed."""
        while True:
            try:
                packet = self._end.recv(1 + _PACKET_BYTES_MAX)
            except BlockingIOError:
                return None
            except ConnectionResetError:  # the other end was closed with something unread
                raise Closed from None
            if not packet:
                raise Closed
            self._pieces.append(packet[1:])
            if packet[:1] == _LAST:
                data, self._pieces = b"".join(self._pieces), []
                return _decode(data)

    def close(self) -> None:
        """Close this end."""
        self._end.close()
