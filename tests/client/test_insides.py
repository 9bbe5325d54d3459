"""Code that reaches into ipyparallel's client finds what it looks for."""

from __future__ import annotations

import pytest

from hiersched.client.client import Client
from hiersched.client.results import AsyncResult
from hiersched.errors import UnknownEngine
from tests.client.fake_root import packed
from tests.patience import DEADLINE_S


def test_the_ids_are_the_callers_to_change(rc: Client):
    rc._ids.clear()
    assert rc._ids == rc.ids == [0, 1, 2, 3]


def test_engines_have_names(rc: Client):
    assert rc._engines == {rank: f"engine-{rank}" for rank in range(4)}
    assert rc._build_targets([2, 3]) == ([b"engine-2", b"engine-3"], [2, 3])
    assert rc._build_targets(None)[1] == rc.ids
    with pytest.raises(UnknownEngine):
        rc._build_targets(9)


def test_what_engines_owe_is_listed_by_engine(rc: Client, root):
    call = AsyncResult(rc.session, rc.session.call((0, 2), packed()), name="abs")
    first, second = call.msg_ids
    assert rc._outstanding_dict == {"engine-0": {first}, "engine-1": set(), "engine-2": {second}, "engine-3": set()}
    root.answer(call.requests()[0].id, {2: "two"})
    rc.session.wait_for_parts(call.requests(), lambda: call.progress == 1, DEADLINE_S)
    assert rc._outstanding_dict["engine-2"] == set()


def test_arguments_were_copied_when_the_call_was_made(rc: Client):
    call = AsyncResult(rc.session, rc.session.call((0,), packed()), name="abs")
    assert call._tracker.done
    assert call._sent_event.is_set()
