"""Ctrl-C at a safe point.

Python raises KeyboardInterrupt in the main thread between any two of its steps. Where that would leave half a message
on a link, or lose a batch that was half taken in, the main thread holds SIGINT back:

    with Held():                # what strikes in here is raised at its end
        ...
        with Released():        # and in here at once, as ever
            sleep or run the user's code

Blocks may be nested. Once it has struck in a released block, further ones wait until that block is left, so that what
is being tidied up meanwhile is not struck again. Only Python's own handler is replaced, for as long as the outermost
block lasts: a program that handles SIGINT itself goes on doing so. Other threads pay a comparison; nothing ever strikes
them.
"""

from __future__ import annotations

import threading
import time
from _signal import SIGINT, default_int_handler, getsignal, signal  # without the enumerations around them: 0.4 us
from threading import get_ident
from types import FrameType

from hiersched.limits import INTERRUPT_HELD_S_MAX

_MAIN = threading.main_thread().ident

_blocks: list[bool] = []  # those that the main thread is in, the outermost first: whether it may be struck
_struck_s: float | None = None  # when it was, if that waits to be raised


def _strike(number: int, frame: FrameType | None) -> None:
    """SIGINT comes in a block. Who has waited for the end of the block for long, and insists, is heard at once."""
    global _struck_s
    now = time.monotonic()
    if _blocks and _blocks[-1]:
        _blocks[-1] = False
        raise KeyboardInterrupt
    if _struck_s is None:
        _struck_s = now
    elif now - _struck_s > INTERRUPT_HELD_S_MAX:
        _raise()


def _raise() -> None:
    global _struck_s
    _struck_s = None
    if _blocks:
        _blocks[-1] = False
    raise KeyboardInterrupt


class Held:
    """SIGINT is held back within."""

    __slots__ = ("_depth",)

    def __enter__(self) -> None:
        if get_ident() != _MAIN:
            return
        self._depth = len(_blocks)
        if self._depth:
            _blocks.append(False)
        elif getsignal(SIGINT) is default_int_handler:
            signal(SIGINT, _strike)  # raises what has struck by now
            _blocks.append(False)

    def __exit__(self, *exception: object) -> None:
        if get_ident() != _MAIN or len(_blocks) <= self._depth:
            return
        del _blocks[self._depth :]
        if not _blocks and getsignal(SIGINT) is _strike:
            signal(SIGINT, default_int_handler)  # has what struck by now noted first
        if _struck_s is not None and (not _blocks or _blocks[-1]):
            _raise()


class Released:
    """Within, nothing is held back."""

    __slots__ = ("_depth",)

    def __enter__(self) -> None:
        if get_ident() != _MAIN:
            return
        self._depth = len(_blocks)
        if self._depth:
            if _struck_s is not None:
                _raise()
            _blocks.append(True)

    def __exit__(self, *exception: object) -> None:
        if get_ident() == _MAIN:
            del _blocks[self._depth :]
