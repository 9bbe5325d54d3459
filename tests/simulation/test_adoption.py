"""A scheduler dies, its children climb: nothing is lost, nothing runs twice, nobody notices but by a short delay."""

from __future__ import annotations

from random import Random

import pytest

from hiersched.errors import EngineLost
from hiersched.limits import ACK_MESSAGES_MAX
from hiersched.protocol import messages as m
from hiersched.simulation.cluster import Setup, World
from hiersched.simulation.payload import Argument
from hiersched.simulation.requests import Request
from tests.simulation.recorder import Recorder
from tests.simulation.test_calls import engines_of

ONE_HOST = Setup(slots_per_host=1_000)


def tree_of_64(seed: int) -> World:
    """Four leaves of 16 engines under the root."""
    return World(engines=64, fanout=4, leaf_engines=16, seed=seed, setup=ONE_HOST)


def deep_tree(seed: int, engines: int = 32) -> World:
    """Leaves of two engines, and always two children to a scheduler."""
    return World(engines=engines, fanout=2, leaf_engines=2, seed=seed, setup=ONE_HOST)


def arguments(count: int, run_s: float) -> list[Argument]:
    return [Argument(run_s, token=place) for place in range(count)]


def finish(world: World, *requests: Request) -> None:
    """All of them succeed, and then nothing is held any more."""
    world.run_until(lambda: all(request.done() for request in requests), limit_s=100.0)
    assert [request.errors for request in requests] == [{}] * len(requests)
    world.settle()


# --- calls ------------------------------------------------------------------------------------------------------------


def test_engines_answer_though_their_scheduler_dies_while_they_compute():
    world = tree_of_64(seed=1)
    leaf = world.schedulers(1)[2]
    reply = world.submit_to_all(at_s=0.0)
    world.end(leaf, at_s=0.01)
    finish(world, reply)
    assert reply.took_s < 0.055
    assert world.living() == list(range(64))
    assert {world.engine(rank).uplink.parent for rank in engines_of(leaf)} == {world.root}


def test_a_subtree_goes_on_below_whoever_is_next_above():
    world = deep_tree(seed=2)
    lost = world.schedulers(2)[1]
    reply = world.submit_to_all(at_s=0.0)
    world.end(lost, at_s=0.01)
    finish(world, reply)
    assert {node.uplink.parent for node in world.schedulers(3)[2:4]} == {world.schedulers(1)[0]}


def test_every_scheduler_but_the_root_dies_at_once():
    world = deep_tree(seed=3)
    calls = [world.submit_to_all(at_s=0.0), world.submit_to_all(at_s=0.0, run_s=0.0)]
    tasks = world.submit_tasks(arguments(200, 0.01), at_s=0.0)
    for node in world.schedulers()[1:]:
        world.end(node, at_s=0.02)
    finish(world, *calls, tasks)
    assert len(world.root.core.membership.children) == 32


def test_engines_that_a_dying_leaf_had_not_told_are_told_by_its_parent():
    world = tree_of_64(seed=4)
    leaf = world.schedulers(1)[1]
    recorder = Recorder(world)
    reply = world.submit_to_all(at_s=0.0, run_s=0.01)
    world.run_until(lambda: any(node is leaf for node, _, _ in recorder.of(m.Call)))
    world.end(leaf, at_s=world.now_s + 7.5 * world.plan.costs.send_s)
    finish(world, reply)
    again = {link for node, link, _ in recorder.of(m.Call) if node is world.root and link.startswith(b"engine")}
    assert 0 < len(again) < 16


@pytest.mark.parametrize("microseconds", range(0, 1_200, 40))
def test_an_answer_is_kept_wherever_it_is_when_a_scheduler_dies(microseconds: int):
    world = deep_tree(seed=5, engines=8)
    reply = world.submit(range(8), [Argument(0.0)], at_s=0.0)
    tasks = world.submit_tasks(arguments(8, 0.0), at_s=0.0)
    world.end(world.schedulers(1)[0], at_s=microseconds * 1e-6)
    finish(world, reply, tasks)


def test_calls_on_orphans_wait_for_them():
    world = tree_of_64(seed=6)
    leaf = world.schedulers(1)[0]
    world.end(leaf, at_s=0.01)
    world.run_until(lambda: len(world.root.core.orphans) > 0)
    finish(world, world.submit_to_all(run_s=0.0), world.submit([3], [Argument(0.0)]))


def test_an_engine_that_dies_with_its_scheduler_is_lost_and_the_others_are_not():
    world = tree_of_64(seed=7)
    reply = world.submit_to_all(at_s=0.0)
    world.end(world.schedulers(1)[0], at_s=0.01)
    world.kill(5, at_s=0.01)
    world.run_until(reply.done)
    assert reply.errors == {5: EngineLost}
    world.settle()


def test_an_engine_that_dies_on_its_way_up_is_lost():
    world = tree_of_64(seed=8)
    reply = world.submit_to_all(at_s=0.0)
    world.end(world.schedulers(1)[0], at_s=0.01)
    world.run_until(lambda: len(world.root.core.orphans) > 0)
    world.kill(5)
    world.run_until(reply.done)
    assert reply.errors == {5: EngineLost}
    world.settle()


# --- tasks ------------------------------------------------------------------------------------------------------------


def test_a_long_task_goes_on_while_its_engine_climbs():
    world = tree_of_64(seed=9)
    tasks = world.submit_tasks(arguments(64, 5.0), at_s=0.0)
    world.end(world.schedulers(1)[0], at_s=1.0)
    finish(world, tasks)
    assert tasks.took_s < 5.01
    assert world.engine(0).busy_s == pytest.approx(5.0, rel=1e-4)


def test_what_had_been_sent_to_a_dead_scheduler_runs_elsewhere():
    world = deep_tree(seed=10)
    tasks = world.submit_tasks(arguments(2_000, 0.001), at_s=0.0)
    for place, node in enumerate(world.schedulers()[1:]):
        world.end(node, at_s=0.002 * place)
    finish(world, tasks)


def test_tasks_that_may_run_again_outlive_engines_and_schedulers():
    world = deep_tree(seed=11)
    terms = m.Terms(retries=10)
    tasks = world.submit_tasks(arguments(500, 0.01), at_s=0.0, terms_of=lambda ids: [terms for _ in ids])
    for place, node in enumerate(world.schedulers()[1:]):
        world.end(node, at_s=0.005 * place)
    for rank in range(0, 32, 3):
        world.kill(rank, at_s=0.003 * rank)
    finish(world, tasks)


# --- what is kept for it ----------------------------------------------------------------------------------------------


def test_what_engines_keep_is_acknowledged_soon_and_stays_small():
    world = deep_tree(seed=12, engines=8)
    most = 0
    for _ in range(20):
        tasks = world.submit_tasks(arguments(400, 0.0005))
        world.run_until(tasks.done)
        most = max(most, *(world.engine(rank).kept for rank in range(8)))
    assert 0 < most < 4 * ACK_MESSAGES_MAX
    world.settle()
    assert not any(world.engine(rank).kept for rank in range(8))


def test_directly_under_the_root_nothing_is_kept():
    world = World(engines=8, seed=13, setup=ONE_HOST)
    assert world.plan.depth == 1
    finish(world, world.submit_tasks(arguments(400, 0.0005)), world.submit_to_all())
    assert not any(world.engine(rank).kept for rank in range(8))


def test_on_another_host_than_its_starter_nobody_is_adopted():
    world = World(engines=64, fanout=4, seed=14, setup=Setup(slots_per_host=8))
    head = next(node for node in world.schedulers() if node.uplink and node.host != node.uplink.parent.host)
    reply = world.submit_to_all(at_s=0.0)
    world.end(head, at_s=0.01)
    world.run_until(reply.done)
    assert reply.errors == dict.fromkeys(engines_of(head), EngineLost)
    world.settle()


# --- anything at any time ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize("seed", range(30))
def test_as_long_as_only_schedulers_die_everything_succeeds(seed: int):
    rng = Random(seed)
    world = deep_tree(seed, engines=rng.randint(3, 40))
    ranks = range(world.plan.engines)
    requests = []
    for _ in range(rng.randint(1, 8)):
        at_s = rng.random() * 0.1
        if rng.random() < 0.5:
            argument = Argument(rng.choice([0.0, 0.001, 0.02, 0.1]), report=rng.random() < 0.5)
            targets = rng.sample(ranks, rng.randint(1, len(ranks)))
            requests.append(world.submit(targets, [argument], at_s=at_s))
        else:
            run_s = rng.choice([1e-5, 0.001, 0.02, 0.1])
            batch = [Argument(rng.random() * run_s, place) for place in range(rng.randint(1, 100))]
            requests.append(world.submit_tasks(batch, at_s=at_s))
    share = rng.choice([0.1, 0.5, 1.0])
    for node in world.schedulers()[1:]:
        if rng.random() < share:
            world.end(node, at_s=rng.random() * rng.choice([0.001, 0.1, 0.2]))
    finish(world, *requests)
