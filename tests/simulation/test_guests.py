"""Engines that come of themselves: they get ranks, work like all others, are lost, and come back."""

from __future__ import annotations

from random import Random

import pytest

from hiersched.errors import EngineLost, UserError
from hiersched.kernels import bitset
from hiersched.protocol import messages as m
from hiersched.simulation.cluster import Setup, World
from hiersched.simulation.guest import SimGuest
from hiersched.simulation.payload import Argument
from tests.simulation.random_worlds import RandomWorld

WITH_GUESTS = Setup(slots_per_host=1_000, guests=True)


def mixed(engines: int, guests: int, seed: int, **tree: int) -> tuple[World, list[SimGuest]]:
    """A cluster of engines of its own and of guests, all there."""
    world = World(engines=engines, seed=seed, setup=WITH_GUESTS, **tree)
    came = [world.add_guest() for _ in range(guests)]
    world.run_until(lambda: world.client.members == bitset.of_range(0, engines + guests), limit_s=1.0)
    return world, came


def arguments(count: int, run_s: float) -> list[Argument]:
    return [Argument(run_s, token=place) for place in range(count)]


def test_guests_have_ranks_above_those_of_the_cluster_and_answer_like_all_others():
    world, guests = mixed(4, 3, seed=1)
    assert sorted(guest.rank for guest in guests) == [4, 5, 6]
    reply = world.submit_to_all(at_s=world.now_s)
    single = world.submit([6], arguments(1, 0.01))
    world.run_until(lambda: reply.done() and single.done())
    assert (reply.errors, single.errors) == ({}, {})
    world.settle()


def test_each_target_gets_its_own_arguments_though_ranks_of_guests_lie_between():
    world, _ = mixed(6, 2, seed=2, fanout=2, leaf_engines=3)
    root = world.root.core
    wanted = world.add_guest(wanted=20)
    later = world.add_guest(wanted=15)
    world.run_until(lambda: wanted.rank == 20 and later.rank == 15, limit_s=1.0)
    world.settle()
    assert root.place.last == 21
    targets = [0, 15, 7, 3, 20]
    reply = world.submit(targets, arguments(5, 0.01))
    world.run_until(reply.done)
    assert reply.errors == {}
    world.settle()


def test_tasks_are_spread_over_guests_too():
    world, guests = mixed(4, 4, seed=3, fanout=2, leaf_engines=2)
    request = world.submit_tasks(arguments(400, 0.01))
    world.run_until(request.done)
    assert request.errors == {}
    assert all(guest.busy_s > 0.3 for guest in guests)
    world.settle()


def test_a_call_ends_when_a_guest_dies():
    world, guests = mixed(4, 4, seed=4)
    reply = world.submit_to_all(at_s=world.now_s)
    world.end(guests[1], at_s=world.now_s + 0.01)
    world.run_until(reply.done, limit_s=1.0)
    assert reply.errors == {guests[1].rank: EngineLost}
    world.settle()


def test_whoever_asks_gets_the_rank_of_a_guest_that_left_and_nobody_else():
    world, guests = mixed(4, 2, seed=5)
    left = guests[0].rank
    world.end(guests[0])
    world.run_until(lambda: not world.client.members >> left & 1, limit_s=1.0)
    stranger, heir = world.add_guest(), world.add_guest(wanted=left)
    world.run_until(lambda: world.client.members.bit_count() == 7, limit_s=1.0)
    assert (stranger.rank, heir.rank) == (6, left)
    reply = world.submit_to_all(at_s=world.now_s)
    world.run_until(reply.done)
    assert reply.errors == {}
    world.settle()


def test_a_rank_that_somebody_has_is_given_to_nobody_else():
    world, guests = mixed(4, 1, seed=6)
    others = [world.add_guest(wanted=rank) for rank in (0, guests[0].rank)]
    world.run_until(lambda: world.client.members.bit_count() == 7, limit_s=1.0)
    assert sorted(other.rank for other in others) == [5, 6]
    world.settle()


def test_all_guests_are_lost_at_once_with_their_leaf_and_the_others_go_on():
    world, _ = mixed(4, 4, seed=7)
    (leaf,) = [node for node in world.schedulers(1) if node.core.place.is_for_guests]
    reply = world.submit_to_all(at_s=world.now_s)
    world.end(leaf, at_s=world.now_s + 0.01)
    world.run_until(reply.done, limit_s=1.0)
    assert reply.errors == dict.fromkeys(range(4, 8), EngineLost)
    world.settle()
    assert world.client.members == bitset.of_range(0, 4)
    with pytest.raises(UserError, match="no leaf for guests"):
        world.add_guest()


@pytest.mark.parametrize("seed", range(8))
def test_guests_come_and_go_while_work_is_done(seed: int):
    rng = Random(seed)
    world, guests = mixed(6, 4, seed=seed, fanout=2, leaf_engines=3)
    requests = [world.submit_tasks(arguments(200, 0.002)) for _ in range(3)]
    start_s = world.now_s
    for step in range(20):
        at_s = start_s + 0.01 * step
        calls = rng.random() < 0.5
        if calls:
            requests.append(world.submit_to_all(at_s=at_s, run_s=0.001))
        elif guests and rng.random() < 0.5:
            world.end(guests.pop(rng.randrange(len(guests))), at_s=at_s)
        else:
            wanted = rng.choice([-1, rng.randrange(30)])
            world.at(at_s, lambda wanted=wanted: guests.append(world.add_guest(wanted)))
    world.run_until(lambda: world.now_s > start_s + 0.2 and all(request.done() for request in requests))
    world.settle()
    assert world.client.members == bitset.of_ranks([*range(6), *(guest.rank for guest in guests)])


@pytest.mark.parametrize("seed", range(30))
def test_whatever_happens_among_guests_and_others_is_explained(seed: int):
    RandomWorld(seed, kind="mixed", engines_max=16, replay=f"RandomWorld({seed}, kind='mixed', engines_max=16)").run()


def test_tasks_go_to_the_guests_that_they_are_for_or_had_best_run_on():
    world, guests = mixed(6, 3, seed=8, fanout=2, leaf_engines=3)
    only, best = guests[1].rank, guests[2].rank
    targeted = m.Terms(targets=bitset.to_wire(1 << only | 1 << 2))
    single = m.Terms(targets=bitset.to_wire(1 << only))
    hinted = m.Terms(hint=best)
    for terms, ranks, count in ((targeted, {only, 2}, 3), (single, {only}, 3), (hinted, {best}, 1)):
        request = world.submit_tasks(arguments(count, 0.01), terms_of=lambda ids, terms=terms: [terms] * len(ids))
        world.run_until(request.done)
        assert request.errors == {}
        assert {outcome.rank for outcome in request.outcomes} <= ranks
        world.settle()
