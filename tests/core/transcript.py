"""One scheduler, driven by hand: what it hears, what it says to each neighbour, what else it does.

A test is a transcript: `root.hears(link, message, *frames)`, then `root.says(link)` for what that neighbour was told
since, in order. Everything passes over the wire format in both directions. The fixtures in conftest.py check at the
end of each test that nothing was said or done that the test did not look at. Time stands still unless a test says that
it `passes`; then the scheduler is woken when it had asked to be.
"""

from __future__ import annotations

import functools
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import msgspec

from hiersched.core.effects import (
    PARENT,
    Climb,
    Drained,
    Effect,
    Event,
    Link,
    LinkDown,
    Received,
    Send,
    WakeAt,
    Woke,
    link_of,
)
from hiersched.core.place import Place
from hiersched.core.scheduler import SchedulerCore
from hiersched.core.topology import Child, Host, TreePlan, plan_tree
from hiersched.kernels import bitset
from hiersched.protocol import messages as m
from hiersched.protocol.framing import Frame, decode, encode

CLUSTER, KEY = "test-cluster", "secret"
FACTS = {"pid": 1, "host": "here"}  # about the scheduler's process
FUNCTION = b"F" * 16  # the digest of the function that most tests call


class Transcript:
    """A scheduler of ranks [first, last); level 0 is the root. now_s: its clock. wake_s: when it wants to be woken."""

    def __init__(self, first: int, last: int, *, level: int = 0, watched: bool = True, restarts: bool = False) -> None:
        plan = planned(last, last - first if level else None)
        self.core = SchedulerCore(Place(CLUSTER, KEY, level, first, last, watched, restarts), plan, FACTS)
        self.now_s = 0.0
        self.wake_s = float("inf")
        self._said: dict[Link, list[Any]] = defaultdict(list)
        self._done: list[Effect] = []

    # --- in ---

    def happens(self, event: Event) -> None:
        """Something that is no message."""
        for effect in self.core.handle(event, self.now_s):
            if isinstance(effect, Send):
                message, frames = over_the_wire(effect.message, effect.frames)
                self._said[effect.link].append((message, *frames) if frames else message)
            elif isinstance(effect, WakeAt):
                self.wake_s = min(self.wake_s, effect.time_s)
            else:
                self._done.append(effect)

    def hears(self, link: Link, message: m.Message, *frames: bytes) -> None:
        """A message comes in."""
        self.happens(Received(link, *over_the_wire(message, frames)))

    def drains(self) -> None:
        """Nothing more waits to be heard."""
        self.happens(Drained())

    def passes(self, seconds: float) -> None:
        """Time goes by, and the scheduler is woken whenever it has asked for it."""
        until_s = self.now_s + seconds
        while self.wake_s <= until_s:
            self.now_s, self.wake_s = self.wake_s, float("inf")
            self.happens(Woke())
            self.drains()
        self.now_s = until_s

    def loses(self, link: Link, *orphans: Child, reason: str = "killed") -> None:
        """The process of a neighbour has ended; these were its children, and live."""
        self.happens(LinkDown(link, reason, orphans))

    # --- out ---

    def says(self, link: Link) -> list[Any]:
        """What was said to `link` since the last look: messages, as (message, *frames) where they have a payload."""
        return self._said.pop(link, [])

    def does(self) -> list[Effect]:
        """The other effects since the last look."""
        done, self._done = self._done, []
        return done

    def unseen(self) -> dict[str, Any]:
        """What no test has looked at."""
        said = {link.decode(): words for link, words in self._said.items() if words}
        return said | ({"effects": self._done} if self._done else {})

    # --- neighbours that have said hello ---

    def engines(self, *ranks: int, birth: int = 0) -> list[Link]:
        """Engines of these ranks, welcomed, their coming known to all. birth: not 0 if they replace others."""
        links = [link_of(engine_child(rank, birth)) for rank in ranks]
        for rank, link in zip(ranks, links, strict=True):
            self.comes(link, hello("engine", rank, rank + 1))
        self.drains()
        return links

    def scheduler(self, first: int, last: int) -> Link:
        """A child scheduler of ranks [first, last), welcomed, all its engines there and known to all."""
        link = link_of(scheduler_child(first, last))
        self.comes(link, hello("scheduler", first, last))
        self.hears(link, m.Members(ranks(*range(first, last)), ranks(), ""))
        self.drains()
        return link

    def client(self, name: bytes = b"client") -> Link:
        """A client, welcomed."""
        self.comes(name, hello("client"))
        return name

    def adopted(self, child: Child, *holds: m.TaskId, shares: Mapping[m.TaskId, Iterable[int]] | None = None) -> Link:
        """An orphan that says what it holds and is welcomed. shares: the ranks that it was asked for, by call."""
        link = link_of(child)
        asked = [(request, ranks(*those)) for request, those in (shares or {}).items()]
        held = hello(child.kind, child.first, child.last, holds=holds)
        self.comes(link, msgspec.structs.replace(held, shares=asked))
        return link

    def comes(self, link: Link, message: m.Hello) -> m.Welcome:
        """A neighbour says hello, and is welcomed like this before anything else is said."""
        assert not self._said[link]
        self.hears(link, message)
        welcome = self._said[link].pop(0)
        assert isinstance(welcome, m.Welcome), welcome
        return welcome

    def welcomed(self, *, keep: bool) -> None:
        """The parent lets this scheduler in."""
        self.hears(PARENT, m.Welcome(0, ranks(), {"keep": keep}))

    def climbs(self) -> m.Hello:
        """The parent is gone. What the scheduler says to the next one first."""
        self.loses(PARENT)
        assert self.does() == [Climb("killed")]
        own_hello = self._said[PARENT].pop(0)
        assert isinstance(own_hello, m.Hello), own_hello
        return own_hello

    def counts(self, asker: Link, name: str) -> int:
        """One of the scheduler's own counters, asked for by its parent or a client. For a scheduler of engines only."""
        self.hears(asker, m.Survey(0))
        (census,) = self.says(asker)
        ((_, _, totals, _),) = census.levels
        return totals.get(name, 0)


@functools.cache
def planned(engines: int, leaf_engines: int | None = None, fanout: int | None = None) -> TreePlan:
    """The plan of a tree on one host; made once, for it is looked for long."""
    return plan_tree([Host("here", slots=engines, cores=2)], leaf_engines=leaf_engines, fanout=fanout)


def engine_child(rank: int, birth: int = 0) -> Child:
    """An engine, as whoever started it knows it."""
    return Child("engine", rank, rank + 1, "here", 2, birth)


def scheduler_child(first: int, last: int, level: int = 1) -> Child:
    """A child scheduler, as whoever started it knows it."""
    return Child("scheduler", first, last, "here", level)


def over_the_wire(message: m.Message, frames: Sequence[Frame]) -> tuple[m.Message, Sequence[Frame]]:
    """What arrives. Raises ProtocolError if the receiver would not take it."""
    first, *others = encode(message, frames)
    return decode(first, others)


# --- messages ---------------------------------------------------------------------------------------------------------


def ranks(*those: int) -> m.Ranks:
    """A set of ranks as it is sent."""
    return bitset.to_wire(bitset.of_ranks(those))


def hello(
    role: m.Role,
    first: int = 0,
    last: int = 0,
    *,
    cluster: str = CLUSTER,
    key: str = KEY,
    holds: Iterable[m.TaskId] = (),
    detached: bool = False,
) -> m.Hello:
    """The first message of a neighbour."""
    return m.Hello(cluster, key, role, "uuid", 1, "here", first, last, [(one, 0) for one in holds], detached)


def call(request: int, *targets: int, needs: Iterable[bytes] = (), parts: Iterable[m.Part] = ()) -> m.Call:
    """A call of FUNCTION."""
    return m.Call(request, ranks(*targets), m.CALL_LANE, FUNCTION, list(needs), list(parts))


def answer(request: int, rank: int, frames: int = 1) -> m.Reply:
    """What an engine replies."""
    return m.Reply(request, [m.Chunk(ranks(rank), [], frames)], [])


def joined(request: int, sizes: dict[int, int], *losses: m.Loss) -> m.Reply:
    """What a scheduler replies: small answers in one frame, sizes by rank."""
    chunks = [m.Chunk(ranks(*sizes), list(sizes.values()), 1)] if sizes else []
    return m.Reply(request, chunks, list(losses))


def loss(code: int, text: str, *those: int) -> m.Loss:
    """Ranks that cannot answer."""
    return m.Loss(ranks(*those), code, text)


def task(number: int, *, frames: int = 0, needs: Iterable[bytes] = (), function: bytes = FUNCTION) -> m.Task:
    """A load-balanced call."""
    return m.Task(number, function, list(needs), b"arguments", frames)


def result(number: int, rank: int, *, frames: int = 0, duration_us: int = 1_000_000) -> m.Result:
    """How an engine ends a task."""
    return m.Result(number, rank, duration_us, 0, b"value", frames)


def ended(number: int, code: int, text: str, rank: int = m.NO_RANK) -> m.Result:
    """How a scheduler ends a task that has no value."""
    return m.Result(number, rank, 0, code, text.encode(), 0)


def outputs(request: int, text: bytes, *those: int) -> tuple[m.Outputs, bytes]:
    """One piece of output of these ranks, with its frame."""
    return m.Outputs([m.Piece(request, ranks(*those))]), text
