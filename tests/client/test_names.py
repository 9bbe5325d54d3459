"""Ids that people can read, and that lead back to what they name."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from hiersched.client.names import calls_text, engine_of, is_name, name_of, part_ids, request_of
from hiersched.errors import UnknownTask
from hiersched.protocol.messages import SESSION_SHIFT


def test_an_id_has_the_session_and_the_number():
    assert name_of(7 << SESSION_SHIFT | 42) == "7-42"


@given(st.integers(0, 2**63), st.lists(st.integers(0, 10**6), min_size=1, max_size=4, unique=True))
def test_every_id_leads_back_to_what_it_names(request_id, targets):
    assert request_of(name_of(request_id)) == request_id
    assert engine_of(name_of(request_id)) is None
    parts = part_ids(request_id, tuple(targets))
    assert {request_of(part) for part in parts} == {request_id}
    assert [engine_of(part) for part in parts] == (targets if len(targets) > 1 else [None])


@pytest.mark.parametrize("name", ["", "7", "7-", "7-42:", "7-42:x", "7-42:3:4", "invalid"])
def test_what_is_no_id_is_said_to_be_none(name):
    with pytest.raises(UnknownTask, match="is no id of a call or task"):
        request_of(name)
    assert not is_name(name)


def test_of_many_calls_the_latest_are_named():
    assert calls_text([]) == "this session has no calls yet"
    assert calls_text(["7-1"], "this view") == "this view has 1 call: 7-1"
    assert calls_text([f"7-{n}" for n in range(1, 31)]) == (
        "this session has 30 calls, the latest: 7-23, 7-24, 7-25, 7-26, 7-27, 7-28, 7-29, 7-30"
    )
