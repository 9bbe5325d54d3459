"""Output is shown as it comes: all of it, once, under the engines that it is of."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from hiersched.client.results import AsyncResult
from hiersched.client.session import Session
from hiersched.data.cells import CellReply
from hiersched.data.outputs import Text
from tests.client.fake_root import FakeRoot, packed, session_with
from tests.patience import DEADLINE_S


@pytest.fixture
def session(root: FakeRoot) -> Iterator[Session]:
    with session_with(root) as session:
        yield session


def result_of(session: Session, *ranks: int, single: bool = False) -> AsyncResult:
    return AsyncResult(session, session.call(ranks, packed()), name="abs", single=single)


def test_output_is_shown_while_the_code_runs(session, root, capsys):
    result = result_of(session, 0, 1)
    (pending,) = result.requests()
    with result.stream_output():
        root.print_text(pending.id, [0, 1], "both\n")
        root.print_text(pending.id, [1], "one\n")
        result.wait(0.01)
        assert capsys.readouterr().out == "[stdout:0-1]\nboth\n[stdout:1]\none\n"
        root.answer(pending.id, {0: None, 1: None}, printed="last\n")
        result.wait(DEADLINE_S)
    assert capsys.readouterr().out == "[stdout:0-1]\nlast\n"
    assert pending.listeners == ()


def test_what_came_before_is_shown_first(session, root, capsys):
    result = result_of(session, 0, 1)
    (pending,) = result.requests()
    root.print_text(pending.id, [1], "before\n")
    result.wait(0.01)
    with result.stream_output():
        assert capsys.readouterr().out == "[stdout:1]\nbefore\n"
    root.print_text(pending.id, [1], "after\n")
    result.wait(0.01)
    assert capsys.readouterr().out == ""
    assert result.stdout == ["", "before\nafter\n"]


def test_a_single_engine_is_not_named(session, root, capsys):
    result = result_of(session, 3, single=True)
    with result.stream_output():
        root.print_text(result.requests()[0].id, [3], "plain\n")
        result.wait(0.01)
    assert capsys.readouterr().out == "plain\n"


def test_errors_are_shown_once_each_and_after_some_in_a_line(session, root, capsys):
    ranks = range(10)
    result = result_of(session, *ranks)
    (pending,) = result.requests()
    with result.stream_output():
        root.fail(pending.id, [0, 1, 2], ValueError("all alike"))
        for rank in ranks[3:]:
            root.fail(pending.id, [rank], ValueError(f"rank {rank}"))
        result.wait(DEADLINE_S)
    lines = capsys.readouterr().err.splitlines()
    assert lines[0] == "[error:0-2]"
    assert sum("all alike" in line for line in lines) == 1
    assert lines[-2:] == ["[error:9]", "ValueError: rank 9"]


def test_what_cells_give_is_shown_as_they_end(session, root, capsys):
    pending = session.execute((0, 1), "5", silent=False)
    result = AsyncResult(session, pending, name="execute")
    reply = CellReply(4, {"data": {"text/plain": "5"}, "metadata": {}})
    with result.stream_output():
        root.answer(pending.id, {0: reply})
        result.wait(0.01)
        assert capsys.readouterr().out == "Out[0:4]: 5\n"
        root.answer(pending.id, {1: reply})
        result.wait(DEADLINE_S)
    assert capsys.readouterr().out == "Out[1:4]: 5\n"


def test_only_the_parts_that_were_chosen_are_shown(session, root, capsys):
    result = result_of(session, 0, 1, 2)
    (pending,) = result.requests()
    with result.split()[1].stream_output():
        root.print_text(pending.id, [0, 1], "shared\n")
        root.print_text(pending.id, [2], "of another\n")
        result.wait(0.01)
    assert capsys.readouterr().out == "shared\n"


def test_a_callback_is_told_of_output_until_it_is_stopped(session, root):
    result = result_of(session, 0, 1)
    (pending,) = result.requests()
    told = []
    stop = result.add_output_callback(lambda engines, outputs: told.append((engines, outputs)))
    root.print_text(pending.id, [0], "one")
    result.wait(0.01)
    stop()
    root.print_text(pending.id, [0], "two")
    result.wait(0.01)
    assert told == [([0], [Text("stdout", "one")])]
