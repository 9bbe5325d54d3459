"""The requests of one session: those that are open, those that have ended and are still held, and how all ended."""

from __future__ import annotations

from collections.abc import Iterable
from typing import NamedTuple
from weakref import ref

from hiersched.client.ledger import Ledger
from hiersched.client.names import calls_text, name_of
from hiersched.client.orders import Explanation
from hiersched.client.pending import Pending
from hiersched.errors import ResultDropped, UnknownTask
from hiersched.limits import CALLS_RECALLED_MAX
from hiersched.protocol.messages import NO_RANK, TaskId

_PRUNE_MIN = 4_096  # dead references are looked for when there are so many, and twice as many as lived the last time


class Requests:
    """Used under the session's lock, but for `open`, where whoever makes a task puts it in one step.

    kept: answers that came to a session that was joined, until somebody forgets them: nobody held an AsyncResult yet.
    """

    def __init__(self) -> None:
        self.open: dict[TaskId, Pending] = {}
        self.kept: dict[TaskId, Pending] = {}
        self.ledger = Ledger()
        self._ended: dict[TaskId, ref[Pending]] = {}
        self._prune_at = _PRUNE_MIN
        self._unlisted: set[TaskId] = set()
        self._unlisted_to = 0

    def end(self, pending: Pending) -> None:
        """All outcomes of an open request are here."""
        del self.open[pending.id]
        rank = pending.targets[0]
        self.ledger.note(pending.id, rank if rank >= 0 else NO_RANK, pending.submitted, ok=not pending.failed)
        self._ended[pending.id] = ref(pending)
        if len(self._ended) >= self._prune_at:
            self._ended = {request: known for request, known in self._ended.items() if known() is not None}
            self._prune_at = max(_PRUNE_MIN, 2 * len(self._ended))

    def find(self, request: TaskId) -> Pending | None:
        """A request that is open, or has ended and is held by somebody."""
        pending = self.open.get(request)
        if pending is None:
            known = self._ended.get(request)
            pending = known() if known is not None else None
        return pending

    def get(self, request: TaskId) -> Pending:
        """The same, with what came for a session that was joined. Raises ResultDropped or UnknownTask, saying why."""
        pending = self.find(request)
        if pending is not None:
            return pending
        end = self.ledger.end_of(request)
        if end is None:
            raise self._unknown(request)
        raise ResultDropped(
            f"{_how_it_ended(request, *end)}, and its result is gone: it lives as long as an AsyncResult"
        )

    def explain(self, request: TaskId) -> Explanation | None:
        """Why a request has not ended, if that it has is the answer; None for one that is open. Raises UnknownTask."""
        if request in self.open:
            return None
        end = self.ledger.end_of(request)
        if end is None:
            raise self._unknown(request)
        return Explanation("done", _how_it_ended(request, *end), () if end[1] == NO_RANK else (end[1],))

    def _unknown(self, request: TaskId) -> UnknownTask:
        names = [name_of(known) for known in self.history()]
        return UnknownTask(f"{self.ledger.why_unknown(request)}; {calls_text(names)}")

    def history(self) -> list[TaskId]:
        """The last requests, oldest first."""
        known = sorted([*self.ledger.recent(), *list(self.open)])[-CALLS_RECALLED_MAX:]
        return [request for request in known if request > self._unlisted_to and request not in self._unlisted]

    def records(self) -> list[Record]:
        """What is known of these."""
        return [self._record_of(request) for request in self.history()]

    def _record_of(self, request: TaskId) -> Record:
        pending, end = self.find(request), self.ledger.end_of(request)
        if pending is not None:
            return Record(request, pending.submitted, pending, end)
        return Record(request, self.ledger.submitted_s(request), None, end)

    def forget(self, requests: Iterable[TaskId] | None) -> None:
        """List these no longer, or none of those there have been, and hold no answers to them."""
        if requests is None:
            self._unlisted_to = max(self.history(), default=self._unlisted_to)
            self._unlisted.clear()
            self.kept.clear()
            return
        listed = set(self.history())
        self._unlisted = {request for request in self._unlisted if request in listed} | set(requests)
        for request in requests:
            self.kept.pop(request, None)


class Record(NamedTuple):
    """What is known of a request. submitted_s: since the epoch. pending: itself, if it is open or held. end: whether it
    succeeded and where it ran, once it has ended.
    """

    request: TaskId
    submitted_s: float
    pending: Pending | None
    end: tuple[bool, int] | None


def _how_it_ended(request: TaskId, ok: bool, rank: int) -> str:
    where = "" if rank == NO_RANK else f" on engine {rank}"
    return f"call {name_of(request)} has {'succeeded' if ok else 'failed'}{where}"
