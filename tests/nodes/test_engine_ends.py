"""However work ends on an engine, whoever asked is told; and it may outlive the engine's scheduler."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from hiersched.data.outcomes import unpack_outcome
from hiersched.data.outputs import unpack_outputs
from hiersched.data.serialize import pack_result
from hiersched.errors import ProtocolError, RemoteError
from hiersched.kernels import bitset
from hiersched.limits import BLOB_TIMEOUT_S, INLINE_BYTES_MAX, RESULT_GIVEN_BYTES_MAX
from hiersched.protocol import messages as m
from tests.hellos import held
from tests.nodes.fakes import (
    DATA,
    DOUBLE,
    HELLO,
    LARGE,
    LONG,
    RAISING,
    RANK,
    SLOW,
    TALKING,
    UNMET,
    FakeLine,
    Work,
    answer,
    call,
    results,
    task,
)

# --- how tasks and calls end ------------------------------------------------------------------------------------------


def test_reports_go_behind_the_outcome_of_a_call(line: FakeLine, run: Callable[[], list[Any]]) -> None:
    line.says(call(1, TALKING), b"")
    line.says(call(2, RAISING), b"")
    printed, raised = run()
    assert printed[0].reports == [m.Report(bitset.to_wire(1 << RANK))]
    assert printed[1:] == (b"head", b"printed")
    assert raised[1:] == (b"head", b"how")
    assert raised[0].losses == []


def test_the_result_of_a_task_says_whether_it_raised(line: FakeLine, run: Callable[[], list[Any]]) -> None:
    line.says(m.Tasks([task(1, TALKING), task(2, RAISING)]))
    first, second = run()
    assert [(result.code, result.frames) for batch in (first[0], second[0]) for result in batch.results] == [
        (0, 1),
        (m.RAISED, 1),
    ]
    assert (first[1], second[1]) == (b"printed", b"how")


def test_a_task_that_belongs_elsewhere_says_why(line: FakeLine, run: Callable[[], list[Any]]) -> None:
    line.says(m.Tasks([task(1, UNMET)]))
    line.says(call(2, UNMET), b"")
    batch, reply = run()
    assert results([batch]) == [(1, m.UNMET, b"UnmetDependency: no GPU here")]
    assert reply[0].losses == []  # nobody can take a direct call elsewhere
    outcome = unpack_outcome(reply[1:])
    assert isinstance(outcome.error, RemoteError)
    assert outcome.error.ename == "UnmetDependency"


def test_what_was_printed_goes_ahead_of_a_result_that_has_no_room_for_it(
    line: FakeLine, lanes: Work, run: Callable[[], list[Any]]
) -> None:
    lanes.transcript.write("stdout", "tried")
    line.says(m.Tasks([task(1, UNMET)]))
    piece, _ = run()
    assert piece[0] == m.Outputs([m.Piece(1, bitset.to_wire(1 << RANK))])
    assert [output.text for output in unpack_outputs(piece[1])] == ["tried"]  # type: ignore[union-attr]


def test_an_interrupt_that_comes_while_the_answer_is_packed_is_the_answer(
    line: FakeLine, lanes: Work, run: Callable[[], list[Any]]
) -> None:
    def struck(*_: Any) -> Any:
        assert lanes.engine is not None
        lanes.engine.floor.on_interrupt()
        raise AssertionError("the interrupt did not strike")

    lanes.run_call = struck  # type: ignore[method-assign]
    line.says(call(1), b"a")
    line.says(call(2, m.NO_FUNCTION, lane=m.CELL_LANE), b"next")
    interrupted, after = run()
    assert interrupted[1:] == (b"failed", b"KeyboardInterrupt()")
    assert interrupted[0].losses == []  # nobody had withdrawn it
    assert after == answer(2, b"cell next")


def test_a_result_that_cannot_be_copied_is_an_error(
    line: FakeLine, lanes: Work, run: Callable[[], list[Any]], monkeypatch: pytest.MonkeyPatch
) -> None:
    def no_memory(frame: object) -> None:
        raise MemoryError

    monkeypatch.setattr("hiersched.nodes.engine._detached", no_memory)
    line.says(call(1, LARGE), b"a")
    line.says(call(2), b"b")
    failed, after = run()
    assert b"no memory" in failed[-1]
    assert after == answer(2, b"bb")


def test_what_code_changed_is_put_back_when_it_ran_for_long(
    line: FakeLine, lanes: Work, run: Callable[[], list[Any]]
) -> None:
    line.says(m.Tasks([task(1), task(2, SLOW), task(3)]))
    line.says(call(4, SLOW), b"")
    run()
    assert lanes.surroundings.restored == 2


# --- results of other tasks as arguments ------------------------------------------------------------------------------


def test_what_is_given_reaches_the_call(line: FakeLine, lanes: Work, run: Callable[[], list[Any]]) -> None:
    line.says(m.Tasks([m.Task(1, DOUBLE, [], b"x", 0, None, [(7, b"outcome 7")])]))
    run()
    assert lanes.results == {7: [b"outcome 7"]}


def test_a_large_result_made_here_is_not_asked_for(line: FakeLine, lanes: Work, run: Callable[[], list[Any]]) -> None:
    line.says(m.Tasks([task(7, LARGE, b"a")]))
    line.says(m.Tasks([task(8, payload=b"s"), task(9, needs=[m.result_digest(7)])]))
    said = run()
    assert [type(words[0] if isinstance(words, tuple) else words) for words in said] == [m.Results] * len(said)
    assert lanes.results is not None
    head, body = lanes.results[7]
    assert (head, len(body)) == (b"head", INLINE_BYTES_MAX)


def test_another_result_is_asked_for_and_comes_as_a_blob(
    line: FakeLine, lanes: Work, run: Callable[[], list[Any]]
) -> None:
    line.says(call(1, needs=[m.result_digest(7)]), b"")
    line.says(m.Blob(m.result_digest(7)), pack_result([b"head", b"body"]))
    assert run()[0] == m.Want([m.result_digest(7)])
    assert lanes.results == {7: [b"head", b"body"]}


def test_a_blob_that_is_no_result_is_left_out(line: FakeLine, lanes: Work, run: Callable[[], list[Any]]) -> None:
    line.says(m.Blob(m.result_digest(7)), b"\xc1")
    line.says(call(1, needs=[m.result_digest(7)]), b"")
    run()
    assert lanes.results == {}


def test_small_results_and_failures_are_not_held(line: FakeLine, lanes: Work, run: Callable[[], list[Any]]) -> None:
    line.says(m.Tasks([task(7, payload=b"x" * (RESULT_GIVEN_BYTES_MAX // 2)), task(8, RAISING)]))
    line.says(m.Tasks([task(9, needs=[m.result_digest(7), m.result_digest(8)])]))
    said = run()
    assert m.Want(sorted([m.result_digest(7), m.result_digest(8)])) in said
    assert results(said)[-1][:2] == (9, m.BLOB_LOST)


# --- cancelling and stopping ------------------------------------------------------------------------------------------


def test_work_cancelled_in_time_does_not_run_and_is_answered_at_once(
    line: FakeLine, lanes: Work, run: Callable[[], list[Any]]
) -> None:
    line.says(m.Tasks([task(1, SLOW, b"1"), task(2, SLOW, payload=b"2"), task(3, payload=b"3")]))
    line.says(call(4), b"4")
    line.says(m.Cancel([3, 4, 99]))  # read after the first, which takes long
    said = run()
    assert [(number, code) for number, code, _ in results(said)] == [(1, 0), (3, m.CANCELLED), (2, 0)]
    assert said[1] == m.Reply(4, [], [m.Loss(bitset.to_wire(1 << RANK), m.CANCELLED, "cancelled before it started")])
    assert lanes.ran == [b"1", b"2"]


@pytest.mark.parametrize("running", [True, False])
def test_work_that_waits_for_its_data_can_be_cancelled(
    line: FakeLine, lanes: Work, run: Callable[[], list[Any]], running: bool
) -> None:
    line.says(call(1, LONG, needs=[DATA]), b"")
    line.says(m.Cancel([1], running))
    line.says(m.Tasks([task(2, needs=[DATA]), task(3)]))
    line.says(m.Cancel([2], running))
    said = run()
    assert said[1].losses[0].code == m.CANCELLED
    assert [(number, code) for number, code, _ in results(said)] == [(2, m.CANCELLED), (3, 0)]
    assert lanes.ran == [b"x"]


def test_data_that_does_not_come_is_not_waited_for_for_ever(line: FakeLine, run: Callable[[], list[Any]]) -> None:
    line.says(call(1, LONG, needs=[DATA]), b"")
    line.woken.extend([lambda: None] * 2)
    began_s = line.now_s
    assert run()[1].losses[0].code == m.BLOB_LOST
    assert line.now_s - began_s == BLOB_TIMEOUT_S


def test_a_stop_ends_it_with_work_left(line: FakeLine, lanes: Work, run: Callable[[], list[Any]]) -> None:
    line.says(call(1, LONG, needs=[DATA]), b"")
    line.says(m.Stop("now"))
    line.says(call(2), b"never")
    said = run()
    assert said[0] == m.Want([DATA])
    assert lanes.ran == []


def test_an_engine_that_is_refused_ends(line: FakeLine, run: Callable[[], list[Any]]) -> None:
    line.says(m.Refused("NotAuthorised", "wrong key"))
    line.says(call(1), b"a")
    assert run() == []


def test_what_is_no_message_is_dropped(line: FakeLine, lanes: Work, run: Callable[[], list[Any]]) -> None:
    line.says(ProtocolError("noise"))
    line.says(m.Beat())
    line.says(call(1), b"a")
    assert run() == [answer(1, b"aa")]
    assert lanes.surroundings.logged == ["engine 5: dropped a message: noise"]


# --- when its scheduler is gone ---------------------------------------------------------------------------------------


def ring(line: FakeLine, lanes: Work) -> None:
    """The scheduler is lost, and the doorbell tells."""
    assert lanes.engine is not None
    line.lost = True
    lanes.engine.floor.on_doorbell()


def test_an_orphan_says_what_it_holds_and_sends_again_what_may_be_lost(
    line: FakeLine, lanes: Work, run: Callable[[], list[Any]]
) -> None:
    line.ancestors = 1
    line.says(m.Welcome(0, (0, b""), {"keep": True}))
    line.says(m.Tasks([task(1)]))
    line.says(call(2), b"a")
    line.says(m.Tasks([task(3)]))
    line.says(m.Ack(1, []))
    line.answers[m.Results] = lambda batch: ring(line, lanes) if batch.results[0].id == 3 else None
    said = run()
    assert results(said[:1]) == [(1, 0, b"xx")]
    assert said[1] == answer(2, b"aa")
    assert results(said[2:3]) == [(3, 0, b"xx")]
    assert isinstance(said[3], m.Hello)
    assert sorted(held(said[3])) == [2, 3]  # the first was acknowledged
    assert results(said[4:5]) == [(3, 0, b"xx")]
    assert said[5] == answer(2, b"aa")


def test_work_that_an_orphan_has_not_begun_is_among_what_it_holds(
    line: FakeLine, lanes: Work, run: Callable[[], list[Any]]
) -> None:
    line.ancestors = 1
    line.says(m.Welcome(0, (0, b""), {"keep": True}))
    line.says(m.Tasks([task(0)]))
    line.says(m.Tasks([task(1), task(2, needs=[DATA]), task(3)]))
    line.says(call(4), b"a")
    line.answers[m.Want] = lambda want: ring(line, lanes) if line.ancestors else line.says(m.Blob(DATA), b"data")
    said = run()
    hello = next(words for words in said if isinstance(words, m.Hello))
    assert sorted(held(hello)) == [0, 1, 2, 3, 4]
    assert said.count(m.Want([DATA])) == 2  # asked again where it is now
    assert [number for number, _, _ in results(said)][-2:] == [2, 3]
    assert said[-1] == answer(4, b"aa")


def test_directly_below_the_root_nothing_is_kept(line: FakeLine, lanes: Work, run: Callable[[], list[Any]]) -> None:
    line.ancestors = 2
    line.says(m.Welcome(0, (0, b""), {"keep": True}))
    line.says(call(1), b"a")
    line.says(m.Welcome(0, (0, b""), {"keep": False}))
    line.says(call(2), b"b")
    line.answers[m.Reply] = lambda reply: ring(line, lanes) if reply.request == 2 else None
    said = run()
    assert said[-1] == HELLO


def test_an_orphan_without_an_ancestor_ends(line: FakeLine, lanes: Work, run: Callable[[], list[Any]]) -> None:
    line.woken.append(lambda: ring(line, lanes))
    assert run() == []
    assert line.wakes == 1


def test_a_doorbell_rung_for_nothing_changes_nothing(line: FakeLine, lanes: Work, run: Callable[[], list[Any]]) -> None:
    line.woken.append(lambda: lanes.engine.floor.on_doorbell())  # type: ignore[union-attr]
    line.says(call(1), b"a")
    assert run() == [answer(1, b"aa")]
