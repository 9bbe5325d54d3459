"""A door's sockets: one bound for each channel, on the loop of the process it is in.

They are ROUTERs with names of their own, so that whoever is connected to several of them answers the right one, or PUBs
where the door only tells, or SUBs where it only listens. Queues are bounded: who does not read loses what comes when
they are full.

zmq tells of new messages by an edge on its descriptor: after any use of a socket it must be asked again before the loop
sleeps on the descriptor.
"""

from __future__ import annotations

import asyncio
import socket as plain_sockets
from collections.abc import Callable, Collection, Mapping
from typing import Any

import zmq
import zmq.backend

from hiersched.errors import StartError
from hiersched.limits import INLINE_BYTES_MAX, OLD_MESSAGES_MAX
from hiersched.protocol.framing import Frame
from hiersched.runtime.zmq_link import context

_LINGER_MS = 200  # the last words may still be on their way

# Plain numbers: turning zmq's enumerations into them takes longer than what they are for.
_EVENTS, _POLLIN, _NOBLOCK, _SNDMORE = int(zmq.EVENTS), int(zmq.POLLIN), int(zmq.NOBLOCK), int(zmq.SNDMORE)


class _Socket:
    """A socket of one channel. pyzmq's wrapper around it is left out, as in runtime.zmq_link."""

    def __init__(self, own: zmq.Context[zmq.Socket[bytes]], kind: int) -> None:
        self.zmq = socket = own.socket(kind)
        base = zmq.backend.Socket
        self._get: Callable[[int], int] = base.get.__get__(socket)
        self._recv: Callable[..., Any] = base.recv.__get__(socket)
        self._send: Callable[..., Any] = base.send.__get__(socket)

    def readable(self) -> bool:
        """Messages wait."""
        return self._get(_EVENTS) & _POLLIN != 0

    def receive(self) -> list[Frame]:
        """The frames of the next message, which waits. Large ones are not copied."""
        frames: list[Frame] = []
        while True:
            part = self._recv(0, False)
            frames.append(part if len(part) >= INLINE_BYTES_MAX else part.bytes)
            if not part.more:
                return frames

    def send(self, frames: list[Frame]) -> None:
        """Send a message, or drop it if its receiver has no room for more. Large frames are not copied."""
        last = len(frames) - 1
        try:
            for place, frame in enumerate(frames):
                copies = type(frame) is not zmq.Frame and len(frame) < INLINE_BYTES_MAX
                self._send(frame, _NOBLOCK | (_SNDMORE if place < last else 0), copies)
        except zmq.Again:
            return


class ChannelSockets:
    """ports: where each channel can be reached.

    ip: '*' for all addresses. channels: {channel: port}, 0 for any that is free. published: those of them that only
    tell; heard: those that only listen. curve: the (public, secret) keys of the door; None: plain tcp. own: the context
    of this process; by default one is made. Raises StartError for a port that is taken.
    """

    def __init__(
        self,
        ip: str,
        channels: Mapping[str, int],
        *,
        published: Collection[str],
        heard: Collection[str] = (),
        curve: tuple[bytes, bytes] | None = None,
        own: zmq.Context[zmq.Socket[bytes]] | None = None,
    ) -> None:
        self._made = context() if own is None else None
        self.ports: dict[str, int] = {}
        self._sockets: dict[str, _Socket] = {}
        self._loop: asyncio.AbstractEventLoop | None = None
        self._used: dict[str, None] = {}  # channels whose sockets were used since they were looked at
        try:
            for channel, port in channels.items():
                kind = zmq.PUB if channel in published else zmq.SUB if channel in heard else zmq.ROUTER
                socket = self._sockets[channel] = _Socket(own or self._made, kind)
                self.ports[channel] = _bind(socket.zmq, channel, f"tcp://{ip}:{port or '*'}", curve)
        except BaseException:
            self.close()
            raise
        self._read = frozenset(channels).difference(published)

    def listen(self, loop: asyncio.AbstractEventLoop, on_readable: Callable[[str], bool]) -> None:
        """Call `on_readable(channel)` when messages may wait there. It says whether it has taken all of them."""
        self._loop, self._on_readable = loop, on_readable
        for channel in self._read:
            loop.add_reader(self._sockets[channel].zmq.FD, self._look_at, channel)
            self._look_again(channel)

    def receive(self, channel: str) -> list[Frame] | None:
        """The frames of the next message on a channel; None if none waits."""
        socket = self._sockets[channel]
        return socket.receive() if socket.readable() else None

    def wait(self, channel: str, timeout_s: float) -> bool:
        """Wait, at the end, when the loop does not run any more, until a message waits on a channel."""
        return bool(self._sockets[channel].zmq.poll(int(timeout_s * 1000)))

    def send(self, channel: str, frames: list[Frame]) -> None:
        """Send a message; one that nobody can take any more is dropped."""
        self._sockets[channel].send(frames)
        self._look_again(channel)

    def close(self) -> None:
        """Stop listening, and close all of them; the last words are given a moment."""
        for channel, socket in self._sockets.items():
            if self._loop is not None and channel in self._read:
                self._loop.remove_reader(socket.zmq.FD)
            socket.zmq.close(linger=_LINGER_MS)
        self._loop = None
        if self._made is not None:
            self._made.term()

    def _look_again(self, channel: str) -> None:
        """Before the loop sleeps, see what came while a socket was in use."""
        if self._loop is None or channel not in self._read:
            return
        if not self._used:
            self._loop.call_soon(self._look)
        self._used[channel] = None

    def _look(self) -> None:
        used, self._used = self._used, {}
        for channel in used:
            self._look_at(channel)

    def _look_at(self, channel: str) -> None:
        """Have all taken that waits on a channel."""
        while self._loop is not None and self._sockets[channel].readable():
            if not self._on_readable(channel):
                self._look_again(channel)
                break


def check_free(ip: str, channels: Mapping[str, int]) -> None:
    """Raise StartError if one of these ports is taken, before any process is started that would find out."""
    for channel, port in channels.items():
        with plain_sockets.socket() as probe:
            probe.setsockopt(plain_sockets.SOL_SOCKET, plain_sockets.SO_REUSEADDR, 1)  # as zmq binds
            try:
                probe.bind(("" if ip == "*" else ip, port))
            except (OSError, OverflowError) as error:
                text = f"the channel {channel!r} cannot listen at {ip}:{port} ({error}): choose other ports"
                raise StartError(text) from None


def _bind(socket: zmq.Socket[bytes], channel: str, address: str, curve: tuple[bytes, bytes] | None) -> int:
    """The port that the socket of a channel is bound to."""
    socket.set_hwm(OLD_MESSAGES_MAX)
    socket.setsockopt(zmq.BACKLOG, 1024)
    if socket.type == zmq.SUB:
        socket.setsockopt(zmq.SUBSCRIBE, b"")
    if socket.type == zmq.ROUTER:
        socket.setsockopt(zmq.IDENTITY, channel.encode())
        socket.setsockopt(zmq.ROUTER_HANDOVER, 1)
    if curve is not None:
        socket.curve_server = True
        socket.curve_publickey, socket.curve_secretkey = curve
    try:
        socket.bind(address)
    except zmq.ZMQError as error:
        raise StartError(f"the channel {channel!r} cannot be bound to {address} ({error})") from None
    return int(socket.getsockopt(zmq.LAST_ENDPOINT).rpartition(b":")[2].rstrip(b"\0"))  # type: ignore[union-attr]
