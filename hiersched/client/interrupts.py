"""Ctrl-C at a safe point.

Python raises KeyboardInterrupt in the main thread between any two of its steps. Where that would leave half a message
on a link, or lose a batch that was half taken in, the main thread holds SIGINT back:

    with held:                  # what strikes in here is raised at its end
        ...
        with released:          # and in here at once, as ever
            sleep or run the user's code

Blocks may be nested. Only Python's own handler is replaced, for as long as the block lasts: a program that handles
SIGINT itself goes on doing so. Other threads pay a comparison; nothing ever strikes them.
"""

from __future__ import annotations

import threading
import time
from _signal import SIGINT, default_int_handler, getsignal, signal  # without the enumerations around them: 0.4 us
from threading import get_ident
from types import FrameType

from hiersched.limits import INTERRUPT_HELD_S_MAX

_MAIN = threading.main_thread().ident


class _Held:
    """SIGINT is held back within. depth: how many blocks the main thread is in."""

    def __init__(self) -> None:
        self.depth = 0
        self._struck_s: float | None = None  # when, if something waits to be raised

    def __enter__(self) -> None:
        if get_ident() != _MAIN:
            return
        if self.depth:
            self.depth += 1
        elif getsignal(SIGINT) is default_int_handler:
            signal(SIGINT, self._note)  # raises what has struck by now
            self.depth = 1

    def __exit__(self, *exception: object) -> None:
        if get_ident() == _MAIN and self.depth:
            self.depth -= 1
            if not self.depth:
                signal(SIGINT, default_int_handler)  # has what struck by now noted first
                if self._struck_s is not None:
                    self._raise()

    def _note(self, number: int, frame: FrameType | None) -> None:
        """SIGINT strikes. Who has waited for the end of the block for long, and insists, is heard at once."""
        now = time.monotonic()
        if self._struck_s is None:
            self._struck_s = now
        elif now - self._struck_s > INTERRUPT_HELD_S_MAX:
            self._raise()

    def _raise(self) -> None:
        self._struck_s = None
        raise KeyboardInterrupt

    def release(self) -> None:
        """Leave all blocks of the main thread. Raises what has struck in them."""
        if self._struck_s is None:
            self.depth = 0
            signal(SIGINT, default_int_handler)
        if self._struck_s is not None:
            self._raise()

    def hold_again(self, depth: int) -> None:
        """Go back into the blocks, unless the program has set a handler meanwhile."""
        handler = getsignal(SIGINT)
        if handler is default_int_handler:
            try:
                signal(SIGINT, self._note)
            except KeyboardInterrupt:  # it struck before: this one is on its way, further ones are held back
                signal(SIGINT, self._note)
                self.depth = depth
                raise
        if handler in (default_int_handler, self._note):
            self.depth = depth


class _Released:
    """Within, nothing is held back."""

    def __init__(self, held: _Held) -> None:
        self._held = held
        self._depths: list[int] = []

    def __enter__(self) -> None:
        if get_ident() != _MAIN:
            return
        depth = self._held.depth
        if depth:
            try:
                self._held.release()
            except KeyboardInterrupt:
                self._held.hold_again(depth)
                raise
        self._depths.append(depth)

    def __exit__(self, *exception: object) -> None:
        if get_ident() == _MAIN:
            depth = self._depths.pop()
            if depth:
                self._held.hold_again(depth)


held = _Held()
released = _Released(held)
