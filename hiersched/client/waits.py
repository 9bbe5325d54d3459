"""Waiting for requests: the thread that waits receives itself, or is woken by the one that does."""

from __future__ import annotations

import queue
import time
from collections.abc import Callable, Iterable, Sequence
from typing import Protocol

from hiersched.client.pending import Listener, Pending
from hiersched.client.progress import Bar, watched
from hiersched.client.pump import Pump, deadline_of, left_of
from hiersched.data.outputs import Output

Condition = Callable[[], bool]


class Switchboard(Protocol):
    """What lets a listener know of the parts of a request: a session."""

    def listen(self, pending: Pending, listener: Listener) -> object: ...

    def unlisten(self, pending: Pending, listener: Listener) -> None: ...


class _Waiter(Listener):
    """Wakes a thread that waits for parts of requests. arrived: one item for each piece of news."""

    def __init__(self) -> None:
        self.arrived: queue.SimpleQueue[Pending] = queue.SimpleQueue()

    def on_output(self, pending: Pending, ranks: list[int], outputs: Sequence[Output]) -> None:
        """Output is not waited for."""

    def on_parts(self, pending: Pending) -> None:
        """Look again."""
        self.arrived.put(pending)


class Waits:
    """How the threads of a session wait."""

    def __init__(self, pump: Pump, switchboard: Switchboard) -> None:
        self._pump = pump
        self._switchboard = switchboard

    def for_all(self, pendings: Iterable[Pending], timeout_s: float | None = None) -> bool:
        """Until all are done; False if they are not in time."""
        waiting = [pending for pending in pendings if not pending.done]
        return self._until_done(waiting, len(waiting), lambda: _none_left(waiting), timeout_s)

    def for_any(self, pendings: Iterable[Pending], timeout_s: float | None = None) -> bool:
        """Until at least one is done; False if none is in time."""
        waiting = list(pendings)
        if any(pending.done for pending in waiting):
            return True
        return self._until_done(waiting, 1, lambda: any(pending.done for pending in waiting), timeout_s)

    def for_parts(self, pendings: Iterable[Pending], condition: Condition, timeout_s: float | None = None) -> bool:
        """Until parts of these requests have made `condition()` hold; False if it does not in time."""
        received = self._pump.receive(condition, timeout_s)
        if received is not None:
            return received or condition()
        waiter = _Waiter()
        waiting = list(pendings)
        for pending in waiting:
            self._switchboard.listen(pending, waiter)
        self._pump.want()
        self._pump.kick()
        deadline = deadline_of(timeout_s)
        try:
            while not condition():
                waiter.arrived.get(timeout=left_of(deadline))
        except queue.Empty:
            return condition()
        finally:
            for pending in waiting:
                self._switchboard.unlisten(pending, waiter)
        return True

    def _until_done(self, waiting: list[Pending], count: int, condition: Condition, timeout_s: float | None) -> bool:
        """Until `count` of those waited for are done, which is when `condition()` holds."""
        if not waiting:
            return True
        received = self._pump.receive(condition, timeout_s)
        if received is not None:
            return received or condition()
        done: queue.SimpleQueue[Pending] = queue.SimpleQueue()
        those = list(waiting)
        for pending in those:
            pending.add_done_callback(done.put)
        self._pump.want()
        self._pump.kick()  # what the caller sent may have eaten the edge that whoever receives sleeps on
        deadline = deadline_of(timeout_s)
        try:
            for _ in range(count):
                done.get(timeout=left_of(deadline))
        except queue.Empty:
            return condition()
        finally:
            for pending in those:
                if not pending.done:
                    pending.remove_done_callback(done.put)
        return True


def wait_watched(wait: Callable[..., bool], pendings: Sequence[Pending], timeout_s: float | None) -> bool:
    """`wait(pendings, timeout_s)`, until all are done, under a progress bar if it lasts and they are several."""
    if len(pendings) < 2:
        return wait(pendings, timeout_s)
    return watched(
        lambda slice_s: wait(pendings, slice_s),
        timeout_s,
        done=lambda: sum(pending.done for pending in pendings),
        bar=lambda stage: Bar.at_once(
            len(pendings),
            "call",
            title="wait",
            going_s=time.time() - min(pending.submitted for pending in pendings),
            stage=stage,
        ),
    )


def _none_left(waiting: list[Pending]) -> bool:
    """All are done; those that are leave the list's end, so that a long list is not scanned anew each time."""
    while waiting and waiting[-1].done:
        waiting.pop()
    return not waiting
