"""A map under way: the chunks it was cut into, and those that are back.

A run looks like a request to the result that stands for it (done, failed, cancelled, outcomes), and gives its chunks in
the order of the items or as they end. `DirectMap` is one request with a share for each target; `BalancedMap` lives in a
module of its own.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, nullcontext
from functools import partial
from typing import TYPE_CHECKING, Any, Protocol

import msgspec

from hiersched.client.pump import left_of
from hiersched.client.selection import split_by
from hiersched.client.targets import describe_ids
from hiersched.data.conditions import dependent
from hiersched.data.namespace import map_chunk, mapper
from hiersched.data.outcomes import unpack_outcome
from hiersched.data.serialize import PackedCall
from hiersched.errors import RemoteError

if TYPE_CHECKING:
    from hiersched.client.pending import Pending
    from hiersched.client.progress import Wait
    from hiersched.client.session import Session
    from hiersched.data.outcomes import Outcome
    from hiersched.data.serialize import Packer


class Chunk:
    """Some consecutive items of a map, one part of a request. start: position of the first; count: how many."""

    __slots__ = ("_items", "count", "pending", "position", "settled", "start")

    def __init__(self, start: int, count: int, *, pending: Pending | None = None, position: int = 0) -> None:
        self.start = start
        self.count = count
        self.pending = pending
        self.position = position
        self.settled = False  # its run has taken note of its end
        self._items: tuple[list[Any], dict[int, Exception]] | None = None

    @property
    def outcome(self) -> Outcome | None:
        """How it ended; None while it has not."""
        return self.pending.outcomes[self.position] if self.pending is not None else None

    def items(self) -> tuple[list[Any], dict[int, Exception]]:
        """Results, None where an item failed, and {position in the map: error}. Only once it has ended."""
        if self._items is None:
            self._items = self._unpack()
        return self._items

    def _unpack(self) -> tuple[list[Any], dict[int, Exception]]:
        outcome = self.outcome
        assert outcome is not None, "only a chunk that has ended has items"
        if outcome.error is not None:
            return [None] * self.count, dict.fromkeys(range(self.start, self.start + self.count), outcome.error)
        results, errors = unpack_items(outcome)
        return results, {self.start + position: error for position, error in errors.items()}


def unpack_items(outcome: Outcome) -> tuple[list[Any], dict[int, Exception]]:
    """What a chunk that has returned holds: results, None where an item failed, and {position in the chunk: error}."""
    results, failures = outcome.value
    errors: dict[int, Exception] = {}
    for position, frames in failures:
        error = unpack_outcome(frames).error
        assert isinstance(error, RemoteError), "a failed item holds what it raised"
        error.engine_id = outcome.engine_id
        errors[position] = error
    return results, errors


def items_in(outcome: Outcome) -> list[Any]:
    """The results in a chunk that has returned. Raises the error of the first item that failed."""
    results, errors = unpack_items(outcome)
    for error in errors.values():
        raise error
    return list(results)


Pack = Callable[[tuple[Any, ...]], PackedCall]


def chunk_packer(packer: Packer, function: Callable[..., Any], *, by_value: bool, strict: bool = False) -> Pack:
    """What packs the call of a chunk from its columns. The function is packed here, once for the whole map.

    strict: an item that raises fails its chunk. Raises PackError, and so does the packing of a chunk.
    """
    packer.pack_function(function, by_value=by_value)  # so that an error names the user's function
    over_chunks = partial(mapper, strict=strict)
    mapped = function.around(over_chunks) if isinstance(function, dependent) else over_chunks(function)
    digest, blob = packer.pack_function(mapped, by_value=by_value)

    def pack(columns: tuple[Any, ...]) -> PackedCall:
        call = packer.pack_call(map_chunk, columns, by_value=by_value)
        blobs = {digest: blob, **{name: data for name, data in call.blobs.items() if name != call.function}}
        return msgspec.structs.replace(call, function=digest, blobs=blobs)

    return pack


class MapRun(Protocol):
    """What a result of a map needs of the map.

    error: why it ended before all chunks were back, if it did; sent: whether all items are on their way.
    """

    session: Session
    name: str
    count: int
    chunks: list[Chunk]
    error: BaseException | None

    @property
    def done(self) -> bool: ...

    @property
    def failed(self) -> bool: ...

    @property
    def cancelled(self) -> bool: ...

    @property
    def sent(self) -> bool: ...

    @property
    def outcomes(self) -> list[Outcome | None]: ...

    @property
    def progress(self) -> int: ...

    def part(self, place: int) -> tuple[Pending, int]: ...

    def requests(self) -> list[Pending]: ...

    def add_done_callback(self, callback: Callable[[Any], None]) -> None: ...

    def following(self, follow: Follow) -> AbstractContextManager[None]: ...

    def wait(self, timeout_s: float | None) -> bool: ...

    def wait_until(self, condition: Callable[[], bool], timeout_s: float | None = None) -> bool: ...

    def in_order(self, ends_at: float | None = None, watch: Watch = ...) -> Iterator[Chunk]: ...

    def as_done(self, ends_at: float | None = None, watch: Watch = ...) -> Iterator[Chunk]: ...

    def cancel(self, *, running: bool = False) -> None: ...

    def late(self) -> str: ...


Follow = Callable[["Pending", list[int]], None]  # is told of a request, and of which of its parts
Watch = Callable[["Wait", float | None], bool]  # what a wait gives, and perhaps shows how far it is


def unwatched(wait: Wait, timeout_s: float | None) -> bool:
    """The wait, and nothing shown."""
    return wait(timeout_s)


class DirectMap:
    """One request, one chunk for each of its targets. counts: items of each target's chunk, in target order."""

    error: BaseException | None = None
    sent = True

    def __init__(self, session: Session, pending: Pending, counts: Sequence[int], *, name: str) -> None:
        self.session = session
        self.name = name
        self.count = sum(counts)
        self._pending = pending
        self.chunks: list[Chunk] = []
        start = 0
        for position, count in enumerate(counts):
            self.chunks.append(Chunk(start, count, pending=pending, position=position))
            start += count

    @property
    def done(self) -> bool:
        """Whether every target has answered."""
        return self._pending.done

    @property
    def failed(self) -> bool:
        """Whether some target's whole chunk failed."""
        return self._pending.failed

    @property
    def cancelled(self) -> bool:
        """Whether the request was withdrawn."""
        return self._pending.cancelled

    @property
    def outcomes(self) -> list[Outcome | None]:
        """How each chunk ended."""
        return self._pending.outcomes

    @property
    def progress(self) -> int:
        """Items whose chunk is back."""
        return sum(chunk.count for chunk in self.chunks if chunk.outcome is not None)

    def part(self, place: int) -> tuple[Pending, int]:
        """The request, and the chunk's place in it."""
        return self._pending, place

    def requests(self) -> list[Pending]:
        """The request."""
        return [self._pending]

    def add_done_callback(self, callback: Callable[[DirectMap], None]) -> None:
        """Call `callback(self)` when every target has answered; at once if all have."""
        self._pending.add_done_callback(lambda _: callback(self))

    def following(self, follow: Follow) -> AbstractContextManager[None]:
        """There will be no more requests to tell of."""
        return nullcontext()

    def wait(self, timeout_s: float | None) -> bool:
        """Block until every target has answered; False if some have not within `timeout_s`."""
        return self.done or self.session.wait((self._pending,), timeout_s)

    def wait_until(self, condition: Callable[[], bool], timeout_s: float | None = None) -> bool:
        """Block until chunks that are back have made `condition()` hold; False if it does not within `timeout_s`."""
        return condition() or self.session.wait_for_parts((self._pending,), condition, timeout_s)

    def in_order(self, ends_at: float | None = None, watch: Watch = unwatched) -> Iterator[Chunk]:
        """The chunks by target, each once it is back. ends_at: as of `as_done`."""
        for chunk in self.chunks:
            self._await_any([chunk], ends_at, watch)
            yield chunk

    def as_done(self, ends_at: float | None = None, watch: Watch = unwatched) -> Iterator[Chunk]:
        """The chunks as they come back. ends_at: by the monotonic clock; raises TimeoutError for one that is late."""
        left = self.chunks
        while left:
            self._await_any(left, ends_at, watch)
            ready, left = split_by(lambda chunk: chunk.outcome is not None, left)
            yield from ready

    def _await_any(self, chunks: Sequence[Chunk], ends_at: float | None, watch: Watch) -> None:
        back = partial(_any_back, chunks)
        if not back() and not watch(partial(self.wait_until, back), left_of(ends_at)) and not back():
            raise TimeoutError(f"map of {self.name}: {self.late()} in time")

    def cancel(self, *, running: bool = False) -> None:
        """Withdraw what has not started. running: interrupt what has."""
        self.session.cancel((self._pending,), running=running)

    def late(self) -> str:
        """Who has not answered."""
        return f"no answer from engines {describe_ids(self._pending.missing())}"


def _any_back(chunks: Sequence[Chunk]) -> bool:
    return any(chunk.outcome is not None for chunk in chunks)
