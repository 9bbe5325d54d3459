"""A broadcast is one call here. Its answers come as the client wants them, in the order of its targets, all of them."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from hiersched.data.outcomes import pack_outcome_value
from hiersched.data.outputs import Text
from hiersched.errors import ProtocolError
from hiersched.limits import ENGINES_MAX, INLINE_BYTES_MAX
from hiersched.protocol import messages as m
from tests.compat.stage import CLIENT, Said, Stage
from tests.compat.test_calls import JSON, double


def whereabouts(bad: tuple[int, ...] = ()) -> Any:
    if rank in bad:  # type: ignore[name-defined]  # noqa: F821
        raise ValueError(f"bad {rank % 2}")  # type: ignore[name-defined]  # noqa: F821
    return rank * 10  # type: ignore[name-defined]  # noqa: F821


whereabouts.__module__ = "__main__"


def all_run(stage: Stage, *ranks: int) -> None:
    """These engines run what they were asked, in this order."""
    stage.turn()
    for rank in ranks:
        stage.engines[rank].runs()


def answer(stage: Stage) -> Said:
    (said,) = stage.heard("broadcast")
    return said


# --- one answer for all -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("coalescing", [True, False])
def test_a_broadcast_is_one_call(stage: Stage, coalescing: bool) -> None:
    stage.broadcast(stage.targets(), whereabouts, coalescing=coalescing)
    stage.turn()
    assert (stage.asked[m.Call], stage.asked[m.Blob]) == (1, 1)
    assert [len(engine.held) for engine in stage.engines] == [1, 1, 1, 1]
    for engine in stage.engines:
        _, frames = engine.held[0]
        assert sum(len(frame) for frame in frames) < 200  # nobody is told of the others


def test_results_come_in_the_order_of_the_targets(stage: Stage) -> None:
    targets = stage.targets(3, 0, 2)
    asked = stage.broadcast(targets, whereabouts, coalescing=True)
    all_run(stage, 0, 2, 3)
    said = answer(stage)
    assert (said.kind, said.to, said.path) == ("apply_reply", asked, [CLIENT])
    assert (said.content, said.values()) == ({"status": "ok"}, [30, 0, 20])
    assert said.metadata["broadcast_targets"] == [list(target) for target in targets]
    assert (said.metadata["original_msg_id"], said.metadata["is_coalescing"]) == (asked, True)
    assert stage.books.asked_for == [(asked, "broadcast", None)]
    assert stage.books.ended == {asked: (None, {"status": "ok"})}
    assert stage.is_over()


def test_large_results_come_in_that_order_as_well(stage: Stage) -> None:
    stage.broadcast(stage.targets(1, 0), np.full, INLINE_BYTES_MAX, 1.0, coalescing=True)
    all_run(stage, 0, 1)
    for value in answer(stage).values():
        np.testing.assert_array_equal(value, np.ones(INLINE_BYTES_MAX))


def test_a_target_that_is_named_twice_is_asked_once(stage: Stage) -> None:
    stage.broadcast(stage.targets(1, 1), whereabouts, coalescing=True)
    all_run(stage, 1)
    said = answer(stage)
    assert (said.values(), said.metadata["broadcast_targets"]) == ([10], [[stage.uuid(1), 1]])


@pytest.mark.parametrize("order", [(0, 1, 2, 3), (3, 2, 1, 0)])
def test_good_and_bad_results_make_one_error_that_tells_all(stage: Stage, order: tuple[int, ...]) -> None:
    asked = stage.broadcast(stage.targets(), whereabouts, (0, 2, 3), coalescing=True)
    all_run(stage, *order)
    *published, said = stage.heard()
    content = said.content
    assert (content["status"], content["ename"]) == ("error", "ValueError")
    assert content["evalue"].splitlines() == [
        "3 of 4 engines failed",
        "[0,2] ValueError: bad 0",
        "[3] ValueError: bad 1",
    ]
    assert content["traceback"][-1] == "ValueError: bad 0"
    assert content["engine_info"] == {"engine_uuid": stage.uuid(0), "engine_id": 0, "method": "apply"}
    assert said.buffers == []
    assert [each.kind for each in published] == ["error", "error", "error", "status"]
    assert {each.to for each in published} == {asked}
    assert stage.is_over()


def test_different_errors_have_a_name_in_common(stage: Stage) -> None:
    stage.broadcast(stage.targets(), whereabouts, (1,), coalescing=True)
    stage.turn()
    stage.engines[2].refuses(m.ENGINE_LOST, "killed")
    all_run(stage, 0, 1, 3)
    content = answer(stage).content
    assert content["ename"] == "CompositeError"
    assert content["evalue"].splitlines()[1:] == ["[1] ValueError: bad 1", "[2] EngineError: engine 2: killed"]
    assert stage.books.open == set()


def test_an_error_of_many_texts_tells_of_some_and_counts_the_others() -> None:
    stage = Stage(12).open()
    stage.broadcast(stage.targets(), double, 1, coalescing=True)
    stage.turn()
    for engine in stage.engines:
        engine.refuses(m.BLOB_LOST, f"text {engine.rank}")
    lines = answer(stage).content["evalue"].splitlines()
    assert (lines[0], len(lines), lines[-1]) == ("12 of 12 engines failed", 10, "and 4 other errors")


def test_a_broadcast_to_one_engine_has_that_engines_error(stage: Stage) -> None:
    stage.broadcast(stage.targets(1), whereabouts, (1,), coalescing=True)
    all_run(stage, 1)
    assert (answer(stage).content["evalue"], stage.is_over()) == ("bad 1", True)


def test_idle_comes_once_after_all_output(stage: Stage) -> None:
    asked = stage.broadcast(stage.targets(0, 1), whereabouts, coalescing=True)
    stage.turn()
    stage.engines[1].prints("early")
    stage.engines[1].runs(printing=[Text("stdout", "late")])
    stage.engines[0].runs(printing=[Text("stdout", "first")])
    published = stage.heard("iopub")
    assert [each.kind for each in published] == ["stream", "stream", "stream", "status"]
    assert {each.to for each in published} == {asked}
    assert [each.path[0] for each in published[:2]] == [b"engine.1.stream"] * 2
    assert published[2].metadata == {"engine": stage.uuid(0)}


def test_a_cell_may_have_one_answer_and_every_engine_shows_its_own(stage: Stage) -> None:
    stage.broadcast_cell(stage.targets(0, 1), "rank", coalescing=True)
    all_run(stage, 1, 0)
    heard = stage.heard()
    shown = [each.content["data"]["text/plain"] for each in heard if each.kind == "execute_result"]
    assert sorted(shown) == ["0", "1"]
    assert [each.kind for each in heard].count("status") == 1
    assert (heard[-1].kind, heard[-1].content["status"]) == ("execute_reply", "ok")


# --- an answer from each ----------------------------------------------------------------------------------------------


def test_each_engine_answers_for_itself(stage: Stage) -> None:
    asked = stage.broadcast(stage.targets(2, 1), whereabouts)
    all_run(stage, 2)
    stage.engines[1].runs(printing=[Text("stdout", "words")])
    heard = stage.heard()
    one, two = f"{asked}_{stage.uuid(1)}", f"{asked}_{stage.uuid(2)}"
    assert {said.to: said.values() for said in heard if said.channel == "broadcast"} == {one: [10], two: [20]}
    assert {(said.to, said.kind) for said in heard if said.channel == "iopub"} == {
        (one, "stream"),
        (one, "status"),
        (two, "status"),
    }
    assert [said.metadata["original_msg_id"] for said in heard if said.channel == "broadcast"] == [asked, asked]
    assert set(stage.books.ended) == {one, two}
    assert set(stage.books.asked_for) == {(one, "broadcast", stage.uuid(1)), (two, "broadcast", stage.uuid(2))}
    assert stage.is_over()


def test_each_answer_comes_when_it_is_there(stage: Stage) -> None:
    stage.broadcast(stage.targets(0, 1), whereabouts)
    all_run(stage, 0)
    stage.root.passes(1.0)  # what has come is sent on when the rest takes its time
    stage.step()
    assert answer(stage).values() == [0]
    all_run(stage, 1)
    assert answer(stage).values() == [10]


def test_each_cell_tells_its_code_and_its_result(stage: Stage) -> None:
    asked = stage.broadcast_cell(stage.targets(0, 1), "rank")
    all_run(stage, 0, 1)
    heard = stage.heard()
    for rank in (0, 1):
        own = [said for said in heard if said.to == f"{asked}_{stage.uuid(rank)}"]
        assert [said.kind for said in own] == ["execute_input", "execute_result", "status", "execute_reply"]
        assert own[1].content["data"] == {"text/plain": str(rank)}


def test_one_that_fails_leaves_the_others_alone(stage: Stage) -> None:
    stage.broadcast(stage.targets(0, 1), whereabouts, (0,))
    all_run(stage, 0, 1)
    failed, good = sorted(stage.heard("broadcast"), key=lambda said: said.content["status"])
    assert (failed.content["evalue"], failed.metadata["engine"]) == ("bad 0", stage.uuid(0))
    assert good.values() == [10]


# --- engines that go --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("coalescing", [True, False])
def test_an_engine_that_dies_is_told_and_no_good_result_is_lost(stage: Stage, coalescing: bool) -> None:
    stage.broadcast(stage.targets(0, 1), whereabouts, coalescing=coalescing)
    all_run(stage, 0)
    stage.engines[1].dies()
    answers = stage.heard("broadcast")
    texts = [said.content.get("ename", "ok") for said in answers]
    assert sorted(texts) == (["EngineError"] if coalescing else ["EngineError", "ok"])
    assert stage.is_over()
    assert stage.root.does()


@pytest.mark.parametrize("coalescing", [True, False])
def test_an_engine_that_has_gone_is_told_and_its_successor_is_not_asked(stage: Stage, coalescing: bool) -> None:
    stale = [(stage.uuid(0), 0), ("its predecessor", 1)]
    asked = stage.broadcast(stale, whereabouts, coalescing=coalescing)
    stage.turn()
    assert not stage.engines[1].held
    all_run(stage, 0)
    answers = {said.to: said.content.get("ename") for said in stage.heard("broadcast")}
    each = {f"{asked}_{stage.uuid(0)}": None, f"{asked}_its predecessor": "EngineError"}
    assert answers == ({asked: "EngineError"} if coalescing else each)
    assert stage.is_over()


@pytest.mark.parametrize("coalescing", [True, False])
def test_a_broadcast_to_nobody_that_is_there_ends_at_once(stage: Stage, coalescing: bool) -> None:
    stage.broadcast([("gone", 0), ("too", 999_999)], whereabouts, coalescing=coalescing)
    assert [said.content["ename"] for said in stage.heard("broadcast")] == ["EngineError"] * (1 if coalescing else 2)
    assert stage.is_over()


# --- abort ------------------------------------------------------------------------------------------------------------


def test_a_broadcast_with_one_answer_is_withdrawn_by_its_id(stage: Stage) -> None:
    asked = stage.broadcast(stage.targets(), whereabouts, coalescing=True)
    stage.turn()
    stage.aborts(asked)
    assert answer(stage).content == {"status": "aborted"}
    assert stage.is_over()


def test_a_broadcast_with_an_answer_from_each_is_withdrawn_when_all_of_them_are(stage: Stage) -> None:
    asked = stage.broadcast(stage.targets(0, 1), whereabouts)
    stage.turn()
    ids = [f"{asked}_{stage.uuid(rank)}" for rank in (0, 1)]
    stage.aborts(ids[0])
    assert stage.heard("broadcast") == []
    stage.aborts(*ids)
    answers = stage.heard("broadcast")
    assert {said.to: said.content for said in answers} == {each: {"status": "aborted"} for each in ids}
    assert stage.is_over()


def test_a_broadcast_that_had_begun_on_some_engines_is_aborted_as_a_whole(stage: Stage) -> None:
    asked = stage.broadcast(stage.targets(0, 1), whereabouts, coalescing=True)
    all_run(stage, 0)
    stage.aborts(asked)
    assert answer(stage).content == {"status": "aborted"}
    assert stage.is_over()


# --- nonsense ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "targets",
    [None, [], 5, "ab", [["uuid"]], [["uuid", "x"]], [["a", -1]], [["a", ENGINES_MAX]], [["a", 0], ["b", 0]], {"a": 1}],
)
def test_targets_that_are_none_are_refused(stage: Stage, targets: Any) -> None:
    with pytest.raises(ProtocolError, match="targets"):
        stage.says("broadcast", "apply_request", {}, metadata={"targets": targets, "is_coalescing": True})
    assert stage.books.asked_for == []


def test_what_is_neither_call_nor_cell_is_refused(stage: Stage) -> None:
    with pytest.raises(ProtocolError, match="a call or a cell"):
        stage.says("broadcast", "comm_msg", {}, metadata={"targets": stage.targets()})


@pytest.mark.parametrize("coalescing", [True, False])
def test_a_call_without_a_function_is_told_to_all(stage: Stage, coalescing: bool) -> None:
    metadata = stage.broadcast_metadata(stage.targets(0, 1), coalescing)
    stage.says("broadcast", "apply_request", {}, metadata=metadata)
    assert [said.content["ename"] for said in stage.heard("broadcast")] == ["ProtocolError"] * (1 if coalescing else 2)
    assert stage.is_over()


@pytest.mark.parametrize("coalescing", [True, False])
def test_what_no_client_could_read_is_an_error(stage: Stage, coalescing: bool) -> None:
    stage.broadcast(stage.targets(0), double, 1, coalescing=coalescing)
    stage.turn()
    stage.engines[0].answers(stage.engines[0].held.popleft()[0], pack_outcome_value("x", started=1.0, ended=2.0))
    assert answer(stage).content["ename"] == "ProtocolError"


SHARED = Stage(3).open()
TARGETS = st.lists(st.sampled_from([*SHARED.targets(), ("gone", 1), ("gone", 7)]), max_size=4)


@given(
    TARGETS.map(lambda targets: [list(target) for target in targets]) | JSON,
    st.booleans() | JSON,
    st.sampled_from(["apply_request", "execute_request", "comm_msg"]),
    st.lists(st.binary(max_size=10), max_size=3),
    st.lists(st.booleans(), min_size=3, max_size=3),
)
def test_whatever_a_broadcast_asks_it_ends(targets, coalescing, kind, buffers, good):
    stage = SHARED
    metadata = {"targets": targets, "is_coalescing": coalescing}
    message = stage.built(kind, {"code": "1"}, metadata=metadata)
    try:
        asked = stage.takes("broadcast", message, buffers=buffers)
    except ProtocolError:
        assert stage.is_over()
        return
    stage.turn()
    for engine, runs in zip(stage.engines, good, strict=True):
        if engine.held and runs:
            engine.runs()
        elif engine.held:
            engine.refuses(m.CANCELLED)
    answers = stage.heard("broadcast")
    if coalescing:
        assert [said.to for said in answers] == [asked]
    else:
        assert sorted(said.to for said in answers) == sorted({f"{asked}_{uuid}" for uuid, _ in targets})
    assert stage.is_over()
