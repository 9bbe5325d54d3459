"""Keys of tcp links: who holds the cluster's client key gets in, all others are refused and counted.

CURVE authenticates and encrypts every tcp link. The root makes two key pairs at start: its own, and one that stands
for "a client of this cluster", which travels in the connection file (mode 0600). The gate lets in that key only.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable

import msgspec
import zmq
from zmq.auth.asyncio import AsyncioAuthenticator
from zmq.utils.monitor import parse_monitor_message

_REFUSALS = zmq.EVENT_HANDSHAKE_FAILED_AUTH | zmq.EVENT_HANDSHAKE_FAILED_PROTOCOL | zmq.EVENT_HANDSHAKE_FAILED_NO_DETAIL


class CurveKeys(msgspec.Struct, frozen=True):
    """What a peer needs to enter, as z85 text."""

    server_public: str
    client_public: str
    client_secret: str

    def enter(self, socket: zmq.Socket[bytes]) -> None:
        """Make `socket` speak CURVE as a client of the cluster."""
        socket.curve_serverkey = self.server_public.encode()
        socket.curve_publickey = self.client_public.encode()
        socket.curve_secretkey = self.client_secret.encode()


class Gate:
    """The server's side. `on_refused` is called once for each handshake that failed."""

    def __init__(self, own: zmq.Context[zmq.Socket[bytes]], on_refused: Callable[[], None]) -> None:
        public, self._secret = zmq.curve_keypair()
        client_public, client_secret = zmq.curve_keypair()
        self.keys = CurveKeys(public.decode(), client_public.decode(), client_secret.decode())
        self._authenticator = AsyncioAuthenticator(own)
        self._on_refused = on_refused
        self._monitors: list[zmq.Socket[bytes]] = []

    def start(self) -> None:
        """Begin to let peers in. Must be called inside the running loop, before the first port is guarded."""
        self._authenticator.start()
        self._authenticator.configure_curve_callback(credentials_provider=self)

    def callback(self, domain: str, key: bytes) -> bool:
        """Whether the holder of this public key (z85) may enter; asked by zmq's authenticator."""
        return key == self.keys.client_public.encode()

    def guard(self, socket: zmq.Socket[bytes]) -> None:
        """Make `socket`, not yet bound, a CURVE server behind this gate."""
        socket.curve_secretkey = self._secret
        socket.curve_publickey = self.keys.server_public.encode()
        socket.curve_server = True
        monitor = socket.get_monitor_socket(_REFUSALS)
        self._monitors.append(monitor)
        asyncio.get_running_loop().add_reader(monitor.FD, self._count, monitor)
        self._count(monitor)  # zmq announces news only after a look that found none

    def _count(self, monitor: zmq.Socket[bytes]) -> None:
        while monitor.getsockopt(zmq.EVENTS) & zmq.POLLIN:  # type: ignore[operator]
            parse_monitor_message(monitor.recv_multipart())
            self._on_refused()

    def close(self) -> None:
        """Let nobody in any more."""
        for monitor in self._monitors:
            asyncio.get_running_loop().remove_reader(monitor.FD)
            monitor.close(0)
        self._authenticator.stop()
