"""Bars: when they appear, what they show, and that nobody pays for them who does not see them."""

from __future__ import annotations

import fcntl
import io
import os
import pty
import re
import select
import struct
import sys
import termios
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor

import pytest

from hiersched.client import progress
from hiersched.client.progress import Bar, Course, Stage, here, watched
from hiersched.limits import PROGRESS_AFTER_S, PROGRESS_PERIOD_S
from tests.patience import DEADLINE_S


class Drawing:
    """What was drawn."""

    def __init__(self, course: Course) -> None:
        self.course = course
        self.label = (course.total, course.unit, course.title)
        self.done = course.had
        self.closed = False

    def update(self, n: int) -> None:
        self.done += n

    def close(self) -> None:
        self.closed = True


class Theatre:
    """A stage with a clock that is set by hand."""

    def __init__(self) -> None:
        self.now_s = 50.0
        self.drawings: list[Drawing] = []
        self.stage = Stage(self._draw, lambda: self.now_s)

    def _draw(self, course: Course) -> Drawing:
        self.drawings.append(Drawing(course))
        return self.drawings[-1]


class Errand:
    """Something to wait for: a wait takes its time, and one more part is done after each second."""

    def __init__(self, theatre: Theatre, lasts_s: float) -> None:
        self.theatre = theatre
        self.begins_s = theatre.now_s
        self.ends_s = theatre.now_s + lasts_s
        self.waits: list[float | None] = []

    def wait(self, timeout_s: float | None) -> bool:
        self.waits.append(timeout_s)
        until_s = self.ends_s if timeout_s is None else min(self.ends_s, self.theatre.now_s + timeout_s)
        self.theatre.now_s = until_s
        return until_s >= self.ends_s

    def done(self) -> int:
        return int(self.theatre.now_s - self.begins_s)


@pytest.fixture
def theatre() -> Theatre:
    return Theatre()


# --- when it appears --------------------------------------------------------------------------------------------------


def test_a_short_wait_shows_nothing(theatre: Theatre) -> None:
    with Bar(4, "engine", stage=theatre.stage) as bar:
        bar.update(1)
        theatre.now_s += PROGRESS_AFTER_S - 0.01
        bar.update(4)
        assert not bar.is_shown
    assert theatre.drawings == []


def test_a_long_wait_shows_what_is_done_by_then_and_what_follows(theatre: Theatre) -> None:
    with Bar(4, "engine", title="start", stage=theatre.stage) as bar:
        bar.update(2)
        theatre.now_s += PROGRESS_AFTER_S
        bar.update(3)
        (drawing,) = theatre.drawings
        assert (drawing.label, drawing.done) == ((4, "engine", "start"), 3)
        bar.update(4)
        assert (drawing.done, drawing.closed) == (4, False)
    assert drawing.closed


def test_what_is_lost_is_taken_back(theatre: Theatre) -> None:
    bar = Bar(4, "engine", stage=theatre.stage)
    theatre.now_s += PROGRESS_AFTER_S
    bar.update(3)
    bar.update(1)
    assert theatre.drawings[0].done == 1


def test_a_closed_bar_shows_nothing_more(theatre: Theatre) -> None:
    bar = Bar(4, "engine", stage=theatre.stage)
    bar.close()
    theatre.now_s += PROGRESS_AFTER_S
    bar.update(3)
    bar.close()
    assert theatre.drawings == []


def test_an_error_closes_the_bar(theatre: Theatre) -> None:
    with pytest.raises(KeyboardInterrupt), Bar(4, "engine", stage=theatre.stage) as bar:
        theatre.now_s += PROGRESS_AFTER_S
        bar.update(1)
        raise KeyboardInterrupt
    assert theatre.drawings[0].closed


# --- waits ------------------------------------------------------------------------------------------------------------


def test_a_wait_that_ends_early_is_one_wait(theatre: Theatre) -> None:
    errand = Errand(theatre, 0.5)
    assert Bar(4, "engine", stage=theatre.stage).wait(errand.wait, errand.done)
    assert errand.waits == [PROGRESS_AFTER_S]
    assert theatre.drawings == []


def test_a_long_wait_is_done_in_slices(theatre: Theatre) -> None:
    errand = Errand(theatre, 3.0)
    assert Bar(3, "engine", stage=theatre.stage).wait(errand.wait, errand.done, None)
    assert set(errand.waits[1:]) == {PROGRESS_PERIOD_S}
    assert theatre.drawings[0].done == 3


def test_a_wait_in_vain_lasts_as_long_as_was_asked(theatre: Theatre) -> None:
    errand = Errand(theatre, 100.0)
    begin_s = theatre.now_s
    assert not Bar(100, "task", stage=theatre.stage).wait(errand.wait, errand.done, 5.25, period_s=0.5)
    assert theatre.now_s - begin_s == pytest.approx(5.25)
    assert theatre.drawings[0].done == 5


def test_where_nobody_looks_a_wait_is_one_wait(theatre: Theatre) -> None:
    errand = Errand(theatre, 100.0)
    assert not Bar(100, "task", stage=Stage(None)).wait(errand.wait, errand.done, 7.0)
    assert errand.waits == [7.0]


def test_rates_are_of_the_time_that_the_work_has_taken(theatre: Theatre) -> None:
    errand = Errand(theatre, 3.0)
    Bar(9, "task", going_s=20.0, stage=theatre.stage).wait(errand.wait, errand.done)
    assert theatre.drawings[0].course == Course(9, "task", had=0, elapsed_s=20.0 + PROGRESS_AFTER_S)


def test_what_was_there_before_the_wait_does_not_count_for_its_rate(theatre: Theatre) -> None:
    errand = Errand(theatre, 3.0)
    Bar(9, "engine", stage=theatre.stage).wait(errand.wait, lambda: 5 + errand.done())
    assert theatre.drawings[0].course == Course(9, "engine", had=5, elapsed_s=PROGRESS_AFTER_S)
    assert theatre.drawings[0].done == 8


# --- waits for which nobody has asked to see a bar --------------------------------------------------------------------


class Watched:
    """A wait that is watched on a stage."""

    def __init__(self, theatre: Theatre, monkeypatch: pytest.MonkeyPatch, lasts_s: float) -> None:
        monkeypatch.setattr(progress, "here", lambda: theatre.stage)
        self.theatre = theatre
        self.errand = Errand(theatre, lasts_s)

    def __call__(self, timeout_s: float | None = None) -> bool:
        return watched(self.errand.wait, timeout_s, done=self.errand.done, bar=self._bar)

    def _bar(self, stage: Stage) -> Bar:
        going_s = self.theatre.now_s - self.errand.begins_s
        return Bar.at_once(5, "item", title="nap", going_s=going_s, stage=stage)


def test_a_wait_that_lasts_is_shown_and_leaves_nothing_behind(
    theatre: Theatre, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert Watched(theatre, monkeypatch, 3.0)()
    (drawing,) = theatre.drawings
    assert drawing.course == Course(5, "item", "nap", elapsed_s=PROGRESS_AFTER_S, stays=False)
    assert (drawing.done, drawing.closed) == (3, True)


def test_a_wait_that_lasts_ends_in_time(theatre: Theatre, monkeypatch: pytest.MonkeyPatch) -> None:
    wait = Watched(theatre, monkeypatch, 100.0)
    assert not wait(3.5)
    assert theatre.now_s - wait.errand.begins_s == pytest.approx(3.5)


def test_a_short_wait_is_one_wait_even_if_it_is_watched(theatre: Theatre, monkeypatch: pytest.MonkeyPatch) -> None:
    ending, hopeless = Watched(theatre, monkeypatch, 0.5), Watched(theatre, monkeypatch, 9.0)
    assert ending()
    assert not hopeless(PROGRESS_AFTER_S)
    assert theatre.drawings == []
    assert hopeless.errand.waits == [PROGRESS_AFTER_S]


def test_only_the_main_thread_shows_what_nobody_asked_for(theatre: Theatre, monkeypatch: pytest.MonkeyPatch) -> None:
    with ThreadPoolExecutor(1) as pool:
        assert pool.submit(Watched(theatre, monkeypatch, 3.0)).result()
    assert theatre.drawings == []


# --- iterations -------------------------------------------------------------------------------------------------------


def test_values_are_counted_as_they_are_taken(theatre: Theatre) -> None:
    def slow() -> Iterator[str]:
        for letter in "abc":
            theatre.now_s += PROGRESS_AFTER_S
            yield letter

    shown = []
    for letter in Bar(3, "task", stage=theatre.stage).over(slow()):
        shown.append((letter, theatre.drawings[0].done))
    assert shown == [("a", 0), ("b", 1), ("c", 2)]
    assert (theatre.drawings[0].done, theatre.drawings[0].closed) == (3, True)


# --- where ------------------------------------------------------------------------------------------------------------


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


def test_output_that_nobody_reads_gets_no_bar(monkeypatch: pytest.MonkeyPatch) -> None:
    for stream in (io.StringIO(), None):
        monkeypatch.setattr(sys, "stderr", stream)
        assert here().draw is None
        assert here(widget=True).draw is None


def test_on_a_terminal_the_bar_is_text(monkeypatch: pytest.MonkeyPatch) -> None:
    terminal = Terminal()
    monkeypatch.setattr(sys, "stderr", terminal)
    draw = here().draw
    assert draw is not None
    drawing = draw(Course(8, "engine", "start"))
    drawing.update(8)
    drawing.close()
    assert "start: 100%" in terminal.getvalue()
    assert "8/8" in terminal.getvalue()


def test_the_clock_of_a_bar_is_that_of_the_work(monkeypatch: pytest.MonkeyPatch) -> None:
    terminal = Terminal()
    monkeypatch.setattr(sys, "stderr", terminal)
    draw = here().draw
    assert draw is not None
    drawing = draw(Course(80, "item", elapsed_s=100.0))
    drawing.update(40)
    assert "40/80 [01:40<01:40,  2.50s/ item]" in terminal.getvalue()
    drawing.close()


def test_a_bar_that_does_not_stay_is_wiped_out(monkeypatch: pytest.MonkeyPatch) -> None:
    terminal = Terminal()
    monkeypatch.setattr(sys, "stderr", terminal)
    draw = here().draw
    assert draw is not None
    drawing = draw(Course(80, "item", elapsed_s=2.0, stays=False))
    drawing.update(0)
    assert "0/80 [00:02<?" in terminal.getvalue()
    drawing.close()
    assert terminal.getvalue().rsplit("\r", 2)[1].strip() == ""


def test_in_a_notebook_the_bar_is_a_widget_unless_text_is_asked_for(monkeypatch: pytest.MonkeyPatch) -> None:
    import IPython

    class Shell:
        kernel = object()

    monkeypatch.setattr(sys, "stderr", io.StringIO())
    monkeypatch.setattr(IPython, "get_ipython", Shell)
    as_widget, as_text = here().draw, here(widget=False).draw
    assert as_widget is not None
    assert as_text is not None
    assert as_widget.__name__ == "_draw_widget"
    assert as_text.__name__ == "_draw_text"


def test_what_a_person_sees_of_a_wait_that_lasts(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(progress, "PROGRESS_AFTER_S", 0.0)
    ours, theirs = pty.openpty()
    fcntl.ioctl(theirs, termios.TIOCSWINSZ, struct.pack("HHHH", 25, 80, 0, 0))
    slices = iter([False, False, True])
    with os.fdopen(ours, "rb", buffering=0) as screen, os.fdopen(theirs, "w") as terminal:
        monkeypatch.setattr(sys, "stderr", terminal)
        assert watched(
            lambda _: next(slices),
            None,
            done=lambda: 40,
            bar=lambda stage: Bar.at_once(80, "item", title="nap", going_s=10.0, stage=stage),
        )
        terminal.flush()
        seen = ""
        while select.select([screen], [], [], 0.0 if _wiped(seen) else DEADLINE_S)[0]:
            seen += screen.read(4096).decode()
    assert "nap:  50%|" in seen
    assert re.search(r"40/80 \[00:1\d<00:1\d,  (4\.00|3\.\d\d) item/s\]", seen)  # the machine may have been slow
    assert _wiped(seen)  # and in the end, nothing


def _wiped(seen: str) -> bool:
    """Whether the last line that was written is an empty one."""
    return seen.count("\r") > 1 and seen.endswith("\r") and seen.rsplit("\r", 2)[1].strip() == ""
