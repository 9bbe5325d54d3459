"""A client's connection to the root: how it begins and ends, who receives, and what is asked.

The socket and all tables are used under `_lock`, but for what one step of the interpreter does. Who receives is the
pump's business. Callbacks of finished requests run outside the lock, in the receiving thread. In the main thread a
Ctrl-C waits until both are done with.
"""

from __future__ import annotations

import atexit
import itertools
import os
import threading
import uuid
import weakref
from collections.abc import Callable, Iterable

import msgspec

from hiersched.client.bindings import Bindings
from hiersched.client.door import Door, RealDoor
from hiersched.client.inbox import Inbox
from hiersched.client.interrupts import Held
from hiersched.client.news import OnComm
from hiersched.client.orders import Explanation, Orders
from hiersched.client.pending import Listener, Pending
from hiersched.client.pump import Pump
from hiersched.client.requests import Requests
from hiersched.client.supplies import Supplies
from hiersched.client.task_outbox import TaskOutbox
from hiersched.client.waits import Waits
from hiersched.core.topology import TreePlan
from hiersched.data.outputs import Output
from hiersched.errors import ClusterLost, ConnectionFileError, HierschedError, ProtocolError, VersionMismatch
from hiersched.limits import CONNECT_TIMEOUT_S
from hiersched.protocol import messages as m
from hiersched.runtime.connection import Connection

_open_channels: weakref.WeakSet[Channel] = weakref.WeakSet()


class Channel:
    """One client's link.

    id: names the session. name: the id of one that is to be joined again; detached: it outlives its client, until it is
    forgotten. plan: the tree as the root planned it. wait, wait_any, wait_for_parts are those of Waits; order, grow,
    queues and survey those of Orders.
    """

    plan: TreePlan

    def __init__(
        self,
        connection: Connection,
        *,
        name: str | None = None,
        detached: bool = False,
        timeout_s: float = CONNECT_TIMEOUT_S,
        opens: Callable[..., Door] = RealDoor,
    ) -> None:
        self.id = name or uuid.uuid4().hex
        self.detached = detached or name is not None
        self.cluster = connection.cluster
        self._connection = connection
        self._door = opens(connection, self.id, joins=name is not None)
        self._link = self._door.link
        self._lock = threading.Lock()
        self._table = Requests()
        self._requests = self._table.open
        self._supplies = Supplies(self._link)
        self._bindings = Bindings(self._table, self._supplies)
        self._outbox = TaskOutbox(self._link, self._supplies, self._bindings.bind)
        self._inbox = Inbox(self._table, supplies=self._supplies, bindings=self._bindings, outbox=self._outbox)
        self._pump = Pump(
            self._link.fileno(),
            look=self._look,
            again_in_s=self._outbox.ready_in_s,
            outstanding=lambda: bool(self._requests),
            closed=lambda: self.closed,
        )
        waits, orders = Waits(self._pump, self), Orders(self._ask)
        self.wait, self.wait_any, self.wait_for_parts = waits.for_all, waits.for_any, waits.for_parts
        self.order, self.grow, self.queues, self.survey = orders.order, orders.grow, orders.queues, orders.survey
        self._why = orders.why
        self._numbers = itertools.count(1)
        self._session = 0
        try:
            self._enter(timeout_s)
        except BaseException:
            self._release()
            raise
        self._pump.start()
        _open_channels.add(self)

    def __repr__(self) -> str:
        state = "closed" if self.closed else f"{len(self._requests)} requests open"
        return f"<{type(self).__name__} of cluster {self.cluster!r}: {state}>"

    @property
    def closed(self) -> bool:
        """Whether nothing will come any more."""
        return self._inbox.ended is not None

    def session_of(self, request: m.TaskId) -> Channel:
        """The session that made a request on this cluster: this one, or that of another client in this process.

        This one as well where none did that is open.
        """
        number = request >> m.SESSION_SHIFT
        if number != self._session:
            for other in tuple(_open_channels):
                there = other._connection
                if (other._session, there.cluster, there.key) == (number, self.cluster, self._connection.key):
                    return other
        return self

    def relay_comms(self, on_comm: OnComm) -> None:
        """Have messages of the engines' widgets taken by `on_comm`."""
        self._inbox.on_comm = on_comm

    # --- who is there -------------------------------------------------------------------------------------------------

    def engine_ids(self) -> list[int]:
        """Ranks of the engines that are there now, ascending."""
        self._pump.glance()
        return self._inbox.roster.ids()

    def dispatch_width(self) -> int:
        """How many engines are there now."""
        return len(self._inbox.roster)

    def failed_starts(self) -> dict[int, str]:
        """Engines that were to start and did not: {rank: reason}."""
        return dict(self._inbox.roster.failed_starts)

    def arrivals(self, ranks: Iterable[int]) -> int:
        """How often engines of these ranks have joined since the session began."""
        return self._inbox.roster.arrivals(ranks)

    # --- waiting ------------------------------------------------------------------------------------------------------

    def wait_for(self, condition: Callable[[], bool], timeout_s: float | None) -> bool:
        """Receive until `condition()` holds; False if it does not in time. Raises what ended the session."""
        self._check_open()
        in_time = self._pump.wait(lambda: condition() or self.closed, timeout_s)
        if not condition():
            self._check_open()
        return in_time

    def open_requests(self) -> list[Pending]:
        """What is outstanding, in the order it was made."""
        return list(self._requests.values())

    def wait_all(self, timeout_s: float | None = None) -> bool:
        """Wait until nothing is outstanding; False if something still is in the end."""
        return self.wait(self.open_requests(), timeout_s)

    def listen(self, pending: Pending, listener: Listener) -> list[list[Output]]:
        """Tell `listener` what comes of a request from now on; what its parts have printed until now, by place."""
        with Held(), self._lock:
            pending.listeners = (*pending.listeners, listener)
            return [pending.outputs_of(place) for place in range(len(pending.outcomes))]

    def unlisten(self, pending: Pending, listener: Listener) -> None:
        """Tell it no more."""
        with Held(), self._lock:
            pending.listeners = tuple(other for other in pending.listeners if other is not listener)

    # --- questions ----------------------------------------------------------------------------------------------------

    def why(self, request: m.TaskId) -> Explanation:
        """Why a task or call has not ended. Raises UnknownTask for one that never was."""
        with Held(), self._lock:
            known = self._table.explain(request)
            if known is not None:
                return known
            self._outbox.flush()
            if self._outbox.waiting_among({request}):
                text = f"the root has {self._outbox.in_flight} tasks of this client, as many as it takes at a time"
                return Explanation("held", text)
        return self._why(request)

    def _ask(self, make: Callable[[m.TaskId], m.Message]) -> m.Message:
        """The answer to a question. Raises TimeoutError if none comes."""
        with Held(), self._lock:
            self._check_open()
            request = self._new_id()
            self._inbox.answers[request] = None
            self._link.send(make(request))
            self._after_send()
        try:
            if not self.wait_for(lambda: self._inbox.answers[request] is not None, CONNECT_TIMEOUT_S):
                raise TimeoutError(f"the root of cluster {self.cluster!r} did not answer within {CONNECT_TIMEOUT_S} s")
            answer = self._inbox.answers[request]
        finally:
            del self._inbox.answers[request]
        assert answer is not None, "it was waited for"
        return answer

    def stop_cluster(self, reason: str = "a client asked for it") -> None:
        """End the whole cluster; returns when the root has said that it ends. Raises TimeoutError if it does not."""
        with Held(), self._lock:
            self._check_open()
            self._link.send(m.Stop(reason))
            self._after_send()
        if not self._pump.wait(lambda: self.closed, CONNECT_TIMEOUT_S):
            raise TimeoutError(f"the root of cluster {self.cluster!r} did not answer within {CONNECT_TIMEOUT_S} s")

    # --- sending; under the lock --------------------------------------------------------------------------------------

    def _new_id(self) -> int:
        return self._session << m.SESSION_SHIFT | next(self._numbers)

    def _after_send(self) -> None:
        """Sending may have eaten the edge that announces new messages to whoever receives."""
        if self._link.readable():
            self._pump.kick()

    def _check_open(self) -> None:
        if self._inbox.ended is not None:
            raise self._inbox.ended.with_traceback(None)

    # --- receiving ----------------------------------------------------------------------------------------------------

    def _look(self) -> None:
        """Take in everything that waits on the socket, send what waits here, tell what has come."""
        link, inbox, outbox = self._link, self._inbox, self._outbox
        with self._lock:
            while inbox.ended is None:
                try:
                    received = link.receive_nowait()
                except (ProtocolError, VersionMismatch) as error:
                    inbox.end(error)
                    break
                if received is not None:
                    inbox.take(received[1], received[2])
                elif outbox.ready and outbox.due:
                    outbox.flush()
                else:
                    break
        self._tell()

    def _tell(self) -> None:
        with Held():
            try:
                self._inbox.tell()
            except BaseException:  # an interrupt struck a callback of the user's
                self._pump.kick()  # somebody goes on with the others
                raise

    # --- beginning and end --------------------------------------------------------------------------------------------

    def _enter(self, timeout_s: float) -> None:
        """Say hello and wait to be let in."""
        if self._door.root >= 0:
            lost = ClusterLost(f"the root of cluster {self.cluster!r} ended; calls in flight may have run")
            self._pump.watch(self._door.root, lambda: self._end(lost))
        self._door.knock(detached=self.detached)
        self._pump.receive(lambda: self._inbox.welcome is not None, timeout_s)
        self._check_open()
        welcome = self._inbox.welcome
        if welcome is None:
            raise ConnectionFileError(
                f"the root of cluster {self.cluster!r} did not answer within {timeout_s} s: "
                "is the connection file stale, or its key wrong?"
            )
        self.plan = msgspec.convert(welcome.facts["plan"], TreePlan)
        self._session = welcome.session
        self._numbers = itertools.count(welcome.facts["next"])

    def close(self, *, forget: bool = False) -> None:
        """Leave the cluster. What is outstanding ends with ClusterLost here.

        A detached session goes on without its client, with all that was submitted. If it is to be forgotten, its work
        is withdrawn.
        """
        stays = self.detached and not forget
        with Held(), self._lock:
            if self._link.socket.closed:
                return
            if not self.closed:
                if stays:
                    self._outbox.flush(all_of_it=True)
                self._link.send(m.Bye("the client closed its session", stays))
        text = f"the session was left; join it again with session={self.id!r}" if stays else "the session was closed"
        self._end(ClusterLost(text))
        self._pump.stop()
        with Held():
            self._release()

    def _end(self, error: HierschedError) -> None:
        """Nothing more will come: every open request ends with `error`."""
        with Held():
            with self._lock:
                self._inbox.end(error)
            self._tell()

    def _release(self) -> None:
        _open_channels.discard(self)
        self._door.close()
        self._pump.close()


@atexit.register
def _close_channels() -> None:
    for channel in list(_open_channels):
        channel.close()


os.register_at_fork(after_in_child=_open_channels.clear)  # they are the parent's to close
