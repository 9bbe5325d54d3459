"""Random worlds: any size, any work, any faults, all drawn from one seed."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from math import inf
from random import Random
from typing import Literal

from hiersched.errors import Bug
from hiersched.kernels import bitset
from hiersched.limits import MIB, RESTARTS_MAX
from hiersched.protocol import messages as m
from hiersched.simulation.client import SimClient
from hiersched.simulation.cluster import Setup, World
from hiersched.simulation.engine import SIGINT
from hiersched.simulation.network import Weather
from hiersched.simulation.payload import Argument, digest_of
from hiersched.simulation.requests import Request
from hiersched.simulation.verdicts import Events, unexplained

Kind = Literal["any", "gentle", "storm", "mixed"]

WORK_S = 0.1  # work and faults begin within this time


class RandomWorld:
    """A world drawn from a seed. busy: 1 for a handful of requests and faults, more for as many times that.

    kind: 'gentle': one host, and only schedulers below the root die, which whoever asks does not notice; 'storm': one
    host on which engines are replaced; 'mixed': one host, and guests that come at any time.
    """

    def __init__(
        self, seed: int, *, engines_max: int = 60, busy: int = 1, kind: Kind = "any", replay: str = ""
    ) -> None:
        self.rng = Random(seed)
        self.busy = busy
        self.gentle, self.stormy, self.mixed = kind == "gentle", kind == "storm", kind == "mixed"
        self.requests: list[tuple[SimClient, Request]] = []
        self.interrupted = self.left = False
        self.killed: Counter[int] = Counter()  # by rank
        rng = self.rng
        engines = rng.randint(2, engines_max)
        deep = kind != "any" or rng.random() < 0.5
        slots = engines if deep else rng.choice([2, 4, 8, engines])
        setup = Setup(
            slots_per_host=slots,
            weather=Weather(
                jitter_s=rng.choice([0, 0, 0.0005, 0 if self.stormy else 0.05]),
                breaks=rng.choice([0, 0, 0, 0.0005, 0.01]),
            ),
            unborn=frozenset(rng.sample(range(engines), 0 if self.gentle else rng.choice([0, 0, 0, 1]))),
            restarts=slots == engines and (self.stormy or rng.random() < 0.2),
            guests=self.mixed,
            checked=True,
            replay=replay,
        )
        fanout, leaf = (2, 2) if deep else (rng.choice([2, 3, 4, None]), rng.choice([2, 3, 4, None]))
        self.unborn = setup.unborn
        self.world = World(engines, fanout=fanout, leaf_engines=leaf, seed=seed, setup=setup)
        self.clients = [self.world.client]
        for _ in range(rng.randint(0, 2)):
            self.clients.append(self._enter(self.world.add_client(detached=rng.random() < 0.5)))
        for _ in range(rng.randint(1, 8) if self.mixed else 0):
            self._invite()
        sizes = [1, 1, 100, 200, 600] if not self.stormy else [1]
        self.blobs = {digest_of(number): rng.choice(sizes) * MIB for number in range(2, 12)}

    def run(self) -> None:
        """Ask, break, and wait until everything is at rest. Raises Bug for anything that ended unexplained."""
        for _ in range(self.rng.randint(1, 6 * self.busy)):
            self.ask()
        for _ in range(self.rng.randint(0, 5 * self.busy)):
            self.damage()
        self._finish()

    def storm(self, kills: int) -> None:
        """Kill one process after the other, of any kind but the root, while more and more is asked; then as `run`."""
        for _ in range(kills):
            self.world.run_until(lambda: any(client.session for client in self.clients))
            self.ask()
            nodes = [node for node in self.world.schedulers()[1:] if node.ended_s > self.world.timeline.now_s]
            victim = self.rng.random()
            if victim < 0.5 and nodes:
                self.world.end(self.rng.choice(nodes), self._soon())
            elif victim < 0.9:
                self._kill(self._soon())
            else:
                self._lose_client(self._soon())
            self.world.run_for(self.rng.random() * WORK_S)
        self._finish()
        here, replaceable = self.world.schedulers()[0].core.membership.members, self._replaceable()
        if here & replaceable != replaceable:
            missing = bitset.ranks_of(replaceable & ~here)
            raise Bug(f"engines {missing} have not been replaced. Replay: {self.world.replay}")

    def _replaceable(self) -> int:
        """The engines that have not been killed so often that they may be given up, a bit set."""
        kept = [rank for rank in self._ranks() if self.killed[rank] <= RESTARTS_MAX]
        return bitset.of_ranks(rank for rank in kept if rank not in self.unborn)

    def _finish(self) -> None:
        world = self.world
        world.run_until(lambda: all(self._is_over(*asked) for asked in self.requests), limit_s=600.0)
        world.settle()
        cut, calm = len(world.plan.hosts) > 1, not (world.ended or self.left)
        shared = len(self.clients) > 1
        events = Events(world.lost, self.interrupted, cut=cut, left=self.left, shared=shared, calm=calm)
        for client in {id(client): client for client, _ in self.requests}.values():
            asked = [request for owner, request in self.requests if owner is client and request.done()]
            latest = self._latest(client)
            for wrong in () if latest.gone else unexplained(latest, asked, events):
                raise Bug(f"{wrong}. Replay: {world.replay}")

    def _is_over(self, client: SimClient, request: Request) -> bool:
        """It is done, or nobody is there any more to hear of it."""
        return request.done() or self._latest(client).gone

    def _latest(self, client: SimClient) -> SimClient:
        """Who has joined its session after it, or itself."""
        for other in self.world.clients:
            if other.predecessor is client:
                return self._latest(other)
        return client

    def _invite(self) -> None:
        """A guest comes, now or while work is done; perhaps it wants a rank that somebody has, or nobody ever had."""
        at_s = self.world.now_s + self.rng.random() * WORK_S if self.rng.random() < 0.5 else None
        wanted = self.rng.choice([-1, self.rng.randrange(100)])

        def come() -> None:
            if any(leaf.core.place.is_for_guests and not leaf.ended_s < inf for leaf in self.world.schedulers(1)):
                self.world.add_guest(wanted)

        self.world.at(at_s, come)

    def _enter(self, client: SimClient) -> SimClient:
        self.world.run_until(lambda: client.session or client.gone)
        return client

    # --- what is asked ------------------------------------------------------------------------------------------------

    def ask(self) -> None:
        """One request of any kind, from any client."""
        client, at_s = self.rng.choice([client for client in self.clients if client.session]), self._soon()
        kinds = [self._call_all, self._call_some, self._call_some, self._call_with_blobs, self._tasks, self._tasks]
        request = self.rng.choice([*kinds, self._choosy_tasks, self._graph, self._graph])(client, at_s)
        self.requests.append((client, request))
        if self.rng.random() < 0.25:
            running = self.rng.random() < 0.5
            part = slice(None, None, self.rng.choice([1, 2, 3]))
            cancel_s = at_s + self.rng.random() * WORK_S
            self.world.at(cancel_s, lambda: client.gone or client.cancel(request.ids[part], running=running))
        if self.rng.random() < 0.2:
            self._ask_about(client, request, at_s + self.rng.random() * WORK_S)

    def _call_all(self, client: SimClient, at_s: float) -> Request:
        return self.world.submit_to_all(at_s, run_s=self.rng.choice([0.0, 0.001, 0.05]), client=client)

    def _call_some(self, client: SimClient, at_s: float) -> Request:
        rng, targets = self.rng, self._some_ranks()
        size = rng.choice([0, 0, 10, 20_000])
        raises = self._rank_set(rng.choice([0, 0, 2]))
        report, own, pieces = rng.random() < 0.5, rng.random() < 0.3, rng.choice([0, 0, 1, 5])
        run_s = rng.choice([0.05, 0.05, 0.4])
        arguments = [
            Argument(rng.random() * run_s, place, size, raises=raises, report=report, own=own, pieces=pieces)
            for place in range(len(targets))
        ]
        return self.world.submit(targets, arguments if rng.random() < 0.7 else arguments[:1], at_s=at_s, client=client)

    def _call_with_blobs(self, client: SimClient, at_s: float) -> Request:
        blobs = self._some_blobs(least=1)
        return self.world.submit(self._some_ranks(), [Argument(0.001)], at_s=at_s, blobs=blobs, client=client)

    def _tasks(self, client: SimClient, at_s: float) -> Request:
        return self.world.submit_tasks(self._arguments(300), at_s, blobs=self._some_blobs(least=0), client=client)

    def _choosy_tasks(self, client: SimClient, at_s: float) -> Request:
        """Tasks that fail, that do not suit all engines, that may run again, that have places and priorities."""
        rng = self.rng
        arguments = self._arguments(100, raises=self._rank_set(3), unmet=self._rank_set(rng.choice([0, 0, 2])))
        terms = [
            m.Terms(
                targets=self._rank_set(rng.choice([0, 0, 3])),
                hint=rng.choice([-1, -1, rng.choice(self.world.ranks())]),
                priority=rng.choice([0, 0, 1, 5]),
                retries=rng.choice([0, 1, 3]),
            )
            for _ in arguments
        ]
        return self.world.submit_tasks(arguments, at_s, client=client, terms_of=lambda ids: terms)

    def _graph(self, client: SimClient, at_s: float) -> Request:
        """Tasks that depend on each other, on earlier ones, and now and then on what never was."""
        rng = self.rng
        arguments = self._arguments(60, raises=self._rank_set(rng.choice([0, 0, 2])))
        dice = Random(rng.random())

        def terms_of(ids: Sequence[m.TaskId]) -> list[m.Terms]:
            earlier = [task for task in client.terms if task not in ids][-20:]
            return [self._depending(dice, [*earlier, *ids[:place]], ids) for place in range(len(ids))]

        return self.world.submit_tasks(arguments, at_s, client=client, terms_of=terms_of)

    def _depending(self, dice: Random, known: Sequence[m.TaskId], ids: Sequence[m.TaskId]) -> m.Terms:
        def some(most: int) -> list[m.TaskId]:
            return dice.sample(known, min(len(known), dice.randint(0, most)))

        inputs, after, follow = some(2), some(3), some(1 if dice.random() < 0.9 else 3)
        if dice.random() < 0.02:
            after.append(dice.choice([*ids, ids[-1] + 1_000]))
        return m.Terms(
            inputs=inputs if dice.random() < 0.5 else [],
            after=m.Dependency(after, dice.random() < 0.7, dice.random() < 0.8, dice.random() < 0.4),
            follow=m.Dependency(follow) if dice.random() < 0.2 else None,
            retries=dice.choice([0, 0, 2]),
            timeout_s=dice.choice([0.0, 0.0, 0.0, 0.1]),
        )

    def _arguments(self, most: int, *, raises: m.Ranks = (0, b""), unmet: m.Ranks = (0, b"")) -> list[Argument]:
        rng = self.rng
        run_s, size = rng.choice([1e-5, 0.001, 0.05]), rng.choice([0, 0, 0, 20_000])
        pieces = rng.choice([0, 0, 0, 2])
        return [
            Argument(run_s * 2 * rng.random(), place, size, raises=raises, unmet=unmet, pieces=pieces)
            for place in range(rng.randint(1, most))
        ]

    def _ask_about(self, client: SimClient, request: Request, at_s: float) -> None:
        rng, ranks = self.rng, self._some_ranks()
        question = rng.choice(["survey", "why"])

        def ask() -> None:
            if client.gone or not request.ids:
                return
            if question == "survey":
                client.survey(ranks)
            else:
                client.why(request.ids[-1])

        self.world.at(at_s, ask)

    # --- what breaks --------------------------------------------------------------------------------------------------

    def damage(self) -> None:
        """One fault of any kind, or a death of schedulers in a gentle world."""
        if self.gentle:
            self._kill_scheduler(self._soon())
            return
        rare = [self._partition, self._slow, self._lose_client, self._lose_client, self._order, self._grow]
        self.rng.choice([self._kill, self._kill, *[self._kill_scheduler] * 4, *rare])(self._soon())

    def _kill(self, at_s: float) -> None:
        rank = self.rng.choice(self._ranks())
        self.killed[rank] += 1
        self.world.kill(rank, at_s)

    def _kill_scheduler(self, at_s: float) -> None:
        nodes = self.world.schedulers()
        below = nodes[1:] if self.gentle or self.rng.random() < 0.99 else nodes
        for node in self.rng.sample(below, min(len(below), self.rng.choice([1, 1, 3]))):
            self.world.end(node, at_s + self.rng.choice([0.0, 0.001, 0.02]) * self.rng.random())

    def _partition(self, at_s: float) -> None:
        nodes = self.world.schedulers()[1:]
        if nodes and len(self.world.plan.hosts) > 1:
            cut = self.rng.sample(nodes, self.rng.randint(1, len(nodes)))
            self.world.partition(cut, at_s=at_s, for_s=self.rng.choice([None, 1.0, 5.0, 6.5, 7.0, 20.0]))

    def _slow(self, at_s: float) -> None:
        self.world.slow(self.rng.choice(self._ranks()), 10.0, at_s)

    def _order(self, at_s: float) -> None:
        """A signal for some engines, or their end, or others in their place."""
        rng, client = self.rng, self.rng.choice(self.clients)
        verb, number = rng.choice([("signal", SIGINT), ("signal", SIGINT), ("stop", 0), ("restart", 0)])
        ranks = self._some_ranks()[: rng.choice([1, 3, 100])]
        self.interrupted |= number == SIGINT
        self.world.at(at_s, lambda: client.gone or client.order(ranks, verb, number))

    def _grow(self, at_s: float) -> None:
        client, engines = self.rng.choice(self.clients), self.rng.randint(1, 10)
        self.world.at(at_s, lambda: client.gone or client.grow(engines))

    def _lose_client(self, at_s: float) -> None:
        """A client is killed, or leaves; another may join its session, if that stays. In a storm, one always comes."""
        client = self.rng.choice(self.clients)
        if len(self.clients) == 1 and not self.stormy:
            return
        self.left = True
        if self.rng.random() < 0.5:
            self.world.end(client, at_s)
        else:
            stays = self.rng.random() < 0.7
            self.world.at(at_s, lambda: client.gone or client.leave(stays=stays))
        joins = client.detached and self.rng.random() < 0.7
        if joins or self.stormy:
            self.world.at(at_s + 0.01 + self.rng.random() * WORK_S, lambda: self._follow(client, joins=joins))

    def _follow(self, client: SimClient, *, joins: bool) -> None:
        """Another client in the place of one that is gone."""
        latest = self._latest(client)
        if latest.gone and client in self.clients:
            fresh = self.world.add_client(joins=latest) if joins else self.world.add_client(detached=client.detached)
            if self.stormy:
                self.clients[self.clients.index(client)] = fresh

    # --- draws --------------------------------------------------------------------------------------------------------

    def _soon(self) -> float:
        return self.world.now_s + self.rng.random() * WORK_S

    def _ranks(self) -> Sequence[int]:
        return self.world.ranks() if self.mixed else range(self.world.plan.engines)

    def _some_ranks(self) -> list[int]:
        return self.rng.sample(self._ranks(), self.rng.randint(1, len(self._ranks())))

    def _rank_set(self, most: int) -> m.Ranks:
        return bitset.to_wire(bitset.of_ranks(self.rng.sample(self._ranks(), min(most, len(self._ranks())))))

    def _some_blobs(self, least: int) -> dict[bytes, int]:
        return dict(self.rng.sample(sorted(self.blobs.items()), self.rng.randint(least, 3)))
