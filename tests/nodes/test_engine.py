"""An engine takes work in order, runs it, answers; it asks for what it lacks and lets nobody wait for the rest."""

from __future__ import annotations

import signal
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
import pytest

from hiersched.errors import ProtocolError
from hiersched.kernels import bitset
from hiersched.limits import INLINE_BYTES_MAX, RESULTS_FLUSH_S
from hiersched.nodes import engine as engine_module
from hiersched.nodes.engine import Engine, _interrupt
from hiersched.protocol import messages as m
from hiersched.protocol.framing import Frame, decode, encode

RANK = 5
DOUBLE, LONG, SLOW, LARGE = (name * 16 for name in (b"D", b"L", b"S", b"B"))
DATA, MORE = b"1" * 16, b"2" * 16


class FakeUplink:
    """A scheduler that says what a test wrote down, and stops the engine in the end.

    Everything passes over the wire format in both directions. now_s: the engine's clock.
    """

    def __init__(self) -> None:
        self.script: deque[Any] = deque()
        self.said: list[Any] = []
        self.answers: dict[type, Callable[[Any], None]] = {}
        self.now_s = 1000.0

    def says(self, message: m.Message | Exception, *frames: Frame) -> None:
        self.script.append((message, frames))

    def receive(self) -> tuple[bytes, m.Message, Sequence[Frame]]:
        message, frames = self.script.popleft() if self.script else (m.Stop("the end of the test"), ())
        if isinstance(message, Exception):
            raise message
        first, *others = (bytes(part) for part in encode(message, frames))
        return b"", *decode(first, others)

    def wait(self, timeout_s: float) -> bool:
        return bool(self.script)

    def readable(self) -> bool:
        return bool(self.script)

    def send(self, message: m.Message, frames: Sequence[Frame] = ()) -> None:
        first, *others = (bytes(part) for part in encode(message, frames))
        sent, payload = decode(first, others)
        self.said.append((sent, *payload) if payload else sent)
        answer = self.answers.get(type(message))
        if answer is not None:
            answer(message)


class FakeLanes:
    """Functions by digest; each takes the payload and the blobs and gives frames."""

    def __init__(self, uplink: FakeUplink) -> None:
        self.uplink = uplink
        self.ran: list[bytes] = []
        self.engine: Engine | None = None
        self.unpacker: set[bytes] = {DOUBLE, LONG, SLOW, LARGE}
        self.scratch = np.zeros(INLINE_BYTES_MAX, np.uint8)

    def run_call(self, function: bytes, frames: Sequence[Frame], blobs: Mapping[bytes, Any]) -> list[Frame]:
        self.unpacker.add(function)
        payload = b"".join(bytes(frame) for frame in frames)
        self.ran.append(payload)
        if function == SLOW:
            self.uplink.now_s += 2 * RESULTS_FLUSH_S
        if function == LARGE:
            self.scratch[:] = payload[0]
            return [b"head", memoryview(self.scratch)]
        if function == LONG:
            return [b"+".join(bytes(blobs[digest]) for digest in sorted(blobs))]
        return [payload * 2]

    def run_cell(self, frames: Sequence[Frame]) -> list[Frame]:
        self.ran.append(bytes(frames[0]))
        return [b"cell " + bytes(frames[0])]

    def interrupted(self, error: KeyboardInterrupt) -> list[Frame]:
        return [b"interrupted"]


@pytest.fixture
def uplink(monkeypatch: pytest.MonkeyPatch) -> FakeUplink:
    uplink = FakeUplink()
    monkeypatch.setattr(engine_module.time, "perf_counter", lambda: uplink.now_s)
    return uplink


@pytest.fixture
def lanes(uplink: FakeUplink) -> FakeLanes:
    return FakeLanes(uplink)


@pytest.fixture
def run(uplink: FakeUplink, lanes: FakeLanes) -> Callable[[], list[Any]]:
    """Run an engine through the script; everything it said."""

    def run() -> list[Any]:
        lanes.engine = Engine(uplink, RANK, lanes)  # type: ignore[arg-type]
        lanes.engine.run()
        return uplink.said

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


def test_calls_are_answered_one_by_one_in_order(uplink: FakeUplink, run: Callable[[], list[Any]]) -> None:
    for request, payload in enumerate((b"a", b"b", b"c"), 1):
        uplink.says(call(request), payload)
    assert run() == [answer(1, b"aa"), answer(2, b"bb"), answer(3, b"cc")]


def test_cells_go_their_own_lane(uplink: FakeUplink, run: Callable[[], list[Any]]) -> None:
    uplink.says(call(1, m.NO_FUNCTION, lane=m.CELL_LANE), b"1 + 1")
    assert run() == [answer(1, b"cell 1 + 1")]


def test_results_of_short_tasks_leave_together(uplink: FakeUplink, run: Callable[[], list[Any]]) -> None:
    uplink.says(m.Tasks([task(1), task(2, payload=b"y")]))
    first, second = run()
    assert results([first]) == [(1, 0, b"xx")]  # of a function never seen before, so not held back
    assert results([second]) == [(2, 0, b"yy")]
    uplink.said.clear()
    uplink.says(m.Tasks([task(0)]))
    uplink.says(m.Tasks([task(number) for number in range(3, 9)]))
    _, together = run()
    assert len(results([together])) == 6


def test_results_of_long_tasks_leave_at_once(uplink: FakeUplink, run: Callable[[], list[Any]]) -> None:
    uplink.says(m.Tasks([task(number, SLOW) for number in range(4)]))
    said = run()
    assert [len(results([batch])) for batch in said] == [1, 1, 1, 1]


def test_results_do_not_wait_for_a_task_that_may_be_long(
    uplink: FakeUplink, lanes: FakeLanes, run: Callable[[], list[Any]]
) -> None:
    sent_before: list[int] = []
    run_call = lanes.run_call

    def noting(function: bytes, *rest: Any) -> list[Frame]:
        if function == LONG:
            sent_before.append(len(results(uplink.said)))
        return run_call(function, *rest)

    lanes.run_call = noting  # type: ignore[method-assign]
    uplink.says(m.Tasks([task(1)]))
    uplink.says(m.Tasks([task(2), task(3), task(4, LONG)]))
    run()
    assert sent_before == [3]


def test_a_call_does_not_overtake_the_results_before_it(uplink: FakeUplink, run: Callable[[], list[Any]]) -> None:
    uplink.says(m.Tasks([task(1)]))
    uplink.says(call(2), b"a")
    said = run()
    assert results(said[:1]) == [(1, 0, b"xx")]
    assert said[1] == answer(2, b"aa")


def test_durations_are_told_in_microseconds(uplink: FakeUplink, run: Callable[[], list[Any]]) -> None:
    uplink.says(m.Tasks([task(1, SLOW)]))
    (batch,) = run()
    assert batch.results[0].duration_us == pytest.approx(2 * RESULTS_FLUSH_S * 1e6, abs=1)
    assert batch.results[0].rank == RANK


def test_payload_frames_belong_to_their_tasks(
    uplink: FakeUplink, lanes: FakeLanes, run: Callable[[], list[Any]]
) -> None:
    tasks = [m.Task(1, DOUBLE, [], b"a", 2), m.Task(2, DOUBLE, [], b"d", 0), m.Task(3, DOUBLE, [], b"e", 1)]
    uplink.says(m.Tasks(tasks), b"b", b"c", b"f")
    assert results(run()) == [(1, 0, b"abcabc"), (2, 0, b"dd"), (3, 0, b"efef")]


def test_a_large_result_is_what_it_was_when_its_task_ended(uplink: FakeUplink, run: Callable[[], list[Any]]) -> None:
    uplink.says(m.Tasks([task(1, LARGE, b"a")]))
    uplink.says(m.Tasks([task(2, LARGE, b"b"), task(3, LARGE, b"c")]))
    said = run()
    frames = [frame for batch in said for frame in batch[1:]]
    assert [set(bytes(frame)) for frame in frames] == [{ord("a")}, {ord("b")}, {ord("c")}]


# --- blobs ------------------------------------------------------------------------------------------------------------


def test_what_came_before_is_used(uplink: FakeUplink, run: Callable[[], list[Any]]) -> None:
    uplink.says(m.Blob(DATA), b"data")
    uplink.says(call(1, LONG, needs=[DATA]), b"")
    assert run() == [answer(1, b"data")]


def test_what_is_lacking_is_asked_for_once_and_work_goes_on_in_order(
    uplink: FakeUplink, run: Callable[[], list[Any]]
) -> None:
    uplink.says(call(1, LONG, needs=[DATA, MORE]), b"")
    uplink.says(call(2), b"behind")
    uplink.says(m.Blob(MORE), b"more")
    uplink.says(m.Blob(DATA), b"data")
    assert run() == [m.Want([DATA, MORE]), answer(1, b"data+more"), answer(2, b"behindbehind")]


def test_a_function_never_seen_is_asked_for(uplink: FakeUplink, run: Callable[[], list[Any]]) -> None:
    new = b"N" * 16
    uplink.says(call(1, new), b"a")
    uplink.says(m.Blob(new), b"packed")
    uplink.says(call(2, new), b"b")
    assert run() == [m.Want([new]), answer(1, b"aa"), answer(2, b"bb")]


def test_results_leave_before_the_engine_waits_for_a_blob(uplink: FakeUplink, run: Callable[[], list[Any]]) -> None:
    uplink.says(m.Tasks([task(0)]))
    uplink.says(m.Tasks([task(1), task(2, DOUBLE, needs=[DATA])]))
    uplink.says(m.Blob(DATA), b"data")
    said = run()
    assert said.index(m.Want([DATA])) == 2
    assert [number for number, _, _ in results(said[:2])] == [0, 1]


@pytest.mark.parametrize("news", [m.Missing([DATA]), None])
def test_work_whose_data_is_nowhere_ends(
    uplink: FakeUplink, lanes: FakeLanes, run: Callable[[], list[Any]], news: m.Missing | None
) -> None:
    uplink.says(call(1, LONG, needs=[DATA]), b"")
    if news is not None:
        uplink.says(news)
    want, lost = run()
    assert want == m.Want([DATA])
    assert lost.losses[0].code == m.BLOB_LOST
    assert lanes.ran == []


def test_a_task_whose_data_is_nowhere_ends_and_the_next_runs(uplink: FakeUplink, run: Callable[[], list[Any]]) -> None:
    uplink.answers[m.Want] = lambda want: uplink.says(m.Missing(want.digests))
    uplink.says(m.Tasks([task(1, needs=[DATA]), task(2)]))
    assert [(number, code) for number, code, _ in results(run())] == [(1, m.BLOB_LOST), (2, 0)]


def test_what_was_missing_once_may_come_later(uplink: FakeUplink, run: Callable[[], list[Any]]) -> None:
    uplink.says(call(1, LONG, needs=[DATA]), b"")
    uplink.says(m.Missing([DATA]))
    uplink.says(call(2, LONG, needs=[DATA]), b"")
    uplink.says(m.Blob(DATA), b"data")
    said = run()
    assert said[1].losses[0].code == m.BLOB_LOST
    assert said[2:] == [m.Want([DATA]), answer(2, b"data")]


def test_old_data_is_dropped_and_asked_for_again(
    uplink: FakeUplink, run: Callable[[], list[Any]], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(engine_module, "BLOB_ENGINE_BYTES_MAX", 10)
    uplink.says(m.Blob(DATA), b"old data")
    uplink.says(m.Blob(MORE), b"new data")
    uplink.says(call(1, LONG, needs=[MORE]), b"")
    uplink.says(call(2, LONG, needs=[DATA]), b"")
    uplink.says(m.Blob(DATA), b"old data")
    assert run() == [answer(1, b"new data"), m.Want([DATA]), answer(2, b"old data")]


def test_one_call_may_need_more_than_is_kept(
    uplink: FakeUplink, run: Callable[[], list[Any]], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(engine_module, "BLOB_ENGINE_BYTES_MAX", 10)
    contents = {DATA: b"old data", MORE: b"new data"}

    def supply(want: m.Want) -> None:
        for digest in want.digests:
            uplink.says(m.Blob(digest), contents[digest])

    uplink.answers[m.Want] = supply
    uplink.says(call(1, LONG, needs=[DATA, MORE]), b"")
    uplink.says(m.Tasks([task(2, LONG, needs=[MORE, DATA])]))
    said = run()
    assert said[:2] == [m.Want([DATA, MORE]), answer(1, b"old data+new data")]
    assert results(said) == [(2, 0, b"old data+new data")]


# --- cancelling, stopping, interrupting -------------------------------------------------------------------------------


def test_a_task_cancelled_in_time_does_not_run(
    uplink: FakeUplink, lanes: FakeLanes, run: Callable[[], list[Any]]
) -> None:
    uplink.says(m.Tasks([task(1, SLOW, b"1"), task(2, payload=b"2"), task(3, payload=b"3")]))
    uplink.says(m.Cancel([3, 99]))  # read after the first, which takes long
    assert [(number, code) for number, code, _ in results(run())] == [(1, 0), (2, 0), (3, m.CANCELLED)]
    assert lanes.ran == [b"1", b"2"]
    assert lanes.engine is not None
    assert lanes.engine._cancelled == set()  # nothing is remembered of tasks that are not here


def test_a_stop_ends_it_with_work_left(uplink: FakeUplink, lanes: FakeLanes, run: Callable[[], list[Any]]) -> None:
    uplink.says(call(1, LONG, needs=[DATA]), b"")
    uplink.says(m.Stop("now"))
    uplink.says(call(2), b"never")
    said = run()
    assert said[0] == m.Want([DATA])
    assert lanes.ran == []


def test_an_engine_that_is_refused_ends(uplink: FakeUplink, run: Callable[[], list[Any]]) -> None:
    uplink.says(m.Refused("NotAuthorised", "wrong key"))
    uplink.says(call(1), b"a")
    assert run() == []


def test_what_is_no_message_is_dropped(
    uplink: FakeUplink, run: Callable[[], list[Any]], capfd: pytest.CaptureFixture[str]
) -> None:
    uplink.says(ProtocolError("noise"))
    uplink.says(m.Beat())
    uplink.says(call(1), b"a")
    assert run() == [answer(1, b"aa")]
    assert "engine 5: dropped a message: noise" in capfd.readouterr().err


def test_an_interrupt_means_nothing_between_calls(uplink: FakeUplink, lanes: FakeLanes) -> None:
    engine = Engine(uplink, RANK, lanes)  # type: ignore[arg-type]
    _interrupt(engine)
    assert not engine.running


def test_an_interrupt_that_comes_while_the_answer_is_packed_is_the_answer(
    uplink: FakeUplink, lanes: FakeLanes, run: Callable[[], list[Any]]
) -> None:
    def struck(function: bytes, frames: Sequence[Frame], blobs: Mapping[bytes, Any]) -> list[Frame]:
        assert lanes.engine is not None
        previous = signal.signal(signal.SIGINT, lambda *_: _interrupt(lanes.engine))  # type: ignore[arg-type]
        try:
            signal.raise_signal(signal.SIGINT)
        finally:
            signal.signal(signal.SIGINT, previous)
        raise AssertionError("the interrupt did not strike")

    lanes.run_call = struck  # type: ignore[method-assign]
    uplink.says(call(1), b"a")
    uplink.says(call(2, m.NO_FUNCTION, lane=m.CELL_LANE), b"next")
    assert run() == [answer(1, b"interrupted"), answer(2, b"cell next")]
