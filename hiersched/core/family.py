"""The children of one scheduler: they come, change, are lost, and are taken over from schedulers that are lost.

What a child owed is settled here, with all parts of the scheduler that wait for it. A scheduler that is lost with
children of its own leaves orphans: these are awaited, and what they hold goes on (docs/decisions/0008). An orphan may
say hello before word of its scheduler's end has come; then it is kept waiting, with all it says, until that is known.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from hiersched.core.effects import Close, Link, LinkDown, Received, link_of
from hiersched.core.membership import Neighbour
from hiersched.core.orphans import Estate
from hiersched.core.topology import Child
from hiersched.kernels import bitset
from hiersched.limits import CHILDREN_MAX, LINK_MESSAGES_MAX
from hiersched.protocol import messages as m

if TYPE_CHECKING:
    from hiersched.core.scheduler import SchedulerCore


class Family:
    """The children of `core`.

    joined, left: engines not yet reported. early: what those have said that wait for word of their scheduler's end.
    """

    def __init__(self, core: SchedulerCore) -> None:
        self.joined = 0
        self.left = 0
        self.early: dict[Link, list[Received]] = {}
        self._left_reason = ""
        self._expected_below: dict[Link, int] = {}  # by child schedulers, as they said last
        self._core = core

    # --- they come ----------------------------------------------------------------------------------------------------

    def on_hello(self, link: Link, hello: m.Hello, now: float) -> None:
        """Take a child in, or say why not. An orphan says what it holds, and is given the rest."""
        refusal = self._refusal(link, hello)
        if refusal is not None:
            self._core.refuse(link, refusal)
        elif self._comes_early(link, hello):
            self.early[link] = [Received(link, hello)]
        else:
            self._welcome(link, hello, now)

    def hear_early(self, event: Received) -> None:
        """One of `early` says more: keep that for later, within bounds."""
        waiting = self.early[event.link]
        waiting.append(event)
        if len(waiting) > LINK_MESSAGES_MAX:
            del self.early[event.link]
            text = f"{LINK_MESSAGES_MAX} messages wait for word of its scheduler's end, as many as may"
            self._core.refuse(event.link, m.Refused("CapacityError", text))

    def _refusal(self, link: Link, hello: m.Hello) -> m.Refused | None:
        holder = self._holder_of(link, hello)
        if holder is not None and not self._comes_early(link, hello):
            return m.Refused("PlanError", f"ranks {hello.first}..{hello.last - 1} are taken")
        if link in self._core.births.gone:  # its last words came after word of its end
            return m.Refused("PlanError", "this process is known to have ended")
        if len(self._core.membership.children) + len(self.early) >= CHILDREN_MAX:
            return m.Refused("CapacityError", "this scheduler has all the children it may have")
        return None

    def _holder_of(self, link: Link, hello: m.Hello) -> Neighbour | Child | None:
        """Who else stands for one of the ranks of whoever says hello."""
        core = self._core
        holder = core.membership.has_range(hello.first, hello.last)
        if holder is not None or link in core.orphans:
            return holder
        return core.orphans.holder_of(hello.first, hello.last)

    def _comes_early(self, link: Link, hello: m.Hello) -> bool:
        """Whether its ranks are some of those of a scheduler that is not known to be gone: then it is an orphan."""
        holder = self._holder_of(link, hello)
        if holder is None:
            return False
        kind = holder.role if isinstance(holder, Neighbour) else holder.kind
        return kind == "scheduler" and holder.first <= hello.first < hello.last <= holder.last

    def _welcome(self, link: Link, hello: m.Hello, now: float) -> None:
        core = self._core
        child = Neighbour(link, hello.role, hello.uuid, hello.first, hello.last, hello.pid, heard_s=now)
        estate = None
        if link in core.orphans:
            estate, members = core.orphans.arrive(link)
            if child.role == "scheduler":
                child.below = members
                child.climbed = members != 0
        self.joined |= core.membership.add_child(child)
        doubtful_before = 0.0
        born = core.births.children.get(link)
        if born is not None and born.birth:
            doubtful_before = core.membership.replacements.doubtful_before(born)
            self._note_births([(born.first, born.birth)], ~self.joined)
        core.router.rebuild(core.membership.children.values())
        core.births.on_hello(link)
        core.enrolment.on_arrival(link)
        self._note_expected()
        known = core.membership.members & ~self.joined  # those that just joined are news to come
        facts = {"keep": not core.place.is_root}
        core.outbox.send(link, m.Welcome(0, bitset.to_wire(known), facts))
        if estate is not None:
            core.work.adopt(estate.lost, child, hello.holds)
            core.calls.on_arrival(child, hello, now, doubtful_before=doubtful_before)
            core.ring()
            self._settle(estate)

    # --- they change --------------------------------------------------------------------------------------------------

    def on_members(self, link: Link, news: m.Members) -> None:
        """Engines came and went in a child's subtree; some that left may never have come.

        What they owed is the child's to settle: it may hold answers of engines that have gone since.
        """
        membership = self._core.membership
        child = membership.children[link]
        here = child.members
        gone = bitset.from_wire(news.left) & child.reach
        if child.climbed:  # it lists all who are not there: only those we believe to be there are news
            child.climbed = False
            gone &= child.members
        joined, _ = membership.change(child, bitset.from_wire(news.joined), gone)
        self._report_left(gone, news.reason)
        self.joined |= joined
        births = [(rank, birth) for rank, birth in news.births if child.reach >> rank & 1]
        self._note_births(births, here & ~gone)
        self._expected_below[link] = bitset.from_wire(news.expected) & child.reach
        self._note_expected()

    def on_failed(self, child: Child, reason: str, now: float) -> None:
        """A child never came: report its ranks as left, so that whoever waits for them learns why."""
        core = self._core
        self._report_left(bitset.of_range(child.first, child.last) & ~core.membership.members, reason)
        core.births.on_ended(link_of(child), now)
        self._note_expected()

    # --- they are lost ------------------------------------------------------------------------------------------------

    def on_down(self, event: LinkDown, now: float) -> None:
        """A child is gone, or an orphan before it came here. Its own children, if they live on, are ours."""
        core = self._core
        self.early.pop(event.link, None)
        core.enrolment.forget(event.link)
        known = [*core.membership.children, *core.orphans.links()] if event.orphans else ()
        orphans = [child for child in event.orphans if link_of(child) not in known]
        core.births.adopt(orphans)
        if orphans:
            core.outbox.counts["adoptions"] += 1
        if event.link in core.orphans:
            self._lose_orphan(event.link, event.reason, orphans, now)
        elif event.link in core.membership.children:
            self._lose(event.link, event.reason, orphans, now, ended=True)
        elif orphans:
            self._adopt_unknown(event.link, event.reason, orphans, now)
        elif event.link in core.births.children:  # it was started, and had not been let in
            self.on_failed(core.births.children[event.link], event.reason, now)
        self._replay(now)

    def lose(self, link: Link, reason: str, now: float) -> None:
        """A child is gone, and all that was below it with it."""
        self._lose(link, reason, (), now, ended=False)
        self._replay(now)

    def _lose(self, link: Link, reason: str, orphans: Sequence[Child], now: float, *, ended: bool) -> None:
        """Settle what a child still owed, so that no caller waits for it; what its orphans hold goes on.

        ended: its process has, on this host, and so have those below it that are no orphans.
        """
        core = self._core
        child = core.membership.remove_child(link)
        if child is None:
            return
        core.router.rebuild(core.membership.children.values())
        core.blobs.forget_child(link)
        core.inquiries.forget_child(link)
        core.receipts.forget_child(link)
        estate, gone = core.orphans.admit(child, orphans, reason)
        core.membership.members |= core.orphans.ranks
        core.outbox.add(Close(link))
        self._turn_away()
        expected = self._inherit_expected(link, orphans)
        if ended:
            core.births.on_ended(link, now, below=gone & child.below, expected=gone & expected)
        else:
            core.births.on_ended(link, now)
        core.calls.on_lost(_engines_in(orphans) & ~child.members, reason, now)
        self._give_up(estate, gone, reason, now)

    def _lose_orphan(self, link: Link, reason: str, orphans: Sequence[Child], now: float) -> None:
        """An orphan is gone before it said hello; those it leaves are awaited in its place."""
        core = self._core
        estate, gone = core.orphans.lose(link, orphans)
        below = gone & core.membership.members
        self._turn_away()
        core.calls.on_lost(_engines_in(orphans) & ~core.membership.members, reason, now)
        core.membership.members ^= below
        core.births.on_ended(link, now, below=below, expected=gone & self._inherit_expected(link, orphans))
        self._give_up(estate, gone, reason, now)

    def _adopt_unknown(self, link: Link, reason: str, orphans: Sequence[Child], now: float) -> None:
        """The lost scheduler had never said hello here, but its children have started: they are ours now."""
        core = self._core
        started = core.births.children.get(link)
        first = min(child.first for child in (started or orphans[0], *orphans))
        last = max(child.last for child in (started or orphans[0], *orphans))
        estate, gone = core.orphans.admit(Neighbour(link, "scheduler", "", first, last, 0), orphans, reason)
        self._turn_away()
        core.births.on_ended(link, now)
        self._give_up(estate, gone & ~core.membership.members, reason, now)

    def _inherit_expected(self, link: Link, orphans: Sequence[Child]) -> int:
        """Whom a lost scheduler had expected. Those below its orphans are theirs to replace; the others may never come,
        because what it asked for last may not have been heard.
        """
        expected = self._expected_below.pop(link, 0)
        for child in orphans:
            if child.kind == "scheduler":
                self._expected_below[link_of(child)] = expected & bitset.of_range(child.first, child.last)
        return expected

    def _give_up(self, estate: Estate, gone: int, reason: str, now: float) -> None:
        """Nobody answers for these ranks any more."""
        core = self._core
        self._note_expected()
        core.calls.on_lost(gone, reason, now)
        estate.gone |= gone
        self._settle(estate)

    def _settle(self, estate: Estate) -> None:
        """When all orphans have spoken or are gone: what nobody holds, and who is gone."""
        if not estate.awaited:
            self._core.work.settle_lost(estate.lost, doubtful_before=estate.doubtful_before, reason=estate.reason)
            self._report_left(estate.gone, estate.reason)

    def _turn_away(self) -> None:
        """Of those that came early, some have ended before their scheduler did, or else they would be known as orphans.

        They go before others are started in their place, under the same names.
        """
        for link in self._late():
            if link not in self._core.orphans:
                del self.early[link]
                self._core.refuse(link, m.Refused("PlanError", "it was given up together with its scheduler"))

    def _replay(self, now: float) -> None:
        """Hear the orphans that came early and whose scheduler is now known to be gone."""
        for link in self._late():
            for event in self.early.pop(link):
                self._core.take(event, now)

    def _late(self) -> list[Link]:
        """Those of `early` that are early no longer."""
        hellos = [(link, waiting[0].message) for link, waiting in self.early.items()]
        return [link for link, hello in hellos if type(hello) is m.Hello and not self._comes_early(link, hello)]

    def _note_births(self, births: Sequence[tuple[m.Rank, int]], here: int) -> None:
        """Engines are in the place of others. Of those that were `here`, the end was never told: tell it now."""
        renewed = self._core.membership.replacements.note(births) & here & self._core.membership.members
        self._report_left(renewed, "it was replaced")

    def _note_expected(self) -> None:
        """Tell who will come again, here or further down."""
        expected = self._core.births.expected
        for ranks in self._expected_below.values():
            expected |= ranks
        self._core.work.expected = expected & ~self._core.membership.members

    # --- news ---------------------------------------------------------------------------------------------------------

    def _report_left(self, gone: int, reason: str) -> None:
        """To be told above. Those of them that are there have come again."""
        if gone:
            self.joined = self.joined & ~gone | gone & self._core.membership.members
            self.left |= gone
            self._left_reason = reason

    def take_news(self) -> m.Members:
        """Who came and went since the last time."""
        expected = bitset.to_wire(self._core.work.expected)
        births = self._core.membership.replacements.among(self.joined)
        news = m.Members(bitset.to_wire(self.joined), bitset.to_wire(self.left), self._left_reason, expected, births)
        self.joined = self.left = 0
        self._left_reason = ""
        return news


def _engines_in(orphans: Sequence[Child]) -> int:
    """The ranks of engines. Those not known to be there are in the place of others, who had ended: they owe nothing."""
    return bitset.of_ranks(child.first for child in orphans if child.kind == "engine")
