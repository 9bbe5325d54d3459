"""However much has gone through a scheduler, it holds no more than before."""

from __future__ import annotations

from collections import Counter, deque
from collections.abc import Sequence
from typing import Any

from hiersched.core.scheduler import SchedulerCore
from hiersched.limits import KEPT_BYTES_MAX, MIB
from hiersched.protocol import messages as m
from hiersched.simulation.cluster import Setup, World
from hiersched.simulation.payload import Argument
from hiersched.simulation.scheduler import SimScheduler

ONE_HOST = Setup(slots_per_host=1_000)
SLACK = 64  # entries of a table, which may come and go with the moment


def tables(core: SchedulerCore) -> Counter[str]:
    """Entries of all containers that a scheduler holds, by the path to them."""
    found: Counter[str] = Counter()
    seen: set[int] = set()

    def look(thing: Any, path: str) -> None:
        ours = type(thing).__module__.startswith("hiersched.core") and not isinstance(thing, type)
        if id(thing) in seen or not (ours or isinstance(thing, dict | list | set | deque)):
            return
        seen.add(id(thing))
        if ours:
            slots = [name for kind in type(thing).__mro__ for name in getattr(kind, "__slots__", ())]
            for name in [*slots, *getattr(thing, "__dict__", ())]:
                look(getattr(thing, name, None), f"{path}.{name}")
            return
        found[path] += len(thing)
        for item in thing.values() if isinstance(thing, dict) else thing:
            look(item, f"{path}[]")

    look(core, "core")
    return found


def work(world: World) -> None:
    """One round: tasks, of which some take the results of others, and calls, to their end."""

    def terms_of(ids: Sequence[m.TaskId]) -> list[m.Terms]:
        return [m.Terms(inputs=[ids[place - 1]] if place % 4 == 3 else []) for place in range(len(ids))]

    plain = world.submit_tasks([Argument(0.0002, token=place) for place in range(600)])
    graph = world.submit_tasks([Argument(0.0002, token=place) for place in range(300)], terms_of=terms_of)
    calls = [world.submit_to_all(run_s=0.0) for _ in range(20)]
    world.run_until(lambda: all(request.done() for request in (plain, graph, *calls)))
    world.settle()


def grown(nodes: Sequence[SimScheduler], before: Sequence[Counter[str]]) -> dict[str, tuple[int, int]]:
    """Tables that hold more than before: (then, now)."""
    pairs = [(old, tables(node.core)) for node, old in zip(nodes, before, strict=True)]
    return {path: (old[path], new[path]) for old, new in pairs for path in new if new[path] > old[path] + SLACK}


def test_no_table_of_any_scheduler_grows_with_what_went_through():
    world = World(engines=8, fanout=2, leaf_engines=2, seed=1, setup=ONE_HOST)
    for _ in range(2):
        work(world)
    nodes = world.schedulers()
    before = [tables(node.core) for node in nodes]
    for _ in range(3):
        work(world)
    assert grown(nodes, before) == {}


def test_nor_with_the_children_that_were_taken_over():
    world = World(engines=16, fanout=2, leaf_engines=2, seed=2, setup=ONE_HOST)
    work(world)
    for node in world.schedulers()[1:]:
        world.end(node)
    work(world)
    before = [tables(world.root.core)]
    for _ in range(3):
        work(world)
    assert grown([world.root], before) == {}


def test_an_answer_larger_than_what_may_be_kept_arrives():
    world = World(engines=4, fanout=2, leaf_engines=2, seed=3, setup=ONE_HOST)
    calls = [world.submit(range(4), [Argument(0.0, answer_bytes=KEPT_BYTES_MAX + MIB)]) for _ in range(3)]
    world.run_until(lambda: all(call.done() for call in calls))
    assert [call.errors for call in calls] == [{}] * 3
    world.settle()
