"""An error and what was printed travel as reports, which equal engines make equal."""

from __future__ import annotations

import contextlib
import linecache

import pytest
from hypothesis import given
from hypothesis import strategies as st

from hiersched.data.outputs import Shown, Text, pack_output
from hiersched.data.reports import Failure, Printed, pack_failure, pack_printed, read_report, remote_error
from hiersched.errors import ProtocolError
from hiersched.limits import ERROR_TEXT_CHARS_MAX


@given(st.text(), st.text(), st.lists(st.text()), st.binary())
def test_a_failure_survives(ename: str, evalue: str, traceback: list[str], pickled: bytes) -> None:
    report = read_report(pack_failure(ename, evalue, traceback, pickled))
    assert report == Failure(ename, evalue, traceback, pickled)


def test_what_was_printed_survives() -> None:
    outputs = [Text("stdout", "a"), Shown({"text/plain": "b"})]
    assert read_report(pack_printed([pack_output(output) for output in outputs])) == Printed(outputs)  # type: ignore


def test_texts_that_utf8_does_not_hold_are_escaped() -> None:
    report = read_report(pack_failure("E", "a\udcff", ["\ud800"], b"p"))
    assert report == Failure("E", "a\\udcff", ["\\ud800"], b"p")


def test_long_texts_are_cut_in_the_middle() -> None:
    text = "begin" + "x" * 2 * ERROR_TEXT_CHARS_MAX + "end"
    report = read_report(pack_failure("E", text, [text, "short"], b""))
    assert isinstance(report, Failure)
    for cut in (report.evalue, report.traceback[0]):
        assert cut.startswith("begin")
        assert cut.endswith("end")
        assert len(cut) < 1.01 * ERROR_TEXT_CHARS_MAX
    assert report.traceback[1] == "short"


def test_each_reader_has_an_error_of_its_own() -> None:
    report = read_report(pack_failure("ValueError", "x", ["line"], b"p"))
    assert isinstance(report, Failure)
    first, second = remote_error(report), remote_error(report)
    first.traceback_lines.append("mine")
    first.engine_id = 1
    assert (second.traceback_lines, second.engine_id, second.pickled) == (["line"], None, b"p")


def test_source_is_filled_in_once_where_it_is(monkeypatch: pytest.MonkeyPatch) -> None:
    source = "def f():\n    return 1 / 0  # here\n"
    monkeypatch.setitem(linecache.cache, "<cell-8>", (len(source), None, source.splitlines(keepends=True), "<cell-8>"))
    report = read_report(pack_failure("E", "x", ['  File "<cell-8>", line 2, in f'], b""))
    assert isinstance(report, Failure)
    assert report.traceback == ['  File "<cell-8>", line 2, in f\n    return 1 / 0  # here']


@given(st.binary(max_size=60))
def test_any_bytes_are_a_report_or_refused(data: bytes) -> None:
    with contextlib.suppress(ProtocolError):
        read_report(data)
