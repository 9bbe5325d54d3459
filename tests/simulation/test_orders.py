"""Engines are stopped, started again and added while others work; questions are answered meanwhile."""

from __future__ import annotations

import pytest

from hiersched.errors import EngineLost, UnknownEngine
from hiersched.kernels import bitset
from hiersched.protocol import messages as m
from hiersched.simulation.cluster import Setup, World
from hiersched.simulation.engine import SIGINT
from hiersched.simulation.payload import Argument
from hiersched.simulation.requests import Question

ONE_HOST = Setup(slots_per_host=1_000)


def tree_of_32(seed: int, *, restarts: bool = False) -> World:
    setup = Setup(slots_per_host=1_000, restarts=restarts)
    return World(engines=32, fanout=4, leaf_engines=4, seed=seed, setup=setup)


def ranks_in(question: Question) -> list[int]:
    assert isinstance(question.answer, m.Executed)
    return bitset.ranks_of(bitset.from_wire(question.answer.ranks))


def test_engines_that_are_told_to_stop_are_gone_for_good():
    world = tree_of_32(seed=1, restarts=True)
    order = world.client.order([4, 5, 20], "stop")
    world.run_until(lambda: order.done() and world.client.members.bit_count() == 29)
    assert ranks_in(order) == [4, 5, 20]
    world.run_for(1.0)
    call = world.submit([3, 4], [Argument(0.0)])
    world.run_until(call.done)
    assert call.errors == {4: UnknownEngine}
    world.settle()


def test_an_engine_that_is_started_again_has_its_old_rank():
    world = tree_of_32(seed=2)
    before, others = world.engine(7), world.submit_to_all(run_s=0.2)
    world.run_for(0.05)
    order = world.client.order([7], "restart")
    world.run_until(lambda: order.done() and others.done())
    assert others.errors == {7: EngineLost}
    world.run_until(lambda: world.client.members.bit_count() == 32)
    assert world.engine(7) is not before
    call = world.submit([7], [Argument(0.0)])
    world.run_until(call.done)
    assert call.errors == {}
    world.settle()


def test_where_engines_are_replaced_one_that_dies_comes_back():
    world = tree_of_32(seed=3, restarts=True)
    world.kill(9, at_s=0.01)
    world.run_until(lambda: world.now_s > 0.01 and 9 in world.living() and world.client.members >> 9 & 1)
    call = world.submit_to_all()
    world.run_until(call.done)
    assert call.errors == {}
    world.settle()


def test_an_engine_whose_scheduler_died_is_replaced_by_whoever_has_it_now():
    world = tree_of_32(seed=4, restarts=True)
    world.end(world.schedulers(2)[0], at_s=0.01)
    world.kill(0, at_s=0.02)
    world.run_until(lambda: world.now_s > 0.02 and 0 in world.living())
    world.settle()
    assert world.living() == list(range(32))


@pytest.mark.parametrize("engines", [1, 3, 40, 200])
def test_a_cluster_grows_at_its_end(engines: int):
    world = tree_of_32(seed=5)
    tasks = world.submit_tasks([Argument(0.01, token=place) for place in range(1_000)])
    order = world.client.grow(engines)
    world.run_until(lambda: order.done() and world.client.members.bit_count() == 32 + engines)
    assert ranks_in(order) == list(range(32, 32 + engines))
    call = world.submit_to_all(run_s=0.0)
    world.run_until(lambda: tasks.done() and call.done())
    assert call.errors == tasks.errors == {}
    assert len(call.results) == 32 + engines
    world.settle()


def test_what_was_added_is_adopted_like_the_rest():
    world = tree_of_32(seed=6)
    order = world.client.grow(200)
    world.run_until(lambda: order.done() and world.client.members.bit_count() == 232)
    call = world.submit_to_all(run_s=0.1)
    for node in world.schedulers()[1:]:
        world.end(node, at_s=world.now_s + 0.05)
    world.run_until(call.done)
    assert call.errors == {}
    world.settle()


def test_a_survey_tells_what_engines_have_to_do():
    world = tree_of_32(seed=7)
    calls = [world.submit_to_all(run_s=0.1) for _ in range(3)]
    world.run_for(0.05)
    question = world.client.survey([2, 30])
    world.run_until(question.done, limit_s=0.01)
    assert isinstance(question.answer, m.Census)
    assert [(queue.rank, queue.calls) for queue in question.answer.queues] == [(2, 3), (30, 3)]
    assert sum(level[1] for level in question.answer.levels) == len(world.schedulers())
    world.run_until(lambda: all(call.done() for call in calls))
    world.settle()


def test_why_a_task_has_not_ended_is_told():
    world = tree_of_32(seed=8)
    tasks = world.submit_tasks(
        [Argument(0.5)] * 100 + [Argument(0.0)],
        terms_of=lambda ids: [m.Terms() for _ in ids[:-1]] + [m.Terms(after=m.Dependency([ids[0]]))],
    )
    world.run_for(0.1)
    questions = [world.client.why(task) for task in (tasks.ids[0], tasks.ids[99], tasks.ids[100], tasks.ids[0] + 5_000)]
    world.run_until(lambda: all(question.done() for question in questions), limit_s=0.01)
    states = [question.answer.state for question in questions if isinstance(question.answer, m.Because)]
    assert states == ["sent", "waiting", "dependency", "unknown"]
    world.run_until(tasks.done)
    world.settle()


def test_questions_end_though_schedulers_die():
    world = tree_of_32(seed=9)
    tasks = world.submit_tasks([Argument(0.5)] * 32)
    world.run_for(0.1)
    for node in world.schedulers(1):
        world.end(node, at_s=world.now_s + 1e-4)
    client = world.client
    questions = [
        client.survey(range(32)),
        *[client.why(task) for task in tasks.ids],
        client.order([5], "signal", SIGINT),
    ]
    world.run_until(lambda: all(question.done() for question in questions), limit_s=0.1)
    world.run_until(tasks.done)
    world.settle()
