"""The traceback of what the user's code raised, as lines of text.

It begins at the user's code. Python's own way of formatting takes 0.7 ms, most of it to find which part of a line to
underline; hundreds of interrupted engines of one machine are to answer at once, so theirs are done without.
"""

from __future__ import annotations

import linecache
import os
import traceback
from types import FrameType

_OURS = os.path.dirname(os.path.dirname(os.path.abspath(__file__))) + os.sep  # where the files of hiersched lie


def format_traceback(exception: BaseException) -> list[str]:
    """The lines of a traceback that starts at the user's code, without line ends."""
    if isinstance(exception, KeyboardInterrupt) and exception.__context__ is None and exception.__cause__ is None:
        return _format_interrupt(exception)
    whole = traceback.TracebackException.from_exception(exception, compact=True)
    pending: list[traceback.TracebackException | None] = [whole]
    while pending:
        part = pending.pop()
        if part is None:
            continue
        while len(part.stack) > 1 and part.stack[0].filename.startswith(_OURS):
            del part.stack[0]
        pending += [part.__cause__, part.__context__, *(part.exceptions or ())]
    return [entry.rstrip("\n") for entry in whole.format()]


def _format_interrupt(interrupt: KeyboardInterrupt) -> list[str]:
    """Where the user's code was interrupted: without our own code, which called it and which raised this in it."""
    places = [_place(frame, line) for frame, line in traceback.walk_tb(interrupt.__traceback__)]
    theirs = [place for place in places if not place.filename.startswith(_OURS)]
    stack = traceback.StackSummary.from_list(theirs or places)
    only = traceback.format_exception_only(interrupt)
    return [entry.rstrip("\n") for entry in ("Traceback (most recent call last):", *stack.format(), *only)]


def _place(frame: FrameType, line: int) -> traceback.FrameSummary:
    name = frame.f_code.co_filename
    linecache.checkcache(name)
    linecache.lazycache(name, frame.f_globals)  # where a module has its source elsewhere than in a file
    return traceback.FrameSummary(name, line, frame.f_code.co_name, lookup_line=False)
