"""The engine process: takes work from its scheduler in order, runs it, answers.

An engine is one thread, so that user code is where a debugger, a signal or a GPU library expects it: the main thread.
It needs no loop for that: it waits on its link, runs what came, and answers. It never beats: whether it lives is seen
on its process. Results of short tasks leave together, at least every RESULTS_FLUSH_S.

Work that names a blob which is not here waits, with all work behind it, until the scheduler has sent the blob.
"""

from __future__ import annotations

import contextlib
import os
import random
import signal
import socket
import sys
import time
from collections import deque
from collections.abc import Mapping, Sequence
from typing import Any

import numpy.random

from hiersched.core.blobs import BlobStore
from hiersched.core.effects import link_of
from hiersched.core.topology import Child
from hiersched.errors import ProtocolError, VersionMismatch
from hiersched.kernels import bitset
from hiersched.limits import BLOB_ENGINE_BYTES_MAX, BLOB_TIMEOUT_S, FUNCTIONS_CACHED_MAX, RESULTS_FLUSH_S
from hiersched.nodes.facts import ClusterFacts
from hiersched.nodes.lanes import EngineShell, Lanes
from hiersched.protocol import messages as m
from hiersched.protocol.framing import Frame, batches, inline, split_frames, whole
from hiersched.runtime.zmq_link import Uplink, context

_NO_BLOBS: Mapping[m.Digest, Any] = {}


class Engine:
    """One engine on its link."""

    def __init__(self, uplink: Uplink, rank: int, lanes: Lanes) -> None:
        self._uplink = uplink
        self._rank = rank
        self._lanes = lanes
        self._blobs = BlobStore(BLOB_ENGINE_BYTES_MAX)
        self._missing: set[m.Digest] = set()
        self._work: deque[tuple[m.Call | m.Task, Sequence[Frame]]] = deque()
        self._results: list[m.Result] = []
        self._result_frames: list[Frame] = []
        self._flushed_s = 0.0
        self._quick: set[m.Digest] = set()  # functions that ran for less than RESULTS_FLUSH_S the last time
        self._cancelled: set[m.TaskId] = set()
        self._stopped = False
        self._wire_rank = bitset.to_wire(1 << rank)
        self.running = False

    def run(self) -> None:
        """Work until the scheduler says to stop."""
        while not self._stopped:
            self._take()
            while self._work and not self._stopped:
                self._next()
            self._flush()

    # --- in -----------------------------------------------------------------------------------------------------------

    def _take(self) -> None:
        """Wait for a message and put it where it belongs."""
        try:
            _, message, frames = self._uplink.receive()
        except (ProtocolError, VersionMismatch) as error:
            sys.__stderr__.write(f"engine {self._rank}: dropped a message: {error}\n")  # type: ignore[union-attr]
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
            blob = frames[0]
            self._blobs.put(message.digest, blob if isinstance(blob, bytes) else blob.buffer)  # type: ignore[union-attr]
        elif kind is m.Missing:
            self._missing.update(message.digests)  # type: ignore[union-attr]
        elif kind is m.Cancel:
            waiting = {work.id for work, _ in self._work if type(work) is m.Task}
            self._cancelled.update(waiting.intersection(message.tasks))  # type: ignore[union-attr]
        elif kind in (m.Stop, m.Refused):
            self._stopped = True

    def _supplied(self, digests: Sequence[m.Digest]) -> Mapping[m.Digest, Any] | None:
        """These blobs as buffers, once all are here; None if one is nowhere to be had.

        Whoever holds them has them all, even if together they exceed what the engine keeps.
        """
        if not digests:
            return _NO_BLOBS
        store = self._blobs
        supplied = {digest: store.get(digest) for digest in digests}
        wanted = {digest for digest, blob in supplied.items() if blob is None}
        if not wanted:
            return supplied
        self._flush()
        self._missing -= wanted
        self._uplink.send(m.Want(sorted(wanted)))
        deadline = time.monotonic() + BLOB_TIMEOUT_S
        while wanted:
            if not self._uplink.wait(deadline - time.monotonic()):
                return None
            self._take()
            if self._stopped or wanted & self._missing:
                return None
            for digest in [digest for digest in wanted if digest in store]:
                supplied[digest] = store.get(digest)
                wanted.discard(digest)
        return supplied

    # --- work ---------------------------------------------------------------------------------------------------------

    def _next(self) -> None:
        work, frames = self._work.popleft()
        if type(work) is m.Task:
            self._run_task(work, frames)
        else:
            self._run_call(work, frames)  # type: ignore[arg-type]

    def _run_call(self, call: m.Call, frames: Sequence[Frame]) -> None:
        self._flush()
        if call.lane == m.CELL_LANE:
            answer = self._guarded(self._lanes.run_cell, frames)
        else:
            needs = [*call.needs, *call.parts[0].needs] if call.parts else call.needs
            blobs = self._supplied(self._with_function(call.function, needs))
            if blobs is None:
                loss = m.Loss(self._wire_rank, m.BLOB_LOST, "data of the call is no longer held anywhere; call again")
                self._uplink.send(m.Reply(call.request, [], [loss]))
                return
            answer = self._guarded(self._lanes.run_call, call.function, frames, blobs)
        self._uplink.send(m.Reply(call.request, [m.Chunk(self._wire_rank, [], len(answer))], []), answer)

    def _run_task(self, task: m.Task, frames: Sequence[Frame]) -> None:
        if task.id in self._cancelled:
            self._cancelled.discard(task.id)
            self._results.append(m.Result(task.id, self._rank, 0, m.CANCELLED, b"cancelled before it started", 0))
            return
        if self._results and task.function not in self._quick:
            self._flush()  # this one may run for hours
        blobs = self._supplied(self._with_function(task.function, task.needs))
        if blobs is None:
            text = b"data of the task is no longer held anywhere; submit it again"
            self._results.append(m.Result(task.id, self._rank, 0, m.BLOB_LOST, text, 0))
            return
        started = time.perf_counter()
        answer = self._guarded(self._lanes.run_call, task.function, whole(task.payload, frames), blobs)
        ended = time.perf_counter()
        payload, rest = inline(answer)
        self._results.append(m.Result(task.id, self._rank, int((ended - started) * 1e6), 0, payload, len(rest)))
        if rest:
            self._result_frames.extend([bytes(frame) for frame in rest])  # the next task may change its memory
        self._note_pace(task.function, ended - started)
        if self._work and ended - self._flushed_s >= RESULTS_FLUSH_S:
            self._flush()
            while self._uplink.readable():
                self._take()

    def _with_function(self, function: m.Digest, needs: Sequence[m.Digest]) -> Sequence[m.Digest]:
        """All blobs that a call needs here: a function that was unpacked before is no longer one."""
        return needs if function in self._lanes.unpacker else [function, *needs]

    def _note_pace(self, function: m.Digest, duration_s: float) -> None:
        if duration_s >= RESULTS_FLUSH_S:
            self._quick.discard(function)
        elif function not in self._quick:
            if len(self._quick) >= FUNCTIONS_CACHED_MAX:
                self._quick.clear()
            self._quick.add(function)

    def _guarded(self, run: Any, *args: Any) -> list[Frame]:
        """Run user code: the only time an interrupt may strike."""
        try:
            self.running = True
            answer = run(*args)
            self.running = False
        except KeyboardInterrupt as interrupt:  # it struck while the answer was being packed
            self.running = False
            answer = self._lanes.interrupted(interrupt)
        return [_detached(frame) for frame in answer]

    # --- out ----------------------------------------------------------------------------------------------------------

    def _flush(self) -> None:
        """Send the results that have gathered."""
        if self._results:
            self._flushed_s = time.perf_counter()
            for which, whose in batches(self._results):
                self._uplink.send(m.Results(self._results[which]), self._result_frames[whose])
            self._results, self._result_frames = [], []


def _detached(frame: Frame) -> Frame:
    """The frame as it is now. The code that runs next may change the memory that it aliases before it is sent."""
    constant = type(frame) is bytes or (type(frame) is memoryview and type(frame.obj) is bytes)
    return frame if constant else bytes(frame)


def run_engine(facts: ClusterFacts, child: Child, address: str, shell: EngineShell) -> None:
    """Be the engine `child` under the scheduler at `address`, in a process just forked from the nursery."""
    rank = child.first
    random.seed()
    numpy.random.seed()
    own = context()
    uplink = Uplink(own, address, link_of(child))
    lanes = Lanes(shell)
    engine = Engine(uplink, rank, lanes)
    signal.signal(signal.SIGINT, lambda *_: _interrupt(engine))
    hello = m.Hello(
        facts.cluster, facts.key, "engine", link_of(child).decode(), os.getpid(), socket.gethostname(), rank, rank + 1
    )
    uplink.send(hello)
    engine.run()
    uplink.socket.linger = 100
    uplink.socket.close()
    with contextlib.suppress(Exception):
        own.term()


def _interrupt(engine: Engine) -> None:
    """SIGINT stops the code that runs, and means nothing to an engine that waits."""
    if engine.running:
        raise KeyboardInterrupt
