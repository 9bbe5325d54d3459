"""Busy engines are reached by a doorbell: what is withdrawn ends at once, and only that."""

from __future__ import annotations

import pytest

from hiersched.errors import RemoteError, TaskCancelled, TaskInterrupted
from hiersched.kernels import bitset
from hiersched.protocol import messages as m
from hiersched.simulation.cluster import Setup, World
from hiersched.simulation.engine import SIGINT
from hiersched.simulation.payload import Argument

ONE_HOST = Setup(slots_per_host=1_000)
HOURS_S = 3_600.0


def tree_of_64(seed: int) -> World:
    return World(engines=64, fanout=4, leaf_engines=4, seed=seed, setup=ONE_HOST)


def test_a_call_that_runs_on_all_engines_is_stopped_within_milliseconds():
    world = tree_of_64(seed=1)
    call = world.submit_to_all(run_s=HOURS_S)
    world.run_for(1.0)
    world.client.cancel(call.ids, running=True)
    world.run_until(call.done, limit_s=0.01)
    assert call.errors == dict.fromkeys(range(64), TaskInterrupted)
    world.settle()


def test_what_waits_behind_it_goes_on():
    world = tree_of_64(seed=2)
    first = world.submit_to_all(run_s=HOURS_S)
    second = world.submit_to_all(run_s=0.01)
    world.run_for(1.0)
    world.client.cancel(first.ids, running=True)
    world.run_until(second.done, limit_s=0.03)
    assert second.errors == {}
    world.settle()


def test_without_running_a_call_that_runs_goes_on_and_one_that_waits_ends():
    world = tree_of_64(seed=3)
    running, waiting = world.submit_to_all(run_s=1.0), world.submit_to_all(run_s=1.0)
    world.run_for(0.5)
    world.client.cancel([*running.ids, *waiting.ids])
    world.run_until(waiting.done, limit_s=0.01)
    assert waiting.errors == dict.fromkeys(range(64), TaskCancelled)
    world.run_until(running.done)
    assert running.errors == {}
    world.settle()


@pytest.mark.parametrize("running", [True, False])
def test_tasks_are_withdrawn_wherever_they_are(running: bool):
    world = tree_of_64(seed=4)
    tasks = world.submit_tasks([Argument(1.0, token=place) for place in range(200)])
    world.run_for(0.5)
    world.client.cancel(tasks.ids, running=running)
    world.run_until(tasks.done, limit_s=0.01 if running else 0.6)
    ends = list(tasks.errors.values())
    assert ends.count(TaskCancelled) == 200 - 64
    assert ends.count(TaskInterrupted) == (64 if running else 0)
    world.settle()


def test_a_task_that_is_withdrawn_does_not_run_again():
    world = tree_of_64(seed=5)
    terms = m.Terms(retries=5)
    tasks = world.submit_tasks([Argument(1.0)] * 64, terms_of=lambda ids: [terms for _ in ids])
    world.run_for(0.5)
    world.client.cancel(tasks.ids, running=True)
    world.run_until(tasks.done, limit_s=0.01)
    assert set(tasks.errors.values()) == {TaskInterrupted}
    world.settle()


def test_a_signal_ends_what_runs_on_the_engines_it_is_for():
    world = tree_of_64(seed=6)
    call = world.submit_to_all(run_s=1.0)
    world.run_for(0.5)
    order = world.client.order([3, 17], "signal", SIGINT)
    world.run_until(call.done)
    assert call.errors == {3: RemoteError, 17: RemoteError}
    assert order.answer == m.Executed(order.answer.request, bitset.to_wire(bitset.of_ranks([3, 17])))
    world.settle()


def test_a_signal_means_nothing_to_an_engine_that_waits():
    world = tree_of_64(seed=7)
    order = world.client.order(range(64), "signal", SIGINT)
    world.run_until(order.done)
    world.run_for(0.01)
    call = world.submit_to_all()
    world.run_until(call.done)
    assert call.errors == {}
    world.settle()


def test_a_call_is_withdrawn_though_its_scheduler_has_just_died():
    world = tree_of_64(seed=8)
    call = world.submit_to_all(run_s=HOURS_S)
    world.run_for(0.1)
    world.end(world.schedulers(1)[0])
    world.client.cancel(call.ids, running=True)
    world.run_until(call.done, limit_s=0.02)
    assert call.errors == dict.fromkeys(range(64), TaskInterrupted)
    world.settle()
