"""Load-balanced tasks: handed down by credit, in batches as large as they are short, and never to nobody."""

from __future__ import annotations

from collections import Counter

import pytest

from hiersched.errors import EngineLost, TaskCancelled, UnknownEngine
from hiersched.limits import TASKS_IN_FLIGHT_PER_CLIENT_MAX, TASKS_PER_MESSAGE_MAX, WINDOW_S
from hiersched.protocol.messages import Tasks
from hiersched.simulation.cluster import Setup, World
from hiersched.simulation.payload import Argument
from hiersched.simulation.requests import Request
from tests.simulation.recorder import Recorder

ONE_HOST = Setup(slots_per_host=1_000)


def tree_of_64(seed: int) -> World:
    return World(engines=64, fanout=4, leaf_engines=16, seed=seed, setup=ONE_HOST)


def arguments(count: int, run_s: float) -> list[Argument]:
    return [Argument(run_s, token=place) for place in range(count)]


def run(world: World, tasks: Request) -> Request:
    world.run_until(tasks.done)
    return tasks


def taught(world: World, run_s: float) -> World:
    """The world once it knows how long its tasks run."""
    run(world, world.submit_tasks(arguments(4 * world.plan.engines, run_s)))
    world.settle()
    return world


# --- handing out ------------------------------------------------------------------------------------------------------


def test_every_task_runs_once_and_answers_in_its_place():
    world = tree_of_64(seed=1)
    tasks = run(world, world.submit_tasks(arguments(3_000, 0.001)))
    assert [answer.token for answer in tasks.results] == list(range(3_000))
    assert {answer.rank for answer in tasks.results} == set(range(64))
    world.settle()


@pytest.mark.parametrize("run_s", [0.05, 0.2, 1.0])
def test_no_engine_idles_while_long_tasks_wait(run_s: float):
    world = taught(tree_of_64(seed=2), run_s)
    tasks = run(world, world.submit_tasks(arguments(1_280, run_s)))
    assert tasks.took_s < 1_280 / 64 * run_s + 0.5 * run_s + 0.01


@pytest.mark.parametrize("run_s", [0.0002, 0.001, 0.005])
def test_short_tasks_keep_engines_busy(run_s: float):
    world = taught(tree_of_64(seed=3), run_s)
    tasks = run(world, world.submit_tasks(arguments(12_800, run_s)))
    assert tasks.took_s < 1.25 * 12_800 / 64 * run_s


@pytest.mark.parametrize("factor", [4.0, 10.0])
def test_slow_engines_get_less_and_delay_the_end_by_one_task_of_theirs(factor: float):
    run_s, slow = 0.1, range(0, 64, 8)
    world = taught(tree_of_64(seed=4), run_s)
    for rank in slow:
        world.slow(rank, factor)
    tasks = run(world, world.submit_tasks(arguments(1_280, run_s)))
    shares = Counter(answer.rank for answer in tasks.results)
    assert max(shares[rank] for rank in slow) < min(shares[rank] for rank in range(64) if rank not in slow)
    ideal_s = 1_280 * run_s / (len(slow) / factor + 64 - len(slow))
    assert tasks.took_s < ideal_s + factor * run_s


def test_long_tasks_travel_one_by_one():
    world = taught(tree_of_64(seed=5), 0.5)
    recorder = Recorder(world)
    run(world, world.submit_tasks(arguments(640, 0.5)))
    to_engines = [len(message.tasks) for _, link, message in recorder.of(Tasks) if link.startswith(b"engine")]
    assert to_engines == [1] * 640


def test_short_tasks_travel_in_batches_worth_about_a_window():
    run_s = 0.0001
    world = taught(tree_of_64(seed=6), run_s)
    recorder = Recorder(world)
    run(world, world.submit_tasks(arguments(20_000, run_s)))
    to_engines = [len(message.tasks) for _, link, message in recorder.of(Tasks) if link.startswith(b"engine")]
    assert sum(to_engines) == 20_000
    assert len(to_engines) < 20_000 / 4
    assert max(to_engines) < 4 * WINDOW_S / run_s


def test_what_waits_waits_at_the_root():
    world = taught(tree_of_64(seed=7), 0.5)
    tasks = world.submit_tasks(arguments(1_000, 0.5))
    world.run_for(1.0)
    below = sum(len(node.core.work.dispatcher) for node in world.schedulers()[1:])
    assert below == 0
    assert len(world.root.core.work.dispatcher) > 700
    run(world, tasks)


def test_a_client_keeps_back_what_the_root_would_not_hold():
    world = World(engines=64, fanout=4, leaf_engines=16, seed=8, setup=Setup(checked=False))
    count = TASKS_IN_FLIGHT_PER_CLIENT_MAX + 5_000
    tasks = world.submit_tasks(arguments(count, 0.0001))
    assert world.client.in_flight == TASKS_IN_FLIGHT_PER_CLIENT_MAX
    assert len(world.client.unsent) == 5_000
    recorder = Recorder(world)
    run(world, tasks)
    assert tasks.errors == {}
    assert max(len(message.tasks) for _, _, message in recorder.of(Tasks)) <= TASKS_PER_MESSAGE_MAX
    world.settle()


def test_calls_pass_tasks_that_wait():
    world = taught(tree_of_64(seed=9), 0.1)
    tasks = world.submit_tasks(arguments(2_000, 0.1))
    world.run_for(0.05)
    call = run(world, world.submit_to_all(run_s=0.0))
    assert call.took_s < 0.15
    assert not tasks.done()
    run(world, tasks)
    world.settle()


# --- faults -----------------------------------------------------------------------------------------------------------


def test_an_engine_that_dies_loses_only_what_it_held():
    world = taught(tree_of_64(seed=10), 0.1)
    tasks = world.submit_tasks(arguments(640, 0.1), at_s=world.now_s)
    world.kill(5, at_s=world.now_s + 0.25)
    run(world, tasks)
    assert list(tasks.errors.values()) == [EngineLost]
    world.settle()


def test_a_hundred_of_ten_thousand_engines_die_among_tasks():
    world = World(engines=10_000, fanout=32, seed=11)
    tasks = world.submit_tasks(arguments(20_000, 0.05), at_s=0.0)
    for rank in world.rng.sample(range(10_000), 100):
        world.kill(rank, at_s=world.rng.uniform(0.0, 0.1))
    run(world, tasks)
    assert set(tasks.errors.values()) <= {EngineLost}
    assert len(tasks.errors) <= 100
    world.settle()


def test_when_the_last_engine_dies_what_waits_is_given_back():
    world = World(engines=6, fanout=2, leaf_engines=2, seed=13)
    tasks = world.submit_tasks(arguments(100, 0.1), at_s=0.0)
    for rank in range(6):
        world.kill(rank, at_s=0.15)
    run(world, tasks)
    assert set(tasks.errors.values()) == {EngineLost, UnknownEngine}
    assert Counter(tasks.errors.values())[EngineLost] <= 6 + 3
    world.settle()


# --- second thoughts --------------------------------------------------------------------------------------------------


def test_cancelled_tasks_end_before_they_start_and_running_ones_go_on():
    world = taught(tree_of_64(seed=14), 0.1)
    tasks = world.submit_tasks(arguments(640, 0.1), at_s=world.now_s)
    world.run_for(0.05)
    world.client.cancel(tasks.ids)
    run(world, tasks)
    assert set(tasks.errors.values()) == {TaskCancelled}
    assert len(tasks.errors) == 640 - 64
    assert tasks.took_s < 0.2
    world.settle()


def test_what_was_not_even_sent_is_cancelled_at_once():
    world = World(engines=64, fanout=4, leaf_engines=16, seed=15, setup=Setup(checked=False))
    tasks = world.submit_tasks(arguments(TASKS_IN_FLIGHT_PER_CLIENT_MAX + 10, 0.0001))
    world.client.cancel(tasks.ids[-10:])
    assert len(tasks.errors) == 10
    run(world, tasks)
    world.settle()


@pytest.mark.parametrize("politely", [True, False])
def test_a_client_that_leaves_takes_its_waiting_tasks_along(politely: bool):
    world = taught(tree_of_64(seed=16), 0.1)
    other = world.add_client()
    world.run_until(lambda: other.session)
    world.submit_tasks(arguments(2_000, 0.1), client=other)
    at_s = world.now_s + 0.15
    if politely:
        world.at(at_s, other.leave)
    else:
        world.end(other, at_s)
    world.run_for(0.6)
    assert not world.root.core.work.dispatcher.flights
    world.settle()
    assert run(world, world.submit_to_all()).errors == {}


def test_two_clients_share_the_engines():
    world = taught(tree_of_64(seed=17), 0.02)
    other = world.add_client()
    world.run_until(lambda: other.session)
    both = [world.submit_tasks(arguments(640, 0.02), client=client) for client in (world.client, other)]
    world.run_until(lambda: all(tasks.done() for tasks in both))
    assert not any(tasks.errors for tasks in both)
    world.settle()
