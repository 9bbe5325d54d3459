"""A session whose engines are dictionaries in this process.

Calls are packed and unpacked as on a real cluster, and each engine has a namespace of its own. A job waits in `jobs`
until something waits for a request; then jobs run one by one, in the order that `pick` chooses, until that request is
done. Time is counted, not measured: a job lasts `item_s` for each item of its first argument.
"""

from __future__ import annotations

import contextlib
import io
import threading
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from typing import Any

from hiersched.client.names import request_of
from hiersched.client.pending import Listener, Pending
from hiersched.data import namespace
from hiersched.data.cells import CellReply
from hiersched.data.outcomes import (
    Outcome,
    PackedOutcome,
    lost_outcome,
    pack_outcome_error,
    pack_outcome_value,
    unpack_outcome,
)
from hiersched.data.outputs import Output, Text, pack_output
from hiersched.data.serialize import PackedCall, Packer, Unpacker
from hiersched.errors import DependencyError, EngineLost, TaskCancelled, UnknownEngine, UnknownTask
from hiersched.kernels import bitset
from hiersched.protocol import messages as m


class FakeEngine:
    """One namespace, and what unpacks calls for it."""

    def __init__(self, rank: int) -> None:
        self.rank = rank
        self.namespace: dict[str, Any] = {"__name__": "__main__", "__builtins__": __builtins__}
        self.unpacker = Unpacker(self.namespace)
        self.held = False

    def run(self, run: Callable[[], Any], *, started: float) -> PackedOutcome:
        """What `run` gives in this engine's namespace."""
        namespace.bind(self.namespace)
        out, err = io.StringIO(), io.StringIO()
        with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
            try:
                value = run()
            except Exception as error:
                pack, value = pack_outcome_error, error
            else:
                pack = pack_outcome_value
        texts = {"stdout": out.getvalue(), "stderr": err.getvalue()}
        printed = [pack_output(Text(stream, text)) for stream, text in texts.items() if text]
        return pack(value, started=started, ended=started, printed=printed)


@dataclass(eq=False)
class Job:
    """One target's part of a request. rank: None while no engine was chosen; items: of its first argument.

    candidates: of a task, the engines that may run it and have not refused it; retries: how many it has left.
    """

    pending: Pending
    rank: int | None
    packed: PackedCall | None = None
    code: str = ""
    started: bool = False
    items: int = 0
    candidates: set[int] = field(default_factory=set)
    retries: int = 0


class FakeSession:
    """The interface of a client's session.

    now: seconds; sent: packed calls, in order; terms: what each task asked for; waits: calls of wait.
    """

    def __init__(self, engines: int = 4, *, item_s: float = 0.0) -> None:
        self.packer = Packer()
        self.by_value = False
        self.closed = False
        self.engines = {rank: FakeEngine(rank) for rank in range(engines)}
        self.item_s = item_s
        self.jobs: list[Job] = []
        self.sent: list[PackedCall] = []
        self.terms: list[m.Terms | None] = []
        self.now = 1_000.0
        self.waits = 0
        self.pick: Callable[[Sequence[Job]], int] = lambda jobs: 0
        self._next = 0
        self._rotation = 0

    # --- the interface ------------------------------------------------------------------------------------------------

    def engine_ids(self) -> list[int]:
        return sorted(self.engines)

    def dispatch_width(self) -> int:
        return len(self.engines)

    def call(self, targets: tuple[int, ...], packed: PackedCall, *, wake: bool = True) -> Pending:
        return self.call_each(targets, [packed] * len(targets), wake=wake)

    def call_each(self, targets: tuple[int, ...], packed: Sequence[PackedCall], *, wake: bool = True) -> Pending:
        self._check(targets)
        pending = self._pending(targets)
        jobs = [Job(pending, target, packed=share) for target, share in zip(targets, packed, strict=True)]
        return self._submit(pending, jobs)

    def execute(self, targets: tuple[int, ...], code: str, *, silent: bool = True, wake: bool = True) -> Pending:
        self._check(targets)
        pending = self._pending(targets)
        return self._submit(pending, [Job(pending, target, code=code) for target in targets])

    def task(self, packed: PackedCall, *, terms: m.Terms | None = None) -> Pending:
        self.terms.append(terms)
        pending = self._pending(())
        pending.terms = terms
        asked = set(bitset.ranks_of(bitset.from_wire(terms.targets))) if terms is not None else set()
        job = Job(pending, None, packed=packed, candidates=asked or set(self.engines))
        job.retries = 0 if terms is None else terms.retries
        return self._submit(pending, [job])

    def dependency(
        self, tasks: Sequence[Any], *, all: bool, success: bool, failure: bool
    ) -> tuple[m.Dependency, list[tuple[int, bool, int]]]:
        ids = [request_of(part) for task in tasks for part in getattr(task, "msg_ids", [task])]
        for task in ids:
            if not 0 < task <= self._next:
                raise UnknownTask(f"there is no task {task}")
        return m.Dependency(ids, all, success, failure), []

    def wait(self, pendings: Iterable[Pending], timeout_s: float | None = None) -> bool:
        self.waits += 1
        waiting = list(pendings)
        return self._run_until(lambda: all(pending.done for pending in waiting), timeout_s)

    def wait_any(self, pendings: Iterable[Pending], timeout_s: float | None = None) -> bool:
        self.waits += 1
        waiting = list(pendings)
        return self._run_until(lambda: any(pending.done for pending in waiting), timeout_s)

    def wait_for_parts(
        self, pendings: Iterable[Pending], condition: Callable[[], bool], timeout_s: float | None = None
    ) -> bool:
        self.waits += 1
        return self._run_until(condition, timeout_s)

    def listen(self, pending: Pending, listener: Listener) -> list[list[Output]]:
        pending.listeners = (*pending.listeners, listener)
        return [pending.outputs_of(place) for place in range(len(pending.outcomes))]

    def unlisten(self, pending: Pending, listener: Listener) -> None:
        pending.listeners = tuple(other for other in pending.listeners if other is not listener)

    def cancel(self, pendings: Iterable[Pending], *, running: bool = False) -> None:
        for pending in list(pendings):
            for job in [job for job in self.jobs if job.pending is pending and not job.started]:
                self.jobs.remove(job)
                self._settle(pending, job.rank or 0, lost_outcome(TaskCancelled("cancelled before it started")))

    # --- what a test decides ------------------------------------------------------------------------------------------

    def hold(self, *ranks: int) -> None:
        """These engines run nothing until they are released."""
        for rank in ranks:
            self.engines[rank].held = True

    def release(self) -> None:
        """All engines run again."""
        for engine in self.engines.values():
            engine.held = False

    def start(self) -> None:
        """The job that is next has started: it can no longer be cancelled."""
        self._runnable()[0].started = True

    def lose(self, rank: int) -> None:
        """An engine ends, with what it held."""
        del self.engines[rank]
        for job in [job for job in self.jobs if job.rank == rank]:
            self.jobs.remove(job)
            error = EngineLost(f"engine {rank} ended while it held this call; it may have run")
            error.engine_id = rank
            self._settle(job.pending, rank, lost_outcome(error))

    def step(self) -> bool:
        """Run the job that `pick` chooses. False if none can run."""
        runnable = self._runnable()
        if not runnable:
            return False
        job = runnable[self.pick(runnable)]
        self.jobs.remove(job)
        self._run(job)
        return True

    def run_all(self) -> None:
        """Run jobs until none is left that can run."""
        while self.step():
            pass

    # --- inside -------------------------------------------------------------------------------------------------------

    def _pending(self, targets: tuple[int, ...]) -> Pending:
        self._next += 1
        pending = Pending(self._next, targets)
        pending.submitted = self.now
        return pending

    def _submit(self, pending: Pending, jobs: list[Job]) -> Pending:
        self.sent += [job.packed for job in jobs if job.packed is not None]
        for job in jobs:
            if job.rank is None and self.engines:
                self._rotation += 1
                candidates = sorted(job.candidates)
                job.rank = candidates[self._rotation % len(candidates)]
        self.jobs += jobs
        return pending

    def _check(self, targets: tuple[int, ...]) -> None:
        for target in targets:
            if target not in self.engines:
                raise UnknownEngine(f"there is no engine {target}")

    def _runnable(self) -> list[Job]:
        return [job for job in self.jobs if job.rank is not None and not self.engines[job.rank].held]

    def _run(self, job: Job) -> None:
        engine = self.engines[job.rank]
        if job.packed is None:
            packed = engine.run(lambda: exec(job.code, engine.namespace) or CellReply(1, None), started=self.now)
        else:
            packed = engine.run(lambda: self._call(job, engine), started=self.now)
        self.now += self.item_s * max(job.items, 1)
        if job.candidates and self._goes_elsewhere(job, packed.code):
            return
        outcome = unpack_outcome(packed.whole)
        outcome.ended = self.now
        self._settle(job.pending, engine.rank, outcome)

    def _goes_elsewhere(self, job: Job, code: int) -> bool:
        """Whether a task that ended with `code` runs again, or can run nowhere, which ends it."""
        if code == m.UNMET:
            job.candidates.discard(job.rank)
            if not job.candidates:
                self._settle(job.pending, job.rank, lost_outcome(DependencyError("no engine meets its condition")))
                return True
        elif code == m.RAISED and job.retries:
            job.retries -= 1
        else:
            return False
        job.started = False
        job.rank = min(job.candidates - {job.rank}, default=job.rank)
        self.jobs.append(job)
        return True

    def _call(self, job: Job, engine: FakeEngine) -> Any:
        function = engine.unpacker.function(job.packed.function, job.packed.blobs[job.packed.function])
        args, kwargs = engine.unpacker.arguments(job.packed.frames, job.packed.blobs)
        job.items = len(args[0]) if args and hasattr(args[0], "__len__") else 1
        return function(*args, **kwargs)

    def _settle(self, pending: Pending, rank: int, outcome: Outcome) -> None:
        if outcome.all_outputs:
            for listener in pending.listeners:
                listener.on_output(pending, [rank], outcome.all_outputs)
        pending.settle(rank, outcome)
        pending.tell()
        if pending.complete:
            pending.received = self.now

    def _run_until(self, condition: Callable[[], bool], timeout_s: float | None) -> bool:
        while not condition():
            if not self.step():
                assert timeout_s is not None, "waits for ever: nothing that it waits for can run"
                return False
        return True


class FakeClient:
    """What views and executors need of a client. asked: the control methods that were called, with their arguments."""

    block = False
    cluster_id = "fake"

    def __init__(self, session: FakeSession) -> None:
        self.session = session
        self.asked: list[tuple[str, Any, dict[str, Any]]] = []

    @property
    def ids(self) -> list[int]:
        return self.session.engine_ids()

    def __getattr__(self, name: str) -> Any:
        if name not in ("abort", "clear", "get_result", "queue_status", "send_signal", "shutdown", "wait"):
            raise AttributeError(name)

        def ask(*args: Any, **options: Any) -> str:
            self.asked.append((name, args, options))
            return f"what {name} gives"

        return ask


class ThreadedSession(FakeSession):
    """Runs jobs in a thread of its own, as a real session does for who does not wait. Use it as a context."""

    def __init__(self, engines: int = 4, *, item_s: float = 0.0) -> None:
        super().__init__(engines, item_s=item_s)
        self._changed = threading.Condition()
        self._closed = False
        self._thread = threading.Thread(target=self._work, name="fake-session")

    def __enter__(self) -> ThreadedSession:
        self._thread.start()
        return self

    def __exit__(self, *exception: object) -> None:
        with self._changed:
            self._closed = True
            self._changed.notify_all()
        self._thread.join()

    def _work(self) -> None:
        while True:
            with self._changed:
                self._changed.wait_for(lambda: self._closed or self._runnable())
                if self._closed:
                    return
                runnable = self._runnable()
                job = runnable[self.pick(runnable)]
                self.jobs.remove(job)
            self._run(job)
            with self._changed:
                self._changed.notify_all()

    def _submit(self, pending: Pending, jobs: list[Job]) -> Pending:
        with self._changed:
            super()._submit(pending, jobs)
            self._changed.notify_all()
        return pending

    def cancel(self, pendings: Iterable[Pending], *, running: bool = False) -> None:
        with self._changed:
            super().cancel(pendings, running=running)
            self._changed.notify_all()

    def _run_until(self, condition: Callable[[], bool], timeout_s: float | None) -> bool:
        with self._changed:
            return self._changed.wait_for(condition, timeout_s)
