"""A nursery whose processes do next to nothing, as a process of its own. Run, not imported.

    python little_nursery.py STORY < pipe

Its processes tell what happens to them on standard output, one JSON list per line. The nursery itself ends when its
standard input does, and tells the root's exit code last.
"""

from __future__ import annotations

import json
import os
import select
import signal
import socket
import sys
from collections.abc import Callable

from hiersched.core.topology import Child
from hiersched.runtime import nursery
from hiersched.runtime.nursery import Nursery, NurseryClient

nursery.STOP_TIMEOUT_S = 0.2  # type: ignore[attr-defined]


def tell(*words: object) -> None:
    """Write a line at once, so that those of several processes do not mix."""
    os.write(1, json.dumps(words).encode() + b"\n")


def engine(number: int) -> Child:
    return Child(kind="engine", first=number, last=number + 1, host="", level=9)


def scheduler(number: int) -> Child:
    return Child(kind="scheduler", first=number, last=number + 4, host="", level=1)


class Boss:
    """What a scheduler of these stories does: start children and tell how they end."""

    def __init__(self, channel: socket.socket) -> None:
        self.channel = channel
        self.ended = 0
        self.client = NurseryClient(channel, self._on_ended)
        self.client.address = "an address"

    def _on_ended(self, child: Child, reason: str) -> None:
        self.ended += 1
        tell("ended", child.kind, child.first, reason)

    def hear(self, count: int) -> None:
        """Until so many children have ended."""
        while self.ended < count:
            select.select([self.channel], [], [])
            self.client.on_readable()


# --- what engines do --------------------------------------------------------------------------------------------------


def live(child: Child) -> None:
    """Until killed."""
    tell("alive", child.kind, child.first, os.getpid())
    while True:
        signal.pause()


def behave(child: Child, address: str, channel: object) -> None:
    """Each number has its own way to end."""
    match child.first:
        case 0:
            return
        case 1:
            os._exit(7)
        case 2:
            os.kill(os.getpid(), signal.SIGKILL)
        case 3:
            raise RuntimeError("the engine broke")
        case 4:
            sys.exit(9)
        case 5:
            signal.signal(signal.SIGTERM, signal.SIG_IGN)
            live(child)
        case 6:
            open_files = [os.readlink(f"/proc/self/fd/{name}") for name in os.listdir("/proc/self/fd")[:-1]]
            tell("open", address, sorted({name.split(":")[0] for name in open_files if "pipe" not in name}))
            tell("signals", [int(signal.getsignal(number)) for number in (signal.SIGTERM, signal.SIGINT)])
        case _:
            live(child)


# --- what the root does, by the name of the story ---------------------------------------------------------------------


def ends(boss: Boss) -> None:
    boss.client.start([engine(number) for number in range(5)])
    boss.hear(5)


def inheritance(boss: Boss) -> None:
    boss.client.start([engine(10)])
    boss.client.start([engine(6)])
    boss.hear(1)


def end_on_request(boss: Boss) -> None:
    boss.client.start([engine(10), engine(11), engine(0)])
    boss.hear(1)
    boss.client.end("engine", 10)
    boss.client.end("engine", 10)
    boss.client.end("engine", 99)
    boss.client.start([engine(1)])
    boss.hear(2)


def family(boss: Boss) -> None:
    boss.client.start([scheduler(20), engine(10)])
    boss.hear(2)


def lasting(boss: Boss) -> None:
    boss.client.start([engine(10), engine(5), scheduler(20)])
    boss.hear(99)


def deaf(boss: Boss) -> None:
    """Ends while news of its children wait to be read."""
    boss.client.start([engine(0), engine(1)])
    select.select([boss.channel], [], [])


def broken(boss: Boss) -> None:
    boss.client.start([engine(10)])
    sys.exit(os.EX_SOFTWARE)


def killed(boss: Boss) -> None:
    os.kill(os.getpid(), signal.SIGKILL)


STORIES: dict[str, Callable[[Boss], None]] = {
    story.__name__: story for story in (ends, inheritance, end_on_request, family, lasting, deaf, broken, killed)
}


def main(story: Callable[[Boss], None]) -> None:
    def be_scheduler(child: Child, address: str, channel: socket.socket) -> None:
        boss = Boss(channel)
        if not address:
            tell("alive", "root", 0, os.getpid())
            story(boss)
            return
        tell("alive", "scheduler", child.first, os.getpid())
        boss.client.start([engine(12), engine(13)])
        boss.hear(99)

    own = Nursery(behave, be_scheduler)  # type: ignore[arg-type]
    own.start_root(Child(kind="scheduler", first=0, last=99, host="", level=0))
    own.watch_owner(0)
    tell("served", own.serve())


if __name__ == "__main__":
    main(STORIES[sys.argv[1]])
