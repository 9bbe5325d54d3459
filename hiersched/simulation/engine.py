"""A simulated engine: takes work from its scheduler in order, runs it for a virtual time, answers.

It keeps to what the real engine does: one thing at a time, results of short tasks leave together at least every
RESULTS_FLUSH_S, and messages are looked at between such batches. Short work is worked out at once, and sent with the
time at which it leaves: a pipe drops it if the engine has ended by then. While long work runs, the engine reads its
mail at a doorbell only; then it also looks whether its parent lives, and climbs to an ancestor if it does not
(docs/decisions/0010).
"""

from __future__ import annotations

from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

from hiersched.core.effects import DOORBELL, Link
from hiersched.kernels import bitset
from hiersched.limits import BLOB_TIMEOUT_S, MAIL_TIMEOUT_S, RESULT_GIVEN_BYTES_MAX, RESULTS_FLUSH_S
from hiersched.protocol import messages as m
from hiersched.protocol.framing import Frame, split_frames
from hiersched.simulation.engine_link import EngineLink
from hiersched.simulation.holdings import Holdings
from hiersched.simulation.network import Edge, Network
from hiersched.simulation.payload import Answer, Argument, pack_answer, pack_said, unpack_argument
from hiersched.simulation.scheduler import Processes

TASK_S = 5e-6  # an engine's time to decode and answer one task of a batch

SIGINT, SIGKILL, SIGTERM = 2, 9, 15
_RETURNED = 0

Work = tuple[m.Call | m.Task, Sequence[Frame]]


class RunLog(Protocol):
    """Is told of everything that runs."""

    def on_start(self, work: m.Call | m.Task, engine: SimEngine) -> None:
        """This starts on this engine."""

    def on_end(self, work: m.Call | m.Task, engine: SimEngine, code: int) -> None:
        """It is over there: it returned (code 0), raised or was interrupted."""


@dataclass(slots=True, eq=False)
class _Run:
    """What runs. started_s: since when; said: pieces of output so far."""

    work: m.Call | m.Task
    argument: Argument
    started_s: float
    said: int = 0


class SimEngine(EngineLink):
    """One engine. slowness: how many times longer than normal it runs everything. busy_s: time spent running so far."""

    __slots__ = (
        "_awake",
        "_bell_until_s",
        "_holdings",
        "_inbox",
        "_processes",
        "_quick",
        "_running",
        "_work",
        "busy_s",
        "log",
        "slowness",
    )

    def __init__(self, link: Link, host: str, *, rank: int, network: Network, processes: Processes) -> None:
        super().__init__(link, host, rank=rank, network=network)
        self.slowness = 1.0
        self.busy_s = 0.0
        self.log: RunLog | None = None
        self._processes = processes
        self._inbox: list[tuple[m.Message, Sequence[Frame]]] = []
        self._work: deque[Work] = deque()
        self._running: _Run | None = None
        self._holdings: Holdings | None = None
        self._quick: frozenset[m.Digest] = frozenset()
        self._awake = False
        self._bell_until_s = -1.0

    @property
    def at_rest(self) -> bool:
        """It has nothing to do, waits for nothing, and knows that the root has all it answered."""
        return not (self._work or self._inbox or self._results or self._running or self.kept)

    # --- in -----------------------------------------------------------------------------------------------------------

    def receive(self, edge: Edge, link: Link, message: m.Message, frames: Sequence[Frame]) -> None:
        if edge is not self.uplink:
            return
        self._inbox.append((message, frames))
        if self._running is None:
            self._wake()
        elif self.network.timeline.now_s <= self._bell_until_s:
            self._read()

    def link_down(self, link: Link, reason: str) -> None:
        self._processes.end(self, reason)

    def signal(self, number: int) -> None:
        """A signal reaches the process."""
        if number == DOORBELL:
            self._ring()
        elif number in (SIGTERM, SIGKILL):
            self._processes.end(self, f"it was killed by signal {number}")
        elif number == SIGINT and self._running is not None:
            self._stop_running(m.RAISED)

    def _ring(self) -> None:
        """The doorbell: if the parent is gone, climb; otherwise read what has come, even while something runs."""
        assert self.uplink is not None
        now_s = self.network.timeline.now_s
        gone = self.uplink.parent.ended_s <= now_s
        reads = self.network.rng.random() < 0.5 if gone else self._running is not None
        if reads:  # what a parent that is gone had sent may have been read just before, or is not read any more
            self._read()
        if gone and self.ended_s > now_s:
            self._climb()
        self._bell_until_s = now_s + MAIL_TIMEOUT_S

    def _climb(self) -> None:
        """Go on under the nearest living ancestor. What was not read over the old link has never happened."""
        if not self._processes.climb(self):
            self._processes.end(self, "its scheduler is gone, and no other lives")
            return
        self._inbox.clear()
        holds = [m.try_of(work) for work, _ in self._work]
        if self._running is not None:
            holds.append(m.try_of(self._running.work))
        self._introduce(holds, self._holdings.awaited if self._holdings is not None else ())

    def _wake(self) -> None:
        """Look at the inbox as soon as there is time."""
        if self._awake:
            return
        self._awake = True
        if self._free_s > self.network.timeline.now_s:
            self.network.timeline.at(self._free_s, self._look)
        else:
            self._look()

    def _read(self) -> None:
        """Put every message where it belongs."""
        self._free_s = max(self._free_s, self.network.timeline.now_s)
        inbox, self._inbox = self._inbox, []
        for message, frames in inbox:
            self._take(message, frames)

    def _take(self, message: m.Message, frames: Sequence[Frame]) -> None:
        if self._running is None:
            costs = self.network.weather.costs
            self._free_s += costs.engine_s if type(message) is m.Call else costs.receive_s
        match message:
            case m.Call():
                self._work.append((message, frames))
            case m.Tasks():
                pieces = split_frames([task.frames for task in message.tasks], frames)
                self._work.extend(zip(message.tasks, pieces, strict=True))
            case m.Blob():
                self._own_holdings().put(message.digest, frames[0])
            case m.Missing():
                self._own_holdings().miss(message.digests)
            case m.Cancel():
                self._withdraw(set(message.tasks), running=message.running)
            case m.Ack():
                self._on_ack(message)
            case m.Welcome():
                self._on_welcome(message)
            case m.Stop() | m.Refused():
                self.network.timeline.at(self._free_s, self._end, type(message).__name__)

    def _end(self, reason: str) -> None:
        if self.ended_s > self.network.timeline.now_s:
            self._processes.end(self, reason)

    # --- work ---------------------------------------------------------------------------------------------------------

    def _look(self, _: None = None) -> None:
        """Read the mail, then do what lies before the next look: one call, or tasks until a flush."""
        now_s = self.network.timeline.now_s
        if self.ended_s <= now_s:
            return
        self._read()
        if self._may_work():
            self._work_on()
        if self._running is None:
            self._flush()
            if self._may_work():
                self.network.timeline.at(self._free_s, self._look)
                return
        self._awake = False

    def _may_work(self) -> bool:
        return bool(self._work) and (self._holdings is None or not self._holdings.awaited)

    def _work_on(self) -> None:
        while self._work:
            work, frames = self._work[0]
            if isinstance(work, m.Call) or work.function not in self._quick:
                self._flush()  # this one may run for hours
            if not self._supplied(work):
                return
            self._work.popleft()
            self._begin(work, frames)
            if isinstance(work, m.Call) or self._running is not None:
                return
            if self._free_s - self._flushed_s >= RESULTS_FLUSH_S:
                return

    def _supplied(self, work: m.Call | m.Task) -> bool:
        """Whether work may start, as its blobs are here or known to be lost; otherwise they are asked for."""
        needs = needs_of(work)
        if not needs or self._own_holdings().asked:
            return True
        wanted = self._own_holdings().want(needs)
        if not wanted:
            return True
        self._flush()
        self._send(m.Want(wanted))
        self.network.timeline.at(self._free_s + BLOB_TIMEOUT_S, self._give_up, work)
        return False

    def _give_up(self, work: m.Call | m.Task) -> None:
        """The blobs have not come in time."""
        holdings = self._own_holdings()
        waits = holdings.awaited and self._work and self._work[0][0] is work
        if waits and self.ended_s > self.network.timeline.now_s:
            holdings.miss(list(holdings.awaited))
            self._wake()

    def _own_holdings(self) -> Holdings:
        if self._holdings is None:
            self._holdings = Holdings()
        return self._holdings

    def _begin(self, work: m.Call | m.Task, frames: Sequence[Frame]) -> None:
        """Run it: at once if it is short, otherwise it runs until it is over."""
        if self._holdings is not None and self._holdings.end_wait():
            self._give_back(work, m.BLOB_LOST)
            return
        argument = unpack_argument(frames[0] if isinstance(work, m.Call) else work.payload)
        started_s = self._free_s
        if isinstance(work, m.Task):
            self._free_s += TASK_S
            if _holds(argument.unmet, self.rank):
                self._give_back(work, m.UNMET)
                return
            if argument.inputs:
                self._own_holdings().check_inputs(work, argument)
        if self.log is not None:
            self.log.on_start(work, self)
        run = _Run(work, argument, started_s)
        run_s = argument.run_s * self.slowness
        if run_s <= RESULTS_FLUSH_S and not argument.pieces:
            self._free_s += run_s
            self.busy_s += run_s
            self._finish(run, _RETURNED)
            return
        self._running = run
        timeline = self.network.timeline
        for place in range(1, argument.pieces + 1):
            timeline.at(self._free_s + run_s * place / (argument.pieces + 1), self._speak, run)
        timeline.at(self._free_s + run_s, self._on_over, run)

    def _speak(self, run: _Run) -> None:
        """The code that runs has printed something, which leaves at once."""
        now_s = self.network.timeline.now_s
        if self._running is run and self.ended_s > now_s:
            assert self.uplink is not None
            run.said += 1
            piece = pack_said(_id_of(run.work), run.said, rank=self.rank, own=run.argument.own)
            outputs = m.Outputs([m.Piece(_id_of(run.work), bitset.to_wire(1 << self.rank))])
            self.uplink.up.send(now_s, outputs, (piece,))

    def _on_over(self, run: _Run) -> None:
        """The code that ran has come to its end."""
        if self._running is run and self.ended_s > self.network.timeline.now_s:
            self._stop_running(_RETURNED)

    def _stop_running(self, code: int) -> None:
        """What runs is over, by itself or by an interrupt; go on with what waits."""
        run, self._running = self._running, None
        assert run is not None
        self._free_s = max(self._free_s, self.network.timeline.now_s)
        self.busy_s += max(0.0, self._free_s - run.started_s)
        self._finish(run, code)
        self._wake()

    def _finish(self, run: _Run, code: int) -> None:
        """Answer for what has run."""
        work, argument = run.work, run.argument
        if code == _RETURNED and _holds(argument.raises, self.rank):
            code = m.RAISED
        if self.log is not None:
            self.log.on_end(work, self, code)
        if code == m.INTERRUPTED:
            self._give_back(work, code)
        elif isinstance(work, m.Call):
            answer = Answer(work.request, self.rank, argument.token, code == m.RAISED)
            self._reply(work, pack_answer(answer, argument.answer_bytes), argument)
        else:
            answer = Answer(work.id, self.rank, argument.token, code == m.RAISED)
            outcome, duration_s = pack_answer(answer, argument.answer_bytes), self._free_s - run.started_s
            self._add_result(work, code, outcome, duration_s)
            if not code and len(outcome) > RESULT_GIVEN_BYTES_MAX:
                self._own_holdings().hold_result(work.id, outcome)
            if (duration_s < RESULTS_FLUSH_S) != (work.function in self._quick):
                self._quick = self._quick ^ {work.function}

    def _withdraw(self, ids: set[m.TaskId], *, running: bool) -> None:
        """Give back what has not started; stop what runs if that is wanted."""
        withdrawn = [work for work, _ in self._work if _id_of(work) in ids]
        if withdrawn:
            if self._holdings is not None and self._work[0][0] is withdrawn[0]:
                self._holdings.end_wait()
            self._work = deque((work, frames) for work, frames in self._work if _id_of(work) not in ids)
            for work in withdrawn:
                self._give_back(work, m.CANCELLED)
            self._flush()
        if running and self._running is not None and _id_of(self._running.work) in ids:
            self._stop_running(m.INTERRUPTED)


def needs_of(work: m.Call | m.Task) -> list[m.Digest]:
    """The blobs that an engine needs for its own part of a call, or for a task."""
    needs = [] if work.function == m.NO_FUNCTION else [work.function]
    needs.extend(work.needs)
    if isinstance(work, m.Call) and work.parts:
        needs.extend(work.parts[0].needs)
    return needs


def _id_of(work: m.Call | m.Task) -> m.TaskId:
    return work.id if isinstance(work, m.Task) else work.request


def _holds(ranks: m.Ranks, rank: int) -> bool:
    return bool(ranks[1]) and bool(bitset.from_wire(ranks) >> rank & 1)
