"""The engine process: takes work from its scheduler in order, runs it, answers.

An engine is one thread, so that user code is where a debugger, a signal or a GPU library expects it: the main thread.
It needs no loop for that: it waits on its link, runs what came, and answers. It never beats: whether it lives is seen
on its process. Results of short tasks leave together, at least every RESULTS_FLUSH_S. Work that names a blob which is
not here waits, with all work behind it, until the scheduler has sent the blob.

A doorbell has the mail read at once, even while user code runs: withdrawn work is answered, and an engine whose
scheduler is gone climbs to an ancestor with all it has (docs/decisions/0008, 0010).
"""

from __future__ import annotations

import contextlib
import os
import random
import signal
import socket
import time
from collections import deque
from collections.abc import Callable, Sequence
from typing import Any

import numpy.random
from msgspec.structs import replace

from hiersched.core.effects import link_of
from hiersched.core.topology import Child
from hiersched.data.outcomes import PackedOutcome
from hiersched.errors import ProtocolError, VersionMismatch
from hiersched.limits import BLOB_TIMEOUT_S, FUNCTIONS_CACHED_MAX, RESULT_GIVEN_BYTES_MAX, RESULTS_FLUSH_S
from hiersched.nodes.answers import BLOB_LOST, CANCELLED, INTERRUPTED, Answers, text_of
from hiersched.nodes.facts import ClusterFacts
from hiersched.nodes.floor import OURS, THEIRS, Floor
from hiersched.nodes.lanes import Lanes
from hiersched.nodes.line import Line
from hiersched.nodes.shell import EngineShell
from hiersched.nodes.speaker import Speaker
from hiersched.nodes.stock import Stock, Supplies, results_among
from hiersched.protocol import messages as m
from hiersched.protocol.framing import Frame, split_frames, whole
from hiersched.runtime.doorbell import DOORBELL_SIGNAL
from hiersched.runtime.zmq_link import Uplink, context

_NO_SUPPLIES: Supplies = {}
_WITH_OUTCOME = frozenset({0, m.RAISED})  # codes


class Engine:
    """One engine on its link. hello: what it says to a new parent."""

    def __init__(self, line: Line, rank: int, lanes: Lanes, hello: m.Hello) -> None:
        self.floor = Floor()
        self.floor.on_bell, self.floor.on_idle_bell = self._on_bell, line.wake
        self.speaker = Speaker(line, self.floor, lanes.transcript, rank)
        self._answers = Answers(line, rank)
        self._hello = hello
        self._lanes = lanes
        self._line = line
        self._stock = Stock()
        self._wanted: set[m.Digest] = set()
        self._work: deque[tuple[m.Call | m.Task, Sequence[Frame]]] = deque()
        self._current: m.TaskId | None = None  # what runs, or waits for what it needs
        self._attempt = 0  # of it
        self._withdrawn: m.TaskId | None = None  # the last of these that was withdrawn
        self._struck: m.TaskId | None = None  # it is to be interrupted
        self._ended_s = self._duration_s = 0.0  # of the user's code that ran last
        self._quick: set[m.Digest] = set()  # functions that ran for less than RESULTS_FLUSH_S the last time
        self._stopped = False

    def run(self) -> None:
        """Work until the scheduler says to stop, or no ancestor is left."""
        while not self._stopped:
            if self._line.wait():
                self._take()
            if self.floor.rung:
                self._look()
            while self._work and not self._stopped:
                self._next()
            self._answers.flush()

    # --- in -----------------------------------------------------------------------------------------------------------

    def _take(self) -> None:
        """Take a message that waits and put it where it belongs."""
        try:
            _, message, frames = self._line.uplink.receive()
        except (ProtocolError, VersionMismatch) as error:
            self._lanes.surroundings.log(f"engine {self._hello.first}: dropped a message: {error}")
            return
        kind = type(message)
        if kind is m.Call:
            self._work.append((message, frames))  # type: ignore[arg-type]
        elif kind is m.Tasks:
            tasks = message.tasks  # type: ignore[union-attr]
            if frames:
                pieces = split_frames([task.frames for task in tasks], frames)
                self._work.extend(zip(tasks, pieces, strict=True))
            else:
                self._work.extend([(task, ()) for task in tasks])
        elif kind is m.Blob:
            self._stock.put(message.digest, frames[0])  # type: ignore[union-attr]
        elif kind is m.Ack:
            self._answers.on_ack(message)  # type: ignore[arg-type]
        elif kind is m.Missing:
            self._stock.missing.update(message.digests)  # type: ignore[union-attr]
        elif kind is m.Cancel:
            self._withdraw(message)  # type: ignore[arg-type]
        elif kind is m.Welcome:
            self._answers.on_welcome(keep=message.facts.get("keep", False))  # type: ignore[union-attr]
        elif kind in (m.Stop, m.Refused):
            self._stopped = True

    def _withdraw(self, cancel: m.Cancel) -> None:
        """Answer what has not started; what runs is to be interrupted, if that is asked for."""
        ids = set(cancel.tasks)
        if self._current in ids and (cancel.running or self.floor.state == OURS):
            self._withdrawn = self._struck = self._current
        dropped = [work for work, _ in self._work if _id_of(work) in ids]
        if not dropped:
            return
        self._work = deque([entry for entry in self._work if _id_of(entry[0]) not in ids])
        for work in dropped:
            if type(work) is m.Task:
                self._answers.add_without(work, m.CANCELLED, CANCELLED)
            else:
                self._answers.reply_without(_id_of(work), m.CANCELLED, CANCELLED)
        self._answers.flush()

    # --- the doorbell -------------------------------------------------------------------------------------------------

    def _on_bell(self) -> None:
        """Answer it, while the user's code runs. Raises KeyboardInterrupt if that is to be interrupted."""
        self.floor.borrow(self._answer_bell)
        struck, self._struck = self._struck, None
        if struck is not None and struck == self._current:
            raise KeyboardInterrupt

    def _answer_bell(self) -> None:
        if not self.floor.take_link():
            return  # whoever has it rings again
        try:
            self._look()
        finally:
            self.floor.give_link()
        if time.monotonic() < self.floor.alert_s:
            self.speaker.watch(self.floor.alert_s)
        else:
            self.floor.alert_s = 0.0

    def _look(self) -> None:
        """See whether the scheduler lives, if the doorbell says so, and read all mail."""
        if self.floor.rung:
            self.floor.rung = False
            if self._line.orphaned():
                self._climb()
        while self._line.uplink.readable():
            self._take()

    def _climb(self) -> None:
        """The scheduler is gone: go on under the nearest ancestor that lives, or end."""
        if not self._line.climb():
            self._stopped = True
            if self.floor.state != OURS:
                os._exit(os.EX_UNAVAILABLE)  # the user's code would run on for nobody
            return
        holds = [m.try_of(work) for work, _ in self._work] + self._answers.tries()
        if self._current is not None:
            holds.append((self._current, self._attempt))
        self._line.uplink.send(replace(self._hello, holds=holds))
        self._answers.send_again()
        if self._wanted:
            self._line.uplink.send(m.Want(sorted(self._wanted)))

    # --- work ---------------------------------------------------------------------------------------------------------

    def _next(self) -> None:
        work, frames = self._work.popleft()
        if type(work) is m.Task:
            self._run_task(work, frames)
        else:
            self._run_call(work, frames)  # type: ignore[arg-type]
        self._current = None

    def _run_call(self, call: m.Call, frames: Sequence[Frame]) -> None:
        self._current, self._attempt = call.request, 0
        self._answers.flush()
        if call.lane == m.CELL_LANE:
            packed = self._perform(call.request, self._lanes.run_cell, frames)
        else:
            needs = [*call.needs, *call.parts[0].needs] if call.parts else call.needs
            supplies = self._supplied(self._with_function(call.function, needs))
            if supplies is None:
                self._answers.reply_without(call.request, *self._why_not())
                return
            results = results_among(supplies, needs, ()) if needs else None
            packed = self._perform(call.request, self._lanes.run_call, call.function, frames, supplies, results)
        if packed.code not in _WITH_OUTCOME:
            self.speaker.speak(last=True)
            if packed.code == m.INTERRUPTED and self._withdrawn == call.request:
                self._answers.reply_without(call.request, m.INTERRUPTED, INTERRUPTED)
                return
        self._answers.reply(call.request, packed)
        if packed.code and call.lane == m.CELL_LANE and self._lanes.halts:
            self._halt(call.request >> m.SESSION_SHIFT)

    def _halt(self, session: int) -> None:
        """A cell has failed: withdraw the calls of its session that wait behind it."""
        while self._line.uplink.readable():
            self._take()
        calls = [work.request for work, _ in self._work if type(work) is m.Call]
        self._withdraw(m.Cancel([request for request in calls if request >> m.SESSION_SHIFT == session]))

    def _run_task(self, task: m.Task, frames: Sequence[Frame]) -> None:
        self._current, self._attempt = task.id, task.attempt
        answers = self._answers
        if answers.gathered and task.function not in self._quick:
            answers.flush()  # this one may run for hours
        needs = task.needs
        supplies = self._supplied(self._with_function(task.function, needs))
        if supplies is None:
            answers.add_without(task, *self._why_not())
            return
        results = results_among(supplies, needs, task.given) if needs or task.given else None
        frames = whole(task.payload, frames)
        packed = self._perform(task.id, self._lanes.run_call, task.function, frames, supplies, results)
        self._add_result(task, packed)
        self._note_pace(task.function)
        if self._work and self._ended_s - answers.flushed_s >= RESULTS_FLUSH_S:
            answers.flush()
            while self._line.uplink.readable():
                self._take()

    def _perform(self, request: m.TaskId, run: Callable[..., PackedOutcome], *args: Any) -> PackedOutcome:
        """Run user code: the only time an interrupt may strike."""
        floor = self.floor
        self.speaker.request = request
        started_s = time.perf_counter()
        floor.lend_link()
        try:
            floor.state = THEIRS
            if floor.alert_s:
                self._on_bell()  # it has rung not long ago
            packed = run(*args)
            if len(packed.frames) > 1:
                packed.frames = [_detached(frame) for frame in packed.frames]
            floor.state = OURS
        except KeyboardInterrupt as interrupt:  # it struck while the answer was being packed
            floor.state = OURS
            packed = self._lanes.failed(interrupt)
        except MemoryError:
            floor.state = OURS
            packed = self._lanes.failed(MemoryError("the engine has no memory to pack the result in"))
        floor.reclaim_link()
        self._ended_s = time.perf_counter()
        self._duration_s = self._ended_s - started_s
        if self._duration_s >= RESULTS_FLUSH_S:
            self._lanes.surroundings.restore()
        return packed

    def _with_function(self, function: m.Digest, needs: Sequence[m.Digest]) -> Sequence[m.Digest]:
        """All blobs that a call needs here: a function that was unpacked before is no longer one."""
        return needs if function in self._lanes.unpacker else [function, *needs]

    def _note_pace(self, function: m.Digest) -> None:
        if self._duration_s >= RESULTS_FLUSH_S:
            self._quick.discard(function)
        elif function not in self._quick:
            if len(self._quick) >= FUNCTIONS_CACHED_MAX:
                self._quick.clear()
            self._quick.add(function)

    # --- what work needs ----------------------------------------------------------------------------------------------

    def _supplied(self, digests: Sequence[m.Digest]) -> Supplies | None:
        """What these name, once all is here; None if something is nowhere to be had, or the work was withdrawn.

        Whoever holds them has them all, even if together they exceed what the engine keeps.
        """
        if not digests:
            return _NO_SUPPLIES
        stock = self._stock
        supplies = {digest: stock.get(digest) for digest in digests}
        wanted = {digest for digest, supply in supplies.items() if supply is None}
        if not wanted:
            return supplies
        self._answers.flush()
        stock.missing -= wanted
        self._wanted = wanted
        self._line.uplink.send(m.Want(sorted(wanted)))
        deadline_s = time.monotonic() + BLOB_TIMEOUT_S
        while wanted:
            if self._line.wait(deadline_s - time.monotonic()):
                self._take()
            elif not self.floor.rung and time.monotonic() >= deadline_s:
                break
            if self.floor.rung:
                self._look()
            if self._stopped or self._withdrawn == self._current or wanted & stock.missing:
                break
            for digest in [digest for digest in wanted if stock.get(digest) is not None]:
                supplies[digest] = stock.get(digest)
                wanted.discard(digest)
        self._wanted = set()
        return None if wanted else supplies

    def _why_not(self) -> tuple[int, str]:
        """Why the work at hand does not run."""
        return (m.CANCELLED, CANCELLED) if self._withdrawn == self._current else (m.BLOB_LOST, BLOB_LOST)

    # --- out ----------------------------------------------------------------------------------------------------------

    def _add_result(self, task: m.Task, packed: PackedOutcome) -> None:
        """The outcome of a task, to be sent with the next batch."""
        code, frames = packed.code, packed.frames
        if not code and not packed.reports and len(frames) == 1 and len(frames[0]) <= RESULT_GIVEN_BYTES_MAX:
            self._answers.add_small(task, int(self._duration_s * 1e6), frames[0])
            return
        if code not in _WITH_OUTCOME:
            self.speaker.speak(last=True)
            if code == m.UNMET:
                self._answers.add_without(task, code, text_of(packed))
                return
            if self._withdrawn == task.id:
                self._answers.add_without(task, code, INTERRUPTED)
                return
            code = m.RAISED
        frames = self._answers.add(task, int(self._duration_s * 1e6), code, packed)
        if not code:
            self._stock.keep_result(task.id, frames)


def _id_of(work: m.Call | m.Task) -> m.TaskId:
    return work.id if type(work) is m.Task else work.request  # type: ignore[union-attr]


def _detached(frame: Frame) -> Frame:
    """The frame as it is now. The code that runs next may change the memory that it aliases before it is sent."""
    constant = type(frame) is bytes or (type(frame) is memoryview and type(frame.obj) is bytes)
    return frame if constant else bytes(frame)


def run_engine(facts: ClusterFacts, child: Child, address: str, shell: EngineShell) -> None:
    """Be the engine `child` under the scheduler at `address`, in a process just forked from the nursery."""
    rank, name = child.first, link_of(child)
    random.seed()
    numpy.random.seed()
    own = context()
    line = Line(Uplink(own, address, name, ancestors=facts.ancestors(child, address)))
    lanes = Lanes(shell)
    host = socket.gethostname()
    hello = m.Hello(facts.cluster, facts.key, "engine", name.decode(), os.getpid(), host, rank, rank + 1)
    engine = Engine(line, rank, lanes, hello)
    handlers = {signal.SIGINT: engine.floor.on_interrupt, DOORBELL_SIGNAL: engine.floor.on_doorbell}
    lanes.surroundings.guard(handlers, engine.speaker.silence)
    line.uplink.send(hello)
    engine.run()
    lanes.surroundings.end_processes()
    line.close()
    with contextlib.suppress(Exception):
        own.term()
