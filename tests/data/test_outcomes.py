"""What engines answer: values, errors with tracebacks, output, and what cannot travel."""

from __future__ import annotations

import contextlib
import linecache
import os
import threading
from typing import Any

import ipyparallel.error
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from msgspec import Raw

from hiersched.data.outcomes import (
    Outcome,
    lost_outcome,
    pack_outcome_error,
    pack_outcome_value,
    unpack_outcome,
)
from hiersched.data.outputs import Text, pack_output
from hiersched.data.pickles import Buffer
from hiersched.data.reports import read_report
from hiersched.errors import EngineLost, ProtocolError, RemoteError, UnmetDependency, UnpackError
from hiersched.limits import ERROR_TEXT_CHARS_MAX, INLINE_BYTES_MAX
from hiersched.protocol import messages as m
from tests.data.places import Engine, notebook


def carried(frames: list[Buffer]) -> list[Buffer]:
    """The frames after a journey: other memory, read-only."""
    return [bytes(frame) for frame in frames]


def returned(value: Any, **rest: Any) -> Outcome:
    """The outcome, at the client, of a call that returned `value`."""
    return unpack_outcome(carried(pack_outcome_value(value, started=1.0, ended=2.5, **rest).whole))


def raised(error: BaseException, **rest: Any) -> Outcome:
    """The outcome, at the client, of a call that raised `error`."""
    return unpack_outcome(carried(pack_outcome_error(error, started=1.0, ended=2.5, **rest).whole))


def said(*texts: str) -> list[Raw]:
    """What a call printed."""
    return [pack_output(Text("stdout", text)) for text in texts]


VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text() | st.binary(),
    lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner),
    max_leaves=10,
)


@given(VALUES)
def test_a_small_outcome_is_one_frame_and_survives(value: Any) -> None:
    packed = pack_outcome_value(value, started=1.0, ended=2.5)
    assert (len(packed.frames), list(packed.reports), packed.code) == (1, [], 0)
    outcome = unpack_outcome(carried(packed.whole))
    assert outcome.ok
    assert outcome.complete
    assert outcome.error is None
    assert outcome.value == value
    assert (outcome.started, outcome.ended, outcome.pid) == (1.0, 2.5, os.getpid())
    assert (outcome.stdout, outcome.stderr, outcome.outputs) == ("", "", [])


def test_large_buffers_are_frames_without_a_copy() -> None:
    array = np.zeros(INLINE_BYTES_MAX)
    frames = pack_outcome_value({"a": array, "b": b"b" * INLINE_BYTES_MAX}, started=0.0, ended=0.0).frames
    assert len(frames) == 3
    assert sum(np.shares_memory(np.frombuffer(frame, "u1"), array) for frame in frames) == 1


def test_arrays_arrive_writable_whatever_their_size() -> None:
    value = returned([np.zeros(3), np.zeros(INLINE_BYTES_MAX), b"x" * INLINE_BYTES_MAX]).value
    value[0][0] = value[1][0] = 1.0
    assert value[2] == b"x" * INLINE_BYTES_MAX


def test_a_writable_frame_is_used_as_it_is() -> None:
    packed = pack_outcome_value(np.zeros(INLINE_BYTES_MAX), started=0.0, ended=0.0)
    frames = [bytearray(frame) for frame in packed.frames]
    value = unpack_outcome(frames).value
    assert np.shares_memory(value, np.frombuffer(frames[1], "u1"))


def test_a_large_pickle_is_a_frame_of_its_own() -> None:
    value = list(range(100_000))
    frames = pack_outcome_value(value, started=0.0, ended=0.0).frames
    assert len(frames) == 2
    assert len(frames[0]) < 100
    assert unpack_outcome(carried(frames)).value == value


def test_a_value_is_rebuilt_once_and_only_when_asked_for() -> None:
    frames = pack_outcome_value(Counted(), started=0.0, ended=0.0).frames
    before = Counted.rebuilt
    outcome = unpack_outcome(frames)
    assert Counted.rebuilt == before
    assert outcome.value is outcome.value
    assert Counted.rebuilt == before + 1


class Counted:
    """Counts how often it is rebuilt."""

    rebuilt = 0

    def __setstate__(self, state: object) -> None:
        Counted.rebuilt += 1

    def __getstate__(self) -> object:
        return 1


def test_a_value_that_cannot_be_pickled_becomes_an_error_that_names_it() -> None:
    outcome = returned({"model": [threading.Lock()]}, printed=said("printed"))
    assert not outcome.ok
    assert isinstance(outcome.error, RemoteError)
    assert outcome.error.ename == "PackError"
    assert outcome.error.evalue.startswith("the result: ['model'][0] is a <_thread.lock>, which cannot be pickled")
    assert outcome.error.traceback_lines == [f"PackError: {outcome.error.evalue}"]
    assert outcome.stdout == "printed"
    with pytest.raises(RemoteError):
        _ = outcome.value


def test_a_value_that_cannot_be_rebuilt_says_so_when_asked_for() -> None:
    outcome = returned(Fragile())
    assert outcome.ok
    with pytest.raises(UnpackError, match="ValueError: not here"):
        _ = outcome.value


class Fragile:
    """Cannot be rebuilt."""

    def __reduce__(self) -> Any:
        return _refuse, ()


def _refuse() -> None:
    raise ValueError("not here")


def test_a_traceback_starts_at_the_users_code_and_has_its_chain() -> None:
    client = notebook(
        """
        def inner(x):
            return 1 / x
        def f(x):
            try:
                inner(x)
            except ZeroDivisionError as error:
                error.add_note("while testing")
                raise ValueError("bad x") from error
        """
    )
    error = error_of(Engine(inner=client["inner"]), client["f"], 0)
    failed = raised(error).error
    assert isinstance(failed, RemoteError)
    assert (failed.ename, failed.evalue) == ("ValueError", "bad x")
    text = "\n".join(failed.traceback_lines)
    assert "in inner" in text
    assert 'File "<notebook>", line 9, in f' in text
    assert "while testing" in text
    assert "direct cause" in text
    assert failed.traceback_lines[-1] == "ValueError: bad x"


def error_of(engine: Engine, function: Any, *args: Any) -> Exception:
    """What the call raises on the engine."""
    try:
        engine.apply(function, *args)
    except Exception as error:
        return error
    raise AssertionError("it did not raise")


def test_frames_of_hiersched_are_not_shown_above_the_users() -> None:
    outcome = returned(Fragile())
    with pytest.raises(UnpackError) as refused:
        _ = outcome.value
    assert refused.tb is not None
    error = refused.value.with_traceback(refused.tb.tb_next)  # as caught within hiersched
    failed = raised(error).error
    assert isinstance(failed, RemoteError)
    places = [entry.splitlines()[0].strip() for entry in failed.traceback_lines if entry.startswith("  File")]
    assert len(places) == 2
    assert places[0].endswith("in _refuse")
    assert places[1].endswith("in load")


def test_source_that_only_the_client_has_is_filled_in() -> None:
    source = "def f():\n    return 1 / 0  # here\n"
    namespace: dict[str, Any] = {"__name__": "__main__"}
    exec(compile(source, "<cell-7>", "exec"), namespace)
    frames = pack_outcome_error(error_of(Engine(), namespace["f"]), started=0.0, ended=0.0).whole
    on_the_engine = unpack_outcome(frames).error
    linecache.cache["<cell-7>"] = (len(source), None, source.splitlines(keepends=True), "<cell-7>")
    try:
        at_the_client = unpack_outcome(frames).error
    finally:
        del linecache.cache["<cell-7>"]
    assert isinstance(on_the_engine, RemoteError)
    assert isinstance(at_the_client, RemoteError)
    assert "# here" not in "\n".join(on_the_engine.traceback_lines)
    assert '  File "<cell-7>", line 2, in f\n    return 1 / 0  # here' in at_the_client.traceback_lines


def test_a_group_of_exceptions_is_shown_whole() -> None:
    outcome = raised(ExceptionGroup("several", [ValueError("one"), KeyError("two")]))
    assert isinstance(outcome.error, RemoteError)
    text = "\n".join(outcome.error.traceback_lines)
    assert "ValueError: one" in text
    assert "KeyError: 'two'" in text


@pytest.mark.parametrize("error", [KeyboardInterrupt(), SystemExit(3), RecursionError("deep"), SyntaxError("bad")])
def test_errors_of_every_kind(error: BaseException) -> None:
    outcome = raised(error)
    assert isinstance(outcome.error, RemoteError)
    assert outcome.error.ename == type(error).__name__


def test_an_exception_without_a_text() -> None:
    class Mute(Exception):
        def __str__(self) -> str:
            raise RuntimeError("no words")

    outcome = raised(Mute())
    assert isinstance(outcome.error, RemoteError)
    assert outcome.error.evalue == "<its text cannot be had: RuntimeError>"


def test_a_traceback_that_is_formatted_already_is_taken_as_it_is() -> None:
    outcome = raised(ValueError("x"), traceback_lines=["one", "two"], printed=said("o"))
    assert isinstance(outcome.error, RemoteError)
    assert outcome.error.traceback_lines == ["one", "two"]
    assert outcome.stdout == "o"


@pytest.mark.parametrize(
    ("error", "code"),
    [
        (ValueError(), m.RAISED),
        (SystemExit(), m.RAISED),
        (KeyboardInterrupt(), m.INTERRUPTED),
        (UnmetDependency(), m.UNMET),
        (ipyparallel.error.UnmetDependency(), m.UNMET),
    ],
)
def test_an_engine_is_told_what_kind_of_end_it_was(error: BaseException, code: int) -> None:
    assert pack_outcome_error(error, started=0.0, ended=0.0).code == code


def test_a_result_for_which_there_is_no_memory_says_so() -> None:
    class Large:
        def __reduce__(self) -> Any:
            raise MemoryError

    error = returned(Large()).error
    assert isinstance(error, RemoteError)
    assert error.ename == "MemoryError"
    assert "does not fit" in error.evalue


def test_a_buffer_that_is_too_large_to_travel_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("hiersched.data.outcomes.FRAME_BYTES_MAX", INLINE_BYTES_MAX)
    error = returned(np.zeros(INLINE_BYTES_MAX)).error
    assert isinstance(error, RemoteError)
    assert error.ename == "PackError"
    assert f"{8 * INLINE_BYTES_MAX} bytes" in error.evalue


# --- what engines have in common --------------------------------------------------------------------------------------


def test_what_equal_engines_have_in_common_is_equal() -> None:
    first = pack_outcome_error(ValueError("x"), started=1.0, ended=2.0, printed=said("a"))
    second = pack_outcome_error(ValueError("x"), started=3.0, ended=4.0, printed=said("a"))
    assert first.reports == second.reports
    assert first.frames != second.frames


def test_one_report_serves_many_outcomes() -> None:
    packed = pack_outcome_error(ValueError("x"), started=1.0, ended=2.0, printed=said("a"))
    reports = [read_report(report) for report in packed.reports]
    outcomes = [unpack_outcome(packed.frames) for _ in range(3)]
    for place, outcome in enumerate(outcomes):
        for report in reports:
            outcome.take(report)
        assert isinstance(outcome.error, RemoteError)
        outcome.error.engine_id = place
    assert [str(outcome.error) for outcome in outcomes] == [f"[engine {place}] ValueError: x" for place in range(3)]
    assert [outcome.stdout for outcome in outcomes] == ["a"] * 3


def test_a_failure_without_its_report_is_malformed() -> None:
    outcome = unpack_outcome(pack_outcome_error(ValueError("x"), started=0.0, ended=0.0).frames)
    assert not outcome.ok
    with pytest.raises(ProtocolError, match="did not come"):
        _ = outcome.complete


def test_output_without_its_report_is_incomplete() -> None:
    packed = pack_outcome_value(1, started=0.0, ended=0.0, printed=said("a"))
    outcome = unpack_outcome(packed.frames)
    assert not outcome.complete
    outcome.take(read_report(packed.reports[0]))
    assert outcome.complete


@pytest.mark.parametrize("ahead", [True, False])
def test_pieces_come_before_the_rest_whenever_they_are_taken(ahead: bool) -> None:
    packed = pack_outcome_value(1, started=0.0, ended=0.0, printed=said("c"))
    outcome = unpack_outcome(packed.frames)
    pieces = [[Text("stdout", "a")], [Text("stderr", "!"), Text("stdout", "b")]]
    if not ahead:
        outcome.take(read_report(packed.reports[0]))
    for piece in pieces:
        outcome.take_output(piece)
    if ahead:
        outcome.take(read_report(packed.reports[0]))
    assert (outcome.stdout, outcome.stderr) == ("abc", "!")
    assert [output.text for output in outcome.all_outputs] == ["a", "!", "b", "c"]  # type: ignore[union-attr]


def test_a_lost_call_keeps_what_it_printed() -> None:
    outcome = lost_outcome(EngineLost("gone"))
    outcome.take_output([Text("stdout", "last words")])
    assert outcome.stdout == "last words"


@pytest.mark.parametrize("extra", [1, 3])
def test_frames_that_are_too_many_are_refused(extra: int) -> None:
    packed = pack_outcome_error(ValueError("x"), started=0.0, ended=0.0, printed=said("a"))
    with pytest.raises(ProtocolError, match="1 frames and 2 reports"):
        unpack_outcome([*packed.frames, *(packed.reports * 2)[:extra]])


def test_an_exception_of_any_length_and_text_travels() -> None:
    error = raised(ValueError("x" * 10 * ERROR_TEXT_CHARS_MAX)).error
    assert isinstance(error, RemoteError)
    assert len(error.evalue) < 1.1 * ERROR_TEXT_CHARS_MAX
    assert "characters ...]" in error.evalue
    failed = raised(ValueError("a\udcff")).error
    assert isinstance(failed, RemoteError)
    assert failed.evalue == "a\\udcff"


def test_a_call_that_nobody_answered() -> None:
    outcome = lost_outcome(EngineLost("engine 3 is gone"))
    assert not outcome.ok
    assert outcome.started is None
    with pytest.raises(EngineLost):
        _ = outcome.value


@pytest.mark.parametrize("frames", [[], [b""], [b"nonsense"], [b"\x93\x01\x02\x03"], [b"\x94\x01\x02\x03\xc0"]])
def test_frames_that_are_no_outcome_are_refused(frames: list[bytes]) -> None:
    with pytest.raises(ProtocolError):
        unpack_outcome(frames)


@given(st.binary(max_size=80))
def test_any_bytes_are_an_outcome_or_refused(data: bytes) -> None:
    with contextlib.suppress(ProtocolError):
        unpack_outcome([data])
