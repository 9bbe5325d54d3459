"""The most recently used things, bounded in number and in bytes; the newest always stays. Safe between threads."""

from __future__ import annotations

from collections import OrderedDict
from threading import Lock
from typing import Generic, TypeVar

Key = TypeVar("Key")
Thing = TypeVar("Thing")


class Recent(Generic[Key, Thing]):
    """Things by key, of which the least recently used are dropped above `count_max` or `bytes_max`."""

    def __init__(self, *, count_max: int, bytes_max: int) -> None:
        self.bytes = 0
        self._count_max, self._bytes_max = count_max, bytes_max
        self._things: OrderedDict[Key, tuple[Thing, int]] = OrderedDict()
        self._lock = Lock()

    def __len__(self) -> int:
        return len(self._things)

    def get(self, key: Key) -> Thing | None:
        """The thing, now the most recently used; None if it is not here."""
        found = self._things.get(key)  # no lock: each of these steps is one to the interpreter
        if found is None:
            return None
        try:
            self._things.move_to_end(key)
        except KeyError:
            return None  # dropped between the two
        return found[0]

    def put(self, key: Key, thing: Thing, *, size: int) -> None:
        """Keep a thing of `size` bytes, in place of the one under that key; others may be dropped for it."""
        with self._lock:
            self._remove(key)
            self._things[key] = thing, size
            self.bytes += size
            while len(self._things) > 1 and (len(self._things) > self._count_max or self.bytes > self._bytes_max):
                self._remove(next(iter(self._things)))

    def discard(self, key: Key) -> None:
        """Drop the thing under that key, if any."""
        with self._lock:
            self._remove(key)

    def _remove(self, key: Key) -> None:
        _, size = self._things.pop(key, (None, 0))
        self.bytes -= size
