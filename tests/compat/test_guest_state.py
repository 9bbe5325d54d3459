"""Which engines there are is kept in ipyparallel's own format."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from hiersched.compat.guest_state import GuestState
from hiersched.errors import ConnectionFileError


def test_what_was_written_is_read_and_gone_when_removed(tmp_path: Path) -> None:
    state = GuestState(str(tmp_path / "engines.json"))
    assert state.read() == {}
    state.write({3: "c", 0: "a"})
    assert state.read() == {3: "c", 0: "a"}
    assert [path.name for path in tmp_path.iterdir()] == ["engines.json"]
    state.remove()
    state.remove()
    assert (state.read(), list(tmp_path.iterdir())) == ({}, [])


def test_the_file_is_one_of_ipyparallels_hub(tmp_path: Path) -> None:
    path = tmp_path / "engines.json"
    GuestState(str(path)).write({3: "c"})
    assert json.loads(path.read_text()) == {"engines": {"3": "c"}, "next_id": 4}


def test_without_a_path_nothing_is_kept() -> None:
    state = GuestState("")
    state.write({3: "c"})
    state.remove()
    assert state.read() == {}


@pytest.mark.parametrize("text", ["", "[]", '{"engines": {"x": "c"}, "next_id": 1}', '{"engines": {"1": 2}}'])
def test_a_file_that_is_no_such_is_refused(text: str, tmp_path: Path) -> None:
    path = tmp_path / "engines.json"
    path.write_text(text)
    with pytest.raises(ConnectionFileError, match=r"engines\.json"):
        GuestState(str(path)).read()
