"""One scheduler, driven by hand: what it hears, what it says to each neighbour, what else it does.

A test is a transcript: `root.hears(link, message, *frames)`, then `root.says(link)` for what that neighbour was told
since, in order. Everything passes over the wire format in both directions. The fixtures in conftest.py check at the
end of each test that nothing was said or done that the test did not look at.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Sequence
from typing import Any

from hiersched.core.effects import Drained, Effect, Event, Link, Received, Send
from hiersched.core.place import Place
from hiersched.core.scheduler import SchedulerCore
from hiersched.core.topology import Host, plan_tree
from hiersched.kernels import bitset
from hiersched.protocol import messages as m
from hiersched.protocol.framing import Frame, decode, encode

CLUSTER, KEY = "test-cluster", "secret"
FUNCTION = b"F" * 16  # the digest of the function that most tests call


class Transcript:
    """A scheduler of ranks [first, last); level 0 is the root. now_s: its clock, set by the test."""

    def __init__(self, first: int, last: int, *, level: int = 0, watched: bool = True) -> None:
        plan = plan_tree([Host("here", slots=last, cores=2)], leaf_engines=last - first if level else None)
        self.core = SchedulerCore(Place(CLUSTER, KEY, level, first, last, watched), plan)
        self.now_s = 0.0
        self._said: dict[Link, list[Any]] = defaultdict(list)
        self._done: list[Effect] = []

    # --- in ---

    def happens(self, event: Event) -> None:
        """Something that is no message."""
        for effect in self.core.handle(event, self.now_s):
            if isinstance(effect, Send):
                message, frames = over_the_wire(effect.message, effect.frames)
                self._said[effect.link].append((message, *frames) if frames else message)
            else:
                self._done.append(effect)

    def hears(self, link: Link, message: m.Message, *frames: bytes) -> None:
        """A message comes in."""
        self.happens(Received(link, *over_the_wire(message, frames)))

    def drains(self) -> None:
        """Nothing more waits to be heard."""
        self.happens(Drained())

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
        said = {link.decode(): words for link, words in self._said.items()}
        return said | ({"effects": self._done} if self._done else {})

    # --- neighbours that have said hello ---

    def engines(self, *ranks: int) -> list[Link]:
        """Engines of these ranks, welcomed, their coming known to all."""
        links = [b"engine-%d" % rank for rank in ranks]
        for rank, link in zip(ranks, links, strict=True):
            self._enters(link, hello("engine", rank, rank + 1))
        self.drains()
        return links

    def scheduler(self, first: int, last: int) -> Link:
        """A child scheduler of ranks [first, last), welcomed, all its engines there and known to all."""
        link = b"scheduler-%d-%d" % (first, last)
        self._enters(link, hello("scheduler", first, last))
        self.hears(link, m.Members(ranks(*range(first, last)), ranks(), ""))
        self.drains()
        return link

    def client(self, name: bytes = b"client") -> Link:
        """A client, welcomed."""
        self._enters(name, hello("client"))
        return name

    def _enters(self, link: Link, message: m.Hello) -> None:
        self.hears(link, message)
        (welcome,) = self.says(link)
        assert isinstance(welcome, m.Welcome), welcome

    def counts(self, asker: Link, name: str) -> int:
        """One of the scheduler's own counters, asked for by its parent or a client. For a scheduler of engines only."""
        self.hears(asker, m.Survey(0))
        (census,) = self.says(asker)
        ((_, _, totals, _),) = census.levels
        return totals.get(name, 0)


def over_the_wire(message: m.Message, frames: Sequence[Frame]) -> tuple[m.Message, Sequence[Frame]]:
    """What arrives. Raises ProtocolError if the receiver would not take it."""
    first, *others = encode(message, frames)
    return decode(first, others)


# --- messages ---------------------------------------------------------------------------------------------------------


def ranks(*those: int) -> m.Ranks:
    """A set of ranks as it is sent."""
    return bitset.to_wire(bitset.of_ranks(those))


def hello(role: m.Role, first: int = 0, last: int = 0, *, cluster: str = CLUSTER, key: str = KEY) -> m.Hello:
    """The first message of a neighbour."""
    return m.Hello(cluster, key, role, "uuid", 1, "here", first, last)


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


def ended(number: int, code: int, text: str, rank: int = 0) -> m.Result:
    """How a scheduler ends a task that has no value."""
    return m.Result(number, rank, 0, code, text.encode(), 0)
