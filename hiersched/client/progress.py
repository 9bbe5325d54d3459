"""Bars for waits that last.

A bar appears when a wait has lasted PROGRESS_AFTER_S, and only if somebody can see it: in a notebook (as a widget where
ipywidgets is installed), or on a terminal that standard error goes to. Nobody else pays for it.

    with Bar(8, "engine") as bar:                                    # a wait that can be done in slices
        came = bar.wait(lambda s: session.wait_for(all_there, s), session.dispatch_width, timeout_s)

    for value in Bar(len(results), "task", title="map").over(results): ...    # an iteration

    with Bar(len(tasks), "task", stage=here(widget=False)) as bar:   # by hand, as often as one likes
        bar.update(done)
"""

from __future__ import annotations

import sys
import time
from collections.abc import Callable, Iterable, Iterator
from importlib import util
from types import TracebackType
from typing import Any, NamedTuple, Protocol, TypeVar

from hiersched.client.shell import current_shell
from hiersched.limits import PROGRESS_AFTER_S, PROGRESS_PERIOD_S

Value = TypeVar("Value")


class Drawn(Protocol):
    """What is used of a tqdm bar."""

    def update(self, n: int, /) -> Any:
        """So many more are done."""

    def close(self) -> None:
        """Leave it as it is."""


class Stage(NamedTuple):
    """Where a bar would stand. draw: (total, unit, title) -> a bar, None where nobody looks. clock: seconds."""

    draw: Callable[[int | None, str, str], Drawn] | None
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
    """`done` of `total`; None: nobody knows of how many. unit: what is counted, in the singular."""

    def __init__(self, total: int | None, unit: str, *, title: str = "", stage: Stage | None = None) -> None:
        self._total, self._unit, self._title = total, unit, title
        self._draw, self._clock = here() if stage is None else stage
        self._drawn: Drawn | None = None
        self._done = 0
        self._shown_at = self._clock() + PROGRESS_AFTER_S

    @property
    def is_shown(self) -> bool:
        """Whether it has lasted long enough, and somebody looks."""
        return self._drawn is not None

    def update(self, done: int) -> None:
        """So many are done by now."""
        if self._drawn is None:
            if self._draw is None or self._clock() < self._shown_at:
                return
            self._drawn = self._draw(self._total, self._unit, self._title)
        if done != self._done:
            self._drawn.update(done - self._done)
            self._done = done

    def wait(
        self,
        wait: Callable[[float | None], bool],
        done: Callable[[], int],
        timeout_s: float | None = None,
        *,
        period_s: float = PROGRESS_PERIOD_S,
    ) -> bool:
        """What `wait(timeout_s)` gives, called in slices of `period_s` so that the bar can show `done()` in between."""
        if self._draw is None:
            return wait(timeout_s)
        deadline = None if timeout_s is None else self._clock() + timeout_s
        slice_s = PROGRESS_AFTER_S  # nothing is shown before
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


def _on_terminal() -> bool:
    return sys.stderr is not None and sys.stderr.isatty()  # there is none under pythonw and in some daemons


def _draw_text(total: int | None, unit: str, title: str) -> Drawn:
    from tqdm.std import tqdm

    drawn: Drawn = tqdm(total=total, unit=f" {unit}", desc=title or None, file=sys.stderr, dynamic_ncols=True)
    return drawn


def _draw_widget(total: int | None, unit: str, title: str) -> Drawn:
    from tqdm.notebook import tqdm

    drawn: Drawn = tqdm(total=total, unit=f" {unit}", desc=title or None)
    return drawn
