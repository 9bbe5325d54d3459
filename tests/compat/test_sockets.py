"""A door's sockets: each channel has its own, whoever asks is answered there, and no message waits for the next one."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable
from typing import Any

import pytest
import zmq

from hiersched.compat.sockets import ChannelSockets
from hiersched.errors import StartError
from hiersched.limits import INLINE_BYTES_MAX
from tests.patience import DEADLINE_S, LOOK_EVERY_S

pytestmark = pytest.mark.processes
CHANNELS = {"mux": 0, "task": 0, "iopub": 0, "said": 0}


class Place:
    """A door's sockets that note what comes, and clients that connect to them. portion: how many it takes at a time."""

    def __init__(self, curve: tuple[bytes, bytes] | None = None) -> None:
        self.portion = 1_000
        self.heard: list[tuple[str, list[Any]]] = []
        self.sockets = ChannelSockets("127.0.0.1", CHANNELS, published=["iopub"], heard=["said"], curve=curve)
        self._context = zmq.Context()
        self.sockets.listen(asyncio.get_running_loop(), self._on_readable)

    def _on_readable(self, channel: str) -> bool:
        for _ in range(self.portion):
            frames = self.sockets.receive(channel)
            if frames is None:
                return True
            self.heard.append((channel, frames))
        return False

    def client(self, channel: str, kind: int = zmq.DEALER, **options: Any) -> zmq.Socket[bytes]:
        socket = self._context.socket(kind)
        socket.linger = 0
        for name, value in options.items():
            setattr(socket, name, value)
        if kind == zmq.SUB:
            socket.setsockopt(zmq.SUBSCRIBE, b"")
        socket.connect(f"tcp://127.0.0.1:{self.sockets.ports[channel]}")
        return socket

    async def until(self, condition: Callable[[], object]) -> None:
        ends_at = time.monotonic() + DEADLINE_S
        while not condition():
            assert time.monotonic() < ends_at, self.heard
            await asyncio.sleep(LOOK_EVERY_S)

    async def received(self, socket: zmq.Socket[bytes]) -> list[bytes]:
        """The next message of a client."""
        await self.until(lambda: socket.poll(0))
        return socket.recv_multipart()

    def close(self) -> None:
        self.sockets.close()
        self._context.destroy(linger=0)


def placed(story: Callable[[Place], Awaitable[None]], **options: Any) -> None:
    async def whole() -> None:
        place = Place(**options)
        try:
            await story(place)
        finally:
            place.close()

    asyncio.run(whole())


def test_who_asks_is_answered_on_the_same_channel() -> None:
    async def story(place: Place) -> None:
        first, second = place.client("mux", identity=b"first"), place.client("task", identity=b"second")
        first.send_multipart([b"for mux", b""])
        second.send(b"for task")
        await place.until(lambda: len(place.heard) == 2)
        assert sorted(place.heard) == [("mux", [b"first", b"for mux", b""]), ("task", [b"second", b"for task"])]
        place.sockets.send("mux", [b"first", b"answer", b"of two"])
        place.sockets.send("task", [b"second", b"other"])
        assert await place.received(first) == [b"answer", b"of two"]
        assert await place.received(second) == [b"other"]

    placed(story)


def test_who_is_connected_to_several_channels_knows_them_by_name() -> None:
    async def story(place: Place) -> None:
        hub = place.client("mux", zmq.ROUTER, identity=b"both")
        hub.connect(f"tcp://127.0.0.1:{place.sockets.ports['task']}")

        def asks() -> bool:
            for channel in (b"mux", b"task"):
                hub.send_multipart([channel, b"hello"])  # dropped while it is not connected
            return len({channel for channel, _ in place.heard}) == 2

        await place.until(asks)
        assert {(channel, *frames) for channel, frames in place.heard} == {
            ("mux", b"both", b"hello"),
            ("task", b"both", b"hello"),
        }

    placed(story)


def test_a_burst_is_taken_in_portions_and_nothing_of_it_waits() -> None:
    async def story(place: Place) -> None:
        place.portion = 7
        noisy, quiet = place.client("mux"), place.client("task")
        for number in range(100):
            noisy.send(b"%d" % number)
        quiet.send(b"hello")
        await place.until(lambda: len(place.heard) == 101)
        assert [frames[1] for channel, frames in place.heard if channel == "mux"] == [b"%d" % n for n in range(100)]

    placed(story)


def test_a_message_that_comes_while_the_door_speaks_is_heard() -> None:
    async def story(place: Place) -> None:
        client = place.client("mux", identity=b"c")
        for number in range(50):
            client.send(b"%d" % number)
            place.sockets.send("mux", [b"c", b"word"])  # eats the edge
            await place.until(lambda wanted=number: len(place.heard) > wanted)  # type: ignore[misc]

    placed(story)


def test_what_is_published_reaches_all_who_listen_and_what_they_say_is_heard() -> None:
    async def story(place: Place) -> None:
        listeners = [place.client("iopub", zmq.SUB) for _ in range(2)]

        def speaks() -> bool:
            place.sockets.send("iopub", [b"topic", b"news"])
            return all(listener.poll(0) for listener in listeners)

        await place.until(speaks)
        for listener in listeners:
            assert await place.received(listener) == [b"topic", b"news"]
        speaker = place.client("said", zmq.PUB)

        def says() -> bool:
            speaker.send_multipart([b"engine.0", b"text"])
            return bool(place.heard)

        await place.until(says)
        assert place.heard[0] == ("said", [b"engine.0", b"text"])

    placed(story)


def test_large_frames_are_not_copied() -> None:
    async def story(place: Place) -> None:
        client = place.client("mux", identity=b"c")
        client.send_multipart([b"small", bytes(INLINE_BYTES_MAX), b"x" * (INLINE_BYTES_MAX - 1)])
        await place.until(lambda: place.heard)
        ((_, frames),) = place.heard
        assert [type(frame) for frame in frames] == [bytes, bytes, zmq.Frame, bytes]
        place.sockets.send("mux", [b"c", frames[2], memoryview(b"y" * INLINE_BYTES_MAX)])
        assert [len(part) for part in await place.received(client)] == [INLINE_BYTES_MAX] * 2

    placed(story)


def test_what_is_for_nobody_is_dropped() -> None:
    async def story(place: Place) -> None:
        place.sockets.send("mux", [b"nobody", b"answer"])
        place.sockets.send("iopub", [b"topic"])
        client = place.client("mux", identity=b"c")
        client.send(b"hello")
        await place.until(lambda: place.heard)

    placed(story)


def test_a_client_that_comes_back_under_its_name_is_answered() -> None:
    async def story(place: Place) -> None:
        first = place.client("mux", identity=b"c")
        first.send(b"1")
        await place.until(lambda: len(place.heard) == 1)
        second = place.client("mux", identity=b"c")
        second.send(b"2")
        await place.until(lambda: len(place.heard) == 2)
        place.sockets.send("mux", [b"c", b"answer"])
        assert await place.received(second) == [b"answer"]

    placed(story)


def test_with_keys_only_those_are_heard_who_know_the_doors() -> None:
    public, secret = zmq.curve_keypair()

    async def story(place: Place) -> None:
        stranger = place.client("mux")
        stranger.send(b"let me in")
        own_public, own_secret = zmq.curve_keypair()
        keys = {"curve_serverkey": public, "curve_publickey": own_public, "curve_secretkey": own_secret}
        friend = place.client("mux", identity=b"friend", **keys)
        friend.send(b"hello")
        await place.until(lambda: place.heard)
        place.sockets.send("mux", [b"friend", b"welcome"])
        assert await place.received(friend) == [b"welcome"]
        assert place.heard == [("mux", [b"friend", b"hello"])]

    placed(story, curve=(public, secret))


def test_a_port_that_is_taken_is_told() -> None:
    async def story(place: Place) -> None:
        taken = place.sockets.ports["mux"]
        with pytest.raises(StartError, match=f"'control' cannot be bound to .*{taken}"):
            ChannelSockets("127.0.0.1", {"other": 0, "control": taken}, published=[])

    placed(story)


def test_after_its_close_nothing_is_heard() -> None:
    async def story(place: Place) -> None:
        place.client("mux").send(b"hello")
        place.sockets.close()
        await asyncio.sleep(0)
        assert not place.heard

    placed(story)
