"""An engine waits for what it lacks, and knows what it takes."""

from __future__ import annotations

import pytest

from hiersched.errors import Bug
from hiersched.limits import BLOB_ENGINE_BYTES_MAX
from hiersched.protocol import messages as m
from hiersched.simulation.holdings import Holdings
from hiersched.simulation.payload import Answer, Argument, Bulk, digest_of, pack_answer

ONE, TWO = digest_of(1), digest_of(2)
TASK = m.Task(9, ONE, [], b"", 0)


def test_it_waits_until_all_has_come():
    holdings = Holdings()
    assert holdings.want([ONE, TWO]) == [ONE, TWO]
    holdings.put(ONE, b"1")
    assert holdings.awaited == {TWO}
    holdings.put(TWO, b"2")
    assert not holdings.awaited
    assert not holdings.end_wait()
    assert holdings.want([ONE, TWO]) == []


def test_what_nobody_has_is_not_waited_for():
    holdings = Holdings()
    holdings.want([ONE, TWO])
    holdings.miss([TWO])
    assert not holdings.awaited
    assert holdings.end_wait()


def test_what_is_missing_for_others_does_not_matter():
    holdings = Holdings()
    holdings.want([ONE])
    holdings.miss([TWO])
    assert holdings.awaited == {ONE}


def test_results_are_given_or_are_held_here():
    small, large = pack_answer(Answer(5, 0, 0), 0), pack_answer(Answer(6, 0, 0), 20_000)
    holdings = Holdings()
    holdings.hold_result(6, large)
    task = m.Task(9, ONE, [m.result_digest(6)], b"", 0, None, [(5, small)])
    holdings.check_inputs(task, Argument(0.0, inputs=(5, 6)))


@pytest.mark.parametrize(
    ("given", "complaint"),
    [
        ([], "without the result"),
        ([(5, pack_answer(Answer(6, 0, 0), 0))], "is given"),
        ([(5, pack_answer(Answer(5, 0, 0, failed=True), 0))], "is given"),
    ],
)
def test_a_result_that_is_not_here_or_another_or_no_success_is_a_bug(given: list[tuple[int, bytes]], complaint: str):
    task = m.Task(9, ONE, [], b"", 0, None, given)
    with pytest.raises(Bug, match=complaint):
        Holdings().check_inputs(task, Argument(0.0, inputs=(5,)))


def test_what_the_work_at_hand_needs_stays_even_if_it_is_more_than_there_is_room_for():
    holdings = Holdings()
    frames = {task: Bulk(BLOB_ENGINE_BYTES_MAX // 2 + 1, pack_answer(Answer(task, 0, 0), 0)) for task in (5, 6, 7)}
    holdings.want([m.result_digest(task) for task in frames])
    for task, frame in frames.items():
        holdings.put(m.result_digest(task), frame)
    holdings.check_inputs(TASK, Argument(0.0, inputs=(5, 6, 7)))
