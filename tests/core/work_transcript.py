"""The work of one scheduler alone, driven by hand: what it is sent, whom it hands tasks, how they end.

A test is a transcript, as in transcript.py: `root.gets(task(1), asking(2, after=...))`, then `root.hands_out()` for the
tasks that each child was given since, then `root.ends(1, rank=0)`, and `root.tells()` for the results that the client
was told since. Everything passes over the wire format. Children are named by their first rank.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from hiersched.core.blobs import BlobLedger
from hiersched.core.effects import PARENT, Link, Send
from hiersched.core.membership import Membership, Neighbour
from hiersched.core.outbox import Outbox
from hiersched.core.work import Work
from hiersched.protocol import messages as m
from hiersched.protocol.framing import Frame
from tests.core import neighbours
from tests.core.transcript import FUNCTION, over_the_wire

CLIENT = b"client"


def asking(number: int, *, frames: int = 0, **terms: Any) -> m.Task:
    """A task with terms."""
    return m.Task(number, FUNCTION, [], b"arguments", frames, m.Terms(**terms))


class WorkTranscript:
    """Work of the root, or of a scheduler below it, that talks to one client or to the parent. now_s: its clock."""

    def __init__(self, *, is_root: bool = True) -> None:
        self.membership = Membership()
        self.outbox = Outbox()
        self.work = Work(self.outbox, self.membership, BlobLedger(is_root=is_root), is_root=is_root)
        self.asker: Link = CLIENT if is_root else PARENT
        if is_root:
            neighbours.client(self.membership, CLIENT)
        self.now_s = 0.0
        self._sent: list[Send] = []
        self._told: list[m.Result] = []
        self.told_frames: list[Frame] = []

    # --- children -----------------------------------------------------------------------------------------------------

    def engines(self, *ranks: int) -> list[Neighbour]:
        """Engines of these ranks have joined."""
        return [neighbours.engine(self.membership, rank) for rank in ranks]

    def scheduler(self, first: int, last: int) -> Neighbour:
        """A scheduler of these ranks has joined, with all its engines."""
        return neighbours.scheduler(self.membership, first, last)

    def loses(self, child: Neighbour, reason: str = "killed") -> None:
        """A child is gone for good."""
        self.membership.remove_child(child.link)
        self.work.on_lost(child, reason)

    # --- in -----------------------------------------------------------------------------------------------------------

    def gets(self, *tasks: m.Task, seen: int = 0, frames: Sequence[Frame] = ()) -> None:
        """A batch comes from above."""
        batch, theirs = over_the_wire(m.Tasks(list(tasks), seen), frames)
        self.work.on_tasks(self.asker, batch, theirs, self.now_s)

    def ends(
        self, number: int, *, rank: int = 0, code: int = 0, payload: bytes = b"value", frames: Sequence[Frame] = ()
    ) -> None:
        """The child that has a task says how it ended."""
        flight = self.work.dispatcher.flights[number]
        child = flight.child
        result = m.Result(number, rank, 1_000_000, code, payload, len(frames), flight.task.attempt)
        batch, theirs = over_the_wire(m.Results([result]), frames)
        self.work.on_results(child, batch, theirs)

    def cancels(self, *numbers: int, running: bool = False) -> None:
        """Whoever sent these tasks withdraws them."""
        self.work.on_cancel(self.asker, m.Cancel(list(numbers), running), (), self.now_s)

    # --- out ----------------------------------------------------------------------------------------------------------

    def settles(self) -> None:
        """Nothing more waits to be heard."""
        self.work.hand_out()
        self.work.pass_on()
        for effect in self.outbox.take():
            message, frames = over_the_wire(effect.message, effect.frames)
            if type(message) is m.Results:
                assert effect.link == self.asker
                self._told.extend(message.results)
                self.told_frames.extend(frames)
            else:
                self._sent.append(Send(effect.link, message, frames))

    def says(self) -> list[tuple[Link, m.Message]]:
        """What was said to children since the last look."""
        self.settles()
        sent, self._sent = self._sent, []
        return [(effect.link, effect.message) for effect in sent]

    def hands_out(self) -> dict[int, list[int]]:
        """The tasks given to children since the last look, by the first rank of each."""
        given: dict[int, list[int]] = {}
        for link, message in self.says():
            assert type(message) is m.Tasks, message
            first = self.membership.children[link].first
            given.setdefault(first, []).extend(task.id for task in message.tasks)
        return given

    def gives(self) -> list[m.Task]:
        """The same tasks as they were sent."""
        return [task for _, message in self.says() for task in message.tasks]

    def results(self) -> list[m.Result]:
        """The results told since the last look."""
        self.settles()
        told, self._told = self._told, []
        return told

    def tells(self) -> list[tuple[int, int, str]]:
        """(task, code, payload) of the same."""
        return [(result.id, result.code, result.payload.decode()) for result in self.results()]

    def codes(self) -> dict[int, int]:
        """{task: code} of the same results. No task ends twice."""
        told = self.tells()
        assert len({task for task, _, _ in told}) == len(told)
        return {task: code for task, code, _ in told}
