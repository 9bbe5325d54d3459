"""A root that says what a test has it say, over a link that is a list. Everything passes the framing, as on a wire."""

from __future__ import annotations

import os
from collections import deque
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from types import SimpleNamespace
from typing import Any, TypeVar

import msgspec

from hiersched.client.session import Session
from hiersched.core.topology import Host, plan_tree
from hiersched.data.outcomes import PackedOutcome, pack_outcome_error, pack_outcome_value
from hiersched.data.outputs import Text, pack_output, pack_outputs
from hiersched.data.serialize import PackedCall, Packer
from hiersched.kernels import bitset
from hiersched.protocol import messages as m
from hiersched.protocol.framing import Frame, decode, encode

Kind = TypeVar("Kind")

SESSION = 7
PLAN = plan_tree([Host("localhost", 4, 4)])


class FakeLink:
    """The client's end. sent: what it has sent, and was not looked at yet."""

    def __init__(self) -> None:
        self.sent: deque[tuple[m.Message, Sequence[Frame]]] = deque()
        self.socket = SimpleNamespace(closed=False, linger=0)
        self._coming: deque[tuple[m.Message, Sequence[Frame]]] = deque()
        self._edge = os.eventfd(0, os.EFD_NONBLOCK | os.EFD_CLOEXEC)

    def fileno(self) -> int:
        return self._edge

    def readable(self) -> bool:
        return bool(self._coming)

    def send(self, message: m.Message, frames: Sequence[Frame] = ()) -> None:
        parts = encode(message, frames)
        self.sent.append(decode(bytes(parts[0]), [bytes(part) for part in parts[1:]]))

    def receive_nowait(self) -> tuple[bytes, m.Message, Sequence[Frame]] | None:
        if not self._coming:
            return None
        return b"", *self._coming.popleft()

    def arrive(self, message: m.Message, frames: Sequence[Frame] = ()) -> None:
        """A message has come."""
        parts = encode(message, frames)
        self._coming.append(decode(bytes(parts[0]), [bytes(part) for part in parts[1:]]))
        os.eventfd_write(self._edge, 1)

    def close(self) -> None:
        if not self.socket.closed:
            self.socket.closed = True
            os.close(self._edge)


class FakeRoot:
    """A root with `engines` engines. It is the session's door as well. hello: how the client introduced itself."""

    def __init__(self, engines: int = 4, *, session: int = SESSION, **facts: Any) -> None:
        self._session = session
        self.link = FakeLink()
        self.root = -1
        self.hello: tuple[str, bool] | None = None
        self._name = ""
        self._members = bitset.to_wire(bitset.of_range(0, engines))
        plan = msgspec.to_builtins(PLAN)
        self._facts = {"plan": plan, "tasks_in_flight_max": 1_000, "next": 1, "open": [], **facts}

    # --- as a door ----------------------------------------------------------------------------------------------------

    def open(self, connection: Any, name: str, *, joins: bool = False) -> FakeRoot:
        self._name = name
        return self

    def knock(self, *, detached: bool) -> None:
        self.hello = (self._name, detached)
        self.link.arrive(m.Welcome(self._session, self._members, self._facts))

    def close(self) -> None:
        self.link.close()

    # --- what the client has sent -------------------------------------------------------------------------------------

    def heard(self, kind: type[Kind]) -> tuple[Kind, Sequence[Frame]]:
        """The next message, which is of this kind."""
        message, frames = self.link.sent.popleft()
        assert type(message) is kind, f"not {kind.__name__} but {message}"
        return message, frames

    def heard_task(self) -> m.Task:
        """The only task of the next batch, behind the blobs that it needs."""
        while type(self.link.sent[0][0]) is m.Blob:
            self.link.sent.popleft()
        batch, _ = self.heard(m.Tasks)
        (task,) = batch.tasks
        return task

    def heard_call(self) -> m.Call:
        """The next call, behind the blobs that it needs."""
        while type(self.link.sent[0][0]) is m.Blob:
            self.link.sent.popleft()
        return self.heard(m.Call)[0]

    def forget(self) -> None:
        """What was sent so far does not matter."""
        self.link.sent.clear()

    @property
    def silent(self) -> bool:
        """The client has sent nothing more."""
        return not self.link.sent

    # --- what the root says -------------------------------------------------------------------------------------------

    def say(self, message: m.Message, frames: Sequence[Frame] = ()) -> None:
        self.link.arrive(message, frames)

    def end_task(self, task: m.TaskId, value: Any = None, *, rank: int = 0, printed: str = "") -> None:
        """A task returns."""
        self.say_result(task, pack_outcome_value(value, started=1.0, ended=2.0, printed=_printed(printed)), rank)

    def fail_task(self, task: m.TaskId, error: Exception, *, rank: int = 0) -> None:
        """A task raises."""
        self.say_result(task, pack_outcome_error(error, started=1.0, ended=2.0), rank)

    def say_result(self, task: m.TaskId, outcome: PackedOutcome, rank: int) -> None:
        first, *others = outcome.whole
        self.say(m.Results([m.Result(task, rank, 10, outcome.code, bytes(first), len(others))]), others)

    def lose_task(self, task: m.TaskId, code: int, text: str = "of the root", *, rank: int = 0) -> None:
        """A task ends with a code."""
        self.say(m.Results([m.Result(task, rank, 0, code, text.encode(), 0)]))

    def answer(self, request: m.TaskId, values: dict[int, Any], *, printed: str = "") -> None:
        """These engines answer a call; what they printed last is the same on all."""
        ranks = bitset.to_wire(bitset.of_ranks(values))
        outputs = _printed(printed)
        outcomes = [
            pack_outcome_value(value, started=1.0, ended=2.0, printed=outputs) for _, value in sorted(values.items())
        ]
        body = b"".join(bytes(outcome.frames[0]) for outcome in outcomes)
        chunk = m.Chunk(ranks, [len(outcome.frames[0]) for outcome in outcomes], 1)
        reports = list(outcomes[0].reports)
        self.say(m.Reply(request, [chunk], [], [m.Report(ranks) for _ in reports]), [body, *reports])

    def fail(self, request: m.TaskId, ranks: Sequence[int], error: Exception) -> None:
        """These engines answer a call with the same error, which is reported once."""
        outcome = pack_outcome_error(error, started=1.0, ended=2.0)
        wire = bitset.to_wire(bitset.of_ranks(ranks))
        chunk = m.Chunk(wire, [len(outcome.frames[0])] * len(ranks), 1)
        frames = [bytes(outcome.frames[0]) * len(ranks), *outcome.reports]
        self.say(m.Reply(request, [chunk], [], [m.Report(wire)]), frames)

    def lose(self, request: m.TaskId, ranks: Sequence[int], code: int, text: str = "of the root") -> None:
        """These engines will not answer a call."""
        self.say(m.Reply(request, [], [m.Loss(bitset.to_wire(bitset.of_ranks(ranks)), code, text)]))

    def print_text(self, request: m.TaskId, ranks: Sequence[int], text: str) -> None:
        """These engines print the same while they run."""
        piece = m.Piece(request, bitset.to_wire(bitset.of_ranks(ranks)))
        self.say(m.Outputs([piece]), [pack_outputs([Text("stdout", text)])])


def _printed(text: str) -> list[msgspec.Raw]:
    return [pack_output(Text("stdout", text))] if text else []


@contextmanager
def session_with(root: FakeRoot, **options: Any) -> Iterator[Session]:
    """A session in which this root has let us."""
    connection: Any = SimpleNamespace(cluster="fake", key="secret")
    session = Session(connection, opens=root.open, timeout_s=5.0, **options)
    root.forget()
    try:
        yield session
    finally:
        session.close(forget=True)


def packed(function: Any = abs, *args: Any) -> PackedCall:
    return Packer().pack_call(function, args)
