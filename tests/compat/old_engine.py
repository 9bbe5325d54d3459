"""An engine as ipyparallel's, in this process: what it says on each channel, without IPython behind it."""

from __future__ import annotations

from typing import Any

import zmq

from hiersched.compat.wire import Message, Wire
from hiersched.protocol.framing import Frame


class OldEngine:
    """One engine. With `beats`, it returns pings; with `answers`, it answers what looks whether it can be reached."""

    def __init__(self, ports: dict[str, int], key: bytes, uuid: str) -> None:
        self.uuid = uuid
        self.beats = self.answers = True
        self.wire = Wire(key)
        self.wire.session = uuid
        self.requests: list[Message] = []
        self.signals: list[Message] = []
        self._own = zmq.Context()
        self._ports = ports
        self._sockets: dict[str, zmq.Socket[bytes]] = {}
        self._connect("registration", zmq.DEALER)

    # --- its life -----------------------------------------------------------------------------------------------------

    def register(self, wanted: int | None = None) -> None:
        """Ask to be let in."""
        content = {"uuid": self.uuid} | ({} if wanted is None else {"id": wanted})
        self.says("registration", "registration_request", content)

    def registered(self) -> dict[str, Any] | None:
        """The answer to that, if it has come."""
        reply = self._next("registration")
        return None if reply is None else reply.content

    def connect(self) -> None:
        """It has been let in: connect to all other channels."""
        self._connect("mux", zmq.ROUTER)
        self._connect("control", zmq.ROUTER)
        self._connect("iopub", zmq.PUB)
        self._connect("hb_ping", zmq.SUB)
        self._connect("hb_pong", zmq.DEALER)
        self._sockets["hb_ping"].setsockopt(zmq.SUBSCRIBE, b"")

    def unregister(self, rank: int) -> None:
        """Its nanny tells that it has ended."""
        self.says("registration", "unregistration_request", {"id": rank})

    def live(self) -> None:
        """Do what an engine does by itself: return pings, take requests."""
        if "mux" not in self._sockets:
            return
        while (ping := self._frames("hb_ping")) is not None:
            if self.beats:
                self._sockets["hb_pong"].send_multipart(ping)
        while (request := self._next("mux")) is not None:
            if request.msg_type != "kernel_info_request":
                self.requests.append(request)
            elif self.answers:
                self.answer(request, "kernel_info_reply", {"status": "ok"})
        while (order := self._next("control")) is not None:
            self.signals.append(order)

    def answer(self, request: Message, msg_type: str, content: dict[str, Any], *buffers: Frame) -> None:
        """Answer a request, and be idle."""
        frames = self.wire.pack(
            msg_type, content, parent=request.header_raw, idents=request.idents, buffers=list(buffers)
        )
        self._sockets["mux"].send_multipart(frames)
        self.publish(request, "status", {"execution_state": "idle"})

    def publish(self, request: Message, msg_type: str, content: dict[str, Any]) -> None:
        """Print something."""
        topic = b"engine.0." + msg_type.encode()
        frames = self.wire.pack(msg_type, content, parent=request.header_raw, idents=[topic])
        self._sockets["iopub"].send_multipart(frames)

    def says(self, channel: str, msg_type: str, content: dict[str, Any]) -> list[Frame]:
        """Send a message; its frames."""
        frames = self.wire.pack(msg_type, content)
        self.sends(channel, frames)
        return frames

    def sends(self, channel: str, frames: list[Frame]) -> None:
        """Send anything at all."""
        self._sockets[channel].send_multipart(frames)

    def close(self) -> None:
        """End without a word."""
        self._own.destroy(linger=0)

    # --- its sockets --------------------------------------------------------------------------------------------------

    def _connect(self, channel: str, kind: int) -> None:
        socket = self._own.socket(kind)
        if kind != zmq.SUB:
            socket.setsockopt(zmq.IDENTITY, self.uuid.encode())
        socket.connect(f"tcp://127.0.0.1:{self._ports[channel]}")
        self._sockets[channel] = socket

    def _frames(self, channel: str) -> list[bytes] | None:
        try:
            return self._sockets[channel].recv_multipart(zmq.NOBLOCK)
        except zmq.Again:
            return None

    def _next(self, channel: str) -> Message | None:
        frames = self._frames(channel)
        return None if frames is None else self.wire.unpack(frames)
