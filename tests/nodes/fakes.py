"""A scheduler that says what a test wrote down, and lanes that run functions which are none."""

from __future__ import annotations

import os
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from hiersched.data.outcomes import PackedOutcome, pack_outcome_error
from hiersched.errors import UnmetDependency
from hiersched.kernels import bitset
from hiersched.limits import INLINE_BYTES_MAX, RESULTS_FLUSH_S
from hiersched.nodes.transcript import Transcript
from hiersched.protocol import messages as m
from hiersched.protocol.framing import Frame, decode, encode

if TYPE_CHECKING:
    from hiersched.nodes.engine import Engine

RANK = 5
DOUBLE, LONG, SLOW, LARGE, RAISING, UNMET, TALKING = (name * 16 for name in (b"D", b"L", b"S", b"B", b"R", b"U", b"T"))
DATA, MORE = b"1" * 16, b"2" * 16
HELLO = m.Hello("cluster", "key", "engine", "engine-5", 1, "host", RANK, RANK + 1)


class FakeLine:
    """An engine's line to a scheduler that follows a script, and stops the engine in the end.

    Everything passes over the wire format in both directions. said: what the engine sent. answers: what the scheduler
    does when it is sent a message of a kind. woken: what happens while the engine sleeps, one thing for each sleep.
    ancestors: how many are left to climb to. now_s: moved only by waiting.
    """

    def __init__(self) -> None:
        self.script: deque[Any] = deque()
        self.said: list[Any] = []
        self.answers: dict[type, Callable[[Any], None]] = {}
        self.woken: deque[Callable[[], None]] = deque()
        self.ancestors = 0
        self.lost = False
        self.wakes = 0
        self.now_s = 1000.0
        self.uplink = self
        self._mail = os.eventfd(0)  # of which a speaker never hears

    def says(self, message: m.Message | Exception, *frames: Frame) -> None:
        """The next thing the scheduler says."""
        self.script.append((message, frames))

    # --- a line -------------------------------------------------------------------------------------------------------

    def wait(self, timeout_s: float | None = None) -> bool:
        if self.woken:
            self.woken.popleft()()
        elif not self.script and timeout_s is None:
            self.says(m.Stop("the end of the test"))
        elif not self.script:
            self.now_s += timeout_s or 0.0
        return bool(self.script)

    def wake(self) -> None:
        self.wakes += 1

    def orphaned(self) -> bool:
        return self.lost

    def climb(self) -> bool:
        self.lost = False
        self.ancestors -= 1
        return self.ancestors >= 0

    def fileno(self) -> int:
        return self._mail

    def close(self) -> None:
        os.close(self._mail)

    # --- its uplink ---------------------------------------------------------------------------------------------------

    def receive(self) -> tuple[bytes, m.Message, Sequence[Frame]]:
        message, frames = self.script.popleft()
        if isinstance(message, Exception):
            raise message
        first, *others = (bytes(part) for part in encode(message, frames))
        return b"", *decode(first, others)

    def readable(self) -> bool:
        return bool(self.script)

    def send(self, message: m.Message, frames: Sequence[Frame] = ()) -> None:
        first, *others = (bytes(part) for part in encode(message, frames))
        sent, payload = decode(first, others)
        self.said.append((sent, *payload) if payload else sent)
        answer = self.answers.get(type(message))
        if answer is not None:
            answer(message)


class FakeLanes:
    """Lanes whose `run_call` a test defines. ran: what ran, in order."""

    def __init__(self) -> None:
        self.ran: list[bytes] = []
        self.unpacker: set[bytes] = set()
        self.transcript = Transcript()
        self.surroundings = FakeSurroundings()
        self.engine: Engine | None = None
        self.halts = False

    def run_cell(self, frames: Sequence[Frame]) -> PackedOutcome:
        cell = bytes(frames[0])
        self.ran.append(cell)
        self.halts = b"halt" in cell
        if b"raise" in cell:
            return packed(b"head", reports=[b"how"], code=m.RAISED)
        return packed(b"cell " + cell)

    def failed(self, error: BaseException) -> PackedOutcome:
        code = m.INTERRUPTED if isinstance(error, KeyboardInterrupt) else m.RAISED
        return packed(b"failed", reports=[repr(error).encode()], code=code)

    def unmet(self) -> PackedOutcome:
        """The outcome of a call that belongs on another engine."""
        return pack_outcome_error(UnmetDependency("no GPU here"), started=0.0, ended=0.0, traceback_lines=[])


class FakeSurroundings:
    """restored: how often they were put back; logged: what was written to the cluster's log."""

    def __init__(self) -> None:
        self.restored = 0
        self.logged: list[str] = []

    def restore(self) -> None:
        self.restored += 1

    def log(self, text: str) -> None:
        self.logged.append(text)


def packed(*frames: Any, reports: Sequence[bytes] = (), code: int = 0) -> PackedOutcome:
    """An outcome of these frames."""
    return PackedOutcome(list(frames), reports, code)


class Work(FakeLanes):
    """Functions by digest; each takes the payload and the blobs and gives an outcome."""

    def __init__(self, line: FakeLine) -> None:
        super().__init__()
        self.line = line
        self.unpacker |= {DOUBLE, LONG, SLOW, LARGE, RAISING, UNMET, TALKING}
        self.scratch = np.zeros(INLINE_BYTES_MAX, np.uint8)

    def run_call(
        self,
        function: bytes,
        frames: Sequence[Frame],
        blobs: Mapping[bytes, Any],
        results: Mapping[int, Sequence[Frame]] | None = None,
    ) -> Any:
        self.unpacker.add(function)
        payload = b"".join(bytes(frame) for frame in frames)
        self.ran.append(payload)
        self.results = results
        if function == SLOW:
            self.line.now_s += 2 * RESULTS_FLUSH_S
        if function == LARGE:
            self.scratch[:] = payload[0]
            return packed(b"head", memoryview(self.scratch))
        if function == LONG:
            return packed(b"+".join(bytes(blobs[digest]) for digest in sorted(blobs)))
        if function in (RAISING, UNMET):
            return packed(b"head", reports=[b"how"], code=m.RAISED) if function == RAISING else self.unmet()
        if function == TALKING:
            return packed(b"head", reports=[b"printed"])
        return packed(payload * 2)


# --- messages ---------------------------------------------------------------------------------------------------------


def call(request: int, function: bytes = DOUBLE, *, lane: int = m.CALL_LANE, needs: Sequence[bytes] = ()) -> m.Call:
    return m.Call(request, bitset.to_wire(1 << RANK), lane, function, list(needs), [])


def task(number: int, function: bytes = DOUBLE, payload: bytes = b"x", *, needs: Sequence[bytes] = ()) -> m.Task:
    return m.Task(number, function, list(needs), payload, 0)


def answer(request: int, *frames: bytes) -> Any:
    chunk = m.Chunk(bitset.to_wire(1 << RANK), [], len(frames))
    return (m.Reply(request, [chunk], []), *frames)


def results(said: list[Any]) -> list[tuple[int, int, bytes]]:
    """(task, code, payload) of all results, in order."""
    batches = [words[0] if isinstance(words, tuple) else words for words in said]
    return [(r.id, r.code, r.payload) for batch in batches if type(batch) is m.Results for r in batch.results]
