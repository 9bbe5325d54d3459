"""A task that fails runs again while it may, elsewhere if it can, and never for ever."""

from __future__ import annotations

import pytest

from hiersched.limits import RETRIES_MAX
from hiersched.protocol import messages as m
from tests.core.transcript import ranks, task
from tests.core.work_transcript import WorkTranscript, asking


@pytest.fixture
def root() -> WorkTranscript:
    return WorkTranscript()


def test_a_task_that_raised_runs_again_on_another_engine(root):
    root.engines(0, 1)
    root.gets(asking(1, retries=1))
    assert root.hands_out() == {0: [1]}
    root.ends(1, rank=0, code=m.RAISED)
    assert root.hands_out() == {1: [1]}
    root.ends(1, rank=1)
    assert root.tells() == [(1, 0, "value")]


def test_an_answer_to_an_earlier_try_is_late(root):
    (child,) = root.engines(0)
    root.gets(asking(1, retries=1))
    root.hands_out()
    root.ends(1, code=m.RAISED)
    assert [again.attempt for again in root.gives()] == [1]
    root.work.on_results(child, m.Results([m.Result(1, 0, 1, 0, b"of the first try", 0)]), ())
    assert root.tells() == []
    root.ends(1)
    assert root.tells() == [(1, 0, "value")]


def test_without_retries_left_its_error_is_the_answer_with_all_its_frames(root):
    root.engines(0)
    root.gets(asking(1, retries=1), task(2))
    root.hands_out()
    root.ends(1, code=m.RAISED, payload=b"first")
    assert root.hands_out() == {0: [1]}
    root.ends(1, code=m.RAISED, payload=b"second", frames=[b"frame"])
    assert root.tells() == [(1, m.RAISED, "second")]
    assert root.told_frames == [b"frame"]


def test_the_only_engine_is_taken_again_and_again(root):
    root.engines(0)
    root.gets(asking(1, retries=3))
    for _ in range(4):
        assert root.hands_out() == {0: [1]}
        root.ends(1, code=m.RAISED)
    assert root.codes() == {1: m.RAISED}


def test_retries_have_a_bound(root):
    root.engines(0)
    root.gets(asking(1, retries=RETRIES_MAX + 5))
    runs = 0
    while root.hands_out():
        runs += 1
        root.ends(1, code=m.RAISED)
    assert runs == RETRIES_MAX + 1


@pytest.mark.parametrize("code", [m.BLOB_LOST, m.CANCELLED, m.REFUSED, m.INTERRUPTED])
def test_what_was_withdrawn_or_lacks_its_data_is_not_tried_again(root, code):
    root.engines(0, 1)
    root.gets(asking(1, retries=3))
    root.hands_out()
    root.ends(1, code=code, payload=b"why")
    assert root.tells() == [(1, code, "why")]


def test_a_lost_engine_costs_a_retry(root):
    first, _ = root.engines(0, 1)
    root.gets(asking(1, retries=1), task(2), task(3))
    assert root.hands_out() == {0: [1], 1: [2]}
    root.loses(first)
    root.ends(2, rank=1)
    assert root.hands_out() == {1: [1]}  # it is older than task 3
    root.ends(1, rank=1, code=m.ENGINE_LOST)
    assert root.codes() == {2: 0, 1: m.ENGINE_LOST}


def test_a_task_that_failed_ends_as_it_failed_when_no_engine_is_left(root):
    (only,) = root.engines(0)
    root.gets(asking(1, retries=5), task(2))
    root.hands_out()
    root.ends(1, code=m.RAISED, payload=b"its error", frames=[b"frame"])
    root.membership.remove_child(only.link)
    assert root.tells() == [(1, m.RAISED, "its error"), (2, m.ENGINE_UNKNOWN, "no engine is left")]
    assert root.told_frames == [b"frame"]


def test_it_waits_for_an_engine_that_is_being_replaced(root):
    (only,) = root.engines(0)
    root.gets(asking(1, retries=1))
    root.hands_out()
    root.loses(only)
    root.work.expected = 0b1
    assert root.tells() == []
    assert root.work.why(1) == ("waiting", "no engine that it may run on is there; engine 0 will be", 0b1, None)
    root.engines(0)
    root.work.expected = 0
    assert root.hands_out() == {0: [1]}


def test_an_engine_that_lacks_something_is_ruled_out_at_no_cost(root):
    root.engines(0, 1, 2)
    root.gets(task(1))
    assert root.hands_out() == {0: [1]}
    root.ends(1, rank=0, code=m.UNMET, payload=b"no numpy")
    assert root.hands_out() == {1: [1]}
    root.ends(1, rank=1, code=m.UNMET, payload=b"no numpy")
    assert root.hands_out() == {2: [1]}
    root.ends(1, rank=2)
    assert root.tells() == [(1, 0, "value")]


def test_when_all_engines_lack_it_the_task_ends_and_names_them(root):
    root.engines(0, 1, 2)
    root.gets(asking(1, targets=ranks(0, 2)))
    for rank in (0, 2):
        assert root.hands_out() == {rank: [1]}
        root.ends(1, rank=rank, code=m.UNMET, payload=b"no numpy")
    assert root.tells() == [
        (1, m.DEPENDENCY, "no engine that it may run on has what it depends on; engines 0, 2 lacked it: no numpy")
    ]


def test_it_waits_for_a_busy_engine_that_may_have_it(root):
    root.engines(0, 1)
    root.gets(task(1), task(2))
    root.hands_out()
    root.ends(1, rank=0, code=m.UNMET)
    assert root.hands_out() == {}
    root.ends(2, rank=1)
    assert root.hands_out() == {1: [1]}


def test_below_the_root_failures_are_passed_on():
    leaf = WorkTranscript(is_root=False)
    leaf.engines(0, 1)
    leaf.gets(asking(1, retries=3), asking(2, retries=3))
    leaf.hands_out()
    leaf.ends(1, rank=0, code=m.RAISED)
    leaf.ends(2, rank=1, code=m.UNMET)
    assert leaf.codes() == {1: m.RAISED, 2: m.UNMET}


def test_a_scheduler_is_told_which_of_its_engines_to_take(root):
    root.scheduler(0, 4)
    root.gets(asking(1, retries=3, priority=2, hint=2))
    (sent,) = root.gives()
    assert sent.terms == m.Terms(hint=2, priority=2)
    root.ends(1, rank=2, code=m.RAISED)
    (sent,) = root.gives()
    assert sent.terms == m.Terms(ranks(0, 1, 3), 2, 2)


def test_what_a_scheduler_cannot_run_any_more_runs_elsewhere(root):
    low = root.scheduler(0, 2)
    root.engines(5)
    root.gets(asking(1, targets=ranks(0, 5)))
    assert root.hands_out() == {0: [1]}
    root.membership.change(low, 0, 0b1)
    root.ends(1, code=m.ENGINE_UNKNOWN)
    assert root.hands_out() == {5: [1]}
    root.ends(1, rank=5)
    assert root.codes() == {1: 0}


def test_targets_that_are_not_there_are_named(root):
    root.engines(0)
    root.gets(asking(1, targets=ranks(3, 4, 5, 9)), asking(2, targets=ranks(0, 7)), asking(3, targets=ranks(8)))
    assert root.hands_out() == {0: [2]}
    assert root.tells() == [
        (1, m.ENGINE_UNKNOWN, "it may run on engines 3-5, 9 only, and none of these is there"),
        (3, m.ENGINE_UNKNOWN, "it may run on engine 8 only, and none of these is there"),
    ]


# --- withdrawn while it ran -------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("code", "ends_as"),
    [
        (0, 0),
        (m.RAISED, m.RAISED),
        (m.INTERRUPTED, m.INTERRUPTED),
        (m.UNMET, m.CANCELLED),
        (m.ENGINE_UNKNOWN, m.CANCELLED),
    ],
)
def test_a_withdrawn_task_never_starts_again(root, code, ends_as):
    root.engines(0, 1)
    root.gets(asking(1, retries=3))
    root.hands_out()
    root.cancels(1, running=True)
    assert root.says() == [(b"engine-0", m.Cancel([1], running=True))]
    root.ends(1, rank=0, code=code)
    assert root.codes() == {1: ends_as}


def test_a_withdrawn_task_is_lost_with_its_engine(root):
    first, _ = root.engines(0, 1)
    root.gets(asking(1, retries=3))
    root.hands_out()
    root.cancels(1)
    root.says()
    root.loses(first)
    assert root.codes() == {1: m.ENGINE_LOST}
