"""Requests are found while they are open or held, and leave next to nothing behind."""

from __future__ import annotations

import tracemalloc

import pytest

from hiersched.client import requests
from hiersched.client.losses import NOWHERE
from hiersched.client.orders import Explanation
from hiersched.client.pending import Pending
from hiersched.client.requests import Requests
from hiersched.data.outcomes import lost_outcome, pack_outcome_value, unpack_outcome
from hiersched.errors import EngineLost, ResultDropped, TaskCancelled, UnknownTask
from hiersched.protocol.messages import NO_RANK, SESSION_SHIFT

SESSION = 7


@pytest.fixture
def table() -> Requests:
    table = Requests()
    table.ledger.begin(SESSION, 1)
    return table


def begun(table: Requests, number: int) -> Pending:
    pending = Pending(SESSION << SESSION_SHIFT | number, ())
    table.open[pending.id] = pending
    return pending


def ended(table: Requests, number: int, *, ok: bool = True) -> Pending:
    pending = begun(table, number)
    value = pack_outcome_value(number, started=1.0, ended=2.0)
    pending.settle(3, unpack_outcome(value.whole) if ok else lost_outcome(EngineLost("it is gone")))
    table.end(pending)
    return pending


def test_what_is_held_is_found(table):
    opened, done = begun(table, 1), ended(table, 2)
    assert table.get(opened.id) is opened
    assert table.get(done.id) is done
    assert table.history() == [opened.id, done.id]


@pytest.mark.parametrize(("ok", "how"), [(True, "succeeded"), (False, "failed")])
def test_what_nobody_holds_is_gone_and_how_it_ended_is_known(table, ok, how):
    request = ended(table, 1, ok=ok).id
    with pytest.raises(ResultDropped, match=f"call 7-1 has {how} on engine 3, and its result is gone"):
        table.get(request)
    assert table.explain(request).text == f"call 7-1 has {how} on engine 3"
    with pytest.raises(UnknownTask, match="there is no call 7-2"):
        table.get(request + 1)


def test_what_ended_nowhere_says_no_engine(table):
    request = begun(table, 1).id
    table.open[request].settle(NOWHERE, lost_outcome(TaskCancelled("cancelled before it was sent")))
    table.end(table.open[request])
    assert table.explain(request) == Explanation("done", "call 7-1 has failed")
    assert table.ledger.end_of(request) == (False, NO_RANK)


def test_what_came_for_a_session_that_was_joined_is_held_until_it_is_forgotten(table):
    request = begun(table, 1).id
    table.kept[request] = table.open[request]
    table.open[request].settle(3, lost_outcome(EngineLost("it is gone")))
    table.end(table.open[request])
    assert table.get(request).failed
    table.forget([request])
    with pytest.raises(ResultDropped):
        table.get(request)


def test_an_ended_request_leaves_some_bytes(table, monkeypatch):
    monkeypatch.setattr(requests, "_PRUNE_MIN", 100)
    table._prune_at = 100
    tracemalloc.start()
    before, _ = tracemalloc.get_traced_memory()
    for number in range(1, 5_001):
        ended(table, number)
    after, _ = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert (after - before) / 5_000 < 20
    assert len(table._ended) <= 100
