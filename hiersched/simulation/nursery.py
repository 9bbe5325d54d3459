"""The processes of a world: who starts them, who ends with them, who learns of it.

As on real hosts: the end of a process is noticed on its own host by whoever started it, and takes with it all that it
had started there. Other hosts hear nothing; there, silence must tell.
"""

from __future__ import annotations

from collections.abc import Container

from hiersched.core.effects import Link, link_of
from hiersched.core.place import Place
from hiersched.core.scheduler import SchedulerCore
from hiersched.core.topology import Child, TreePlan
from hiersched.simulation.checks import Checker
from hiersched.simulation.client import SimClient
from hiersched.simulation.engine import SimEngine
from hiersched.simulation.network import Network, Node
from hiersched.simulation.scheduler import SimScheduler

START_S = 0.005  # from asking for processes until they run
CLUSTER, KEY = "simulated", "key"


class Nursery:
    """Starts, knows and ends all processes. unborn: ranks of engines that end before they say hello."""

    def __init__(self, network: Network, plan: TreePlan, *, unborn: Container[int], checker: Checker | None) -> None:
        self.engines: dict[int, SimEngine] = {}
        self.schedulers: list[SimScheduler] = []
        self.clients: list[SimClient] = []
        self._network = network
        self._plan = plan
        self._unborn = unborn
        self._checker = checker

    def start_root(self) -> SimScheduler:
        """The root, running."""
        root = self._scheduler(Child("scheduler", 0, self._plan.engines, self._plan.hosts[0].name, 0))
        root.start()
        return root

    def start_client(self, root: SimScheduler) -> SimClient:
        """A client on the root's host, about to be let in."""
        client = SimClient(b"client-%d" % len(self.clients), root.host, network=self._network)
        self.clients.append(client)
        self._network.connect(root, client)
        client.start(CLUSTER, KEY)
        return client

    def start(self, parent: SimScheduler, children: list[Child]) -> None:
        parent.awaited.update((link_of(child), child) for child in children)
        timeline = self._network.timeline
        timeline.at(timeline.now_s + START_S, self._start, (parent, children))

    def _start(self, birth: tuple[SimScheduler, list[Child]]) -> None:
        parent, children = birth
        if parent.ended_s <= self._network.timeline.now_s:
            return
        for child in children:
            node = self._scheduler(child) if child.kind == "scheduler" else self._engine(child)
            self._network.connect(parent, node)
            parent.children[node.link] = node
            if isinstance(node, SimScheduler):
                node.start()
            elif child.first in self._unborn:
                self.end(node, "it exited with code 1")
            else:
                node.start(CLUSTER, KEY)

    def _scheduler(self, child: Child) -> SimScheduler:
        watched = len(self._plan.hosts) == 1
        core = SchedulerCore(Place(CLUSTER, KEY, child.level, child.first, child.last, watched), self._plan)
        node = SimScheduler(link_of(child), child.host, core=core, network=self._network, processes=self)
        node.watcher = self._checker
        self.schedulers.append(node)
        return node

    def _engine(self, child: Child) -> SimEngine:
        node = SimEngine(link_of(child), child.host, rank=child.first, network=self._network, processes=self)
        node.log = self._checker
        self.engines[child.first] = node
        return node

    def end(self, node: Node, reason: str) -> None:
        timeline = self._network.timeline
        if node.ended_s <= timeline.now_s:
            return
        node.ended_s = timeline.now_s
        edge = node.uplink
        if edge is not None and edge.same_host:
            timeline.at(self._network.notice_s(), self._tell, (edge.parent, node.link, reason))
        if isinstance(node, SimScheduler):
            orphans = [child for child in node.children.values() if child.host == node.host]
            timeline.at(self._network.notice_s(), self._end_all, orphans)
            if edge is None:
                for client in self.clients:
                    timeline.at(self._network.notice_s(), self._tell, (client, b"", f"the root ended: {reason}"))

    def _end_all(self, orphans: list[Node]) -> None:
        for orphan in orphans:
            self.end(orphan, "its scheduler has ended")

    def _tell(self, news: tuple[Node, Link, str]) -> None:
        watcher, link, reason = news
        if watcher.ended_s > self._network.timeline.now_s:
            watcher.link_down(link, reason)
