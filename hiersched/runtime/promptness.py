"""How a scheduler gets a core in time while hundreds of engines compute on a few.

Linux is fair: a process that wakes up queues behind those whose turn comes earlier, and a turn is 1 to 3 ms long. With
100 busy engines on each core, a message through three schedulers would take the greater part of a second. Two things
put that right, and no engine gets less time than before for it: schedulers need little.

A process that asks for short turns gets them sooner (Linux 6.12, sched_setattr). And where the kernel shares the cores
between sessions first (sched_autogroup), a scheduler that is a session of its own competes with all engines together
instead of with each. Where the kernel has neither, nothing changes.
"""

from __future__ import annotations

import ctypes
import os
import platform

TURN_NS = 100_000  # the shortest there is
_SYSCALLS = {"x86_64": (314, 315), "aarch64": (274, 275)}  # sched_setattr, sched_getattr
_libc = ctypes.CDLL(None, use_errno=True)


class _SchedAttr(ctypes.Structure):
    """struct sched_attr of sched(7), as of Linux 3.14."""

    _fields_ = (
        ("size", ctypes.c_uint32),
        ("policy", ctypes.c_uint32),
        ("flags", ctypes.c_uint64),
        ("nice", ctypes.c_int32),
        ("priority", ctypes.c_uint32),
        ("runtime_ns", ctypes.c_uint64),
        ("deadline_ns", ctypes.c_uint64),
        ("period_ns", ctypes.c_uint64),
    )


def take_short_turns() -> bool:
    """This thread, and those that it starts, get the core sooner and for less long; whether the kernel agreed."""
    return _set_turn(TURN_NS)


def take_usual_turns() -> bool:
    """Undo `take_short_turns`, in a process forked from one that takes them."""
    return _set_turn(0)


def leave_session() -> None:
    """Be a session of one's own. Only for a process that was just forked: none that leads a group may."""
    os.setsid()


def turn_ns(pid: int = 0) -> int:
    """How long a turn of a process is, by default of this thread; 0 where the kernel does not tell."""
    attributes = _attributes(pid)
    return 0 if attributes is None else attributes.runtime_ns


def _set_turn(nanoseconds: int) -> bool:
    attributes = _attributes(0)
    if attributes is None or attributes.policy not in (os.SCHED_OTHER, os.SCHED_BATCH):
        return False  # somebody has given this process real time, say: that is better still
    attributes.runtime_ns = nanoseconds
    set_attributes, _ = _SYSCALLS[platform.machine()]
    return _libc.syscall(set_attributes, 0, ctypes.byref(attributes), 0) == 0


def _attributes(pid: int) -> _SchedAttr | None:
    """How the kernel schedules a process; None if it does not tell."""
    if platform.machine() not in _SYSCALLS:
        return None
    attributes = _SchedAttr()
    _, get_attributes = _SYSCALLS[platform.machine()]
    failed = _libc.syscall(get_attributes, pid, ctypes.byref(attributes), ctypes.sizeof(attributes), 0)
    return None if failed else attributes
