"""A simulated engine: takes work from its scheduler in order, runs it for a virtual time, answers.

It keeps to what the real engine does: one thing at a time, results of short tasks leave together at least every
RESULTS_FLUSH_S, messages are looked at between such batches, and work that names a missing blob waits for it with all
work behind it. Whatever lies between two looks at the inbox is worked out at once, and sent with the time at which it
leaves: a pipe drops it if the engine has ended by then.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

from hiersched.core.blobs import BlobStore
from hiersched.core.effects import Link
from hiersched.kernels import bitset
from hiersched.limits import BLOB_ENGINE_BYTES_MAX, BLOB_TIMEOUT_S, RESULTS_FLUSH_S
from hiersched.protocol import messages as m
from hiersched.protocol.framing import Frame, split_frames
from hiersched.simulation.network import Edge, Network, Node
from hiersched.simulation.payload import Answer, frame_bytes, pack_answer, unpack_argument
from hiersched.simulation.scheduler import Processes

TASK_S = 5e-6  # an engine's time to decode and answer one task of a batch
_LOST = "data that it refers to is no longer held anywhere"

Work = tuple[m.Call | m.Task, Sequence[Frame]]


class RunLog(Protocol):
    """Is told of everything that runs."""

    def on_run(self, work: m.TaskId, place: int) -> None:
        """A call starts on the engine of rank `place`, or a task anywhere (place -1)."""


class _Blobs:
    """What an engine holds, and what it waits for. awaited: blobs asked for that may still come."""

    __slots__ = ("_lost", "_store", "asked", "awaited")

    def __init__(self) -> None:
        self._store = BlobStore(BLOB_ENGINE_BYTES_MAX)
        self._lost = False
        self.asked = False
        self.awaited: set[m.Digest] = set()

    def want(self, digests: Sequence[m.Digest]) -> list[m.Digest]:
        """Those that are not here, which are awaited from now on."""
        wanted = [digest for digest in digests if self._store.get(digest) is None]
        self.asked = bool(wanted)
        self.awaited.update(wanted)
        return wanted

    def put(self, digest: m.Digest, blob: Frame) -> None:
        """A blob has come."""
        self._store.put(digest, blob)
        self.awaited.discard(digest)

    def miss(self, digests: Sequence[m.Digest]) -> None:
        """Nobody holds these: if one is awaited, there is nothing more to wait for."""
        if not self.awaited.isdisjoint(digests):
            self._lost = True
            self.awaited.clear()

    def end_wait(self) -> bool:
        """Whether what was waited for is lost. The wait is over."""
        lost, self._lost, self.asked = self._lost, False, False
        return lost


class SimEngine(Node):
    """One engine. slowness: how many times longer than normal it runs everything. busy_s: time spent running so far."""

    __slots__ = (
        "_awake",
        "_blobs",
        "_cancelled",
        "_flushed_s",
        "_free_s",
        "_inbox",
        "_network",
        "_processes",
        "_quick",
        "_results",
        "_work",
        "busy_s",
        "log",
        "rank",
        "slowness",
    )

    def __init__(self, link: Link, host: str, *, rank: int, network: Network, processes: Processes) -> None:
        super().__init__(link, host)
        self.rank = rank
        self.slowness = 1.0
        self.busy_s = 0.0
        self.log: RunLog | None = None
        self._network = network
        self._processes = processes
        self._inbox: list[tuple[m.Message, Sequence[Frame]]] = []
        self._work: list[Work] = []
        self._results: list[m.Result] = []
        self._blobs: _Blobs | None = None
        self._cancelled: frozenset[m.TaskId] = frozenset()
        self._quick: frozenset[m.Digest] = frozenset()
        self._awake = False
        self._free_s = 0.0
        self._flushed_s = 0.0

    @property
    def at_rest(self) -> bool:
        """It has nothing to do and waits for nothing."""
        return not (self._work or self._inbox or self._results)

    # --- in -----------------------------------------------------------------------------------------------------------

    def start(self, cluster: str, key: str) -> None:
        """Say hello."""
        assert self.uplink is not None
        hello = m.Hello(cluster, key, "engine", self.link.decode(), 0, self.host, self.rank, self.rank + 1)
        self.uplink.up.send(self._network.timeline.now_s, hello)

    def receive(self, edge: Edge, link: Link, message: m.Message, frames: Sequence[Frame]) -> None:
        self._inbox.append((message, frames))
        if not self._awake:
            self._awake = True
            if self._free_s > self._network.timeline.now_s:
                self._network.timeline.at(self._free_s, self._go_on)
            else:
                self._go_on()

    def link_down(self, link: Link, reason: str) -> None:
        self._processes.end(self, reason)

    def _take(self, message: m.Message, frames: Sequence[Frame]) -> None:
        """Put a message where it belongs."""
        costs = self._network.weather.costs
        self._free_s += costs.engine_s if type(message) is m.Call else costs.receive_s
        match message:
            case m.Call():
                self._work.append((message, frames))
            case m.Tasks():
                pieces = split_frames([task.frames for task in message.tasks], frames)
                self._work.extend(zip(message.tasks, pieces, strict=True))
            case m.Blob():
                self._own_blobs().put(message.digest, frames[0])
            case m.Missing():
                self._own_blobs().miss(message.digests)
            case m.Cancel():
                begun = self._blobs is not None and self._blobs.asked  # the first: it waits for its blobs
                waiting = {work.id for work, _ in self._work[begun:] if isinstance(work, m.Task)}
                self._cancelled |= waiting.intersection(message.tasks)
            case m.Stop() | m.Refused():
                self._network.timeline.at(self._free_s, self._end, type(message).__name__)

    def _end(self, reason: str) -> None:
        if self.ended_s > self._network.timeline.now_s:
            self._processes.end(self, reason)

    # --- work ---------------------------------------------------------------------------------------------------------

    def _go_on(self, _: None = None) -> None:
        """Look at the inbox, then do what lies before the next look: one call, or tasks until a flush."""
        now_s = self._network.timeline.now_s
        if self.ended_s <= now_s:
            return
        self._free_s = max(self._free_s, now_s)
        inbox, self._inbox = self._inbox, []
        for message, frames in inbox:
            self._take(message, frames)
        if self._may_work():
            self._work_on()
        if self._may_work():
            self._network.timeline.at(self._free_s, self._go_on)
        else:
            self._awake = False

    def _may_work(self) -> bool:
        return bool(self._work) and (self._blobs is None or not self._blobs.awaited)

    def _work_on(self) -> None:
        while self._work:
            work, frames = self._work[0]
            if self._is_cancelled(work):
                self._work.pop(0)
                continue
            if isinstance(work, m.Call) or work.function not in self._quick:
                self._flush()  # this one may run for hours
            if not self._supplied(work):
                break
            self._work.pop(0)
            if isinstance(work, m.Call):
                self._run_call(work, frames)
                return
            self._run_task(work)
            if self._free_s - self._flushed_s >= RESULTS_FLUSH_S:
                break
        self._flush()

    def _is_cancelled(self, work: m.Call | m.Task) -> bool:
        """Whether it was withdrawn; then that is its result."""
        if not isinstance(work, m.Task) or work.id not in self._cancelled:
            return False
        self._cancelled -= {work.id}
        self._results.append(m.Result(work.id, self.rank, 0, m.CANCELLED, b"cancelled before it started", 0))
        return True

    def _supplied(self, work: m.Call | m.Task) -> bool:
        """Whether work may start, as its blobs are here or known to be lost; otherwise they are asked for."""
        needs = needs_of(work)
        if not needs or self._own_blobs().asked:
            return True
        wanted = self._own_blobs().want(needs)
        if not wanted:
            return True
        self._flush()
        self._send(m.Want(wanted))
        self._network.timeline.at(self._free_s + BLOB_TIMEOUT_S, self._give_up, work)
        return False

    def _give_up(self, work: m.Call | m.Task) -> None:
        """The blobs have not come in time."""
        blobs = self._own_blobs()
        if blobs.awaited and self._work[0][0] is work and self.ended_s > self._network.timeline.now_s:
            blobs.miss(list(blobs.awaited))
            self._awake = True
            self._go_on()

    def _own_blobs(self) -> _Blobs:
        if self._blobs is None:
            self._blobs = _Blobs()
        return self._blobs

    def _lacks_blobs(self) -> bool:
        """Whether the work at hand cannot run for want of a blob. Either way the wait is over."""
        return self._blobs is not None and self._blobs.end_wait()

    def _run_call(self, call: m.Call, frames: Sequence[Frame]) -> None:
        wire = bitset.to_wire(1 << self.rank)
        if self._lacks_blobs():
            self._send(m.Reply(call.request, [], [m.Loss(wire, m.BLOB_LOST, _LOST)]))
            return
        if self.log is not None:
            self.log.on_run(call.request, self.rank)
        answer = self._run(call.request, frames[0])
        self._send(m.Reply(call.request, [m.Chunk(wire, [], 1)], []), (answer,))

    def _run_task(self, task: m.Task) -> None:
        if self._lacks_blobs():
            self._results.append(m.Result(task.id, self.rank, 0, m.BLOB_LOST, _LOST.encode(), 0))
            return
        started_s = self._free_s
        self._free_s += TASK_S
        if self.log is not None:
            self.log.on_run(task.id, -1)
        answer = self._run(task.id, task.payload)
        duration_s = self._free_s - started_s
        self._results.append(m.Result(task.id, self.rank, int(duration_s * 1e6), 0, bytes(answer), 0))
        if (duration_s < RESULTS_FLUSH_S) != (task.function in self._quick):
            self._quick = self._quick ^ {task.function}

    def _run(self, work: m.TaskId, payload: Frame) -> Frame:
        """Let the time pass that the payload asks for. The answer."""
        argument = unpack_argument(payload)
        run_s = argument.run_s * self.slowness
        self.busy_s += run_s
        self._free_s += run_s
        return pack_answer(Answer(work, self.rank, argument.token), argument.answer_bytes)

    # --- out ----------------------------------------------------------------------------------------------------------

    def _flush(self) -> None:
        """Send the results that have gathered."""
        if self._results:
            self._flushed_s = self._free_s
            results, self._results = self._results, []
            self._send(m.Results(results))

    def _send(self, message: m.Message, frames: Sequence[Frame] = ()) -> None:
        assert self.uplink is not None
        self._free_s += self._network.weather.costs.byte_s * frame_bytes(frames)
        self.uplink.up.send(self._free_s, message, frames)


def needs_of(work: m.Call | m.Task) -> list[m.Digest]:
    """The blobs that an engine needs for its own part of a call, or for a task."""
    needs = [] if work.function == m.NO_FUNCTION else [work.function]
    needs.extend(work.needs)
    if isinstance(work, m.Call) and work.parts:
        needs.extend(work.parts[0].needs)
    return needs
