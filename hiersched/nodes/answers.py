"""What an engine answers: replies to calls at once, results of tasks in batches.

Where the root is not the parent, what was sent is kept until the root is known to have it, and sent again to another
parent (docs/decisions/0008).
"""

from __future__ import annotations

import time

from hiersched.core.kept import Kept
from hiersched.data.outcomes import PackedOutcome
from hiersched.data.reports import Failure, read_report
from hiersched.kernels import bitset
from hiersched.nodes.line import Line
from hiersched.protocol import messages as m
from hiersched.protocol.framing import Frame, batches, inline

CANCELLED = "cancelled before it started"
INTERRUPTED = "interrupted while it ran"
BLOB_LOST = "data of it is no longer held anywhere; submit it again"
_TEXT_CHARS_MAX = 1_000  # of what explains a result without an outcome


def text_of(packed: PackedOutcome) -> str:
    """What an outcome that does not travel says."""
    failure = read_report(packed.reports[0])
    assert isinstance(failure, Failure), "an outcome that failed reports first how"
    return f"{failure.ename}: {failure.evalue}"[:_TEXT_CHARS_MAX]


class Answers:
    """The answers of the engine of `rank`. gathered: results that were not sent yet. flushed_s: when some last were."""

    def __init__(self, line: Line, rank: int) -> None:
        self.gathered: list[m.Result] = []
        self.flushed_s = 0.0
        self._frames: list[Frame] = []
        self._kept: Kept | None = None
        self._line = line
        self._rank = rank
        self._wire_rank = bitset.to_wire(1 << rank)

    # --- calls --------------------------------------------------------------------------------------------------------

    def reply(self, request: m.TaskId, packed: PackedOutcome) -> None:
        """Answer a call with its outcome."""
        frames = packed.frames
        reply = m.Reply(request, [m.Chunk(self._wire_rank, [], len(frames))], [])
        if packed.reports:
            reply = m.Reply(request, reply.chunks, [], [m.Report(self._wire_rank)] * len(packed.reports))
            frames = packed.whole
        if self._kept is not None:
            self._kept.add_reply(reply, frames)
        self._line.uplink.send(reply, frames)

    def reply_without(self, request: m.TaskId, code: int, text: str) -> None:
        """Answer a call that has no outcome. code: why."""
        reply = m.Reply(request, [], [m.Loss(self._wire_rank, code, text)])
        if self._kept is not None:
            self._kept.add_reply(reply)
        self._line.uplink.send(reply)

    # --- tasks --------------------------------------------------------------------------------------------------------

    def add_small(self, task: m.Task, duration_us: int, payload: bytes) -> None:
        """Add a task's outcome to the next batch that is one small frame, as nearly all are."""
        self.gathered.append(m.Result(task.id, self._rank, duration_us, 0, payload, 0, task.attempt))

    def add(self, task: m.Task, duration_us: int, code: int, packed: PackedOutcome) -> list[Frame]:
        """Add the outcome of a task to the next batch. All of its frames."""
        payload, frames = inline(packed.frames)
        if packed.reports:
            frames = [*frames, *packed.reports]
        self.gathered.append(m.Result(task.id, self._rank, duration_us, code, payload, len(frames), task.attempt))
        if not frames:
            return packed.frames
        self._frames.extend(frames)
        return packed.whole

    def add_without(self, task: m.Task, code: int, text: str) -> None:
        """Add a task that has no outcome. code: why."""
        payload = text.encode("utf-8", "backslashreplace")
        self.gathered.append(m.Result(task.id, self._rank, 0, code, payload, 0, task.attempt))

    def flush(self) -> None:
        """Send the results that have gathered."""
        if not self.gathered:
            return
        self.flushed_s = time.perf_counter()
        results, frames = self.gathered, self._frames
        self.gathered, self._frames = [], []
        for which, whose in batches(results):
            batch = m.Results(results[which])
            if self._kept is not None:
                self._kept.add_results(batch, frames[whose])
            self._line.uplink.send(batch, frames[whose])

    # --- until the root has them --------------------------------------------------------------------------------------

    def on_welcome(self, *, keep: bool) -> None:
        """A parent says whether answers are to be kept."""
        self._kept = (self._kept or Kept()) if keep else None

    def on_ack(self, ack: m.Ack) -> None:
        """The root has these."""
        if self._kept is not None:
            self._kept.on_ack(ack)

    def tries(self) -> list[m.Try]:
        """The calls and tasks with answers that are kept, or not sent yet."""
        kept = [] if self._kept is None else self._kept.tries()
        return kept + [(result.id, result.attempt) for result in self.gathered]

    def send_again(self) -> None:
        """To another parent: all that is kept."""
        if self._kept is not None:
            for message, frames in self._kept.again():
                self._line.uplink.send(message, frames)
