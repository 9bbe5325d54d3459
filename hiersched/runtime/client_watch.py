"""The watch over clients: one that is killed says no bye, but on this host the end of its process is seen."""

from __future__ import annotations

import os
from collections.abc import Callable
from socket import gethostname

from tornado.ioloop import IOLoop

from hiersched.core.effects import Link
from hiersched.protocol.messages import Hello


class ClientWatch:
    """The processes of the clients on this host, by link.

    listen(): read what waits, for the bye of a process that has ended may be there, or the hello of the next one.
    on_ended(link): the process is no more, and is watched no longer.
    """

    def __init__(self, listen: Callable[[], None], on_ended: Callable[[Link], None]) -> None:
        self._listen = listen
        self._on_ended = on_ended
        self._pidfds: dict[Link, int] = {}
        self._host = gethostname()
        self._loop = IOLoop.current()

    def watch(self, link: Link, hello: Hello) -> None:
        """Watch the process that says hello, and no longer the one that had this link before."""
        pidfd = self._open(hello)
        self.forget(link)  # only now, so that the two are not of the same number
        if pidfd is not None:
            self._pidfds[link] = pidfd
            self._loop.add_handler(pidfd, lambda *_: self._on_readable(link, pidfd), IOLoop.READ)

    def forget(self, link: Link) -> None:
        """Watch this client no longer."""
        pidfd = self._pidfds.pop(link, None)
        if pidfd is not None:
            self._loop.remove_handler(pidfd)
            os.close(pidfd)

    def close(self) -> None:
        """Forget all."""
        for link in list(self._pidfds):
            self.forget(link)

    def _open(self, hello: Hello) -> int | None:
        if hello.host != self._host:
            return None
        try:
            return os.pidfd_open(hello.pid)
        except (OSError, OverflowError):  # gone already, or not of our process namespace
            return None

    def _on_readable(self, link: Link, pidfd: int) -> None:
        self._listen()
        if self._pidfds.get(link) == pidfd:
            self.forget(link)
            self._on_ended(link)
