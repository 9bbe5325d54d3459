"""What a test leaves behind: processes, sockets, threads, shared memory and temporary files.

A census is taken before and after. What is new is given `GONE_AFTER_S` to go (processes end and sockets close in their
own time); what is then still there is named, and removed so that the next test starts clean. Engines may daemonise, so
processes are known by their environment too: every one started under a test run carries `RUN_VARIABLE`. Temporary files
are told apart from those of other programs by a directory of the run's own.
"""

from __future__ import annotations

import contextlib
import gc
import os
import shutil
import tempfile
import threading
import time
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

import psutil
import zmq
from zmq.utils import garbage

RUN_VARIABLE = "HIERSCHED_TEST_RUN"
GONE_AFTER_S = 5.0
LOOK_EVERY_S = 0.02
SHARED_MEMORY = Path("/dev/shm")
OUR_SEGMENTS = ("hiersched", "hs-", "hs_", "psm_")
NOT_OURS = ("pytest-of-", "joblib_memmapping_", "resource_tracker")  # owned by tools, and removed at their own end


@dataclass(frozen=True)
class Census:
    """What exists at one moment.

    processes: {(pid, start time): command line}, empty unless `searched`; sockets: what the descriptors of this process
    point to; the rest as their names say.
    """

    searched: bool
    threads: frozenset[threading.Thread]
    files: frozenset[Path]
    processes: dict[tuple[int, float], str]
    sockets: frozenset[str]


def census(*, search: bool) -> Census:
    """Count what exists now. `search`: look for processes and sockets too, a few milliseconds instead of 0.1."""
    threads = frozenset(thread for thread in threading.enumerate() if not thread.daemon)
    files = frozenset(temporary_files())
    if not search:
        return Census(False, threads, files, {}, frozenset())
    return Census(True, threads, files, dict(running_processes()), frozenset(open_sockets()))


def temporary_files() -> Iterator[Path]:
    """Our shared memory segments, and everything in the run's own temporary directory."""
    segments = (path for path in SHARED_MEMORY.iterdir() if path.name.startswith(OUR_SEGMENTS))
    for path in (*segments, *Path(tempfile.gettempdir()).iterdir()):
        if not path.name.startswith(NOT_OURS):
            yield path


def running_processes() -> Iterator[tuple[tuple[int, float], str]]:
    """Descendants of this process, and every process of this run that has left the family."""
    me = psutil.Process()
    mark = os.environ[RUN_VARIABLE]
    family = {process.pid for process in me.children(recursive=True)}
    for process in psutil.process_iter():
        with contextlib.suppress(psutil.NoSuchProcess, psutil.AccessDenied):
            ours = process.pid in family or process.environ().get(RUN_VARIABLE) == mark
            if ours and process.pid != me.pid and is_alive(process):
                command = " ".join(process.cmdline()) or process.name()
                if not any(tool in command for tool in NOT_OURS):
                    yield (process.pid, process.create_time()), command


def open_sockets() -> Iterator[str]:
    """`socket:[inode]` of each socket of this process, and each zmq socket that was not closed."""
    for descriptor in Path("/proc/self/fd").iterdir():
        with contextlib.suppress(FileNotFoundError):
            target = os.readlink(descriptor)
            if target.startswith("socket:"):
                yield target
    for thing in gc.get_objects():
        if not issubclass(type(thing), zmq.Socket):  # isinstance() would ask lazy proxies to load
            continue
        if not thing.closed and thing.context is not garbage.gc.context:  # whose thread pyzmq keeps, once started
            yield f"zmq socket {id(thing):#x} {thing!r}"


def left_since(before: Census) -> Census:
    """What is there now and was not at `before`."""
    now = census(search=before.searched)
    return Census(
        before.searched,
        frozenset(thread for thread in now.threads - before.threads if thread.is_alive()),
        frozenset(path for path in now.files - before.files if not held_by_strangers(path)),
        {key: command for key, command in now.processes.items() if key not in before.processes},
        now.sockets - before.sockets,
    )


def held_by_strangers(path: Path) -> bool:
    """Whether a process of another run has this shared memory segment mapped; it is that run's, then."""
    if path.parent != SHARED_MEMORY:
        return False
    mark = os.environ[RUN_VARIABLE]
    for process in psutil.process_iter():
        with contextlib.suppress(psutil.NoSuchProcess, psutil.AccessDenied, FileNotFoundError):
            stranger = process.pid != os.getpid() and process.environ().get(RUN_VARIABLE) != mark
            if stranger and str(path) in Path(f"/proc/{process.pid}/maps").read_text():
                return True
    return False


def describe(left: Census) -> list[str]:
    """One line for each thing left; empty if there is none."""
    return [
        *(f"process {pid}: {command}" for (pid, _), command in sorted(left.processes.items())),
        *(f"thread {thread.name}" for thread in left.threads),
        *(f"file {path}" for path in sorted(left.files)),
        *sorted(left.sockets),
    ]


def wait_until_gone(before: Census, *, within_s: float = GONE_AFTER_S) -> Census:
    """What is still left `within_s` later; returns as soon as nothing is."""
    deadline = time.monotonic() + within_s
    while describe(left := left_since(before)) and time.monotonic() < deadline:
        time.sleep(LOOK_EVERY_S)
    return left


def remove(left: Census) -> None:
    """Kill the processes and delete the files, so that the next test starts clean. Threads and sockets stay."""
    kill(pid_and_start for pid_and_start in left.processes)
    for path in left.files:
        if path.is_dir():
            shutil.rmtree(path, ignore_errors=True)
        else:
            path.unlink(missing_ok=True)


def kill(processes: Iterable[tuple[int, float]]) -> None:
    """Kill these processes, and wait until they have ended."""
    killed = []
    for pid, start in processes:
        with contextlib.suppress(psutil.NoSuchProcess):
            process = psutil.Process(pid)
            if process.create_time() == start:
                process.kill()
                killed.append(process)
    deadline = time.monotonic() + GONE_AFTER_S
    while any(map(is_alive, killed)) and time.monotonic() < deadline:
        time.sleep(LOOK_EVERY_S)


def is_alive(process: psutil.Process) -> bool:
    """Whether it still runs. One that nobody has reaped has ended."""
    with contextlib.suppress(psutil.NoSuchProcess):
        return process.status() != psutil.STATUS_ZOMBIE
    return False
