"""One engine of ipyparallel's, as the core of its leaf sees it: an engine that is given work and answers it in order.

The engine itself is asked for one thing at a time; what else it has to do waits here, where it can be withdrawn. Work
that names a blob which is not here waits as well, with all behind it. An answer goes up when the engine has said that
nothing more is printed (its status `idle`), or GUEST_OUTPUT_TIMEOUT_S after the answer; what it printed goes before.
"""

from __future__ import annotations

import signal
import time
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

from hiersched.compat import guest_calls, guest_cells
from hiersched.compat.wire import Message
from hiersched.core.effects import DOORBELL, Link
from hiersched.data.cells import Cell
from hiersched.data.outcomes import PackedOutcome, pack_outcome_error
from hiersched.data.outputs import Text, pack_outputs
from hiersched.errors import ProtocolError
from hiersched.kernels import bitset
from hiersched.limits import BLOB_TIMEOUT_S, GUEST_OUTPUT_TIMEOUT_S, OUTPUT_FLUSH_S, OUTPUT_PIECE_BYTES_MAX
from hiersched.nodes.answers import BLOB_LOST, CANCELLED, INTERRUPTED, Answers, text_of
from hiersched.nodes.stock import Stock, results_among
from hiersched.nodes.transcript import Transcript
from hiersched.protocol import messages as m
from hiersched.protocol.framing import Frame, split_frames, whole

Work = m.Call | m.Task


class Door(Protocol):
    """What a guest has at its leaf."""

    def ask(
        self, guest: Guest, channel: str, msg_type: str, content: dict[str, Any], buffers: Sequence[Frame] = ()
    ) -> str:
        """Send the engine a request. Its id, which the reply names."""

    def say(self, link: Link, message: m.Message, frames: Sequence[Frame] = ()) -> None:
        """Tell the core something, as soon as it listens."""

    def later(self, delay_s: float, action: Callable[..., None], *args: Any) -> None:
        """Do this in so many seconds."""

    def on_enrolled(self, guest: Guest, rank: m.Rank) -> None:
        """The guest has been given this rank, or NO_RANK."""

    def dismiss(self, guest: Guest) -> None:
        """The core wants no more of this engine."""


@dataclass(slots=True, eq=False)
class _Run:
    """What the engine is doing. msg_id: of the request. cell: of a cell, own: of a call of ours.

    result: the last expression of a cell. idle: all that it printed has come. struck: it is being interrupted.
    """

    work: Work
    msg_id: str
    started_s: float
    cell: Cell | None = None
    own: bool = False
    result: dict[str, Any] | None = None
    reply: Message | None = None
    idle: bool = False
    struck: bool = False


class _Voice:
    """In the place of an engine's line: what is sent goes to the core."""

    def __init__(self, door: Door, link: Link) -> None:
        self.uplink = self
        self._door, self._link = door, link

    def send(self, message: m.Message, frames: Sequence[Frame] = ()) -> None:
        """Say something."""
        self._door.say(self._link, message, frames)


class Guest:
    """One engine. uuid: its identity on all channels. rank: NO_RANK until it has one."""

    def __init__(self, door: Door, link: Link, uuid: str) -> None:
        self.link, self.uuid, self.ident = link, uuid, uuid.encode()
        self.rank = m.NO_RANK
        self._door = door
        self._voice = _Voice(door, link)
        self._answers: Answers | None = None
        self._stock = Stock()
        self._work: deque[tuple[Work, Sequence[Frame]]] = deque()
        self._awaited: set[m.Digest] | None = None  # blobs that the first of these has asked for
        self._run: _Run | None = None
        self._transcript = Transcript()
        self._transcript.heard, self._transcript.alarm = self._on_output, 1
        self._speaking = False  # there is a time set to speak up
        self._on_message: Mapping[type, Callable[[Any, Sequence[Frame]], None]] = {
            m.Call: self._on_call,
            m.Tasks: self._on_tasks,
            m.Blob: self._on_blob,
            m.Missing: self._on_missing,
            m.Cancel: self._on_cancel,
            m.Enrolled: lambda message, frames: door.on_enrolled(self, message.rank),
            m.Stop: lambda message, frames: door.dismiss(self),
            m.Refused: lambda message, frames: door.dismiss(self),
        }

    def begin(self, rank: m.Rank) -> None:
        """It has this rank, and is about to be an engine of the cluster."""
        self.rank = rank
        self._answers = Answers(self._voice, rank)  # type: ignore[arg-type]

    # --- from the core ------------------------------------------------------------------------------------------------

    def deliver(self, message: m.Message, frames: Sequence[Frame]) -> None:
        """The core says something. A welcome, or that the root has its answers, means nothing to a guest: if its leaf
        is lost, so is the guest.
        """
        act = self._on_message.get(type(message))
        if act is not None:
            act(message, frames)

    def signal(self, number: int) -> None:
        """Have the engine's process signalled, by its nanny. The doorbell is for engines that do not listen."""
        if number != DOORBELL:
            self._door.ask(self, "control", "signal_request", {"sig": number})

    def _on_call(self, call: m.Call, frames: Sequence[Frame]) -> None:
        self._work.append((call, frames))
        self._next()

    def _on_tasks(self, batch: m.Tasks, frames: Sequence[Frame]) -> None:
        self._work.extend(zip(batch.tasks, split_frames([task.frames for task in batch.tasks], frames), strict=True))
        self._next()

    def _on_blob(self, blob: m.Blob, frames: Sequence[Frame]) -> None:
        self._stock.put(blob.digest, frames[0])
        self._next()

    def _on_missing(self, missing: m.Missing, frames: Sequence[Frame]) -> None:
        self._stock.missing.update(missing.digests)
        self._next()

    def _on_cancel(self, cancel: m.Cancel, frames: Sequence[Frame]) -> None:
        """Answer what the engine has not been asked for; interrupt what it does, if that is wanted."""
        ids = set(cancel.tasks)
        run = self._run
        if run is not None and cancel.running and _id_of(run.work) in ids:
            run.struck = True
            self.signal(signal.SIGINT)
        withdrawn = [work for work, _ in self._work if _id_of(work) in ids]
        if not withdrawn:
            return
        if self._work[0][0] is withdrawn[0]:
            self._awaited = None
        self._work = deque([entry for entry in self._work if _id_of(entry[0]) not in ids])
        for work in withdrawn:
            self._answer_without(work, m.CANCELLED, CANCELLED)
        self._next()

    # --- to the engine ------------------------------------------------------------------------------------------------

    def _next(self) -> None:
        """Ask the engine for the next thing, if it has nothing to do and all is here."""
        while self._work and self._run is None:
            work, frames = self._work[0]
            digests = _needs_of(work)
            found = {digest: self._stock.get(digest) for digest in digests}
            wanted = {digest for digest, supply in found.items() if supply is None}
            if wanted and not (self._awaited is not None and wanted & self._stock.missing):
                self._want(work, wanted)
                return
            self._awaited = None
            self._work.popleft()
            if wanted:
                self._answer_without(work, m.BLOB_LOST, BLOB_LOST)
            else:
                self._begin(work, frames, found)

    def _want(self, work: Work, wanted: set[m.Digest]) -> None:
        """Ask for blobs, once."""
        if self._awaited is None:
            self._awaited = wanted
            self._stock.missing -= wanted
            self._door.say(self.link, m.Want(sorted(wanted)))
            self._door.later(BLOB_TIMEOUT_S, self._give_up, work)

    def _give_up(self, work: Work) -> None:
        if self._awaited is not None and self._work and self._work[0][0] is work:
            self._stock.missing.update(self._awaited)
            self._next()

    def _begin(self, work: Work, frames: Sequence[Frame], supplies: Mapping[m.Digest, Any]) -> None:
        """Ask the engine to do this. supplies: all that it needs."""
        self._transcript.used = 0
        frames = [_buffer(frame) for frame in (whole(work.payload, frames) if type(work) is m.Task else frames)]
        now_s = time.monotonic()
        if type(work) is m.Call and work.lane == m.CELL_LANE:
            try:
                cell = guest_cells.cell_in(frames[0])
            except ProtocolError as error:
                self._answer(_Run(work, "", now_s), _failure(error))
                return
            msg_id = self._door.ask(self, "mux", "execute_request", guest_cells.content_of(cell))
            self._run = _Run(work, msg_id, now_s, cell=cell)
            return
        function = supplies[work.function]
        own = not guest_calls.is_applied(function)
        if own:
            given = work.given if type(work) is m.Task else ()
            results = results_among(supplies, _needs_of(work), given)
            blobs = {digest: blob for digest, blob in supplies.items() if m.task_of(digest) is None}
            buffers = guest_calls.pack_own(work.function, frames, blobs, results)
        else:
            buffers = guest_calls.pack_applied(function, frames)
        self._run = _Run(work, self._door.ask(self, "mux", "apply_request", {}, buffers), now_s, own=own)

    # --- from the engine ----------------------------------------------------------------------------------------------

    def on_reply(self, reply: Message) -> None:
        """The engine answers. Its answer waits for what it has printed."""
        run = self._run
        if run is None or reply.parent.get("msg_id") != run.msg_id or run.reply is not None:
            return
        run.reply = reply
        for shown in guest_cells.pages_in(reply) if run.cell is not None else ():
            self._transcript.add(shown)
        if run.idle:
            self._finish(run)
        else:
            self._door.later(GUEST_OUTPUT_TIMEOUT_S, self._finish, run)

    def on_published(self, message: Message) -> None:
        """The engine prints or displays something, or says that it is idle."""
        run = self._run
        asked = run is not None and message.parent.get("msg_id") == run.msg_id
        if message.msg_type == "status":
            if run is not None and asked and message.content.get("execution_state") == "idle":
                run.idle = True
                if run.reply is not None:
                    self._finish(run)
            return
        if run is not None and asked and run.cell is not None:
            run.result = guest_cells.result_in(message) or run.result
        output = guest_cells.output_in(message)
        if isinstance(output, Text):
            self._transcript.write(output.stream, output.text)
        elif output is not None:
            self._transcript.add(output)

    def _finish(self, run: _Run) -> None:
        """Answer for what the engine has done, and go on."""
        if self._run is not run or run.reply is None:
            return
        self._speak()
        self._run = None
        try:
            if run.cell is not None:
                packed = guest_cells.outcome_of(run.reply, run.cell, run.result)
            else:
                packed = guest_calls.outcome_of(run.reply, own=run.own)
        except ProtocolError as error:
            packed = _failure(error)
        self._answer(run, packed)
        self._next()

    # --- answers ------------------------------------------------------------------------------------------------------

    def _answer(self, run: _Run, packed: PackedOutcome) -> None:
        work, code = run.work, packed.code
        answers = self._answers
        assert answers is not None, "only a guest that has a rank is given work"
        if code == m.CANCELLED:
            self._answer_without(work, code, CANCELLED)
        elif code == m.INTERRUPTED and run.struck:
            self._answer_without(work, code, INTERRUPTED)
        elif type(work) is m.Call:
            answers.reply(work.request, packed)
        elif code == m.UNMET:
            self._answer_without(work, code, text_of(packed))
        else:
            assert type(work) is m.Task
            duration_us = int((time.monotonic() - run.started_s) * 1e6)
            frames = answers.add(work, duration_us, m.RAISED if code else 0, packed)
            if not code:
                self._stock.keep_result(work.id, frames)
            answers.flush()

    def _answer_without(self, work: Work, code: int, text: str) -> None:
        """Answer for work that gives no outcome."""
        answers = self._answers
        assert answers is not None, "only a guest that has a rank is given work"
        if type(work) is m.Task:
            answers.add_without(work, code, text)
            answers.flush()
        else:
            answers.reply_without(_id_of(work), code, text)

    def _on_output(self) -> None:
        """Something was printed: have it sent in time, or send it now. Between two calls it waits for the next one."""
        if self._run is None:
            return
        if self._transcript.size >= OUTPUT_PIECE_BYTES_MAX:
            self._speak()
        elif not self._speaking:
            self._speaking = True
            self._door.later(OUTPUT_FLUSH_S, self._speak_up)

    def _speak_up(self) -> None:
        self._speaking = False
        if self._run is not None:
            self._speak()

    def _speak(self) -> None:
        """Send what the work at hand has printed."""
        outputs = self._transcript.take()
        if outputs and self._run is not None:
            piece = m.Piece(_id_of(self._run.work), bitset.to_wire(1 << self.rank))
            self._door.say(self.link, m.Outputs([piece]), [pack_outputs(outputs)])


def _id_of(work: Work) -> m.TaskId:
    return m.try_of(work)[0]


def _needs_of(work: Work) -> list[m.Digest]:
    """The blobs that it needs, the function's first."""
    if type(work) is m.Call and work.lane == m.CELL_LANE:
        return []
    needs = [work.function, *work.needs]
    return [*needs, *work.parts[0].needs] if type(work) is m.Call and work.parts else needs


def _buffer(frame: Frame) -> Frame:
    """The frame's bytes, where it is a transport's own object."""
    return frame if isinstance(frame, (bytes, bytearray, memoryview)) else frame.buffer


def _failure(error: Exception) -> PackedOutcome:
    now = time.time()
    return pack_outcome_error(error, started=now, ended=now)
