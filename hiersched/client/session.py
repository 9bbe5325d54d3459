"""The requests of a client: calls, cells and tasks go out, and how they end is remembered.

Submitting a task takes no lock, so that it never waits for whoever receives. Tasks submitted close together leave as
one batch: the first goes at once, those that follow within FLUSH_PERIOD_S are sent by whoever receives. At most
`tasks_in_flight_max` are at the root; the rest waits here.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from functools import cached_property
from typing import Any

import msgspec

from hiersched.client.channel import Channel
from hiersched.client.interrupts import Held
from hiersched.client.names import name_of
from hiersched.client.pending import Pending
from hiersched.client.requests import Record
from hiersched.client.task_outbox import Entry
from hiersched.data.cells import Cell
from hiersched.data.serialize import PackedCall, Packer
from hiersched.errors import UserError
from hiersched.kernels import bitset
from hiersched.limits import TASKS_PER_MESSAGE_MAX
from hiersched.protocol import messages as m
from hiersched.protocol.framing import Frame, inline

_ONE_BIT = [bytes([1 << bit]) for bit in range(8)]


class Session(Channel):
    """One client's requests. See Channel for how it begins.

    by_value: whether views ship functions with the globals they use.
    """

    by_value = False

    @cached_property
    def packer(self) -> Packer:
        """Packs the calls of this client."""
        return Packer()

    # --- calls -----------------------------------------------------------------------------------------------------

    def call(self, targets: tuple[int, ...], packed: PackedCall, *, wake: bool = True) -> Pending:
        """The same call on every target. wake: False if the caller is about to wait for it."""
        if packed.inputs:
            packed = self._at_hand(packed)
        needs = [digest for digest in packed.blobs if digest != packed.function] if len(packed.blobs) > 1 else []
        request = (_wire(targets), m.CALL_LANE, packed.function, needs, ())
        return self._submit(Pending(self._new_id(), targets), request, packed.blobs, packed.frames, wake=wake)

    def call_each(self, targets: tuple[int, ...], packed: Sequence[PackedCall], *, wake: bool = True) -> Pending:
        """The same function with own arguments on each target; packed: (targets,)."""
        packed = [self._at_hand(share) if share.inputs else share for share in packed]
        shares = [share for _, share in sorted(zip(targets, packed, strict=True), key=lambda pair: pair[0])]
        function = packed[0].function
        parts = [
            m.Part(len(share.frames), [digest for digest in share.blobs if digest != function]) for share in shares
        ]
        blobs = {digest: data for share in shares for digest, data in share.blobs.items()}
        frames = [frame for share in shares for frame in share.frames]
        request = (_wire(targets), m.CALL_LANE, function, (), parts)
        return self._submit(Pending(self._new_id(), targets), request, blobs, frames, wake=wake)

    def execute(self, targets: tuple[int, ...], code: str, *, silent: bool = True, wake: bool = True) -> Pending:
        """A cell on every target, in IPython."""
        request = (_wire(targets), m.CELL_LANE, m.NO_FUNCTION, (), ())
        pending = Pending(self._new_id(), targets, "execute")
        if not silent:
            pending.code = code
        return self._submit(pending, request, {}, [msgspec.msgpack.encode(Cell(code, silent))], wake=wake)

    def task(self, packed: PackedCall, *, terms: m.Terms | None = None) -> Pending:
        """One load-balanced task; the tree picks the engine.

        Raises UnknownTask where the result of a task is an argument that nobody knows.
        """
        self._check_open()
        function, blobs = packed.function, packed.blobs
        payload, rest = inline(packed.frames)
        pending = Pending(self._new_id(), ())
        if terms is not None or packed.inputs:
            self._bindings.begin(pending, packed, terms)
        needs: list[m.Digest] = []
        if len(blobs) > 1:  # what may be large is taken over now, so that many tasks share one copy of it
            needs = [digest for digest in blobs if digest != function]
            with Held(), self._lock:
                self._supplies.provide(pending, blobs)
            blobs = {}
        task = m.Task(pending.id, function, needs, payload, len(rest), None, packed.given)
        if not rest:
            pending.task = task
        self._enqueue((pending, task, rest, blobs))
        return pending

    def resubmit(self, pending: Pending) -> Pending:
        """The same task as another one.

        Raises UserError for what is no task, or was too large to be kept; BlobLost where data that it needs is gone.
        """
        task = pending.task
        if task is None or pending.inputs:
            raise UserError(f"{name_of(pending.id)} is no task, or too large to be kept: call its function again")
        again = Pending(self._new_id(), ())
        again.task, again.label = task, pending.label
        if pending.terms is not None:
            again.terms = msgspec.structs.replace(pending.terms, after=None, follow=None)
        with Held(), self._lock:
            self._check_open()
            self._supplies.renew(again, [task.function, *task.needs])
        self._enqueue((again, msgspec.structs.replace(task, id=again.id), (), {}))
        return again

    def _enqueue(self, entry: Entry) -> None:
        """Have a task sent: now, or with those that follow soon."""
        self._requests[entry[0].id] = entry[0]
        self._outbox.put(entry)
        if self._outbox.due:
            self._flush()
        elif not self._outbox.announced:
            self._outbox.announced = True
            self._pump.kick()
        self._pump.want()
        if self._inbox.ended is not None:  # meanwhile, and perhaps without this one
            self._end(self._inbox.ended)

    def dependency(
        self, named: Any, *, all: bool = True, success: bool = True, failure: bool = False
    ) -> tuple[m.Dependency, list[tuple[m.TaskId, bool, int]]]:
        """A dependency on AsyncResults, futures or ids; and of its tasks that have ended (id, whether well, where).

        Raises UnknownTask, or UserError for what no task can wait for.
        """
        with Held(), self._lock:
            return self._bindings.dependency(named, all=all, success=success, failure=failure)

    def cancel(self, pendings: Iterable[Pending], *, running: bool = False) -> None:
        """Withdraw tasks and calls wherever they have not started; these parts end with TaskCancelled.

        running: interrupt those that have; these end with TaskInterrupted.
        """
        with Held(), self._lock:
            ids = {pending.id for pending in pendings if not pending.done}
            withdrawn = self._outbox.withdraw(ids)
            sent = sorted(ids - {pending.id for pending in withdrawn})
            for start in range(0, len(sent), TASKS_PER_MESSAGE_MAX):
                self._link.send(m.Cancel(sent[start : start + TASKS_PER_MESSAGE_MAX], running))
            for pending in withdrawn:
                self._inbox.lose(pending, m.CANCELLED, m.NO_RANK, "cancelled before it was sent")
            self._after_send()
        self._tell()
        self._pump.kick()

    def find(self, request: m.TaskId) -> Pending:
        """A request that is open, or has ended and is still held. Raises UnknownTask or ResultDropped."""
        with Held(), self._lock:
            return self._table.get(request)

    def history(self) -> list[m.TaskId]:
        """The last requests of this session, oldest first: at most CALLS_RECALLED_MAX."""
        with Held(), self._lock:
            return self._table.history()

    def records(self) -> list[Record]:
        """What is known of these."""
        with Held(), self._lock:
            return self._table.records()

    def forget_requests(self, requests: Iterable[m.TaskId] | None = None) -> None:
        """List these requests no longer, or none there have been; hold no answers that came to a session joined."""
        with Held(), self._lock:
            self._table.forget(requests if requests is None else list(requests))

    # --- sending ------------------------------------------------------------------------------------------------------

    def _submit(
        self,
        pending: Pending,
        request: tuple[Any, ...],
        blobs: dict[bytes, Any],
        frames: Sequence[Frame],
        *,
        wake: bool,
    ) -> Pending:
        with Held(), self._lock:
            self._check_open()
            if self._outbox.ready:
                self._outbox.flush()
            self._supplies.provide(pending, blobs)
            self._requests[pending.id] = pending
            self._link.send(m.Call(pending.id, *request), frames)
            if wake:
                self._after_send()
        if wake:
            self._pump.want()
        return pending

    def _flush(self) -> None:
        """Send what waits. If another thread is using the link, it will."""
        with Held():
            if not self._lock.acquire(blocking=False):
                self._pump.kick()
                return
            try:
                self._outbox.flush()
                self._after_send()
            finally:
                self._lock.release()

    def _at_hand(self, packed: PackedCall) -> PackedCall:
        with Held(), self._lock:
            return self._bindings.at_hand(packed)


def _wire(targets: tuple[int, ...]) -> m.Ranks:
    if len(targets) == 1:
        return targets[0] >> 3, _ONE_BIT[targets[0] & 7]
    return bitset.to_wire(bitset.of_ranks(targets))
