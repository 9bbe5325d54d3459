"""The processes that one scheduler starts and ends: its children, replacements of engines, engines added later.

An engine that is told to stop gets SIGTERM, and SIGKILL if it is still there after STOP_TIMEOUT_S. One that ends
unasked is replaced if the cluster restarts engines, or if a restart was asked for; at most RESTARTS_MAX times within
RESTART_PERIOD_S, so that an engine that cannot live is given up.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable

from hiersched.core.effects import DOORBELL, Link, Signal, Spawn, link_of
from hiersched.core.membership import Neighbour
from hiersched.core.outbox import Outbox
from hiersched.core.topology import Child, Host, TreePlan, children_of, plan_tree
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
FANOUT_OF_ADDED = 2


class Births:
    """Who was started here. ends_s: when somebody who was told to stop is to be killed; infinite if nobody was."""

    def __init__(self, outbox: Outbox, plan: TreePlan, *, restarts: bool) -> None:
        self.ends_s = float("inf")
        self._outbox = outbox
        self._plan = plan
        self._restarts = restarts
        self._engines: dict[Link, Child] = {}
        self._stopping: dict[Link, float] = {}  # when it is killed
        self._wanted: set[Link] = set()  # to be started again when they have ended
        self._history: dict[Link, deque[float]] = {}

    def start(self, first: int, last: int, level: int) -> None:
        """Start the children of the scheduler of ranks [first, last)."""
        self._spawn(children_of(self._plan, first, last, level=level), None)

    def adopt(self, orphans: Iterable[Child]) -> None:
        """These are children here from now on."""
        for child in orphans:
            if child.kind == "engine":
                self._engines[link_of(child)] = child

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
                self._stopping[link] = float("inf")
        self.ends_s = min(self._stopping.values(), default=float("inf"))

    def on_ended(self, link: Link, now: float) -> None:
        """An engine has ended: start another in its place, if there is to be one."""
        child = self._engines.get(link)
        if child is None:
            return
        told = self._stopping.pop(link, None) is not None
        again = link in self._wanted or (self._restarts and not told)
        self._wanted.discard(link)
        if again and self._may_restart(link, now):
            self._outbox.counts["restarts"] += 1
            self._spawn([child], None)
        else:
            self._engines.pop(link)
            self._history.pop(link, None)

    def _may_restart(self, link: Link, now: float) -> bool:
        history = self._history.setdefault(link, deque())
        while history and history[0] < now - RESTART_PERIOD_S:
            history.popleft()
        if len(history) >= RESTARTS_MAX:
            return False
        history.append(now)
        return True

    def grow(self, first: int, engines: int, children: int) -> int:
        """At a root with so many children: start engines of ranks from `first` on. How many: all of them or none."""
        last = first + engines
        host = self._plan.hosts[0]
        if last > ENGINES_MAX:
            return 0
        crowded = children + engines > LEAF_ENGINES_MAX
        leaf_engines = max(2, -(-engines // FANOUT_OF_ADDED)) if crowded and engines <= LEAF_ENGINES_MAX else None
        plan = plan_tree([Host(host.name, engines, host.cores)], leaf_engines=leaf_engines, first_rank=first)
        added = children_of(plan, first, last, level=0)
        if children + len(added) > CHILDREN_MAX:
            return 0
        self._spawn(added, plan)
        return engines

    def _spawn(self, children: list[Child], plan: TreePlan | None) -> None:
        for child in children:
            if child.kind == "engine":
                self._engines[link_of(child)] = child
        self._outbox.add(Spawn(children, plan))
