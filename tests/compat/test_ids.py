"""Old clients' ids: which request each is, and which requests are withdrawn when they name some."""

from __future__ import annotations

import pytest

from hiersched.client.pending import Pending
from hiersched.compat import ids as ids_module
from hiersched.compat.ids import OldIds


def test_a_request_is_known_until_it_ends() -> None:
    ids, pending = OldIds(), Pending(1, (0,))
    ids.enter(pending, "a")
    assert "a" in ids
    assert ids.withdrawn(["a", "never heard of"]) == [pending]
    ids.leave(pending)
    ids.leave(pending)
    assert ids.withdrawn(["a"]) == []
    assert "a" not in ids
    assert len(ids) == 0


def test_a_broadcast_is_withdrawn_when_all_of_its_parts_are() -> None:
    ids, pending = OldIds(), Pending(1, (0, 1))
    ids.enter(pending, "a_0", "a_1")
    assert ids.withdrawn(["a_0"]) == []
    assert ids.withdrawn(["a_1", "a_0"]) == [pending]
    ids.leave(pending)
    assert len(ids) == 0


def test_an_id_that_is_used_twice_harms_nobody() -> None:
    ids, first, second = OldIds(), Pending(1, (0,)), Pending(2, (0,))
    ids.enter(first, "a")
    ids.enter(second, "a")
    ids.leave(first)
    assert ids.withdrawn(["a"]) == [second]
    ids.leave(second)
    assert len(ids) == 0


def test_tasks_may_be_named_after_they_have_ended(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ids_module, "OLD_TASKS_RECALLED_MAX", 2)
    ids = OldIds()
    for number, name in enumerate("abc"):
        ids.name_task(name, number)
    assert [ids.task_of(name) for name in "abc"] == [None, 1, 2]
    assert "b" in ids
    assert "a" not in ids
