"""The leaf door: engines of ipyparallel's, unmodified, below a leaf scheduler.

It runs on the leaf's own loop. All channels of an engine end here: it registers, is given a rank by the root, beats,
is asked on `mux`, is signalled on `control` through its nanny, and publishes what it prints on `iopub`. To the core it
is a child like any engine of ours (guests.py). It becomes one when it has returned a ping, has answered a first request
and was heard on `iopub`: what is asked from then on reaches it, and nothing of what it prints is missed.

An engine is gone when its nanny says so, at once; when it misses its beats; or when it does not come up in time.
"""

from __future__ import annotations

import asyncio
import itertools
import logging
import os
import socket
import time
import traceback
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

from hiersched.compat import connection_files
from hiersched.compat.contents import OK, plain_error
from hiersched.compat.door_config import ENGINE_CHANNELS, DoorConfig
from hiersched.compat.guest_state import GuestState
from hiersched.compat.guests import Guest
from hiersched.compat.hearts import Hearts
from hiersched.compat.sockets import ChannelSockets
from hiersched.compat.wire import Message, Wire
from hiersched.core.effects import Dropped, Link, LinkDown
from hiersched.core.topology import Child
from hiersched.errors import ConnectionFileError, ProtocolError
from hiersched.limits import EVENTS_PER_STEP_MAX, GUEST_LEAVE_TIMEOUT_S, GUEST_LOOK_PERIOD_S
from hiersched.nodes.facts import ClusterFacts
from hiersched.protocol import messages as m
from hiersched.protocol.framing import Frame
from hiersched.runtime.driver import Driver

_log = logging.getLogger(__name__)


@dataclass(slots=True, eq=False)
class _Arrival:
    """An engine that has registered and is no child of the core yet. request: of its; None if it had registered with an
    earlier controller. deadline_s: when it is given up.

    awake: it has returned a ping. asked: the requests that look whether it can be reached; answered: one of them was;
    heard: what is published about one of them has come.
    """

    guest: Guest
    request: Message | None
    deadline_s: float
    awake: bool = False
    asked: set[str] = field(default_factory=set)
    answered: bool = False
    heard: bool = False


class LeafDoor:
    """The door of the leaf for guests. ports: of its channels."""

    def __init__(self, driver: Driver, facts: ClusterFacts, child: Child, config: DoorConfig) -> None:
        self._driver, self._facts, self._config = driver, facts, config
        self._loop = asyncio.get_running_loop()
        self._wire = Wire(config.key, signature_scheme=config.signature_scheme, pack=config.pack, unpack=config.unpack)
        self._hearts = Hearts(config.max_missed_beats)
        self._guests: dict[bytes, Guest] = {}  # by identity
        self._arrivals: dict[bytes, _Arrival] = {}  # those of them that are not there yet
        self._leaving: set[m.Rank] = set()  # of those that were told to end
        self._numbers = itertools.count(1)
        self._words: dict[Link, list[tuple[m.Message, Sequence[Frame]]]] = {}  # what the core is to hear
        self._speaking = self._looking = self._closed = False
        self._sockets = ChannelSockets(
            config.engine_ip,
            {channel: config.engine_ports.get(channel, 0) for channel in ENGINE_CHANNELS},
            published=("hb_ping",),
            heard=("iopub",),
            curve=(config.curve_publickey, config.curve_secretkey) if config.curve else None,
            own=driver.context,
        )
        self.ports = self._sockets.ports
        self._take: dict[str, Callable[[list[Frame]], None]] = {
            "registration": self._on_registration,
            "hb_pong": self._on_pong,
            "mux": self._on_reply,
            "iopub": self._on_published,
            "control": lambda frames: None,  # that a signal was sent, or that an engine ends as it was told
            "task": self._on_reply,
            "broadcast": self._on_reply,
        }
        self._state = GuestState(config.state_file)
        self._sockets.listen(self._loop, self._on_readable)
        if config.restore:
            self._restore()
        self._beat()
        connection_files.write_engine(config, self.ports)

    # --- in -----------------------------------------------------------------------------------------------------------

    def _on_readable(self, channel: str) -> bool:
        """Take what waits on a channel; False if more may wait."""
        for _ in range(EVENTS_PER_STEP_MAX):
            frames = self._sockets.receive(channel)
            if frames is None:
                break
            self._guard(self._take[channel], frames)
        self._speak()
        return frames is None

    def _guard(self, act: Callable[..., None], *args: Any) -> None:
        """Do something that must not end the leaf, whatever an engine has said."""
        try:
            act(*args)
        except ProtocolError as error:
            _log.warning("dropped a message: %s", error)
            self._driver.step(Dropped("malformed"))
        except Exception:
            _log.error("a message could not be handled:\n%s", traceback.format_exc())
            self._driver.step(Dropped("malformed"))

    def _on_reply(self, frames: list[Frame]) -> None:
        """An engine answers a request."""
        message = self._wire.unpack(frames)
        guest = self._guests.get(message.idents[0]) if message.idents else None
        if guest is None:
            return
        arrival = self._arrivals.get(guest.ident)
        if arrival is None:
            guest.on_reply(message)
        elif message.parent.get("msg_id") in arrival.asked:
            arrival.answered = True
            self._welcome(arrival)

    def _on_published(self, frames: list[Frame]) -> None:
        """An engine prints something, or says what it is doing."""
        message = self._wire.unpack(frames)
        guest = self._guests.get(message.session.encode())
        if guest is None:
            return
        arrival = self._arrivals.get(guest.ident)
        if arrival is None:
            guest.on_published(message)
        elif message.parent.get("msg_id") in arrival.asked:
            arrival.heard = True
            self._welcome(arrival)

    # --- engines come -------------------------------------------------------------------------------------------------

    def _on_registration(self, frames: list[Frame]) -> None:
        message = self._wire.unpack(frames)
        if message.msg_type == "registration_request":
            self._register(message)
        elif message.msg_type == "unregistration_request":
            rank = message.content.get("id")
            if isinstance(rank, int):  # one that never got an id has none to give back
                self._unregister(rank)
        else:
            raise ProtocolError(f"an engine has no business with {message.msg_type!r} on the registration channel")

    def _register(self, message: Message) -> None:
        """An engine has started: ask for a rank."""
        uuid, wanted = message.content.get("uuid"), message.content.get("id")
        if not isinstance(uuid, str) or not uuid:
            raise ProtocolError("an engine registers without a uuid")
        if uuid.encode() in self._guests:
            self._decline(message, "KeyError", f"uuid {uuid!r} in use")
        else:
            self._expect(uuid, wanted if isinstance(wanted, int) and 0 <= wanted < m.NO_RANK else -1, message)

    def _expect(self, uuid: str, wanted: int, request: Message | None) -> None:
        """An engine is coming: ask for a rank. wanted: -1 if it may be any."""
        link = b"guest-%d" % next(self._numbers)
        guest = Guest(self, link, uuid)
        deadline_s = time.monotonic() + self._config.registration_timeout_s
        self._guests[guest.ident] = guest
        self._arrivals[guest.ident] = _Arrival(guest, request, deadline_s)
        self._driver.take_in(link, guest.deliver, guest.signal)
        self.say(link, m.Enrol(link.decode(), wanted))

    def _restore(self) -> None:
        """Expect those that were there when the controller before this one ended."""
        try:
            known = self._state.read()
        except ConnectionFileError as error:
            _log.error("no engines are restored: %s", error)
            return
        for rank, uuid in known.items():
            self._expect(uuid, rank, None)

    def on_enrolled(self, guest: Guest, rank: m.Rank) -> None:
        """The root has given a rank: tell the engine."""
        arrival = self._arrivals.get(guest.ident)
        if arrival is None or self._guests.get(guest.ident) is not guest:
            return
        if rank == m.NO_RANK:
            del self._arrivals[guest.ident], self._guests[guest.ident]
            if arrival.request is not None:
                self._decline(arrival.request, "RuntimeError", "this cluster has all the engines that it may have")
            return
        guest.begin(rank)
        self._hearts.add(guest.ident)
        if arrival.request is not None:
            content = {**OK, "id": rank, "hb_period": self._config.heartbeat_ms, "connection_info": {}}
            self._reply(arrival.request, content)
        self._look_soon()

    def _decline(self, request: Message, ename: str, evalue: str) -> None:
        self._reply(request, plain_error(ename, evalue, [f"{ename}: {evalue}"]))

    def _reply(self, request: Message, content: dict[str, Any]) -> None:
        reply = self._wire.pack("registration_reply", content, parent=request.header_raw, idents=request.idents)
        self._sockets.send("registration", reply)

    def _look_soon(self) -> None:
        """While engines are coming, look often whether they can be reached."""
        if not self._looking:
            self._looking = True
            self.later(GUEST_LOOK_PERIOD_S, self._look)

    def _look(self) -> None:
        """Ping those that are coming; ask those that are awake; give up those that are late."""
        self._looking = False
        now_s = time.monotonic()
        for arrival in list(self._arrivals.values()):
            if arrival.deadline_s <= now_s:
                self._lose(arrival.guest, "it did not come up in time")
            elif arrival.awake:
                self._try(arrival)
        if self._arrivals:
            self._ping()
            self._look_soon()

    def _try(self, arrival: _Arrival) -> None:
        """See whether a request comes through to an engine, and whether it can be heard."""
        arrival.asked.add(self.ask(arrival.guest, "mux", "kernel_info_request", {}))

    def _welcome(self, arrival: _Arrival) -> None:
        """An engine that can be reached, and be heard, is a child of the core from now on."""
        guest = arrival.guest
        if not (arrival.answered and arrival.heard):
            return
        del self._arrivals[guest.ident]
        self._note_state()
        facts, rank = self._facts, guest.rank
        host = socket.gethostname()
        self.say(guest.link, m.Hello(facts.cluster, facts.key, "engine", guest.uuid, os.getpid(), host, rank, rank + 1))

    # --- engines live, and go -----------------------------------------------------------------------------------------

    def _beat(self) -> None:
        """Ping all engines, and lose those that have not answered for too long."""
        for ident in self._hearts.beat():
            self._lose(self._guests[ident], f"it missed {self._config.max_missed_beats} heartbeats")
        self._ping()
        self.later(self._config.heartbeat_ms / 1000, self._beat)

    def _ping(self) -> None:
        self._sockets.send("hb_ping", [str(time.monotonic()).encode()])

    def _on_pong(self, frames: list[Frame]) -> None:
        ident = bytes(frames[0])
        if self._hearts.on_pong(ident) and ident in self._arrivals:
            arrival = self._arrivals[ident]
            arrival.awake = True
            self._try(arrival)

    def _unregister(self, rank: int) -> None:
        """An engine has ended, or is about to. Word of it may come more than once."""
        self._leaving.discard(rank)
        for guest in list(self._guests.values()):
            if guest.rank == rank and rank != m.NO_RANK:
                self._lose(guest, "its process ended")

    def _lose(self, guest: Guest, reason: str) -> None:
        """An engine is gone, whether or not it had come."""
        self._guests.pop(guest.ident, None)
        self._arrivals.pop(guest.ident, None)
        self._hearts.remove(guest.ident)
        self._note_state()
        self._speak()
        self._driver.step(LinkDown(guest.link, reason))

    def _note_state(self) -> None:
        """Keep on disk who is there."""
        there = {guest.rank: guest.uuid for ident, guest in self._guests.items() if ident not in self._arrivals}
        try:
            self._state.write(there)
        except OSError as error:  # a full disk must cost nobody an engine
            _log.error("which engines there are could not be written: %s", error)

    def dismiss(self, guest: Guest) -> None:
        """The core has no more use for an engine: it ends."""
        if self._guests.pop(guest.ident, None) is not None:
            self._arrivals.pop(guest.ident, None)
            self._hearts.remove(guest.ident)
            self._leaving.add(guest.rank)
            self.ask(guest, "control", "shutdown_request", {"restart": False})

    # --- out ----------------------------------------------------------------------------------------------------------

    def ask(
        self, guest: Guest, channel: str, msg_type: str, content: dict[str, Any], buffers: Sequence[Frame] = ()
    ) -> str:
        """Send an engine a request. Its id."""
        header = self._wire.header(msg_type)
        self._sockets.send(channel, self._wire.pack(header, content, idents=[guest.ident], buffers=buffers))
        return str(header["msg_id"])

    def say(self, link: Link, message: m.Message, frames: Sequence[Frame] = ()) -> None:
        """Tell the core something when whoever is at work now is done."""
        self._words.setdefault(link, []).append((message, frames))
        if not self._speaking:
            self._speaking = True
            self._loop.call_soon(self._speak)

    def _speak(self) -> None:
        """Let the core hear all that is to be said."""
        self._speaking = False
        words, self._words = self._words, {}
        for link, said in words.items():
            self._driver.hear(link, *said)

    def later(self, delay_s: float, action: Callable[..., None], *args: Any) -> None:
        """Do this in so many seconds, unless the door is closed by then."""
        self._loop.call_later(delay_s, self._act, action, args)

    def _act(self, action: Callable[..., None], args: tuple[Any, ...]) -> None:
        if not self._closed:
            self._guard(action, *args)
            self._speak()

    def close(self) -> None:
        """Close all sockets. Engines that are still there are told to end, and heard while they do: the nanny of one
        that cannot say any more what it has to say would wait for ever. Where the connection files are to be used
        again, they stay, and wait for the next controller.
        """
        if self._closed:
            return
        self._closed = True
        if self._config.reuse:
            self._sockets.close()
            return
        self._state.remove()
        for guest in list(self._guests.values()):
            self.dismiss(guest)
        ends_s = time.monotonic() + GUEST_LEAVE_TIMEOUT_S
        while self._leaving and (left_s := ends_s - time.monotonic()) > 0:
            if self._sockets.wait("registration", left_s) and (frames := self._sockets.receive("registration")):
                self._guard(self._on_registration, frames)
        self._sockets.close()
