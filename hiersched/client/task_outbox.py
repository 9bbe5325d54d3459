"""Load-balanced tasks on their way out: gathered into batches, held back while the root has as many as it takes."""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Mapping, Sequence
from typing import Any

from hiersched.client.pending import Pending
from hiersched.client.supplies import Supplies
from hiersched.limits import FLUSH_PERIOD_S
from hiersched.protocol.framing import Frame, batches
from hiersched.protocol.messages import Task, Tasks
from hiersched.runtime.zmq_link import Uplink


class TaskOutbox:
    """Tasks that wait to be sent. in_flight_max: how many may be at the root.

    `put` may be called by any thread at any time; the rest under the session's lock.
    """

    def __init__(self, link: Uplink, supplies: Supplies) -> None:
        self.in_flight = 0
        self.in_flight_max = 0
        self._link = link
        self._supplies = supplies
        self._waiting: deque[tuple[Pending, Task, Sequence[Frame], Mapping[bytes, Any]]] = deque()
        self._flushed_s = 0.0

    def put(self, pending: Pending, task: Task, frames: Sequence[Frame], blobs: Mapping[bytes, Any]) -> None:
        """One more task. blobs: what it needs and was not provided yet."""
        self._waiting.append((pending, task, frames, blobs))

    @property
    def due(self) -> bool:
        """Nothing was sent lately: there is no batch to wait for."""
        return time.monotonic() - self._flushed_s >= FLUSH_PERIOD_S

    @property
    def ready(self) -> bool:
        """There are tasks, and the root has room for some."""
        return bool(self._waiting) and self.in_flight < self.in_flight_max

    def flush(self) -> None:
        """Send as many as the root takes."""
        self._flushed_s = time.monotonic()
        while self.ready:
            tasks: list[Task] = []
            frames: list[Frame] = []
            for _ in range(min(len(self._waiting), self.in_flight_max - self.in_flight)):
                pending, task, rest, blobs = self._waiting.popleft()
                if pending.complete:  # withdrawn
                    continue
                if blobs:
                    self._supplies.provide(pending, blobs)
                tasks.append(task)
                frames.extend(rest)
            for which, whose in batches(tasks):
                self._link.send(Tasks(tasks[which]), frames[whose])
            self.in_flight += len(tasks)

    def waiting_among(self, ids: set[int]) -> list[Pending]:
        """Those of these requests that were not sent yet."""
        return [entry[0] for entry in list(self._waiting) if entry[0].id in ids and not entry[0].complete]

    def clear(self) -> None:
        """Nothing will be sent any more."""
        self._waiting.clear()
