"""Who receives. Whoever waits, works.

A thread that waits for a result receives messages itself, so that no hand-over between threads lies on a call's way.
When nobody waits but something is outstanding, a background thread does the same. One thread receives at a time: the
one that holds `_turn`, which it may take again: a callback that runs while it receives may wait for a result as well.
It sleeps on descriptors only, so that others can use the socket meanwhile; who has changed something that it should
know of kicks it awake. In the main thread a Ctrl-C strikes while it sleeps, and never while it looks.
"""

from __future__ import annotations

import os
import select
import sys
import threading
import time
from collections.abc import Callable

from hiersched.client.interrupts import Held, Released

_TURN_PERIOD_S = 0.05  # how often a thread for which another receives lets a Ctrl-C strike


class Pump:
    """Runs `look` (take in what waits) whenever a descriptor says there may be something.

    again_in_s: when it is to look even without that, if at all; outstanding: whether anything is still to come; closed:
    whether nothing ever will.
    """

    def __init__(
        self,
        descriptor: int,
        *,
        look: Callable[[], None],
        again_in_s: Callable[[], float | None],
        outstanding: Callable[[], bool],
        closed: Callable[[], bool],
    ) -> None:
        self._look = look
        self._again_in_s = again_in_s
        self._outstanding = outstanding
        self._closed = closed
        self._turn = threading.RLock()
        self._wanted = threading.Event()
        self._news = threading.Condition(threading.Lock())
        self._waiting = 0  # threads that wait for news; guarded by its lock
        self._kicks = os.eventfd(0, os.EFD_NONBLOCK | os.EFD_CLOEXEC)
        self._kicked = False
        self._poll = select.poll()
        self._poll.register(descriptor, select.POLLIN)
        self._poll.register(self._kicks, select.POLLIN)
        self._alarms: dict[int, Callable[[], None]] = {}
        self._thread = threading.Thread(target=self._serve, name="hiersched-client", daemon=True)

    def start(self) -> None:
        """Have a background thread from now on."""
        self._thread.start()

    def watch(self, descriptor: int, alarm: Callable[[], None]) -> None:
        """Call `alarm` in the receiving thread when this descriptor becomes readable."""
        self._alarms[descriptor] = alarm
        self._poll.register(descriptor, select.POLLIN)

    def kick(self) -> None:
        """Make whoever receives look again."""
        if not self._kicked:
            self._kicked = True
            os.eventfd_write(self._kicks, 1)

    def want(self) -> None:
        """Something is outstanding: somebody has to receive."""
        if not self._wanted.is_set():
            with Held():  # an event has a lock inside
                self._wanted.set()

    def glance(self) -> None:
        """Take in what waits, unless another thread is about to."""
        with Held():
            if self._turn.acquire(blocking=False):
                try:
                    self._look()
                finally:
                    self._turn.release()

    def receive(self, condition: Callable[[], bool], timeout_s: float | None) -> bool | None:
        """Receive until `condition()` holds. False if it does not in time; None if another thread is receiving."""
        with Held():
            if not self._turn.acquire(blocking=False):
                return None
            return self._take_turn(condition, deadline_of(timeout_s))

    def wait(self, condition: Callable[[], bool], timeout_s: float | None) -> bool:
        """Wait until `condition()` holds, whoever receives; False if it does not in time."""
        deadline = deadline_of(timeout_s)
        while not condition():
            left = left_of(deadline)
            if left is not None and left <= 0:
                return False
            with Held():
                if self._turn.acquire(blocking=False):
                    return self._take_turn(condition, deadline)
                self._await_news(condition, _TURN_PERIOD_S if left is None else min(left, _TURN_PERIOD_S))
        return True

    def stop(self) -> None:
        """End the background thread, once `closed()` holds."""
        self.want()
        self.kick()
        if threading.current_thread() is not self._thread and self._thread.ident is not None:
            self._thread.join()

    def close(self) -> None:
        """Give back what it holds; nobody may use it any more."""
        os.close(self._kicks)

    def _await_news(self, condition: Callable[[], bool], timeout_s: float) -> None:
        """Until whoever receives has taken something in, or for so long."""
        with self._news:
            self._waiting += 1
            try:
                if not condition():  # what was taken in before is seen here, what comes after is told
                    self._news.wait(timeout_s)
            finally:
                self._waiting -= 1

    def _tell_news(self) -> None:
        with self._news:
            self._news.notify_all()

    def _take_turn(self, condition: Callable[[], bool], deadline: float | None) -> bool:
        """Receive, with the turn taken."""
        try:
            return self._run(condition, deadline)
        finally:
            self._turn.release()
            if self._waiting:
                self._tell_news()  # that there is a turn to take
            if self._outstanding():
                self.want()

    def _run(self, condition: Callable[[], bool], deadline: float | None) -> bool:
        look = self._look
        while True:
            look()
            if self._waiting:
                self._tell_news()
            if condition():
                return True
            left = left_of(deadline)
            if self._closed() or (left is not None and left <= 0):
                return False
            again = self._again_in_s()
            for descriptor, _ in self._sleep(left if again is None else again if left is None else min(left, again)):
                if descriptor == self._kicks:
                    os.eventfd_read(self._kicks)
                    self._kicked = False  # before the look that follows, so that no later kick is lost
                elif descriptor in self._alarms:
                    look()  # what was said before comes first
                    self._alarms[descriptor]()

    def _sleep(self, timeout_s: float | None) -> list[tuple[int, int]]:
        """Until a descriptor is readable."""
        with Released():
            return self._poll.poll(None if timeout_s is None else timeout_s * 1000)

    def _serve(self) -> None:
        while True:
            self._wanted.wait()
            self._wanted.clear()
            if self._closed():
                return
            try:
                with self._turn:
                    self._run(lambda: not self._outstanding(), None)
            except Exception:  # of a callback; its author is to see it, and others wait for what comes next
                threading.excepthook(threading.ExceptHookArgs((*sys.exc_info(), self._thread)))
                self._wanted.set()


def deadline_of(timeout_s: float | None) -> float | None:
    """When a wait that begins now ends, on the monotonic clock."""
    return None if timeout_s is None else time.monotonic() + timeout_s


def left_of(deadline: float | None) -> float | None:
    """Seconds until a deadline, at least 0; None if there is none."""
    return None if deadline is None else max(0.0, deadline - time.monotonic())
