"""Tasks that depend on each other: every edge is honoured, on whichever engine, whatever fails or dies."""

from __future__ import annotations

from collections.abc import Sequence

import pytest

from hiersched.errors import DependencyError, DependencyTimeout, RemoteError
from hiersched.kernels import bitset
from hiersched.protocol import messages as m
from hiersched.simulation.client import TermsOf
from hiersched.simulation.cluster import Setup, World
from hiersched.simulation.payload import Argument
from hiersched.simulation.requests import Request
from tests.simulation.recorder import Recorder

ONE_HOST = Setup(slots_per_host=1_000)
NOBODY = m.Terms()


def tree_of_32(seed: int) -> World:
    return World(engines=32, fanout=4, leaf_engines=4, seed=seed, setup=ONE_HOST)


def wire(*ranks: int) -> m.Ranks:
    return bitset.to_wire(bitset.of_ranks(ranks))


def run(world: World, arguments: Sequence[Argument], terms_of: TermsOf) -> Request:
    """The outcome of these tasks; what is wrong with their order is found by the world's own checks."""
    tasks = world.submit_tasks(arguments, terms_of=terms_of)
    world.run_until(tasks.done)
    world.settle()
    return tasks


def arguments(count: int, run_s: float = 0.01, **more: object) -> list[Argument]:
    return [Argument(run_s, token=place, **more) for place in range(count)]


# --- results as arguments ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize("answer_bytes", [0, 8_192, 8_193, 1_000_000])
def test_a_chain_hands_its_results_on(answer_bytes: int):
    def terms_of(ids: Sequence[m.TaskId]) -> list[m.Terms]:
        return [m.Terms(inputs=list(ids[place - 1 : place])) if place else NOBODY for place in range(len(ids))]

    world = tree_of_32(seed=1)
    assert run(world, arguments(50, answer_bytes=answer_bytes), terms_of).errors == {}


def test_who_takes_a_large_result_runs_where_it_is():
    world = tree_of_32(seed=2)
    recorder = Recorder(world)
    tasks = run(
        world,
        arguments(64, answer_bytes=1_000_000),
        lambda ids: [NOBODY] * 32 + [m.Terms(inputs=[task]) for task in ids[:32]],
    )
    assert tasks.errors == {}
    ranks = [answer.rank for answer in tasks.results]
    assert sum(here == there for here, there in zip(ranks[:32], ranks[32:], strict=True)) > 24
    moved = [message for _, _, message in recorder.of(m.Blob) if message.digest.startswith(b"\0result")]
    assert len(moved) < 8 * world.plan.depth


def test_one_task_takes_many_results():
    world = tree_of_32(seed=3)
    tasks = run(world, arguments(200, 0.001), lambda ids: [NOBODY] * 199 + [m.Terms(inputs=list(ids[:199]))])
    assert tasks.errors == {}


def test_results_that_the_client_has_seen_long_ago_are_arguments_too():
    world = tree_of_32(seed=4)
    first = run(world, arguments(100, 0.001), lambda ids: [NOBODY] * 100)
    run(world, arguments(100, 0.001), lambda ids: [NOBODY] * 100)
    second = run(world, arguments(100, 0.001), lambda ids: [m.Terms(inputs=[task]) for task in first.ids])
    assert second.errors == {}


# --- order ------------------------------------------------------------------------------------------------------------


def test_a_grid_of_tasks_runs_row_by_row():
    width = 20

    def terms_of(ids: Sequence[m.TaskId]) -> list[m.Terms]:
        rows = [m.Dependency([ids[place - width], ids[place - width + 1]]) for place in range(width, len(ids))]
        return [NOBODY] * width + [m.Terms(after=row) for row in rows]

    assert run(tree_of_32(seed=5), arguments(400, 0.002), terms_of).errors == {}


def test_who_follows_runs_where_the_other_ran():
    world = tree_of_32(seed=6)
    tasks = run(
        world,
        arguments(64),
        lambda ids: [NOBODY] * 32 + [m.Terms(follow=m.Dependency([task])) for task in ids[:32]],
    )
    ranks = [answer.rank for answer in tasks.results]
    assert ranks[:32] == ranks[32:]


@pytest.mark.parametrize("failure", [True, False])
def test_a_failed_task_lets_on_who_waits_for_failures_and_no_other(failure: bool):
    after = m.Dependency([], success=not failure, failure=failure)
    tasks = run(
        tree_of_32(seed=7),
        [Argument(0.01, raises=wire(*range(32))), Argument(0.01, 1), Argument(0.01, 2)],
        lambda ids: [
            NOBODY,
            m.Terms(after=m.Dependency([ids[0]], success=after.success, failure=after.failure)),
            m.Terms(after=m.Dependency([ids[1]])),
        ],
    )
    expected = {0: RemoteError} if failure else {0: RemoteError, 1: DependencyError, 2: DependencyError}
    assert tasks.errors == expected


@pytest.mark.parametrize("offset", [0, 1, 1_000])
def test_what_never_was_is_not_waited_for(offset: int):
    world = tree_of_32(seed=8)
    tasks = run(world, arguments(1), lambda ids: [m.Terms(after=m.Dependency([ids[0] + offset]))])
    assert tasks.errors == {0: DependencyError}
    assert tasks.took_s < 0.01


def test_nobody_waits_longer_than_asked():
    tasks = run(
        tree_of_32(seed=9),
        [Argument(1.0), Argument(0.01, 1)],
        lambda ids: [NOBODY, m.Terms(after=m.Dependency([ids[0]]), timeout_s=0.1)],
    )
    assert tasks.errors == {1: DependencyTimeout}


# --- engines that fail ------------------------------------------------------------------------------------------------


def test_a_task_runs_on_an_engine_that_suits_it():
    unsuited = wire(*range(31))
    tasks = run(tree_of_32(seed=10), arguments(20, unmet=unsuited), lambda ids: [NOBODY] * 20)
    assert {answer.rank for answer in tasks.results} == {31}


def test_a_task_that_suits_no_engine_ends():
    tasks = run(tree_of_32(seed=11), arguments(1, unmet=wire(*range(32))), lambda ids: [NOBODY])
    assert tasks.errors == {0: DependencyError}


def test_a_task_that_fails_runs_elsewhere_while_its_retries_last():
    world = tree_of_32(seed=12)
    terms = m.Terms(retries=3)
    failing = wire(*range(0, 32, 2))
    tasks = run(world, arguments(500, 0.001, raises=failing), lambda ids: [terms] * 500)
    assert len(tasks.errors) < 100
    assert all(answer.rank % 2 for answer in tasks.results if answer is not None)


def test_engines_that_failed_a_task_are_taken_again_when_there_are_no_others():
    world = World(engines=2, seed=13, setup=ONE_HOST)
    tasks = run(world, arguments(1, raises=wire(0, 1)), lambda ids: [m.Terms(retries=7)])
    assert tasks.errors == {0: RemoteError}
    assert world.engine(0).busy_s + world.engine(1).busy_s == pytest.approx(8 * 0.01, rel=0.01)


def test_a_graph_outlives_every_scheduler():
    def terms_of(ids: Sequence[m.TaskId]) -> list[m.Terms]:
        return [m.Terms(inputs=list(ids[max(0, place - 3) : place : 2])) for place in range(len(ids))]

    world = World(engines=32, fanout=2, leaf_engines=2, seed=14, setup=ONE_HOST)
    for place, node in enumerate(world.schedulers()[1:]):
        world.end(node, at_s=0.01 * place)
    assert run(world, arguments(300, 0.005, answer_bytes=20_000), terms_of).errors == {}
