"""What an old client asks of one engine: it is asked of that engine, and the answer is one that the client knows."""

from __future__ import annotations

import json
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from hiersched.data.outcomes import pack_outcome_buffers, pack_outcome_value
from hiersched.data.outputs import Text
from hiersched.errors import ProtocolError
from hiersched.limits import INLINE_BYTES_MAX
from hiersched.protocol import messages as m
from tests.compat.stage import CLIENT, Said, Stage


def double(x: Any) -> Any:
    return x * 2


def whereabouts() -> Any:
    return rank  # type: ignore[name-defined]  # noqa: F821


def fails() -> None:
    raise ValueError("bad x")


def answer(stage: Stage) -> Said:
    """The only answer on this channel."""
    (said,) = stage.heard("mux")
    return said


# --- calls ------------------------------------------------------------------------------------------------------------


def test_a_call_is_answered_by_its_engine(stage: Stage) -> None:
    asked = stage.apply(2, double, 21)
    stage.turn()
    assert [len(engine.held) for engine in stage.engines] == [0, 0, 1, 0]
    stage.engines[2].runs()
    said = answer(stage)
    assert (said.kind, said.to, said.path) == ("apply_reply", asked, [CLIENT, stage.uuid(2).encode()])
    assert (said.content, said.values()) == ({"status": "ok"}, [42])
    assert (said.metadata["engine"], said.metadata["label"]) == (stage.uuid(2), "mine")
    assert said.metadata["started"] == "1970-01-01T00:01:42+00:00"
    assert stage.books.asked_for == [(asked, "mux", stage.uuid(2))]
    assert stage.books.ended == {asked: (stage.uuid(2), {"status": "ok"})}
    assert stage.is_over()


def test_a_functions_globals_are_the_engines_names(stage: Stage) -> None:
    whereabouts.__module__ = "__main__"
    stage.apply(3, whereabouts)
    stage.turn()
    stage.engines[3].runs()
    assert answer(stage).values() == [3]


@pytest.mark.parametrize("items", [10, INLINE_BYTES_MAX])
def test_arrays_come_and_go(stage: Stage, items: int) -> None:
    given = np.arange(items, dtype=float)
    stage.apply(0, double, given)
    stage.turn()
    stage.engines[0].runs()
    np.testing.assert_array_equal(answer(stage).values()[0], given * 2)


def test_calls_that_come_together_leave_together_and_end_in_any_order(stage: Stage) -> None:
    asked = [stage.apply(rank, double, rank) for rank in (1, 0)]
    stage.turn()
    for rank in (0, 1):
        stage.engines[rank].runs()
    assert [(said.to, said.values()) for said in stage.heard("mux")] == [(asked[1], [0]), (asked[0], [2])]


def test_a_function_travels_once(stage: Stage) -> None:
    for rank in (0, 0, 1):
        stage.apply(rank, double, rank)
        stage.turn()
        stage.engines[rank].runs()
    assert [len(engine.functions) for engine in stage.engines[:2]] == [1, 1]
    assert stage.engines[0].functions == stage.engines[1].functions
    assert (stage.asked[m.Call], stage.asked[m.Blob]) == (3, 1)
    assert len(stage.heard("mux")) == 3


def test_what_the_function_raises_is_told_on_both_channels(stage: Stage) -> None:
    asked = stage.apply(1, fails)
    stage.turn()
    stage.engines[1].runs()
    *published, said = stage.heard()
    assert (said.content["ename"], said.content["evalue"]) == ("ValueError", "bad x")
    assert said.content["engine_info"] == {"engine_uuid": stage.uuid(1), "engine_id": 1, "method": "apply"}
    assert said.metadata["status"] == "error"
    assert said.buffers == []
    assert [(each.kind, each.to) for each in published] == [("error", asked), ("status", asked)]
    assert published[0].content == said.content
    assert stage.is_over()


# --- output -----------------------------------------------------------------------------------------------------------


def test_output_comes_while_the_code_runs_and_idle_comes_once_and_last(stage: Stage) -> None:
    asked = stage.apply(1, double, 1)
    stage.turn()
    stage.engines[1].prints("early")
    (early,) = stage.heard()
    assert (early.channel, early.kind, early.content["text"]) == ("iopub", "stream", "early")
    stage.engines[1].runs(printing=[Text("stdout", "late")])
    late, idle, said = stage.heard()
    assert (late.content["text"], idle.content, said.kind) == ("late", {"execution_state": "idle"}, "apply_reply")
    assert {each.to for each in (early, late, idle, said)} == {asked}
    assert {each.path[0].decode() for each in (early, late)} == {"engine.1.stream"}
    assert stage.books.prints == [(asked, "stream")] * 2


# --- cells ------------------------------------------------------------------------------------------------------------


def test_a_cell_tells_its_code_its_result_and_its_count(stage: Stage) -> None:
    asked = stage.execute(1, "1 + 1", user_expressions={"x": "1"})
    stage.turn()
    stage.engines[1].runs(printing=[Text("stdout", "words")])
    code, words, result, idle, said = stage.heard()
    assert (code.kind, code.content["code"]) == ("execute_input", "1 + 1")
    assert words.content == {"name": "stdout", "text": "words"}
    assert (result.kind, result.content["data"]) == ("execute_result", {"text/plain": "2"})
    assert result.content["execution_count"] == 7
    assert idle.content == {"execution_state": "idle"}
    assert (said.kind, said.content["status"], said.content["execution_count"]) == ("execute_reply", "ok", 7)
    assert said.content["user_expressions"] == {"x": {"status": "ok", "data": {"text/plain": "1"}}}
    assert {each.to for each in (code, words, result, idle, said)} == {asked}
    assert [kind for _, kind in stage.books.prints] == ["execute_input", "stream", "execute_result"]


def test_a_silent_cell_shows_neither_code_nor_result(stage: Stage) -> None:
    stage.execute(1, "x = 5", silent=True)
    stage.turn()
    stage.engines[1].runs()
    assert [said.kind for said in stage.heard()] == ["status", "execute_reply"]
    assert stage.engines[1].namespace["x"] == 5


def test_a_cell_that_fails_tells_how(stage: Stage) -> None:
    stage.execute(1, "1 / 0")
    stage.turn()
    stage.engines[1].runs()
    said = answer(stage)
    assert (said.kind, said.content["ename"]) == ("execute_reply", "ZeroDivisionError")
    assert said.content["engine_info"]["method"] == "execute"


@pytest.mark.parametrize("content", [{}, {"code": 5}, {"code": "x", "user_expressions": [1]}])
def test_what_is_no_cell_is_refused(stage: Stage, content: dict[str, Any]) -> None:
    asked = stage.says("mux", "execute_request", content, to=stage.uuid(0))
    said = answer(stage)
    assert (said.kind, said.to, said.content["ename"]) == ("execute_reply", asked, "ProtocolError")
    assert stage.is_over()


def test_code_that_is_no_text_is_refused(stage: Stage) -> None:
    stage.session.pack = lambda part: json.dumps(part, default=str).encode()  # some write it so
    stage.says("mux", "execute_request", {"code": "\ud800"}, to=stage.uuid(0))
    assert answer(stage).content["ename"] == "ProtocolError"
    assert stage.is_over()


# --- widgets ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", ["comm_open", "comm_msg", "comm_close"])
def test_a_widgets_message_reaches_its_engine_and_has_no_answer(stage: Stage, kind: str) -> None:
    asked = stage.says("mux", kind, {"comm_id": "c", "data": {}}, to=stage.uuid(1))
    stage.turn()
    engine = stage.engines[1]
    engine.prints("handled")
    work, _ = engine.held.popleft()
    engine.answers(work, pack_outcome_value(None, started=1.0, ended=2.0))
    words, idle = stage.heard()
    assert (words.content["text"], words.to, idle.to) == ("handled", asked, asked)
    assert stage.books.asked_for == []
    assert stage.is_over()


def test_a_widgets_message_to_who_is_gone_is_nobodys(stage: Stage) -> None:
    stage.says("mux", "comm_msg", {"comm_id": "c"}, to="gone")
    assert stage.heard() == []


# --- what goes nowhere ------------------------------------------------------------------------------------------------


def test_an_engine_that_is_not_there_is_told_at_once(stage: Stage) -> None:
    asked = stage.says("mux", "apply_request", {}, to="gone")
    said = answer(stage)
    assert (said.to, said.path, said.content["ename"]) == (asked, [CLIENT, b"gone"], "EngineError")
    assert said.content["engine_info"] == {}
    assert stage.is_over()


@pytest.mark.parametrize("kind", ["complete_request", "kernel_info_request", "history_request", "x"])
def test_what_else_kernels_answer_is_refused(stage: Stage, kind: str) -> None:
    asked = stage.says("mux", kind, {}, to=stage.uuid(0))
    said = answer(stage)
    assert (said.kind, said.to) == (f"{kind.partition('_')[0]}_reply", asked)
    assert "do not answer" in said.content["evalue"]


def test_a_call_without_a_function_is_refused(stage: Stage) -> None:
    stage.says("mux", "apply_request", {}, to=stage.uuid(0))
    assert answer(stage).content["ename"] == "ProtocolError"
    assert stage.is_over()


def test_a_request_for_no_engine_is_none(stage: Stage) -> None:
    with pytest.raises(ProtocolError, match="names its engine"):
        stage.says("mux", "apply_request", {})


def test_an_engine_that_dies_is_told_before_its_departure(stage: Stage) -> None:
    asked = stage.apply(1, double, 1)
    stage.turn()
    stage.engines[1].dies()
    heard: list[int] = []
    stage.call_soon(lambda: heard.append(len(stage.books.ended)))  # after the door has taken in what there was
    uuid = stage.uuid(1)
    (said,) = stage.heard()  # of output that is to come nothing is told: the client does not wait for it
    assert (said.to, said.content["ename"], said.metadata["engine"]) == (asked, "EngineError", uuid)
    assert said.content["engine_info"] == {}
    assert len(stage.members) == 1
    assert 1 not in stage.roster
    assert heard == [1]
    assert stage.root.does()


def test_what_no_client_could_read_is_an_error(stage: Stage) -> None:
    for odd in (
        pack_outcome_value("a value", started=1.0, ended=2.0),
        pack_outcome_value(None, started=1.0, ended=2.0),
    ):
        stage.apply(0, double, 1)
        stage.turn()
        stage.engines[0].answers(stage.engines[0].held.popleft()[0], odd)
        assert answer(stage).content["ename"] == "ProtocolError"
    stage.execute(0, "1")
    stage.turn()
    nonsense = pack_outcome_buffers([b"nonsense"], started=1.0, ended=2.0)
    stage.engines[0].answers(stage.engines[0].held.popleft()[0], nonsense)
    assert answer(stage).content["ename"] == "ProtocolError"
    assert stage.is_over()


# --- abort ------------------------------------------------------------------------------------------------------------


def test_a_call_that_waits_can_be_withdrawn(stage: Stage) -> None:
    running, waiting = stage.apply(1, double, 1), stage.apply(1, double, 2)
    stage.turn()
    stage.engines[1].refuses(m.CANCELLED)  # as an engine does that runs something else
    stage.aborts(waiting, "never heard of")
    first, second = stage.heard("mux")
    assert (first.to, first.content) == (running, {"status": "aborted"})
    assert (second.to, second.content) == (waiting, {"status": "aborted"})
    stage.aborts(running, waiting)
    assert stage.is_over()


def test_an_answer_to_what_was_interrupted(stage: Stage) -> None:
    stage.apply(1, double, 1)
    stage.turn()
    stage.engines[1].refuses(m.INTERRUPTED, "cancelled")
    error, idle, said = stage.heard()
    assert (error.kind, said.content["ename"]) == ("error", "KeyboardInterrupt")
    assert said.content["engine_info"]["engine_id"] == 1  # so the client waits for all output
    assert idle.content == {"execution_state": "idle"}


# --- nonsense ---------------------------------------------------------------------------------------------------------

JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
    max_leaves=6,
)
SHARED = Stage(2).open()


@given(
    st.sampled_from(["apply_request", "execute_request", "comm_msg", "other"]),
    st.dictionaries(st.sampled_from(["code", "silent", "user_expressions", "x"]), JSON),
    st.dictionaries(st.sampled_from(["label", "is_broadcast", "original_msg_id", "targets"]), JSON),
    st.lists(st.binary(max_size=10), max_size=4),
)
def test_whatever_a_client_asks_ends(kind, content, metadata, buffers):
    stage = SHARED
    message = stage.built(kind, content, metadata=metadata)
    asked = stage.takes("mux", message, to=stage.uuid(0), buffers=buffers)
    stage.turn()
    if stage.engines[0].held:
        stage.engines[0].refuses(m.CANCELLED)
    answers = stage.heard("mux")
    assert [said.to for said in answers] == ([] if kind == "comm_msg" else [asked])
    assert stage.is_over()
