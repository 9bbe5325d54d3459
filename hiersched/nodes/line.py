"""An engine's link, and what it sleeps on while it has nothing to do: mail, and its own doorbell.

A signal alone does not end a sleep in Python. So the handler wakes the sleeper through a descriptor of its own, and
nothing is ever interrupted in the middle of a message.
"""

from __future__ import annotations

import contextlib
import os
import select

from hiersched.runtime.zmq_link import Uplink


class Line:
    """uplink: the link, to the present parent."""

    def __init__(self, uplink: Uplink) -> None:
        self.uplink = uplink
        self._bell = os.eventfd(0, os.EFD_CLOEXEC | os.EFD_NONBLOCK)
        self._watch()

    def fileno(self) -> int:
        """The descriptor that tells of mail."""
        return self._mail

    def wait(self, timeout_s: float | None = None) -> bool:
        """Sleep until there is mail: True; or until woken or the timeout: False, which may come at other times too."""
        readable = self.uplink.readable
        if readable():
            return True
        for descriptor, _ in self._sleep.poll(None if timeout_s is None else max(0, int(timeout_s * 1000))):
            if descriptor == self._bell:
                with contextlib.suppress(BlockingIOError):
                    os.eventfd_read(self._bell)
        return readable()

    def wake(self) -> None:
        """End the wait, or the next one."""
        os.eventfd_write(self._bell, 1)

    def orphaned(self) -> bool:
        """Whether the parent is gone."""
        return not self.uplink.parent_lives()

    def climb(self) -> bool:
        """Connect to the nearest ancestor that lives; False if none does."""
        if not self.uplink.climb():
            return False
        self._watch()
        return True

    def close(self) -> None:
        """Close the link; what is unsent is given a moment."""
        self.uplink.socket.linger = 100
        self.uplink.close()
        os.close(self._bell)

    def _watch(self) -> None:
        self._mail = self.uplink.fileno()
        self._sleep = select.poll()
        self._sleep.register(self._mail, select.POLLIN)
        self._sleep.register(self._bell, select.POLLIN)
