"""A load-balanced call runs on one engine, whichever is free."""

from __future__ import annotations

import pytest

from hiersched.errors import RemoteError


def test_apply_gives_one_result(balanced):
    assert balanced.apply_sync(abs, -3) == 3
    assert balanced.apply_async(abs, -3).get() == 3
    assert balanced.apply(abs, -3).get() == 3
    balanced.block = True
    assert balanced.apply(abs, -3) == 3


def test_where_a_call_ran_is_known_when_it_has(session, balanced):
    result = balanced.apply_async(abs, -3)
    assert result.engine_id is None
    result.wait()
    assert result.engine_id in range(4)
    assert result.get_dict() == {result.engine_id: 3}


def test_calls_go_round(session, balanced):
    results = [balanced.apply_async(abs, -3) for _ in range(4)]
    session.run_all()
    assert {result.engine_id for result in results} == {0, 1, 2, 3}


def test_an_error_is_raised_itself(balanced):
    with pytest.raises(RemoteError, match="ZeroDivisionError"):
        balanced.apply_sync(divmod, 1, 0)
    with pytest.raises(RemoteError, match="ZeroDivisionError"):
        balanced.apply_async(divmod, 1, 0).get()


def test_a_late_call_says_that_it_still_runs(session, balanced):
    session.hold(0, 1, 2, 3)
    with pytest.raises(TimeoutError, match=r"abs: no answer within 0\.1 s; it still runs"):
        balanced.apply_async(abs, -3).get(timeout=0.1)


def test_a_view_describes_itself(balanced):
    assert repr(balanced) == "<LoadBalancedView of 4 engines>"
    assert len(balanced) == 4


def test_a_view_has_an_executor(balanced):
    with balanced.executor as executor:
        assert executor.submit(abs, -3).result() == 3
