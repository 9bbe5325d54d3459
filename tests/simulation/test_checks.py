"""The checks find what they are there to find."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from hiersched.core.effects import PARENT, Link
from hiersched.errors import Bug
from hiersched.kernels import bitset
from hiersched.protocol.messages import CELL_LANE, ENGINE_LOST, NO_FUNCTION, Call, Loss, Message, Reply, Tasks
from hiersched.simulation.cluster import World
from hiersched.simulation.payload import Argument
from hiersched.simulation.scheduler import SimScheduler


def busy_world() -> World:
    """Sixteen engines in the middle of a call and of tasks."""
    world = World(engines=16, fanout=2, leaf_engines=4, seed=1)
    world.submit_to_all(at_s=0.0, run_s=0.5)
    world.submit_tasks([Argument(0.5)] * 40, at_s=0.0)
    world.run_for(0.2)
    return world


def leaf_of(world: World) -> SimScheduler:
    return world.schedulers(world.plan.depth - 1)[0]


def wait_for_the_dead(world: World) -> None:
    del leaf_of(world).core.membership.children[b"engine-3"]


def forget_credit(world: World) -> None:
    for child in leaf_of(world).core.membership.children.values():
        child.load = 0.0


def lose_a_flight(world: World) -> None:
    flights = leaf_of(world).core.work.dispatcher.flights
    flights.pop(next(iter(flights)))


def tell_a_child_twice(world: World) -> None:
    leaf = leaf_of(world)
    (request,) = leaf.core.calls.gather.open
    say(leaf, b"engine-0", Call(request, bitset.to_wire(1), CELL_LANE, NO_FUNCTION, [], []))


def answer_twice(world: World) -> None:
    leaf = leaf_of(world)
    (request,) = leaf.core.calls.gather.open
    say(leaf, PARENT, Reply(request, [], [Loss(bitset.to_wire(1), ENGINE_LOST, "")]))


def run_twice(world: World) -> None:
    leaf = leaf_of(world)
    flight = next(iter(leaf.core.work.dispatcher.flights.values()))
    others = [child.link for child in leaf.core.membership.children.values() if child is not flight.child]
    say(leaf, others[0], Tasks([flight.task]))


def say(leaf: SimScheduler, link: Link, message: Message) -> None:
    """Send it with whatever the scheduler does next."""
    leaf.core.outbox.send(link, message)


@pytest.mark.parametrize(
    ("damage", "complaint"),
    [
        (wait_for_the_dead, "waits for 3, which are gone"),
        (forget_credit, "is charged with"),
        (lose_a_flight, "does not hold"),
        (tell_a_child_twice, "more than one Call"),
        (run_twice, "runs twice"),
        (answer_twice, "more than one Reply"),
    ],
)
def test_damage_is_found_at_the_next_event_that_meets_it(damage: Callable[[World], None], complaint: str):
    world = busy_world()
    damage(world)
    with pytest.raises(Bug, match=complaint) as found:
        world.run_for(60.0)
    assert any("Replay: World(16, fanout=2" in note for note in found.value.__notes__)


def test_what_never_comes_to_rest_is_told():
    world = busy_world()
    call = Call(99, (0, b""), CELL_LANE, NO_FUNCTION, [], [])
    leaf_of(world).core.calls.gather.begin(call, (), b"", 0)
    for node in world.schedulers():
        node.watcher = None
    with pytest.raises(Bug, match=r"1 open requests.*Replay: World\(16"):
        world.settle()


def test_what_is_waited_for_in_vain_is_told():
    world = World(engines=4, fanout=2, leaf_engines=2)
    with pytest.raises(Bug, match="has not come within 10"):
        world.run_until(lambda: False, limit_s=10.0)
