"""A nursery whose processes do next to nothing, as a process of its own. Run, not imported.

    python little_nursery.py STORY < pipe

Its processes tell what happens to them on standard output, one JSON list per line. The nursery itself ends when its
standard input does, and tells the root's exit code last.
"""

from __future__ import annotations

import json
import os
import resource
import select
import signal
import socket
import sys
from collections.abc import Callable, Sequence

from hiersched.core.effects import link_of
from hiersched.core.topology import Child, Host, TreePlan, plan_tree
from hiersched.runtime import nursery, nursery_channel
from hiersched.runtime.doorbell import DOORBELL_SIGNAL
from hiersched.runtime.nursery import Nursery
from hiersched.runtime.nursery_client import NurseryClient

nursery.STOP_TIMEOUT_S = 0.2  # type: ignore[attr-defined]


def tell(*words: object) -> None:
    """Write a line at once, so that those of several processes do not mix."""
    os.write(1, json.dumps(words).encode() + b"\n")


def engine(number: int, birth: int = 0) -> Child:
    return Child(kind="engine", first=number, last=number + 1, host="", level=9, birth=birth)


def scheduler(number: int) -> Child:
    return Child(kind="scheduler", first=number, last=number + 4, host="", level=1)


def wait_for_a_nudge() -> None:
    """Until the test sends SIGUSR1, which comes no earlier than it is waited for."""
    signal.sigwait({signal.SIGUSR1})


class Boss:
    """What a scheduler of these stories does: start children and tell how they end."""

    def __init__(self, channel: socket.socket) -> None:
        self.channel = channel
        self.ended = 0
        self.client = NurseryClient(
            channel,
            "an address",
            on_ended=self._on_ended,
            on_orphaned=lambda reason: tell("orphaned", os.getpid(), reason),
        )
        signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGUSR1})

    def _on_ended(self, child: Child, reason: str, orphans: Sequence[Child]) -> None:
        self.ended += 1
        tell("ended", child.kind, child.first, reason, *[link_of(orphan).decode() for orphan in orphans])

    def hear(self, count: int) -> None:
        """Until so many children have ended."""
        while self.ended < count:
            select.select([self.channel], [], [])
            self.client.on_readable()


# --- what engines and schedulers below the root do --------------------------------------------------------------------


def live(child: Child) -> None:
    """Until killed; tells of each signal."""
    signal.signal(DOORBELL_SIGNAL, lambda *_: tell("rung", child.first))
    signal.signal(signal.SIGINT, lambda *_: tell("interrupted", child.first))
    signal.pthread_sigmask(signal.SIG_UNBLOCK, {DOORBELL_SIGNAL})
    tell("alive", child.kind, child.first, os.getpid())
    while True:
        signal.pause()


def behave(child: Child, address: str, plan: TreePlan | None, channel: object) -> None:
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
            tell("blocked", [int(number) for number in signal.pthread_sigmask(signal.SIG_BLOCK, ())])
        case 7 | 8:
            tell("plan", child.first, None if plan is None else [plan.first_ranks[0], len(plan.hosts)])
        case number if number >= 100:
            return
        case _:
            live(child)


def manage(child: Child, boss: Boss) -> None:
    """Each scheduler below the root has its own children."""
    tell("alive", "scheduler", child.first, os.getpid())
    match child.first:
        case 30:  # ends when one of its children does
            boss.client.start([engine(32), scheduler(20)])
            boss.hear(1)
        case 40:
            boss.client.start([scheduler(20)])
            boss.hear(99)
        case 60:
            boss.client.start([engine(8)])
            boss.hear(99)
        case 70:
            boss.client.start([engine(12), engine(13)])
            boss.hear(1)
            sys.exit(os.EX_SOFTWARE)
        case _:
            boss.client.start([engine(12), engine(13)])
            boss.hear(99)


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
    wait_for_a_nudge()
    boss.client.end(b"engine-10")
    boss.client.end(b"engine-10")
    boss.client.end(b"engine-99")
    boss.client.start([engine(1)])
    boss.hear(2)


def family(boss: Boss) -> None:
    boss.client.start([scheduler(20), engine(10)])
    boss.hear(2)


def adoption(boss: Boss) -> None:
    """Orphans are children like others."""
    boss.client.start([scheduler(20), engine(10)])
    boss.hear(1)
    tell("watches", [boss.client.watches(link) for link in (b"engine-12", b"engine-13", b"scheduler-1-20-24")])
    boss.client.signal([b"engine-13"], signal.SIGINT)
    boss.client.end(b"engine-12")
    boss.hear(2)


def breaking(boss: Boss) -> None:
    boss.client.start([scheduler(70)])
    boss.hear(1)


def leaving(boss: Boss) -> None:
    boss.client.start([scheduler(30), engine(10)])
    boss.hear(2)


def depth(boss: Boss) -> None:
    boss.client.start([scheduler(40), engine(10)])
    boss.hear(99)


def crossing(boss: Boss) -> None:
    """A scheduler is ended that has ended of its own just before."""
    boss.client.start([scheduler(20), engine(10)])
    wait_for_a_nudge()
    boss.client.end(b"scheduler-1-20-24")
    tell("asked")
    boss.hear(1)


def unwanted(boss: Boss) -> None:
    """Who is ended takes all below it along."""
    boss.client.start([scheduler(40), engine(10)])
    wait_for_a_nudge()
    boss.client.end(b"scheduler-1-40-44")
    boss.hear(1)


def again(boss: Boss) -> None:
    """The end of one that was asked to end is not taken for that of its successor."""
    for birth in range(20):
        boss.client.start([engine(10, birth)])
        boss.client.end(link_of(engine(10, birth)))
    boss.client.start([engine(10, 20), engine(0)])
    boss.hear(1)
    tell("watches", boss.client.watches(b"engine-10-20"))
    boss.client.signal([b"engine-10-20"], signal.SIGKILL)
    boss.hear(2)


def bells(boss: Boss) -> None:
    """They are rung when they have hardly been born."""
    crowd = [engine(number) for number in range(40, 90)]
    boss.client.start(crowd)
    boss.client.signal([link_of(child) for child in crowd], 0)
    boss.hear(99)


def plans(boss: Boss) -> None:
    """A plan goes to those that are started with it, and to whom these start."""
    plan = plan_tree([Host(f"host-{number}", 2, 4) for number in range(5_000)], first_rank=1_000)
    boss.client.start([scheduler(60)], plan)
    boss.client.start([engine(7)])
    boss.hear(99)


def slow(boss: Boss) -> None:
    """It does not read for a while what happens to its many children."""
    boss.client.start([engine(number) for number in range(100, 200)])
    boss.client.start([engine(10)])
    wait_for_a_nudge()
    boss.hear(100)


def crowded(boss: Boss) -> None:
    """There are no descriptors for all of them."""
    boss.client.start([engine(number) for number in range(40, 60)])
    boss.hear(99)


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
    story.__name__: story
    for story in (
        ends,
        inheritance,
        end_on_request,
        family,
        adoption,
        breaking,
        leaving,
        depth,
        crossing,
        unwanted,
        again,
        bells,
        plans,
        slow,
        crowded,
        lasting,
        deaf,
        broken,
        killed,
    )
}


def with_little_room() -> tuple[socket.socket, socket.socket]:
    """A pair of sockets that is soon full."""
    pair = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    for end in pair:
        end.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 1)
    return pair


def main(story: Callable[[Boss], None]) -> None:
    def be_scheduler(child: Child, address: str, plan: TreePlan | None, channel: socket.socket) -> None:
        boss = Boss(channel)
        if address:
            manage(child, boss)
        else:
            tell("alive", "root", 0, os.getpid())
            story(boss)

    if story is slow:
        nursery_channel._PACKET_BYTES_MAX = 1_000
        nursery_channel.Channel.pair = staticmethod(with_little_room)  # type: ignore[method-assign]
    if story is crowded:
        resource.setrlimit(resource.RLIMIT_NOFILE, (20, 20))
    own = Nursery(behave, be_scheduler)  # type: ignore[arg-type]
    own.start_root(Child(kind="scheduler", first=0, last=99, host="", level=0))
    own.watch_owner(0)
    tell("served", own.serve())


if __name__ == "__main__":
    main(STORIES[sys.argv[1]])
