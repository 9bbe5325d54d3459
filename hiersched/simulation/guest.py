"""A simulated engine that nobody here has started: it asks for a rank, and is an engine like any other from then on."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from hiersched.core.effects import Link
from hiersched.protocol import messages as m
from hiersched.protocol.framing import Frame
from hiersched.simulation.engine import SimEngine
from hiersched.simulation.network import Edge, Network
from hiersched.simulation.scheduler import Processes


class SimGuest(SimEngine):
    """One guest. rank: NO_RANK until it has been given one; then `enrolled` is told."""

    __slots__ = ("_credentials", "_enrolled")

    def __init__(
        self,
        link: Link,
        host: str,
        *,
        network: Network,
        processes: Processes,
        enrolled: Callable[[SimGuest], None],
    ) -> None:
        super().__init__(link, host, rank=m.NO_RANK, network=network, processes=processes)
        self._enrolled = enrolled
        self._credentials = ("", "")

    def enrol(self, cluster: str, key: str, *, wanted: int) -> None:
        """Ask for a rank."""
        assert self.uplink is not None
        self._credentials = (cluster, key)
        self.uplink.up.send(self.network.timeline.now_s, m.Enrol(self.link.decode(), wanted))

    def receive(self, edge: Edge, link: Link, message: m.Message, frames: Sequence[Frame]) -> None:
        if type(message) is not m.Enrolled:
            super().receive(edge, link, message, frames)
        elif message.rank == m.NO_RANK:
            self._end("there is no rank for it")
        else:
            self.rank = message.rank
            self._enrolled(self)
            self.start(*self._credentials)
