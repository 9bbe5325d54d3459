"""Bars for waits that last.

A bar appears when a wait has lasted PROGRESS_AFTER_S, and only if somebody can see it: in a notebook (as a widget where
ipywidgets is installed), or on a terminal that standard error goes to. Nobody else pays for it. One that was asked for
stays when the wait is over; one that was not goes again, and only the main thread has such.

    with Bar(8, "engine") as bar:                                    # a wait that can be done in slices
        came = bar.wait(lambda s: session.wait_for(all_there, s), session.dispatch_width, timeout_s)

    came = watched(wait, timeout_s, done=..., bar=...)               # the same, where nobody has asked for a bar

    with Bar(len(tasks), "task", stage=here(widget=False)) as bar:   # by hand, as often as one likes
        bar.update(done)
"""

from __future__ import annotations

import sys
import threading
import time
from collections.abc import Callable, Iterable, Iterator
from importlib import util
from types import TracebackType
from typing import Any, NamedTuple, Protocol, TypeVar

from hiersched.client.shell import current_shell
from hiersched.limits import PROGRESS_AFTER_S, PROGRESS_PERIOD_S

Value = TypeVar("Value")
Wait = Callable[[float | None], bool]  # waits for so many seconds, None: for ever; whether it ended in time


class Drawn(Protocol):
    """What is used of a tqdm bar."""

    def update(self, n: int, /) -> Any:
        """So many more are done."""

    def close(self) -> None:
        """Leave it as it is."""


class Course(NamedTuple):
    """What a bar shows. total: None where nobody knows of how many; unit: what is counted, in the singular.

    had: what was done when the clock started; elapsed_s: how long ago that was; stays: when it has ended.
    """

    total: int | None
    unit: str
    title: str = ""
    had: int = 0
    elapsed_s: float = 0.0
    stays: bool = True


class Stage(NamedTuple):
    """Where a bar would stand. draw: gives a bar; None where nobody looks. clock: seconds."""

    draw: Callable[[Course], Drawn] | None
    clock: Callable[[], float] = time.monotonic


def here(widget: bool | None = None) -> Stage:
    """The stage of this process. widget: whether to use a widget; by default in notebooks that have ipywidgets."""
    in_notebook = getattr(current_shell(), "kernel", None) is not None
    if not in_notebook and not _on_terminal():
        return Stage(None)
    if widget is None:
        widget = in_notebook and util.find_spec("ipywidgets") is not None
    return Stage(_draw_widget if widget else _draw_text)


class Bar:
    """`done` of `total`; None: nobody knows of how many. unit: what is counted, in the singular.

    going_s: for how long what is waited for has been going on. Rates and the time left are of all that time.
    """

    def __init__(
        self,
        total: int | None,
        unit: str,
        *,
        title: str = "",
        going_s: float | None = None,
        stage: Stage | None = None,
    ) -> None:
        self._draw, self._clock = here() if stage is None else stage
        self._course = Course(total, unit, title)
        self._drawn: Drawn | None = None
        self._done = 0
        self._is_new = going_s is None  # what is done before the first wait was done before the clock started
        now_s = self._clock()
        self._began_s = now_s - (going_s or 0.0)
        self._shown_at = now_s + PROGRESS_AFTER_S

    @classmethod
    def at_once(cls, total: int | None, unit: str, *, title: str, going_s: float, stage: Stage) -> Bar:
        """One for a wait that has lasted, which nobody has asked for: it goes when the wait is over."""
        made = cls(total, unit, title=title, going_s=going_s, stage=stage)
        made._course = made._course._replace(stays=False)
        made._shown_at -= PROGRESS_AFTER_S
        return made

    @property
    def is_shown(self) -> bool:
        """Whether it has lasted long enough, and somebody looks."""
        return self._drawn is not None

    def update(self, done: int) -> None:
        """So many are done by now."""
        if self._drawn is None:
            if self._draw is None or self._clock() < self._shown_at:
                return
            self._drawn = self._draw(self._course._replace(elapsed_s=self._clock() - self._began_s))
        self._drawn.update(done - self._done)  # with nothing new too: its clock goes on
        self._done = done

    def wait(
        self,
        wait: Wait,
        done: Callable[[], int],
        timeout_s: float | None = None,
        *,
        period_s: float = PROGRESS_PERIOD_S,
    ) -> bool:
        """What `wait(timeout_s)` gives, called in slices of `period_s` so that the bar can show `done()` in between."""
        if self._draw is None:
            return wait(timeout_s)
        if self._is_new:
            self._is_new = False
            self._done = done()
            self._course = self._course._replace(had=self._done)
        deadline = None if timeout_s is None else self._clock() + timeout_s
        slice_s = max(period_s, self._shown_at - self._clock())  # nothing is shown before
        while True:
            left_s = None if deadline is None else deadline - self._clock()
            is_last = left_s is not None and left_s <= slice_s
            held = wait(left_s if is_last else slice_s)
            self.update(done())
            if held or is_last:
                return held
            slice_s = period_s

    def over(self, values: Iterable[Value]) -> Iterator[Value]:
        """The same values, counted as they are taken."""
        with self:
            for taken, value in enumerate(values):
                self.update(taken)
                yield value
                self.update(taken + 1)

    def close(self) -> None:
        """Leave it as it is; nothing more will be shown."""
        drawn, self._drawn, self._draw = self._drawn, None, None
        if drawn is not None:
            drawn.close()

    def __enter__(self) -> Bar:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.close()


def watched(wait: Wait, timeout_s: float | None, *, done: Callable[[], int], bar: Callable[[Stage], Bar]) -> bool:
    """What `wait(timeout_s)` gives, under a bar of `bar(stage)` once it has lasted PROGRESS_AFTER_S.

    `wait` is called in slices where that may be, and `bar` and `done` not at all where nobody looks.
    """
    if timeout_s is not None and timeout_s <= PROGRESS_AFTER_S:
        return wait(timeout_s)
    if wait(PROGRESS_AFTER_S):
        return True
    left_s = None if timeout_s is None else timeout_s - PROGRESS_AFTER_S
    stage = here() if threading.current_thread() is threading.main_thread() else Stage(None)
    if stage.draw is None:
        return wait(left_s)
    with bar(stage) as shown:
        shown.update(done())
        return shown.wait(wait, done, left_s)


def _on_terminal() -> bool:
    return sys.stderr is not None and sys.stderr.isatty()  # there is none under pythonw and in some daemons


def _draw_text(course: Course) -> Drawn:
    from tqdm.std import tqdm

    return _going(tqdm(**_options(course), file=sys.stderr, dynamic_ncols=True), course)


def _draw_widget(course: Course) -> Drawn:
    from tqdm.notebook import tqdm

    return _going(tqdm(**_options(course)), course)


def _options(course: Course) -> dict[str, Any]:
    """How tqdm is to begin: unseen, until its clock is set."""
    return {
        "total": course.total,
        "unit": f" {course.unit}",
        "desc": course.title or None,
        "initial": course.had,
        "leave": course.stays,
        "smoothing": 0,  # the rate is that of all the time: what comes in chunks has no other
        "miniters": 0,
        "delay": sys.float_info.min,
    }


def _going(bar: Any, course: Course) -> Drawn:
    """tqdm counts its time from when it is made; this bar has been going on for longer."""
    bar.start_t -= course.elapsed_s
    bar.last_print_t = bar.start_t
    drawn: Drawn = bar
    return drawn
