"""One request of a client, from its submission to its last outcome."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Sequence
from typing import Protocol

from hiersched.client.losses import loss_error
from hiersched.data.outcomes import Outcome, lost_outcome, unpack_outcome
from hiersched.data.outputs import Output
from hiersched.data.reports import Printed, read_report
from hiersched.errors import ProtocolError, RemoteError, TaskCancelled
from hiersched.kernels import bitset
from hiersched.protocol import messages as m
from hiersched.protocol.framing import Frame, split_frames


class Listener(Protocol):
    """Who wants to know of a request before it is done. Called outside the session's lock, by whoever receives."""

    def on_output(self, pending: Pending, ranks: list[int], outputs: Sequence[Output]) -> None:
        """These engines printed or displayed this."""

    def on_parts(self, pending: Pending) -> None:
        """Some outcomes have come, perhaps the last."""


class Pending:
    """A call on `targets`, or, without targets until it is done, one load-balanced task.

    outcomes: (targets,) in the order of `targets`, None while not known. `done` is set when all are; callbacks then run
    in the thread that received the last one. cancelled: it was withdrawn, and nothing of it ended otherwise. method:
    'apply' or 'execute'. label, terms: the user's, if any. inputs: tasks whose results are among the arguments.
    digests: what is kept at hand for it, see Supplies. task: as it was sent, unless it is large. code: of a cell that
    is not silent; nothing else has this attribute, so that tasks, of which there are many, do not pay for it.
    """

    __slots__ = (
        "__weakref__",
        "_callbacks",
        "_early",
        "_places",
        "_remaining",
        "cancelled",
        "code",
        "digests",
        "done",
        "failed",
        "id",
        "inputs",
        "label",
        "listeners",
        "method",
        "outcomes",
        "received",
        "submitted",
        "targets",
        "task",
        "terms",
    )

    code: str

    def __init__(self, request: int, targets: tuple[int, ...], method: str = "apply") -> None:
        self.id = request
        self.targets = targets
        self.method = method
        self.submitted = time.time()
        self.received: float | None = None
        self.done = False
        self.failed = False
        self.cancelled = False
        self.digests: tuple[bytes, ...] = ()
        self.label: str | None = None
        self.task: m.Task | None = None
        self.terms: m.Terms | None = None
        self.inputs: tuple[Pending, ...] = ()
        self.listeners: tuple[Listener, ...] = ()
        self._remaining = len(targets) or 1
        self.outcomes: list[Outcome | None] = [None] * self._remaining
        self._callbacks: list[Callable[[Pending], object]] = []
        self._places: dict[int, int] | None = None
        self._early: dict[int, list[Output]] | None = None  # by place: what was printed so far

    def __repr__(self) -> str:
        state = "done" if self.done else f"{self._remaining} of {len(self.outcomes)} to come"
        return f"<Pending {self.id:#x}: {state}>"

    # --- waiting ------------------------------------------------------------------------------------------------------

    def add_done_callback(self, callback: Callable[[Pending], object]) -> None:
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

    def remove_done_callback(self, callback: Callable[[Pending], object]) -> None:
        """Call it no more, if it still would be."""
        try:
            self._callbacks.remove(callback)
        except ValueError:
            return  # it was called, or is about to be

    @property
    def complete(self) -> bool:
        """All outcomes are here, whether or not those who wait know yet."""
        return not self._remaining

    def requests(self) -> list[Pending]:
        """Itself. (A selection of parts has several.)"""
        return [self]

    def part(self, place: int) -> tuple[Pending, int]:
        """Itself and the place. (A selection's parts are those of others.)"""
        return self, place

    def missing(self) -> list[int]:
        """The targets whose outcomes are not here; none of a task, of which nobody knows where it is."""
        return [rank for rank, outcome in zip(self.targets, self.outcomes, strict=False) if outcome is None]

    def tell(self) -> None:
        """Tell who waits what has come. Called again where it was interrupted, it goes on from there."""
        if not self._remaining and not self.done:
            self.received = time.time()
            self.done = True
        if self.listeners:
            for listener in self.listeners:
                listener.on_parts(self)
        while self.done and self._callbacks:
            self._callbacks.pop(0)(self)

    # --- output of code that still runs -------------------------------------------------------------------------------

    def put_output(self, ranks: Iterable[int], outputs: Sequence[Output]) -> None:
        """Take in what these engines printed and displayed."""
        if self._early is None:
            self._early = {}
        for rank in ranks:
            self._early.setdefault(self.place_of(rank), []).extend(outputs)

    def outputs_of(self, place: int) -> list[Output]:
        """What the part in this place has printed and displayed so far, in order."""
        outcome = self.outcomes[place]
        if outcome is not None:
            return outcome.all_outputs
        return [] if self._early is None else list(self._early.get(place, ()))

    # --- outcomes -----------------------------------------------------------------------------------------------------

    def take(self, reply: m.Reply, frames: Sequence[Frame]) -> list[tuple[list[int], Sequence[Output]]]:
        """Take in the answers of a reply. What engines printed last, which is told to listeners only."""
        outcomes: dict[int, Outcome] = {}
        pieces = split_frames([chunk.frames for chunk in reply.chunks], frames)
        for chunk, piece in zip(reply.chunks, pieces, strict=True):
            if not chunk.sizes:
                outcomes[bitset.first_of(bitset.from_wire(chunk.ranks))] = _unpacked(piece)
                continue
            body = memoryview(piece[0])
            start = 0
            for rank, size in zip(bitset.ranks_of(bitset.from_wire(chunk.ranks)), chunk.sizes, strict=True):
                outcomes[rank] = _unpacked([body[start : start + size]])
                start += size
        last = self._take_reports(reply, frames, outcomes) if reply.reports else []
        for rank, outcome in outcomes.items():
            self.settle(rank, outcome)
        for loss in reply.losses:
            for rank in bitset.ranks_of(bitset.from_wire(loss.ranks)):
                self.settle(rank, lost_outcome(loss_error(loss.code, rank, loss.text)))
        return last

    def take_result(self, rank: int, frames: Sequence[Frame]) -> Sequence[Output]:
        """Take in the outcome of a task. What it printed last, if anybody listens."""
        try:
            outcome = unpack_outcome(frames)
        except ProtocolError as error:
            outcome = lost_outcome(error)
        if outcome.ok and self._early is None:  # as most are: the same as `settle`, in a third of its time
            outcome.engine_id = rank
            self.targets = (rank,)
            self.outcomes[0] = outcome
            self._remaining = 0
            return outcome.all_outputs if self.listeners else ()
        last = outcome.all_outputs if self.listeners else ()
        self.settle(rank, outcome)
        return last

    def _take_reports(
        self, reply: m.Reply, frames: Sequence[Frame], outcomes: dict[int, Outcome]
    ) -> list[tuple[list[int], Sequence[Output]]]:
        """Give the outcomes what they have in common. What was printed, and where."""
        printed: list[tuple[list[int], Sequence[Output]]] = []
        for shared, frame in zip(reply.reports, frames[len(frames) - len(reply.reports) :], strict=True):
            ranks = bitset.ranks_of(bitset.from_wire(shared.ranks))
            report = read_report(frame)
            if isinstance(report, Printed):
                printed.append((ranks, report.outputs))
            for rank in ranks:
                if rank in outcomes:
                    outcomes[rank].take(report)
        return printed

    def settle(self, rank: int, outcome: Outcome) -> None:
        """Take in the outcome of one rank; a second one is ignored."""
        outcome.engine_id = rank
        if not self.targets:
            self.targets = (rank,)
        place = 0 if len(self.targets) == 1 else self.place_of(rank)
        if self.outcomes[place] is not None:
            return
        if self._early is not None and place in self._early:
            outcome.take_output(self._early.pop(place))
        if not outcome.ok:
            self._note_failure(rank, outcome)
        self.outcomes[place] = outcome
        self._remaining -= 1
        if self.failed and not self._remaining:
            ends = [outcome.error for outcome in self.outcomes if outcome is not None]
            self.cancelled = all(isinstance(error, TaskCancelled) for error in ends)

    def place_of(self, rank: int) -> int:
        """The place of an engine's part among the outcomes; a task has but one, wherever it runs."""
        if len(self.targets) < 2:
            return 0
        if self._places is None:
            self._places = {target: place for place, target in enumerate(self.targets)}
        return self._places[rank]

    def _note_failure(self, rank: int, outcome: Outcome) -> None:
        self.failed = True
        if outcome.error is None:
            outcome.error = ProtocolError("the call failed, and its error did not come with the answer")
        elif isinstance(outcome.error, RemoteError):
            outcome.error.engine_id = rank
            outcome.error.method = self.method


def _unpacked(frames: Sequence[Frame]) -> Outcome:
    """The outcome in `frames`; one that says so if they hold none."""
    try:
        return unpack_outcome(frames)
    except ProtocolError as error:
        return lost_outcome(error)
