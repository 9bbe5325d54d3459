"""What the user's code finds around it in an engine's process, and may change: it is put back when the code has ended.

Streams are put back after every call. What costs more to look at (handlers of signals, the mask of blocked ones, the
first three descriptors) is put back after calls that ran so long that it does not matter. A process that the code has
forked is let go: it prints to the cluster's log, takes signals as any process does, and ends where the code ends.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import signal
import sys
import traceback
from _signal import getsignal  # without the enumerations around it
from collections.abc import Callable
from typing import Any, NoReturn

from hiersched.nodes.capture import Capture, NoInput
from hiersched.nodes.transcript import Transcript
from hiersched.runtime.doorbell import DOORBELL_SIGNAL

_STANDARD = range(3)  # descriptors
_KEPT_FROM = 64  # descriptors of ours that stand for those are no smaller than this: users' code counts from 3


class Surroundings:
    """Of one engine's process. streams: stdout, stderr and stdin as the code is to find them.

    forked: this is a process that the user's code has forked from it.
    """

    def __init__(self, transcript: Transcript) -> None:
        self.forked = False
        self._transcript = transcript
        self.streams = Capture("stdout", transcript), Capture("stderr", transcript), NoInput()
        self._handlers: dict[int, Callable[..., Any]] = {}
        self._mask: set[int] = set()
        self._kept: list[int] = []

    def guard(self, handlers: dict[int, Callable[..., Any]], on_fork: Callable[[], None]) -> None:
        """Install these handlers of signals, and keep them and the descriptors from now on. Once in a process.

        on_fork: called in a process that the user's code forks.
        """
        self._handlers = handlers
        for number, handler in handlers.items():
            signal.signal(number, handler)
        self._mask = {*signal.pthread_sigmask(signal.SIG_UNBLOCK, handlers)} - handlers.keys()
        self._kept = [fcntl.fcntl(descriptor, fcntl.F_DUPFD_CLOEXEC, _KEPT_FROM) for descriptor in _STANDARD]
        os.register_at_fork(after_in_child=lambda: self._on_fork(on_fork))

    def restore(self) -> None:
        """Put back what code that ran for a while may have changed."""
        for number, handler in self._handlers.items():
            if getsignal(number) is not handler:
                signal.signal(number, handler)
        if self._handlers and signal.pthread_sigmask(signal.SIG_BLOCK, ()) != self._mask:
            signal.pthread_sigmask(signal.SIG_SETMASK, self._mask)
        for descriptor, kept in zip(_STANDARD, self._kept, strict=False):
            try:
                os.fstat(descriptor)
            except OSError:
                os.dup2(kept, descriptor)

    def log(self, text: str) -> None:
        """Say something in the cluster's log."""
        os.write(self._kept[2] if self._kept else 2, f"{text}\n".encode("utf-8", "backslashreplace"))

    def end_processes(self) -> None:
        """The engine ends: have the processes end that multiprocessing has started here for the user's code."""
        used = sys.modules.get("multiprocessing")
        for process in used.active_children() if used is not None else ():
            process.terminate()

    def _on_fork(self, on_fork: Callable[[], None]) -> None:
        self.forked = True
        self._transcript.leave()
        signal.signal(signal.SIGINT, signal.default_int_handler)
        signal.signal(DOORBELL_SIGNAL, signal.SIG_IGN)
        on_fork()


def end_fork(error: BaseException | None) -> NoReturn:
    """End a process that the user's code has forked, as Python would. error: what that code raised, if it did."""
    status: Any = 0
    if isinstance(error, SystemExit):
        status = error.code
    elif error is not None:
        os.write(2, "".join(traceback.format_exception(error)).encode("utf-8", "backslashreplace"))
        status = 1
    if status is not None and not isinstance(status, int):
        os.write(2, f"{status}\n".encode("utf-8", "backslashreplace"))
        status = 1
    for stream in (sys.__stdout__, sys.__stderr__):
        with contextlib.suppress(Exception):  # it may be closed, and there is nobody to tell
            stream.flush()  # type: ignore[union-attr]
    os._exit((status or 0) & 0xFF)
