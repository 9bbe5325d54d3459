"""A condition is met, or can be met no more, and gathers for its task what the others made."""

from __future__ import annotations

import pytest

from hiersched.core.conditions import AFTER, FOLLOW, INPUT, SEEN_TO_FAIL, Blocked, Condition, conditions_of, depends
from hiersched.core.queues import ANY
from hiersched.protocol import messages as m
from tests.core.transcript import ranks, task


def blocked(**terms: object) -> Blocked:
    waiting = Blocked(task(9), (), m.Terms(**terms))
    waiting.conditions = conditions_of(waiting)
    waiting.open = len(waiting.conditions)
    return waiting


def ended(number: int, code: int = 0, *, rank: int = 0, payload: bytes = b"value") -> m.Result:
    return m.Result(number, rank, 1, code, payload, 0)


def test_a_task_has_a_condition_for_each_thing_that_it_asks_for():
    waiting = blocked(inputs=[1], after=m.Dependency([2]), follow=m.Dependency([3]))
    assert [condition.kind for condition in waiting.conditions] == [INPUT, AFTER, FOLLOW]
    assert blocked(after=m.Dependency([])).conditions == []


def test_only_what_names_other_tasks_depends_on_them():
    assert not depends(m.Terms(priority=1, timeout_s=3.0))
    for terms in (m.Terms(inputs=[1]), m.Terms(after=m.Dependency([1])), m.Terms(follow=m.Dependency([1]))):
        assert depends(terms)


@pytest.mark.parametrize(
    ("kind", "how", "text"),
    [
        (INPUT, {}, "task 0-2 raised an error, and this task takes its result"),
        (AFTER, {}, "task 0-2 raised an error, and this task waits for it to succeed"),
        (FOLLOW, {}, "task 0-2 raised an error, and this task has to run where it succeeded"),
        (AFTER, {"all": False}, "tasks 0-1 and 0-2 have ended, and this task waits for one of them to succeed"),
        (FOLLOW, {"all": False}, "tasks 0-1 and 0-2 have ended, and this task has to run where one of them succeeded"),
    ],
)
def test_it_says_why_it_can_be_met_no_more(kind, how, text):
    waiting = blocked()
    condition = Condition(waiting, kind, m.Dependency([1, 2], **how))
    condition.hear(ended(1, m.RAISED), 0) if how else condition.hear(ended(1), 0)
    assert condition.hear(ended(2, m.RAISED), 0) == text


def test_the_ranks_to_follow_are_those_where_the_others_ran():
    waiting = blocked(follow=m.Dependency([1, 2], all=False, failure=True))
    (condition,) = waiting.conditions
    assert condition.hear(ended(1, m.CANCELLED, rank=3), 0) is None
    assert (waiting.open, waiting.follows) == (1, 0)
    assert condition.hear(ended(2, SEEN_TO_FAIL, rank=4), 0) is None
    assert (waiting.open, waiting.follows) == (0, 0b10000)


@pytest.mark.parametrize("rank", [-1, 1 << 62])
def test_a_rank_that_cannot_be_is_no_place_to_follow_to(rank):
    (condition,) = blocked(follow=m.Dependency([1])).conditions
    assert condition.hear(ended(1, rank=rank), 0) is not None


def test_a_released_task_keeps_of_its_terms_what_others_need_to_know():
    waiting = blocked(after=m.Dependency([1]), targets=ranks(1, 2), priority=3, retries=4, timeout_s=5.0)
    assert waiting.released(ANY).terms == m.Terms(ranks(1, 2), -1, 3, 4)
    assert waiting.released(0b1010).terms == m.Terms(ranks(1), -1, 3, 4)
    assert waiting.released(0b1000) is None
    assert blocked(after=m.Dependency([1])).released(ANY).terms is None


def test_a_hint_of_the_user_is_not_replaced():
    waiting = blocked(inputs=[1], hint=5)
    waiting.take_result(ended(1, rank=2, payload=b""), 1_000_000)
    released = waiting.released(ANY)
    assert (released.terms.hint, released.needs) == (5, [m.result_digest(1)])
