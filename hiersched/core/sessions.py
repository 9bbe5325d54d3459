"""The clients of the root, and the sessions that outlive them.

A session is named by its client's link. An ordinary one ends with its client. A detached one goes on without: its
answers and output are kept for whoever joins it next, under the same name, who is sent all of it again. What is kept is
bounded; above, the oldest answers shrink to a note that they are lost.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Sequence
from dataclasses import dataclass, field

from hiersched.core.effects import Link
from hiersched.core.membership import Neighbour
from hiersched.core.outbox import Outbox
from hiersched.core.receipts import targets_of
from hiersched.kernels import bitset
from hiersched.limits import SESSION_BYTES_MAX, SESSIONS_DETACHED_MAX
from hiersched.protocol import messages as m
from hiersched.protocol.framing import Frame, batches, split_frames

_LOST = "its answer was dropped: the session had more than the root keeps for one that is detached"

_Answer = tuple[m.Result | m.Reply, Sequence[Frame], int]  # and its bytes


@dataclass(slots=True, eq=False)
class _Store:
    """What a detached session has been answered."""

    answers: OrderedDict[m.TaskId, _Answer] = field(default_factory=OrderedDict)
    outputs: list[tuple[m.Outputs, Sequence[Frame]]] = field(default_factory=list)
    bytes: int = 0

    def put(self, task: m.TaskId, answer: m.Result | m.Reply, frames: Sequence[Frame]) -> None:
        """Keep an answer; the oldest that has a payload may shrink for it, the newest never."""
        size = sum([len(frame) for frame in frames])
        if type(answer) is m.Result:
            size += len(answer.payload)
        self.answers[task] = (answer, frames, size)
        self.bytes += size
        for old in list(self.answers)[:-1] if self.bytes > SESSION_BYTES_MAX else ():
            kept, _, held = self.answers[old]
            if held:
                self.answers[old] = (_note_of(kept), (), 0)
                self.bytes -= held
            if self.bytes <= SESSION_BYTES_MAX:
                break

    def put_outputs(self, outputs: m.Outputs, frames: Sequence[Frame]) -> None:
        """Keep output while there is room."""
        size = sum([len(frame) for frame in frames])
        if self.bytes + size <= SESSION_BYTES_MAX:
            self.outputs.append((outputs, frames))
            self.bytes += size


@dataclass(slots=True, eq=False)
class Session:
    """One client's. next: the counter of its next task; away: its client has left it."""

    client: Neighbour
    number: int
    next: int = 1
    away: bool = False
    store: _Store | None = None


class Sessions:
    """The sessions of one root, by the link of their clients."""

    def __init__(self, outbox: Outbox) -> None:
        self.sessions: dict[Link, Session] = {}
        self._outbox = outbox
        self._count = 0

    def refusal(self, hello: m.Hello, link: Link) -> m.Refused | None:
        """Why this client may not come in; None if it may."""
        known = self.sessions.get(link)
        if known is not None and not known.away and known.client.uuid != hello.uuid:
            return m.Refused("NotAuthorised", "another client of this name is connected")
        detached = sum(session.store is not None for session in self.sessions.values())
        if hello.detached and (known is None or known.store is None) and detached >= SESSIONS_DETACHED_MAX:
            return m.Refused("CapacityError", f"the root keeps {SESSIONS_DETACHED_MAX} detached sessions already")
        return None

    def enter(self, client: Neighbour, *, detached: bool) -> Session:
        """A client comes: to its own session, new, or left before."""
        session = self.sessions.get(client.link)
        if session is None:
            self._count += 1
            session = self.sessions[client.link] = Session(client, self._count)
        session.client = client
        session.away = False
        if detached and session.store is None:
            session.store = _Store()
        return session

    def note_ids(self, link: Link, last: m.TaskId) -> None:
        """A client has used ids up to this one."""
        session = self.sessions.get(link)
        if session is not None:
            session.next = max(session.next, (last & (1 << m.SESSION_SHIFT) - 1) + 1)

    def leave(self, link: Link, *, stays: bool) -> bool:
        """A client is gone. Whether its session goes on without it."""
        session = self.sessions[link]
        if stays and session.store is not None:
            session.away = True
            return True
        del self.sessions[link]
        return False

    # --- answers ------------------------------------------------------------------------------------------------------

    def send_results(self, link: Link, batch: m.Results, frames: Sequence[Frame]) -> None:
        """Results for a client, if it still has a session."""
        session = self.sessions.get(link)
        if session is None:
            return
        if session.store is not None:
            pieces = split_frames([result.frames for result in batch.results], frames)
            for result, piece in zip(batch.results, pieces, strict=True):
                session.store.put(result.id, result, piece)
        if not session.away:
            self._outbox.send(link, batch, frames)

    def send_reply(self, link: Link, reply: m.Reply, frames: Sequence[Frame]) -> None:
        """A reply for a client, if it still has a session."""
        session = self.sessions.get(link)
        if session is None:
            return
        if session.store is not None:
            session.store.put(reply.request, reply, frames)
        if not session.away:
            self._outbox.send(link, reply, frames)

    def send_outputs(self, link: Link, outputs: m.Outputs, frames: Sequence[Frame]) -> None:
        """Live output for a client, if it still has a session."""
        session = self.sessions.get(link)
        if session is None:
            return
        if session.store is not None:
            session.store.put_outputs(outputs, frames)
        if not session.away:
            self._outbox.send(link, outputs, frames)

    def answered(self, link: Link) -> list[tuple[m.TaskId, m.Ranks | None]]:
        """(request, targets) and (task, None) of all whose answers are kept for a session."""
        store = self.sessions[link].store
        answers = store.answers.items() if store is not None else ()
        return [
            (task, bitset.to_wire(targets_of(answer)) if type(answer) is m.Reply else None)
            for task, (answer, _, _) in answers
        ]

    def send_again(self, link: Link) -> None:
        """All that is kept for the session that this client has joined."""
        store = self.sessions[link].store
        if store is None:
            return
        for outputs, frames in store.outputs:
            self._outbox.send(link, outputs, frames)
        results = [(answer, frames) for answer, frames, _ in store.answers.values() if type(answer) is m.Result]
        all_frames = [frame for _, frames in results for frame in frames]
        listed = [result for result, _ in results]
        for these, theirs in batches(listed):
            self._outbox.send(link, m.Results(listed[these]), all_frames[theirs])
        for answer, frames, _ in store.answers.values():
            if type(answer) is m.Reply:
                self._outbox.send(link, answer, frames)


def _note_of(answer: m.Result | m.Reply) -> m.Result | m.Reply:
    """What is left of an answer that is dropped."""
    if type(answer) is m.Reply:
        return m.Reply(answer.request, [], [m.Loss(bitset.to_wire(targets_of(answer)), m.ANSWER_LOST, _LOST)])
    assert type(answer) is m.Result
    return m.Result(answer.id, answer.rank, answer.duration_us, m.ANSWER_LOST, _LOST.encode(), 0)
