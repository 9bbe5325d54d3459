"""Up: the answers of a subtree gathered into one reply.

An open request remembers which ranks still owe an answer, and the call itself, in case it has to be sent again. Every
rank leaves that set exactly once: by its answer, or by a loss when its engine is gone. When the set is empty the reply
goes to whoever asked. So every request ends, and each scheduler sends one message per request up, whatever the size of
its subtree; what has waited PARTIAL_REPLY_S for the rest goes ahead, so that nobody's answer hangs on the slowest.
Reports that are equal (an error, what was printed) become one on the way.
"""

from __future__ import annotations

from collections import Counter, deque
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field

from hiersched.kernels import bitset
from hiersched.limits import COALESCE_BYTES_MAX, PARTIAL_REPLY_S
from hiersched.protocol.framing import Frame, split_frames
from hiersched.protocol.messages import Call, Chunk, Loss, Reply, Report, TaskId

Link = bytes

Finished = tuple[Link, Reply, Sequence[Frame]]  # who asked, and a reply that is to go there

_NEVER_S = float("inf")


@dataclass(slots=True, eq=False)
class OpenRequest:
    """A call whose answers are being gathered. pending: ranks that still owe one.

    due_s: when what has gathered goes ahead of the rest; infinite while nothing has. withdrawn: it is to be cancelled;
    interrupted: even where it runs. epoch: of replacements, when it was sent.
    """

    call: Call
    frames: Sequence[Frame]
    asker: Link
    targets: int
    pending: int
    chunks: list[tuple[Chunk, Sequence[Frame]]] = field(default_factory=list)
    losses: dict[tuple[int, str], int] = field(default_factory=dict)
    reports: Reports | None = None
    due_s: float = _NEVER_S
    withdrawn: bool = False
    interrupted: bool = False
    epoch: int = 0


class Reports:
    """Reports gathered for one request: equal ones, unless they are large, as one with all its ranks."""

    __slots__ = ("_equal", "_own")

    def __init__(self) -> None:
        self._equal: dict[bytes, int] = {}
        self._own: list[tuple[int, Frame]] = []

    def add(self, ranks: int, frame: Frame) -> None:
        """One report of these ranks. A transport's frame is a large one: it is not compared."""
        if type(frame) is bytes:
            self._equal[frame] = self._equal.get(frame, 0) | ranks
        else:
            self._own.append((ranks, frame))

    def listed(self) -> tuple[list[Report], list[Frame]]:
        """All reports and their frames."""
        reports = [*((ranks, frame) for frame, ranks in self._equal.items()), *self._own]
        return [Report(bitset.to_wire(ranks)) for ranks, _ in reports], [frame for _, frame in reports]


class Gather:
    """The open requests of one scheduler, by id, in the order they came.

    late: answers nobody waits for any more. due_s: when to call `overdue`; infinite if nothing has gathered.
    """

    def __init__(self) -> None:
        self.open: dict[TaskId, OpenRequest] = {}
        self.late = 0
        self.due_s = _NEVER_S
        self._waiting: deque[tuple[float, TaskId]] = deque()  # when what has gathered is due; some have ended since

    def begin(self, call: Call, frames: Sequence[Frame], asker: Link, targets: int) -> OpenRequest:
        """Start waiting for `targets`."""
        entry = OpenRequest(call, frames, asker, targets, targets)
        self.open[call.request] = entry
        return entry

    def answer(self, reply: Reply, frames: Sequence[Frame], reach: int, now: float) -> Finished | None:
        """Take in what a child that answers for `reach` says. The finished reply and its asker, if it was the last."""
        entry = self.open.get(reply.request)
        if entry is None:
            self.late += 1
            return None
        answered = _ranks_in(reply)
        if answered == entry.pending and entry.due_s == _NEVER_S and not answered & ~reach:
            del self.open[reply.request]  # nothing has gathered: this reply is the reply
            return entry.asker, reply, frames
        pieces = split_frames([chunk.frames for chunk in reply.chunks], frames)
        taken = 0
        for chunk, piece in zip(reply.chunks, pieces, strict=True):
            ranks = bitset.from_wire(chunk.ranks)
            owed = ranks & entry.pending & reach
            if owed != ranks:  # the rest answered below, but was reported lost before this reply came up
                self.late += (ranks ^ owed).bit_count()
                chunk, piece = _part_of(chunk, piece, owed)
            if owed:
                entry.pending ^= owed
                entry.chunks.append((chunk, piece))
                taken |= owed
        if reply.reports:
            _take_reports(entry, reply, frames, taken)
        for loss in reply.losses:
            self._lose(entry, bitset.from_wire(loss.ranks) & reach, loss.code, loss.text)
        return self._finish(entry, now)

    def lose(self, request: TaskId, ranks: int, code: int, text: str, now: float) -> Finished | None:
        """These ranks will never answer this request. The finished reply, if nothing else is awaited."""
        entry = self.open.get(request)
        if entry is None:
            return None
        self._lose(entry, ranks, code, text)
        return self._finish(entry, now)

    def lose_everywhere(self, ranks: int, code: int, text: str, now: float) -> list[Finished]:
        """These ranks are gone: settle what they owe to any request. All replies that this finishes."""
        finished = []
        for request in [entry.call.request for entry in self.open.values() if entry.pending & ranks]:
            done = self.lose(request, ranks, code, text, now)
            if done is not None:
                finished.append(done)
        return finished

    def overdue(self, now: float) -> list[Finished]:
        """What has waited for the rest of its request long enough, to go ahead."""
        ahead = []
        waiting = self._waiting
        while waiting:
            due_s, request = waiting[0]
            entry = self.open.get(request)
            waits = entry is not None and entry.due_s == due_s
            if waits and due_s > now:
                break
            waiting.popleft()
            if entry is not None and waits:
                ahead.append(self._take_gathered(entry))
        self.due_s = waiting[0][0] if waiting else _NEVER_S
        return ahead

    def owes(self, request: TaskId, reach: int) -> bool:
        """Whether a child that answers for `reach` has not yet answered all of a request."""
        entry = self.open.get(request)
        return entry is not None and entry.pending & reach != 0

    def asked_by(self, asker: Link) -> list[TaskId]:
        """The open requests of whoever this is."""
        return [request for request, entry in self.open.items() if entry.asker == asker]

    def forget(self, asker: Link) -> None:
        """Whoever asked is gone: nobody waits for its requests."""
        for request in self.asked_by(asker):
            del self.open[request]

    def owed_by(self, ranks: Iterable[int]) -> Counter[int]:
        """How many calls each of these engines has not answered."""
        asked = bitset.of_ranks(ranks)
        owed: Counter[int] = Counter()
        for entry in self.open.values():
            owed.update(bitset.ranks_of(entry.pending & asked))
        return owed

    def _lose(self, entry: OpenRequest, ranks: int, code: int, text: str) -> None:
        ranks &= entry.pending
        if ranks:
            entry.pending ^= ranks
            entry.losses[code, text] = entry.losses.get((code, text), 0) | ranks

    def _finish(self, entry: OpenRequest, now: float) -> Finished | None:
        if not entry.pending:
            del self.open[entry.call.request]
            return self._take_gathered(entry)
        if entry.due_s == _NEVER_S and (entry.chunks or entry.losses):
            entry.due_s = now + PARTIAL_REPLY_S
            self._waiting.append((entry.due_s, entry.call.request))
            self.due_s = min(self.due_s, entry.due_s)
        return None

    def _take_gathered(self, entry: OpenRequest) -> Finished:
        """All that has gathered for a request, as one reply. Nothing has gathered then."""
        chunks, frames = coalesce(entry.chunks)
        losses = [Loss(bitset.to_wire(ranks), code, text) for (code, text), ranks in entry.losses.items()]
        reports: list[Report] = []
        if entry.reports is not None:
            reports, report_frames = entry.reports.listed()
            frames.extend(report_frames)
        if entry.pending:
            entry.chunks, entry.losses, entry.reports, entry.due_s = [], {}, None, _NEVER_S
        return entry.asker, Reply(entry.call.request, chunks, losses, reports), frames


def coalesce(
    chunks: list[tuple[Chunk, Sequence[Frame]]],
) -> tuple[list[Chunk], list[Frame]]:
    """The same answers with all small single ones joined into one chunk of one frame.

    A leaf of 64 engines thus sends one small frame up and not 64; chunks that are already joined pass untouched.
    """
    small: list[tuple[int, Frame]] = []
    kept: list[Chunk] = []
    frames: list[Frame] = []
    for chunk, piece in chunks:
        if chunk.frames == 1 and not chunk.sizes and len(piece[0]) <= COALESCE_BYTES_MAX:
            small.append((bitset.from_wire(chunk.ranks).bit_length() - 1, piece[0]))
        else:
            kept.append(chunk)
            frames.extend(piece)
    if small:
        small.sort(key=_by_rank)
        bits = 0
        for rank, _ in small:
            bits |= 1 << rank
        kept.append(Chunk(bitset.to_wire(bits), [len(frame) for _, frame in small], 1))
        frames.append(b"".join([frame for _, frame in small]))
    return kept, frames


def _take_reports(entry: OpenRequest, reply: Reply, frames: Sequence[Frame], taken: int) -> None:
    """Gather the reports of those ranks whose answers were taken."""
    if entry.reports is None:
        entry.reports = Reports()
    for report, frame in zip(reply.reports, frames[len(frames) - len(reply.reports) :], strict=True):
        ranks = bitset.from_wire(report.ranks) & taken
        if ranks:
            entry.reports.add(ranks, frame)


def _part_of(chunk: Chunk, piece: Sequence[Frame], ranks: int) -> tuple[Chunk, Sequence[Frame]]:
    """The answers of `ranks`, some of the chunk's or none."""
    sizes: list[int] = []
    kept: list[Frame] = []
    start = 0
    for rank, size in zip(bitset.ranks_of(bitset.from_wire(chunk.ranks)), chunk.sizes, strict=False):
        if ranks >> rank & 1:
            sizes.append(size)
            kept.append(memoryview(piece[0])[start : start + size])
        start += size
    return Chunk(bitset.to_wire(ranks), sizes, 1), [b"".join(kept)]


def _by_rank(item: tuple[int, Frame]) -> int:
    return item[0]


def _ranks_in(reply: Reply) -> int:
    """All ranks a reply speaks for."""
    if len(reply.chunks) == 1 and not reply.losses:
        return bitset.from_wire(reply.chunks[0].ranks)
    ranks = 0
    for chunk in reply.chunks:
        ranks |= bitset.from_wire(chunk.ranks)
    for loss in reply.losses:
        ranks |= bitset.from_wire(loss.ranks)
    return ranks
