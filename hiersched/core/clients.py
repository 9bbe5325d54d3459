"""The clients of the root: they come, join sessions that they or others had left, and go."""

from __future__ import annotations

from typing import TYPE_CHECKING

import msgspec

from hiersched.core.effects import Close, Link
from hiersched.core.membership import Neighbour
from hiersched.core.sessions import Sessions
from hiersched.kernels import bitset
from hiersched.limits import CLIENTS_MAX, TASKS_IN_FLIGHT_PER_CLIENT_MAX
from hiersched.protocol import messages as m

if TYPE_CHECKING:
    from hiersched.core.scheduler import SchedulerCore


class Clients:
    """The clients of `core`, and what it keeps for those whose sessions outlive them."""

    def __init__(self, core: SchedulerCore) -> None:
        self.sessions = Sessions(core.outbox)
        self._core = core

    def on_hello(self, link: Link, hello: m.Hello, now: float) -> None:
        """Take a client in, or say why not; tell it about the cluster, and about the session that it joins again."""
        core = self._core
        if hello.joins:
            self._make_room(link, hello, now)
            return
        refusal = self._refusal(link, hello)
        if refusal is not None:
            core.refuse(link, refusal)
            return
        client = Neighbour(link, hello.role, hello.uuid, hello.first, hello.last, hello.pid, heard_s=now)
        again = link in self.sessions.sessions
        session = self.sessions.enter(client, detached=hello.detached)
        core.membership.clients[link] = client
        facts = {
            "plan": msgspec.to_builtins(core.plan),
            "tasks_in_flight_max": TASKS_IN_FLIGHT_PER_CLIENT_MAX,
            "next": session.next,
            "open": self._open(link),
        }
        known = core.membership.members & ~core.family.joined  # those that just joined are news to come
        core.outbox.send(link, m.Welcome(session.number, bitset.to_wire(known), facts))
        if again:
            core.work.on_rejoined(link, self.sessions.send_again(link))

    def _make_room(self, asker: Link, hello: m.Hello, now: float) -> None:
        """A client is about to join a session that has to exist. Whoever is in it now is told, and has left it."""
        core = self._core
        name = hello.uuid.encode()
        refusal = self.sessions.reserve(name, now)
        if refusal is not None:
            core.refuse(asker, refusal)
            return
        if name in core.membership.clients:
            text = f"another client has joined this session, process {hello.pid} on {hello.host}"
            core.outbox.send(name, m.Refused("SessionTaken", text))
            self.lose(name, stays=True)
        core.outbox.send(asker, m.Bye("the session can be joined"))
        core.outbox.add(Close(asker))

    def _refusal(self, link: Link, hello: m.Hello) -> m.Refused | None:
        if len(self._core.membership.clients) >= CLIENTS_MAX:
            return m.Refused("CapacityError", f"the root already has {CLIENTS_MAX} clients")
        return self.sessions.refusal(hello, link)

    def _open(self, link: Link) -> list[tuple[m.TaskId, m.Ranks | None]]:
        """(request, targets) and (task, None) of all that a session has asked for and that is known here."""
        core = self._core
        asked: dict[m.TaskId, int | None] = dict.fromkeys(core.work.owned_by(link))
        for task, ranks in self.sessions.answered(link):
            asked[task] = None if ranks is None else ranks | (asked.get(task) or 0)
        for request, entry in core.calls.gather.open.items():
            if entry.asker == link:
                asked[request] = entry.targets
        return [(request, None if ranks is None else bitset.to_wire(ranks)) for request, ranks in asked.items()]

    def lose(self, link: Link, *, stays: bool) -> None:
        """A client is gone, and so is its link."""
        self.leave(link, stays=stays)
        self._core.outbox.add(Close(link))

    def leave(self, link: Link, *, stays: bool) -> None:
        """A client is gone. Unless its session stays, nobody waits for its work any more."""
        core = self._core
        del core.membership.clients[link]
        if not self.sessions.leave(link, stays=stays):
            core.calls.forget_asker(link)
            core.work.forget_owner(link)
            core.ring()
        core.inquiries.forget_asker(link)
        core.blobs.forget_client(link, core.outbox)

    def grow(self, link: Link, grow: m.Grow) -> None:
        """Add engines, whose ranks follow all others. No ranks in the answer: there is no room for so many."""
        core = self._core
        first = core.place.last
        count = core.births.grow(first, grow.engines)
        core.place = msgspec.structs.replace(core.place, last=first + count)
        core.outbox.send(link, m.Executed(grow.request, bitset.to_wire(bitset.of_range(first, first + count))))
