"""A log knows what is open exactly, and of what was made the last."""

from __future__ import annotations

import pytest

from hiersched.client.call_log import CallLog
from hiersched.client.pending import Pending
from hiersched.data.outcomes import lost_outcome
from hiersched.errors import TaskCancelled
from hiersched.limits import CALLS_RECALLED_MAX


def end(pending: Pending, rank: int) -> None:
    pending.settle(rank, lost_outcome(TaskCancelled("ended")))
    pending.tell()


def test_calls_are_open_until_they_end():
    log = CallLog()
    task, call = log.note(Pending(1, ())), log.note(Pending(2, (0, 1)))
    assert log.open_ids() == {"0-1", "0-2:0", "0-2:1"}
    end(task, 3)
    end(call, 1)
    assert log.open_ids() == {"0-2:0"}
    end(call, 0)
    assert log.open_ids() == set()
    assert not log.open
    assert log.ids() == ["0-1", "0-2"]


def test_a_call_that_ended_before_it_was_noted_is_not_open():
    pending = Pending(1, (0,))
    end(pending, 0)
    log = CallLog()
    log.note(pending)
    assert (log.ids(), log.open_ids()) == (["0-1"], set())


def test_calls_are_found_by_their_place():
    log = CallLog()
    for request in (5, 6, 7):
        log.note(Pending(request, (0, 1)))
    assert [log.id_at(-1), log.id_at(0)] == ["0-7", "0-5"]
    for place in (3, -4):
        with pytest.raises(IndexError, match=f"no call {place}: this view has 3 calls: "):
            log.id_at(place)


def test_calls_can_be_forgotten():
    log = CallLog()
    for request in (5, 6, 7, 8):
        log.note(Pending(request, (0, 1)))
    log.forget(["0-6:1", "0-8"])
    assert log.ids() == ["0-5", "0-7"]
    log.forget_all()
    assert log.ids() == []
    assert len(log.open) == 4


def test_only_the_last_are_remembered():
    log = CallLog()
    for request in range(CALLS_RECALLED_MAX + 3):
        end(log.note(Pending(request, (0,))), 0)
    assert len(log.ids()) == CALLS_RECALLED_MAX
    assert log.ids()[0] == "0-3"
    assert not log.open
