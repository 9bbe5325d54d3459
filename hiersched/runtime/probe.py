"""What messages and processes cost here, and how many engines fit.

`measure_costs` plays a scheduler: it calls a forked process over the links that the cluster uses, and drives a real
core by hand. Times that a busy machine would distort are CPU times of the thread or process that spends them; latencies
are medians. The cost model then predicts a round trip of what was measured, part by part.

`capacity` compares what a number of engines needs with every bound of the kernel that has stopped such a number before:
better a refusal with the number that fits than a cluster that stops half way through its start.
"""

from __future__ import annotations

import os
import pickle
import resource
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from statistics import median
from typing import NamedTuple

from hiersched.core import effects
from hiersched.core.costs import ORDINARY, Costs
from hiersched.core.place import Place
from hiersched.core.scheduler import SchedulerCore
from hiersched.core.topology import Host, plan_tree
from hiersched.errors import CapacityError, StartError
from hiersched.kernels import bitset
from hiersched.limits import KIB, LEAF_ENGINES_MAX, MIB, START_TIMEOUT_S, STOP_TIMEOUT_S
from hiersched.protocol import messages as m
from hiersched.runtime.echo import Lane
from hiersched.runtime.machine import ROOT, MachineFacts, machine_facts
from hiersched.runtime.zmq_link import Port, Unreachable, context

__all__ = ["MachineFacts", "capacity", "machine_facts", "measure_costs"]

_BURST = 200  # messages sent or received in a row
_CHILDREN = 16  # of the core that is driven by hand
_LARGE_BYTES = 48 * KIB  # what is larger than INLINE_BYTES_MAX travels otherwise
_STARTS_MIN = 3
_LOOK_EVERY_S = 0.2  # whether the other process still lives, while it is silent
_CALLS_PER_START = 1000  # after so many calls a scheduler should have repaid its start: that is its price


# --- costs ------------------------------------------------------------------------------------------------------------


def measure_costs(seconds: float = 1.0) -> Costs:
    """The costs on this machine, measured for about `seconds` between real processes.

    What a network adds to a hop cannot be measured on one host and stays at its default. Raises StartError if the
    other process does not come up.
    """
    with tempfile.TemporaryDirectory(prefix="hiersched-probe-") as directory, _Echo(directory) as echo:
        starts = _repeat(0.2 * seconds, echo.start, _STARTS_MIN)
        round_trip_s = median(_repeat(0.2 * seconds, echo.round_trip))
        engine_s = echo.cpu_s(0.2 * seconds, echo.round_trip)
        large_s = median(_repeat(0.1 * seconds, lambda: echo.round_trip(_LARGE_BYTES)))
        link_send_s = median(_repeat(0.1 * seconds, echo.send_burst))
        link_receive_s = median(_repeat(0.1 * seconds, echo.receive_burst))
    core_send_s, core_receive_s, result_s = _core_costs(0.1 * seconds)
    link_s = link_send_s + link_receive_s
    return Costs(
        send_s=link_send_s + core_send_s,
        receive_s=link_receive_s + core_receive_s,
        hop_s=max(0.0, round_trip_s / 2 - link_s),
        network_s=ORDINARY.network_s,
        byte_s=max(0.0, (large_s - round_trip_s) / 2 / _LARGE_BYTES),
        result_s=result_s,
        engine_s=engine_s,
        wake_s=max(0.0, engine_s - link_s),
        process_s=median(starts) / _CALLS_PER_START,
    )


def _repeat(seconds: float, measure: Callable[[], float], least: int = 5) -> list[float]:
    """What `measure` gave, called for so long, and at least so often."""
    deadline = time.monotonic() + seconds
    values = [measure() for _ in range(least)]
    while time.monotonic() < deadline:
        values.append(measure())
    return values


class _Echo:
    """A process that forks processes which answer calls; all are gone on exit."""

    def __init__(self, directory: str) -> None:
        self._context = context()
        self._port = Port(self._context, f"ipc://{directory}/echo")
        self._log = tempfile.TemporaryFile()  # noqa: SIM115 - closed on exit
        self._process = subprocess.Popen(
            [sys.executable, "-m", "hiersched.runtime.echo", self._port.address],
            stdin=subprocess.PIPE,
            stdout=self._log,
            stderr=self._log,
        )
        self._links = 0

    def __enter__(self) -> _Echo:
        return self

    def __exit__(self, *_: object) -> None:
        assert self._process.stdin is not None
        self._process.stdin.close()
        try:
            self._process.wait(STOP_TIMEOUT_S)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()
        self._port.close()
        self._context.term()
        self._log.close()

    def start(self) -> float:
        """Fork one more process; from then on the one to be called. Seconds until its first message is here."""
        assert self._process.stdin is not None
        began_s = time.perf_counter()
        self._links += 1
        try:
            self._process.stdin.write(b"%d\n" % self._links)
            self._process.stdin.flush()
        except BrokenPipeError:
            raise self._failed() from None
        self._receive()
        return time.perf_counter() - began_s

    def round_trip(self, payload_bytes: int = 100) -> float:
        """Seconds of one call."""
        payload = pickle.dumps(b"x" * payload_bytes)
        began_s = time.perf_counter()
        self._call(_request(Lane.ECHO), payload)
        self._receive()
        return time.perf_counter() - began_s

    def cpu_s(self, seconds: float, call: Callable[[], float]) -> float:
        """CPU time of the other process, all its threads, per `call`."""
        before_s = self._cpu_s()
        calls = len(_repeat(seconds, call))
        return (self._cpu_s() - before_s) / calls

    def send_burst(self) -> float:
        """CPU seconds to send one message of many, alike but for their receivers."""
        request, payload = _request(Lane.SWALLOW), pickle.dumps(b"x" * 100)
        began_s = time.thread_time()
        for _ in range(_BURST):
            self._call(request, payload)
        sent_s = time.thread_time()
        self.round_trip()  # all have been received
        return (sent_s - began_s) / _BURST

    def receive_burst(self) -> float:
        """CPU seconds to receive one message of many."""
        self._call(_request(Lane.BURST), pickle.dumps(_BURST))
        self._receive()
        began_s = time.thread_time()
        for _ in range(_BURST - 1):
            self._receive()
        return (time.thread_time() - began_s) / (_BURST - 1)

    def _cpu_s(self) -> float:
        self._call(_request(Lane.CPU), b"")
        return float(pickle.loads(self._receive()))

    def _call(self, request: m.Call, payload: bytes) -> None:
        try:
            self._port.send(b"%d" % self._links, request, [payload])
        except Unreachable:
            raise self._failed() from None

    def _receive(self) -> bytes:
        """The payload of the next message. Raises StartError if none comes."""
        received = self._port.receive_nowait()
        deadline = time.monotonic() + START_TIMEOUT_S
        while received is None:
            if self._process.poll() is not None or time.monotonic() > deadline:
                raise self._failed()
            self._port.wait(_LOOK_EVERY_S)
            received = self._port.receive_nowait()
        _, _, frames = received
        return bytes(frames[0]) if frames else b""

    def _failed(self) -> StartError:
        self._process.kill()
        self._log.seek(0)
        return StartError(f"the process to measure with does not answer\n{self._log.read().decode(errors='replace')}")


def _request(lane: Lane) -> m.Call:
    return m.Call(1, bitset.to_wire(1), lane, bytes(16), [], [])


class _DrivenCore:
    """A root over children of `each` engines, all of them played by this object."""

    def __init__(self, each: int) -> None:
        self._each = each
        engines = _CHILDREN * each
        self._core = SchedulerCore(Place("probe", "", 0, 0, engines), plan_tree([Host("probe", engines, 1)]))
        self._core.handle(effects.Started(), 0.0)
        self._hear(b"client", m.Hello("probe", "", "client", "client", 0, "", 0, 0))
        role: m.Role = "engine" if each == 1 else "scheduler"
        for child in range(_CHILDREN):
            link, ranks = self._child(child)
            first = child * each
            self._hear(link, m.Hello("probe", "", role, f"{child}", 0, "", first, first + each))
            if role == "scheduler":
                self._hear(link, m.Members(bitset.to_wire(ranks), bitset.to_wire(0), ""))
        self._core.handle(effects.Drained(), 0.0)
        self._requests = 0

    def call(self) -> tuple[float, float]:
        """CPU seconds per child of a call on all engines: to send the requests, to handle the replies."""
        self._requests += 1
        everyone = bitset.to_wire(bitset.of_range(0, _CHILDREN * self._each))
        request = m.Call(self._requests, everyone, 0, bytes(16), [], [])
        began_s = time.thread_time()
        self._hear(b"client", request)
        sent_s = time.thread_time()
        for child in range(_CHILDREN):
            link, ranks = self._child(child)
            sizes = [] if self._each == 1 else [20] * self._each
            self._hear(
                link, m.Reply(self._requests, [m.Chunk(bitset.to_wire(ranks), sizes, 1)], []), bytes(20 * self._each)
            )
        return (sent_s - began_s) / _CHILDREN, (time.thread_time() - sent_s) / _CHILDREN

    def _child(self, child: int) -> tuple[bytes, int]:
        """(link, ranks) of a child."""
        return b"%d" % child, bitset.of_range(child * self._each, (child + 1) * self._each)

    def _hear(self, link: bytes, message: m.Message, payload: bytes = b"") -> None:
        self._core.handle(effects.Received(link, message, [payload] if payload else []), 0.0)


def _core_costs(seconds: float) -> tuple[float, float, float]:
    """CPU seconds of a core for one request sent, one reply of one engine, and each further engine in a reply."""
    alone, joined = _DrivenCore(1), _DrivenCore(LEAF_ENGINES_MAX)
    sends, replies, joined_replies = [], [], []

    def measure() -> float:
        send_s, reply_s = alone.call()
        sends.append(send_s)
        replies.append(reply_s)
        joined_replies.append(joined.call()[1])
        return send_s

    _repeat(seconds, measure)
    receive_s = median(replies)
    return median(sends), receive_s, max(0.0, (median(joined_replies) - receive_s) / (LEAF_ENGINES_MAX - 1))


# --- capacity ---------------------------------------------------------------------------------------------------------

# What processes take, roughly; measured on Linux with CPython 3.11 and pyzmq 26.
ENGINE_BYTES = 6 * MIB  # of its own, beside what it shares with the nursery it was forked from
ENGINE_DESCRIPTORS = 15
ENGINE_TASKS = 3  # its own thread and two of zmq
SCHEDULER_BYTES = 8 * MIB
SCHEDULER_DESCRIPTORS = 20  # besides those of its children
SCHEDULER_TASKS = 3
CHILD_DESCRIPTORS = 2  # at its scheduler
NURSERY_DESCRIPTORS = 20  # besides one for each engine and two for each scheduler it watches


class Bound(NamedTuple):
    """A bound of the kernel. free: what it leaves of `resource`, a field of Need."""

    name: str
    resource: str
    free: int
    remedy: str


class Need(NamedTuple):
    """What some engines and their schedulers take of each resource. tasks: processes and threads."""

    nursery_descriptors: int
    process_descriptors: int  # of the process that needs most
    tasks: int
    memory_bytes: int


def capacity(engines: int) -> None:
    """Check that so many engines, and their schedulers, can run on this machine beside what runs already.

    Raises CapacityError, which names the tightest bound and the number of engines that fit; PlanError for a number
    that no cluster can have.
    """
    facts = machine_facts()
    check_bounds(engines, facts.cores, list(bounds_here(facts)))


def check_bounds(engines: int, cores: int, bounds: list[Bound]) -> None:
    """Raise CapacityError if one of these bounds is too tight for so many engines on so many cores."""

    def broken(engines: int) -> list[tuple[float, Bound]]:
        """(how many times too tight, bound)."""
        need = need_of(engines, cores)._asdict()
        return [(need[b.resource] / max(1, b.free), b) for b in bounds if need[b.resource] > b.free]

    if not broken(engines):
        return
    fit, over = 0, engines
    while over - fit > 1:
        half = (fit + over) // 2
        fit, over = (fit, half) if broken(half) else (half, over)
    _, tightest = max(broken(over))
    wanted, free = getattr(need_of(engines, cores), tightest.resource), tightest.free
    raise CapacityError(
        f"{engines} engines do not fit on this machine: {tightest.name} allows {fit}"
        f" ({wanted} {tightest.resource.replace('_', ' ')} needed, {free} free). {tightest.remedy}"
    )


def need_of(engines: int, cores: int) -> Need:
    """What the engines take, with the schedulers that `plan_tree` gives them on so many cores."""
    plan = plan_tree([Host("this host", engines, cores)])
    return Need(
        nursery_descriptors=NURSERY_DESCRIPTORS + engines + 2 * plan.schedulers,
        process_descriptors=max(ENGINE_DESCRIPTORS, SCHEDULER_DESCRIPTORS + CHILD_DESCRIPTORS * plan.children_max),
        tasks=1 + SCHEDULER_TASKS * plan.schedulers + ENGINE_TASKS * engines,
        memory_bytes=SCHEDULER_BYTES * plan.schedulers + ENGINE_BYTES * engines,
    )


def bounds_here(facts: MachineFacts, root: Path = ROOT) -> Iterator[Bound]:
    """The bounds of this machine, its cgroups and this process."""
    descriptors, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
    if descriptors != resource.RLIM_INFINITY:
        for needed in ("nursery_descriptors", "process_descriptors"):
            yield Bound("the number of open files (RLIMIT_NOFILE)", needed, descriptors, "Raise it with `ulimit -n`.")
    running = int((root / "proc/loadavg").read_text().split()[3].partition("/")[2])
    for name in ("pid_max", "threads-max"):
        most = int((root / "proc/sys/kernel" / name).read_text())
        yield Bound(f"kernel.{name}", "tasks", most - running, f"Raise it with `sysctl kernel.{name}=...`.")
    if facts.bounds.tasks_free is not None:
        yield Bound("the cgroup's pids.max", "tasks", facts.bounds.tasks_free, "Ask for a job or container with more.")
    most, _ = resource.getrlimit(resource.RLIMIT_NPROC)
    if most != resource.RLIM_INFINITY and os.getuid() != 0:  # the superuser is exempt
        free = most - _tasks_of_user(os.getuid(), root)
        yield Bound("the user's number of processes (RLIMIT_NPROC)", "tasks", free, "Raise it with `ulimit -u`.")
    yield Bound("free memory", "memory_bytes", facts.memory_free_bytes, "Use more hosts, or end other programs.")


def _tasks_of_user(user: int, root: Path) -> int:
    """Threads of all processes of a user."""
    total = 0
    for process in (root / "proc").glob("[0-9]*"):
        try:
            if process.stat().st_uid == user:
                total += len(os.listdir(process / "task"))
        except (FileNotFoundError, ProcessLookupError, PermissionError):
            continue  # it has ended meanwhile, or is hidden from us
    return total
