"""What was answered and the root is not yet known to have.

A process that is no child of the root keeps every `Results` and `Reply` that it sends up, as long as no `Ack` covers
it. When its parent is gone it says which requests and tasks it keeps answers to (`tries`), and sends them again to its
new parent (`again`). Only references are kept. Above KEPT_BYTES_MAX the oldest answers shrink to a note that they are
lost: what is not sent again must never look as if it had not run. That a task did not run and may elsewhere is no
answer, and not kept: who has heard it may have sent the task elsewhere already.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator, Sequence

from hiersched.core.retries import DID_NOT_RUN
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
        self._bare = 0  # so many of the oldest of them have shrunk
        self._replies: dict[m.TaskId, list[_KeptReply]] = {}  # of one request, in the order sent
        self._notes: dict[m.TaskId, list[_KeptReply]] = {}  # those that have shrunk; all are older

    @property
    def held(self) -> int:
        """Batches of results, and calls with replies, that are kept."""
        return len(self._results) + len(self._notes) + len(self._replies)

    def add_results(self, batch: m.Results, frames: Sequence[Frame] = ()) -> None:
        """This batch is being sent."""
        if not DID_NOT_RUN.isdisjoint([result.code for result in batch.results]):
            batch = m.Results([one for one in batch.results if one.code not in DID_NOT_RUN or one.frames])
        size = sum([len(result.payload) for result in batch.results]) + sum([len(frame) for frame in frames])
        self.results_sent += 1
        self._results.append((batch, frames, size))
        self.bytes += size
        if self.bytes > self._bytes_max:
            self._shrink()

    def add_reply(self, reply: m.Reply, frames: Sequence[Frame] = ()) -> None:
        """This reply is being sent; its request may have others, for other ranks."""
        size = sum([len(frame) for frame in frames])
        self._replies.setdefault(reply.request, []).append((reply, frames, size))
        self.bytes += size
        if self.bytes > self._bytes_max:
            self._shrink()

    def on_ack(self, ack: m.Ack) -> None:
        """The root has these. A call that is acknowledged has no further replies."""
        while self._results and self.results_sent - len(self._results) < ack.results:
            self.bytes -= self._results.popleft()[2]
            self._bare = max(0, self._bare - 1)
        for request in ack.requests:
            self._notes.pop(request, None)
            for _, _, size in self._replies.pop(request, ()):
                self.bytes -= size

    def tries(self) -> list[m.Try]:
        """The calls and tasks whose answers are kept."""
        calls = [*self._notes, *(request for request in self._replies if request not in self._notes)]
        return [*[(request, 0) for request in calls], *self.tasks()]

    def tasks(self) -> list[m.Try]:
        """The tasks whose results are kept."""
        return [(result.id, result.attempt) for batch, _, _ in self._results for result in batch.results]

    def again(self) -> Iterator[tuple[m.Reply | m.Results, Sequence[Frame]]]:
        """All that is kept, to be sent over a new link, on which counting begins anew."""
        self.results_sent = len(self._results)
        for batch, frames, _ in self._results:
            yield batch, frames
        for replies in (*self._notes.values(), *self._replies.values()):
            for reply, frames, _ in replies:
                yield reply, frames

    def _shrink(self) -> None:
        """Make room: what is oldest becomes a note, results first. The newest batch and the newest call always stay."""
        while self.bytes > self._bytes_max and self._bare < len(self._results) - 1:
            batch, _, size = self._results[self._bare]
            self._results[self._bare] = (_without_payloads(batch), (), 0)
            self._bare += 1
            self.bytes -= size
        while self.bytes > self._bytes_max and len(self._replies) > 1:
            request = next(iter(self._replies))
            notes = self._notes.setdefault(request, [])
            for reply, _, size in self._replies.pop(request):
                notes.append((_without_answers(reply), (), 0))
                self.bytes -= size


def _without_payloads(batch: m.Results) -> m.Results:
    """The same results, those with an outcome as lost ones."""
    text = _LOST.encode()
    return m.Results(
        [
            m.Result(result.id, result.rank, result.duration_us, m.ANSWER_LOST, text, 0, result.attempt)
            if result.code in (0, m.RAISED) or result.frames
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
