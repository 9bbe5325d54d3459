"""Waiting tasks stand in lines by what they ask for, and each stands in one."""

from __future__ import annotations

import pytest

from hiersched.core.queues import ANY, Flight, Queues, standing_of
from hiersched.kernels import bitset
from hiersched.limits import RETRIES_MAX
from hiersched.protocol import messages as m
from tests.core.transcript import ranks, task


@pytest.fixture
def queues() -> Queues:
    return Queues()


def flight(number: int, **terms: object) -> Flight:
    standing = standing_of(m.Terms(**terms)) if terms else None
    return Flight(task(number), (), b"owner", number, standing=standing)


def lines(queues: Queues) -> dict[tuple[int, int], list[int]]:
    """The tasks of each line, by (priority, allowed ranks)."""
    return {key: list(line.flights) for key, line in queues.lines.items()}


def test_terms_that_ask_for_nothing_leave_nothing():
    assert standing_of(m.Terms()) is None
    assert standing_of(m.Terms(inputs=[1], timeout_s=3.0)) is None


def test_terms_are_kept_within_bounds():
    standing = standing_of(m.Terms(ranks(2), retries=2 * RETRIES_MAX))
    assert (standing.targets, standing.allowed, standing.retries) == (0b100, 0b100, RETRIES_MAX)


def test_tasks_stand_with_those_that_ask_for_the_same(queues):
    for each in (
        flight(1),
        flight(2, targets=ranks(1)),
        flight(3, priority=1),
        flight(4, hint=2),
        flight(5, retries=1),
    ):
        queues.add(each)
    queues.add(flight(6, targets=ranks(1)))
    assert list(queues.plain.flights) == [1, 5]
    assert lines(queues) == {(0, 0b10): [2, 6], (1, ANY): [3], (0, ANY): [4]}
    assert len(queues) == 6
    assert [list(line.flights) for line in queues.able(0b1)] == [[3], [4]]


def test_a_line_without_tasks_is_gone(queues):
    only = flight(1, priority=1)
    queues.add(only)
    queues.remove(only)
    assert (len(queues), queues.lines) == (0, {})


def test_what_is_put_back_goes_before_the_others_in_its_order(queues):
    queues.add(flight(3))
    queues.put_back([flight(1), flight(2)], ANY)
    assert list(queues.plain.flights) == [1, 2, 3]


def test_what_is_put_back_leaves_out_engines_that_failed_it_while_another_lives(queues):
    failed = flight(1, retries=3)
    failed.standing.avoided = 0b01
    failed.standing.ruled_out = 0b10
    queues.put_back([failed], bitset.of_range(0, 3))
    assert failed.standing.allowed == ~0b11
    queues.remove(failed)
    queues.put_back([failed], bitset.of_range(0, 2))
    assert failed.standing.allowed == ~0b10


def test_the_stranded_are_looked_for_only_when_something_has_changed(queues):
    queues.add(flight(1, targets=ranks(1)))
    assert queues.stranded(0b11) == []
    queues.add(flight(2, targets=ranks(1)))
    assert queues.stranded(0b11) == []
    assert [each.task.id for each in queues.stranded(0b01)] == [1, 2]
    queues.add(flight(3, targets=ranks(1)))
    assert [each.task.id for each in queues.stranded(0b01)] == [3]


def test_of_two_lines_the_higher_priority_goes_on_then_the_older_task(queues):
    for each in (flight(1, hint=0), flight(2, targets=ranks(0)), flight(3, priority=1), flight(4, priority=-1)):
        queues.add(each)
    assert [line.head.task.id for line in sorted(queues.lines.values(), key=lambda line: line.rank)] == [3, 1, 2, 4]
