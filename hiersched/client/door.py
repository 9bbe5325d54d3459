"""The way to a cluster's root: a link, and an eye on the root's process.

A local root is watched through a pidfd, so that its end is known at once; of a remote one the link tells.
"""

from __future__ import annotations

import os
import socket
from typing import Protocol

from hiersched.errors import ConnectionFileError
from hiersched.limits import LAST_WORDS_S
from hiersched.protocol import messages as m
from hiersched.runtime.connection import Connection, is_local
from hiersched.runtime.zmq_link import Uplink, context


class Door(Protocol):
    """What a session needs of its way to the root. root: a descriptor that is readable when it has ended, or -1."""

    link: Uplink
    root: int

    def knock(self, *, detached: bool) -> None:
        """Say hello."""

    def close(self) -> None:
        """Give everything back. What was said last is still sent."""


class RealDoor:
    """The way to the root of a connection file, for a session of this name.

    Raises ConnectionFileError if the cluster cannot be reached from here, or is gone.
    """

    def __init__(self, connection: Connection, name: str) -> None:
        local = is_local(connection)
        address = connection.address if local else connection.tcp_address
        if address is None:
            raise ConnectionFileError(
                f"the cluster runs on {connection.host} and listens to that host only; start it with an ip to reach it"
            )
        self.root = _watch(connection.pid) if local else -1
        self._connection = connection
        self._name = name
        self._context = context()
        self.link = Uplink(self._context, address, name.encode(), connection.curve)

    def knock(self, *, detached: bool) -> None:
        """Say hello."""
        found = self._connection
        host = socket.gethostname()
        self.link.send(
            m.Hello(found.cluster, found.key, "client", self._name, os.getpid(), host, 0, 0, detached=detached)
        )

    def close(self) -> None:
        """Give everything back. What was said last is still sent."""
        self.link.socket.linger = int(LAST_WORDS_S * 1000)
        self.link.close()
        self._context.term()
        if self.root >= 0:
            os.close(self.root)


def _watch(pid: int) -> int:
    try:
        return os.pidfd_open(pid)
    except ProcessLookupError:
        raise ConnectionFileError(f"the root's process {pid} is gone: the connection file is stale") from None
