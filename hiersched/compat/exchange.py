"""The front door's own session with the core of its process: a client without a socket.

What old clients ask for is gathered (`call`, `submit`) and goes to the core in one step (`flush`), so that sixty-four
requests that came together leave together. What the core answers is taken in on the loop's next turn, never inside the
core's own step.
"""

from __future__ import annotations

import itertools
import os
import socket
from collections.abc import Callable, Iterable, Sequence
from typing import Any, Literal

from hiersched.client.bindings import Bindings
from hiersched.client.inbox import Inbox
from hiersched.client.pending import Pending
from hiersched.client.requests import Requests
from hiersched.client.supplies import Supplies
from hiersched.client.task_outbox import TaskOutbox
from hiersched.compat.ids import OldIds
from hiersched.core.effects import Link
from hiersched.data.serialize import PackedCall
from hiersched.kernels import bitset
from hiersched.limits import TASKS_PER_MESSAGE_MAX
from hiersched.nodes.facts import ClusterFacts
from hiersched.protocol import messages as m
from hiersched.protocol.framing import Frame, inline
from hiersched.runtime.driver import Driver

DOOR: Link = b"ipyparallel-door"


class _Said:
    """In the place of a link: what is to be said to the core."""

    def __init__(self) -> None:
        self.words: list[tuple[m.Message, Sequence[Frame]]] = []

    def send(self, message: m.Message, frames: Sequence[Frame] = ()) -> None:
        self.words.append((message, frames))


class Exchange:
    """call_soon: has something called on the loop's next turn. on_members: told of engines that came and went, once all
    that they owed was settled. ids: what old clients call their requests. members: the engines at its beginning.
    """

    def __init__(
        self,
        driver: Driver,
        facts: ClusterFacts,
        *,
        call_soon: Callable[[Callable[[], None]], object],
        on_members: Callable[[m.Members], None],
    ) -> None:
        self._driver = driver
        self._call_soon = call_soon
        self._on_members = on_members
        self._heard: list[tuple[m.Message, Sequence[Frame]]] = []
        self._roused = False
        self._questions: dict[m.TaskId, Callable[[Any], None]] = {}
        self._said = _Said()
        self._table = Requests()
        self._supplies = Supplies(self._said)  # type: ignore[arg-type]
        bindings = Bindings(self._table, self._supplies)
        self._outbox = TaskOutbox(self._said, self._supplies, bindings.bind)  # type: ignore[arg-type]
        self._inbox = Inbox(self._table, supplies=self._supplies, bindings=bindings, outbox=self._outbox)
        self._bindings = bindings
        self.ids = OldIds()
        self._numbers = itertools.count(1)
        driver.take_in(DOOR, self._deliver)
        host = socket.gethostname()
        driver.hear(DOOR, (m.Hello(facts.cluster, facts.key, "client", DOOR.decode(), os.getpid(), host, 0, 0), ()))
        self._inbox.take(*self._heard.pop(0))  # what else was said is for the next turn: nobody listens yet
        welcome = self._inbox.welcome
        assert welcome is not None, "the core of this very process lets its own door in"
        self._session = welcome.session
        self.members = bitset.from_wire(welcome.members)

    # --- requests -----------------------------------------------------------------------------------------------------

    def call(self, ranks: Sequence[int], packed: PackedCall, *, lane: int = m.CALL_LANE) -> Pending:
        """The same call on these engines, or, in the cell lane, the same cell, once `flush` is called."""
        pending = Pending(self._new_id(), tuple(ranks), "apply" if lane == m.CALL_LANE else "execute")
        needs = [digest for digest in packed.blobs if digest != packed.function] if len(packed.blobs) > 1 else []
        self._supplies.provide(pending, packed.blobs)
        self._table.open[pending.id] = pending
        targets = bitset.to_wire(bitset.of_ranks(ranks))
        self._said.send(m.Call(pending.id, targets, lane, packed.function, needs, []), packed.frames)
        return pending

    def submit(self, packed: PackedCall, terms: m.Terms | None = None) -> Pending:
        """One load-balanced task, once `flush` is called."""
        payload, rest = inline(packed.frames)
        pending = Pending(self._new_id(), ())
        if terms is not None:
            self._bindings.begin(pending, packed, terms)
        task = m.Task(pending.id, packed.function, [], payload, len(rest))
        self._table.open[pending.id] = pending
        self._outbox.put((pending, task, rest, packed.blobs))
        return pending

    def cancel(self, pendings: Iterable[Pending], *, running: bool = False) -> None:
        """Withdraw these wherever they have not started; running: interrupt those that have."""
        ids = {pending.id for pending in pendings if not pending.done}
        withdrawn = self._outbox.waiting_among(ids)
        sent = sorted(ids.difference([pending.id for pending in withdrawn]))
        for start in range(0, len(sent), TASKS_PER_MESSAGE_MAX):
            self._said.send(m.Cancel(sent[start : start + TASKS_PER_MESSAGE_MAX], running))
        for pending in withdrawn:
            self._inbox.lose(pending, m.CANCELLED, m.NO_RANK, "cancelled before it was sent")
        self._rouse()

    def abort(self, msg_ids: Iterable[str]) -> None:
        """Withdraw what old clients know by these ids, wherever it has not started."""
        self.cancel(self.ids.withdrawn(msg_ids))

    def order(
        self,
        ranks: Iterable[int],
        verb: Literal["signal", "stop", "restart"],
        number: int = 0,
        on_done: Callable[[list[int]], None] = lambda ranks: None,
    ) -> None:
        """Do something about the processes of these engines; `on_done` learns for which of them it was done."""
        targets = bitset.to_wire(bitset.of_ranks(ranks))
        self._ask(
            lambda request: m.Order(request, targets, verb, number),
            lambda executed: on_done(bitset.ranks_of(bitset.from_wire(executed.ranks))),
        )

    def survey(self, ranks: Iterable[int], on_done: Callable[[m.Census], None]) -> None:
        """Ask for the queues of these engines, and for all counters."""
        targets = bitset.to_wire(bitset.of_ranks(ranks))
        self._ask(lambda request: m.Survey(request, targets), on_done)

    def stop(self, reason: str) -> None:
        """End the whole cluster."""
        self._said.send(m.Stop(reason))
        self._rouse()

    def _ask(self, make: Callable[[m.TaskId], m.Message], on_done: Callable[[Any], None]) -> None:
        request = self._new_id()
        self._questions[request] = on_done
        self._said.send(make(request))
        self._rouse()

    def _new_id(self) -> m.TaskId:
        return self._session << m.SESSION_SHIFT | next(self._numbers)

    # --- how they end -------------------------------------------------------------------------------------------------

    def _deliver(self, message: m.Message, frames: Sequence[Frame]) -> None:
        self._heard.append((message, frames))
        self._rouse()

    def _rouse(self) -> None:
        if not self._roused:
            self._roused = True
            self._call_soon(self._attend)

    def _attend(self) -> None:
        """Take in what the core has said, and tell it what has gathered."""
        self._roused = False
        heard, self._heard = self._heard, []
        for message, frames in heard:
            kind = type(message)
            if kind is m.Members:
                self._inbox.take(message, frames)
                self._inbox.tell()  # what the engines owed that are gone has come before
                self._on_members(message)  # type: ignore[arg-type]
            elif kind in (m.Executed, m.Census, m.Because):
                self._questions.pop(message.request, lambda answer: None)(message)  # type: ignore[union-attr]
            else:
                self._inbox.take(message, frames)
        self._inbox.tell()
        self.flush()

    def flush(self) -> None:
        """Tell the core what has gathered."""
        if self._outbox.ready:
            self._outbox.flush()
        words, self._said.words = self._said.words, []
        if words:
            self._driver.hear(DOOR, *words)

    def close(self) -> None:
        """Leave the core: nobody waits for any answer any more."""
        self._heard.clear()
        self._questions.clear()

    def __len__(self) -> int:
        """How many requests are open."""
        return len(self._table.open)
