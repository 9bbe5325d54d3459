"""Who has the floor in an engine's main thread, our code or the user's; it decides what a signal may do there.

Python runs signal handlers in the main thread, between two steps of whatever runs in it. While the user's code has the
floor, it may be interrupted and the doorbell answered at once. Our own code is never interrupted, not even where the
user's code has called it (a print that sends): what strikes then is done when the floor goes back to the user.

The link is the main thread's, but for the time in which the user's code has the floor: then any thread may take it
for a moment (`take_link`), and none waits for it.
"""

from __future__ import annotations

import signal
import threading
import time
from collections.abc import Callable

from hiersched.limits import MAIL_TIMEOUT_S
from hiersched.runtime.doorbell import DOORBELL_SIGNAL

OURS, THEIRS, BORROWED = range(3)  # BORROWED: ours, called by theirs


class Floor:
    """The floor of one engine, which the main thread makes.

    state: OURS, THEIRS or BORROWED. rung: the doorbell rang, and nobody has looked yet. alert_s: until when something
    may still come that it has announced, 0.0 if nothing. on_bell: answers it, while the floor is THEIRS. on_idle_bell:
    it rang in our own code. lend_link, reclaim_link: before and after the user's code runs; the second waits until
    whoever uses the link is done.
    """

    def __init__(self) -> None:
        self.state = OURS
        self.rung = False
        self.alert_s = 0.0
        self.on_bell: Callable[[], None] = lambda: None
        self.on_idle_bell: Callable[[], None] = lambda: None
        self._interrupted = False  # while BORROWED
        self._deferred = False  # the doorbell, while BORROWED
        self._again = False  # it is rung from within, for what was announced before
        self._main = threading.get_ident()
        self._link = threading.Lock()
        self._link.acquire()
        self.lend_link, self.reclaim_link = self._link.release, self._link.acquire  # themselves: every call does both

    # --- handlers of signals ------------------------------------------------------------------------------------------

    def on_interrupt(self, *_: object) -> None:
        """SIGINT: stop the user's code. It means nothing to an engine that waits."""
        if self.state == THEIRS:
            raise KeyboardInterrupt
        self._interrupted = self.state == BORROWED

    def on_doorbell(self, *_: object) -> None:
        """There is mail that cannot wait, or the scheduler is gone."""
        if not self._again:
            self.alert_s = time.monotonic() + MAIL_TIMEOUT_S
        self.rung, self._again = True, False
        if self.state == THEIRS:
            self.on_bell()
        elif self.state == OURS:
            self.on_idle_bell()
        else:
            self._deferred = True

    def ring_again(self) -> None:
        """From any thread: have the main thread answer the doorbell, where it could not, or because mail has come."""
        self._again = True
        signal.pthread_kill(self._main, DOORBELL_SIGNAL)

    # --- the floor; in the main thread --------------------------------------------------------------------------------

    def borrow(self, act: Callable[[], None]) -> None:
        """Do something of ours in the middle of the user's code. Raises KeyboardInterrupt if one struck meanwhile."""
        self._interrupted = False
        self.state = BORROWED
        try:
            act()
        finally:
            self.state = THEIRS
        if self._interrupted:
            self._interrupted = False
            raise KeyboardInterrupt
        if self._deferred:
            self._deferred = False
            self.on_bell()

    # --- the link; in any thread, while the floor is not OURS ---------------------------------------------------------

    def is_main(self) -> bool:
        """Whether this is the main thread."""
        return threading.get_ident() == self._main

    def take_link(self) -> bool:
        """Take the link, unless another has it; the floor stays with the user until it is given back."""
        if not self._link.acquire(blocking=False):
            return False
        if self.state == OURS:  # the user's code has just ended
            self._link.release()
            return False
        return True

    def on_mail(self) -> None:
        """By whoever has the link: there is mail, which is to be read when the link is given back."""
        self.rung = True
        self._deferred |= self.is_main()

    def give_link(self) -> None:
        """Give it back. A doorbell that could not be answered without it is rung again."""
        self._link.release()
        if self.rung and not self.is_main():
            self.ring_again()
