"""The way to a cluster's root: a link, and an eye on the root's process.

A local root is watched through a pidfd, so that its end is known at once; of a remote one the link tells.
"""

from __future__ import annotations

import os
import socket
import uuid
from typing import Protocol

from hiersched import errors
from hiersched.errors import ConnectionFileError
from hiersched.limits import CONNECT_TIMEOUT_S, LAST_WORDS_S
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
    """The way to the root of a connection file, for a session of this name. joins: one that exists.

    Raises ConnectionFileError if the cluster cannot be reached from here, or is gone; UnknownSession.
    """

    def __init__(self, connection: Connection, name: str, *, joins: bool = False) -> None:
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
        try:
            if joins:
                self._announce(address)
            self.link = Uplink(self._context, address, name.encode(), connection.curve)
        except BaseException:
            self._give_back()
            raise

    def knock(self, *, detached: bool) -> None:
        """Say hello."""
        self.link.send(self._hello(detached=detached))

    def _hello(self, *, detached: bool = False, joins: bool = False) -> m.Hello:
        found, host = self._connection, socket.gethostname()
        return m.Hello(
            found.cluster, found.key, "client", self._name, os.getpid(), host, 0, 0, detached=detached, joins=joins
        )

    def _announce(self, address: str) -> None:
        """Have whoever is in the session leave it, before a second link of its name cuts them off without a word."""
        link = Uplink(self._context, address, uuid.uuid4().hex.encode(), self._connection.curve)
        try:
            link.send(self._hello(joins=True))
            if not link.wait(CONNECT_TIMEOUT_S):
                raise ConnectionFileError(
                    f"the root of cluster {self._connection.cluster!r} did not answer within {CONNECT_TIMEOUT_S} s"
                )
            _, answer, _ = link.receive()
            if type(answer) is m.Refused:
                raise getattr(errors, answer.code, errors.PeerError)(answer.text)
        finally:
            link.close()

    def close(self) -> None:
        """Give everything back. What was said last is still sent."""
        self.link.socket.linger = int(LAST_WORDS_S * 1000)
        self.link.close()
        self._give_back()

    def _give_back(self) -> None:
        self._context.term()
        if self.root >= 0:
            os.close(self.root)


def _watch(pid: int) -> int:
    try:
        return os.pidfd_open(pid)
    except ProcessLookupError:
        raise ConnectionFileError(f"the root's process {pid} is gone: the connection file is stale") from None
