"""What a simulated engine says to its scheduler: hello, results that gather, answers that it keeps.

An answer is kept until the root is known to have it. When the engine goes to another parent, it says what it holds and
sends again all that it keeps (docs/decisions/0008).
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from hiersched.core.effects import Link
from hiersched.core.kept import Kept
from hiersched.kernels import bitset
from hiersched.protocol import messages as m
from hiersched.protocol.framing import Frame
from hiersched.simulation.network import Network, Node
from hiersched.simulation.payload import Argument, Bulk, frame_bytes, pack_said

_TEXTS = {
    m.BLOB_LOST: "data that it refers to is no longer held anywhere",
    m.CANCELLED: "cancelled before it started",
    m.INTERRUPTED: "interrupted while it ran",
    m.UNMET: "this engine does not suit it",
}


class EngineLink(Node):
    """The talking half of an engine. It is at work until `_free_s`; what it sends leaves then."""

    __slots__ = ("_flushed_s", "_frames", "_free_s", "_kept", "_key", "_results", "network", "rank")

    def __init__(self, link: Link, host: str, *, rank: int, network: Network) -> None:
        super().__init__(link, host)
        self.rank = rank
        self.network = network
        self._key = ("", "")
        self._results: list[m.Result] = []
        self._frames: list[Frame] = []
        self._kept: Kept | None = None
        self._free_s = 0.0
        self._flushed_s = 0.0

    @property
    def kept(self) -> int:
        """Answers of which it does not know that the root has them."""
        return 0 if self._kept is None else self._kept.held

    def start(self, cluster: str, key: str) -> None:
        """Say hello."""
        self._key = (cluster, key)
        self._free_s = self.network.timeline.now_s
        self._say_hello([])

    def _on_welcome(self, welcome: m.Welcome) -> None:
        """The parent says whether answers have to be kept. All that was kept so far has been sent to it."""
        if not welcome.facts.get("keep"):
            self._kept = None
        elif self._kept is None:
            self._kept = Kept()

    def _on_ack(self, ack: m.Ack) -> None:
        if self._kept is not None:
            self._kept.on_ack(ack)

    # --- answers ------------------------------------------------------------------------------------------------------

    def _reply(self, call: m.Call, answer: Frame, argument: Argument) -> None:
        """Answer a call, with a report if one is asked for."""
        wire = bitset.to_wire(1 << self.rank)
        reports, frames = [], [answer]
        if argument.report:
            reports.append(m.Report(wire))
            frames.append(pack_said(call.request, 0, rank=self.rank, own=argument.own))
        self._send(m.Reply(call.request, [m.Chunk(wire, [], 1)], [], reports), frames)

    def _add_result(self, task: m.Task, code: int, outcome: Frame, duration_s: float) -> None:
        """A task has returned or raised."""
        large = type(outcome) is Bulk
        payload = b"" if large else bytes(outcome)
        self._results.append(
            m.Result(task.id, self.rank, int(duration_s * 1e6), code, payload, int(large), task.attempt)
        )
        if large:
            self._frames.append(outcome)

    def _give_back(self, work: m.Call | m.Task, code: int) -> None:
        """Answer for work that gives no outcome."""
        text = _TEXTS[code]
        if isinstance(work, m.Task):
            self._results.append(m.Result(work.id, self.rank, 0, code, text.encode(), 0, work.attempt))
        else:
            loss = m.Loss(bitset.to_wire(1 << self.rank), code, text)
            self._send(m.Reply(work.request, [], [loss]))

    def _flush(self) -> None:
        """Send the results that have gathered."""
        if self._results:
            self._flushed_s = self._free_s
            results, self._results = self._results, []
            frames, self._frames = self._frames, []
            self._send(m.Results(results), frames)

    def _send(self, message: m.Message, frames: Sequence[Frame] = ()) -> None:
        assert self.uplink is not None
        if self._kept is not None:
            if type(message) is m.Results:
                self._kept.add_results(message, frames)
            elif type(message) is m.Reply:
                self._kept.add_reply(message, frames)
        if frames:
            self._free_s += self.network.weather.costs.byte_s * frame_bytes(frames)
        self.uplink.up.send(self._free_s, message, frames)

    # --- links --------------------------------------------------------------------------------------------------------

    def _say_hello(self, holds: list[m.Try]) -> None:
        assert self.uplink is not None
        name, first, last = self.link.decode(), self.rank, self.rank + 1
        hello = m.Hello(*self._key, "engine", name, 0, self.host, first, last, holds)
        self.uplink.up.send(self._free_s, hello)

    def _introduce(self, holds: Iterable[m.Try], awaited: Iterable[m.Digest]) -> None:
        """To a new parent: what is here, what the root may not have, and what blobs are still awaited."""
        assert self.uplink is not None
        self._free_s = max(self._free_s, self.network.timeline.now_s)
        kept = Kept() if self._kept is None else self._kept
        gathered = [(result.id, result.attempt) for result in self._results]
        self._say_hello([*kept.tries(), *gathered, *holds])
        for message, frames in kept.again():
            self.uplink.up.send(self._free_s, message, frames)
        wanted = sorted(awaited)
        if wanted:
            self._send(m.Want(wanted))
