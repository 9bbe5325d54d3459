"""The processes of a world: who starts them, whose they are, who learns of their end.

As on real hosts: the end of a process is noticed on its own host by whoever started it. When it was a scheduler that
was killed, what it had started there lives on, as children of whoever had started it: that one is told who they are,
and they are told that their parent is gone. When it left of its own will, or its starter is on another host, they end
with it. Other hosts hear nothing; there, silence must tell.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from hiersched.core.effects import DOORBELL, PARENT, Link, link_of
from hiersched.core.place import Place
from hiersched.core.scheduler import SchedulerCore
from hiersched.core.topology import Child, TreePlan
from hiersched.errors import Bug
from hiersched.protocol.messages import NO_RANK
from hiersched.simulation.checks import Checker
from hiersched.simulation.client import SimClient
from hiersched.simulation.engine import SimEngine
from hiersched.simulation.guest import SimGuest
from hiersched.simulation.network import Network, Node
from hiersched.simulation.scheduler import SimScheduler

if TYPE_CHECKING:
    from hiersched.simulation.cluster import Setup

START_S = 0.005  # from asking for processes until they run
CLUSTER, KEY = "simulated", "key"


class Nursery:
    """Starts, knows and ends all processes, as `setup` says.

    lost: ranks of engines that have ended, a bit set; ended: so many processes have.
    """

    def __init__(self, network: Network, plan: TreePlan, *, setup: Setup, checker: Checker | None) -> None:
        self.engines: dict[int, SimEngine] = {}
        self.schedulers: list[SimScheduler] = []
        self.clients: list[SimClient] = []
        self.lost = 0
        self.ended = 0
        self._network = network
        self._plan = plan
        self._setup = setup
        self._guests: dict[Link, SimGuest] = {}
        self._checker = checker
        self._told_s: dict[Node, float] = {}  # when each hears the latest word of a death

    # --- births -------------------------------------------------------------------------------------------------------

    def start_root(self) -> SimScheduler:
        """The root, running."""
        root = self._scheduler(Child("scheduler", 0, self._plan.engines, self._plan.hosts[0].name, 0), self._plan)
        root.start()
        return root

    def start_client(
        self, root: SimScheduler, *, detached: bool = False, predecessor: SimClient | None = None
    ) -> SimClient:
        """A client on the root's host, about to be let in. predecessor: whose detached session it joins."""
        link = b"client-%d" % len(self.clients) if predecessor is None else predecessor.link
        client = SimClient(link, root.host, network=self._network, predecessor=predecessor)
        client.log = self._checker
        self.clients.append(client)
        self._network.connect(root, client)
        client.start(CLUSTER, KEY, detached=detached)
        return client

    def start_guest(self, leaf: SimScheduler, wanted: int) -> SimGuest:
        """An engine that comes of itself, about to ask for a rank. wanted: the one that it would like; -1: any."""
        link = b"guest-%d" % len(self._guests)
        guest = SimGuest(link, leaf.host, network=self._network, processes=self, enrolled=self._on_enrolled)
        guest.log = self._checker
        self._guests[link] = guest
        self._network.connect(leaf, guest)
        guest.enrol(CLUSTER, KEY, wanted=wanted)
        return guest

    def _on_enrolled(self, guest: SimGuest) -> None:
        self.engines[guest.rank] = guest

    def start(self, parent: SimScheduler, children: list[Child], plan: TreePlan) -> None:
        parent.awaited.update((link_of(child), child) for child in children)
        timeline = self._network.timeline
        timeline.at(timeline.now_s + START_S, self._start, (parent, children, plan))

    def _start(self, birth: tuple[SimScheduler, list[Child], TreePlan]) -> None:
        parent, children, plan = birth
        if parent.ended_s <= self._network.timeline.now_s:
            return
        for child in children:
            node = self._scheduler(child, plan) if child.kind == "scheduler" else self._engine(child)
            node.starter = parent
            node.route = (parent, *parent.route)
            self._network.connect(parent, node)
            parent.children[node.link] = node
            if isinstance(node, SimScheduler):
                node.start()
            elif child.first in self._setup.unborn:
                self.end(node, "it exited with code 1")
            else:
                node.start(CLUSTER, KEY)

    def _scheduler(self, child: Child, plan: TreePlan) -> SimScheduler:
        watched = len(self._plan.hosts) == 1
        guests = self._setup.guests and not child.level
        place = Place(CLUSTER, KEY, child.level, child.first, child.last, watched, self._setup.restarts, guests)
        core = SchedulerCore(place, plan)
        node = SimScheduler(link_of(child), child.host, core=core, network=self._network, processes=self)
        node.child = child
        node.watcher = self._checker
        self.schedulers.append(node)
        return node

    def _engine(self, child: Child) -> SimEngine:
        former = self.engines.get(child.first)
        if former is not None and former.ended_s > self._network.timeline.now_s:
            if len(self._plan.hosts) == 1:
                raise Bug(f"engine {child.first} is started while one of this rank still lives")
            self.end(former, "another takes its place")  # a part that was given up lives until it finds out
        node = SimEngine(link_of(child), child.host, rank=child.first, network=self._network, processes=self)
        node.child = child
        node.log = self._checker
        self.engines[child.first] = node
        return node

    # --- signals ------------------------------------------------------------------------------------------------------

    def signal(self, parent: SimScheduler, links: Sequence[Link], number: int) -> None:
        for link in links:
            child = parent.children.get(link) or self._guests.get(link)
            if child is not None and child.host == parent.host:
                self._network.timeline.at(self._network.notice_s(), self._deliver, (child, number))

    def _deliver(self, signal: tuple[Node, int]) -> None:
        node, number = signal
        if node.ended_s <= self._network.timeline.now_s:
            return
        if isinstance(node, SimEngine):
            node.signal(number)
        elif number != DOORBELL:
            self.end(node, f"it was killed by signal {number}")

    # --- ends ---------------------------------------------------------------------------------------------------------

    def climb(self, node: Node) -> bool:
        now_s = self._network.timeline.now_s
        for ancestor in node.route:
            if ancestor.host == node.host and ancestor.ended_s > now_s:
                self._network.connect(ancestor, node)
                return True
        return False

    def end(self, node: Node, reason: str, *, orderly: bool = False) -> None:
        timeline = self._network.timeline
        if node.ended_s <= timeline.now_s:
            return
        node.ended_s = timeline.now_s
        self.ended += 1
        orphans: list[Node] = []
        if isinstance(node, SimEngine):
            self.lost |= 1 << node.rank if node.rank != NO_RANK else 0
        elif isinstance(node, SimScheduler):
            orphans = self._leave_children(node, orderly=orderly)
            if node.uplink is None:
                for client in self.clients:
                    timeline.at(self._network.notice_s(), self._tell_client, (client, f"the root ended: {reason}"))
        watcher = node.starter
        if watcher is None and node.uplink is not None:  # a client, which the root watches
            watcher = node.uplink.parent
        if watcher is not None and watcher.host == node.host:
            told_s = max(self._network.notice_s(), self._told_s.get(watcher, 0.0))
            self._told_s[watcher] = told_s
            children = [orphan.child for orphan in orphans if orphan.child is not None]
            timeline.at(told_s, self._tell, (watcher, node, reason, children))

    def _leave_children(self, lost: SimScheduler, *, orderly: bool) -> list[Node]:
        """A scheduler has ended: its children on its host, if they live on. They are its starter's from now on."""
        timeline = self._network.timeline
        left = [child for child in lost.children.values() if child.host == lost.host and child.ended_s > timeline.now_s]
        if lost.core.place.is_for_guests:  # they miss its beats some time later; nobody hears of them before that
            self._end_all([guest for guest in self._guests.values() if guest.ended_s > timeline.now_s])
        adopter = lost.starter
        if orderly or not isinstance(adopter, SimScheduler) or adopter.host != lost.host:
            timeline.at(self._network.notice_s(), self._end_all, left)
            return []
        for child in left:
            child.starter = adopter
            adopter.children[child.link] = child
            timeline.at(self._network.notice_s(), self._tell_orphan, child)
        return left

    def _end_all(self, left: list[Node]) -> None:
        for child in left:
            self.end(child, "its scheduler has ended", orderly=True)

    def _tell(self, news: tuple[Node, Node, str, list[Child]]) -> None:
        """Word of an end; of a client's, unless another has come under the same name since."""
        watcher, ended, reason, orphans = news
        if watcher.ended_s <= self._network.timeline.now_s or not isinstance(watcher, SimScheduler):
            return
        edge = watcher.edges.get(ended.link)
        if edge is None or edge.child is ended or not isinstance(ended, SimClient):
            watcher.bereave(ended.link, reason, orphans)

    def _tell_client(self, news: tuple[SimClient, str]) -> None:
        client, reason = news
        if client.ended_s > self._network.timeline.now_s:
            client.link_down(PARENT, reason)

    def _tell_orphan(self, orphan: Node) -> None:
        """Word that its parent is gone, unless it has found out itself and has another by now."""
        now_s = self._network.timeline.now_s
        assert orphan.uplink is not None
        if orphan.ended_s <= now_s or orphan.uplink.parent.ended_s > now_s:
            return
        if isinstance(orphan, SimEngine):
            orphan.signal(DOORBELL)
        else:
            orphan.link_down(PARENT, "its process has ended")
