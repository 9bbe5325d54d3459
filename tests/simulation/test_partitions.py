"""Parts of the tree that cannot hear each other for a while, or ever again."""

from __future__ import annotations

import pytest

from hiersched.errors import EngineLost, UserError
from hiersched.limits import BEAT_PERIOD_S, LOST_AFTER_S
from hiersched.simulation.cluster import Setup, World
from hiersched.simulation.payload import Argument
from tests.simulation.test_calls import engines_of


def world_of_hosts(seed: int) -> World:
    """64 engines on 8 hosts, in three levels."""
    return World(engines=64, fanout=4, leaf_engines=8, seed=seed, setup=Setup(slots_per_host=8))


def test_a_short_partition_is_only_a_delay():
    world = world_of_hosts(seed=1)
    reply = world.submit_to_all(at_s=0.0)
    world.partition(world.schedulers(1), at_s=0.001, for_s=LOST_AFTER_S / 2)
    world.run_until(reply.done)
    assert reply.errors == {}
    assert reply.took_s > LOST_AFTER_S / 2
    world.settle()
    assert world.living() == list(range(64))


@pytest.mark.parametrize("level", [1, 2])
def test_a_part_cut_off_for_good_is_given_up_and_ends_itself(level: int):
    world = world_of_hosts(seed=2)
    cut = world.schedulers(level)[1]
    reply = world.submit_to_all(at_s=0.0)
    world.partition([cut], at_s=0.001)
    world.run_until(reply.done)
    assert reply.errors == dict.fromkeys(engines_of(cut), EngineLost)
    assert reply.took_s < LOST_AFTER_S + 2 * BEAT_PERIOD_S
    world.settle()
    assert set(world.living()) == set(range(64)) - engines_of(cut)


@pytest.mark.parametrize("for_s", [LOST_AFTER_S - 0.5, LOST_AFTER_S, LOST_AFTER_S + 0.5, LOST_AFTER_S + 4, 30.0])
def test_however_long_it_lasts_both_sides_agree_in_the_end(for_s: float):
    world = world_of_hosts(seed=3)
    cut = world.schedulers(1)[0]
    reply = world.submit_to_all(at_s=0.0)
    tasks = world.submit_tasks([Argument(0.5, token=place) for place in range(500)], at_s=0.0)
    world.partition([cut], at_s=0.01, for_s=for_s)
    world.run_until(lambda: reply.done() and tasks.done())
    assert set(reply.errors) in (set(), engines_of(cut))
    world.settle()
    assert set(world.living()) in (set(range(64)), set(range(64)) - engines_of(cut))


def test_a_partition_in_nothing_but_peace_does_no_harm():
    world = world_of_hosts(seed=4)
    world.partition(world.schedulers(2)[:3], at_s=1.0, for_s=1.0)
    world.run_for(60.0)
    assert world.living() == list(range(64))


def test_what_is_watched_cannot_be_cut_off():
    world = World(engines=8, fanout=2, leaf_engines=2)
    with pytest.raises(UserError, match="several hosts"):
        world.partition(world.schedulers(1)[:1])
    with pytest.raises(UserError, match="below the root"):
        world_of_hosts(seed=5).partition([world.root])
