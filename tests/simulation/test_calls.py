"""Calls on many engines: down the tree once, up the tree once, whoever dies meanwhile."""

from __future__ import annotations

import pytest

from hiersched.core.topology import levels
from hiersched.errors import ClusterLost, EngineLost, UnknownEngine
from hiersched.limits import BEAT_PERIOD_S, COALESCE_BYTES_MAX, LOST_AFTER_S
from hiersched.protocol.messages import Call, Reply
from hiersched.simulation.cluster import Setup, World
from hiersched.simulation.payload import Argument
from hiersched.simulation.report import predicted_s
from hiersched.simulation.scheduler import SimScheduler
from tests.simulation.recorder import Recorder

ONE_HOST = Setup(slots_per_host=1_000)


def engines_of(*nodes: SimScheduler) -> set[int]:
    return {rank for node in nodes for rank in range(node.core.place.first, node.core.place.last)}


# --- nothing breaks ---------------------------------------------------------------------------------------------------


def test_a_call_on_all_engines_comes_back_in_the_order_of_the_targets():
    world = World(engines=200, fanout=4, leaf_engines=8, seed=1)
    reply = world.submit_to_all()
    world.run_until(reply.done)
    assert [answer.rank for answer in reply.results] == list(range(200))
    assert reply.errors == {}
    world.settle()


def test_targets_in_any_order_get_each_its_own_share_and_its_own_place():
    world = World(engines=100, fanout=4, leaf_engines=8, seed=2)
    targets = world.rng.sample(range(100), 60)
    reply = world.submit(targets, [Argument(run_s=0.001, token=1_000 + rank) for rank in targets])
    world.run_until(reply.done)
    assert [(answer.rank, answer.token) for answer in reply.results] == [(rank, 1_000 + rank) for rank in targets]
    world.settle()


@pytest.mark.parametrize("answer_bytes", [COALESCE_BYTES_MAX, COALESCE_BYTES_MAX + 1])
def test_answers_come_whole_whether_they_are_joined_on_the_way_or_not(answer_bytes: int):
    world = World(engines=50, fanout=4, leaf_engines=4, seed=3)
    reply = world.submit(range(50), [Argument(0.0, token=9, answer_bytes=answer_bytes)])
    world.run_until(reply.done)
    assert reply.errors == {}
    world.settle()


def test_each_scheduler_hears_and_tells_each_neighbour_once():
    world = World(engines=300, fanout=6, leaf_engines=7, seed=4)
    recorder = Recorder(world)
    reply = world.submit_to_all()
    world.run_until(reply.done)
    for node in world.schedulers():
        children = len(node.children)
        calls = [link for sender, link, _ in recorder.of(Call) if sender is node]
        replies = [link for sender, link, _ in recorder.of(Reply) if sender is node]
        assert sorted(calls) == sorted(node.children)
        assert len(replies) == 1
        assert node.sent == node.received == children + 1
    assert max(node.sent + node.received for node in world.schedulers()) == world.plan.messages_max


def test_a_call_on_one_engine_passes_one_scheduler_of_each_level():
    world = World(engines=300, fanout=4, leaf_engines=4, seed=5)
    recorder = Recorder(world)
    reply = world.submit([123], [Argument(0.0)])
    world.run_until(reply.done)
    assert [node.level for node, _, _ in recorder.of(Call)] == list(range(world.plan.depth))


@pytest.mark.parametrize(
    ("engines", "fanout", "leaf_engines", "slots"),
    [(64, None, None, 64), (1_000, None, None, 1_000), (1_000, 8, 16, 64), (2_000, None, None, 64), (3_000, 4, 64, 32)],
)
def test_a_call_takes_about_as_long_as_the_plan_predicts(engines, fanout, leaf_engines, slots):
    world = World(engines, fanout=fanout, leaf_engines=leaf_engines, seed=6, setup=Setup(slots_per_host=slots))
    reply = world.submit_to_all(run_s=0.0)
    world.run_until(reply.done)
    assert reply.took_s == pytest.approx(predicted_s(world), rel=0.15)


def test_many_calls_at_once_do_not_mix():
    world = World(engines=60, fanout=3, leaf_engines=5, seed=7)
    replies = [world.submit_to_all(run_s=world.rng.random() * 0.01) for _ in range(30)]
    world.run_until(lambda: all(reply.done() for reply in replies))
    assert not any(reply.errors for reply in replies)
    world.settle()


def test_a_hundred_thousand_engines_are_three_levels_of_schedulers_away():
    from hiersched.core.topology import Host, plan_tree

    hosts = [Host(f"host-{number}", 64, 64) for number in range(100_000 // 64 + 1)]
    assert len(levels(plan_tree(hosts, fanout=64))) == 3


@pytest.mark.slow
def test_a_call_on_a_hundred_thousand_engines():
    world = World(engines=100_000, fanout=64, seed=7)
    reply = world.submit_to_all(run_s=0.0)
    world.run_until(reply.done)
    assert reply.errors == {}
    assert world.plan.depth == 3
    assert all(node.sent + node.received <= 2 * (64 + 1) for node in world.schedulers())
    world.settle()


# --- engines die ------------------------------------------------------------------------------------------------------


def test_gather_ends_when_an_engine_dies():
    world = World(engines=10_000, fanout=32, seed=7)
    reply = world.submit_to_all(at_s=0.0)
    world.kill(rank=4_217, at_s=0.01)
    world.run_until(reply.done)
    assert reply.errors == {4_217: EngineLost}


def test_a_hundred_of_ten_thousand_engines_die_during_a_call():
    world = World(engines=10_000, fanout=32, seed=8)
    dead = world.rng.sample(range(10_000), 100)
    reply = world.submit_to_all(at_s=0.0)
    for rank in dead:
        world.kill(rank, at_s=world.rng.uniform(0.002, 0.05))
    world.run_until(reply.done)
    assert reply.errors == dict.fromkeys(dead, EngineLost)
    world.settle()
    assert world.living() == sorted(set(range(10_000)) - set(dead))


def test_what_an_engine_answered_before_it_died_counts():
    world = World(engines=24, fanout=2, leaf_engines=4, seed=9)
    quick = 5
    reply = world.submit(range(24), [Argument(0.0 if rank == quick else 0.1, token=rank) for rank in range(24)])
    world.kill(quick, at_s=0.05)
    world.run_until(reply.done)
    assert reply.errors == {}
    world.settle()


def test_all_engines_die():
    world = World(engines=40, fanout=3, leaf_engines=4, seed=10)
    reply = world.submit_to_all(at_s=0.0)
    for rank in range(40):
        world.kill(rank, at_s=0.01 + rank * 1e-5)
    world.run_until(reply.done)
    assert reply.errors == dict.fromkeys(range(40), EngineLost)
    world.settle()
    after = world.submit_to_all()
    assert after.done()
    assert after.results == []


def test_an_engine_that_is_gone_is_unknown_to_later_calls():
    world = World(engines=20, fanout=3, leaf_engines=4, seed=11)
    world.kill(3)
    world.run_for(0.1)
    reply = world.submit([2, 3, 4], [Argument(0.0)])
    world.run_until(reply.done)
    assert reply.errors == {3: UnknownEngine}


def test_a_tree_grows_without_the_engines_that_never_came():
    world = World(engines=30, fanout=3, leaf_engines=4, seed=12, setup=Setup(unborn=frozenset({0, 17})))
    assert world.living() == [rank for rank in range(30) if rank not in (0, 17)]
    reply = world.submit(range(30), [Argument(0.0)])
    world.run_until(reply.done)
    assert reply.errors == {0: UnknownEngine, 17: UnknownEngine}
    world.settle()


# --- schedulers die: what their children do then is in test_adoption.py -----------------------------------------------


def test_between_hosts_a_dead_scheduler_is_missed_by_its_beats():
    world = World(engines=64, fanout=4, seed=15, setup=Setup(slots_per_host=8))
    group = world.schedulers(1)[1]
    assert group.host != world.root.host
    reply = world.submit_to_all(at_s=0.0)
    world.end(group, at_s=0.01)
    world.run_until(reply.done)
    assert reply.errors == dict.fromkeys(engines_of(group), EngineLost)
    assert LOST_AFTER_S - BEAT_PERIOD_S < reply.took_s < LOST_AFTER_S + 2 * BEAT_PERIOD_S
    world.settle()
    assert set(world.living()) == set(range(64)) - engines_of(group)


def test_without_the_root_every_call_ends_with_the_cluster():
    world = World(engines=60, fanout=3, leaf_engines=5, seed=18)
    reply = world.submit_to_all(at_s=0.0)
    tasks = world.submit_tasks([Argument(1.0)] * 100, at_s=0.0)
    world.end(world.root, at_s=0.01)
    world.run_until(lambda: reply.done() and tasks.done())
    assert set(reply.errors.values()) == set(tasks.errors.values()) == {ClusterLost}
    world.settle()
    assert world.living() == []


def test_a_client_stops_the_cluster():
    world = World(engines=60, fanout=3, leaf_engines=5, seed=19)
    world.at(0.01, world.client.stop_cluster)
    world.run_until(lambda: not world.living())
    assert world.client.ended == "a client asked for it"
    assert all(node.ended_s <= world.timeline.now_s for node in world.schedulers())
