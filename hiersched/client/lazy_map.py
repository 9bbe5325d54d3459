"""A map over an input that is read only as its results are asked for.

Everything happens in the thread that iterates: it reads some items, sends them as a chunk, and waits for the next chunk
to come back. So the input may be endless and may block, nothing is read that is not soon needed, and results do not
pile up when nobody takes them: at most a bounded number of chunks is out, and one chunk's results wait here.
"""

from __future__ import annotations

import time
from abc import abstractmethod
from collections import deque
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import islice
from typing import TYPE_CHECKING, Any

from hiersched.client.interrupts import Held
from hiersched.client.map_run import Chunk, Pack
from hiersched.errors import UserError
from hiersched.limits import MAP_CHUNK_S, MAP_CHUNKS_PER_ENGINE_MAX

if TYPE_CHECKING:
    from hiersched.client.chunks import ChunkSizer
    from hiersched.client.session import Session


@dataclass(frozen=True)
class LazyMapOptions:
    """How a lazy map behaves.

    ordered: results in the order of the input, not as they come back; return_exceptions: give the errors of items, do
    not raise them; items_max: bound on the items that are out, None for a few chunks per engine.
    """

    ordered: bool = True
    return_exceptions: bool = False
    items_max: int | None = None


class MapIterator(Iterator[Any]):
    """The results of a map that is under way, one by one."""

    @abstractmethod
    def cancel(self) -> None:
        """Withdraw what has not started."""


class LazyMap(MapIterator):
    """The results of a map whose input is an iterator of argument tuples.

    After an item's error was raised, iterating goes on with the next. An error of the input, or of packing it, is
    raised once, behind the results of all that came before.
    """

    def __init__(
        self,
        session: Session,
        calls: Iterator[tuple[Any, ...]],
        *,
        pack: Pack,
        sizer: ChunkSizer,
        options: LazyMapOptions,
    ) -> None:
        self._session = session
        self._calls = calls
        self._pack = pack
        self._sizer = sizer
        self._options = options
        self._flying: deque[Chunk] = deque()
        self._ready: deque[tuple[Any, Exception | None]] = deque()
        self._unsent: list[tuple[Any, ...]] = []  # read, and not sent yet
        self._read = 0  # items sent
        self._exhausted = False
        self._input_error: Exception | None = None

    def start(self) -> LazyMap:
        """Send the first chunks. Raises what reading or packing the very first items raises."""
        self._fill()
        if self._input_error is not None and not self._read:
            self._finish()
        return self

    def __repr__(self) -> str:
        taken = self._read - len(self._ready) - sum(chunk.count for chunk in self._flying)
        return f"<{type(self).__name__}: {taken} results taken of {self._read} items sent>"

    def cancel(self) -> None:
        """Read no more of the input and withdraw what has not started. What is back can still be taken."""
        self._exhausted = True
        self._input_error = None
        self._session.cancel([chunk.pending for chunk in self._flying if chunk.pending is not None])
        self._flying.clear()

    close = cancel

    def __next__(self) -> Any:
        while not self._ready:
            self._fill()
            if not self._flying:
                self._finish()
            chunk = self._next_back()
            with Held():
                self._flying.remove(chunk)
                self._take(chunk)
            self._fill()
        value, error = self._ready.popleft()
        if error is None:
            return value
        if self._options.return_exceptions:
            return error
        raise error

    def _finish(self) -> None:
        """Nothing is out and nothing more comes: raise what ends the iteration."""
        error, self._input_error = self._input_error, None
        raise StopIteration if error is None else error

    def _next_back(self) -> Chunk:
        """Wait for the chunk whose results come next."""
        if self._options.ordered:
            chunk = self._flying[0]
            self._session.wait((chunk.pending,), None)
        else:
            self._session.wait_any([chunk.pending for chunk in self._flying], None)
            chunk = next(chunk for chunk in self._flying if chunk.pending.done)
        return chunk

    def _take(self, chunk: Chunk) -> None:
        """Make the results of a chunk ready, and learn from it."""
        outcome = chunk.outcome
        if outcome is not None and outcome.error is None:
            self._sizer.learn(chunk.count, outcome.ended - outcome.started)
        results, errors = chunk.items()
        self._ready.extend(
            (result, errors.get(position) if errors else None) for position, result in enumerate(results, chunk.start)
        )

    def _fill(self) -> None:
        """Send chunks while there is room."""
        engines = max(self._session.dispatch_width(), 1)
        while not self._exhausted and self._has_room(engines):
            try:
                self._send(self._next_calls(engines))
            except Exception as error:
                self._input_error = error
                self._exhausted = True

    def _send(self, calls: list[tuple[Any, ...]]) -> None:
        if calls:
            columns = tuple(list(column) for column in zip(*calls, strict=True))
            packed = self._pack(columns)
            with Held():
                self._flying.append(Chunk(self._read, len(calls), pending=self._session.task(packed)))
                self._read += len(calls)
                self._unsent = []

    def _has_room(self, engines: int) -> bool:
        items_max = self._options.items_max
        if items_max is not None:
            return sum(chunk.count for chunk in self._flying) < items_max
        return len(self._flying) < engines * MAP_CHUNKS_PER_ENGINE_MAX

    def _next_calls(self, engines: int) -> list[tuple[Any, ...]]:
        """The arguments of the next chunk: fewer where the input is slow, none at its end."""
        items = self._sizer.next_items(engines)
        if self._options.items_max is not None:
            items = min(items, max(1, self._options.items_max // (engines * MAP_CHUNKS_PER_ENGINE_MAX)))
        calls = self._unsent
        until = time.perf_counter() + MAP_CHUNK_S
        try:
            for call in islice(self._calls, max(0, items - len(calls))):
                calls.append(call)
                if time.perf_counter() > until:
                    return calls
        except Exception as error:  # the input's own; what it gave before is still sent
            self._input_error = error
        except BaseException:  # an interrupt; it may have ended the input
            self._input_error = UserError("the input of the map was interrupted while it was read")
            self._exhausted = True
            raise
        self._exhausted = len(calls) < items
        return calls
