"""What the code of an engine prints and displays, in the order it was made, until it is sent.

One buffer takes both streams, displays and comms, so that their order is kept; any thread may add to it. Consecutive
texts of one stream become one output. A call may leave OUTPUT_BYTES_MAX in all: then a note follows, and nothing more.
What a thread of the user's prints when its call has ended goes with the next one.

Adding takes no lock, for a signal handler may print in the middle of a print: appending to a list is one step of the
interpreter, and counters that two threads advance at once may be a little behind.
"""

from __future__ import annotations

import os
import sys
import threading
from collections.abc import Callable, Iterable, Sequence
from typing import Literal, TypeAlias

import msgspec

from hiersched.data.outputs import Clear, Comm, Shown, Text, pack_output
from hiersched.limits import OUTPUT_BYTES_MAX

Stream = Literal["stdout", "stderr"]
_Item: TypeAlias = str | tuple[str] | msgspec.Raw  # text for stdout, text for stderr, any other output

_FULL = 2 * OUTPUT_BYTES_MAX  # used, when the note has been added
_DROPPED = "\n[more output was dropped]\n"
_DESCRIPTORS = {"stdout": 1, "stderr": 2}


class Transcript:
    """Outputs in order.

    used: bytes that this call has made, those that were sent included; size: of those that wait. heard: called after
    something was added that makes the size reach `alarm`.
    """

    def __init__(self) -> None:
        self.used = 0
        self.size = 0
        self.alarm = sys.maxsize
        self.heard: Callable[[], None] = lambda: None
        self._items: list[_Item] = []
        self._taking = threading.Lock()
        self._forked = False

    def write(self, stream: Stream, text: str) -> None:
        """Add printed text."""
        size = len(text) if text.isascii() else len(text.encode("utf-8", "surrogatepass"))
        if self.used + size > OUTPUT_BYTES_MAX or self._forked:
            text = self._last_words(stream, text)
            if not text:
                return
        self.used += size
        self._items.append(text if stream == "stdout" else (text,))
        self.size += size
        if self.size >= self.alarm:
            self.heard()

    def add(self, output: Shown | Clear | Comm) -> None:
        """Add what is not printed."""
        packed = pack_output(output)
        size = len(memoryview(packed))
        if self.used + size > OUTPUT_BYTES_MAX or self._forked:
            note = self._last_words("stdout", "")
            if note:
                self._items.append(note)
            return
        self.used += size
        self._items.append(packed)
        self.size += size
        if self.size >= self.alarm:
            self.heard()

    def take(self) -> list[msgspec.Raw]:
        """What has gathered, packed, and no longer here."""
        with self._taking:
            count = len(self._items)
            items = self._items[:count]
            del self._items[:count]
            self.size = 0
        return list(_packed(items))

    def finish(self) -> list[msgspec.Raw]:
        """The rest of what a call made; the next one may make as much again."""
        self.used = 0
        return self.take()

    def put_back(self, outputs: Sequence[msgspec.Raw]) -> None:
        """These, which were taken last, could not be sent."""
        self._items[:0] = outputs
        self.used += sum([len(memoryview(output)) for output in outputs])

    def leave(self) -> None:
        """This is a forked process now, in which nobody will ever take what is here: print to its descriptors."""
        self._forked = True
        self._items.clear()

    def _last_words(self, stream: Stream, text: str) -> str:
        """What of a text is still added when there is no room for all."""
        if self._forked:
            os.write(_DESCRIPTORS[stream], text.encode("utf-8", "backslashreplace"))
            return ""
        left, self.used = OUTPUT_BYTES_MAX - self.used, _FULL
        return text.encode("utf-8", "surrogatepass")[:left].decode("utf-8", "ignore") + _DROPPED if left >= 0 else ""


def _packed(items: Iterable[_Item]) -> Iterable[msgspec.Raw]:
    """Each item, consecutive texts of one stream as one."""
    run: list[str] = []
    kind: type = str
    for item in items:
        if type(item) is not kind and run:
            yield _text(kind, run)
            run = []
        kind = type(item)
        if isinstance(item, str):
            run.append(item)
        elif isinstance(item, tuple):
            run.append(item[0])
        else:
            yield item
    if run:
        yield _text(kind, run)


def _text(kind: type, run: list[str]) -> msgspec.Raw:
    return pack_output(Text("stdout" if kind is str else "stderr", "".join(run)))
