"""An engine takes work in order, runs it, answers; it asks for what it lacks and lets nobody wait for the rest."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from hiersched.limits import RESULTS_FLUSH_S
from hiersched.nodes import stock as stock_module
from hiersched.protocol import messages as m
from hiersched.protocol.framing import Frame
from tests.nodes.fakes import (
    DATA,
    DOUBLE,
    LARGE,
    LONG,
    MORE,
    RANK,
    SLOW,
    FakeLine,
    Work,
    answer,
    call,
    results,
    task,
)

# --- calls and tasks --------------------------------------------------------------------------------------------------


def test_calls_are_answered_one_by_one_in_order(line: FakeLine, run: Callable[[], list[Any]]) -> None:
    for request, payload in enumerate((b"a", b"b", b"c"), 1):
        line.says(call(request), payload)
    assert run() == [answer(1, b"aa"), answer(2, b"bb"), answer(3, b"cc")]


def test_cells_go_their_own_lane(line: FakeLine, run: Callable[[], list[Any]]) -> None:
    line.says(call(1, m.NO_FUNCTION, lane=m.CELL_LANE), b"1 + 1")
    assert run() == [answer(1, b"cell 1 + 1")]


def test_a_cell_that_fails_and_halts_withdraws_the_calls_of_its_session_behind_it(
    line: FakeLine, lanes: Work, run: Callable[[], list[Any]]
) -> None:
    other_session = 1 << m.SESSION_SHIFT
    line.says(call(1, m.NO_FUNCTION, lane=m.CELL_LANE), b"raise and halt")
    line.says(call(2), b"a")
    line.says(call(other_session), b"b")
    line.says(m.Tasks([task(3)]))
    said = run()
    withdrawn = [reply for reply in said if isinstance(reply, m.Reply) and reply.losses]
    assert [(reply.request, reply.losses[0].code) for reply in withdrawn] == [(2, m.CANCELLED)]
    assert lanes.ran == [b"raise and halt", b"b", b"x"]


def test_a_cell_that_fails_without_halting_leaves_others_alone(line: FakeLine, run: Callable[[], list[Any]]) -> None:
    line.says(call(1, m.NO_FUNCTION, lane=m.CELL_LANE), b"raise")
    line.says(call(2), b"a")
    assert run()[-1] == answer(2, b"aa")


def test_results_of_short_tasks_leave_together(line: FakeLine, run: Callable[[], list[Any]]) -> None:
    line.says(m.Tasks([task(1), task(2, payload=b"y")]))
    first, second = run()
    assert results([first]) == [(1, 0, b"xx")]  # of a function never seen before, so not held back
    assert results([second]) == [(2, 0, b"yy")]
    line.said.clear()
    line.says(m.Tasks([task(0)]))
    line.says(m.Tasks([task(number) for number in range(3, 9)]))
    _, together = run()
    assert len(results([together])) == 6


def test_results_of_long_tasks_leave_at_once(line: FakeLine, run: Callable[[], list[Any]]) -> None:
    line.says(m.Tasks([task(number, SLOW) for number in range(4)]))
    said = run()
    assert [len(results([batch])) for batch in said] == [1, 1, 1, 1]


def test_results_do_not_wait_for_a_task_that_may_be_long(
    line: FakeLine, lanes: Work, run: Callable[[], list[Any]]
) -> None:
    sent_before: list[int] = []
    run_call = lanes.run_call

    def noting(function: bytes, *rest: Any) -> list[Frame]:
        if function == LONG:
            sent_before.append(len(results(line.said)))
        return run_call(function, *rest)

    lanes.run_call = noting  # type: ignore[method-assign]
    line.says(m.Tasks([task(1)]))
    line.says(m.Tasks([task(2), task(3), task(4, LONG)]))
    run()
    assert sent_before == [3]


def test_a_call_does_not_overtake_the_results_before_it(line: FakeLine, run: Callable[[], list[Any]]) -> None:
    line.says(m.Tasks([task(1)]))
    line.says(call(2), b"a")
    said = run()
    assert results(said[:1]) == [(1, 0, b"xx")]
    assert said[1] == answer(2, b"aa")


def test_durations_are_told_in_microseconds(line: FakeLine, run: Callable[[], list[Any]]) -> None:
    line.says(m.Tasks([task(1, SLOW)]))
    (batch,) = run()
    assert batch.results[0].duration_us == pytest.approx(2 * RESULTS_FLUSH_S * 1e6, abs=1)
    assert batch.results[0].rank == RANK


def test_payload_frames_belong_to_their_tasks(line: FakeLine, lanes: Work, run: Callable[[], list[Any]]) -> None:
    tasks = [m.Task(1, DOUBLE, [], b"a", 2), m.Task(2, DOUBLE, [], b"d", 0), m.Task(3, DOUBLE, [], b"e", 1)]
    line.says(m.Tasks(tasks), b"b", b"c", b"f")
    assert results(run()) == [(1, 0, b"abcabc"), (2, 0, b"dd"), (3, 0, b"efef")]


def test_a_large_result_is_what_it_was_when_its_task_ended(line: FakeLine, run: Callable[[], list[Any]]) -> None:
    line.says(m.Tasks([task(1, LARGE, b"a")]))
    line.says(m.Tasks([task(2, LARGE, b"b"), task(3, LARGE, b"c")]))
    said = run()
    frames = [frame for batch in said for frame in batch[1:]]
    assert [set(bytes(frame)) for frame in frames] == [{ord("a")}, {ord("b")}, {ord("c")}]


# --- blobs ------------------------------------------------------------------------------------------------------------


def test_what_came_before_is_used(line: FakeLine, run: Callable[[], list[Any]]) -> None:
    line.says(m.Blob(DATA), b"data")
    line.says(call(1, LONG, needs=[DATA]), b"")
    assert run() == [answer(1, b"data")]


def test_what_is_lacking_is_asked_for_once_and_work_goes_on_in_order(
    line: FakeLine, run: Callable[[], list[Any]]
) -> None:
    line.says(call(1, LONG, needs=[DATA, MORE]), b"")
    line.says(call(2), b"behind")
    line.says(m.Blob(MORE), b"more")
    line.says(m.Blob(DATA), b"data")
    assert run() == [m.Want([DATA, MORE]), answer(1, b"data+more"), answer(2, b"behindbehind")]


def test_a_function_never_seen_is_asked_for(line: FakeLine, run: Callable[[], list[Any]]) -> None:
    new = b"N" * 16
    line.says(call(1, new), b"a")
    line.says(m.Blob(new), b"packed")
    line.says(call(2, new), b"b")
    assert run() == [m.Want([new]), answer(1, b"aa"), answer(2, b"bb")]


def test_results_leave_before_the_engine_waits_for_a_blob(line: FakeLine, run: Callable[[], list[Any]]) -> None:
    line.says(m.Tasks([task(0)]))
    line.says(m.Tasks([task(1), task(2, DOUBLE, needs=[DATA])]))
    line.says(m.Blob(DATA), b"data")
    said = run()
    assert said.index(m.Want([DATA])) == 2
    assert [number for number, _, _ in results(said[:2])] == [0, 1]


@pytest.mark.parametrize("news", [m.Missing([DATA]), None])
def test_work_whose_data_is_nowhere_ends(
    line: FakeLine, lanes: Work, run: Callable[[], list[Any]], news: m.Missing | None
) -> None:
    line.says(call(1, LONG, needs=[DATA]), b"")
    if news is not None:
        line.says(news)
    want, lost = run()
    assert want == m.Want([DATA])
    assert lost.losses[0].code == m.BLOB_LOST
    assert lanes.ran == []


def test_a_task_whose_data_is_nowhere_ends_and_the_next_runs(line: FakeLine, run: Callable[[], list[Any]]) -> None:
    line.answers[m.Want] = lambda want: line.says(m.Missing(want.digests))
    line.says(m.Tasks([task(1, needs=[DATA]), task(2)]))
    assert [(number, code) for number, code, _ in results(run())] == [(1, m.BLOB_LOST), (2, 0)]


def test_what_was_missing_once_may_come_later(line: FakeLine, run: Callable[[], list[Any]]) -> None:
    line.says(call(1, LONG, needs=[DATA]), b"")
    line.says(m.Missing([DATA]))
    line.says(call(2, LONG, needs=[DATA]), b"")
    line.says(m.Blob(DATA), b"data")
    said = run()
    assert said[1].losses[0].code == m.BLOB_LOST
    assert said[2:] == [m.Want([DATA]), answer(2, b"data")]


def test_old_data_is_dropped_and_asked_for_again(
    line: FakeLine, run: Callable[[], list[Any]], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(stock_module, "BLOB_ENGINE_BYTES_MAX", 10)
    line.says(m.Blob(DATA), b"old data")
    line.says(m.Blob(MORE), b"new data")
    line.says(call(1, LONG, needs=[MORE]), b"")
    line.says(call(2, LONG, needs=[DATA]), b"")
    line.says(m.Blob(DATA), b"old data")
    assert run() == [answer(1, b"new data"), m.Want([DATA]), answer(2, b"old data")]


def test_one_call_may_need_more_than_is_kept(
    line: FakeLine, run: Callable[[], list[Any]], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(stock_module, "BLOB_ENGINE_BYTES_MAX", 10)
    contents = {DATA: b"old data", MORE: b"new data"}

    def supply(want: m.Want) -> None:
        for digest in want.digests:
            line.says(m.Blob(digest), contents[digest])

    line.answers[m.Want] = supply
    line.says(call(1, LONG, needs=[DATA, MORE]), b"")
    line.says(m.Tasks([task(2, LONG, needs=[MORE, DATA])]))
    said = run()
    assert said[:2] == [m.Want([DATA, MORE]), answer(1, b"old data+new data")]
    assert results(said) == [(2, 0, b"old data+new data")]
