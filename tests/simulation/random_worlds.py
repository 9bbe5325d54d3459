"""Random worlds: any size, any work, any faults, all drawn from one seed."""

from __future__ import annotations

from random import Random

from hiersched.limits import MIB
from hiersched.simulation.client import SimClient
from hiersched.simulation.cluster import Setup, World
from hiersched.simulation.network import Weather
from hiersched.simulation.payload import Argument, digest_of
from hiersched.simulation.requests import Request

WORK_S = 0.1  # work and faults begin within this time


class RandomWorld:
    """A world drawn from a seed. busy: 1 for a handful of requests and faults, more for as many times that."""

    def __init__(self, seed: int, *, engines_max: int = 60, busy: int = 1, replay: str = "") -> None:
        self.rng = Random(seed)
        self.busy = busy
        self.requests: list[tuple[SimClient, Request]] = []
        rng = self.rng
        engines = rng.randint(2, engines_max)
        setup = Setup(
            slots_per_host=rng.choice([2, 4, 8, engines]),
            weather=Weather(jitter_s=rng.choice([0, 0, 0.0005, 0.05]), breaks=rng.choice([0, 0, 0, 0.0005, 0.01])),
            unborn=frozenset(rng.sample(range(engines), rng.choice([0, 0, 0, 1]))),
            checked=True,
            replay=replay,
        )
        fanout, leaf = rng.choice([2, 3, 4, None]), rng.choice([2, 3, 4, None])
        self.world = World(engines, fanout=fanout, leaf_engines=leaf, seed=seed, setup=setup)
        self.clients = list(self.world.clients)
        for _ in range(rng.randint(0, 2)):
            client = self.world.add_client()
            self.world.run_until(lambda client=client: client.session or client.ended)
            self.clients.append(client)
        self.blobs = {digest_of(number): rng.choice([1, 1, 100, 200, 600]) * MIB for number in range(2, 12)}

    def run(self) -> None:
        """Ask, break, and wait until everything is at rest."""
        for _ in range(self.rng.randint(1, 6 * self.busy)):
            self.ask()
        for _ in range(self.rng.randint(0, 4 * self.busy)):
            self.damage()
        world = self.world
        world.run_until(
            lambda: all(request.done() or client.ended_s <= world.timeline.now_s for client, request in self.requests),
            limit_s=600.0,
        )
        world.settle()

    # --- what is asked ------------------------------------------------------------------------------------------------

    def ask(self) -> None:
        """One request of any kind, from any client."""
        ask = self.rng.choice([self._call_all, self._call_some, self._call_with_blobs, self._tasks, self._tasks])
        client = self.rng.choice(self.clients)
        self.requests.append((client, ask(client, self._soon())))

    def _call_all(self, client: SimClient, at_s: float) -> Request:
        return self.world.submit_to_all(at_s, run_s=self.rng.choice([0.0, 0.001, 0.05]), client=client)

    def _call_some(self, client: SimClient, at_s: float) -> Request:
        rng, targets = self.rng, self._some_ranks()
        size = rng.choice([0, 0, 10, 20_000])
        arguments = [Argument(rng.random() * 0.05, place, size) for place in range(len(targets))]
        return self.world.submit(targets, arguments if rng.random() < 0.7 else arguments[:1], at_s=at_s, client=client)

    def _call_with_blobs(self, client: SimClient, at_s: float) -> Request:
        blobs = self._some_blobs(least=1)
        return self.world.submit(self._some_ranks(), [Argument(0.001)], at_s=at_s, blobs=blobs, client=client)

    def _tasks(self, client: SimClient, at_s: float) -> Request:
        rng = self.rng
        run_s = rng.choice([1e-5, 0.001, 0.05])
        arguments = [Argument(run_s * 2 * rng.random(), place) for place in range(rng.randint(1, 300))]
        request = self.world.submit_tasks(arguments, at_s, blobs=self._some_blobs(least=0), client=client)
        if rng.random() < 0.3:
            self.world.at(at_s + rng.random() * WORK_S, lambda: client.ended or client.cancel(request.ids[::2]))
        return request

    # --- what breaks --------------------------------------------------------------------------------------------------

    def damage(self) -> None:
        """One fault of any kind."""
        faults = [self._kill, self._kill, self._kill_scheduler, self._partition, self._slow, self._lose_client]
        self.rng.choice(faults)(self._soon())

    def _kill(self, at_s: float) -> None:
        self.world.kill(self.rng.choice(self._ranks()), at_s)

    def _kill_scheduler(self, at_s: float) -> None:
        nodes = self.world.schedulers()
        below = nodes[1:] if self.rng.random() < 0.97 else nodes
        if below:
            self.world.end(self.rng.choice(below), at_s)

    def _partition(self, at_s: float) -> None:
        nodes = self.world.schedulers()[1:]
        if nodes and len(self.world.plan.hosts) > 1:
            cut = self.rng.sample(nodes, self.rng.randint(1, len(nodes)))
            self.world.partition(cut, at_s=at_s, for_s=self.rng.choice([None, 1.0, 5.0, 6.5, 7.0, 20.0]))

    def _slow(self, at_s: float) -> None:
        self.world.slow(self.rng.choice(self._ranks()), 10.0, at_s)

    def _lose_client(self, at_s: float) -> None:
        client = self.rng.choice(self.clients)
        if len(self.clients) > 1 and self.rng.random() < 0.5:
            self.world.end(client, at_s)
        elif len(self.clients) > 1:
            self.world.at(at_s, lambda: client.ended or client.leave())

    # --- draws --------------------------------------------------------------------------------------------------------

    def _soon(self) -> float:
        return self.world.now_s + self.rng.random() * WORK_S

    def _ranks(self) -> range:
        return range(self.world.plan.engines)

    def _some_ranks(self) -> list[int]:
        return self.rng.sample(self._ranks(), self.rng.randint(1, self.world.plan.engines))

    def _some_blobs(self, least: int) -> dict[bytes, int]:
        return dict(self.rng.sample(sorted(self.blobs.items()), self.rng.randint(least, 3)))
