"""One scheduler, root or not: events in, effects out.

What comes from above (the parent, or at the root a client) is work: calls are split over the children at once, tasks
wait for credit. What comes from below is answers: replies are gathered, results passed on, credit given back. The root
differs in two things only: it has clients where the others have a parent, and it tells them who is there.

Tasks are handed out, and results and news of engines sent on, when the driver says that nothing more waits
(`Drained`): one message then carries many.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

from hiersched.core.ascent import climb
from hiersched.core.births import Births
from hiersched.core.blobs import BlobLedger
from hiersched.core.calls import Calls
from hiersched.core.clients import Clients
from hiersched.core.effects import (
    DOORBELL,
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
    Signal,
    Started,
    WakeAt,
    Woke,
)
from hiersched.core.enrolment import Enrolment
from hiersched.core.family import Family
from hiersched.core.inquiries import Inquiries
from hiersched.core.membership import Membership
from hiersched.core.orders import Orders
from hiersched.core.orphans import Orphans
from hiersched.core.outbox import Outbox
from hiersched.core.place import Place
from hiersched.core.questions import Questions
from hiersched.core.receipts import Receipts, targets_of
from hiersched.core.relay import OutputRelay
from hiersched.core.routing import Router
from hiersched.core.surveys import Surveys
from hiersched.core.topology import TreePlan
from hiersched.core.work import Work
from hiersched.limits import BEAT_PERIOD_S
from hiersched.protocol import messages as m
from hiersched.protocol.framing import Frame

Handler = Callable[[Link, Any, Sequence[Frame], float], None]


class SchedulerCore:
    """The state machine of one scheduler. facts: about its process, told to a new parent: pid, host."""

    def __init__(self, place: Place, plan: TreePlan, facts: Mapping[str, Any] | None = None) -> None:
        self.place = place
        self.plan = plan
        self.facts = dict(facts or {})
        self.membership = Membership()
        self.orphans = Orphans(self.membership.replacements)
        self.outbox = Outbox()
        self.router = Router()
        self.blobs = BlobLedger(is_root=place.is_root)
        self.calls = Calls(self.outbox, self.router, self.blobs, self.orphans, send_reply=self._send_reply)
        self.receipts = Receipts(self.outbox, self.membership, self.calls.gather, is_root=place.is_root)
        self.work = Work(
            self.outbox, self.membership, self.blobs, is_root=place.is_root, send_results=self._send_results
        )
        self.relay = OutputRelay(self._listener_of, self._send_outputs)
        self.births = Births(self.outbox, plan, restarts=place.restarts)
        self.orders = Orders(self.outbox, self.router, self.births.carry_out, starts=not place.is_for_guests)
        self.questions = Questions(self.outbox)
        self.surveys = Surveys(self.outbox)
        self.inquiries = Inquiries(self)
        self.family = Family(self)
        self.enrolment = Enrolment(self)
        self.clients = Clients(self)
        self.messages_in = 0
        self._beat_s = 0.0
        self._wake_s = float("inf")
        self._name_handlers()

    def _name_handlers(self) -> None:
        """Who may say what, and what is done about it."""
        self._on_event: dict[type, Callable[[Any, float], None]] = {
            Received: self.take,
            Drained: self._on_drained,
            Started: self._on_started,
            Woke: self._on_woke,
            LinkDown: self._on_link_down,
            ChildFailed: self._on_child_failed,
            Dropped: self._on_dropped,
        }
        from_above: dict[type, Handler] = {
            m.Call: self.calls.on_call,
            m.Tasks: self._on_tasks,
            m.Cancel: self._on_cancel,
            m.Blob: self._on_blob,
            m.Missing: self._on_missing,
            m.Survey: self.inquiries.on_survey,
            m.Order: self._on_order,
            m.Why: self.inquiries.on_why,
            m.Stop: self._on_stop,
            m.Beat: _ignore,
            m.Bye: self._on_bye,
        }
        self._from_client = from_above | {
            m.Call: self._on_client_call,
            m.Grow: self._on_grow,
            m.Hello: self._on_hello,
        }
        self._from_parent = from_above | {
            m.Welcome: self._on_welcome,
            m.Refused: self._on_refused,
            m.Ack: self._on_ack,
            m.Enrolled: self.enrolment.on_enrolled,
        }
        self._from_engine: dict[type, Handler] = {
            m.Reply: self._on_reply,
            m.Results: self._on_results,
            m.Outputs: self._on_outputs,
            m.Want: self._on_want,
            m.Beat: _ignore,
            m.Bye: self._on_bye,
        }
        self._from_scheduler = self._from_engine | {
            m.Members: self._on_members,
            m.Census: self.inquiries.on_census,
            m.Executed: self._on_executed,
            m.Because: self.inquiries.on_because,
            m.Enrol: self.enrolment.on_enrol,
        }

    def handle(self, event: Event, now: float) -> list[Effect]:
        """What is to be done about `event`, in order. now: seconds, of a clock that never goes back."""
        self._on_event[type(event)](event, now)
        if self.calls.gather.due_s < self._wake_s:
            self._wake_by(self.calls.gather.due_s)
        return self.outbox.take()

    @property
    def unsettled(self) -> bool:
        """Whether `Drained` would lead to anything."""
        return bool(self.family.joined or self.family.left or self.work.busy or self.receipts.due)

    # --- events other than messages -----------------------------------------------------------------------------------

    def _on_started(self, event: Started, now: float) -> None:
        self.membership.heard_parent(now)
        place = self.place
        if not place.is_for_guests:
            self.births.start(place.first, place.last, place.level)
        if place.guests:
            self.births.start_leaf_for_guests()
        self._beat_s = now + BEAT_PERIOD_S
        self._wake_by(self._beat_s)

    def _wake_by(self, time_s: float) -> None:
        """Ask to be woken, unless that will be earlier anyway."""
        if time_s < self._wake_s:
            self._wake_s = time_s
            self.outbox.add(WakeAt(time_s))

    def _on_woke(self, event: Woke, now: float) -> None:
        """Do what is due, and say when to wake again."""
        self._wake_s = float("inf")
        if now >= self.relay.due_s:
            self.relay.flush()
        self.calls.on_time(now)
        if now >= self.births.ends_s:
            self.births.kill_late(now)
        if now >= self.work.next_deadline_s:
            self.work.on_time(now)
        if now >= self._beat_s:
            self._beat(now)
        self._wake_by(min(self._beat_s, self.relay.due_s, self.births.ends_s, self.work.next_deadline_s))

    def _beat(self, now: float) -> None:
        """Beat to neighbouring schedulers; notice those that fell silent."""
        self._beat_s = now + BEAT_PERIOD_S
        if self.place.is_root:
            self.receipts.acknowledge()
        if self.place.watched:
            return
        for child in self.membership.silent(now):
            self.family.lose(child.link, "it missed its beats", now)
        for child in self.membership.schedulers():
            self.outbox.send(child.link, m.Beat())
        if not self.place.is_root:
            self.outbox.send(PARENT, m.Beat())
            if self.membership.parent_is_lost(now):
                self.outbox.add(Exit("the parent missed its beats"))

    def _on_link_down(self, event: LinkDown, now: float) -> None:
        if event.link == PARENT:
            climb(self, event.reason, now)
        elif event.link in self.membership.clients:
            self.clients.lose(event.link, stays=True)
        else:
            self.family.on_down(event, now)

    def _on_child_failed(self, event: ChildFailed, now: float) -> None:
        self.family.on_failed(event.child, event.reason, now)

    def _on_dropped(self, event: Dropped, now: float) -> None:
        self.outbox.counts[event.kind] += 1

    def _on_drained(self, event: Drained, now: float) -> None:
        """Hand out tasks, pass on results, tell who came and went."""
        if self.place.is_root:
            self.receipts.on_drained()
        self.work.hand_out()
        self.work.pass_on()
        if self.family.joined or self.family.left:
            news = self.family.take_news()
            for link in self.membership.clients if self.place.is_root else [PARENT]:
                self.outbox.send(link, news)
        if not self.place.is_root:
            self.receipts.on_drained()

    # --- who speaks ---------------------------------------------------------------------------------------------------

    def take(self, event: Received, now: float) -> None:
        """A message came in: let those who know about it act."""
        link, message = event.link, event.message
        self.messages_in += 1
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
        elif link in self.family.early:
            self.family.hear_early(event)
            return
        elif type(message) is m.Hello:
            handler = self._on_hello
        elif self.enrolment.concerns(link, message):
            handler = self.enrolment.on_guest
        elif self.clients.sessions.is_reserved(link, now):  # by the client that has just been sent away
            return
        else:
            self.outbox.counts["unauthorised"] += 1
            self.outbox.send(link, m.Refused("NotAuthorised", "this link has not said hello; connect again"))
            self.outbox.add(Close(link))
            return
        if handler is None:
            self.outbox.counts["malformed"] += 1
            return
        handler(link, message, event.frames, now)

    def _on_hello(self, link: Link, hello: m.Hello, frames: Sequence[Frame], now: float) -> None:
        """Take a child or a client in, or say why not."""
        if link in self.membership.clients:
            if hello.role != "client":
                self.outbox.counts["malformed"] += 1
                return
            self.clients.leave(link, stays=True)  # its connection had broken, and nobody has said so
        refusal = self.place.refusal(hello, enrolled=self.enrolment.admits(link, hello))
        if refusal is not None:
            self.refuse(link, refusal)
        elif hello.role == "client":
            self.clients.on_hello(link, hello, now)
        else:
            self.family.on_hello(link, hello, now)

    def refuse(self, link: Link, refusal: m.Refused) -> None:
        """Send somebody away."""
        self.outbox.counts["unauthorised" if refusal.code == "NotAuthorised" else "refused"] += 1
        self.outbox.send(link, refusal)
        self.outbox.add(Close(link))

    def _on_bye(self, link: Link, bye: m.Bye, frames: Sequence[Frame], now: float) -> None:
        if link in self.membership.clients:
            self.clients.lose(link, stays=bye.stays)
        elif link != PARENT:
            self.family.lose(link, bye.reason, now)

    def _on_welcome(self, link: Link, welcome: m.Welcome, frames: Sequence[Frame], now: float) -> None:
        self.receipts.on_welcome(keep=welcome.facts["keep"])

    def _on_refused(self, link: Link, refused: m.Refused, frames: Sequence[Frame], now: float) -> None:
        self.outbox.add(Exit(f"the parent refused this scheduler: {refused.text}"))

    def _on_stop(self, link: Link, stop: m.Stop, frames: Sequence[Frame], now: float) -> None:
        """Pass the word on and go; whoever started the processes sees to it that none stays."""
        for child in self.membership.children:
            self.outbox.send(child, stop)
        for client in self.membership.clients:
            self.outbox.send(client, m.Bye(stop.reason))
        self.outbox.add(Exit(stop.reason))

    # --- work, down ---------------------------------------------------------------------------------------------------

    def _on_client_call(self, link: Link, call: m.Call, frames: Sequence[Frame], now: float) -> None:
        self.clients.sessions.note_ids(link, call.request)
        self.calls.on_call(link, call, frames, now)

    def _on_tasks(self, link: Link, batch: m.Tasks, frames: Sequence[Frame], now: float) -> None:
        if self.place.is_root and batch.tasks:
            self.clients.sessions.note_ids(link, batch.tasks[-1].id)
        self.work.on_tasks(link, batch, frames, now)
        if self.work.next_deadline_s < self._wake_s:
            self._wake_by(self.work.next_deadline_s)

    def _on_cancel(self, link: Link, cancel: m.Cancel, frames: Sequence[Frame], now: float) -> None:
        self.calls.withdraw(link, cancel.tasks, running=cancel.running)
        self.work.on_cancel(link, cancel, frames, now)
        self.ring()

    def ring(self) -> None:
        """Engines that were just told to drop something may be busy: make them look."""
        children = self.membership.children
        told = [children.get(link) for link in dict.fromkeys(self.outbox.told(m.Cancel))]
        engines = [child.link for child in told if child is not None and child.role == "engine"]
        if engines:
            self.outbox.add(Signal(engines, DOORBELL))

    def _on_order(self, link: Link, order: m.Order, frames: Sequence[Frame], now: float) -> None:
        self.orders.on_order(link, order, now)
        self._wake_by(self.births.ends_s)

    def _on_grow(self, link: Link, grow: m.Grow, frames: Sequence[Frame], now: float) -> None:
        self.clients.grow(link, grow)

    def _on_blob(self, link: Link, blob: m.Blob, frames: Sequence[Frame], now: float) -> None:
        self.blobs.on_blob(blob.digest, frames[0], self.outbox)

    def _on_missing(self, link: Link, missing: m.Missing, frames: Sequence[Frame], now: float) -> None:
        self.blobs.on_missing(link, missing.digests, self.outbox)

    # --- answers, up --------------------------------------------------------------------------------------------------

    def _on_reply(self, link: Link, reply: m.Reply, frames: Sequence[Frame], now: float) -> None:
        child = self.membership.children[link]
        child.completed += 1
        self.calls.on_reply(child.reach, reply, frames, now)
        self.receipts.on_reply(child, reply.request, frames)

    def _on_results(self, link: Link, batch: m.Results, frames: Sequence[Frame], now: float) -> None:
        child = self.membership.children[link]
        child.completed += len(batch.results)
        self.receipts.on_results(child, batch, frames)
        self.work.on_results(child, batch, frames)

    def _on_outputs(self, link: Link, outputs: m.Outputs, frames: Sequence[Frame], now: float) -> None:
        self.relay.on_outputs(self.membership.children[link].reach, outputs, frames, now)
        self._wake_by(self.relay.due_s)

    def _send_reply(self, link: Link, reply: m.Reply, frames: Sequence[Frame]) -> None:
        self.relay.flush()
        if link == PARENT:
            self.receipts.reply_sent(reply, frames, targets_of(reply))
            self.outbox.send(link, reply, frames)
        else:
            self.clients.sessions.send_reply(link, reply, frames)

    def _send_results(self, link: Link, batch: m.Results, frames: Sequence[Frame]) -> None:
        self.relay.flush()
        if link == PARENT:
            self.receipts.results_sent(batch, frames)
            self.outbox.send(link, batch, frames)
        else:
            self.clients.sessions.send_results(link, batch, frames)

    def _send_outputs(self, link: Link, outputs: m.Outputs, frames: Sequence[Frame]) -> None:
        if link == PARENT:
            self.outbox.send(link, outputs, frames)
        else:
            self.clients.sessions.send_outputs(link, outputs, frames)

    def _listener_of(self, request: m.TaskId) -> tuple[Link, int] | None:
        """Whom the output of a request is for, and the ranks that have not answered it; -1: any may have some."""
        entry = self.calls.gather.open.get(request)
        if entry is not None:
            return entry.asker, entry.pending
        owner = self.work.owner_of(request) if self.place.is_root else PARENT
        return None if owner is None else (owner, -1)

    def _on_ack(self, link: Link, ack: m.Ack, frames: Sequence[Frame], now: float) -> None:
        self.receipts.on_ack(ack)

    def _on_want(self, link: Link, want: m.Want, frames: Sequence[Frame], now: float) -> None:
        self.blobs.on_want(link, want.digests, self.outbox)

    def _on_members(self, link: Link, news: m.Members, frames: Sequence[Frame], now: float) -> None:
        self.family.on_members(link, news)

    def _on_executed(self, link: Link, executed: m.Executed, frames: Sequence[Frame], now: float) -> None:
        self.orders.on_executed(link, executed)


def _ignore(link: Link, message: m.Message, frames: Sequence[Frame], now: float) -> None:
    """Being heard was all this message was for."""
