"""Tracebacks as lines of text."""

from __future__ import annotations

import linecache
from pathlib import Path

import pytest

from hiersched.data.tracebacks import format_traceback
from hiersched.nodes.floor import THEIRS, Floor


def users_code() -> None:
    floor = Floor()
    floor.state = THEIRS
    floor.on_interrupt()  # as a signal would


def interrupt() -> KeyboardInterrupt:
    with pytest.raises(KeyboardInterrupt) as caught:
        users_code()
    return caught.value


def test_an_interrupt_is_shown_where_it_struck_the_users_code():
    lines = format_traceback(interrupt())
    assert lines[0] == "Traceback (most recent call last):"
    assert lines[-2:] == [
        f'  File "{__file__}", line {users_code.__code__.co_firstlineno + 3}, in users_code\n'
        "    floor.on_interrupt()  # as a signal would",
        "KeyboardInterrupt",
    ]
    assert "floor.py" not in "\n".join(lines)


def test_an_interrupt_of_nothing_but_our_code_is_shown_all_the_same():
    error = interrupt()
    traceback = error.__traceback__
    while traceback.tb_next is not None:
        traceback = traceback.tb_next
    assert "floor.py" in format_traceback(error.with_traceback(traceback))[1]


def test_an_interrupt_that_struck_while_an_error_was_handled_is_shown_with_it():
    with pytest.raises(KeyboardInterrupt) as caught:
        try:
            raise ValueError("first")
        except ValueError:
            users_code()
    text = "\n".join(format_traceback(caught.value))
    assert "ValueError: first" in text
    assert "During handling of the above exception" in text


def test_source_that_has_changed_since_is_read_again(tmp_path: Path):
    file = tmp_path / "late.py"
    for text in ("raise KeyboardInterrupt  # at first", "raise KeyboardInterrupt  # changed"):
        file.write_text(text)
        with pytest.raises(KeyboardInterrupt) as caught:
            exec(compile(text, str(file), "exec"))
        assert text in "\n".join(format_traceback(caught.value))
    linecache.checkcache()
