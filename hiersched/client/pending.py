"""One request of a client, from its submission to its last outcome."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence

from hiersched.data.outcomes import Outcome, lost_outcome, unpack_outcome
from hiersched.errors import (
    BlobLost,
    CapacityError,
    EngineLost,
    HierschedError,
    RemoteError,
    TaskCancelled,
    UnknownEngine,
)
from hiersched.kernels import bitset
from hiersched.protocol import messages as m
from hiersched.protocol.framing import Frame, split_frames

_LOSSES: dict[int, type[HierschedError]] = {
    m.ENGINE_LOST: EngineLost,
    m.ENGINE_UNKNOWN: UnknownEngine,
    m.BLOB_LOST: BlobLost,
    m.CANCELLED: TaskCancelled,
    m.REFUSED: CapacityError,
}


def loss_error(code: int, rank: int, text: str) -> HierschedError:
    """The exception for a part of a request that will never be answered."""
    error = _LOSSES.get(code, EngineLost)(
        f"engine {rank}: {text}" if code in (m.ENGINE_LOST, m.ENGINE_UNKNOWN) else text
    )
    if isinstance(error, EngineLost):
        error.engine_id = rank
    return error


class Pending:
    """A call on `targets`, or, without targets until it is done, one load-balanced task.

    outcomes: (targets,) in the order of `targets`, None while not known. `done` is set when all are; callbacks then run
    in the thread that received the last one.
    """

    __slots__ = (
        "_callbacks",
        "_places",
        "_remaining",
        "cancelled",
        "digests",
        "done",
        "failed",
        "id",
        "outcomes",
        "received",
        "submitted",
        "targets",
    )

    def __init__(self, request: int, targets: tuple[int, ...], digests: Sequence[bytes]) -> None:
        self.id = request
        self.targets = targets
        self.digests = digests
        self.submitted = time.time()
        self.received: float | None = None
        self.done = False
        self.failed = False
        self.cancelled = False
        self._remaining = len(targets) or 1
        self.outcomes: list[Outcome | None] = [None] * self._remaining
        self._callbacks: list[Callable[[Pending], None]] = []
        self._places: dict[int, int] | None = None

    def __repr__(self) -> str:
        state = "done" if self.done else f"{self._remaining} of {len(self.outcomes)} to come"
        return f"<Pending {self.id:#x}: {state}>"

    def add_done_callback(self, callback: Callable[[Pending], None]) -> None:
        """Call `callback(self)` once when all outcomes are here; at once if they are."""
        if not self.done:
            self._callbacks.append(callback)
            if not self.done:
                return
            try:
                self._callbacks.remove(callback)
            except ValueError:
                return  # it finished meanwhile and has called it
        callback(self)

    @property
    def complete(self) -> bool:
        """All outcomes are here, whether or not those who wait know yet."""
        return not self._remaining

    def missing(self) -> list[int]:
        """The targets whose outcomes are not here; [0] for a task that no engine is known to have."""
        return [rank for rank, outcome in zip(self.targets or (0,), self.outcomes, strict=True) if outcome is None]

    def take(self, reply: m.Reply, frames: Sequence[Frame]) -> None:
        """Take in the answers of a reply."""
        pieces = [frames] if len(reply.chunks) == 1 else split_frames([chunk.frames for chunk in reply.chunks], frames)
        for chunk, piece in zip(reply.chunks, pieces, strict=False):
            if not chunk.sizes:
                self.settle(bitset.first_of(bitset.from_wire(chunk.ranks)), unpack_outcome(piece))
                continue
            body = memoryview(piece[0])
            start = 0
            for rank, size in zip(bitset.ranks_of(bitset.from_wire(chunk.ranks)), chunk.sizes, strict=True):
                self.settle(rank, unpack_outcome([body[start : start + size]]))
                start += size
        for loss in reply.losses:
            for rank in bitset.ranks_of(bitset.from_wire(loss.ranks)):
                self.settle(rank, lost_outcome(loss_error(loss.code, rank, loss.text)))

    def settle(self, rank: int, outcome: Outcome) -> None:
        """Take in the outcome of one rank; a second one is ignored."""
        outcome.engine_id = rank
        if not self.targets:
            self.targets = (rank,)
        if len(self.targets) == 1:
            place = 0
        else:
            if self._places is None:
                self._places = {target: place for place, target in enumerate(self.targets)}
            place = self._places[rank]
        if self.outcomes[place] is not None:
            return
        self.outcomes[place] = outcome
        if not outcome.ok:
            self.failed = True
            if isinstance(outcome.error, RemoteError):
                outcome.error.engine_id = rank
        self._remaining -= 1

    def finish(self) -> None:
        """All outcomes are here: tell whoever waits."""
        self.received = time.time()
        self.done = True
        while self._callbacks:
            self._callbacks.pop(0)(self)
