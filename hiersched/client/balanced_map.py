"""A map whose chunks go to whichever engine is free.

Few chunks are out at a time; each that ends makes room for the next, whose size has learnt from it. Whoever learns of
an end feeds the map: the user's thread while it waits, the session's thread while nobody does. One thread feeds at a
time. A thread that comes while another feeds leaves at once, and the feeder looks again before it stops, both under the
lock, so no room is ever overlooked. Packing and sending happen outside the lock. A Ctrl-C waits until the books agree.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from functools import partial
from typing import TYPE_CHECKING, Any

from hiersched.client.interrupts import Held
from hiersched.client.map_run import Chunk, Follow, Pack, Watch, unwatched
from hiersched.client.pump import deadline_of, left_of
from hiersched.errors import TaskCancelled

if TYPE_CHECKING:
    from hiersched.client.chunks import ChunkSizer
    from hiersched.client.pending import Pending
    from hiersched.client.session import Session
    from hiersched.data.outcomes import Outcome

_PERIOD_S = 0.05  # how often a thread that waits for another to feed lets a Ctrl-C strike


class BalancedMap:
    """A run over `columns`, sliceable sequences of one length, one per argument of the function.

    pack: makes the call of one chunk of its slices. error: why the map ended early: a chunk that could not be packed or
    sent, or TaskCancelled.
    """

    def __init__(self, session: Session, columns: Sequence[Any], *, pack: Pack, sizer: ChunkSizer, name: str) -> None:
        self.session = session
        self.name = name
        self.count = len(columns[0])
        self.chunks: list[Chunk] = []  # in the order of the items
        self.error: BaseException | None = None
        self.cancelled = False
        self.failed = False
        self.progress = 0  # items whose chunk is back
        self._columns = columns
        self._pack = pack
        self._sizer = sizer
        self._claimed = 0  # items cut off for chunks
        self._sent = 0  # items of the chunks listed
        self._flying: dict[Chunk, None] = {}  # oldest first
        self._ended: list[Chunk] = []  # in the order they came back
        self._feeding = False
        self._follows: list[Follow] = []
        self._callbacks: list[Callable[[BalancedMap], None]] = []
        self._changed = threading.Condition()

    # --- feeding ------------------------------------------------------------------------------------------------------

    def start(self) -> None:
        """Send the first chunks. Raises what packing or sending them raises, and then nothing of the map runs."""
        try:
            self._feed()
        except BaseException as error:  # an interrupt: nobody will have the result
            self._end(error)
            self._withdraw()
            raise
        if self.error is not None:
            self._withdraw()
            raise self.error

    def _feed(self) -> None:
        """Send chunks while there is room, unless another thread is at it."""
        with Held():
            with self._changed:
                if self._feeding:
                    return
                self._feeding = True
            chunk = self._claim()
            while chunk is not None:
                try:
                    self._send(chunk)
                except Exception as error:
                    self._end(error)
                except BaseException as error:  # an interrupt is for the thread it struck
                    self._end(error)
                    self._claim()
                    self._withdraw()
                    raise
                chunk = self._claim()

    def _claim(self) -> Chunk | None:
        """Cut off the next chunk, or stop feeding."""
        engines = max(self.session.dispatch_width(), 1)
        flying_max = self._sizer.chunks_out_max(engines)
        with Held(), self._changed:
            if self.error is None and self._claimed < self.count and len(self._flying) < flying_max:
                left = self.count - self._claimed
                items = min(self._sizer.next_items(engines, left), left)
                chunk = Chunk(self._claimed, items)
                self._claimed += items
                return chunk
            self._feeding = False
            self._changed.notify_all()
            return None

    def _send(self, chunk: Chunk) -> None:
        """Pack and submit one chunk."""
        stop = chunk.start + chunk.count
        pending = self.session.task(self._pack(tuple(column[chunk.start : stop] for column in self._columns)))
        with Held(), self._changed:
            chunk.pending = pending
            self.chunks.append(chunk)
            self._sent += chunk.count
            self._flying[chunk] = None
            self._changed.notify_all()
            late = self.cancelled
            follows = list(self._follows)
        if late:
            self.session.cancel((pending,))
        for follow in follows:
            follow(pending, [0])
        pending.add_done_callback(partial(self._on_done, chunk))

    def _on_done(self, chunk: Chunk, pending: Pending) -> None:
        """Take note of a chunk that is back, once, and send more."""
        with Held():
            with self._changed:
                if chunk.settled:
                    return
                chunk.settled = True
                del self._flying[chunk]
                self._ended.append(chunk)
                self.progress += chunk.count
                outcome = pending.outcomes[0]
                if outcome.error is not None:
                    self.failed = True
                else:
                    self._sizer.learn(chunk.count, outcome.ended - outcome.started)
                callbacks = self._callbacks_due()
                self._changed.notify_all()
            self._feed()
            for callback in callbacks:
                callback(self)

    def _end(self, error: BaseException, *, cancelled: bool = False) -> None:
        """Send no more. The map ends when all that is out is back, or now, if it is cancelled."""
        with Held(), self._changed:
            if self.done:
                return
            self.error = error
            self.failed = True
            self.cancelled = cancelled
            callbacks = self._callbacks_due()
            self._changed.notify_all()
        for callback in callbacks:
            callback(self)

    def _withdraw(self, *, running: bool = False) -> None:
        with Held(), self._changed:
            flying = [chunk.pending for chunk in self._flying]
        self.session.cancel(flying, running=running)

    def cancel(self, *, running: bool = False) -> None:
        """End the map. Chunks that already run are left to end, or interrupted; what they give is dropped."""
        text = f"the map of {self.name} was cancelled with {self.progress} of {self.count} items done"
        self._end(TaskCancelled(text), cancelled=True)
        self._withdraw(running=running)

    # --- state --------------------------------------------------------------------------------------------------------

    @property
    def done(self) -> bool:
        """Whether all chunks are back: all there are to be, or where the map ended early, all that were sent."""
        if self.error is not None:
            return self.cancelled or self.progress == self._sent
        return self.progress == self.count

    @property
    def outcomes(self) -> list[Outcome | None]:
        """How each chunk sent so far ended."""
        return [chunk.outcome for chunk in self.chunks]

    @property
    def sent(self) -> bool:
        """Whether all items are on their way."""
        return self._sent == self.count or self.error is not None

    def part(self, place: int) -> tuple[Pending, int]:
        """The task of a chunk; it has but one part."""
        return self.chunks[place].pending, 0

    def requests(self) -> list[Pending]:
        """The tasks of the chunks sent so far."""
        return [chunk.pending for chunk in self.chunks]

    @contextmanager
    def following(self, follow: Follow) -> Iterator[None]:
        """Within the block, tell `follow` of each chunk that is sent."""
        self._follows.append(follow)
        try:
            yield
        finally:
            self._follows.remove(follow)

    def add_done_callback(self, callback: Callable[[BalancedMap], None]) -> None:
        """Call `callback(self)` once when the map ends; at once if it has. It may run in the session's thread."""
        with Held(), self._changed:
            if not self.done:
                self._callbacks.append(callback)
                return
        callback(self)

    def _callbacks_due(self) -> list[Callable[[BalancedMap], None]]:
        """The callbacks, if the map has ended. Lock held."""
        if not self.done:
            return []
        callbacks, self._callbacks = self._callbacks, []
        return callbacks

    def late(self) -> str:
        """How far it is."""
        return f"{self.progress} of {self.count} items done, {len(self._flying)} chunks out"

    # --- waiting ------------------------------------------------------------------------------------------------------

    def wait(self, timeout_s: float | None) -> bool:
        """Block until the map ends; False if it has not within `timeout_s`."""
        ends_at = deadline_of(timeout_s)
        while not self.done:
            if not self._wait_for_oldest(ends_at):
                return self.done
        return True

    def in_order(self, ends_at: float | None = None, watch: Watch = unwatched) -> Iterator[Chunk]:
        """The chunks in the order of the items, each once it is back.

        ends_at: by the monotonic clock; raises TimeoutError for a chunk that is not back by then. Raises `error` behind
        the last chunk sent.
        """
        index = 0
        while True:
            while index >= len(self.chunks):
                if self._sent == self.count:
                    return
                if self.error is not None:
                    raise self.error
                self._until(self._wait_for_oldest(ends_at))
            chunk = self.chunks[index]
            if not chunk.settled:
                wait = partial(self._wait_for, chunk)
                self._until(watch(lambda slice_s, wait=wait: wait(deadline_of(slice_s)), left_of(ends_at)))
            yield chunk
            index += 1

    def _until(self, in_time: bool) -> None:
        if not in_time:
            raise TimeoutError(f"map of {self.name}: {self.late()} in time")

    def as_done(self, ends_at: float | None = None, watch: Watch = unwatched) -> Iterator[Chunk]:
        """The chunks as they come back. Raises `error` behind them where the map ended early.

        ends_at: by the monotonic clock; raises TimeoutError for a chunk that is not back by then.
        """
        index = 0
        while True:
            while index >= len(self._ended):
                if not self.done:
                    wait = partial(self.wait_until, lambda index=index: index < len(self._ended) or self.done)
                    self._until(watch(wait, left_of(ends_at)))
                elif self.error is not None:
                    raise self.error
                else:
                    return
            yield self._ended[index]
            index += 1

    def _wait_for(self, chunk: Chunk, ends_at: float | None) -> bool:
        """Block until `chunk` is back; False if it is not by `ends_at`."""
        pending = chunk.pending
        if not pending.done and not self.session.wait((pending,), left_of(ends_at)):
            return False
        self._on_done(chunk, pending)
        return True

    def _wait_for_oldest(self, ends_at: float | None) -> bool:
        """Block until the oldest chunk out is back, or more are out; False if neither happens by `ends_at`."""
        with Held(), self._changed:
            chunk = next(iter(self._flying), None)
        return self._wait_for_more(ends_at) if chunk is None else self._wait_for(chunk, ends_at)

    def wait_until(self, condition: Callable[[], bool], timeout_s: float | None = None) -> bool:
        """Block until chunks that are back have made `condition()` hold; False if it does not within `timeout_s`."""
        ends_at = deadline_of(timeout_s)
        while not condition():
            if self.done or not self._wait_for_any(condition, ends_at):
                return condition()
        return True

    def _wait_for_any(self, condition: Callable[[], bool], ends_at: float | None) -> bool:
        """Block until some chunk is back, more are out, or `condition()` holds; False if none of it by `ends_at`."""
        with Held(), self._changed:
            flying = list(self._flying)
        if not flying:
            return self._wait_for_more(ends_at)
        in_time = self.session.wait_for_parts(
            [chunk.pending for chunk in flying],
            lambda: condition() or any(chunk.pending.done for chunk in flying),
            left_of(ends_at),
        )
        for chunk in flying:
            if chunk.pending.done:
                self._on_done(chunk, chunk.pending)
        return in_time

    def _wait_for_more(self, ends_at: float | None) -> bool:
        """Nothing is out: send more, or block until the thread that is at it has. False if it has not by `ends_at`."""
        self._feed()
        while True:
            left = left_of(ends_at)
            with Held(), self._changed:
                period_s = _PERIOD_S if left is None else min(left, _PERIOD_S)
                if self._changed.wait_for(lambda: bool(self._flying) or self.done or not self._feeding, period_s):
                    return True
            if left == 0.0:
                return False
