"""Old clients' tasks: wherever an engine is free, after what they wait for, and with an answer in any case."""

from __future__ import annotations

import json
from typing import Any

import ipyparallel as ipp
import ipyparallel.error
import pytest
from hypothesis import given
from hypothesis import strategies as st
from ipyparallel.serialize import pack_apply_message

from hiersched.data.outcomes import pack_outcome_error
from hiersched.data.outputs import Text
from hiersched.errors import ProtocolError
from hiersched.protocol import messages as m
from tests.compat.stage import CLIENT, Said, Stage, StagedEngine
from tests.compat.test_calls import JSON, double, fails


def holder(stage: Stage) -> StagedEngine:
    """The only engine that has something to do."""
    stage.turn()
    (engine,) = [engine for engine in stage.engines if engine.held]
    return engine


def answer(stage: Stage) -> Said:
    (said,) = stage.heard("task")
    return said


def finished(stage: Stage, **metadata: Any) -> str:
    """A task that has run."""
    asked = stage.submit(double, 1, **metadata)
    holder(stage).runs()
    answer(stage)
    return asked


def test_a_task_is_answered_by_whoever_ran_it(stage: Stage) -> None:
    asked = stage.submit(double, 21, label="mine")
    engine = holder(stage)
    engine.runs(printing=[Text("stdout", "words")])
    words, idle, said = stage.heard()
    uuid = stage.uuid(engine.rank)
    assert (said.channel, said.kind, said.to, said.path) == ("task", "apply_reply", asked, [CLIENT])
    assert (said.values(), said.metadata["engine"], said.metadata["label"]) == ([42], uuid, "mine")
    assert (words.content["text"], words.metadata["engine"], words.to) == ("words", uuid, asked)
    assert idle.content == {"execution_state": "idle"}
    assert stage.books.asked_for == [(asked, "task", None)]
    assert stage.books.ended == {asked: (uuid, {"status": "ok"})}
    assert stage.is_over()


def test_tasks_that_come_together_leave_together_and_their_function_once(stage: Stage) -> None:
    asked = [stage.submit(double, number) for number in range(20)]
    stage.turn()
    assert (stage.asked[m.Tasks], stage.asked[m.Blob]) == (1, 1)
    while any(engine.held for engine in stage.engines):
        for engine in stage.engines:
            if engine.held:
                engine.runs()
        stage.turn()
    answers = {said.to: said.values() for said in stage.heard("task")}
    assert answers == {msg_id: [2 * number] for number, msg_id in enumerate(asked)}
    assert stage.is_over()


def test_what_a_task_raises_is_told(stage: Stage) -> None:
    stage.submit(fails)
    engine = holder(stage)
    engine.runs()
    said = answer(stage)
    assert (said.content["ename"], said.content["engine_info"]["engine_id"]) == ("ValueError", engine.rank)


def test_a_task_runs_where_it_may(stage: Stage) -> None:
    for rank in (3, 1, 3):
        stage.submit(double, 1, targets=[stage.uuid(rank), "gone"])
        assert holder(stage).rank == rank
        stage.engines[rank].runs()
    assert len(stage.heard("task")) == 3


def test_a_task_for_engines_that_are_gone_is_told_at_once(stage: Stage) -> None:
    asked = stage.submit(double, 1, targets=["gone"])
    said = answer(stage)
    assert (said.to, said.content["ename"]) == (asked, "ImpossibleDependency")
    assert stage.is_over()


def test_a_task_is_tried_again_elsewhere_as_often_as_it_may(stage: Stage) -> None:
    stage.submit(fails, retries=2)
    tried = []
    for _ in range(3):
        engine = holder(stage)
        tried.append(engine.rank)
        engine.runs()
    assert len(set(tried)) == 3
    assert answer(stage).content["ename"] == "ValueError"
    assert stage.is_over()


def test_a_task_whose_dependency_is_unmet_is_tried_elsewhere_without_a_retry(stage: Stage) -> None:
    stage.submit(double, 4)
    for _ in stage.engines[1:]:
        engine = holder(stage)
        work, _frames = engine.held.popleft()
        engine.answers(work, pack_outcome_error(ipyparallel.error.UnmetDependency(), started=1.0, ended=2.0))
    holder(stage).runs()
    assert answer(stage).values() == [8]


def test_a_task_that_no_engine_can_run_is_impossible(stage: Stage) -> None:
    stage.submit(double, 4)
    for _ in stage.engines:
        holder(stage).refuses(m.UNMET)
    assert answer(stage).content["ename"] == "ImpossibleDependency"
    assert stage.is_over()


def test_an_engine_that_dies_with_a_task(stage: Stage) -> None:
    lost, repeated = stage.submit(double, 1), stage.submit(double, 2, retries=1)
    stage.turn()
    held = [engine for engine in stage.engines if engine.held]
    for engine in held:
        engine.dies()
    holder(stage).runs()
    answers = {said.to: said for said in stage.heard("task")}
    assert answers[lost].content["ename"] == "EngineError"
    assert answers[repeated].values() == [4]
    assert stage.is_over()
    assert stage.root.does()


# --- dependencies -----------------------------------------------------------------------------------------------------


def test_a_task_waits_for_others_whoever_submitted_them(stage: Stage) -> None:
    first = stage.submit(double, 1)
    runner = holder(stage)
    second = stage.submit(double, 2, after=[first], follow=ipp.Dependency([first]).as_dict())
    assert holder(stage) is runner
    assert len(runner.held) == 1
    runner.runs()
    assert holder(stage) is runner  # where the other ran
    runner.runs()
    assert [said.to for said in stage.heard("task")] == [first, second]
    assert stage.is_over()


def test_a_task_that_has_ended_is_still_known(stage: Stage) -> None:
    first = finished(stage)
    stage.submit(double, 2, after={"dependencies": first, "all": True, "success": True, "failure": False})
    holder(stage).runs()
    assert answer(stage).values() == [4]


def test_a_task_after_one_that_failed_is_impossible(stage: Stage) -> None:
    first = stage.submit(fails)
    holder(stage).runs()
    asked = stage.submit(double, 2, after=[first])
    *_, said = stage.heard("task")
    assert (said.to, said.content["ename"]) == (asked, "ImpossibleDependency")
    dependency = ipp.Dependency([first], success=False, failure=True)
    stage.submit(double, 2, after=dependency.as_dict())
    holder(stage).runs()
    assert answer(stage).values() == [4]
    assert stage.is_over()


def test_a_task_that_waits_too_long_is_told(stage: Stage) -> None:
    first = stage.submit(double, 1)
    asked = stage.submit(double, 2, after=[first], timeout=1.5)
    stage.turn()
    stage.root.passes(1.4)
    assert stage.heard("task") == []
    stage.root.passes(0.2)
    stage.step()
    said = answer(stage)
    assert (said.to, said.content["ename"]) == (asked, "TaskTimeout")
    assert "TaskTimeout" in dir(ipyparallel.error)


@pytest.mark.parametrize("name", ["after", "follow"])
def test_a_dependency_on_what_never_was_is_invalid(stage: Stage, name: str) -> None:
    asked = stage.submit(double, 1, **{name: ["never"]})
    said = answer(stage)
    assert (said.to, said.content["ename"]) == (asked, "InvalidDependency")
    assert stage.is_over()


def test_a_task_cannot_wait_for_itself(stage: Stage) -> None:
    first = finished(stage)
    message = stage.built("apply_request", {}, metadata={"after": [first]}, msg_id=first)
    stage.books.ended.clear()
    stage.takes("task", message, buffers=pack_apply_message(double, (1,), {}))
    assert answer(stage).content["ename"] == "InvalidDependency"


# --- abort, and answers to nobody -------------------------------------------------------------------------------------


def test_tasks_are_withdrawn_wherever_they_are(stage: Stage) -> None:
    unsent = stage.submit(double, 1)
    stage.aborts(unsent)
    assert [(said.to, said.content) for said in stage.heard()] == [(unsent, {"status": "aborted"})]
    first = stage.submit(double, 1)
    stage.turn()
    waiting = stage.submit(double, 1, after=[first])
    stage.turn()
    stage.aborts(waiting, first)
    answers = stage.heard("task")
    assert {(said.to, said.content["status"]) for said in answers} == {(first, "aborted"), (waiting, "aborted")}
    assert stage.is_over()


def test_a_task_that_is_submitted_again_has_an_answer_in_the_books_only(stage: Stage) -> None:
    message = stage.built("apply_request", {})
    frames = [*stage.session.serialize(message), *pack_apply_message(double, (1,), {})]
    stage.channels["task"](stage.wire.unpack(frames))
    holder(stage).runs()
    (idle,) = stage.heard()
    assert idle.channel == "iopub"
    assert list(stage.books.ended) == [message["header"]["msg_id"]]
    assert stage.is_over()


# --- nonsense ---------------------------------------------------------------------------------------------------------


def test_what_is_no_call_is_no_task(stage: Stage) -> None:
    with pytest.raises(ProtocolError, match="a task is a call"):
        stage.says("task", "execute_request", {"code": "1"})


def test_a_task_without_a_function_is_refused(stage: Stage) -> None:
    stage.says("task", "apply_request", {})
    assert answer(stage).content["ename"] == "ProtocolError"
    assert stage.is_over()


@pytest.mark.parametrize(
    "metadata",
    [
        {"retries": -1},
        {"retries": "many"},
        {"timeout": float("nan")},
        {"timeout": float("inf")},
        {"timeout": [1]},
        {"targets": 5},
        {"targets": {"a": 1}},
        {"after": 5},
        {"follow": {"dependencies": {"a": 1}}},
    ],
)
def test_metadata_that_make_no_sense_are_refused(stage: Stage, metadata: dict[str, Any]) -> None:
    stage.session.pack = lambda part: json.dumps(part, default=str).encode()  # some write it so
    asked = stage.submit(double, 1, **metadata)
    said = answer(stage)
    assert (said.to, said.content["ename"]) == (asked, "ProtocolError")
    assert stage.is_over()


def test_what_is_asked_for_in_other_words_is_understood(stage: Stage) -> None:
    asked = {"retries": None, "timeout": None, "targets": None, "after": None, "follow": {"dependencies": []}}
    stage.submit(double, 1, **asked)
    holder(stage).runs()
    assert answer(stage).values() == [2]


SHARED = Stage(2).open()
KNOWN = finished(SHARED)
IDS = st.sampled_from([KNOWN, "never"]) | JSON
TASK_METADATA = st.fixed_dictionaries(
    {},
    optional={
        "after": JSON | st.lists(IDS, max_size=3) | st.fixed_dictionaries({"dependencies": st.lists(IDS)}),
        "follow": JSON | st.just([KNOWN]),
        "retries": JSON | st.integers(0, 3),
        "targets": JSON | st.lists(st.sampled_from([SHARED.uuid(0), SHARED.uuid(1)]) | JSON),
        "timeout": JSON | st.floats(0, 1e300),
        "label": JSON,
    },
)


@given(TASK_METADATA, st.lists(st.binary(max_size=10), max_size=3))
def test_whatever_a_task_asks_for_it_ends(metadata, buffers):
    stage = SHARED
    asked = stage.takes("task", stage.built("apply_request", {}, metadata=metadata), buffers=buffers)
    stage.turn()
    while any(engine.held for engine in stage.engines):
        for engine in stage.engines:
            if engine.held:
                engine.refuses(m.UNMET)
        stage.turn()
    assert [said.to for said in stage.heard("task")] == [asked]
    assert stage.is_over()
