"""Cells as an engine of ipyparallel's is asked for them, and what it publishes, in our words."""

from __future__ import annotations

from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from hiersched.compat import guest_cells
from hiersched.data.cells import Cell
from hiersched.data.outcomes import unpack_outcome
from hiersched.data.outputs import Clear, Comm, Shown, Text
from hiersched.errors import ProtocolError, RemoteError
from tests.compat.guest_stage import message


@given(st.builds(Cell, st.text(), st.booleans(), st.booleans(), st.dictionaries(st.text(), st.text(), max_size=3)))
def test_a_cell_arrives_as_it_was_sent(cell: Cell):
    assert guest_cells.cell_in(msgspec.msgpack.encode(cell)) == cell
    content = guest_cells.content_of(cell)
    assert (content["code"], content["user_expressions"]) == (cell.code, cell.expressions)
    assert content["silent"] is not content["store_history"]


@given(st.binary(max_size=20))
def test_anything_else_is_no_cell(frame: bytes):
    try:
        cell = guest_cells.cell_in(frame)
    except ProtocolError:
        return
    assert isinstance(cell, Cell)


@pytest.mark.parametrize(
    ("kind", "content", "output"),
    [
        ("stream", {"name": "stdout", "text": "a"}, Text("stdout", "a")),
        ("stream", {"name": "stderr", "text": "a"}, Text("stderr", "a")),
        ("stream", {}, Text("stdout", "")),
        ("display_data", {"data": {"text/plain": "a"}, "metadata": {"b": 1}}, Shown({"text/plain": "a"}, {"b": 1})),
        (
            "update_display_data",
            {"data": {}, "transient": {"display_id": "x"}},
            Shown({}, {}, {"display_id": "x"}, True),
        ),
        ("clear_output", {"wait": True}, Clear(True)),
        ("comm_open", {"comm_id": "c", "target_name": "t"}, Comm("comm_open", {"comm_id": "c", "target_name": "t"})),
        ("status", {"execution_state": "busy"}, None),
        ("execute_input", {"code": "1"}, None),
        ("execute_result", {"data": {}}, None),
        ("error", {"ename": "ValueError"}, None),
        ("data_pub", {}, None),
    ],
)
def test_what_is_published_is_output_if_people_or_widgets_are_to_see_it(
    kind: str, content: dict[str, Any], output: Any
):
    assert guest_cells.output_in(message(kind, content, "request")) == output


def test_only_a_result_is_one():
    shown = {"data": {"text/plain": "1"}, "metadata": {}, "execution_count": 3}
    found = guest_cells.result_in(message("execute_result", shown, "request"))
    assert found == {"data": {"text/plain": "1"}, "metadata": {}}
    assert guest_cells.result_in(message("display_data", shown, "request")) is None


def test_a_reply_without_a_count_is_counted_as_none():
    reply = message("execute_reply", {"status": "ok", "execution_count": None}, "request")
    value = unpack_outcome(guest_cells.outcome_of(reply, Cell(""), None).whole).value
    assert (value.execution_count, value.execute_result) == (0, None)


def test_an_error_is_told_with_its_traceback():
    content = {"status": "error", "ename": "NameError", "evalue": "x", "traceback": ["here"]}
    packed = guest_cells.outcome_of(message("execute_reply", content, "request"), Cell(""), None)
    error = unpack_outcome(packed.whole).error
    assert isinstance(error, RemoteError)
    assert (error.ename, error.traceback) == ("NameError", "here")
