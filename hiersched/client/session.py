"""A client's connection to the root: submits requests, receives outcomes.

Whoever waits, works: a thread that waits for a result receives messages itself, with no hand-over between threads on
the way of a call. When nobody waits but something is outstanding, a background thread does the same. Only one thread
receives at a time (it holds `_pumping`); the socket itself is used under `_socket_lock`, so others may send meanwhile.

Tasks submitted close together leave as one batch: the first goes at once, those that follow within FLUSH_PERIOD_S are
sent by whoever receives. At most `tasks_in_flight_max` are at the root; the rest waits here.
"""

from __future__ import annotations

import atexit
import os
import select
import socket
import threading
import time
import uuid
import weakref
from collections import OrderedDict, deque
from collections.abc import Callable, Iterable, Sequence
from typing import Any

import msgspec

from hiersched import errors
from hiersched.client.pending import Pending, loss_error
from hiersched.core.blobs import BlobStore
from hiersched.core.topology import TreePlan
from hiersched.data.cells import Cell
from hiersched.data.outcomes import lost_outcome, unpack_outcome
from hiersched.data.serialize import PackedCall, Packer
from hiersched.errors import ClusterLost, ConnectionFileError, HierschedError
from hiersched.kernels import bitset
from hiersched.limits import BLOBS_HELD_MAX, CONNECT_TIMEOUT_S, TASKS_PER_MESSAGE_MAX
from hiersched.protocol import messages as m
from hiersched.protocol.framing import Frame, split_frames
from hiersched.runtime.connection import Connection, is_local
from hiersched.runtime.zmq_link import Uplink, context

FLUSH_PERIOD_S = 0.001
_open_sessions: weakref.WeakSet[Session] = weakref.WeakSet()


class Session:
    """One client's link. packer: packs the calls of this client; plan: the tree as the root planned it."""

    def __init__(self, connection: Connection, *, timeout_s: float = CONNECT_TIMEOUT_S) -> None:
        self.packer = Packer()
        self.plan: TreePlan
        self.cluster = connection.cluster
        self._connection = connection
        self._context = context()
        address = connection.address if is_local(connection) else connection.tcp_address
        if address is None:
            raise ConnectionFileError(
                f"the cluster runs on {connection.host} and listens to that host only; start it with an ip to reach it"
            )
        self._uuid = uuid.uuid4().hex
        self._link = Uplink(self._context, address, self._uuid.encode(), connection.curve)
        self._socket_lock = threading.Lock()
        self._pumping = threading.Lock()
        self._wanted = threading.Event()  # the background thread has something to do
        self._kick = os.eventfd(0, os.EFD_NONBLOCK | os.EFD_CLOEXEC)
        self._poll = select.poll()
        self._poll.register(self._link.fileno(), select.POLLIN)
        self._poll.register(self._kick, select.POLLIN)
        self._root = self._watch_root()
        self._members = 0
        self._ids: list[int] | None = None
        self._failed_starts: dict[int, str] = {}
        self._requests: dict[int, Pending] = {}
        self._outbox: deque[tuple[Pending, m.Task, Sequence[Frame]]] = deque()
        self._in_flight = 0
        self._flushed_s = 0.0
        self._next = 0
        self._blobs = BlobStore()
        self._pinned: dict[bytes, list[Any]] = {}
        self._held: OrderedDict[bytes, None] = OrderedDict()
        self._ended: HierschedError | None = None
        self._censuses: dict[int, Any] = {}
        self._welcome: m.Welcome | None = None
        self._finished: list[Pending] = []
        try:
            self._enter(timeout_s)
        except BaseException:
            self._release()
            raise
        self._thread = threading.Thread(target=self._background, name="hiersched-client", daemon=True)
        self._thread.start()
        _open_sessions.add(self)

    def __repr__(self) -> str:
        state = "closed" if self._ended else f"{len(self._requests)} requests open"
        return f"<Session of cluster {self.cluster!r}: {state}>"

    # --- who is there -------------------------------------------------------------------------------------------------

    def engine_ids(self) -> list[int]:
        """Ranks of the engines that are there now, ascending."""
        if self._pumping.acquire(blocking=False):
            try:
                self._look()
            finally:
                self._pumping.release()
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
        """Receive until `condition()` holds; False if it does not in time. Raises ClusterLost."""
        deadline = None if timeout_s is None else time.monotonic() + timeout_s
        while not condition():
            self._check_open()
            left = _left(deadline)
            if left is not None and left <= 0:
                return False
            if self._pumping.acquire(timeout=0.05 if left is None else min(left, 0.05)):
                try:
                    self._pump(condition, deadline)
                finally:
                    self._pumping.release()
        return True

    # --- requests -----------------------------------------------------------------------------------------------------

    def call(self, targets: tuple[int, ...], packed: PackedCall, *, wake: bool = True) -> Pending:
        """The same call on every target. wake: False if the caller is about to wait for it."""
        needs = [digest for digest in packed.blobs if digest != packed.function]
        return self._call(targets, [packed], m.CALL_LANE, needs, packed.frames, wake=wake)

    def call_each(self, targets: tuple[int, ...], packed: Sequence[PackedCall], *, wake: bool = True) -> Pending:
        """The same function with own arguments on each target; packed: (targets,)."""
        shares = sorted(zip(targets, packed, strict=True), key=lambda share: share[0])
        parts = [
            m.Part(len(share.frames), [digest for digest in share.blobs if digest != share.function])
            for _, share in shares
        ]
        frames = [frame for _, share in shares for frame in share.frames]
        return self._call(targets, packed, m.CALL_LANE, [], frames, parts=parts, wake=wake)

    def execute(self, targets: tuple[int, ...], code: str, *, silent: bool = True, wake: bool = True) -> Pending:
        """A cell on every target, in IPython."""
        packed = PackedCall(m.NO_FUNCTION, {}, [msgspec.msgpack.encode(Cell(code, silent))])
        return self._call(targets, [packed], m.CELL_LANE, [], packed.frames, wake=wake)

    def task(self, packed: PackedCall) -> Pending:
        """One load-balanced task; the tree picks the engine."""
        self._check_open()
        frames = packed.frames
        with self._socket_lock:
            pending = Pending(self._new_id(), (), tuple(packed.blobs))
            self._requests[pending.id] = pending
            self._supply([packed])
            needs = [digest for digest in packed.blobs if digest != packed.function] if len(packed.blobs) > 1 else []
            task = m.Task(pending.id, packed.function, needs, bytes(frames[0]), len(frames) - 1)
            self._outbox.append((pending, task, frames[1:]))
            now = time.monotonic()
            if now - self._flushed_s >= FLUSH_PERIOD_S:
                self._flush(now)
                if self._link.readable():
                    self._kick_pump()
            elif len(self._outbox) == 1:
                self._kick_pump()
        self._wake_background()
        return pending

    def cancel(self, pendings: Iterable[Pending]) -> None:
        """Withdraw tasks that have not started; they end with TaskCancelled. Those that run go on."""
        with self._socket_lock:
            ids = {pending.id for pending in pendings if not pending.done}
            kept = deque(entry for entry in self._outbox if entry[0].id not in ids)
            withdrawn = [entry[0] for entry in self._outbox if entry[0].id in ids]
            self._outbox = kept
            sent = sorted(ids - {pending.id for pending in withdrawn})
            for start in range(0, len(sent), TASKS_PER_MESSAGE_MAX):
                self._link.send(m.Cancel(sent[start : start + TASKS_PER_MESSAGE_MAX]))
            for pending in withdrawn:
                self._lose(pending, m.CANCELLED, 0, "cancelled before it was sent")
            finished = self._take_finished()
        _finish(finished)
        self._kick_pump()

    def wait(self, pendings: Iterable[Pending], timeout_s: float | None = None) -> bool:
        """Wait until all are done; False if they are not in time."""
        waiting = [pending for pending in pendings if not pending.done]
        return self._wait(waiting, len(waiting), lambda: _none_left(waiting), timeout_s)

    def wait_any(self, pendings: Iterable[Pending], timeout_s: float | None = None) -> bool:
        """Wait until one more is done, if any is not; False if none is in time."""
        waiting = list(pendings)
        return self._wait(waiting, 1, lambda: any(pending.done for pending in waiting), timeout_s)

    def wait_all(self, timeout_s: float | None = None) -> bool:
        """Wait until nothing is outstanding; False if something still is in the end."""
        return self.wait(list(self._requests.values()), timeout_s)

    def survey(self, timeout_s: float = CONNECT_TIMEOUT_S) -> list[Any]:
        """The counters of all schedulers, merged by level."""
        self._check_open()
        with self._socket_lock:
            request = self._new_id()
            self._link.send(m.Survey(request))
        if not self.wait_for(lambda: request in self._censuses, timeout_s):
            raise TimeoutError(f"the schedulers did not answer within {timeout_s} s")
        return self._censuses.pop(request)  # type: ignore[no-any-return]

    def stop_cluster(self, reason: str = "a client asked for it") -> None:
        """End the whole cluster."""
        with self._socket_lock:
            self._link.send(m.Stop(reason))

    def close(self) -> None:
        """Leave the cluster. What is outstanding ends with ClusterLost."""
        if self._ended is not None and self._link.socket.closed:
            return
        if self._ended is None:
            with self._socket_lock:
                self._link.send(m.Bye("the client closed its session"))
            self._fail_all(ClusterLost("the session was closed"))
        self._wanted.set()
        os.eventfd_write(self._kick, 1)
        if threading.current_thread() is not self._thread:
            self._thread.join()
        self._release()

    # --- sending ------------------------------------------------------------------------------------------------------

    def _call(
        self,
        targets: tuple[int, ...],
        packed: Sequence[PackedCall],
        lane: int,
        needs: list[bytes],
        frames: Sequence[Frame],
        *,
        parts: Sequence[m.Part] = (),
        wake: bool,
    ) -> Pending:
        self._check_open()
        digests = packed[0].blobs if len(packed) == 1 else {digest: None for share in packed for digest in share.blobs}
        with self._socket_lock:
            if self._outbox:
                self._flush(time.monotonic())
            pending = Pending(self._new_id(), targets, tuple(digests))
            self._requests[pending.id] = pending
            self._supply(packed)
            bits = 1 << targets[0] if len(targets) == 1 else bitset.of_ranks(targets)
            function = packed[0].function
            self._link.send(m.Call(pending.id, bitset.to_wire(bits), lane, function, needs, list(parts)), frames)
            if wake and self._link.readable():
                self._kick_pump()
        if wake:
            self._wake_background()
        return pending

    def _supply(self, packed: Sequence[PackedCall]) -> None:
        """Pin what the request needs until it is done, and send the root what it does not hold."""
        for share in packed:
            for digest, data in share.blobs.items():
                pin = self._pinned.get(digest)
                if pin is not None:
                    pin[1] += 1
                else:
                    blob = self._blobs.get(digest)
                    if blob is None:
                        blob = bytes(data)  # the caller may change it while it is on the way
                        self._blobs.put(digest, blob)
                    self._pinned[digest] = [blob, 1]
                if digest not in self._held:
                    self._held[digest] = None
                    if len(self._held) > BLOBS_HELD_MAX:
                        self._held.popitem(last=False)
                    self._link.send(m.Blob(digest), (self._pinned[digest][0],))

    def _unpin(self, pending: Pending) -> None:
        for digest in pending.digests:
            pin = self._pinned[digest]
            pin[1] -= 1
            if not pin[1]:
                del self._pinned[digest]

    def _flush(self, now: float) -> None:
        """Send waiting tasks, as many as the root takes."""
        self._flushed_s = now
        room = self._tasks_in_flight_max - self._in_flight
        while self._outbox and room > 0:
            count = min(len(self._outbox), room, TASKS_PER_MESSAGE_MAX)
            entries = [self._outbox.popleft() for _ in range(count)]
            frames = [frame for entry in entries for frame in entry[2]]
            self._link.send(m.Tasks([entry[1] for entry in entries]), frames)
            self._in_flight += count
            room -= count

    def _new_id(self) -> int:
        self._next += 1
        return self._session << m.SESSION_SHIFT | self._next

    def _kick_pump(self) -> None:
        """Make whoever receives look at the socket and the outbox."""
        os.eventfd_write(self._kick, 1)

    def _wake_background(self) -> None:
        if not self._wanted.is_set():
            self._wanted.set()

    # --- receiving ----------------------------------------------------------------------------------------------------

    def _wait(
        self, waiting: list[Pending], count: int, condition: Callable[[], bool], timeout_s: float | None
    ) -> bool:
        """Until `count` of those waited for are done, which is when `condition()` holds."""
        if not waiting or condition():
            return True
        deadline = None if timeout_s is None else time.monotonic() + timeout_s
        if self._pumping.acquire(blocking=False):
            try:
                done = self._pump(condition, deadline)
            finally:
                self._pumping.release()
                if self._requests:
                    self._wake_background()
            return done
        self._wake_background()
        gate = threading.Semaphore(0)
        for pending in waiting:
            pending.add_done_callback(lambda _: gate.release())
        return all(gate.acquire(timeout=_left(deadline)) for _ in range(count))

    def _pump(self, condition: Callable[[], bool], deadline: float | None) -> bool:
        """Receive until `condition()`; the caller holds `_pumping`. False if it does not hold in time."""
        while True:
            self._look()
            if condition():
                return True
            if self._ended is not None:
                return bool(condition())
            left = _left(deadline)
            if left is not None and left <= 0:
                return False
            for descriptor, _ in self._poll.poll(None if left is None else left * 1000):
                self._on_descriptor(descriptor)

    def _on_descriptor(self, descriptor: int) -> None:
        if descriptor == self._kick:
            try:
                os.eventfd_read(self._kick)
            except BlockingIOError:
                return  # another thread has read it
        elif descriptor == self._root:
            self._look()
            self._fail_all(ClusterLost(f"the root of cluster {self.cluster!r} ended; calls in flight may have run"))

    def _look(self) -> None:
        """Take in everything that waits on the socket, and settle what it completes; the caller holds `_pumping`."""
        if self._ended is not None:
            return
        with self._socket_lock:
            while True:
                try:
                    received = self._link.receive_nowait()
                except (errors.ProtocolError, errors.VersionMismatch) as error:
                    self._ended = error
                    break
                if received is None:
                    break
                self._on_message(received[1], received[2])
            if self._outbox:
                self._flush(time.monotonic())
                if self._link.readable():
                    self._kick_pump()
            finished = self._take_finished()
        _finish(finished)

    def _background(self) -> None:
        """Receive while something is outstanding and nobody else does."""
        while True:
            self._wanted.wait()
            self._wanted.clear()
            if self._ended is not None:
                return
            with self._pumping:
                self._pump(lambda: not self._requests, None)

    def _on_message(self, message: m.Message, frames: Sequence[Frame]) -> None:
        handler = self._HANDLERS.get(type(message))
        if handler is not None:
            handler(self, message, frames)

    def _on_reply(self, reply: m.Reply, frames: Sequence[Frame]) -> None:
        pending = self._requests.get(reply.request)
        if pending is None:
            return
        last = False
        for chunk, piece in zip(reply.chunks, split_frames([c.frames for c in reply.chunks], frames), strict=True):
            if not chunk.sizes:
                rank = bitset.first_of(bitset.from_wire(chunk.ranks))
                last = pending.settle(rank, unpack_outcome(piece)) or last
                continue
            body = memoryview(piece[0])
            start = 0
            for rank, size in zip(bitset.ranks_of(bitset.from_wire(chunk.ranks)), chunk.sizes, strict=True):
                last = pending.settle(rank, unpack_outcome([body[start : start + size]])) or last
                start += size
        for loss in reply.losses:
            for rank in bitset.ranks_of(bitset.from_wire(loss.ranks)):
                last = pending.settle(rank, lost_outcome(loss_error(loss.code, rank, loss.text))) or last
        if last:
            self._complete(pending)

    def _on_results(self, batch: m.Results, frames: Sequence[Frame]) -> None:
        start = 0
        for result in batch.results:
            end = start + result.frames
            pending = self._requests.get(result.id)
            if pending is not None:
                self._in_flight -= 1
                if result.code:
                    self._lose(pending, result.code, result.rank, result.payload.decode())
                else:
                    pending.settle(result.rank, unpack_outcome([result.payload, *frames[start:end]]))
                    self._complete(pending)
            start = end

    def _lose(self, pending: Pending, code: int, rank: int, text: str) -> None:
        pending.cancelled = code == m.CANCELLED
        pending.settle(rank, lost_outcome(loss_error(code, rank, text)))
        self._complete(pending)

    def _complete(self, pending: Pending) -> None:
        del self._requests[pending.id]
        self._unpin(pending)
        self._finished.append(pending)

    def _take_finished(self) -> list[Pending]:
        finished, self._finished = self._finished, []
        return finished

    def _on_members(self, news: m.Members, frames: Sequence[Frame]) -> None:
        joined, left = bitset.from_wire(news.joined), bitset.from_wire(news.left)
        for rank in bitset.ranks_of(left & ~self._members):
            self._failed_starts[rank] = news.reason
        self._members = (self._members | joined) & ~left
        self._ids = None

    def _on_want(self, want: m.Want, frames: Sequence[Frame]) -> None:
        missing = []
        for digest in want.digests:
            pin = self._pinned.get(digest)
            blob = pin[0] if pin is not None else self._blobs.get(digest)
            if blob is None:
                missing.append(digest)
            else:
                self._link.send(m.Blob(digest), (blob,))
        if missing:
            self._link.send(m.Missing(missing))

    def _on_welcome(self, welcome: m.Welcome, frames: Sequence[Frame]) -> None:
        self._session = welcome.session
        self._tasks_in_flight_max: int = welcome.facts["tasks_in_flight_max"]
        self.plan = msgspec.convert(welcome.facts["plan"], TreePlan)
        self._members |= bitset.from_wire(welcome.members)
        self._ids = None
        self._welcome = welcome

    def _on_refused(self, refused: m.Refused, frames: Sequence[Frame]) -> None:
        kind = getattr(errors, refused.code, errors.PeerError)
        self._ended = kind(refused.text)

    def _on_bye(self, bye: m.Bye, frames: Sequence[Frame]) -> None:
        self._ended = ClusterLost(f"cluster {self.cluster!r} has stopped: {bye.reason}")
        self._settle_all()

    def _on_census(self, census: m.Census, frames: Sequence[Frame]) -> None:
        self._censuses[census.request] = census.levels

    _HANDLERS: dict[type, Any] = {  # noqa: RUF012
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
        connection = self._connection
        hello = m.Hello(
            connection.cluster, connection.key, "client", self._uuid, os.getpid(), socket.gethostname(), 0, 0
        )
        self._link.send(hello)
        self._pump(lambda: self._welcome is not None, time.monotonic() + timeout_s)
        if self._ended is not None:
            raise self._ended
        if self._welcome is None:
            raise ConnectionFileError(
                f"the root of cluster {connection.cluster!r} did not answer within {timeout_s} s at "
                f"{connection.address}: is the connection file stale, or its key wrong?"
            )

    def _watch_root(self) -> int:
        """A descriptor that becomes readable when the root's process ends; -1 if it runs elsewhere."""
        if not is_local(self._connection):
            return -1
        try:
            root = os.pidfd_open(self._connection.pid)
        except ProcessLookupError:
            raise ConnectionFileError(f"the root's process {self._connection.pid} is gone: the file is stale") from None
        self._poll.register(root, select.POLLIN)
        return root

    def _check_open(self) -> None:
        if self._ended is not None:
            raise self._ended

    def _fail_all(self, error: HierschedError) -> None:
        with self._socket_lock:
            if self._ended is None:
                self._ended = error
            self._settle_all()
            finished = self._take_finished()
        _finish(finished)

    def _settle_all(self) -> None:
        """Nothing more will come: every open request ends with the session's error."""
        assert self._ended is not None
        self._outbox.clear()
        for pending in list(self._requests.values()):
            missing = pending.targets or (0,)
            for place, rank in enumerate(missing):
                if pending.outcomes[place] is None:
                    pending.settle(rank, lost_outcome(self._ended))
            self._complete(pending)

    def _release(self) -> None:
        _open_sessions.discard(self)
        if self._link.socket.closed:
            return
        self._link.socket.linger = 200
        self._link.socket.close()
        self._context.term()
        os.close(self._kick)
        if self._root >= 0:
            os.close(self._root)


def _left(deadline: float | None) -> float | None:
    return None if deadline is None else max(0.0, deadline - time.monotonic())


def _none_left(waiting: list[Pending]) -> bool:
    """All are done; those that are leave the list's end, so that a long list is not scanned anew each time."""
    while waiting and waiting[-1].done:
        waiting.pop()
    return not waiting


def _finish(finished: list[Pending]) -> None:
    for pending in finished:
        pending.finish()


@atexit.register
def _close_sessions() -> None:
    for session in list(_open_sessions):
        session.close()


