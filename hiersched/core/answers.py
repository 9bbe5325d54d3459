"""The results for one client, or for the parent: gathered, sent, and at the root remembered until they have been seen.

Other tasks may ask how a task ended before its client knows (docs/decisions/0009). So the root keeps what it sends, in
the order sent, until the client says that it has seen so many. That costs nothing per task as long as no task of the
client depends on others: only then are results looked up by task. What is kept is bounded in number, as a client has no
more than that in flight, and in bytes: above, the oldest lose their payloads.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator, Sequence

from hiersched.limits import ENDED_BYTES_MAX, TASKS_IN_FLIGHT_PER_CLIENT_MAX
from hiersched.protocol import messages as m
from hiersched.protocol.framing import Frame


class Answers:
    """results, frames: gathered and not sent yet; results may be added at any time, with their frames.

    remembers: what is sent is kept. ended: how tasks ended; None until somebody asks for it with `look_up`.
    """

    def __init__(self, *, remembers: bool, bytes_max: int = ENDED_BYTES_MAX) -> None:
        self.results: list[m.Result] = []
        self.frames: list[Frame] = []
        self.ended: dict[m.TaskId, m.Result] | None = None
        self._remembers = remembers
        self._bytes_max = bytes_max
        self._sent: deque[tuple[list[m.Result], int]] = deque()  # and the bytes of their payloads
        self._kept = 0  # results in there
        self._bytes = 0  # of all payloads,
        self._bare = 0  # which so many of the oldest batches have lost
        self._forgotten = 0  # results sent before these
        self._told = 0  # of `results`, those that `news` has given
        self._told_frames = 0
        self._sizes: dict[m.TaskId, int] = {}  # bytes of further frames

    def add(self, result: m.Result, frames: Sequence[Frame] = ()) -> None:
        """One more."""
        self.results.append(result)
        self.frames.extend(frames)

    def take(self) -> tuple[list[m.Result], list[Frame]]:
        """What is to be sent now."""
        assert self.ended is None or self._told == len(self.results), "somebody has not heard of these"
        results, frames = self.results, self.frames
        self.results, self.frames = [], []
        self._told = self._told_frames = 0
        if self._remembers:
            size = sum([len(result.payload) for result in results])
            self._sent.append((results, size))
            self._kept += len(results)
            self._bytes += size
            if self._bytes > self._bytes_max:
                self._shrink()
            while self._kept - len(self._sent[0][0]) >= TASKS_IN_FLIGHT_PER_CLIENT_MAX:
                self._forget()
        return results, frames

    def seen(self, count: int) -> None:
        """The client has seen so many results: their records go."""
        while self._sent and self._forgotten + len(self._sent[0][0]) <= count:
            self._forget()

    def send_again(self, count: int) -> None:
        """The last so many results are sent again, to a client that counts from there."""
        self._forgotten = count - self._kept

    # --- how tasks ended ----------------------------------------------------------------------------------------------

    def look_up(self) -> dict[m.TaskId, m.Result]:
        """How tasks ended that the client may not know of. From now on `news` must be asked for before each `take`."""
        if self.ended is None:
            self.ended = {result.id: result for batch, _ in self._sent for result in batch}
            for _ in self.news():
                pass
        return self.ended

    def news(self) -> Iterator[tuple[m.Result, int]]:
        """Results gathered since the last time, with the bytes of their frames. More may be gathered meanwhile."""
        assert self.ended is not None, "nobody has asked how tasks ended"
        while self._told < len(self.results):
            result = self.results[self._told]
            self._told += 1
            size = 0
            if result.frames:
                end = self._told_frames + result.frames
                size = sum([len(frame) for frame in self.frames[self._told_frames : end]])
                self._told_frames = end
                self._sizes[result.id] = size
            self.ended[result.id] = result
            yield result, size

    def size_of(self, task: m.TaskId) -> int:
        """Bytes of the frames of a task's result, besides its payload; 0 if that was sent before anybody asked."""
        return self._sizes.get(task, 0)

    def _forget(self) -> None:
        batch, size = self._sent.popleft()
        self._kept -= len(batch)
        self._forgotten += len(batch)
        self._bytes -= size
        self._bare = max(0, self._bare - 1)
        if self.ended is not None:
            for result in batch:
                self.ended.pop(result.id, None)
                self._sizes.pop(result.id, None)

    def _shrink(self) -> None:
        """Let the oldest payloads go."""
        while self._bytes > self._bytes_max:
            batch, size = self._sent[self._bare]
            bare = [m.Result(old.id, old.rank, old.duration_us, old.code, b"", old.frames) for old in batch]
            self._sent[self._bare] = (bare, 0)
            self._bare += 1
            self._bytes -= size
            if self.ended is not None:
                self.ended.update((result.id, result) for result in bare)
