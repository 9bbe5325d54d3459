"""A whole cluster in one seeded world: real scheduler cores, simulated engines, clients, links and faults.

    world = World(engines=10_000, fanout=32, seed=7)
    reply = world.submit_to_all(at_s=0.0)
    world.kill(rank=4_217, at_s=0.01)
    world.run_until(reply.done)

The tree is grown when a world is made, in calm weather; all times given and reported count from then, in virtual
seconds. Everything random is drawn from one generator, so the arguments and the seed replay a run event by event.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from itertools import islice
from random import Random

import msgspec

from hiersched.core.topology import Host, TreePlan, plan_tree
from hiersched.errors import Bug, UserError
from hiersched.kernels import bitset
from hiersched.limits import BLOB_TIMEOUT_S, LOST_AFTER_S, START_TIMEOUT_S
from hiersched.protocol.messages import NO_FUNCTION, Digest
from hiersched.simulation.checks import Checker, leftovers
from hiersched.simulation.client import NO_BLOBS, Blobs, SimClient, TermsOf
from hiersched.simulation.engine import SimEngine
from hiersched.simulation.guest import SimGuest
from hiersched.simulation.network import Edge, Network, Node, Weather
from hiersched.simulation.nursery import Nursery
from hiersched.simulation.payload import Argument, digest_of
from hiersched.simulation.requests import Request
from hiersched.simulation.scheduler import SimScheduler
from hiersched.simulation.timeline import Timeline

CHECKED_ENGINES_MAX = 1_000  # a larger world is checked after each event only if asked to be
RUN_S_MAX = 3_600.0  # virtual; whatever is waited for longer never comes
REST_S_MAX = 2 * (BLOB_TIMEOUT_S + LOST_AFTER_S)
_LOOK_S = 0.1
FUNCTION = digest_of(1)  # what tasks run unless told otherwise
FUNCTION_BYTES = 1_000


class Setup(msgspec.Struct, frozen=True):
    """What a world is made of, beside its size and seed.

    slots_per_host: engines of one host. unborn: ranks of engines that end before they say hello. restarts: engines that
    end are replaced. guests: there is a leaf for engines that nobody here starts. checked: look at every scheduler
    after each of its events; None: if the world is small. replay: the command that makes this run again.
    """

    slots_per_host: int = 64
    weather: Weather = Weather()
    unborn: frozenset[int] = frozenset()
    restarts: bool = False
    guests: bool = False
    checked: bool | None = None
    replay: str = ""


class World:
    """A cluster of `engines` engines, one client connected. fanout, leaf_engines: as for `plan_tree`."""

    def __init__(
        self,
        engines: int,
        *,
        fanout: int | None = None,
        leaf_engines: int | None = None,
        seed: int = 0,
        setup: Setup = Setup(),  # noqa: B008 (frozen)
    ) -> None:
        self.rng = Random(seed)
        self.timeline = Timeline()
        self.replay = setup.replay or f"World({engines}, {fanout=}, {leaf_engines=}, {seed=}, {setup=})"
        calm = msgspec.structs.replace(setup.weather, breaks=0.0)
        self.network = Network(self.timeline, calm, self.rng)
        self.plan = _plan(engines, setup, fanout, leaf_engines)
        checked = engines <= CHECKED_ENGINES_MAX if setup.checked is None else setup.checked
        checker = Checker(self.plan) if checked else None
        self._nursery = Nursery(self.network, self.plan, setup=setup, checker=checker)
        self._start_s = 0.0
        self.root = self._nursery.start_root()
        self.client = self.add_client()
        expected = bitset.of_range(0, engines) & ~bitset.of_ranks(setup.unborn)
        self.run_until(lambda: self.client.members == expected and bool(self.client.session), limit_s=START_TIMEOUT_S)
        self.settle()
        self._start_s = self.timeline.now_s
        self.network.weather = setup.weather
        for node in self._nursery.schedulers:
            node.received = node.sent = 0

    # --- who is there -------------------------------------------------------------------------------------------------

    @property
    def now_s(self) -> float:
        """Virtual seconds since the tree was grown."""
        return self.timeline.now_s - self._start_s

    @property
    def clients(self) -> Sequence[SimClient]:
        """All clients there ever were."""
        return self._nursery.clients

    def engine(self, rank: int) -> SimEngine:
        """The latest engine of this rank, living or dead. Raises UserError if there never was one."""
        engine = self._nursery.engines.get(rank)
        if engine is None:
            raise UserError(f"there is no engine {rank}: ranks go up to {max(self._nursery.engines)}")
        return engine

    def schedulers(self, level: int | None = None) -> list[SimScheduler]:
        """All schedulers, or those of one level, by level and rank, living or dead."""
        nodes = [node for node in self._nursery.schedulers if level is None or node.level == level]
        return sorted(nodes, key=lambda node: (node.level, node.core.place.first))

    @property
    def lost(self) -> int:
        """Ranks of engines that have ended, a bit set."""
        return self._nursery.lost

    @property
    def ended(self) -> int:
        """How many processes have ended, clients that left of their own will apart."""
        return self._nursery.ended

    def ranks(self) -> list[int]:
        """Ranks of all engines that there ever were, ascending."""
        return sorted(self._nursery.engines)

    def living(self) -> list[int]:
        """Ranks of the engines that live now, ascending."""
        now_s = self.timeline.now_s
        return sorted(rank for rank, engine in self._nursery.engines.items() if engine.ended_s > now_s)

    def add_client(self, *, detached: bool = False, joins: SimClient | None = None) -> SimClient:
        """One more client, about to be let in.

        detached: its session outlives it. joins: the client, gone by now, whose detached session it joins.
        """
        return self._nursery.start_client(self.root, detached=detached or joins is not None, predecessor=joins)

    def add_guest(self, wanted: int = -1) -> SimGuest:
        """An engine that comes of itself to the leaf for guests. wanted: the rank that it asks for; -1: any.

        Raises UserError if there is no such leaf, or not any more.
        """
        leaves = [node for node in self.schedulers(1) if node.core.place.is_for_guests]
        if not leaves or leaves[-1].ended_s <= self.timeline.now_s:
            raise UserError("there is no leaf for guests")
        return self._nursery.start_guest(leaves[-1], wanted)

    # --- what is asked ------------------------------------------------------------------------------------------------

    def submit_to_all(
        self, at_s: float | None = None, run_s: float = 0.05, *, client: SimClient | None = None
    ) -> Request:
        """A call on every engine that the client then knows. run_s: how long it runs on an engine of normal speed."""
        client = client or self.client
        request = Request([0], [Argument(run_s)])

        def send() -> None:
            request.aim(bitset.ranks_of(client.members))
            client.call(request)

        self.at(at_s, send)
        return request

    def submit(
        self,
        targets: Sequence[int],
        arguments: Sequence[Argument],
        *,
        at_s: float | None = None,
        blobs: Blobs = NO_BLOBS,
        client: SimClient | None = None,
    ) -> Request:
        """A call on `targets`, in any order; one argument for all, or one for each. blobs: what each target needs."""
        request = Request(targets, arguments)
        function: Digest = next(iter(blobs), NO_FUNCTION)
        caller = client or self.client
        self.at(at_s, lambda: caller.call(request, function=function, blobs=blobs))
        return request

    def submit_tasks(
        self,
        arguments: Sequence[Argument],
        at_s: float | None = None,
        *,
        blobs: Blobs = NO_BLOBS,
        client: SimClient | None = None,
        terms_of: TermsOf | None = None,
    ) -> Request:
        """One load-balanced task for each argument. blobs: what each needs, the function first.

        terms_of: given their ids when they are sent, what each of them asks for.
        """
        request = Request(None, arguments)
        blobs = blobs or {FUNCTION: FUNCTION_BYTES}
        caller = client or self.client
        self.at(at_s, lambda: caller.tasks(request, function=next(iter(blobs)), blobs=blobs, terms_of=terms_of))
        return request

    # --- what breaks --------------------------------------------------------------------------------------------------

    def kill(self, rank: int, at_s: float | None = None) -> None:
        """End an engine without a word: whichever has this rank then."""
        self.engine(rank)
        self.at(at_s, lambda: self._nursery.end(self.engine(rank), "it was killed"))

    def end(self, node: Node, at_s: float | None = None) -> None:
        """End any process without a word: an engine, a scheduler, a client."""
        self.at(at_s, lambda: self._nursery.end(node, "it was killed"))

    def slow(self, rank: int, factor: float, at_s: float | None = None) -> None:
        """From now on an engine takes `factor` times as long for everything it starts."""
        engine = self.engine(rank)

        def set_slowness() -> None:
            engine.slowness = factor

        self.at(at_s, set_slowness)

    def partition(self, nodes: Sequence[Node], *, at_s: float | None = None, for_s: float | None = None) -> None:
        """Cut these off from their parents on other hosts, for so many seconds or for good.

        Raises UserError for a node whose link is watched: what cannot be silent for long cannot be cut off unnoticed.
        """
        edges: list[Edge] = []
        for node in nodes:
            if node.uplink is None or self.root.core.place.watched or not isinstance(node, SimScheduler):
                raise UserError("only schedulers below the root, in a world of several hosts, can be cut off")
            if not node.uplink.same_host:
                edges.append(node.uplink)
        self.at(at_s, lambda: self.network.cut(edges))
        if for_s is not None:
            begin_s = self.now_s if at_s is None else at_s
            self.at(begin_s + for_s, lambda: self.network.heal(edges))

    def at(self, at_s: float | None, action: Callable[[], None]) -> None:
        """Let anything happen at a time; None: now. Raises UserError for a time in the past."""
        if at_s is None:
            action()
            return
        if at_s < self.now_s:
            raise UserError(f"{at_s} s is in the past: it is {self.now_s} s")
        self.timeline.at(self._start_s + at_s, lambda _: action())

    # --- running ------------------------------------------------------------------------------------------------------

    def run_until(self, condition: Callable[[], bool], limit_s: float = RUN_S_MAX) -> None:
        """Let things happen until `condition()`. Raises Bug if it does not hold within `limit_s` virtual seconds."""
        if not self._run(condition, limit_s):
            held = self._held() or "nothing is held"
            raise Bug(f"what was waited for has not come within {limit_s} s ({held}). Replay: {self.replay}")

    def run_for(self, duration_s: float) -> None:
        """Let so many virtual seconds pass."""
        self._run(_never, duration_s)

    def settle(self) -> None:
        """Let things happen until nothing is held anywhere. Raises Bug if they never come to rest."""
        limit_s = self.timeline.now_s + REST_S_MAX
        while any(self._leftovers()):
            if self.timeline.now_s > limit_s:
                raise Bug(f"not at rest after {REST_S_MAX} s: {self._held()}. Replay: {self.replay}")
            self.run_for(_LOOK_S)

    def _run(self, condition: Callable[[], bool], limit_s: float) -> bool:
        try:
            return self.timeline.run(condition, self.timeline.now_s + limit_s)
        except Exception as error:
            error.add_note(f"after {self.timeline.events} events, at {self.now_s:.6f} s. Replay: {self.replay}")
            raise

    def _held(self) -> str:
        """Some of what is still held, for people."""
        return "; ".join(islice(self._leftovers(), 10))

    def _leftovers(self) -> Iterator[str]:
        nursery = self._nursery
        engines = nursery.engines.values()
        return leftovers(nursery.schedulers, engines, clients=nursery.clients, now_s=self.timeline.now_s)


def _plan(engines: int, setup: Setup, fanout: int | None, leaf_engines: int | None) -> TreePlan:
    """The tree over hosts of `slots_per_host` engines, each with a core of its own."""
    slots = setup.slots_per_host
    sizes = [slots] * (engines // slots) + ([engines % slots] if engines % slots else [])
    hosts = [Host(f"host-{number}", size, size) for number, size in enumerate(sizes)]
    return plan_tree(hosts, setup.weather.costs, fanout=fanout, leaf_engines=leaf_engines)


def _never() -> bool:
    return False
