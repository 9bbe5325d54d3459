"""A fork server: the parent of every process of the cluster on one host, and their watch.

The nursery imports everything an engine needs once, freezes it, and then forks: an engine costs a few milliseconds and
a few megabytes, because all it has not changed is shared. It never has a thread or a zmq context, so a fork is safe.
Schedulers ask for children over a socket pair of their own, made before their fork, and are told on it when one ends.
The end of a process is seen through its pidfd, in milliseconds, whatever the process was doing.

Nobody is left behind: when a scheduler ends, so does what it had started; when the root ends, all do; when the nursery
itself is killed, the kernel kills its children (PR_SET_PDEATHSIG).
"""

from __future__ import annotations

import contextlib
import ctypes
import gc
import os
import selectors
import signal
import socket
import sys
import time
import traceback
from collections.abc import Callable
from dataclasses import dataclass

import msgspec

from hiersched.core.topology import Child
from hiersched.limits import MIB, STOP_TIMEOUT_S

_REQUEST_BYTES_MAX = MIB
_PR_SET_PDEATHSIG = 1
_libc = ctypes.CDLL(None, use_errno=True)


class Birth(msgspec.Struct, array_like=True, tag=1):
    """Scheduler to nursery: start these children; they connect to `address`."""

    children: list[Child]
    address: str


class End(msgspec.Struct, array_like=True, tag=2):
    """Scheduler to nursery: see to it that this child of yours is gone."""

    kind: str
    first: int


class Ended(msgspec.Struct, array_like=True, tag=3):
    """Nursery to scheduler: a child of yours is no more."""

    kind: str
    first: int
    last: int
    reason: str


_encode = msgspec.msgpack.Encoder().encode
_decode = msgspec.msgpack.Decoder(Birth | End | Ended).decode

Run = Callable[[Child, str, socket.socket | None], None]


@dataclass(slots=True, eq=False)
class _Process:
    """A process the nursery forked. asker: the scheduler that wanted it; channel: to it, if it is a scheduler."""

    pid: int
    pidfd: int
    child: Child
    asker: _Process | None
    channel: socket.socket | None = None


class Nursery:
    """Forks and watches. run_engine, run_scheduler: what the forked process does; they return when it is done."""

    def __init__(self, run_engine: Run, run_scheduler: Run) -> None:
        self._run = {"engine": run_engine, "scheduler": run_scheduler}
        self._selector = selectors.DefaultSelector()
        self._processes: dict[int, _Process] = {}
        self._closing: list[int] = []
        self._root_code = 0
        self._tells, self._told = socket.socketpair()

    def start_root(self, child: Child) -> None:
        """Fork the root scheduler."""
        self._fork(child, "", None)

    def watch_owner(self, descriptor: int) -> None:
        """End everything when the other end of this pipe is closed: its holder is gone."""
        self._selector.register(descriptor, selectors.EVENT_READ, self._on_owner_gone)

    def serve(self) -> int:
        """Fork on request until the root has ended and nothing is left. The root's exit code; negative: its signal."""
        gc.collect()
        gc.freeze()  # the collector must not touch, and so copy, what all children share
        self._watch_signals()
        while self._processes:
            for key, _ in self._selector.select():
                if key.fd not in self._closing:
                    key.data(key.fd)
            self._closing.clear()
        return self._root_code

    # --- births -------------------------------------------------------------------------------------------------------

    def _fork(self, child: Child, address: str, asker: _Process | None) -> None:
        ours, theirs = (
            socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET) if child.kind == "scheduler" else (None,) * 2
        )
        nursery = os.getpid()
        pid = os.fork()
        if pid == 0:
            self._become(child, address, theirs, nursery)
        if theirs is not None:
            theirs.close()
        process = _Process(pid, os.pidfd_open(pid), child, asker, ours)
        self._processes[process.pidfd] = process
        self._selector.register(process.pidfd, selectors.EVENT_READ, self._on_ended)
        if ours is not None:
            self._selector.register(ours, selectors.EVENT_READ, lambda _: self._on_request(process))

    def _become(self, child: Child, address: str, channel: socket.socket | None, nursery: int) -> None:
        """In the forked process: drop what was the nursery's and be the child. Never returns."""
        status = 1
        try:
            _libc.prctl(_PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0)
            if os.getppid() != nursery:
                raise SystemExit("the nursery ended before the kernel was told to mind it")
            for process in self._processes.values():
                os.close(process.pidfd)
                if process.channel is not None:
                    process.channel.close()
            self._selector.close()
            signal.set_wakeup_fd(-1)
            self._tells.close()
            self._told.close()
            for number in (signal.SIGTERM, signal.SIGINT):
                signal.signal(number, signal.SIG_DFL)
            with contextlib.suppress(OSError), open("/proc/self/comm", "w") as name:
                name.write(f"hs-{child.kind[:6]}-{child.first}")
            self._run[child.kind](child, address, channel)
            status = 0
        except SystemExit as stop:
            status = stop.code if isinstance(stop.code, int) else 1
        except BaseException:
            traceback.print_exc()
        finally:
            with contextlib.suppress(Exception):
                sys.stdout.flush()
                sys.stderr.flush()
            os._exit(status)

    # --- requests and ends --------------------------------------------------------------------------------------------

    def _on_request(self, asker: _Process) -> None:
        assert asker.channel is not None
        try:
            data = asker.channel.recv(_REQUEST_BYTES_MAX)
        except ConnectionResetError:  # it ended with something unread
            data = b""
        if not data:
            self._drop_channel(asker)
            return
        request = _decode(data)
        if isinstance(request, Birth):
            for child in request.children:
                self._fork(child, request.address, asker)
        elif isinstance(request, End):
            for process in self._processes.values():
                if process.asker is asker and (process.child.kind, process.child.first) == (
                    request.kind,
                    request.first,
                ):
                    self._signal(process, signal.SIGKILL)

    def _on_ended(self, pidfd: int) -> None:
        process = self._processes.pop(pidfd)
        self._selector.unregister(pidfd)
        status = os.waitid(os.P_PIDFD, pidfd, os.WEXITED)
        assert status is not None
        os.close(pidfd)
        self._closing.append(pidfd)
        self._drop_channel(process)
        for orphan in self._processes.values():
            if orphan.asker is process:
                self._signal(orphan, signal.SIGKILL)
        if process.asker is None:
            self._root_code = status.si_status if status.si_code == os.CLD_EXITED else -status.si_status
            self._end_all()
        elif process.asker.channel is not None:
            child = process.child
            with contextlib.suppress(BrokenPipeError, ConnectionResetError):  # the asker has ended as well
                process.asker.channel.send(_encode(Ended(child.kind, child.first, child.last, _reason(status))))

    def _drop_channel(self, process: _Process) -> None:
        if process.channel is not None:
            self._closing.append(process.channel.fileno())
            self._selector.unregister(process.channel)
            process.channel.close()
            process.channel = None

    def _on_owner_gone(self, descriptor: int) -> None:
        self._selector.unregister(descriptor)
        self._end_all()

    def _watch_signals(self) -> None:
        """Turn SIGTERM and SIGINT into a readable descriptor, so that they never come in the middle of a fork."""
        for number in (signal.SIGTERM, signal.SIGINT):
            signal.signal(number, lambda *_: None)
        self._told.setblocking(False)
        signal.set_wakeup_fd(self._told.fileno())
        self._selector.register(self._tells, selectors.EVENT_READ, self._on_owner_gone)

    def _end_all(self) -> None:
        """Ask every process to end, wait a little, then make it."""
        for process in self._processes.values():
            self._signal(process, signal.SIGTERM)
        deadline = time.monotonic() + STOP_TIMEOUT_S
        while self._processes and time.monotonic() < deadline:
            self._reap(deadline - time.monotonic())
        for process in self._processes.values():
            self._signal(process, signal.SIGKILL)

    def _reap(self, timeout_s: float) -> None:
        """Wait for some process to end, without answering requests any more."""
        with selectors.DefaultSelector() as ends:
            for pidfd in self._processes:
                ends.register(pidfd, selectors.EVENT_READ)
            for key, _ in ends.select(timeout_s):
                process = self._processes.pop(key.fd)
                self._selector.unregister(key.fd)
                os.waitid(os.P_PIDFD, key.fd, os.WEXITED)
                os.close(key.fd)
                self._closing.append(key.fd)
                self._drop_channel(process)

    def _signal(self, process: _Process, number: int) -> None:
        with contextlib.suppress(ProcessLookupError):
            signal.pidfd_send_signal(process.pidfd, number)


def _reason(status: os.waitid_result) -> str:
    """What a person wants to read about the end of a process."""
    if status.si_code == os.CLD_EXITED:
        return f"it exited with code {status.si_status}"
    name = signal.Signals(status.si_status).name
    hint = " (out of memory?)" if name == "SIGKILL" else ""
    return f"it was killed by {name}{hint}"


class NurseryClient:
    """A scheduler's side: starts and ends children, and hears of their end."""

    def __init__(self, channel: socket.socket, on_ended: Callable[[Child, str], None]) -> None:
        channel.setblocking(False)
        self._channel = channel
        self._on_ended = on_ended
        self._children: dict[tuple[str, int], Child] = {}
        self.address = ""

    def fileno(self) -> int:
        """The descriptor that becomes readable when a child ends."""
        return self._channel.fileno()

    def start(self, children: list[Child]) -> None:
        """Ask for one process per child; each will connect to `self.address`."""
        for child in children:
            self._children[child.kind, child.first] = child
        self._send(Birth(children, self.address))

    def end(self, kind: str, first: int) -> None:
        """See to it that this child is gone; nothing happens if it is already."""
        if self._children.pop((kind, first), None) is not None:
            self._send(End(kind, first))

    def on_readable(self, *_: object) -> None:
        """Pass on which children ended."""
        while True:
            try:
                data = self._channel.recv(_REQUEST_BYTES_MAX)
            except BlockingIOError:
                return
            except ConnectionResetError:
                data = b""
            if not data:
                raise SystemExit("the nursery is gone")
            ended = _decode(data)
            child = self._children.pop((ended.kind, ended.first), None)
            if child is not None:
                self._on_ended(child, ended.reason)

    def _send(self, message: Birth | End) -> None:
        self._channel.setblocking(True)
        try:
            self._channel.send(_encode(message))
        finally:
            self._channel.setblocking(False)
