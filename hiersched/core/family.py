"""The children of one scheduler: they come, change, are lost, and are taken over from schedulers that are lost.

What a child owed is settled here, with all parts of the scheduler that wait for it. A scheduler that is lost with
children of its own leaves orphans: these are awaited, and what they hold goes on (docs/decisions/0008). An orphan may
say hello before word of its scheduler's end has come; then it is kept waiting, with all it says, until that is known.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from hiersched.core.effects import PARENT, Close, Link, LinkDown, Received, link_of
from hiersched.core.membership import Neighbour
from hiersched.kernels import bitset
from hiersched.limits import LINK_MESSAGES_MAX
from hiersched.protocol import messages as m

if TYPE_CHECKING:
    from hiersched.core.scheduler import SchedulerCore
    from hiersched.core.topology import Child


class Family:
    """The children of `core`. facts: what each is told with its welcome. joined, left: engines not yet reported."""

    def __init__(self, core: SchedulerCore, facts: Mapping[str, Any]) -> None:
        self.joined = 0
        self.left = 0
        self._left_reason = ""
        self._core = core
        self._facts = dict(facts)
        self._early: dict[Link, list[Received]] = {}

    # --- they come ----------------------------------------------------------------------------------------------------

    def on_hello(self, link: Link, hello: m.Hello, now: float) -> None:
        """Take a child in. An orphan says what it holds, and is given the rest."""
        core = self._core
        child = Neighbour(link, hello.role, hello.uuid, hello.first, hello.last, hello.pid, heard_s=now)
        orphan = link in core.orphans
        estate = None
        if orphan:
            estate, ranks = core.orphans.arrive(link)
            if child.role == "scheduler":
                child.below = ranks
                child.climbed = True
        self.joined |= core.membership.add_child(child)
        core.router.rebuild(core.membership.children.values())
        known = core.membership.members & ~self.joined  # those that just joined are news to come
        facts = {**self._facts, "keep": not core.place.is_root}
        core.outbox.send(link, m.Welcome(0, bitset.to_wire(known), facts))
        if estate is not None:
            holds = frozenset(hello.holds)
            core.work.adopt(estate.lost, child, hello.holds)
            core.calls.on_arrival(child, holds)
            if not estate.awaited:
                core.work.settle_lost(estate.lost, sure=estate.sure, reason=estate.reason)

    def waits(self, event: Received) -> bool:
        """Whether this comes from an orphan whose scheduler is not known to be gone yet; then it is kept for later."""
        link, message = event.link, event.message
        if link not in self._early:
            if type(message) is not m.Hello or message.role == "client":
                return False
            holder = self._core.membership.has_range(message.first, message.last)
            if holder is None or holder.role != "scheduler" or not _below(message, holder):
                return False
            self._early[link] = []
        waiting = self._early[link]
        if len(waiting) < LINK_MESSAGES_MAX:
            waiting.append(event)
        return True

    # --- they change --------------------------------------------------------------------------------------------------

    def on_members(self, link: Link, news: m.Members) -> None:
        """Engines came and went in a child's subtree; some that left may never have come.

        What they owed is the child's to settle: it may hold answers of engines that have gone since.
        """
        membership = self._core.membership
        child = membership.children[link]
        gone = bitset.from_wire(news.left) & child.reach
        if child.climbed:  # it lists all who are not there: only those we believe to be there are news
            child.climbed = False
            gone &= child.members
        joined, _ = membership.change(child, bitset.from_wire(news.joined), gone)
        self._report_left(gone, news.reason)
        self.joined |= joined

    def on_failed(self, child: Child, reason: str, now: float) -> None:
        """A child never came: report its ranks as left, so that whoever waits for them learns why."""
        self._report_left(bitset.of_range(child.first, child.last) & ~self._core.membership.members, reason)
        self._core.births.on_ended(link_of(child), now)

    # --- they are lost ------------------------------------------------------------------------------------------------

    def on_down(self, event: LinkDown, now: float) -> None:
        """A child is gone, or an orphan before it came here."""
        core = self._core
        if event.link in core.orphans:
            self._lose_orphan(event.link, event.reason)
            core.births.on_ended(event.link, now)
        elif event.link in core.membership.children:
            self.lose(event.link, event.reason, now, orphans=event.orphans)
        elif event.orphans:
            self._adopt_unknown(event)
        self._replay(now)

    def lose(self, link: Link, reason: str, now: float, *, orphans: Sequence[Child] = ()) -> None:
        """Settle what a child still owed, so that no caller waits for it; what its orphans hold goes on."""
        core = self._core
        child = core.membership.remove_child(link)
        if child is None:
            return
        core.router.rebuild(core.membership.children.values())
        core.blobs.forget_child(link)
        core.surveys.forget_child(link)
        core.orders.forget_child(link)
        core.questions.forget_child(link)
        core.receipts.forget_child(link)
        self._end(child, reason, orphans)
        core.outbox.add(Close(link))
        core.births.on_ended(link, now)

    def _end(self, child: Neighbour, reason: str, orphans: Sequence[Child]) -> None:
        """What a lost child owed: its orphans may still hold it."""
        core = self._core
        estate = core.orphans.admit(child, orphans, reason)
        core.membership.members |= core.orphans.ranks
        core.births.adopt(orphans)
        gone = child.reach
        for orphan in orphans:
            gone &= ~bitset.of_range(orphan.first, orphan.last)
        if estate.awaited:
            core.outbox.counts["adoptions"] += 1
        else:
            core.work.on_lost(child, reason)
        core.calls.on_lost(gone, reason)
        self._report_left(gone, reason)

    def _lose_orphan(self, link: Link, reason: str) -> None:
        core = self._core
        estate, ranks = core.orphans.lose(link)
        core.membership.members &= ~ranks
        core.calls.on_lost(ranks, reason)
        self._report_left(ranks, reason)
        if not estate.awaited:
            core.work.settle_lost(estate.lost, sure=False, reason=estate.reason)

    def _adopt_unknown(self, event: LinkDown) -> None:
        """The lost scheduler had never said hello here, but its children have started: they are ours now."""
        first = min(child.first for child in event.orphans)
        last = max(child.last for child in event.orphans)
        lost = Neighbour(event.link, "scheduler", "", first, last, 0)
        self._core.orphans.admit(lost, event.orphans, event.reason)
        self._core.births.adopt(event.orphans)

    def _replay(self, now: float) -> None:
        """Take in what orphans have said whose scheduler is now known to be gone."""
        for link, waiting in list(self._early.items()):
            hello = waiting[0].message
            assert type(hello) is m.Hello
            if self._core.membership.has_range(hello.first, hello.last) is None:
                del self._early[link]
                for event in waiting:
                    self._core.take(event, now)

    # --- news ---------------------------------------------------------------------------------------------------------

    def _report_left(self, gone: int, reason: str) -> None:
        if gone:
            self.joined &= ~gone
            self.left |= gone
            self._left_reason = reason

    def take_news(self) -> m.Members:
        """Who came and went since the last time."""
        news = m.Members(bitset.to_wire(self.joined), bitset.to_wire(self.left), self._left_reason)
        self.joined = self.left = 0
        self._left_reason = ""
        return news

    def introduce(self, hello: m.Hello) -> None:
        """To a new parent: this scheduler, what it holds, who is below it; and again what the root may not have."""
        core = self._core
        members = core.membership.members
        core.outbox.send(PARENT, hello)
        absent = bitset.of_range(hello.first, hello.last) & ~members
        core.outbox.send(PARENT, m.Members(bitset.to_wire(members), bitset.to_wire(absent), "it left meanwhile"))
        self.joined = self.left = 0
        core.blobs.ask_again(core.outbox)
        core.receipts.send_again()


def _below(hello: m.Hello, holder: Neighbour) -> bool:
    """Whether this peer's ranks are some of those that another child stands for."""
    return holder.first <= hello.first < hello.last <= holder.last
