"""What was answered and the root is not yet known to have.

A process that is no child of the root keeps every `Results` and `Reply` that it sends up, as long as no `Ack` covers
it. When its parent is gone it says which requests and tasks it keeps answers to (`ids`), and sends them again to its
new parent (`again`). Only references are kept. Above KEPT_BYTES_MAX the oldest answers shrink to a note that they are
lost: what is not sent again must never look as if it had not run.
"""

from __future__ import annotations

from collections import OrderedDict, deque
from collections.abc import Iterator, Sequence

from hiersched.kernels import bitset
from hiersched.limits import KEPT_BYTES_MAX
from hiersched.protocol import messages as m
from hiersched.protocol.framing import Frame

_LOST = "its answer was lost with a scheduler, and had been too large to be kept"

_KeptResults = tuple[m.Results, Sequence[Frame], int]  # and its bytes
_KeptReply = tuple[m.Reply, Sequence[Frame], int]


class Kept:
    """The answers of one process. results_sent: `Results` messages sent over the present link; bytes: kept in all."""

    def __init__(self, bytes_max: int = KEPT_BYTES_MAX) -> None:
        self.results_sent = 0
        self.bytes = 0
        self._bytes_max = bytes_max
        self._results: deque[_KeptResults] = deque()  # the last is number results_sent
        self._replies: OrderedDict[m.TaskId, _KeptReply] = OrderedDict()

    @property
    def held(self) -> int:
        """Batches of results and replies that are kept."""
        return len(self._results) + len(self._replies)

    def add_results(self, batch: m.Results, frames: Sequence[Frame] = ()) -> None:
        """This batch is being sent."""
        size = sum([len(result.payload) for result in batch.results]) + sum([len(frame) for frame in frames])
        self.results_sent += 1
        self._results.append((batch, frames, size))
        self._grow(size)

    def add_reply(self, reply: m.Reply, frames: Sequence[Frame] = ()) -> None:
        """This reply is being sent."""
        size = sum([len(frame) for frame in frames])
        self._replies[reply.request] = (reply, frames, size)
        self._grow(size)

    def on_ack(self, ack: m.Ack) -> None:
        """The root has these."""
        while self._results and self.results_sent - len(self._results) < ack.results:
            self.bytes -= self._results.popleft()[2]
        for request in ack.requests:
            kept = self._replies.pop(request, None)
            if kept is not None:
                self.bytes -= kept[2]

    def ids(self) -> list[m.TaskId]:
        """The requests and tasks whose answers are kept."""
        return [*self._replies, *(result.id for batch, _, _ in self._results for result in batch.results)]

    def again(self) -> Iterator[tuple[m.Reply | m.Results, Sequence[Frame]]]:
        """All that is kept, to be sent over a new link, on which counting begins anew."""
        self.results_sent = len(self._results)
        for batch, frames, _ in self._results:
            yield batch, frames
        for reply, frames, _ in self._replies.values():
            yield reply, frames

    def _grow(self, size: int) -> None:
        """Make room: what is oldest and has a payload becomes a note. The newest always stays."""
        self.bytes += size
        if self.bytes <= self._bytes_max:
            return
        for place in range(len(self._results) - 1):
            batch, _, held = self._results[place]
            if held:
                self._results[place] = (_without_payloads(batch), (), 0)
                self.bytes -= held
                if self.bytes <= self._bytes_max:
                    return
        for request in list(self._replies)[:-1]:
            reply, _, held = self._replies[request]
            if held:
                self._replies[request] = (_without_answers(reply), (), 0)
                self.bytes -= held
                if self.bytes <= self._bytes_max:
                    return


def _without_payloads(batch: m.Results) -> m.Results:
    """The same results, those with an outcome as lost ones."""
    text = _LOST.encode()
    return m.Results(
        [
            m.Result(result.id, result.rank, result.duration_us, m.ANSWER_LOST, text, 0)
            if result.code in (0, m.RAISED)
            else result
            for result in batch.results
        ]
    )


def _without_answers(reply: m.Reply) -> m.Reply:
    """The same reply, with all its answers lost."""
    ranks = 0
    for chunk in reply.chunks:
        ranks |= bitset.from_wire(chunk.ranks)
    losses = [*reply.losses, m.Loss(bitset.to_wire(ranks), m.ANSWER_LOST, _LOST)] if ranks else reply.losses
    return m.Reply(reply.request, [], losses)
