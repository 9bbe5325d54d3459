"""Processes are started, replaced within reason, told to stop, and made to."""

from __future__ import annotations

import pytest

from hiersched.core.births import Births
from hiersched.core.effects import DOORBELL, Effect, Signal, Spawn, link_of
from hiersched.core.membership import Membership
from hiersched.core.outbox import Outbox
from hiersched.core.topology import Child, children_of
from hiersched.kernels import bitset
from hiersched.limits import CHILDREN_MAX, ENGINES_MAX, RESTART_PERIOD_S, RESTARTS_MAX, STOP_TIMEOUT_S
from hiersched.protocol import messages as m
from tests.core.neighbours import engine
from tests.core.transcript import engine_child, planned, ranks, scheduler_child

SIGTERM, SIGKILL = 15, 9


class Midwife:
    """Births with their outbox. engines: how many are planned."""

    def __init__(self, engines: int = 4, *, restarts: bool = False) -> None:
        self.outbox = Outbox()
        self.births = Births(self.outbox, planned(engines), restarts=restarts)

    def does(self) -> list[Effect]:
        """What is to be done since the last look."""
        return list(self.outbox.take())

    def started(self) -> list[Child]:
        """The children that are to be started since the last look."""
        return [child for effect in self.does() if isinstance(effect, Spawn) for child in effect.children]

    def orders(self, verb: str, *those: int, now: float = 0.0, number: int = 0) -> None:
        """An order for these engines."""
        engines = [engine(Membership(), rank) for rank in those]
        self.births.carry_out(engines, m.Order(1, ranks(*those), verb, number), now)


@pytest.fixture
def midwife() -> Midwife:
    """Of four engines, which run. They are not replaced when they end."""
    midwife = Midwife()
    midwife.births.start(0, 4, 0)
    assert [child.first for child in midwife.started()] == [0, 1, 2, 3]
    return midwife


@pytest.fixture
def patient() -> Midwife:
    """Of four engines, which run and are replaced when they end."""
    midwife = Midwife(restarts=True)
    midwife.births.start(0, 4, 0)
    assert len(midwife.started()) == 4
    return midwife


# --- they end ---------------------------------------------------------------------------------------------------------


def test_an_engine_that_ends_stays_away_unless_engines_are_replaced(midwife):
    midwife.births.on_ended(b"engine-1", 0.0)
    assert (midwife.started(), midwife.births.expected) == ([], 0)


def test_an_engine_that_ends_is_replaced_if_engines_are(patient):
    patient.births.on_ended(b"engine-1", 0.0)
    successor = Child("engine", 1, 2, "here", 1, birth=1)
    assert patient.started() == [successor]
    assert patient.births.expected == 1 << 1
    patient.births.on_hello(link_of(successor))
    assert patient.births.expected == 0


def test_an_engine_that_cannot_live_is_given_up(patient):
    for birth in range(RESTARTS_MAX):
        patient.births.on_ended(link_of(engine_child(1, birth)), 0.0)
        assert len(patient.started()) == 1
    patient.births.on_ended(link_of(engine_child(1, RESTARTS_MAX)), 0.0)
    assert (patient.started(), patient.births.expected) == ([], 0)


def test_an_engine_that_ends_now_and_then_is_replaced_for_ever(patient):
    names = [b"engine-1"]
    for number in range(3 * RESTARTS_MAX):
        patient.births.on_ended(names[-1], number * (RESTART_PERIOD_S + 1) / RESTARTS_MAX)
        (another,) = patient.started()
        names.append(link_of(another))
    assert len({*names}) == len(names)


def test_the_engines_that_end_together_with_their_scheduler_are_replaced(patient):
    patient.births.adopt([scheduler_child(0, 2)])
    patient.births.on_ended(b"scheduler-1-0-2", 0.0, below=0b11)
    (spawn,) = patient.does()
    assert [link_of(child) for child in spawn.children] == [b"engine-0-1", b"engine-1-1"]
    assert patient.births.expected == 0b11


def test_those_that_a_lost_scheduler_was_replacing_are_replaced_in_any_case(midwife):
    midwife.births.adopt([scheduler_child(0, 2)])
    midwife.births.on_ended(b"scheduler-1-0-2", 0.0, below=0b01, expected=0b10)
    (spawn,) = midwife.does()
    assert [link_of(child) for child in spawn.children] == [b"engine-1-1"]
    assert midwife.births.expected == 0b10


def test_the_engines_that_end_with_a_scheduler_of_another_host_are_not(patient):
    patient.births.adopt([Child("scheduler", 0, 2, "elsewhere", 1)])
    patient.births.on_ended(b"scheduler-1-0-2", 0.0, below=0b11)
    assert patient.started() == []


def test_nobody_is_started_in_the_place_of_a_stranger(patient):
    patient.births.on_ended(b"stranger", 0.0)
    assert patient.started() == []


def test_an_engine_that_was_adopted_is_replaced(patient):
    patient.births.adopt([engine_child(9)])
    patient.births.on_ended(b"engine-9", 0.0)
    assert patient.started() == [engine_child(9, 1)]


# --- orders -----------------------------------------------------------------------------------------------------------


def test_an_engine_that_was_told_to_stop_is_not_replaced(patient):
    patient.orders("stop", 1)
    assert patient.does() == [Signal([b"engine-1"], SIGTERM)]
    patient.births.on_ended(b"engine-1", 1.0)
    assert patient.started() == []
    patient.births.kill_late(100.0)
    assert patient.does() == []


def test_an_engine_that_was_told_to_restart_is_replaced_once(midwife):
    midwife.orders("restart", 1)
    assert midwife.does() == [Signal([b"engine-1"], SIGTERM)]
    midwife.births.on_ended(b"engine-1", 1.0)
    assert len(midwife.started()) == 1
    midwife.births.on_ended(b"engine-1", 2.0)
    assert midwife.started() == []


def test_the_last_order_counts(midwife):
    midwife.orders("restart", 1)
    midwife.orders("stop", 1)
    midwife.does()
    midwife.births.on_ended(b"engine-1", 1.0)
    assert midwife.started() == []


def test_who_does_not_stop_in_time_is_killed_once(midwife):
    midwife.orders("stop", 1, 2, now=10.0)
    midwife.does()
    assert midwife.births.ends_s == 10.0 + STOP_TIMEOUT_S
    midwife.births.on_ended(b"engine-2", 11.0)
    midwife.births.kill_late(10.0 + STOP_TIMEOUT_S)
    assert midwife.does() == [Signal([b"engine-1"], SIGKILL)]
    assert midwife.births.ends_s == float("inf")
    midwife.births.kill_late(100.0)
    assert midwife.does() == []


def test_an_order_about_somebody_elses_engine_leaves_nothing_behind(midwife):
    midwife.orders("restart", 9)
    assert len(midwife.does()) == 1
    midwife.births.on_ended(b"engine-9", 1.0)
    midwife.births.kill_late(100.0)
    assert midwife.does() == []


def test_signals_are_passed_on_but_for_the_doorbell(midwife):
    midwife.orders("signal", 1, 3, number=2)
    midwife.orders("signal", 1, number=DOORBELL)
    assert midwife.does() == [Signal([b"engine-1", b"engine-3"], 2)]


# --- growth -----------------------------------------------------------------------------------------------------------


def test_a_few_more_engines_are_children_of_the_root(midwife):
    assert midwife.births.grow(4, 2) == 2
    (spawn,) = midwife.does()
    assert [link_of(child) for child in spawn.children] == [b"engine-4", b"engine-5"]
    assert (spawn.plan.first_ranks, spawn.plan.engines) == ((4, 6), 2)


@pytest.mark.parametrize("engines", [62, 64, 100, 1000])
def test_many_more_engines_have_schedulers_of_their_own(midwife, engines):
    assert midwife.births.grow(4, engines) == engines
    (spawn,) = midwife.does()
    assert {child.kind for child in spawn.children} == {"scheduler"}
    assert (spawn.children[0].first, spawn.children[-1].last) == (4, 4 + engines)
    assert spawn.children == children_of(spawn.plan, 4, 4 + engines, level=0)


def test_an_engine_that_was_added_is_replaced_too(patient):
    patient.births.grow(4, 100)
    scheduler = patient.started()[0]
    below = bitset.of_range(scheduler.first, scheduler.last)
    patient.births.on_ended(link_of(scheduler), 0.0, below=below & 0b11110000)
    assert [link_of(child) for child in patient.started()] == [b"engine-%d-1" % rank for rank in range(4, 8)]


def test_there_is_room_for_so_many_engines_and_no_more(midwife):
    assert midwife.births.grow(4, ENGINES_MAX - 3) == 0
    assert midwife.does() == []


def test_there_is_room_for_so_many_children_and_no_more(midwife):
    midwife.births.adopt([engine_child(rank) for rank in range(4, CHILDREN_MAX - 1)])
    first = CHILDREN_MAX - 1
    assert midwife.births.grow(first, 1) == 1
    assert midwife.births.grow(first + 1, 1) == 0
    assert len(midwife.started()) == 1
    midwife.births.on_ended(b"engine-0", 0.0)
    assert midwife.births.grow(first + 1, 1) == 1
