"""What is explained and what is not."""

from __future__ import annotations

import pytest

from hiersched.errors import AnswerLost, BlobLost, EngineLost, RemoteError, TaskCancelled, UnknownEngine
from hiersched.protocol import messages as m
from hiersched.simulation.cluster import World
from hiersched.simulation.payload import Argument
from hiersched.simulation.requests import Outcome, Request, TaskEnd
from hiersched.simulation.verdicts import Events, unexplained

CALM = Events(calm=True)


def ended(world: World, outcome: Outcome, *, raises: m.Ranks = (0, b"")) -> Request:
    """A call on engine 1 that has ended like this."""
    request = Request([1], [Argument(0.0, raises=raises)])
    request.begin([77], 0.0)
    request.settle(0, outcome, 1.0)
    return request


@pytest.fixture(scope="module")
def world() -> World:
    return World(engines=2)


@pytest.mark.parametrize("error", [EngineLost, UnknownEngine, RemoteError, TaskCancelled, BlobLost, AnswerLost])
def test_in_calm_weather_no_error_is_explained(world: World, error: Outcome):
    assert list(unexplained(world.client, [ended(world, error)], CALM))


@pytest.mark.parametrize(
    ("error", "events"),
    [
        (EngineLost, Events(lost=0b10)),
        (UnknownEngine, Events(lost=0b10)),
        (AnswerLost, Events(lost=0b10)),
        (RemoteError, Events(interrupted=True)),
        (BlobLost, Events(left=True)),
    ],
)
def test_what_happened_explains_errors(world: World, error: Outcome, events: Events):
    assert not list(unexplained(world.client, [ended(world, error)], events))


def test_another_engines_death_explains_nothing(world: World):
    assert list(unexplained(world.client, [ended(world, EngineLost)], Events(lost=0b01)))


def test_code_raises_where_it_was_told_to(world: World):
    assert not list(unexplained(world.client, [ended(world, RemoteError, raises=(0, b"\2"))], CALM))
    assert list(unexplained(world.client, [ended(world, RemoteError, raises=(0, b"\1"))], CALM))


def test_only_what_was_cancelled_is_cancelled(world: World):
    world.client.withdrawn.add(77)
    assert not list(unexplained(world.client, [ended(world, TaskCancelled)], CALM))
    world.client.withdrawn.clear()


@pytest.mark.parametrize(
    ("code", "of_other", "terms", "fine"),
    [
        (0, 0, m.Terms(after=m.Dependency([1])), True),
        (0, m.RAISED, m.Terms(after=m.Dependency([1])), False),
        (0, m.RAISED, m.Terms(after=m.Dependency([1], failure=True)), True),
        (m.DEPENDENCY, m.RAISED, m.Terms(after=m.Dependency([1])), True),
        (m.DEPENDENCY, 0, m.Terms(after=m.Dependency([1])), False),
        (m.DEPENDENCY, 0, m.Terms(after=m.Dependency([1], success=False)), True),
        (m.DEPENDENCY, 0, m.Terms(inputs=[3]), True),
        (0, m.RAISED, m.Terms(inputs=[1]), False),
        (m.TIMED_OUT, 0, m.Terms(after=m.Dependency([1])), False),
    ],
)
def test_a_task_ran_if_those_it_depends_on_ended_as_asked(code: int, of_other: int, terms: m.Terms, fine: bool):
    client = World(engines=2).client
    client.ends = {1: TaskEnd(of_other, 0, b""), 2: TaskEnd(code, 0, b"")}
    client.terms = {2: terms}
    assert (not list(unexplained(client, [], CALM))) == fine
