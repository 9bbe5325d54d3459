"""A scheduler process: a real core, fed as the real driver feeds it, one message at a time.

Handling a message takes receive_s, and result_s for each result in it; sending takes send_s, and byte_s for each byte.
What comes meanwhile waits. `Drained` follows when nothing more waits, or after EVENTS_PER_STEP_MAX events, if the core
has something to settle. Word of a death comes another way than messages: it may overtake those that wait, but never
other such word.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Sequence
from typing import Protocol

from hiersched.core import effects as e
from hiersched.core.scheduler import SchedulerCore
from hiersched.core.topology import Child, TreePlan
from hiersched.limits import EVENTS_PER_STEP_MAX
from hiersched.protocol import messages as m
from hiersched.protocol.framing import Frame
from hiersched.simulation.network import Edge, Network, Node
from hiersched.simulation.payload import frame_bytes


class Processes(Protocol):
    """Starts and ends the processes of a world, as a nursery does on each host."""

    def start(self, parent: SimScheduler, children: list[Child], plan: TreePlan) -> None:
        """Start one process for each child, with this plan."""

    def end(self, node: Node, reason: str, *, orderly: bool = False) -> None:
        """This process is no more. orderly: nor is anything that it has started."""

    def signal(self, parent: SimScheduler, links: Sequence[e.Link], number: int) -> None:
        """A signal for these children."""

    def climb(self, node: Node) -> bool:
        """Connect a node to the nearest ancestor that lives on its host; False if none does."""


class Watcher(Protocol):
    """Looks on at everything a scheduler does."""

    def after_event(self, node: SimScheduler, event: e.Event, effects: Sequence[e.Effect]) -> None:
        """`node` has handled `event`; `effects` are about to be performed."""


class SimScheduler(Node):
    """One scheduler. received, sent: messages since the counters were last cleared.

    edges: the links over which something was heard. children: the processes it has started or taken over. awaited:
    those it has started that have not been heard yet. inbox, news: messages and word of deaths that wait. leaving: why
    it is about to end; empty while it is not.
    """

    __slots__ = (
        "_busy",
        "_free_s",
        "_network",
        "_processes",
        "_since_drained",
        "_wake_s",
        "awaited",
        "children",
        "core",
        "edges",
        "inbox",
        "leaving",
        "level",
        "news",
        "received",
        "sent",
        "watcher",
    )

    def __init__(self, link: e.Link, host: str, *, core: SchedulerCore, network: Network, processes: Processes) -> None:
        super().__init__(link, host)
        self.core = core
        self.level = core.place.level
        self.edges: dict[e.Link, Edge] = {}
        self.children: dict[e.Link, Node] = {}
        self.awaited: dict[e.Link, Child] = {}
        self.inbox: deque[tuple[e.Event, Edge | None]] = deque()
        self.news: deque[e.LinkDown | e.ChildFailed] = deque()
        self.leaving = ""
        self.received = self.sent = 0
        self.watcher: Watcher | None = None
        self._network = network
        self._processes = processes
        self._busy = False
        self._free_s = 0.0
        self._since_drained = 0
        self._wake_s = float("inf")

    # --- in -----------------------------------------------------------------------------------------------------------

    def start(self) -> None:
        """Say hello to the parent, if there is one, and begin."""
        if self.uplink is not None:
            place = self.core.place
            name = self.link.decode()
            hello = m.Hello(place.cluster, place.key, "scheduler", name, 0, self.host, place.first, place.last)
            self.uplink.up.send(self._network.timeline.now_s, hello)
        self.take(e.Started())

    def receive(self, edge: Edge, link: e.Link, message: m.Message, frames: Sequence[Frame]) -> None:
        self.take(e.Received(link, message, frames), edge)

    def link_down(self, link: e.Link, reason: str) -> None:
        edge = self.edges.get(link)
        known = link != e.PARENT and link not in self.awaited and (edge is None or not edge.broken)
        if not known:  # or else it was noticed when something was sent
            self.bereave(link, reason, ())

    def bereave(self, link: e.Link, reason: str, orphans: Sequence[Child]) -> None:
        """A neighbour is gone; these were its children, and are this scheduler's now."""
        child = self.awaited.pop(link, None)
        if child is None or orphans:
            self.news.append(e.LinkDown(link, reason, orphans))
        else:
            self.news.append(e.ChildFailed(child, reason))
        if not self._busy:
            self._step(self.news.popleft(), None)

    def take(self, event: e.Event, edge: Edge | None = None) -> None:
        """Handle an event, which may have come over an edge, now or when there is time."""
        if self._busy:
            self.inbox.append((event, edge))
        else:
            self._step(event, edge)

    def _step(self, event: e.Event, edge: Edge | None) -> None:
        timeline = self._network.timeline
        self._busy = True
        self._since_drained += 1
        self._free_s = timeline.now_s
        if type(event) is e.Received and edge is not None:
            self.received += 1
            costs = self._network.weather.costs
            self._free_s += costs.receive_s + costs.result_s * results_in(event.message)
            if self._is_current(event.link, edge):
                self._feed(event)
        else:
            self._feed(event)
        timeline.at(self._free_s, self._on_free)

    def _is_current(self, link: e.Link, edge: Edge) -> bool:
        """Whether a message over this edge counts: not if the neighbour has connected anew since."""
        if link == e.PARENT:
            return edge is self.uplink
        known = self.edges.get(link)
        if known is not None and known.number > edge.number:
            return False
        if known is not edge:
            self.edges[link] = edge
            self.awaited.pop(link, None)
        return True

    def _on_free(self, _: None) -> None:
        """What was at hand is done: go on with what waits, or say `Drained`, or rest."""
        now_s = self._network.timeline.now_s
        if self.ended_s <= now_s:
            return
        if self.leaving:
            self._processes.end(self, self.leaving, orderly=True)
            return
        waits = bool(self.inbox or self.news)
        if not waits or self._since_drained >= EVENTS_PER_STEP_MAX:
            self._since_drained = 0
            if self.core.unsettled:
                self._feed(e.Drained())
            if self._free_s > now_s:
                self._network.timeline.at(self._free_s, self._on_free)
                return
        if self.news and (not self.inbox or self._network.rng.random() < 0.5):
            self._step(self.news.popleft(), None)
        elif self.inbox:
            self._step(*self.inbox.popleft())
        else:
            self._busy = False

    # --- out ----------------------------------------------------------------------------------------------------------

    def _feed(self, event: e.Event) -> None:
        effects = self.core.handle(event, self._free_s)
        if self.watcher is not None:
            self.watcher.after_event(self, event, effects)
        down: dict[e.Link, e.LinkDown] = {}
        for effect in effects:
            match effect:
                case e.Send():
                    if not self._send(effect):
                        down[effect.link] = e.LinkDown(effect.link, "it cannot be reached")
                case e.WakeAt():
                    self._wake_at(effect.time_s)
                case e.Spawn():
                    self._processes.start(self, effect.children, effect.plan or self.core.plan)
                case e.Signal():
                    self._processes.signal(self, effect.links, effect.number)
                case e.Climb():
                    self._climb(effect.reason)
                case e.Close():
                    self._close(effect.link)
                case e.Exit():
                    self._exit(effect.reason)
        for news in down.values():
            self._feed(news)

    def _send(self, effect: e.Send) -> bool:
        """Send a message; False if its receiver is out of reach and nobody else will tell."""
        if effect.link == e.PARENT:
            assert self.uplink is not None, "the root has no parent to send to"
            pipe = self.uplink.up
        else:
            edge = self.edges.get(effect.link)
            if edge is None:
                return False
            if edge.unreachable(self._network.timeline.now_s):
                if not edge.broken and effect.link in self.children:
                    return True  # its process is ending: who watches it will tell why
                del self.edges[effect.link]
                return False
            pipe = edge.down
        costs = self._network.weather.costs
        self._free_s += costs.send_s
        if effect.frames:
            self._free_s += costs.byte_s * frame_bytes(effect.frames)
        self.sent += 1
        pipe.send(self._free_s, effect.message, effect.frames)
        return True

    def _wake_at(self, time_s: float) -> None:
        if time_s < self._wake_s:
            self._wake_s = time_s
            self._network.timeline.at(max(time_s, self._network.timeline.now_s), self._on_wake, time_s)

    def _on_wake(self, time_s: float) -> None:
        if time_s == self._wake_s and self.ended_s > self._network.timeline.now_s:
            self._wake_s = float("inf")
            self.take(e.Woke())

    def _climb(self, reason: str) -> None:
        """What was not read over the old link has never happened."""
        if not self._processes.climb(self):
            self.leaving = reason
            return
        self.inbox = deque(waiting for waiting in self.inbox if not _is_from_parent(waiting[0]))
        self.news = deque(event for event in self.news if not _is_from_parent(event))

    def _close(self, link: e.Link) -> None:
        self.edges.pop(link, None)
        child = self.children.pop(link, None)
        if child is not None and child.host == self.host:
            self._processes.end(child, "its scheduler ended it", orderly=True)

    def _exit(self, reason: str) -> None:
        """Say a last word to the neighbours, and go when it is said."""
        if self.leaving:
            return
        self.leaving = reason
        for link in self.core.membership.clients:
            self._send(e.Send(link, m.Bye(reason)))
        for link in self.core.membership.children:
            self._send(e.Send(link, m.Stop(reason)))


def _is_from_parent(event: e.Event) -> bool:
    return isinstance(event, e.Received | e.LinkDown) and event.link == e.PARENT


def results_in(message: m.Message) -> int:
    """Answers that a message carries, or tasks."""
    match message:
        case m.Reply():
            return sum([len(chunk.sizes) or 1 for chunk in message.chunks])
        case m.Results():
            return len(message.results)
        case m.Tasks():
            return len(message.tasks)
        case _:
            return 0
