"""A scheduler process: a real core, fed as the real driver feeds it, one message at a time.

Handling a message takes receive_s, and result_s for each result in it; sending takes send_s, and byte_s for each byte.
What comes meanwhile waits. `Drained` follows when nothing more waits, or after EVENTS_PER_STEP_MAX events, if the core
has something to settle. Word of a death may overtake messages that wait, as it comes another way.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Sequence
from typing import Protocol

from hiersched.core import effects as e
from hiersched.core.scheduler import SchedulerCore
from hiersched.core.topology import Child
from hiersched.limits import EVENTS_PER_STEP_MAX
from hiersched.protocol import messages as m
from hiersched.protocol.framing import Frame
from hiersched.simulation.network import Edge, Network, Node
from hiersched.simulation.payload import frame_bytes


class Processes(Protocol):
    """Starts and ends the processes of a world, as a nursery does on each host."""

    def start(self, parent: SimScheduler, children: list[Child]) -> None:
        """Start one process for each child."""

    def end(self, node: Node, reason: str) -> None:
        """This process is no more."""


class Watcher(Protocol):
    """Looks on at everything a scheduler does."""

    def after_event(self, node: SimScheduler, event: e.Event, effects: Sequence[e.Effect]) -> None:
        """`node` has handled `event`; `effects` are about to be performed."""


class SimScheduler(Node):
    """One scheduler. received, sent: messages since the counters were last cleared.

    edges: the links over which something was heard. children: the processes it has started. inbox: events that wait.
    awaited: those of them that have not been heard yet. leaving: why it is about to end; empty while it is not.
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
        self.inbox: deque[e.Event] = deque()
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
        if link and link not in self.edges:
            self.edges[link] = edge
            self.awaited.pop(link, None)
        self.take(e.Received(link, message, frames))

    def link_down(self, link: e.Link, reason: str) -> None:
        child = self.awaited.pop(link, None)
        event = e.LinkDown(link, reason) if child is None else e.ChildFailed(child, reason)
        self.take(event, overtakes=self._network.rng.random() < 0.5)

    def take(self, event: e.Event, *, overtakes: bool = False) -> None:
        """Handle an event now, or when there is time."""
        if not self._busy:
            self._step(event)
        elif overtakes:
            self.inbox.appendleft(event)
        else:
            self.inbox.append(event)

    def _step(self, event: e.Event) -> None:
        timeline = self._network.timeline
        self._busy = True
        self._since_drained += 1
        self._free_s = timeline.now_s
        if type(event) is e.Received:
            self.received += 1
            costs = self._network.weather.costs
            self._free_s += costs.receive_s + costs.result_s * results_in(event.message)
        self._feed(event)
        timeline.at(self._free_s, self._on_free)

    def _on_free(self, _: None) -> None:
        """What was at hand is done: go on with what waits, or say `Drained`, or rest."""
        now_s = self._network.timeline.now_s
        if self.ended_s <= now_s:
            return
        if self.leaving:
            self._processes.end(self, self.leaving)
            return
        if not self.inbox or self._since_drained >= EVENTS_PER_STEP_MAX:
            self._since_drained = 0
            if self.core.unsettled:
                self._feed(e.Drained())
            if self._free_s > now_s:
                self._network.timeline.at(self._free_s, self._on_free)
                return
        if self.inbox:
            self._step(self.inbox.popleft())
        else:
            self._busy = False

    # --- out ----------------------------------------------------------------------------------------------------------

    def _feed(self, event: e.Event) -> None:
        effects = self.core.handle(event, self._free_s)
        if self.watcher is not None:
            self.watcher.after_event(self, event, effects)
        down: list[e.LinkDown] = []
        for effect in effects:
            match effect:
                case e.Send():
                    if not self._send(effect):
                        down.append(e.LinkDown(effect.link, "it cannot be reached"))
                case e.WakeAt():
                    self._wake_at(effect.time_s)
                case e.Spawn():
                    self._processes.start(self, effect.children)
                case e.Close():
                    self._close(effect.link)
                case e.Exit():
                    self._exit(effect.reason)
        for news in down:
            self._feed(news)

    def _send(self, effect: e.Send) -> bool:
        """Send a message; False if its receiver is known to be out of reach."""
        if effect.link == e.PARENT:
            assert self.uplink is not None, "the root has no parent to send to"
            pipe = self.uplink.up
        else:
            edge = self.edges.get(effect.link)
            if edge is None or edge.unreachable(self._network.timeline.now_s):
                self.edges.pop(effect.link, None)
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

    def _close(self, link: e.Link) -> None:
        self.edges.pop(link, None)
        child = self.children.pop(link, None)
        if child is not None and child.host == self.host:
            self._processes.end(child, "its scheduler ended it")

    def _exit(self, reason: str) -> None:
        """Say a last word to the neighbours, and go when it is said."""
        if self.leaving:
            return
        self.leaving = reason
        for link in self.core.membership.clients:
            self._send(e.Send(link, m.Bye(reason)))
        for link in self.core.membership.children:
            self._send(e.Send(link, m.Stop(reason)))


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
