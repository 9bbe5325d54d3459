"""A detached session outlives its client: whoever joins it is told everything, each once."""

from __future__ import annotations

import pytest

from hiersched.errors import ClusterLost
from hiersched.simulation.client import SimClient
from hiersched.simulation.cluster import Setup, World
from hiersched.simulation.payload import Argument

ONE_HOST = Setup(slots_per_host=1_000)


def detached(world: World) -> SimClient:
    client = world.add_client(detached=True)
    world.run_until(lambda: client.session)
    return client


def tree_of_32(seed: int) -> World:
    return World(engines=32, fanout=4, leaf_engines=4, seed=seed, setup=ONE_HOST)


def arguments(count: int, run_s: float) -> list[Argument]:
    return [Argument(run_s, token=place) for place in range(count)]


@pytest.mark.parametrize("killed", [True, False])
def test_work_goes_on_while_nobody_is_there(killed: bool):
    world = tree_of_32(seed=1)
    first = detached(world)
    call = world.submit(range(32), [Argument(0.5, pieces=3)], client=first)
    tasks = world.submit_tasks(arguments(200, 0.1), client=first)
    world.run_for(0.25)
    if killed:
        world.end(first)
    else:
        first.leave(stays=True)
    world.run_for(2.0)
    assert not call.done()
    second = world.add_client(joins=first)
    world.run_until(lambda: call.done() and tasks.done(), limit_s=0.1)
    assert call.errors == tasks.errors == {}
    assert set(second.heard.pieces.values()) == {3}
    world.settle()


@pytest.mark.parametrize("milliseconds", range(5, 605, 50))
def test_it_is_joined_again_at_any_time(milliseconds: int):
    world = tree_of_32(seed=2)
    first = detached(world)
    call = world.submit(range(32), [Argument(0.3)], client=first)
    tasks = world.submit_tasks(arguments(100, 0.1), client=first)
    world.end(first, at_s=milliseconds * 1e-3)
    world.run_for(milliseconds * 1e-3 + 0.01)
    world.add_client(joins=first)
    world.run_until(lambda: call.done() and tasks.done(), limit_s=1.0)
    assert call.errors == tasks.errors == {}
    world.settle()


def test_who_joins_goes_on_with_numbers_never_used():
    world = tree_of_32(seed=3)
    first = detached(world)
    tasks = world.submit_tasks(arguments(100, 0.1), client=first)
    world.run_for(0.05)
    world.end(first)
    world.run_for(0.05)
    second = world.add_client(joins=first)
    world.run_until(lambda: second.session)
    assert second.session == first.session
    more = world.submit_tasks(arguments(50, 0.01), client=second)
    world.run_until(lambda: tasks.done() and more.done())
    assert not set(more.ids) & set(tasks.ids)
    assert more.errors == {}
    world.settle()


def test_a_session_is_joined_many_times():
    world = tree_of_32(seed=4)
    client = detached(world)
    tasks = world.submit_tasks(arguments(320, 0.1), client=client)
    for _ in range(8):
        world.run_for(0.1)
        world.end(client)
        world.run_for(0.02)
        client = world.add_client(joins=client)
    world.run_until(tasks.done)
    assert tasks.errors == {}
    world.settle()


def test_who_leaves_for_good_takes_everything_along():
    world = tree_of_32(seed=5)
    client = detached(world)
    world.submit_tasks(arguments(320, 0.1), client=client)
    world.run_for(0.05)
    client.leave(stays=False)
    world.run_for(0.1)
    assert not world.root.core.work.dispatcher.flights
    world.settle()


def test_an_ordinary_session_ends_with_its_client():
    world = tree_of_32(seed=6)
    client = world.add_client()
    world.run_until(lambda: client.session)
    tasks = world.submit_tasks(arguments(64, 0.1), client=client)
    world.run_for(0.05)
    client.leave()
    assert set(tasks.errors.values()) == {ClusterLost}
    world.run_for(0.1)
    assert not world.root.core.work.dispatcher.flights
    world.settle()


def test_schedulers_die_while_nobody_is_there():
    world = tree_of_32(seed=7)
    first = detached(world)
    call = world.submit(range(32), [Argument(0.5)], client=first)
    tasks = world.submit_tasks(arguments(200, 0.1), client=first)
    world.run_for(0.05)
    world.end(first)
    for place, node in enumerate(world.schedulers()[1:]):
        world.end(node, at_s=world.now_s + 0.03 * place)
    world.run_for(1.0)
    world.add_client(joins=first)
    world.run_until(lambda: call.done() and tasks.done(), limit_s=1.0)
    assert call.errors == tasks.errors == {}
    world.settle()
