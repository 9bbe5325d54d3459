"""The end of a client's process is seen once, after what it had to say, and not for that of the next one."""

from __future__ import annotations

import asyncio
import os
import socket
import subprocess
import sys
import time
from collections.abc import Awaitable, Callable, Iterator

import pytest

from hiersched.protocol.messages import Hello
from hiersched.runtime.client_watch import ClientWatch
from tests.patience import DEADLINE_S, LOOK_EVERY_S


class Lookout:
    """A watch, and what it tells. on_listen: what happens when it asks to listen first."""

    def __init__(self) -> None:
        self.told: list[str] = []
        self.on_listen: Callable[[], None] = lambda: None
        self.watch = ClientWatch(self._listen, lambda link: self.told.append(link.decode()))

    def _listen(self) -> None:
        self.told.append("listened")
        self.on_listen()

    async def until_told(self, *words: str) -> None:
        ends_at = time.monotonic() + DEADLINE_S
        while self.told[-len(words) :] != [*words]:
            assert time.monotonic() < ends_at, self.told
            await asyncio.sleep(LOOK_EVERY_S)


@pytest.fixture
def client() -> Iterator[subprocess.Popen[bytes]]:
    with subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE) as process:
        yield process
        process.kill()


def hello(pid: int, host: str = "") -> Hello:
    return Hello("cluster", "key", "client", "uuid", pid, host or socket.gethostname(), 0, 0)


def told_by(story: Callable[[Lookout], Awaitable[None]]) -> list[str]:
    async def whole() -> list[str]:
        lookout = Lookout()
        await story(lookout)
        lookout.watch.close()
        return lookout.told

    return asyncio.run(whole())


def test_the_end_is_told_after_the_last_words(client: subprocess.Popen[bytes]) -> None:
    async def story(lookout: Lookout) -> None:
        lookout.watch.watch(b"link", hello(client.pid))
        client.kill()
        await lookout.until_told("listened", "link")

    assert told_by(story) == ["listened", "link"]


def test_who_says_bye_at_last_or_is_followed_by_another_is_not_told_of(client: subprocess.Popen[bytes]) -> None:
    async def story(lookout: Lookout) -> None:
        lookout.watch.watch(b"bye", hello(client.pid))
        lookout.watch.watch(b"again", hello(client.pid))

        def listen() -> None:
            lookout.watch.forget(b"bye")
            lookout.watch.watch(b"again", hello(os.getpid()))

        lookout.on_listen = listen
        client.kill()
        await lookout.until_told("listened")
        await asyncio.sleep(0)

    assert set(told_by(story)) == {"listened"}


def test_a_forgotten_client_is_not_watched(client: subprocess.Popen[bytes]) -> None:
    async def story(lookout: Lookout) -> None:
        lookout.watch.watch(b"first", hello(client.pid))
        lookout.watch.forget(b"first")
        lookout.watch.forget(b"first")
        lookout.watch.watch(b"second", hello(client.pid))
        client.kill()
        await lookout.until_told("second")

    assert told_by(story) == ["listened", "second"]


@pytest.mark.parametrize("pid", [0, -1, 2**22 + 1, 2**70])
def test_a_process_that_cannot_be_watched_is_not(pid: int) -> None:
    async def story(lookout: Lookout) -> None:
        lookout.watch.watch(b"link", hello(pid))
        lookout.watch.watch(b"remote", hello(os.getpid(), host="elsewhere"))
        await asyncio.sleep(0)

    assert told_by(story) == []
