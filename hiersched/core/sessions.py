"""The clients of the root, and the sessions that outlive them.

A session is named by its client's link. An ordinary one ends with its client. A detached one goes on without: its
answers and output are kept for whoever joins it next, under the same name, who is sent all of it again. What is kept is
bounded: above, the oldest output goes first, then the oldest answers shrink to a note that they are lost; and of very
many answers the oldest are forgotten.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass

from hiersched.core.effects import Link
from hiersched.core.membership import Neighbour
from hiersched.core.outbox import Outbox
from hiersched.core.receipts import targets_of
from hiersched.kernels import bitset
from hiersched.limits import CONNECT_TIMEOUT_S, SESSION_ANSWERS_MAX, SESSION_BYTES_MAX, SESSIONS_DETACHED_MAX
from hiersched.protocol import messages as m
from hiersched.protocol.framing import Frame, batches, split_frames

_LOST = "its answer was dropped: the session had more than the root keeps for one that is detached"

_NAMED_MAX = 8  # sessions, in an error

_Answer = tuple[m.Result | m.Reply, Sequence[Frame], int]  # and its bytes
_Said = tuple[m.Outputs, Sequence[Frame], int]


class Store:
    """What a detached session has been answered, in the order that it was."""

    __slots__ = ("_answers", "_bare", "_bytes", "_bytes_max", "_outputs")

    def __init__(self, bytes_max: int = SESSION_BYTES_MAX) -> None:
        self._bytes_max = bytes_max
        self._bytes = 0
        self._answers: deque[_Answer] = deque()
        self._bare = 0  # so many of the oldest have shrunk
        self._outputs: deque[_Said] = deque()

    def put(self, answer: m.Result | m.Reply, frames: Sequence[Frame]) -> None:
        """Keep an answer; older ones may shrink for it."""
        size = sum([len(frame) for frame in frames])
        if type(answer) is m.Result:
            size += len(answer.payload)
        self._answers.append((answer, frames, size))
        self._bytes += size
        if len(self._answers) > SESSION_ANSWERS_MAX:
            self._bytes -= self._answers.popleft()[2]
            self._bare = max(0, self._bare - 1)
        self._shrink()

    def put_outputs(self, outputs: m.Outputs, frames: Sequence[Frame]) -> None:
        """Keep output; older output, and older answers, may go for it."""
        size = sum([len(frame) for frame in frames])
        self._outputs.append((outputs, frames, size))
        self._bytes += size
        if len(self._outputs) > SESSION_ANSWERS_MAX:
            self._bytes -= self._outputs.popleft()[2]
        self._shrink()

    def outputs(self) -> list[tuple[m.Outputs, Sequence[Frame]]]:
        """All output that is kept."""
        return [(outputs, frames) for outputs, frames, _ in self._outputs]

    def results(self) -> list[tuple[m.Result, Sequence[Frame]]]:
        """All results that are kept."""
        return [(answer, frames) for answer, frames, _ in self._answers if type(answer) is m.Result]

    def replies(self) -> list[tuple[m.Reply, Sequence[Frame]]]:
        """All replies that are kept; a request may have several, for different ranks."""
        return [(answer, frames) for answer, frames, _ in self._answers if type(answer) is m.Reply]

    def _shrink(self) -> None:
        """Make room. The newest answer always stays."""
        while self._bytes > self._bytes_max and self._outputs:
            self._bytes -= self._outputs.popleft()[2]
        while self._bytes > self._bytes_max and self._bare < len(self._answers) - 1:
            answer, _, size = self._answers[self._bare]
            self._answers[self._bare] = (_note_of(answer), (), 0)
            self._bare += 1
            self._bytes -= size


@dataclass(slots=True, eq=False)
class Session:
    """One client's. next: the counter of its next task; away: its client has left it; reserved_until_s: for another one
    that is about to join it.
    """

    client: Neighbour
    number: int
    next: int = 1
    away: bool = False
    reserved_until_s: float = 0.0
    store: Store | None = None


class Sessions:
    """The sessions of one root, by the link of their clients."""

    def __init__(self, outbox: Outbox) -> None:
        self.sessions: dict[Link, Session] = {}
        self._outbox = outbox
        self._count = 0

    def refusal(self, hello: m.Hello, link: Link) -> m.Refused | None:
        """Why there is no session for this client; None if there is."""
        known = self.sessions.get(link)
        detached = sum(session.store is not None for session in self.sessions.values())
        if hello.detached and (known is None or known.store is None) and detached >= SESSIONS_DETACHED_MAX:
            return m.Refused("CapacityError", f"the root keeps {SESSIONS_DETACHED_MAX} detached sessions already")
        return None

    def reserve(self, name: Link, now: float) -> m.Refused | None:
        """Somebody is about to join the session of this name, and nobody else for a while. Why not, if it cannot be."""
        session = self.sessions.get(name)
        if session is not None and session.store is not None:
            if self.is_reserved(name, now):
                return m.Refused("SessionTaken", "another client is about to join this session")
            session.reserved_until_s = now + CONNECT_TIMEOUT_S
            return None
        known = [link.decode(errors="replace") for link, one in self.sessions.items() if one.store is not None]
        shown = ", ".join(known[-_NAMED_MAX:]) or "there are none"
        text = f"there is no session {name.decode()!r} that outlives its client; those that do: {shown}"
        more = f", and {len(known) - _NAMED_MAX} others" if len(known) > _NAMED_MAX else ""
        return m.Refused("UnknownSession", text + more)

    def is_reserved(self, name: Link, now: float) -> bool:
        """Whether somebody is about to join the session of this name."""
        session = self.sessions.get(name)
        return session is not None and now < session.reserved_until_s

    def enter(self, client: Neighbour, *, detached: bool) -> Session:
        """A client comes: to its own session, new, or left before."""
        session = self.sessions.get(client.link)
        if session is None:
            self._count += 1
            session = self.sessions[client.link] = Session(client, self._count)
        session.client = client
        session.away = False
        session.reserved_until_s = 0.0
        if detached and session.store is None:
            session.store = Store()
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
                session.store.put(result, piece)
        if not session.away:
            self._outbox.send(link, batch, frames)

    def send_reply(self, link: Link, reply: m.Reply, frames: Sequence[Frame]) -> None:
        """A reply for a client, if it still has a session."""
        session = self.sessions.get(link)
        if session is None:
            return
        if session.store is not None:
            session.store.put(reply, frames)
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

    def answered(self, link: Link) -> list[tuple[m.TaskId, int | None]]:
        """(request, ranks) and (task, None) of all answers that are kept for a session."""
        store = self.sessions[link].store
        if store is None:
            return []
        replies = [(reply.request, targets_of(reply)) for reply, _ in store.replies()]
        return [*replies, *((result.id, None) for result, _ in store.results())]

    def send_again(self, link: Link) -> int:
        """All that is kept for the session that this client has joined. How many results that is."""
        store = self.sessions[link].store
        if store is None:
            return 0
        for outputs, frames in store.outputs():
            self._outbox.send(link, outputs, frames)
        results = store.results()
        all_frames = [frame for _, frames in results for frame in frames]
        listed = [result for result, _ in results]
        for these, theirs in batches(listed):
            self._outbox.send(link, m.Results(listed[these]), all_frames[theirs])
        for reply, frames in store.replies():
            self._outbox.send(link, reply, frames)
        return len(results)


def _note_of(answer: m.Result | m.Reply) -> m.Result | m.Reply:
    """What is left of an answer that is dropped."""
    if type(answer) is m.Reply:
        return m.Reply(answer.request, [], [m.Loss(bitset.to_wire(targets_of(answer)), m.ANSWER_LOST, _LOST)])
    assert type(answer) is m.Result
    return m.Result(answer.id, answer.rank, answer.duration_us, m.ANSWER_LOST, _LOST.encode(), 0)
