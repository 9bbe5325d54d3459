"""A fork server: the parent of every process of the cluster on one host, and their watch.

The nursery imports everything an engine needs once, freezes it, and then forks: an engine costs a few milliseconds and
a few megabytes, because all it has not changed is shared. It never has a thread or a zmq context, so a fork is safe.
Schedulers ask for children over a channel of their own, made before their fork, and are told on it when one ends. The
end of a process is seen through its pidfd, in milliseconds, whatever the process was doing.

Nobody is left behind. When a scheduler ends as it should, so does what it had started; when it is killed or breaks, its
children become those of whoever had started it, and are told. When the root ends, all do; when the nursery itself is
killed, the kernel kills its children (PR_SET_PDEATHSIG).
"""

from __future__ import annotations

import contextlib
import ctypes
import gc
import os
import select
import selectors
import signal
import socket
import sys
import time
import traceback
from collections.abc import Callable
from dataclasses import dataclass, field

from hiersched.core.effects import DOORBELL, Link, link_of
from hiersched.core.topology import Child, TreePlan
from hiersched.limits import STOP_TIMEOUT_S
from hiersched.runtime import promptness
from hiersched.runtime.doorbell import DOORBELL_SIGNAL
from hiersched.runtime.nursery_channel import Birth, Channel, Closed, End, Ended, Orphaned, Signal, Word

_PR_SET_PDEATHSIG = 1
_libc = ctypes.CDLL(None, use_errno=True)

Run = Callable[[Child, str, TreePlan | None, socket.socket | None], None]


@dataclass(slots=True, eq=False)
class _Process:
    """A process the nursery forked.

    asker: the scheduler that wanted it, or that took it over; None: it is the root. children: those it wanted or took
    over, without those it had ended. plan: of the tree it is in; None: the cluster's first. channel: to it, if it is a
    scheduler. unwanted: its asker had it ended.
    """

    pid: int
    pidfd: int
    child: Child
    asker: _Process | None
    plan: TreePlan | None
    channel: Channel | None
    children: dict[Link, _Process] = field(default_factory=dict)
    lives: bool = True
    unwanted: bool = False


class Nursery:
    """Forks and watches. run_engine, run_scheduler: what the forked process does; they return when it is done."""

    def __init__(self, run_engine: Run, run_scheduler: Run) -> None:
        self._run = {"engine": run_engine, "scheduler": run_scheduler}
        self._selector = selectors.DefaultSelector()
        self._processes: dict[int, _Process] = {}
        self._closing: list[int] = []
        self._root_code = 0
        self._found_bug = False
        self._tells, self._told = socket.socketpair()
        signal.pthread_sigmask(signal.SIG_BLOCK, {DOORBELL_SIGNAL})  # for all to be forked

    def start_root(self, child: Child) -> None:
        """Fork the root scheduler."""
        self._fork(child, "", None, None)

    def watch_owner(self, descriptor: int) -> None:
        """End everything when the other end of this pipe is closed: its holder is gone."""
        self._selector.register(descriptor, selectors.EVENT_READ, self._on_owner_gone)

    def serve(self) -> int:
        """Fork on request until the root has ended and nothing is left.

        The root's exit code; negative: its signal. EX_SOFTWARE if any scheduler ended with that.
        """
        promptness.take_short_turns()  # signals pass through here
        gc.collect()
        gc.freeze()  # the collector must not touch, and so copy, what all children share
        self._watch_signals()
        while self._processes:
            # Ends come first: what a scheduler asked for before it was lost must not surprise those it leaves.
            for key, _ in sorted(self._selector.select(), key=lambda event: event[0].fd not in self._processes):
                if key.fd not in self._closing:
                    key.data(key.fd)
            self._closing.clear()
        return os.EX_SOFTWARE if self._found_bug else self._root_code

    # --- births -------------------------------------------------------------------------------------------------------

    def _bear(self, request: Birth, asker: _Process) -> None:
        """Fork the children that a scheduler asks for. One that cannot be has ended."""
        plan = asker.plan if request.plan is None else request.plan
        for child in request.children:
            try:
                self._fork(child, request.address, asker, plan)
            except OSError as error:
                self._tell(asker, Ended(child, f"it could not be started: {error.strerror}"))

    def _fork(self, child: Child, address: str, asker: _Process | None, plan: TreePlan | None) -> None:
        """Fork one process. Raises OSError if the system has no room for it."""
        nursery = os.getpid()
        with contextlib.ExitStack() as undo:
            ours = theirs = None
            if child.kind == "scheduler":
                ours, theirs = map(undo.enter_context, Channel.pair())
            pid = os.fork()
            if pid == 0:
                if ours is not None:
                    ours.close()
                self._become(child, address, plan, theirs, nursery)
            undo.callback(_kill, pid)
            pidfd = os.pidfd_open(pid)
            undo.pop_all()
        channel = None
        if ours is not None and theirs is not None:
            theirs.close()
            channel = Channel(ours)
        process = self._processes[pidfd] = _Process(pid, pidfd, child, asker, plan, channel)
        if asker is not None:
            asker.children[link_of(child)] = process
        self._selector.register(pidfd, selectors.EVENT_READ, self._on_ended)
        if channel is not None:
            self._selector.register(channel, selectors.EVENT_READ, lambda _: self._on_channel(process))

    def _become(
        self, child: Child, address: str, plan: TreePlan | None, channel: socket.socket | None, nursery: int
    ) -> None:
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
            if child.kind == "scheduler":
                promptness.take_short_turns()
                promptness.leave_session()
            else:
                promptness.take_usual_turns()
            self._run[child.kind](child, address, plan, channel)
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

    def _on_channel(self, asker: _Process) -> None:
        """There is a request to read, or room to send."""
        assert asker.channel is not None
        try:
            request = asker.channel.receive_nowait()
            self._watch_channel(asker, sent=asker.channel.flush())
        except Closed:
            self._drop_channel(asker)
            return
        if isinstance(request, Birth):
            self._bear(request, asker)
        elif isinstance(request, Signal):
            number = DOORBELL_SIGNAL if request.number == DOORBELL else request.number
            for link in request.links:
                if link in asker.children:
                    self._signal(asker.children[link], number)
        elif isinstance(request, End):
            process = asker.children.pop(request.link, None)
            if process is not None:
                process.unwanted = True
                self._signal(process, signal.SIGKILL)

    def _on_ended(self, pidfd: int) -> None:
        """A process is no more: see to its children, and tell whoever had wanted it."""
        process, status = self._bury(pidfd)
        heir = process.asker
        code = status.si_status if status.si_code == os.CLD_EXITED else -status.si_status
        self._found_bug |= process.child.kind == "scheduler" and code == os.EX_SOFTWARE
        if heir is None:
            self._root_code = code
            self._end_all()
            return
        link, reason = link_of(process.child), _reason(status)
        if heir.children.get(link) is process:
            del heir.children[link]
        orphans = list(process.children.values())
        if code == 0 or process.unwanted or not heir.lives:
            for orphan in orphans:
                self._signal(orphan, signal.SIGKILL)
            self._tell(heir, Ended(process.child, reason))
            return
        # The heir is told first, so that the orphans never come to it as strangers.
        self._tell(heir, Ended(process.child, reason, [orphan.child for orphan in orphans]))
        for orphan in orphans:
            orphan.asker = heir
            heir.children[link_of(orphan.child)] = orphan
            if orphan.child.kind == "scheduler":
                self._tell(orphan, Orphaned(reason))
            else:
                self._signal(orphan, DOORBELL_SIGNAL)

    def _bury(self, pidfd: int) -> tuple[_Process, os.waitid_result]:
        """Forget a process that has ended. How it ended."""
        process = self._processes.pop(pidfd)
        process.lives = False
        self._selector.unregister(pidfd)
        status = os.waitid(os.P_PIDFD, pidfd, os.WEXITED)
        assert status is not None
        os.close(pidfd)
        self._closing.append(pidfd)
        self._drop_channel(process)
        return process, status

    def _tell(self, process: _Process, word: Word) -> None:
        """Never waits. What is not read waits here: at most two words for each child that the process has had."""
        if process.channel is None:
            return  # it has ended as well
        try:
            self._watch_channel(process, sent=process.channel.post(word))
        except Closed:
            self._drop_channel(process)

    def _watch_channel(self, process: _Process, *, sent: bool) -> None:
        """Wait for requests, and for room while something is left to send."""
        assert process.channel is not None
        events = selectors.EVENT_READ if sent else selectors.EVENT_READ | selectors.EVENT_WRITE
        key = self._selector.get_key(process.channel)
        if key.events != events:
            self._selector.modify(process.channel, events, key.data)

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
        ends = select.poll()
        for pidfd in self._processes:
            ends.register(pidfd, select.POLLIN)
        for pidfd, _ in ends.poll(1000 * timeout_s):
            self._bury(pidfd)

    def _signal(self, process: _Process, number: int) -> None:
        with contextlib.suppress(ProcessLookupError):
            signal.pidfd_send_signal(process.pidfd, number)


def _kill(pid: int) -> None:
    """End a process just forked."""
    os.kill(pid, signal.SIGKILL)
    os.waitpid(pid, 0)


def _reason(status: os.waitid_result) -> str:
    """What a person wants to read about the end of a process."""
    if status.si_code == os.CLD_EXITED:
        return f"it exited with code {status.si_status}"
    name = signal.Signals(status.si_status).name
    hint = " (out of memory?)" if name == "SIGKILL" else ""
    return f"it was killed by {name}{hint}"
