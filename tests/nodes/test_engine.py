"""An engine takes work in order, runs it, answers; it asks for what it lacks and lets nobody wait for the rest."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

import numpy as np
import pytest

from hiersched.data.outcomes import unpack_outcome
from hiersched.data.outputs import unpack_outputs
from hiersched.data.serialize import pack_result
from hiersched.errors import ProtocolError, RemoteError
from hiersched.kernels import bitset
from hiersched.limits import BLOB_TIMEOUT_S, INLINE_BYTES_MAX, RESULT_GIVEN_BYTES_MAX, RESULTS_FLUSH_S
from hiersched.nodes import stock as stock_module
from hiersched.nodes.engine import Engine
from hiersched.protocol import messages as m
from hiersched.protocol.framing import Frame
from tests.nodes.fakes import HELLO, RANK, FakeLanes, FakeLine, packed

DOUBLE, LONG, SLOW, LARGE, RAISING, UNMET, TALKING = (name * 16 for name in (b"D", b"L", b"S", b"B", b"R", b"U", b"T"))
DATA, MORE = b"1" * 16, b"2" * 16


class Work(FakeLanes):
    """Functions by digest; each takes the payload and the blobs and gives an outcome."""

    def __init__(self, line: FakeLine) -> None:
        super().__init__()
        self.line = line
        self.unpacker |= {DOUBLE, LONG, SLOW, LARGE, RAISING, UNMET, TALKING}
        self.scratch = np.zeros(INLINE_BYTES_MAX, np.uint8)

    def run_call(
        self,
        function: bytes,
        frames: Sequence[Frame],
        blobs: Mapping[bytes, Any],
        results: Mapping[int, Sequence[Frame]] | None = None,
    ) -> Any:
        self.unpacker.add(function)
        payload = b"".join(bytes(frame) for frame in frames)
        self.ran.append(payload)
        self.results = results
        if function == SLOW:
            self.line.now_s += 2 * RESULTS_FLUSH_S
        if function == LARGE:
            self.scratch[:] = payload[0]
            return packed(b"head", memoryview(self.scratch))
        if function == LONG:
            return packed(b"+".join(bytes(blobs[digest]) for digest in sorted(blobs)))
        if function in (RAISING, UNMET):
            return packed(b"head", reports=[b"how"], code=m.RAISED) if function == RAISING else self.unmet()
        if function == TALKING:
            return packed(b"head", reports=[b"printed"])
        return packed(payload * 2)


@pytest.fixture
def line(monkeypatch: pytest.MonkeyPatch) -> Iterator[FakeLine]:
    line = FakeLine()
    for clock in ("perf_counter", "monotonic"):
        monkeypatch.setattr(f"hiersched.nodes.engine.time.{clock}", lambda: line.now_s)
    yield line
    line.close()


@pytest.fixture
def lanes(line: FakeLine) -> Work:
    return Work(line)


@pytest.fixture
def run(line: FakeLine, lanes: Work) -> Callable[[], list[Any]]:
    """Run an engine through the script; everything it said."""

    def run() -> list[Any]:
        engine = lanes.engine = Engine(line, RANK, lanes, HELLO)  # type: ignore[arg-type]
        try:
            engine.run()
        finally:
            engine.speaker.close()
        return line.said

    return run


def call(request: int, function: bytes = DOUBLE, *, lane: int = m.CALL_LANE, needs: Sequence[bytes] = ()) -> m.Call:
    return m.Call(request, bitset.to_wire(1 << RANK), lane, function, list(needs), [])


def task(number: int, function: bytes = DOUBLE, payload: bytes = b"x", *, needs: Sequence[bytes] = ()) -> m.Task:
    return m.Task(number, function, list(needs), payload, 0)


def answer(request: int, *frames: bytes) -> Any:
    chunk = m.Chunk(bitset.to_wire(1 << RANK), [], len(frames))
    return (m.Reply(request, [chunk], []), *frames)


def results(said: list[Any]) -> list[tuple[int, int, bytes]]:
    """(task, code, payload) of all results, in order."""
    batches = [words[0] if isinstance(words, tuple) else words for words in said]
    return [(r.id, r.code, r.payload) for batch in batches if type(batch) is m.Results for r in batch.results]


# --- calls and tasks --------------------------------------------------------------------------------------------------


def test_calls_are_answered_one_by_one_in_order(line: FakeLine, run: Callable[[], list[Any]]) -> None:
    for request, payload in enumerate((b"a", b"b", b"c"), 1):
        line.says(call(request), payload)
    assert run() == [answer(1, b"aa"), answer(2, b"bb"), answer(3, b"cc")]


def test_cells_go_their_own_lane(line: FakeLine, run: Callable[[], list[Any]]) -> None:
    line.says(call(1, m.NO_FUNCTION, lane=m.CELL_LANE), b"1 + 1")
    assert run() == [answer(1, b"cell 1 + 1")]


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
    assert sorted(said[3].holds) == [2, 3]  # the first was acknowledged
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
    assert sorted(hello.holds) == [0, 1, 2, 3, 4]
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
