"""A guest with a door of the test's own: what it asks of its engine, what it tells the core, what it puts off."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from hiersched.compat.guests import Guest
from hiersched.compat.wire import Message
from hiersched.kernels import bitset
from hiersched.protocol import messages as m
from hiersched.protocol.framing import Frame

RANK = 7
WIRE_RANK = bitset.to_wire(1 << RANK)


class Stage:
    """asked: (channel, type, content, buffers); said: (message, frames); put_off: (seconds, what)."""

    def __init__(self) -> None:
        self.asked: list[tuple[str, str, dict[str, Any], list[Frame]]] = []
        self.said: list[tuple[m.Message, list[Frame]]] = []
        self.put_off: list[tuple[float, Callable[[], None]]] = []
        self.dismissed = False
        self.guest = Guest(self, b"guest-1", "uuid")
        self.guest.begin(RANK)

    # --- the door ---

    def ask(
        self, guest: Guest, channel: str, msg_type: str, content: dict[str, Any], buffers: Sequence[Frame] = ()
    ) -> str:
        self.asked.append((channel, msg_type, content, list(buffers)))
        return f"request-{len(self.asked)}"

    def say(self, link: bytes, message: m.Message, frames: Sequence[Frame] = ()) -> None:
        assert link == b"guest-1"
        self.said.append((message, list(frames)))

    def later(self, delay_s: float, action: Callable[..., None], *args: Any) -> None:
        self.put_off.append((delay_s, lambda: action(*args)))

    def on_enrolled(self, guest: Guest, rank: m.Rank) -> None:
        self.guest.begin(rank)

    def dismiss(self, guest: Guest) -> None:
        self.dismissed = True

    # --- the test ---

    def hears(self, message: m.Message, *frames: Frame) -> None:
        """The core says something."""
        self.guest.deliver(message, frames)

    def says(self) -> list[tuple[m.Message, list[Frame]]]:
        """What the core was told since the last look."""
        said, self.said = self.said, []
        return said

    def requests(self) -> list[tuple[str, str, dict[str, Any], list[Frame]]]:
        """What the engine was asked since the last look; their numbers go on."""
        before = getattr(self, "_seen", 0)
        self._seen = len(self.asked)
        return self.asked[before:]

    def time_comes(self) -> None:
        """All that was put off so far is done."""
        due, self.put_off = self.put_off, []
        for _, action in due:
            action()

    # --- the engine ---

    @property
    def latest(self) -> str:
        """The id of the latest request."""
        return f"request-{len(self.asked)}"

    def replies(
        self, msg_type: str, content: dict[str, Any], *buffers: Frame, to: str = "", idle: bool = True, **metadata: Any
    ) -> None:
        """The engine answers, and has no more to print."""
        request = to or self.latest
        self.guest.on_reply(message(msg_type, content, request, *buffers, **metadata))
        if idle:
            self.publishes("status", {"execution_state": "idle"}, of=request)

    def publishes(self, msg_type: str, content: dict[str, Any], *, of: str = "") -> None:
        """The engine prints or displays something."""
        self.guest.on_published(message(msg_type, content, of or self.latest))


def message(msg_type: str, content: dict[str, Any], parent: str, *buffers: Frame, **metadata: Any) -> Message:
    """What an engine says."""
    header = {"msg_id": "of the engine's", "msg_type": msg_type, "session": "uuid", "date": "2026-01-02T00:00:01+00:00"}
    return Message([], header, b"{}", {"msg_id": parent}, metadata, content, list(buffers))
