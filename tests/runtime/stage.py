"""A driver with everything around it faked: its core, its port, its uplink, the processes it starts."""

from __future__ import annotations

import asyncio
import os
import time
from collections import deque
from collections.abc import Awaitable, Callable, Sequence
from typing import Any

from hiersched.core import effects as e
from hiersched.core.topology import Child, TreePlan
from hiersched.protocol import messages as m
from hiersched.protocol.framing import Frame
from hiersched.runtime.driver import Driver
from hiersched.runtime.zmq_link import Port, Unreachable
from tests.patience import DEADLINE_S, LOOK_EVERY_S


class FakeCore:
    """Notes events, and gives the effects that a test wants for each type of them."""

    unsettled = True

    def __init__(self) -> None:
        self.events: list[e.Event] = []
        self.effects: dict[type, list[Any]] = {}

    def handle(self, event: e.Event, now: float) -> list[e.Effect]:
        self.events.append(event)
        wanted = self.effects.get(type(event), [])
        return wanted.pop(0) if wanted else []

    def on(self, event: type, *effects: e.Effect | BaseException) -> None:
        """The effects of the next event of this type."""
        self.effects.setdefault(event, []).append(list(effects))

    def of(self, kind: type) -> list[Any]:
        return [event for event in self.events if type(event) is kind]


class FakePort(Port):
    """A port whose messages a test brings. Its edge is eaten by every use, as zmq's is."""

    def __init__(self) -> None:
        self.waiting: deque[Any] = deque()
        self.sent: list[tuple[bytes, m.Message, Sequence[Frame]]] = []
        self.unreachable: dict[bytes, Unreachable] = {}
        self._edge = os.eventfd(0, os.EFD_NONBLOCK)

    def fileno(self) -> int:
        return self._edge

    def brings(self, *items: Any) -> None:
        """Messages as (link, message, *frames), or errors."""
        self.waiting.extend(items)
        os.eventfd_write(self._edge, 1)

    def readable(self) -> bool:
        self._eat_edge()
        return bool(self.waiting)

    def receive_nowait(self) -> tuple[bytes, m.Message, Sequence[Frame]] | None:
        self._eat_edge()
        if not self.waiting:
            return None
        item = self.waiting.popleft()
        if isinstance(item, Exception):
            raise item
        link, message, *frames = item
        return link, message, frames

    def send(self, link: bytes, message: m.Message, frames: Sequence[Frame] = ()) -> None:
        self._eat_edge()
        if link in self.unreachable:
            raise self.unreachable[link]
        self.sent.append((link, message, frames))

    def _eat_edge(self) -> None:
        try:
            os.eventfd_read(self._edge)
        except BlockingIOError:
            return

    def close(self) -> None:
        os.close(self._edge)


class FakeUplink:
    """A link to one of several ancestors, of which some live. Each parent is listened to on a descriptor of its own."""

    def __init__(self, ancestors: list[str]) -> None:
        self.ancestors = ancestors
        self.living = {*ancestors}
        self.sent: list[tuple[str, m.Message]] = []
        self.waiting: deque[m.Message] = deque()
        self.pipe = os.pipe()

    @property
    def parent(self) -> str:
        return self.ancestors[0]

    def parent_lives(self) -> bool:
        return self.parent in self.living

    def climb(self) -> bool:
        if self.living.isdisjoint(self.ancestors):
            return False
        while not self.parent_lives():
            self.ancestors.pop(0)
        self.close()
        self.waiting.clear()
        self.pipe = os.pipe()
        return True

    def brings(self, *messages: m.Message) -> None:
        self.waiting.extend(messages)
        os.write(self.pipe[1], b"x" * len(messages))

    def fileno(self) -> int:
        return self.pipe[0]

    def readable(self) -> bool:
        return bool(self.waiting)

    def receive_nowait(self) -> tuple[bytes, m.Message, Sequence[Frame]] | None:
        if not self.waiting:
            return None
        os.read(self.pipe[0], 1)
        return b"", self.waiting.popleft(), ()

    def send(self, message: m.Message, frames: Sequence[Frame] = ()) -> None:
        self.sent.append((self.parent, message))

    def close(self) -> None:
        for end in self.pipe:
            os.close(end)


class FakeSpawner:
    def __init__(self) -> None:
        self.started: list[Child] = []
        self.ended: list[bytes] = []
        self.signalled: list[tuple[list[bytes], int]] = []
        self.watched: set[bytes] = set()
        self.plan: TreePlan | None = None
        self.news: Callable[[], None] = lambda: None
        self._bell = os.eventfd(0, os.EFD_NONBLOCK)

    def tells(self, news: Callable[[], None]) -> None:
        """Do this when the driver listens."""
        self.news = news
        os.eventfd_write(self._bell, 1)

    def fileno(self) -> int:
        return self._bell

    def on_readable(self) -> None:
        os.eventfd_read(self._bell)
        self.news()

    def close(self) -> None:
        os.close(self._bell)

    def start(self, children: list[Child], plan: TreePlan | None) -> None:
        self.started += children
        self.plan = plan

    def end(self, link: bytes) -> None:
        self.ended.append(link)

    def signal(self, links: list[bytes], number: int) -> None:
        self.signalled.append((links, number))

    def watches(self, link: bytes) -> bool:
        return link in self.watched


class Stage:
    """A driver with everything around it. ancestors: of a scheduler that is not the root, its parent first."""

    def __init__(self, *ancestors: str) -> None:
        self.core, self.port, self.spawner = FakeCore(), FakePort(), FakeSpawner()
        self.uplink = FakeUplink([*ancestors]) if ancestors else None
        self.driver = Driver(self.core, [self.port], self.uplink, self.spawner)  # type: ignore[arg-type]
        self.exits: list[str] = []

    def start(self) -> None:
        self.driver.start(self.exits.append)

    async def until(self, condition: Callable[[], object]) -> None:
        ends_at = time.monotonic() + DEADLINE_S
        while not condition():
            assert time.monotonic() < ends_at, self.core.events
            await asyncio.sleep(LOOK_EVERY_S)

    async def rest(self) -> None:
        """Let the loop run until nothing is left to do at once."""
        for _ in range(10):
            await asyncio.sleep(0)


def staged(story: Callable[[Stage], Awaitable[None]], *ancestors: str) -> None:
    async def whole() -> None:
        stage = Stage(*ancestors)
        try:
            await story(stage)
        finally:
            stage.driver.stop()
            stage.port.close()
            stage.spawner.close()
            if stage.uplink is not None:
                stage.uplink.close()

    asyncio.run(whole())
