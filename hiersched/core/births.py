"""The processes that one scheduler starts and ends: its children, replacements of engines, engines added later.

An engine that is told to stop gets SIGTERM, and SIGKILL if it is still there after STOP_TIMEOUT_S. One that ends
unasked is replaced if the cluster restarts engines, or if a restart was asked for; at most RESTARTS_MAX times within
RESTART_PERIOD_S, so that an engine that cannot live is given up. An engine that ended together with its scheduler is
replaced by whoever had started that scheduler.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Container, Iterable

import msgspec

from hiersched.core.effects import DOORBELL, Link, Signal, Spawn, link_of
from hiersched.core.membership import Neighbour
from hiersched.core.outbox import Outbox
from hiersched.core.topology import LEAF_ENGINES_MIN, Child, Host, TreePlan, children_of, plan_tree, route
from hiersched.kernels import bitset
from hiersched.limits import (
    CHILDREN_MAX,
    ENGINES_MAX,
    LEAF_ENGINES_MAX,
    RESTART_PERIOD_S,
    RESTARTS_MAX,
    STOP_TIMEOUT_S,
)
from hiersched.protocol import messages as m

_SIGTERM, _SIGKILL = 15, 9
_LEAVES_ADDED = 2  # over which engines are spread that are too many to be children of the root itself
_NEVER_S = float("inf")


class Births:
    """The processes below one scheduler. children: those that it has started or taken over.

    gone: the latest that have ended; their names never come again. ends_s: when somebody who was told to stop is to be
    killed; infinite if nobody was. expected: ranks of engines that have ended and whose replacements have not come yet.
    """

    def __init__(self, outbox: Outbox, plan: TreePlan, *, restarts: bool) -> None:
        self.ends_s = _NEVER_S
        self.expected = 0
        self._outbox = outbox
        self._plans = [plan]  # and those of what was added
        self._restarts = restarts
        self.children: dict[Link, Child] = {}
        self.gone: dict[Link, None] = {}
        self._stopping: dict[Link, float] = {}  # when it is killed
        self._wanted: set[Link] = set()  # to be started again when they have ended
        self._history: dict[int, deque[float]] = {}  # by rank

    # --- they are started ---------------------------------------------------------------------------------------------

    def start(self, first: int, last: int, level: int) -> None:
        """Start the children of the scheduler of ranks [first, last)."""
        self._spawn(children_of(self._plans[0], first, last, level=level), None)

    def start_leaf_for_guests(self) -> None:
        """At a root: start the leaf that takes in engines which nobody here starts."""
        self._spawn([Child("scheduler", m.NO_RANK, m.NO_RANK, self._plans[0].hosts[0].name, 1)], None)

    def grow(self, first: int, engines: int) -> int:
        """At a root: start engines of ranks from `first` on. How many: all of them or none."""
        last = first + engines
        if last > ENGINES_MAX:
            return 0
        root = self._plans[0].hosts[0]
        host = Host(root.name, engines, root.cores)
        if engines > LEAF_ENGINES_MAX:
            plan = plan_tree([host], first_rank=first)
        else:  # children of the root as long as it has few, and else of leaves of their own: nothing to search for
            crowded = len(self.children) + engines > LEAF_ENGINES_MAX
            leaf_engines = max(LEAF_ENGINES_MIN, -(-engines // _LEAVES_ADDED)) if crowded else LEAF_ENGINES_MAX
            plan = plan_tree([host], fanout=_LEAVES_ADDED, leaf_engines=leaf_engines, first_rank=first)
        added = children_of(plan, first, last, level=0)
        if len(self.children) + len(added) > CHILDREN_MAX:
            return 0
        self._plans.append(plan)
        self._spawn(added, plan)
        return engines

    def adopt(self, orphans: Iterable[Child]) -> None:
        """These are children here from now on. Replacements may not have come yet, wherever they were to come to."""
        for child in orphans:
            self.children[link_of(child)] = child
            if child.birth:
                self.expected |= 1 << child.first

    def on_hello(self, link: Link) -> None:
        """A child has come."""
        child = self.children.get(link)
        if child is not None and child.kind == "engine":
            self.expected &= ~(1 << child.first)

    def starting(self, present: Container[Link]) -> int:
        """How many engines are being started, as far as is known here: those of children that have not come."""
        return sum(child.last - child.first for link, child in self.children.items() if link not in present)

    def _spawn(self, children: list[Child], plan: TreePlan | None) -> None:
        self.children.update((link_of(child), child) for child in children)
        self._outbox.add(Spawn(children, plan))

    # --- they are ended -----------------------------------------------------------------------------------------------

    def carry_out(self, engines: list[Neighbour], order: m.Order, now: float) -> None:
        """Signal, stop or restart these engines."""
        links = [engine.link for engine in engines]
        if order.verb == "signal":
            if order.number != DOORBELL:  # that one is between us and the engines
                self._outbox.add(Signal(links, order.number))
            return
        self._outbox.add(Signal(links, _SIGTERM))
        for link in links:
            self._stopping[link] = now + STOP_TIMEOUT_S
            if order.verb == "restart":
                self._wanted.add(link)
            else:
                self._wanted.discard(link)
        self.ends_s = min(self._stopping.values())

    def kill_late(self, now: float) -> None:
        """End those that were told to stop and have not."""
        late = [link for link, at_s in self._stopping.items() if at_s <= now]
        if late:
            self._outbox.add(Signal(late, _SIGKILL))
            for link in late:
                self._stopping[link] = _NEVER_S
        self.ends_s = min(self._stopping.values(), default=_NEVER_S)

    # --- they have ended ----------------------------------------------------------------------------------------------

    def on_ended(self, link: Link, now: float, *, below: int = 0, expected: int = 0) -> None:
        """A child has ended. Start others in the place of the engines that are to be replaced.

        below: the engines of a child scheduler that have ended together with it. expected: those that it was replacing.
        """
        self.gone[link] = None
        if len(self.gone) > CHILDREN_MAX:
            del self.gone[next(iter(self.gone))]
        told = self._stopping.pop(link, None) is not None
        wanted = link in self._wanted
        self._wanted.discard(link)
        child = self.children.pop(link, None)
        if child is None:
            return
        if child.kind == "scheduler":
            ended = self._engines_on(child.host, below | expected if self._restarts else expected)
        else:
            ended = [child] if wanted or (self._restarts and not told) else []
            self.expected &= ~(1 << child.first)
        again = [engine for engine in ended if self._may_replace(engine, now)]
        if again:
            self._outbox.counts["restarts"] += len(again)
            self._spawn([_successor(engine, now) for engine in again], None)

    def _engines_on(self, host: str, ranks: int) -> list[Child]:
        """Those of these engines that run on a host, as they were planned."""
        engines = []
        for plan in self._plans:
            planned = ranks & bitset.of_range(plan.first_ranks[0], plan.first_ranks[-1])
            engines += [route(plan, rank)[-1] for rank in bitset.ranks_of(planned)]
        return [engine for engine in engines if engine.host == host]

    def _may_replace(self, engine: Child, now: float) -> bool:
        """Whether not too many of this rank have ended lately. Then another is expected."""
        history = self._history.setdefault(engine.first, deque())
        while history and history[0] < now - RESTART_PERIOD_S:
            history.popleft()
        if len(history) >= RESTARTS_MAX:
            return False
        history.append(now)
        self.expected |= 1 << engine.first
        return True


def _successor(engine: Child, now: float) -> Child:
    """The one in its place. Its name differs from all before, even those that only a lost scheduler knew."""
    return msgspec.structs.replace(engine, birth=max(engine.birth + 1, int(now * 1e6)))
