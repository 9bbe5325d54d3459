"""A client's connection to the root: requests go out, outcomes come in.

The socket and all tables are used under `_lock`, but for what one step of the interpreter does: submitting a task takes
no lock, so that it never waits for whoever receives. Who receives is the pump's business. Callbacks of finished
requests run outside the lock, in the receiving thread.

Tasks submitted close together leave as one batch: the first goes at once, those that follow within FLUSH_PERIOD_S are
sent by whoever receives. At most `tasks_in_flight_max` are at the root; the rest waits here.
"""

from __future__ import annotations

import atexit
import itertools
import os
import socket
import threading
import uuid
import weakref
from collections import deque
from collections.abc import Callable, Iterable, Sequence
from typing import Any

import msgspec

from hiersched import errors
from hiersched.client.pending import Pending, loss_error
from hiersched.client.pump import Pump, deadline_of, left_of
from hiersched.client.supplies import Supplies
from hiersched.client.task_outbox import TaskOutbox
from hiersched.core.metrics import Level
from hiersched.core.topology import TreePlan
from hiersched.data.cells import Cell
from hiersched.data.outcomes import lost_outcome, unpack_outcome
from hiersched.data.serialize import PackedCall, Packer
from hiersched.errors import ClusterLost, ConnectionFileError, HierschedError
from hiersched.kernels import bitset
from hiersched.limits import CONNECT_TIMEOUT_S, TASKS_PER_MESSAGE_MAX
from hiersched.protocol import messages as m
from hiersched.protocol.framing import Frame, inline, whole
from hiersched.runtime.connection import Connection, is_local
from hiersched.runtime.zmq_link import Uplink, context

_ONE_BIT = [bytes([1 << bit]) for bit in range(8)]
_open_sessions: weakref.WeakSet[Session] = weakref.WeakSet()


class Session:
    """One client's link.

    packer: packs the calls of this client. by_value: whether views ship functions with the globals they use. plan: the
    tree as the root planned it.
    """

    plan: TreePlan
    by_value = False

    def __init__(self, connection: Connection, *, timeout_s: float = CONNECT_TIMEOUT_S) -> None:
        address = connection.address if is_local(connection) else connection.tcp_address
        if address is None:
            raise ConnectionFileError(
                f"the cluster runs on {connection.host} and listens to that host only; start it with an ip to reach it"
            )
        self.packer = Packer()
        self.cluster = connection.cluster
        self._connection = connection
        self._context = context()
        self._uuid = uuid.uuid4().hex
        self._link = Uplink(self._context, address, self._uuid.encode(), connection.curve)
        self._lock = threading.Lock()
        self._pump = Pump(
            self._link.fileno(),
            look=self._look,
            outstanding=lambda: bool(self._requests),
            closed=lambda: self._ended is not None,
        )
        self._supplies = Supplies(self._link)
        self._welcome: m.Welcome | None = None
        self._members = 0
        self._ids: list[int] | None = None
        self._failed_starts: dict[int, str] = {}
        self._forgotten = 0
        self._requests: dict[int, Pending] = {}
        self._finished: deque[Pending] = deque()
        self._outbox = TaskOutbox(self._link, self._supplies)
        self._numbers = itertools.count(1)
        self._censuses: dict[int, list[Level]] = {}
        self._ended: HierschedError | None = None
        self._root = -1
        try:
            self._enter(timeout_s)
        except BaseException:
            self._release()
            raise
        self._pump.start()
        _open_sessions.add(self)

    def __repr__(self) -> str:
        state = "closed" if self._ended else f"{len(self._requests)} requests open"
        return f"<Session of cluster {self.cluster!r}: {state}>"

    # --- who is there -------------------------------------------------------------------------------------------------

    def engine_ids(self) -> list[int]:
        """Ranks of the engines that are there now, ascending."""
        self._pump.glance()
        if self._ids is None:
            self._ids = bitset.ranks_of(self._members)
        return self._ids

    def dispatch_width(self) -> int:
        """How many engines are there now."""
        return self._members.bit_count()

    def failed_starts(self) -> dict[int, str]:
        """Engines that were to start and did not: {rank: reason}."""
        return dict(self._failed_starts)

    def wait_for(self, condition: Callable[[], bool], timeout_s: float | None) -> bool:
        """Receive until `condition()` holds; False if it does not in time. Raises what ended the session."""
        self._check_open()
        held = self._pump.wait(lambda: condition() or self._ended is not None, timeout_s)
        if not condition():
            self._check_open()
        return held

    # --- requests -----------------------------------------------------------------------------------------------------

    def call(self, targets: tuple[int, ...], packed: PackedCall, *, wake: bool = True) -> Pending:
        """The same call on every target. wake: False if the caller is about to wait for it."""
        needs = [digest for digest in packed.blobs if digest != packed.function] if len(packed.blobs) > 1 else []
        request = (_wire(targets), m.CALL_LANE, packed.function, needs, ())
        return self._submit(targets, request, packed.blobs, packed.frames, wake=wake)

    def call_each(self, targets: tuple[int, ...], packed: Sequence[PackedCall], *, wake: bool = True) -> Pending:
        """The same function with own arguments on each target; packed: (targets,)."""
        shares = [share for _, share in sorted(zip(targets, packed, strict=True), key=lambda pair: pair[0])]
        function = packed[0].function
        parts = [
            m.Part(len(share.frames), [digest for digest in share.blobs if digest != function]) for share in shares
        ]
        blobs = {digest: data for share in shares for digest, data in share.blobs.items()}
        frames = [frame for share in shares for frame in share.frames]
        request = (_wire(targets), m.CALL_LANE, function, (), parts)
        return self._submit(targets, request, blobs, frames, wake=wake)

    def execute(self, targets: tuple[int, ...], code: str, *, silent: bool = True, wake: bool = True) -> Pending:
        """A cell on every target, in IPython."""
        request = (_wire(targets), m.CELL_LANE, m.NO_FUNCTION, (), ())
        return self._submit(targets, request, {}, [msgspec.msgpack.encode(Cell(code, silent))], wake=wake)

    def task(self, packed: PackedCall) -> Pending:
        """One load-balanced task; the tree picks the engine."""
        self._check_open()
        function, blobs = packed.function, packed.blobs
        payload, rest = inline(packed.frames)
        pending = Pending(self._new_id(), (), ())
        needs: list[m.Digest] = []
        if len(blobs) > 1:  # what may be large is taken over now, so that many tasks share one copy of it
            needs = [digest for digest in blobs if digest != function]
            with self._lock:
                self._supplies.provide(pending, blobs)
            blobs = {}
        self._requests[pending.id] = pending
        self._outbox.put(pending, m.Task(pending.id, function, needs, payload, len(rest)), rest, blobs)
        if self._outbox.due and self._lock.acquire(blocking=False):
            try:
                self._outbox.flush()
                self._after_send()
            finally:
                self._lock.release()
        else:
            self._pump.kick()
        self._pump.want()
        if self._ended is not None:  # meanwhile, and perhaps without this one
            self._end(self._ended)
        return pending

    def cancel(self, pendings: Iterable[Pending]) -> None:
        """Withdraw tasks that have not started; they end with TaskCancelled. Those that run go on."""
        with self._lock:
            ids = {pending.id for pending in pendings if not pending.done}
            withdrawn = self._outbox.waiting_among(ids)
            sent = sorted(ids - {pending.id for pending in withdrawn})
            for start in range(0, len(sent), TASKS_PER_MESSAGE_MAX):
                self._link.send(m.Cancel(sent[start : start + TASKS_PER_MESSAGE_MAX]))
            for pending in withdrawn:
                self._lose(pending, m.CANCELLED, 0, "cancelled before it was sent")
            self._after_send()
        self._finish_pending()
        self._pump.kick()

    def wait(self, pendings: Iterable[Pending], timeout_s: float | None = None) -> bool:
        """Wait until all are done; False if they are not in time."""
        waiting = [pending for pending in pendings if not pending.done]
        return self._wait(waiting, len(waiting), lambda: _none_left(waiting), timeout_s)

    def wait_any(self, pendings: Iterable[Pending], timeout_s: float | None = None) -> bool:
        """Wait until at least one is done; False if none is in time."""
        waiting = list(pendings)
        if any(pending.done for pending in waiting):
            return True
        return self._wait(waiting, 1, lambda: any(pending.done for pending in waiting), timeout_s)

    def wait_all(self, timeout_s: float | None = None) -> bool:
        """Wait until nothing is outstanding; False if something still is in the end."""
        with self._lock:
            waiting = list(self._requests.values())
        return self.wait(waiting, timeout_s)

    def survey(self, timeout_s: float = CONNECT_TIMEOUT_S) -> list[Level]:
        """The counters of all schedulers, merged by level."""
        with self._lock:
            self._check_open()
            request = self._new_id()
            self._link.send(m.Survey(request))
            self._after_send()
        if not self.wait_for(lambda: request in self._censuses, timeout_s):
            raise TimeoutError(f"the schedulers did not answer within {timeout_s} s")
        return self._censuses.pop(request)

    def stop_cluster(self, reason: str = "a client asked for it") -> None:
        """End the whole cluster; returns when the root has said that it ends. Raises TimeoutError if it does not."""
        with self._lock:
            self._check_open()
            self._link.send(m.Stop(reason))
            self._after_send()
        if not self._pump.wait(lambda: self._ended is not None, CONNECT_TIMEOUT_S):
            raise TimeoutError(f"the root of cluster {self.cluster!r} did not answer within {CONNECT_TIMEOUT_S} s")

    def close(self) -> None:
        """Leave the cluster. What is outstanding ends with ClusterLost."""
        with self._lock:
            if self._link.socket.closed:
                return
            if self._ended is None:
                self._link.send(m.Bye("the client closed its session"))
        self._end(ClusterLost("the session was closed"))
        self._pump.stop()
        self._release()

    # --- sending; under the lock --------------------------------------------------------------------------------------

    def _submit(
        self,
        targets: tuple[int, ...],
        request: tuple[Any, ...],
        blobs: dict[bytes, Any],
        frames: Sequence[Frame],
        *,
        wake: bool,
    ) -> Pending:
        with self._lock:
            self._check_open()
            if self._outbox.ready:
                self._outbox.flush()
            pending = Pending(self._new_id(), targets, ())
            self._supplies.provide(pending, blobs)
            self._requests[pending.id] = pending
            self._link.send(m.Call(pending.id, *request), frames)
            if wake:
                self._after_send()
        if wake:
            self._pump.want()
        return pending

    def _new_id(self) -> int:
        return self._session << m.SESSION_SHIFT | next(self._numbers)

    def _after_send(self) -> None:
        """Sending may have eaten the edge that announces new messages to whoever receives."""
        if self._link.readable():
            self._pump.kick()

    def _check_open(self) -> None:
        if self._ended is not None:
            raise self._ended

    # --- receiving ----------------------------------------------------------------------------------------------------

    def _wait(self, waiting: list[Pending], count: int, condition: Callable[[], bool], timeout_s: float | None) -> bool:
        """Until `count` of those waited for are done, which is when `condition()` holds."""
        if not waiting:
            return True
        received = self._pump.receive(condition, timeout_s)
        if received is not None:
            return received or condition()
        gate = threading.Semaphore(0)
        for pending in list(waiting):
            pending.add_done_callback(lambda _: gate.release())
        self._pump.want()
        self._pump.kick()  # what the caller sent may have eaten the edge that whoever receives sleeps on
        deadline = deadline_of(timeout_s)
        return all(gate.acquire(timeout=left_of(deadline)) for _ in range(count))

    def _look(self) -> None:
        """Take in everything that waits on the socket, send what waits here, settle what is complete."""
        with self._lock:
            while self._ended is None:
                try:
                    received = self._link.receive_nowait()
                except (errors.ProtocolError, errors.VersionMismatch) as error:
                    self._settle_all(error)
                    break
                if received is not None:
                    handler = self._handlers.get(type(received[1]))
                    if handler is not None:
                        handler(self, received[1], received[2])
                elif self._outbox.ready:
                    self._outbox.flush()
                else:
                    break
        self._finish_pending()

    def _finish_pending(self) -> None:
        """Tell who waits for what has become complete. Who is told may wait for another of them, and so come here."""
        while self._finished:
            try:
                pending = self._finished.popleft()
            except IndexError:  # another thread is telling
                return
            pending.finish()

    def _on_reply(self, reply: m.Reply, frames: Sequence[Frame]) -> None:
        pending = self._requests.get(reply.request)
        if pending is None:
            return
        pending.take(reply, frames)
        for loss in reply.losses:
            if loss.code in (m.ENGINE_LOST, m.ENGINE_UNKNOWN):
                self._forget(bitset.from_wire(loss.ranks))
        if pending.complete:
            self._complete(pending)

    def _on_results(self, batch: m.Results, frames: Sequence[Frame]) -> None:
        start = 0
        for result in batch.results:
            end = start + result.frames
            pending = self._requests.get(result.id)
            if pending is not None:
                self._outbox.in_flight -= 1
                if result.code:
                    self._lose(pending, result.code, result.rank, result.payload.decode(errors="replace"))
                else:
                    pending.settle(result.rank, unpack_outcome(whole(result.payload, frames[start:end])))
                    self._complete(pending)
            start = end

    def _lose(self, pending: Pending, code: int, rank: int, text: str) -> None:
        if code == m.ENGINE_LOST:
            self._forget(1 << rank)
        pending.cancelled = code == m.CANCELLED
        pending.settle(rank, lost_outcome(loss_error(code, rank, text)))
        self._complete(pending)

    def _complete(self, pending: Pending) -> None:
        del self._requests[pending.id]
        self._supplies.release(pending)
        self._finished.append(pending)

    def _on_members(self, news: m.Members, frames: Sequence[Frame]) -> None:
        joined, left = bitset.from_wire(news.joined), bitset.from_wire(news.left)
        for rank in bitset.ranks_of(left & ~self._members & ~self._forgotten):
            self._failed_starts[rank] = news.reason
        self._forgotten &= ~left
        self._members = (self._members & ~left) | joined
        self._ids = None

    def _forget(self, ranks: int) -> None:
        """An answer tells that these engines are gone. The news of it may come later; who reads this one knows now."""
        self._forgotten |= self._members & ranks
        self._members &= ~ranks
        self._ids = None

    def _on_want(self, want: m.Want, frames: Sequence[Frame]) -> None:
        self._supplies.on_want(want)

    def _on_welcome(self, welcome: m.Welcome, frames: Sequence[Frame]) -> None:
        self._session = welcome.session
        self._outbox.in_flight_max = welcome.facts["tasks_in_flight_max"]
        self.plan = msgspec.convert(welcome.facts["plan"], TreePlan)
        self._members |= bitset.from_wire(welcome.members)
        self._ids = None
        self._welcome = welcome

    def _on_refused(self, refused: m.Refused, frames: Sequence[Frame]) -> None:
        kind = getattr(errors, refused.code, errors.PeerError)
        self._settle_all(kind(refused.text))

    def _on_bye(self, bye: m.Bye, frames: Sequence[Frame]) -> None:
        self._settle_all(ClusterLost(f"cluster {self.cluster!r} has stopped: {bye.reason}"))

    def _on_census(self, census: m.Census, frames: Sequence[Frame]) -> None:
        self._censuses[census.request] = census.levels

    _handlers: dict[type, Callable[[Session, Any, Sequence[Frame]], None]] = {  # noqa: RUF012
        m.Reply: _on_reply,
        m.Results: _on_results,
        m.Members: _on_members,
        m.Want: _on_want,
        m.Welcome: _on_welcome,
        m.Refused: _on_refused,
        m.Bye: _on_bye,
        m.Census: _on_census,
    }

    # --- beginning and end --------------------------------------------------------------------------------------------

    def _enter(self, timeout_s: float) -> None:
        """Say hello and wait to be let in."""
        found = self._connection
        if is_local(found):
            self._watch_root(found.pid)
        host = socket.gethostname()
        self._link.send(m.Hello(found.cluster, found.key, "client", self._uuid, os.getpid(), host, 0, 0))
        self._pump.receive(lambda: self._welcome is not None, timeout_s)
        self._check_open()
        if self._welcome is None:
            raise ConnectionFileError(
                f"the root of cluster {found.cluster!r} did not answer within {timeout_s} s: "
                "is the connection file stale, or its key wrong?"
            )

    def _watch_root(self, pid: int) -> None:
        """Learn at once when the root's process ends."""
        try:
            self._root = os.pidfd_open(pid)
        except ProcessLookupError:
            raise ConnectionFileError(f"the root's process {pid} is gone: the connection file is stale") from None
        lost = ClusterLost(f"the root of cluster {self.cluster!r} ended; calls in flight may have run")
        self._pump.watch(self._root, lambda: self._end(lost))

    def _end(self, error: HierschedError) -> None:
        """Nothing more will come: every open request ends with `error`."""
        with self._lock:
            self._settle_all(error)
        self._finish_pending()

    def _settle_all(self, error: HierschedError) -> None:
        if self._ended is None:
            self._ended = error
        self._outbox.clear()
        for pending in list(self._requests.values()):
            for rank in pending.missing():
                pending.settle(rank, lost_outcome(self._ended))
            self._complete(pending)

    def _release(self) -> None:
        _open_sessions.discard(self)
        self._link.socket.linger = 200  # the last words may still be on their way
        self._link.close()
        self._context.term()
        self._pump.close()
        if self._root >= 0:
            os.close(self._root)


def _wire(targets: tuple[int, ...]) -> m.Ranks:
    if len(targets) == 1:
        return targets[0] >> 3, _ONE_BIT[targets[0] & 7]
    return bitset.to_wire(bitset.of_ranks(targets))


def _none_left(waiting: list[Pending]) -> bool:
    """All are done; those that are leave the list's end, so that a long list is not scanned anew each time."""
    while waiting and waiting[-1].done:
        waiting.pop()
    return not waiting


@atexit.register
def _close_sessions() -> None:
    for session in list(_open_sessions):
        session.close()


os.register_at_fork(after_in_child=_open_sessions.clear)  # they are the parent's to close
