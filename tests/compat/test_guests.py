"""What the core of a leaf and an engine of ipyparallel's say to each other, through the guest between them."""

from __future__ import annotations

import pickle
import signal

import msgspec
import pytest

from hiersched.compat.guest_side import run_call
from hiersched.core.effects import DOORBELL
from hiersched.data.cells import Cell, CellReply, unpack_jupyter_reply
from hiersched.data.outcomes import Outcome, unpack_outcome
from hiersched.data.outputs import Comm, Output, Shown, Text, unpack_outputs
from hiersched.data.serialize import Packer, digest_of
from hiersched.errors import RemoteError
from hiersched.limits import BLOB_TIMEOUT_S, GUEST_OUTPUT_TIMEOUT_S, INLINE_BYTES_MAX, OUTPUT_FLUSH_S
from hiersched.protocol import messages as m
from tests.compat.guest_stage import RANK, WIRE_RANK, Stage

APPLIED = b"pcanned function"
FUNCTION = digest_of(APPLIED)
OK = {"status": "ok"}


@pytest.fixture
def stage() -> Stage:
    """A guest that has the function of an old client."""
    stage = Stage()
    stage.hears(m.Welcome(0, (0, b""), {"keep": True}))
    stage.hears(m.Blob(FUNCTION), APPLIED)
    return stage


def call(request: int, *needs: bytes, function: bytes = FUNCTION) -> m.Call:
    return m.Call(request, WIRE_RANK, m.CALL_LANE, function, list(needs), [])


def task(number: int, payload: bytes = b"arguments") -> m.Task:
    return m.Task(number, FUNCTION, [], payload, 0)


def cell(request: int, code: str, **options: object) -> tuple[m.Call, bytes]:
    frame = msgspec.msgpack.encode(Cell(code, **options))  # type: ignore[arg-type]
    return m.Call(request, WIRE_RANK, m.CELL_LANE, m.NO_FUNCTION, [], []), frame


def error(ename: str, evalue: str = "why") -> dict[str, object]:
    return {"status": "error", "ename": ename, "evalue": evalue, "traceback": ["line 1"]}


def outcome_of(said: tuple[m.Message, list[bytes]], request: int) -> Outcome:
    """The outcome in a reply to a call."""
    reply, frames = said
    assert isinstance(reply, m.Reply)
    assert (reply.request, [chunk.ranks for chunk in reply.chunks]) == (request, [WIRE_RANK])
    return unpack_outcome(frames)


def output_of(said: tuple[m.Message, list[bytes]], request: int) -> list[Output]:
    outputs, (frame,) = said
    assert outputs == m.Outputs([m.Piece(request, WIRE_RANK)])
    return unpack_outputs(frame)


def loss_in(said: tuple[m.Message, list[bytes]]) -> tuple[int, int]:
    """(request, code) of a reply without an outcome."""
    reply, _ = said
    assert isinstance(reply, m.Reply)
    (lost,) = reply.losses
    return reply.request, lost.code


# --- calls ------------------------------------------------------------------------------------------------------------


def test_an_old_clients_call_passes_as_it_is_and_so_do_the_buffers_that_come_back(stage: Stage):
    stage.hears(call(1), b"info", b"argument")
    assert stage.requests() == [("mux", "apply_request", {}, [b"canned function", b"info", b"argument"])]
    stage.replies("apply_reply", OK, b"pickle", b"buffer", started="2026-01-02T00:00:00+00:00")
    (said,) = stage.says()
    outcome = outcome_of(said, 1)
    assert [bytes(buffer) for buffer in outcome.buffers] == [b"pickle", b"buffer"]
    assert outcome.ended - outcome.started == 1.0


def test_one_thing_is_asked_at_a_time_and_in_order(stage: Stage):
    stage.hears(call(1), b"first")
    stage.hears(m.Tasks([task(2, b"second"), task(3, b"third")]))
    assert [request[3][1:] for request in stage.requests()] == [[b"first"]]
    stage.replies("apply_reply", OK, b"1")
    assert [request[3][1:] for request in stage.requests()] == [[b"second"]]
    stage.replies("apply_reply", OK, b"2")
    assert [request[3][1:] for request in stage.requests()] == [[b"third"]]
    stage.replies("apply_reply", OK, b"3")
    reply, second, third = stage.says()
    assert outcome_of(reply, 1).ok
    for number, (results, _) in enumerate([second, third], 2):
        (result,) = results.results  # type: ignore[union-attr]
        assert (result.id, result.rank, result.code) == (number, RANK, 0)
        assert unpack_outcome([result.payload]).buffers == [b"%d" % number]


def test_a_call_of_ours_asks_the_engine_to_run_it_and_its_outcome_comes_back(stage: Stage):
    packed = Packer().pack_call(abs, (-3,))
    stage.hears(m.Blob(packed.function), packed.blobs[packed.function])
    stage.hears(call(1, function=packed.function), *packed.frames)
    ((_, msg_type, _, buffers),) = stage.requests()
    assert msg_type == "apply_request"
    assert pickle.loads(buffers[0]) is run_call
    stage.replies("apply_reply", OK, *b"not an outcome".split())
    with pytest.raises(RemoteError, match="not the buffers of an outcome"):
        assert outcome_of(stage.says()[0], 1).value


def test_an_engine_that_lacks_hiersched_says_what_to_do(stage: Stage):
    packed = Packer().pack_call(abs, (-3,))
    stage.hears(m.Blob(packed.function), packed.blobs[packed.function])
    stage.hears(call(1, function=packed.function), *packed.frames)
    stage.replies("apply_reply", error("ModuleNotFoundError", "No module named 'hiersched'"))
    with pytest.raises(RemoteError, match=r"install hiersched in the engines' environment \(No module named"):
        assert outcome_of(stage.says()[0], 1).value


def test_errors_keep_their_name_text_and_traceback(stage: Stage):
    stage.hears(call(1), b"arguments")
    stage.replies("apply_reply", error("ValueError", "too small"))
    failed = outcome_of(stage.says()[0], 1)
    assert isinstance(failed.error, RemoteError)
    assert (failed.error.ename, failed.error.evalue, failed.error.traceback) == ("ValueError", "too small", "line 1")
    stage.hears(m.Tasks([task(2)]))
    stage.replies("apply_reply", error("ValueError"))
    (results, frames) = stage.says()[0]
    (result,) = results.results  # type: ignore[union-attr]
    assert (result.code, len(frames)) == (m.RAISED, 1)


def test_a_task_whose_dependency_is_not_met_may_run_elsewhere(stage: Stage):
    stage.hears(m.Tasks([task(2)]))
    stage.replies("apply_reply", error("UnmetDependency", "numpy"))
    ((results, _),) = stage.says()
    assert results.results == [m.Result(2, RANK, 0, m.UNMET, b"UnmetDependency: numpy", 0)]  # type: ignore[union-attr]


def test_what_no_engine_says_fails_the_call_and_the_next_one_goes_on(stage: Stage):
    stage.hears(call(1), b"")
    stage.hears(call(2), b"")
    stage.replies("apply_reply", {"status": "nonsense"})
    assert isinstance(outcome_of(stage.says()[0], 1).error, RemoteError)
    stage.replies("apply_reply", OK, b"fine")
    assert outcome_of(stage.says()[0], 2).ok


def test_an_answer_to_something_else_is_not_heard(stage: Stage):
    stage.hears(call(1), b"")
    stage.replies("apply_reply", OK, b"old", to="request-0")
    assert stage.says() == []


# --- blobs ------------------------------------------------------------------------------------------------------------


def test_work_waits_for_its_blobs_and_so_does_all_behind_it(stage: Stage):
    data = b"d" * 100
    stage.hears(call(1, digest_of(data)), b"")
    stage.hears(call(2), b"")
    assert stage.says() == [(m.Want([digest_of(data)]), [])]
    assert stage.requests() == []
    stage.hears(m.Blob(digest_of(data)), data)
    stage.replies("apply_reply", OK, b"1")
    stage.replies("apply_reply", OK, b"2")
    assert [outcome_of(said, number).ok for number, said in enumerate(stage.says(), 1)] == [True, True]


def test_work_whose_data_is_nowhere_is_answered_and_the_next_goes_on(stage: Stage):
    stage.hears(call(1, b"x" * 16), b"")
    stage.hears(call(2), b"")
    stage.hears(m.Missing([b"x" * 16]))
    assert loss_in(stage.says()[-1]) == (1, m.BLOB_LOST)
    assert len(stage.requests()) == 1


def test_a_blob_that_does_not_come_in_time_is_given_up(stage: Stage):
    stage.hears(call(1, b"x" * 16), b"")
    assert [delay_s for delay_s, _ in stage.put_off] == [BLOB_TIMEOUT_S]
    stage.time_comes()
    assert loss_in(stage.says()[-1]) == (1, m.BLOB_LOST)
    stage.hears(call(2, b"x" * 16), b"")  # it may have come meanwhile
    assert stage.says() == [(m.Want([b"x" * 16]), [])]


# --- withdrawn and signalled ------------------------------------------------------------------------------------------


def test_what_the_engine_was_not_asked_for_is_withdrawn(stage: Stage):
    stage.hears(call(1), b"")
    stage.hears(call(2), b"")
    stage.hears(m.Tasks([task(3)]))
    stage.hears(m.Cancel([1, 2, 3]))
    (reply, results) = stage.says()
    assert loss_in(reply) == (2, m.CANCELLED)
    assert [(one.id, one.code) for one in results[0].results] == [(3, m.CANCELLED)]  # type: ignore[union-attr]
    stage.replies("apply_reply", OK, b"1")
    assert outcome_of(stage.says()[0], 1).ok
    assert len(stage.requests()) == 1


def test_work_that_waits_for_a_blob_makes_way_when_it_is_withdrawn(stage: Stage):
    stage.hears(call(1, b"x" * 16), b"")
    stage.hears(call(2), b"next")
    stage.hears(m.Cancel([1]))
    assert loss_in(stage.says()[-1]) == (1, m.CANCELLED)
    assert [request[3][1:] for request in stage.requests()] == [[b"next"]]
    stage.time_comes()
    assert stage.says() == []


def test_what_runs_is_interrupted_through_the_nanny_if_that_is_wanted(stage: Stage):
    stage.hears(call(1), b"")
    stage.requests()
    stage.hears(m.Cancel([1]))
    assert stage.requests() == []
    stage.hears(m.Cancel([1], running=True))
    assert stage.requests() == [("control", "signal_request", {"sig": signal.SIGINT}, [])]
    stage.replies("apply_reply", error("KeyboardInterrupt"), to="request-1")
    assert loss_in(stage.says()[-1]) == (1, m.INTERRUPTED)


def test_code_that_is_interrupted_by_others_has_failed(stage: Stage):
    stage.hears(call(1), b"")
    stage.replies("apply_reply", error("KeyboardInterrupt"))
    assert isinstance(outcome_of(stage.says()[0], 1).error, RemoteError)


def test_what_the_engine_puts_aside_was_cancelled(stage: Stage):
    stage.hears(call(1), b"")
    stage.replies("apply_reply", {"status": "aborted"})
    assert loss_in(stage.says()[0]) == (1, m.CANCELLED)


def test_signals_go_to_the_nanny_and_the_doorbell_to_nobody(stage: Stage):
    stage.guest.signal(DOORBELL)
    stage.guest.signal(signal.SIGTERM)
    assert stage.requests() == [("control", "signal_request", {"sig": signal.SIGTERM}, [])]


def test_an_engine_is_dismissed_when_the_cluster_ends(stage: Stage):
    stage.hears(m.Stop("it was told to"))
    assert stage.dismissed


# --- output -----------------------------------------------------------------------------------------------------------


def test_what_was_printed_goes_before_the_answer_which_waits_for_it(stage: Stage):
    stage.hears(call(1), b"")
    stage.publishes("stream", {"name": "stdout", "text": "one "})
    stage.replies("apply_reply", OK, b"value", idle=False)
    stage.publishes("stream", {"name": "stdout", "text": "two"})
    stage.publishes("stream", {"name": "stderr", "text": "three"})
    assert stage.says() == []
    stage.publishes("status", {"execution_state": "idle"})
    outputs, reply = stage.says()
    assert output_of(outputs, 1) == [Text("stdout", "one two"), Text("stderr", "three")]
    assert outcome_of(reply, 1).ok


def test_an_engine_that_never_says_that_it_is_idle_is_not_waited_for_long(stage: Stage):
    stage.hears(call(1), b"")
    stage.replies("apply_reply", OK, b"value", idle=False)
    assert [delay_s for delay_s, _ in stage.put_off] == [GUEST_OUTPUT_TIMEOUT_S]
    stage.time_comes()
    assert outcome_of(stage.says()[0], 1).ok
    stage.hears(call(2), b"")
    stage.publishes("status", {"execution_state": "idle"}, of="request-1")  # too late, and of another
    stage.replies("apply_reply", OK, b"value", idle=False)
    assert stage.says() == []


def test_output_of_code_that_runs_on_goes_ahead(stage: Stage):
    stage.hears(call(1), b"")
    stage.publishes("stream", {"name": "stdout", "text": "step 1"})
    stage.publishes("stream", {"name": "stdout", "text": ", step 2"})
    assert [delay_s for delay_s, _ in stage.put_off] == [OUTPUT_FLUSH_S]
    stage.time_comes()
    assert output_of(stage.says()[0], 1) == [Text("stdout", "step 1, step 2")]


def test_much_output_goes_at_once(stage: Stage):
    stage.hears(call(1), b"")
    stage.publishes("stream", {"name": "stdout", "text": "x" * INLINE_BYTES_MAX})
    assert len(output_of(stage.says()[0], 1)[0].text) == INLINE_BYTES_MAX  # type: ignore[union-attr]


def test_what_a_thread_prints_between_calls_goes_with_the_next_one(stage: Stage):
    stage.publishes("stream", {"name": "stdout", "text": "late"}, of="request-0")
    assert stage.says() == []
    stage.hears(call(1), b"")
    stage.replies("apply_reply", OK, b"value")
    assert output_of(stage.says()[0], 1) == [Text("stdout", "late")]


def test_widgets_and_displays_are_told_as_our_own(stage: Stage):
    stage.hears(call(1), b"")
    stage.publishes("display_data", {"data": {"text/plain": "x"}, "metadata": {}, "transient": {"display_id": "a"}})
    stage.publishes("comm_msg", {"comm_id": "c", "data": {"value": 1}})
    stage.publishes("execute_input", {"code": "1"})
    stage.replies("apply_reply", OK, b"value")
    assert output_of(stage.says()[0], 1) == [
        Shown({"text/plain": "x"}, {}, {"display_id": "a"}),
        Comm("comm_msg", {"comm_id": "c", "data": {"value": 1}}),
    ]


# --- cells ------------------------------------------------------------------------------------------------------------


def test_a_cell_is_executed_and_its_last_expression_comes_back(stage: Stage):
    request, frame = cell(1, "6 * 7", silent=False)
    stage.hears(request, frame)
    ((channel, msg_type, content, _),) = stage.requests()
    assert (channel, msg_type) == ("mux", "execute_request")
    assert content["code"] == "6 * 7"
    assert (content["silent"], content["store_history"], content["allow_stdin"]) == (False, True, False)
    stage.publishes("execute_result", {"data": {"text/plain": "42"}, "metadata": {}, "execution_count": 3})
    stage.replies("execute_reply", {**OK, "execution_count": 3, "payload": [], "user_expressions": {}})
    assert outcome_of(stage.says()[0], 1).value == CellReply(3, {"data": {"text/plain": "42"}, "metadata": {}})


def test_an_old_clients_cell_has_its_expressions_evaluated_and_nothing_pickled(stage: Stage):
    request, frame = cell(1, "pass", jupyter=True, expressions={"a": "1 + 1"})
    stage.hears(request, frame)
    assert stage.requests()[0][2]["user_expressions"] == {"a": "1 + 1"}
    shown = {"status": "ok", "data": {"text/plain": "2"}}
    stage.replies("execute_reply", {**OK, "execution_count": 1, "user_expressions": {"a": shown}})
    reply = unpack_jupyter_reply(outcome_of(stage.says()[0], 1).buffers[0])
    assert (reply.execution_count, reply.execute_result, reply.user_expressions) == (1, None, {"a": shown})


def test_a_cell_that_fails_says_how_and_a_page_is_displayed(stage: Stage):
    request, frame = cell(1, "print?; 1 / 0")
    stage.hears(request, frame)
    page = {"source": "page", "data": {"text/plain": "help"}}
    stage.replies("execute_reply", {**error("ZeroDivisionError"), "execution_count": 1, "payload": [page]})
    outputs, reply = stage.says()
    assert output_of(outputs, 1) == [Shown({"text/plain": "help"})]
    assert isinstance(outcome_of(reply, 1).error, RemoteError)


def test_what_is_no_cell_fails_and_never_reaches_the_engine(stage: Stage):
    request, _ = cell(1, "")
    stage.hears(request, b"\xc1")
    assert isinstance(outcome_of(stage.says()[0], 1).error, RemoteError)
    assert stage.requests() == []
