"""One loop per scheduler process: drain the sockets, step the core, perform its effects.

The driver knows no scheduling: it turns what happens outside (messages, processes that end, time that passes) into
events, and effects into sends, forks and timers. It takes up to EVENTS_PER_STEP_MAX messages of a port at a time, so
that no neighbour starves another, and then says `Drained`.

A process may be replaced by another of its name. What was said by one that has ended, and is read only then, is never
taken for words of its successor.
"""

from __future__ import annotations

import functools
import os
import time
import traceback
from collections.abc import Callable, Sequence
from socket import gethostname
from typing import Any, Concatenate, ParamSpec, Protocol

import zmq
from tornado.ioloop import IOLoop

from hiersched.core import effects as e
from hiersched.core.effects import link_of
from hiersched.core.scheduler import SchedulerCore
from hiersched.core.topology import Child, TreePlan
from hiersched.errors import ProtocolError, VersionMismatch
from hiersched.limits import EVENTS_PER_STEP_MAX, START_TIMEOUT_S
from hiersched.protocol.framing import Frame
from hiersched.protocol.messages import Hello, Message, Refused
from hiersched.runtime.client_watch import ClientWatch
from hiersched.runtime.zmq_link import Gone, Port, Unreachable, Uplink


class Lodger(Protocol):
    """Something else that this process runs on the driver's loop, such as a door for peers who speak otherwise."""

    def close(self) -> None:
        """Leave the loop, and close all sockets."""


class _Room:
    """In the place of a port: the way to a neighbour that lives in this very process. signal: takes a signal for it."""

    def __init__(
        self, deliver: Callable[[Message, Sequence[Frame]], None], signal: Callable[[int], None] | None
    ) -> None:
        self._deliver = deliver
        self.signal = signal

    def send(self, link: e.Link, message: Message, frames: Sequence[Frame] = ()) -> None:
        self._deliver(message, frames)


class Spawner(Protocol):
    """Starts the processes of children, ends them, and tells of their end through `Driver.on_child_ended`.

    When this process's own parent has ended, it tells through `Driver.on_orphaned`.
    """

    def start(self, children: list[Child], plan: TreePlan | None) -> None:
        """Start one process for each child. plan: of the tree they are in, if it is not this process's."""

    def end(self, link: e.Link) -> None:
        """See to it that the child's process is gone, with all below it."""

    def signal(self, links: list[e.Link], number: int) -> None:
        """Send a signal to those of these children that it watches."""

    def watches(self, link: e.Link) -> bool:
        """Whether it will tell of this child's end."""

    def fileno(self) -> int:
        """The descriptor that becomes readable when there is news."""

    def on_readable(self) -> None:
        """Tell the news."""


_P = ParamSpec("_P")


def _entered_from_loop(method: Callable[Concatenate[Driver, _P], None]) -> Callable[Concatenate[Driver, _P], None]:
    """An error in here is a bug of ours. A loop would log it and go on, and somebody would wait for ever: end instead,
    so that all who wait are told.
    """

    @functools.wraps(method)
    def guarded(self: Driver, *args: _P.args, **kwargs: _P.kwargs) -> None:
        if self._stopped:
            return
        try:
            method(self, *args, **kwargs)
        except Exception as error:
            traceback.print_exc()
            self.failed = True
            self._on_exit(f"a bug in hiersched, please report it with the cluster's log: {error!r}")

    return guarded


class Driver:
    """Runs one core on this process's loop until it wants to exit. failed: it ends because of a bug."""

    def __init__(self, core: SchedulerCore, ports: list[Port], uplink: Uplink | None, spawner: Spawner) -> None:
        self._core = core
        self._uplink = uplink
        self._sockets: list[Any] = [*ports, *([uplink] if uplink is not None else [])]
        self._spawner = spawner
        self._port_of: dict[e.Link, Port | _Room] = {}
        self._awaited: dict[e.Link, tuple[Child, e.Spawn]] = {}  # started and not heard yet
        self._ended: e.Link | None = None  # whose end is just being told
        self._clients = ClientWatch(self._on_readable, self._on_client_ended)
        self._host = gethostname()
        self._loop = IOLoop.current()
        self._wake: object | None = None
        self._wake_s = float("inf")
        self._on_exit: Callable[[str], None] = lambda reason: None
        self._again = False
        self._sent = False
        self._stopped = False
        self.failed = False
        self._perform = {
            e.Send: self._send,
            e.WakeAt: self._wake_at,
            e.Spawn: self._spawn,
            e.Signal: self._signal,
            e.Climb: self._climb,
            e.Close: self._close,
            e.Exit: self._exit,
        }

    def start(self, on_exit: Callable[[str], None]) -> None:
        """Begin; `on_exit(reason)` is called once, when the core is done."""
        self._on_exit = on_exit
        for socket in self._sockets:
            self._loop.asyncio_loop.add_reader(socket.fileno(), self._on_readable)  # type: ignore[attr-defined]
        self._loop.add_handler(self._spawner.fileno(), self._on_news, IOLoop.READ)
        self.step(e.Started())
        self._loop.add_callback(self._on_readable)

    def stop(self) -> None:
        """Stop listening. What the loop still holds for this driver does nothing any more."""
        self._stopped = True
        for socket in self._sockets:
            self._loop.asyncio_loop.remove_reader(socket.fileno())  # type: ignore[attr-defined]
        self._loop.remove_handler(self._spawner.fileno())
        self._clients.close()

    def say(self, link: e.Link, message: Message) -> None:
        """A last word to a neighbour, outside the core; lost if it is gone."""
        self._send(e.Send(link, message))

    @_entered_from_loop
    def step(self, event: e.Event) -> None:
        """Feed one event from outside the sockets, and let the core act on it."""
        self._feed(event)
        self._feed(e.Drained())
        self._look_again()

    @_entered_from_loop
    def on_child_ended(self, link: e.Link, reason: str, orphans: Sequence[Child] = ()) -> None:
        """A child's process is no more. orphans: its own children, which are this scheduler's from now on."""
        self._ended = link
        self._on_readable()  # its last answers may wait to be read
        self._ended = None
        self._port_of.pop(link, None)
        awaited = self._awaited.pop(link, None)
        if awaited is not None and not orphans:
            self.step(e.ChildFailed(awaited[0], reason))
        else:
            self.step(e.LinkDown(link, reason, orphans))

    @_entered_from_loop
    def on_orphaned(self, reason: str) -> None:
        """The parent's process is no more; or that of a former parent, whom this process has left already."""
        assert self._uplink is not None, "the root has no parent"
        if not self._uplink.parent_lives():
            self.step(e.LinkDown(e.PARENT, reason))

    @property
    def context(self) -> zmq.Context[zmq.Socket[bytes]]:
        """That of this process's sockets, for a lodger's: another would cost threads and descriptors."""
        return self._sockets[0].socket.context  # type: ignore[no-any-return]

    # --- neighbours in this process -----------------------------------------------------------------------------------

    def take_in(
        self,
        link: e.Link,
        deliver: Callable[[Message, Sequence[Frame]], None],
        signal: Callable[[int], None] | None = None,
    ) -> None:
        """Have a neighbour in this process. What the core sends to it goes to `deliver`, which must not come back here
        before it has returned. It speaks through `hear`, and says hello first.

        signal: takes the signals for it, which else are for a process that the spawner watches.
        """
        self._port_of[link] = _Room(deliver, signal)
        self._awaited.pop(link, None)

    @_entered_from_loop
    def hear(self, link: e.Link, *said: tuple[Message, Sequence[Frame]]) -> None:
        """A neighbour in this process says something."""
        for message, frames in said:
            self._feed(e.Received(link, message, frames))
        if self._core.unsettled:
            self._feed(e.Drained())
        self._look_again()

    # --- in -----------------------------------------------------------------------------------------------------------

    @_entered_from_loop
    def _on_news(self, *_: object) -> None:
        self._spawner.on_readable()

    @_entered_from_loop
    def _on_readable(self, *_: object) -> None:
        self._again = False
        drained = [self._drain(socket) for socket in self._sockets]
        self._sent = len(drained) > 1  # what one socket brought may have been sent on another, drained before
        if self._core.unsettled:
            self._feed(e.Drained())
        if self._sent or not all(drained):
            self._look_again(not all(drained))

    def _drain(self, socket: Port | Uplink) -> bool:
        """Step through what waits on a socket; False if more may wait."""
        for _ in range(EVENTS_PER_STEP_MAX):
            try:
                received = socket.receive_nowait()
            except (ProtocolError, VersionMismatch) as error:
                self._refuse(socket, error)
                continue
            if received is None:
                return True
            link, message, frames = received
            if not link or (self._port_of.get(link) is socket and type(message) is not Hello):
                self._feed(e.Received(link, message, frames))
            else:
                self._on_new_link(link, socket, message, frames)  # type: ignore[arg-type]
        return False

    def _on_new_link(self, link: e.Link, port: Port, message: Message, frames: Sequence[Frame]) -> None:
        """A message of a link that is not in use yet, or begins anew."""
        if type(message) is not Hello:
            if link in self._awaited:
                return  # said by the predecessor: the successor says hello first
        elif message.role == "client":
            self._clients.watch(link, message)
        elif message.host == self._host and _is_gone(message.pid):
            return
        else:
            self._awaited.pop(link, None)
        self._port_of[link] = port
        self._feed(e.Received(link, message, frames))

    def _refuse(self, socket: Port | Uplink, error: ProtocolError | VersionMismatch) -> None:
        kind = "version" if isinstance(error, VersionMismatch) else "malformed"
        self._feed(e.Dropped(kind))
        if kind == "version" and isinstance(socket, Port):
            try:
                socket.send(error.link, Refused("VersionMismatch", str(error)))  # type: ignore[union-attr]
            except Unreachable:
                return  # it did not wait for the answer

    def _on_client_ended(self, link: e.Link) -> None:
        self.step(e.LinkDown(link, "its process ended"))

    def _look_again(self, more: bool = False) -> None:
        """Using a zmq socket may have eaten the edge that announces new messages: look before sleeping."""
        if not self._again and (more or any(socket.readable() for socket in self._sockets)):
            self._again = True
            self._loop.add_callback(self._on_readable)

    # --- out ----------------------------------------------------------------------------------------------------------

    def _feed(self, event: e.Event) -> None:
        perform = self._perform
        unreachable: dict[e.Link, e.LinkDown] | None = None  # each once, however much there was to send
        for effect in self._core.handle(event, time.monotonic()):
            down = perform[type(effect)](effect)  # type: ignore[index]
            if down is not None:
                unreachable = {} if unreachable is None else unreachable
                unreachable.setdefault(down.link, down)
        for down in unreachable.values() if unreachable else ():
            self._feed(down)

    def _send(self, effect: e.Send) -> e.LinkDown | None:
        self._sent = True
        if effect.link == e.PARENT:
            assert self._uplink is not None, "the root has no parent to send to"
            self._uplink.send(effect.message, effect.frames)
            return None
        port = self._port_of.get(effect.link)
        if port is None:
            return e.LinkDown(effect.link, "it was never heard of")
        try:
            port.send(effect.link, effect.message, effect.frames)
        except Unreachable as error:
            if isinstance(error, Gone) and (effect.link == self._ended or self._spawner.watches(effect.link)):
                return None  # its process is ending: the one that watches it will tell why, and whom it leaves
            self._port_of.pop(effect.link, None)
            return e.LinkDown(effect.link, str(error))
        return None

    def _wake_at(self, effect: e.WakeAt) -> None:
        if effect.time_s >= self._wake_s:
            return
        if self._wake is not None:
            self._loop.remove_timeout(self._wake)
        self._wake_s = effect.time_s
        self._wake = self._loop.call_later(max(0.0, effect.time_s - time.monotonic()), self._woke)

    def _woke(self) -> None:
        self._wake = None
        self._wake_s = float("inf")
        self.step(e.Woke())

    def _spawn(self, effect: e.Spawn) -> None:
        for child in effect.children:
            link = link_of(child)
            self._port_of.pop(link, None)  # that of the one it replaces
            self._awaited[link] = child, effect
        self._spawner.start(effect.children, effect.plan)
        self._loop.call_later(START_TIMEOUT_S, self._check_started, effect)

    @_entered_from_loop
    def _check_started(self, effect: e.Spawn) -> None:
        for child in effect.children:
            link = link_of(child)
            if link in self._awaited and self._awaited[link][1] is effect:
                self._spawner.end(link)
                self.on_child_ended(link, f"it did not say hello within {START_TIMEOUT_S:.0f} s")

    def _signal(self, effect: e.Signal) -> None:
        links = []
        for link in effect.links:
            port = self._port_of.get(link)
            if type(port) is _Room and port.signal is not None:
                port.signal(effect.number)
            else:
                links.append(link)
        if links:
            self._spawner.signal(links, effect.number)

    def _climb(self, effect: e.Climb) -> None:
        uplink = self._uplink
        assert uplink is not None, "the root has nobody above it"
        self._loop.asyncio_loop.remove_reader(uplink.fileno())  # type: ignore[attr-defined]
        if uplink.climb():
            self._loop.asyncio_loop.add_reader(uplink.fileno(), self._on_readable)  # type: ignore[attr-defined]
            self._sent = True
        else:
            self._on_exit(f"no ancestor is left: {effect.reason}")

    def _close(self, effect: e.Close) -> None:
        self._port_of.pop(effect.link, None)
        self._clients.forget(effect.link)
        self._spawner.end(effect.link)

    def _exit(self, effect: e.Exit) -> None:
        self._on_exit(effect.reason)


def _is_gone(pid: int) -> bool:
    """Whether no process has this number."""
    try:
        os.close(os.pidfd_open(pid))
    except ProcessLookupError:
        return True
    except (OSError, OverflowError):  # no number that a process may have: for others to judge
        return False
    return False
