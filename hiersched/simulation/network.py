"""Links with delay, jitter, breaks and partitions.

A link is two pipes, one each way. A pipe is reliable and in order, as a stream transport is: a message is late, or it
comes never, together with all that follow. In a partition what is sent waits in the pipe and arrives after the healing.
A link between hosts may break: what is under way is lost, and both ends learn of it, as of a reset connection. On one
host a link ends with a process, or when the child leaves it for another parent.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterable, Sequence
from math import inf
from random import Random

import msgspec

from hiersched.core.costs import ORDINARY, Costs
from hiersched.core.effects import PARENT, Link
from hiersched.core.topology import Child
from hiersched.errors import Bug, UserError
from hiersched.limits import LINK_DELAY_S_MAX, LINK_MESSAGES_MAX
from hiersched.protocol.framing import Frame
from hiersched.protocol.messages import Message
from hiersched.simulation.timeline import Timeline

Parcel = tuple[float, Message, Sequence[Frame]]  # when it left, the message, its frames


class Weather(msgspec.Struct, frozen=True):
    """How links behave.

    costs: what a message costs on its way. jitter_s: a message takes up to this much longer. breaks: the chance of each
    message between hosts to find its link broken. notice_s: from the end of a process or link until who watches knows.
    Raises UserError for values that make no sense.
    """

    costs: Costs = ORDINARY
    jitter_s: float = 0.0
    breaks: float = 0.0
    notice_s: float = 0.001

    def __post_init__(self) -> None:
        if not 0.0 <= self.jitter_s <= LINK_DELAY_S_MAX:
            raise UserError(f"jitter_s is {self.jitter_s}: give 0 to {LINK_DELAY_S_MAX} seconds")
        if not 0.0 <= self.breaks <= 1.0:
            raise UserError(f"breaks is {self.breaks}: give a chance, 0 to 1")
        if not 0.0 <= self.notice_s <= LINK_DELAY_S_MAX:
            raise UserError(f"notice_s is {self.notice_s}: give 0 to {LINK_DELAY_S_MAX} seconds")


class Node(ABC):
    """A simulated process. link: the name its parent knows it by. ended_s: when it ended; infinite while it lives.

    child: what it was started as; None for a client. starter: whose child the process is now; route: where it looks for
    a parent, the nearest first.
    """

    __slots__ = ("child", "ended_s", "host", "link", "route", "starter", "uplink")

    def __init__(self, link: Link, host: str) -> None:
        self.link = link
        self.host = host
        self.ended_s = inf
        self.uplink: Edge | None = None
        self.child: Child | None = None
        self.starter: Node | None = None
        self.route: Sequence[Node] = ()

    @abstractmethod
    def receive(self, edge: Edge, link: Link, message: Message, frames: Sequence[Frame]) -> None:
        """A message has come over `edge`, from the neighbour known here as `link`."""

    @abstractmethod
    def link_down(self, link: Link, reason: str) -> None:
        """Whoever watches tells that the neighbour has ended or cannot be reached."""


class Pipe:
    """One direction of a link. name: what the receiver calls the sender. held: what waits for a partition to end."""

    __slots__ = ("_delay_s", "_edge", "_last_s", "_network", "_timeline", "held", "name", "receiver", "sender")

    def __init__(self, edge: Edge, *, sender: Node, receiver: Node, name: Link) -> None:
        self.sender = sender
        self.receiver = receiver
        self.name = name
        self.held: Sequence[Parcel] = ()
        self._edge = edge
        self._network = edge.network
        self._timeline = edge.network.timeline
        costs = edge.network.weather.costs
        self._delay_s = costs.hop_s if edge.same_host else costs.hop_s + costs.network_s
        self._last_s = 0.0

    def send(self, left_s: float, message: Message, frames: Sequence[Frame] = ()) -> None:
        """Put a message in, which leaves the sender at `left_s`; it never does if the sender ends before."""
        network = self._network
        breaks = network.weather.breaks
        if breaks and not self._edge.same_host and network.rng.random() < breaks:
            network.snap(self._edge)
        self._carry((left_s, message, frames), left_s)

    def heal(self) -> None:
        """The partition is over: what waited sets out again."""
        held, self.held = self.held, ()
        for parcel in held:
            self._carry(parcel, self._timeline.now_s)

    def _carry(self, parcel: Parcel, start_s: float) -> None:
        arrival_s = start_s + self._delay_s
        jitter_s = self._network.weather.jitter_s
        if jitter_s:
            arrival_s += self._network.rng.random() * jitter_s
        if arrival_s < self._last_s:
            arrival_s = self._last_s
        self._last_s = arrival_s
        self._timeline.at(arrival_s, self._arrive, parcel)

    def _arrive(self, parcel: Parcel) -> None:
        left_s, message, frames = parcel
        edge = self._edge
        if edge.cut:
            self._hold(parcel)
            return
        receiver = self.receiver
        now_s = self._timeline.now_s
        lost = edge.broken or edge.left_s <= now_s or left_s > self.sender.ended_s
        if not lost and receiver.ended_s > now_s:
            receiver.receive(edge, self.name, message, frames)

    def _hold(self, parcel: Parcel) -> None:
        self.held = [*self.held, parcel]
        if len(self.held) > LINK_MESSAGES_MAX:
            raise Bug(f"{len(self.held)} messages wait in the link of {self.name!r}, more than {LINK_MESSAGES_MAX}")


class Edge:
    """A link between a parent and a child, the newest of theirs if its number is the highest.

    cut: a partition runs through it. broken: it is no more. left_s: when the child went to another parent.
    """

    __slots__ = ("broken", "child", "cut", "down", "left_s", "network", "number", "parent", "same_host", "up")

    def __init__(self, network: Network, parent: Node, child: Node, number: int) -> None:
        self.network = network
        self.number = number
        self.parent = parent
        self.child = child
        self.same_host = parent.host == child.host
        self.cut = 0
        self.broken = False
        self.left_s = inf
        self.down = Pipe(self, sender=parent, receiver=child, name=PARENT)
        self.up = Pipe(self, sender=child, receiver=parent, name=child.link)

    def unreachable(self, now_s: float) -> bool:
        """Whether a sender notices at once that the other end is gone: not across hosts, where silence must tell."""
        return self.broken or (self.same_host and (self.child.ended_s <= now_s or self.parent.ended_s <= now_s))


class Network:
    """All links of a world."""

    def __init__(self, timeline: Timeline, weather: Weather, rng: Random) -> None:
        self.timeline = timeline
        self.weather = weather
        self.rng = rng
        self._edges = 0

    def connect(self, parent: Node, child: Node) -> Edge:
        """A new link, in the place of the one that the child had."""
        if child.uplink is not None:
            child.uplink.left_s = self.timeline.now_s
        self._edges += 1
        child.uplink = Edge(self, parent, child, self._edges)
        return child.uplink

    def notice_s(self) -> float:
        """When somebody who watches learns of what happens now: half to one and a half times the mean, drawn."""
        return self.timeline.now_s + self.weather.notice_s * (0.5 + self.rng.random())

    def cut(self, edges: Iterable[Edge]) -> None:
        """A partition separates both ends of these links; what is sent waits in between. Cuts add up."""
        for edge in edges:
            edge.cut += 1

    def heal(self, edges: Iterable[Edge]) -> None:
        """A partition ends."""
        for edge in edges:
            edge.cut -= 1
            if not edge.cut:
                edge.down.heal()
                edge.up.heal()

    def snap(self, edge: Edge) -> None:
        """A link breaks; both ends notice."""
        if edge.broken:
            return
        edge.broken = True
        self.timeline.at(self.notice_s(), self._tell_parent, edge)
        self.timeline.at(self.notice_s(), self._tell_child, edge)

    def _tell_parent(self, edge: Edge) -> None:
        if edge.parent.ended_s > self.timeline.now_s:
            edge.parent.link_down(edge.child.link, "the connection broke")

    def _tell_child(self, edge: Edge) -> None:
        if edge.child.ended_s > self.timeline.now_s:
            edge.child.link_down(PARENT, "the connection broke")
