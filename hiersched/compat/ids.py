"""What old clients call their requests, and which requests of ours these are.

The parts of a broadcast have ids of their own, one for each engine; the call is one here. It is withdrawn when all of
its parts are to be.

Requests and what withdraws them come on different channels: one that is withdrawn before it has come is remembered.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Iterable

from hiersched.client.pending import Pending
from hiersched.limits import OLD_TASKS_RECALLED_MAX, OLD_WITHDRAWN_MAX
from hiersched.protocol.messages import TaskId


class OldIds:
    """Requests by the ids of ipyparallel's clients."""

    def __init__(self) -> None:
        self._open: dict[str, Pending] = {}
        self._parts: dict[TaskId, list[str]] = {}
        self._tasks: OrderedDict[str, TaskId] = OrderedDict()
        self._withdrawn: OrderedDict[str, None] = OrderedDict()  # and not here yet

    def __len__(self) -> int:
        return len(self._open)

    def __contains__(self, msg_id: str) -> bool:
        """Whether a request of this id is open, or a task of this id was submitted not too long ago."""
        return msg_id in self._open or msg_id in self._tasks

    def enter(self, pending: Pending, *msg_ids: str) -> bool:
        """A request is open under these ids: one for each part, if it has several. Whether it was withdrawn before."""
        self._parts[pending.id] = list(msg_ids)
        self._open.update(dict.fromkeys(msg_ids, pending))
        early = [msg_id for msg_id in msg_ids if msg_id in self._withdrawn]
        for msg_id in early:
            del self._withdrawn[msg_id]
        return len(early) == len(msg_ids)

    def name_task(self, msg_id: str, task: TaskId) -> None:
        """Others may depend on this task from now on."""
        self._tasks[msg_id] = task
        if len(self._tasks) > OLD_TASKS_RECALLED_MAX:
            self._tasks.popitem(last=False)

    def task_of(self, msg_id: str) -> TaskId | None:
        """The task of this id; None if there never was one, or too long ago."""
        return self._tasks.get(msg_id)

    def leave(self, pending: Pending) -> None:
        """A request has ended."""
        for msg_id in self._parts.pop(pending.id, ()):
            if self._open.get(msg_id) is pending:  # a client may have used the id again
                del self._open[msg_id]

    def open_on(self, rank: int) -> list[Pending]:
        """The open requests to this engine, and to no other."""
        return [pending for pending in self._open.values() if pending.targets == (rank,)]

    def withdrawn(self, msg_ids: Iterable[str]) -> list[Pending]:
        """The open requests all of whose ids are among these. Those that are not known are remembered for a while."""
        wanted = set()
        for msg_id in msg_ids:
            if msg_id in self._open:
                wanted.add(msg_id)
            else:
                self._withdrawn[msg_id] = None
        while len(self._withdrawn) > OLD_WITHDRAWN_MAX:
            self._withdrawn.popitem(last=False)
        found = {self._open[msg_id].id: self._open[msg_id] for msg_id in wanted}
        return [pending for pending in found.values() if wanted.issuperset(self._parts[pending.id])]
