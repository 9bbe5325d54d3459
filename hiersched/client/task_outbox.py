"""Load-balanced tasks on their way out: gathered into batches, held back while the root has as many as it takes.

Each batch tells the root how many results have come in, so that it can forget how those tasks ended. When nothing goes
out for long, an empty batch tells it.
"""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from hiersched.client.pending import Pending
from hiersched.client.supplies import Supplies
from hiersched.limits import FLUSH_PERIOD_S, RESULTS_UNSEEN_MAX
from hiersched.protocol.framing import Frame, batches
from hiersched.protocol.messages import Task, Tasks
from hiersched.runtime.zmq_link import Uplink

# A task with its further frames, and the blobs that it needs and were not provided yet.
Entry = tuple[Pending, Task, Sequence[Frame], Mapping[bytes, Any]]


class TaskOutbox:
    """Tasks that wait to be sent. in_flight: at the root, at most in_flight_max; seen: results that have come in.

    announced: whoever receives knows that there is something to be sent. bind: completes a task that asks for
    something, right before it is sent.
    `put` may be called by any thread at any time; the rest under the session's lock.
    """

    def __init__(self, link: Uplink, supplies: Supplies, bind: Callable[[Pending, Task], Task]) -> None:
        self.in_flight = 0
        self.in_flight_max = 0
        self.seen = 0
        self.announced = False
        self._seen_told = 0
        self._link = link
        self._supplies = supplies
        self._bind = bind
        self._waiting: deque[Entry] = deque()
        self._flushed_s = 0.0
        self.put: Callable[[Entry], None] = self._waiting.append  # one step: no interrupt comes in between

    def __len__(self) -> int:
        return len(self._waiting)

    @property
    def due(self) -> bool:
        """Nothing was sent lately: there is no batch to wait for."""
        return time.monotonic() - self._flushed_s >= FLUSH_PERIOD_S

    @property
    def ready(self) -> bool:
        """There are tasks, and the root has room for some; or it has not been told for long what has come in."""
        if self._waiting:
            return self.in_flight < self.in_flight_max
        return self.seen - self._seen_told >= RESULTS_UNSEEN_MAX

    def ready_in_s(self) -> float | None:
        """How long what is ready waits for more; None if nothing is."""
        return max(0.0, FLUSH_PERIOD_S - (time.monotonic() - self._flushed_s)) if self.ready else None

    def flush(self, *, all_of_it: bool = False) -> None:
        """Send as many as the root takes. all_of_it: more than that, for nobody will be here to send them later."""
        self.announced = False  # what is put from here on may come too late for this time
        self._flushed_s = time.monotonic()
        while self._waiting and (all_of_it or self.in_flight < self.in_flight_max):
            room = len(self._waiting) if all_of_it else self.in_flight_max - self.in_flight
            self._send_some(min(len(self._waiting), room))
        if self.seen - self._seen_told >= RESULTS_UNSEEN_MAX:
            self._send([], ())

    def _send_some(self, count: int) -> None:
        tasks: list[Task] = []
        frames: list[Frame] = []
        for _ in range(count):
            pending, task, rest, blobs = self._waiting.popleft()
            if pending.complete:  # withdrawn
                continue
            if pending.terms is not None:
                task = self._bind(pending, task)
            if blobs:
                self._supplies.provide(pending, blobs)
            tasks.append(task)
            frames.extend(rest)
        for which, whose in batches(tasks):
            self._send(tasks[which], frames[whose])
        self.in_flight += len(tasks)

    def _send(self, tasks: list[Task], frames: Sequence[Frame]) -> None:
        self._link.send(Tasks(tasks, self.seen), frames)
        self._seen_told = self.seen

    def withdraw(self, ids: set[int]) -> list[Pending]:
        """Those of these requests that were not sent yet; they never will be, but may be made again."""
        for pending, _, _, blobs in list(self._waiting):
            if pending.id in ids:
                self._supplies.remember(blobs)
        return self.waiting_among(ids)

    def waiting_among(self, ids: set[int]) -> list[Pending]:
        """Those of these requests that were not sent yet."""
        return [entry[0] for entry in list(self._waiting) if entry[0].id in ids and not entry[0].complete]

    def clear(self) -> None:
        """Nothing will be sent any more."""
        self._waiting.clear()
