"""One scheduler, root or not: events in, effects out.

What comes from above (the parent, or at the root a client) is work: calls are split over the children at once, tasks
wait for credit. What comes from below is answers: replies are gathered, results passed on, credit given back. The root
differs in two things only: it has clients where the others have a parent, and it tells them who is there.

Tasks are handed out, and results and news of engines sent on, when the driver says that nothing more waits
(`Drained`): one message then carries many.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import msgspec

from hiersched.core.blobs import BlobLedger
from hiersched.core.calls import Calls
from hiersched.core.effects import (
    PARENT,
    ChildFailed,
    Close,
    Drained,
    Dropped,
    Effect,
    Event,
    Exit,
    Link,
    LinkDown,
    Received,
    Spawn,
    Started,
    WakeAt,
    Woke,
)
from hiersched.core.membership import Membership, Neighbour
from hiersched.core.metrics import Level
from hiersched.core.outbox import Outbox
from hiersched.core.place import Place
from hiersched.core.routing import Router
from hiersched.core.surveys import Surveys
from hiersched.core.topology import TreePlan, children_of
from hiersched.core.work import Work
from hiersched.kernels import bitset
from hiersched.limits import BEAT_PERIOD_S, TASKS_IN_FLIGHT_PER_CLIENT_MAX
from hiersched.protocol import messages as m
from hiersched.protocol.framing import Frame

Handler = Callable[[Link, Any, Sequence[Frame], float], None]


class SchedulerCore:
    """The state machine of one scheduler."""

    def __init__(self, place: Place, plan: TreePlan) -> None:
        self.place = place
        self.plan = plan
        self.membership = Membership()
        self._outbox = Outbox()
        self._router = Router()
        self.blobs = BlobLedger(is_root=place.is_root)
        self.calls = Calls(self._outbox, self._router, self.blobs)
        self.work = Work(self._outbox, self.membership, self.blobs)
        self.surveys = Surveys(self._outbox)
        self._messages_in = 0
        self._joined = 0
        self._left = 0
        self._left_reason = ""
        self._on_event: dict[type, Callable[[Any, float], None]] = {
            Received: self._on_received,
            Drained: self._on_drained,
            Started: self._on_started,
            Woke: self._on_woke,
            LinkDown: self._on_link_down,
            ChildFailed: self._on_child_failed,
            Dropped: self._on_dropped,
        }
        self._from_client: dict[type, Handler] = {
            m.Call: self.calls.on_call,
            m.Tasks: self.work.on_tasks,
            m.Cancel: self.work.on_cancel,
            m.Blob: self._on_blob,
            m.Missing: self._on_missing,
            m.Survey: self._on_survey,
            m.Stop: self._on_stop,
            m.Beat: _ignore,
            m.Bye: self._on_bye,
        }
        self._from_parent = self._from_client | {m.Welcome: _ignore, m.Refused: self._on_refused}
        self._from_engine: dict[type, Handler] = {
            m.Reply: self._on_reply,
            m.Results: self._on_results,
            m.Want: self._on_want,
            m.Beat: _ignore,
            m.Bye: self._on_bye,
        }
        self._from_scheduler = self._from_engine | {m.Members: self._on_members, m.Census: self._on_census}

    def handle(self, event: Event, now: float) -> list[Effect]:
        """What is to be done about `event`, in order. now: seconds, of a clock that never goes back."""
        self._on_event[type(event)](event, now)
        return self._outbox.take()

    @property
    def unsettled(self) -> bool:
        """Whether `Drained` would lead to anything."""
        return bool(self._joined or self._left or self.work.busy)

    # --- events other than messages -----------------------------------------------------------------------------------

    def _on_started(self, event: Started, now: float) -> None:
        self.membership.heard_parent(now)
        place = self.place
        self._outbox.add(Spawn(children_of(self.plan, place.first, place.last, level=place.level)))
        self._outbox.add(WakeAt(now + BEAT_PERIOD_S))

    def _on_woke(self, event: Woke, now: float) -> None:
        """Beat to neighbouring schedulers; notice those that fell silent."""
        self._outbox.add(WakeAt(now + BEAT_PERIOD_S))
        if self.place.watched:
            return
        for child in self.membership.silent(now):
            self._lose_child(child.link, "it missed its beats")
        for child in self.membership.schedulers():
            self._outbox.send(child.link, m.Beat())
        if not self.place.is_root:
            self._outbox.send(PARENT, m.Beat())
            if self.membership.parent_is_lost(now):
                self._outbox.add(Exit("the parent missed its beats"))

    def _on_link_down(self, event: LinkDown, now: float) -> None:
        if event.link == PARENT:
            self._outbox.add(Exit(f"the parent is gone: {event.reason}"))
        elif event.link in self.membership.children:
            self._lose_child(event.link, event.reason)
        elif event.link in self.membership.clients:
            self._lose_client(event.link)

    def _on_child_failed(self, event: ChildFailed, now: float) -> None:
        """A child never came: report its ranks as left, so that whoever waits for them learns why."""
        self._left |= bitset.of_range(event.child.first, event.child.last) & ~self.membership.members
        self._left_reason = event.reason

    def _on_dropped(self, event: Dropped, now: float) -> None:
        self._outbox.counts[event.kind] += 1

    def _on_drained(self, event: Drained, now: float) -> None:
        """Hand out tasks, pass on results, tell who came and went."""
        self.work.hand_out()
        self.work.pass_on()
        if self._joined or self._left:
            news = m.Members(bitset.to_wire(self._joined), bitset.to_wire(self._left), self._left_reason)
            for link in self.membership.clients if self.place.is_root else [PARENT]:
                self._outbox.send(link, news)
            self._joined = self._left = 0
            self._left_reason = ""

    # --- messages -----------------------------------------------------------------------------------------------------

    def _on_received(self, event: Received, now: float) -> None:
        link, message = event.link, event.message
        self._messages_in += 1
        membership = self.membership
        child = membership.children.get(link)
        if child is not None:
            handlers = self._from_engine if child.role == "engine" else self._from_scheduler
            handler = handlers.get(type(message))
            child.heard_s = now
        elif link in membership.clients:
            handler = self._from_client.get(type(message))
        elif link == PARENT and not self.place.is_root:
            handler = self._from_parent.get(type(message))
            membership.heard_parent(now)
        elif type(message) is m.Hello:
            handler = self._on_hello
        else:
            self._outbox.counts["unauthorised"] += 1
            self._outbox.send(link, m.Refused("NotAuthorised", "this link has not said hello; connect again"))
            self._outbox.add(Close(link))
            return
        if handler is None:
            self._outbox.counts["malformed"] += 1
            return
        handler(link, message, event.frames, now)

    def _on_hello(self, link: Link, hello: m.Hello, frames: Sequence[Frame], now: float) -> None:
        """Take a child or a client in, or say why not."""
        refusal = self.place.refusal(hello, self.membership)
        if refusal is not None:
            self._outbox.counts["unauthorised" if refusal.code == "NotAuthorised" else "refused"] += 1
            self._outbox.send(link, refusal)
            self._outbox.add(Close(link))
            return
        neighbour = Neighbour(link, hello.role, hello.uuid, hello.first, hello.last, hello.pid, heard_s=now)
        facts: dict[str, Any] = {}
        if hello.role == "client":
            self.membership.add_client(neighbour)
            plan = msgspec.to_builtins(self.plan)
            facts = {"plan": plan, "tasks_in_flight_max": TASKS_IN_FLIGHT_PER_CLIENT_MAX}
        else:
            self._joined |= self.membership.add_child(neighbour)
            self._router.rebuild(self.membership.children.values())
        known = self.membership.members & ~self._joined  # those that just joined are news to come
        self._outbox.send(link, m.Welcome(neighbour.session, bitset.to_wire(known), facts))

    def _on_bye(self, link: Link, bye: m.Bye, frames: Sequence[Frame], now: float) -> None:
        if link in self.membership.clients:
            self._lose_client(link)
        elif link != PARENT:
            self._lose_child(link, bye.reason)

    def _on_refused(self, link: Link, refused: m.Refused, frames: Sequence[Frame], now: float) -> None:
        self._outbox.add(Exit(f"the parent refused this scheduler: {refused.text}"))

    def _on_stop(self, link: Link, stop: m.Stop, frames: Sequence[Frame], now: float) -> None:
        """Pass the word on and go; whoever started the processes sees to it that none stays."""
        for child in self.membership.children:
            self._outbox.send(child, stop)
        for client in self.membership.clients:
            self._outbox.send(client, m.Bye(stop.reason))
        self._outbox.add(Exit(stop.reason))

    def _on_reply(self, link: Link, reply: m.Reply, frames: Sequence[Frame], now: float) -> None:
        self.calls.on_reply(self.membership.children[link].reach, reply, frames)

    def _on_results(self, link: Link, batch: m.Results, frames: Sequence[Frame], now: float) -> None:
        self.work.on_results(self.membership.children[link], batch, frames)

    def _on_blob(self, link: Link, blob: m.Blob, frames: Sequence[Frame], now: float) -> None:
        self.blobs.on_blob(blob.digest, frames[0], self._outbox)

    def _on_want(self, link: Link, want: m.Want, frames: Sequence[Frame], now: float) -> None:
        self.blobs.on_want(link, want.digests, self._outbox)

    def _on_missing(self, link: Link, missing: m.Missing, frames: Sequence[Frame], now: float) -> None:
        self.blobs.on_missing(missing.digests, self._outbox)

    def _on_survey(self, link: Link, survey: m.Survey, frames: Sequence[Frame], now: float) -> None:
        schedulers = [child.link for child in self.membership.schedulers()]
        self.surveys.begin(link, survey, schedulers, self.counters())

    def _on_census(self, link: Link, census: m.Census, frames: Sequence[Frame], now: float) -> None:
        self.surveys.answer(link, census)

    # --- who is there -------------------------------------------------------------------------------------------------

    def _on_members(self, link: Link, news: m.Members, frames: Sequence[Frame], now: float) -> None:
        """Engines came and went in a child's subtree; some that left may never have come.

        What they owed is the child's to settle: it may hold answers of engines that have gone since.
        """
        child = self.membership.children[link]
        gone = bitset.from_wire(news.left) & child.reach
        joined, _ = self.membership.change(child, bitset.from_wire(news.joined), gone)
        self._report_left(gone, news.reason)
        self._joined |= joined

    def _lose_child(self, link: Link, reason: str) -> None:
        """Settle what a child still owed, so that no caller waits for it."""
        child = self.membership.remove_child(link)
        if child is None:
            return
        self._router.rebuild(self.membership.children.values())
        self.blobs.forget_child(link)
        self.work.on_lost(child, reason)
        self.surveys.forget_child(link)
        self.calls.on_lost(child.reach, reason)
        self._report_left(child.reach, reason)
        self._outbox.add(Close(link))

    def _report_left(self, gone: int, reason: str) -> None:
        if gone:
            self._joined &= ~gone
            self._left |= gone
            self._left_reason = reason

    def _lose_client(self, link: Link) -> None:
        """Nobody waits for a client's work any more."""
        del self.membership.clients[link]
        self.calls.gather.forget(link)
        self.work.forget_owner(link)
        self.surveys.forget_asker(link)
        self.blobs.forget_client(link, self._outbox)
        self._outbox.add(Close(link))

    def counters(self) -> list[Level]:
        """What this scheduler has counted and holds, as a table of one level."""
        counts = dict(self._outbox.counts)
        counts["messages_in"] = self._messages_in
        counts["messages_out"] = self._outbox.messages_out
        counts["late"] = counts.get("late", 0) + self.calls.gather.late
        counts["engines"] = sum(child.role == "engine" for child in self.membership.children.values())
        counts["tasks_waiting"] = len(self.work.dispatcher)
        counts["tasks_in_flight"] = len(self.work.dispatcher.flights) - len(self.work.dispatcher)
        counts["requests_open"] = len(self.calls.gather.open)
        counts["blob_bytes"] = self.blobs.store.bytes
        return [(self.place.level, 1, counts, dict(counts))]


def _ignore(link: Link, message: m.Message, frames: Sequence[Frame], now: float) -> None:
    """Being heard was all this message was for."""
